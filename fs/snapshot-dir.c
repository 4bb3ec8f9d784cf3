/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/snapshot-dir.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fs/control.h"
#include "fs/data.h"
#include "fs/events.h"
#include "fs/handles.h"
#include "fs/kernel.h"
#include "fs/names.h"
#include "fs/ops.h"
#include "fs/resized.h"
#include "fs/session.h"
#include "fs/status.h"

/*
 * The kernel tells of a close only after close(2) has returned, so who finds a file still open
 * looks again for a moment.
 */
#define BUSY_TRIES 20
#define BUSY_PAUSE 10000000 /* nanoseconds */

/* Files of the disk cannot be opened (only_writing: for writing) until handles_unbar. Yields. */
static bool bar_disk(unsigned disk, bool only_writing)
{
	for (unsigned i = 0; i < BUSY_TRIES; i++) {
		if (handles_bar(disk, only_writing))
			return true;
		co_sleep_ns(BUSY_PAUSE);
	}
	return handles_bar(disk, only_writing);
}

/* ---- changes ---- */

static int cannot_list(struct tree *t, int ret, GError **error)
{
	return control_refuse(error, -ret, "the snapshots cannot be listed: %s",
			      image_cause(tree_image(t), ret));
}

/* What image/ refused, with the errno that fits. */
static int errno_of(GError **error)
{
	return -control_errno(*error);
}

static int find(struct tree *t, GPtrArray *list, const struct snapshot_change *c)
{
	return c->shown ? tree_snapshot_index(t, c->name)
			: image_find_snapshot(list, c->name, NULL);
}

static const char *name_at(GPtrArray *list, int index)
{
	return ((struct snapshot *)g_ptr_array_index(list, index))->name;
}

/* By its name alone; -1: none has it. */
static int find_name(GPtrArray *list, const char *name)
{
	for (int i = 0; i < (int)list->len; i++)
		if (!strcmp(name_at(list, i), name))
			return i;
	return -1;
}

/* Deleting looks for names before IDs, as imgtool does: what is deleted is what was named. */
static int find_for_delete(struct tree *t, GPtrArray *list, const struct snapshot_change *c)
{
	int index = c->shown ? -1 : find_name(list, c->name);

	return index >= 0 ? index : find(t, list, c);
}

static int no_such(const struct snapshot_change *c, GError **error)
{
	return control_refuse(error, ENOENT, "there is no snapshot '%s'", c->name);
}

/* What can be made can be shown as a folder. 0 or -ENAMETOOLONG. */
static int check_name(const char *name, GError **error)
{
	return strlen(name) <= NAME_MAX
		       ? 0
		       : control_refuse(error, ENAMETOOLONG,
					"a snapshot's name has at most %d bytes", NAME_MAX);
}

int snapshot_create(struct tree *t, void *arg, GError **error)
{
	const struct snapshot_change *c = arg;
	GPtrArray *list;
	int ret = check_name(c->name, error);

	if (ret)
		return ret;
	/* The state of this moment has what programs wrote and the kernel has yet to send. */
	kernel_settle();
	ret = tree_change_begin(t, &list);
	if (ret)
		return cannot_list(t, ret, error);
	if (find_name(list, c->name) >= 0)
		ret = control_refuse(error, EEXIST, "there is a snapshot '%s' already", c->name);
	else if (!image_snapshot_create(tree_image(t), c->name, error))
		ret = errno_of(error);
	tree_change_end(t, ret ? TREE_SAME : TREE_ADDED, 0);
	if (!ret)
		events_tell("snapshot-created", EVENT_STRING("name", c->name));
	return ret;
}

static int delete_barred(struct tree *t, unsigned index, const char *name, GError **error)
{
	if (!tree_close_view(t, tree_snapshot_disk(t, index)))
		return control_refuse(error, EBUSY, "snapshot '%s' is being read", name);
	return image_snapshot_delete(tree_image(t), index, error) ? 0 : errno_of(error);
}

int snapshot_delete(struct tree *t, void *arg, GError **error)
{
	const struct snapshot_change *c = arg;
	g_autofree char *name = NULL;
	GPtrArray *list;
	int index = -1, ret = tree_change_begin(t, &list);

	if (ret)
		return cannot_list(t, ret, error);
	index = find_for_delete(t, list, c);
	if (index < 0) {
		ret = no_such(c, error);
	} else {
		unsigned disk = tree_snapshot_disk(t, (unsigned)index);

		name = g_strdup(name_at(list, index));
		if (bar_disk(disk, false)) {
			ret = delete_barred(t, (unsigned)index, name, error);
			handles_unbar();
			/* No other snapshot ever gets its number. */
			if (!ret)
				data_forget_disk(disk);
		} else {
			ret = control_refuse(error, EBUSY, "a file of snapshot '%s' is open", name);
		}
	}
	tree_change_end(t, ret ? TREE_SAME : TREE_REMOVED, (unsigned)index);
	if (!ret)
		events_tell("snapshot-deleted", EVENT_STRING("name", name));
	return ret;
}

int snapshot_rename(struct tree *t, void *arg, GError **error)
{
	const struct snapshot_change *c = arg;
	g_autofree char *name = NULL;
	GPtrArray *list;
	int index, ret = check_name(c->new_name, error);

	if (ret)
		return ret;
	ret = tree_change_begin(t, &list);
	if (ret)
		return cannot_list(t, ret, error);
	index = find(t, list, c);
	if (index < 0) {
		ret = no_such(c, error);
	} else if (find_name(list, c->new_name) >= 0) {
		ret = control_refuse(error, EEXIST, "there is a snapshot '%s' already",
				     c->new_name);
	} else {
		name = g_strdup(name_at(list, index));
		if (!image_snapshot_rename(tree_image(t), (unsigned)index, c->new_name, error))
			ret = errno_of(error);
	}
	tree_change_end(t, ret ? TREE_SAME : TREE_RENAMED, 0);
	if (!ret)
		events_tell("snapshot-renamed", EVENT_STRING("name", name),
			    EVENT_STRING("new_name", c->new_name));
	return ret;
}

static int apply_barred(struct tree *t, const struct snapshot_change *c, char **name,
			GError **error)
{
	GPtrArray *list;
	int index, ret = tree_change_begin(t, &list);

	if (ret)
		return cannot_list(t, ret, error);
	index = find(t, list, c);
	if (index < 0) {
		ret = no_such(c, error);
	} else {
		*name = g_strdup(name_at(list, index));
		if (!image_snapshot_apply(tree_image(t), (unsigned)index, error))
			ret = errno_of(error);
	}
	tree_change_end(t, ret ? TREE_SAME : TREE_APPLIED, 0);
	return ret;
}

int snapshot_apply(struct tree *t, void *arg, GError **error)
{
	const struct snapshot_change *c = arg;
	g_autofree char *name = NULL;
	int ret;

	if (!bar_disk(DISK_TOP, true))
		return control_refuse(error, EBUSY, "disk.raw or a partition is open for writing");
	ret = apply_barred(t, c, &name, error);
	if (!ret) {
		kernel_changed(t);
		resized_tell(t);
	}
	handles_unbar();
	if (!ret)
		events_tell("snapshot-applied", EVENT_STRING("name", name));
	return ret;
}

/* ---- requests ---- */

struct request {
	fuse_req_t req;
	struct tree *tree;
	control_fn *change;
	char *name, *new_name;
	bool entry; /* answered with the new directory */
};

static void reply_entry(struct request *r, const char *shown)
{
	uint64_t dir = node_make(DISK_TOP, LEAF_SNAPSHOTS), child;
	struct fuse_entry_param e;
	int ret = tree_lookup(r->tree, dir, shown, &child);

	if (!ret)
		ret = ops_fill_entry(r->tree, dir, child, &e);
	if (ret)
		fuse_reply_err(r->req, -ret);
	else
		fuse_reply_entry(r->req, &e);
}

static void request_main(void *arg)
{
	struct request *r = arg;
	g_autofree char *plain = r->entry ? name_unescape(r->name) : NULL;
	g_autofree char *plain_new = r->new_name ? name_unescape(r->new_name) : NULL;
	struct snapshot_change c = {plain ? plain : r->name, plain_new, !r->entry};
	int ret = -EINVAL;

	if ((r->entry && !plain) || (r->new_name && !plain_new))
		status_error(EINVAL, "snapshots", "the new name would be shown as another one");
	else
		ret = control_run(r->tree, "snapshots", r->change, &c);
	if (ret || !r->entry)
		fuse_reply_err(r->req, -ret);
	else
		reply_entry(r, r->name);
	g_free(r->name);
	g_free(r->new_name);
	g_free(r);
}

/* Nothing else can be made or removed. */
static void refuse_change(fuse_req_t req)
{
	fuse_reply_err(req, tree_is_writable(worker_self()->tree) ? EPERM : EROFS);
}

static void start(fuse_req_t req, fuse_ino_t parent, control_fn *change, const char *name,
		  const char *new_name, bool entry)
{
	struct worker *w = worker_self();
	struct request *r;

	if (!tree_is_writable(w->tree) || parent != node_make(DISK_TOP, LEAF_SNAPSHOTS)) {
		refuse_change(req);
		return;
	}
	r = g_new(struct request, 1);
	*r = (struct request){req, w->tree, change, g_strdup(name), g_strdup(new_name), entry};
	worker_start_aside(w, request_main, r);
}

void snapshot_dir_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	refuse_change(req);
}

void snapshot_dir_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
			   dev_t dev)
{
	refuse_change(req);
}

void snapshot_dir_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
			     const char *name)
{
	refuse_change(req);
}

void snapshot_dir_op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char *name)
{
	refuse_change(req);
}

void snapshot_dir_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	start(req, parent, snapshot_create, name, NULL, true);
}

void snapshot_dir_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	start(req, parent, snapshot_delete, name, NULL, false);
}

void snapshot_dir_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
			    fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
	if (flags & ~(unsigned)RENAME_NOREPLACE)
		fuse_reply_err(req, EINVAL);
	else if (new_parent != parent)
		fuse_reply_err(req, EPERM);
	else
		start(req, parent, snapshot_rename, name, new_name, false);
}
