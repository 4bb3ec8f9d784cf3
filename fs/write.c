/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/write.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "fs/attr.h"
#include "fs/call.h"
#include "fs/coherence.h"
#include "fs/control.h"
#include "fs/data.h"
#include "fs/events.h"
#include "fs/kernel.h"
#include "fs/log.h"
#include "fs/overrun.h"
#include "fs/session.h"
#include "fs/status.h"

#define SECTOR	   512
#define COPY_PIECE (1u << 20)
#define COPY_MAX   (64u << 20) /* bytes of one copy_file_range: who wants more asks again */

/* A writable mount has one loop; who makes the disk longer does so alone. */
static struct co_mutex growing;

/* ---- errors ---- */

/* What a program may be told: a full or worn host as it is, whatever else is wrong as EIO. */
static int errno_for_writers(int ret)
{
	switch (ret) {
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
	case -EBUSY: /* growing, during a commit */
	case -EPERM:
	case -EROFS:
	case -ENOMEM:
	case -EINVAL:
	case -EOPNOTSUPP:
		return ret;
	default:
		return -EIO;
	}
}

static int told(const struct window *w, uint64_t offset, uint64_t len, const char *what, int ret)
{
	/* Refusals are the caller's to know, but for those that the image gives a reason for. */
	bool refused = ret == -EFBIG || ret == -EPERM || ret == -EOPNOTSUPP;

	if (ret < 0 && (!refused || image_fault_text(w->img)))
		log_change_error(w->img, what, w->start + offset, len, -ret);
	return ret < 0 ? errno_for_writers(ret) : 0;
}

/* ---- the window and its end ---- */

/* 0, or -EROFS for what is never written to. */
static int writable_window(struct call *c, uint64_t node, struct window *w)
{
	if (!tree_node_is_writable(c->worker->tree, node))
		return -EROFS;
	return tree_window(c->worker->tree, node, w);
}

static bool is_whole_disk(const struct window *w)
{
	return w->start == 0 && w->size == w->img->size;
}

/*
 * Makes the disk `size` bytes long; growing is held. A format that cannot: `refusal`. Formats with
 * clusters count in sectors, and the rest of the last one is zero.
 */
static int resize(struct image *img, uint64_t size, int refusal)
{
	g_autoptr(GError) error = NULL;

	if (img->cluster_size)
		size += -size % SECTOR;
	if (image_resize(img, size, NULL, &error)) {
		events_tell("resized", EVENT_NUMBER("size", img->size));
		return 0;
	}
	if (g_error_matches(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED))
		return refusal;
	log_message("%s: cannot make the disk %" G_GUINT64_FORMAT " bytes long: %s", img->filename,
		    size, error->message);
	return -control_errno(error);
}

/* A write up to `end`: the disk grows where its format can, a partition never does. */
static int make_room(struct window *w, uint64_t end)
{
	int ret = 0;

	if (end <= w->size)
		return 0;
	if (!is_whole_disk(w))
		return -EFBIG;
	co_mutex_lock(&growing);
	if (end > w->img->size)
		ret = resize(w->img, end, -EFBIG);
	co_mutex_unlock(&growing);
	w->size = w->img->size;
	return ret;
}

/* Bytes of the window changed, or may have. */
static void changed(struct call *c, uint64_t node)
{
	data_changed();
	attr_wrote(node);
	tree_wrote(c->worker->tree);
	kernel_attributes_later();
}

/* ---- write ---- */

/*
 * After a write of a cached file with O_SYNC the kernel sends an fsync by itself, after one of a
 * direct file it only passes the flag on.
 */
static bool lasts_at_once(const struct call *c)
{
	return (c->fi.flags & O_DSYNC) && coherence_is_direct(c->node);
}

static void write_window(struct call *c)
{
	struct window w;
	int ret = writable_window(c, c->node, &w);

	if (ret) {
		call_error(c, -ret);
		return;
	}
	coherence_before_write(c->node, c->offset, c->size);
	ret = make_room(&w, c->offset + c->size);
	if (!ret)
		ret = image_write(w.img, w.start + c->offset, c->data, c->size);
	if (ret == -EFBIG)
		overrun_note(c->node, w.size);
	if (!ret && lasts_at_once(c))
		ret = image_flush(w.img);
	ret = told(&w, c->offset, c->size, "writing", ret);
	if (ret)
		session_lost_write(c->worker->session);
	changed(c, c->node);
	coherence_after_write(c->node, c->offset, c->size);
	status_count(c->worker->tree, STATUS_WRITE, ret ? 0 : c->size);
	tree_window_put(c->worker->tree, &w);
	if (ret)
		fuse_reply_err(c->req, -ret);
	else
		fuse_reply_write(c->req, c->size);
}

static void run_write(struct call *c)
{
	struct kernel_write k;
	bool kept = c->fi.writepage && coherence_is_cached(c->node);

	if (kept)
		kernel_write_begin(&k);
	write_window(c);
	if (kept)
		kernel_write_end(&k);
}

void write_op_write(fuse_req_t req, fuse_ino_t node, const char *data, size_t size, off_t offset,
		    const struct fuse_file_info *fi)
{
	struct call *c = call_new(req, run_write, node, NULL);

	c->fi = *fi;
	c->data = data;
	c->size = size;
	call_keep_buffer(c);
	c->offset = (uint64_t)offset;
	call_start(c);
}

/* ---- fsync ---- */

static void run_fsync(struct call *c)
{
	struct window w;
	int ret = writable_window(c, c->node, &w);

	/* What cannot be written to has nothing to be made durable. */
	if (ret) {
		fuse_reply_err(c->req, ret == -EROFS ? 0 : -ret);
		return;
	}
	ret = told(&w, 0, w.size, "flushing", image_flush(w.img));
	kernel_attributes_now();
	status_count(c->worker->tree, STATUS_FLUSH, 0);
	tree_window_put(c->worker->tree, &w);
	fuse_reply_err(c->req, -ret);
}

void write_op_fsync(fuse_req_t req, fuse_ino_t node)
{
	call_start(call_new(req, run_fsync, node, NULL));
}

/* ---- attributes ---- */

static int truncate_window(struct window *w, uint64_t size)
{
	int ret = 0;

	if (size == w->size)
		return 0;
	if (!is_whole_disk(w))
		return -EPERM;
	co_mutex_lock(&growing);
	if (size != w->img->size)
		ret = resize(w->img, size, -EPERM);
	co_mutex_unlock(&growing);
	return ret;
}

static int set_size(struct call *c, uint64_t size)
{
	struct window w;
	int ret = writable_window(c, c->node, &w);

	if (ret)
		return ret;
	coherence_before_write(c->node, MIN(size, w.size), UINT64_MAX);
	ret = truncate_window(&w, size);
	changed(c, c->node);
	coherence_after_write(c->node, MIN(size, w.size), UINT64_MAX);
	tree_window_put(c->worker->tree, &w);
	return ret;
}

static int set_owner(struct call *c, int set)
{
	struct stat st;
	int ret = attr_stat(c->worker->tree, c->node, &st);

	if (!ret && (((set & FUSE_SET_ATTR_UID) && c->attr.st_uid != st.st_uid) ||
		     ((set & FUSE_SET_ATTR_GID) && c->attr.st_gid != st.st_gid)))
		ret = -EPERM;
	return ret;
}

static void run_setattr(struct call *c)
{
	int set = c->mode, ret = 0;
	struct stat st;

	if (set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		ret = set_owner(c, set);
	if (!ret && (set & FUSE_SET_ATTR_SIZE))
		ret = set_size(c, (uint64_t)c->attr.st_size);
	if (!ret)
		attr_set(c->node, &c->attr, set);
	if (!ret)
		ret = attr_stat(c->worker->tree, c->node, &st);
	if (ret)
		call_error(c, -ret);
	else
		fuse_reply_attr(c->req, &st, attr_timeout(c->node));
}

void write_op_setattr(fuse_req_t req, fuse_ino_t node, const struct stat *attr, int set)
{
	struct call *c = call_new(req, run_setattr, node, NULL);

	c->attr = *attr;
	c->mode = set;
	call_start(c);
}

/* ---- fallocate ---- */

/*
 * What is a hole stays one: to write zeroes into it would make tables for nothing, and mkfs
 * discards whole disks. Space that is kept for zeroes is given up.
 */
static int punch(struct image *img, uint64_t at, uint64_t len)
{
	int ret = 0;

	while (!ret && len > 0) {
		struct extent e;
		uint64_t n;

		ret = image_map_run(img, at, len, NULL, &e);
		if (ret)
			return ret;
		n = e.start + e.len - at;
		if (!extent_is_zero(&e) || (e.flags & EXTENT_HAS_HOST))
			ret = image_write_zeroes(img, at, n, true);
		at += n;
		len -= n;
	}
	return ret;
}

static int change_space(struct window *w, int mode, uint64_t offset, uint64_t len)
{
	uint64_t at = w->start + offset;

	if (mode & FALLOC_FL_PUNCH_HOLE)
		return punch(w->img, at, len);
	if (mode & FALLOC_FL_ZERO_RANGE)
		return image_write_zeroes(w->img, at, len, false);
	return image_allocate(w->img, at, len);
}

static void run_fallocate(struct call *c)
{
	uint64_t len = c->len;
	struct window w;
	int ret = writable_window(c, c->node, &w);

	if (ret) {
		call_error(c, -ret);
		return;
	}
	coherence_before_write(c->node, c->offset, len);
	if (!(c->mode & FALLOC_FL_KEEP_SIZE))
		ret = make_room(&w, c->offset + len);
	/* There is nothing to keep behind the end. */
	len = c->offset < w.size ? MIN(len, w.size - c->offset) : 0;
	if (!ret && len)
		ret = change_space(&w, c->mode, c->offset, len);
	ret = told(&w, c->offset, len, "making room or zeroes", ret);
	changed(c, c->node);
	coherence_after_write(c->node, c->offset, c->len);
	tree_window_put(c->worker->tree, &w);
	fuse_reply_err(c->req, -ret);
}

void write_op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t len)
{
	const int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
	struct call *c;

	if (mode & ~known) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	c = call_new(req, run_fallocate, node, NULL);
	c->mode = mode;
	c->offset = (uint64_t)offset;
	c->len = (uint64_t)len;
	call_start(c);
}

/* ---- copy_file_range ---- */

static bool overlap(const struct window *a, uint64_t at_a, const struct window *b, uint64_t at_b,
		    uint64_t len)
{
	at_a += a->start;
	at_b += b->start;
	return a->img == b->img && at_a < at_b + len && at_b < at_a + len;
}

/* Copies the front of len bytes: a run that is alike, or a piece of it; *done says how much. */
static int copy_step(struct window *from, uint64_t from_at, struct window *to, uint64_t to_at,
		     uint64_t len, void *buf, uint64_t *done)
{
	struct extent e;
	int ret = image_map_run(from->img, from->start + from_at, len, NULL, &e);

	if (ret)
		return ret;
	*done = e.start + e.len - (from->start + from_at);
	if (extent_is_zero(&e))
		return image_write_zeroes(to->img, to->start + to_at, *done, true);
	*done = MIN(*done, COPY_PIECE);
	ret = image_read(from->img, from->start + from_at, buf, *done);
	return ret ? ret : image_write(to->img, to->start + to_at, buf, *done);
}

static int copy(struct window *from, uint64_t from_at, struct window *to, uint64_t to_at,
		uint64_t len, uint64_t *copied)
{
	g_autofree void *buf = g_try_malloc(COPY_PIECE);
	int ret = buf ? 0 : -ENOMEM;

	while (!ret && *copied < len) {
		uint64_t done;

		ret = copy_step(from, from_at + *copied, to, to_at + *copied, len - *copied, buf,
				&done);
		if (!ret)
			*copied += done;
	}
	return ret;
}

static void copy_windows(struct call *c, struct window *from, struct window *to)
{
	uint64_t len = MIN(c->len, COPY_MAX), copied = 0;
	int ret;

	len = c->offset < from->size ? MIN(len, from->size - c->offset) : 0;
	if (overlap(from, c->offset, to, c->to_offset, len))
		ret = -EINVAL;
	else
		ret = make_room(to, c->to_offset + len);
	if (tree_node_changes(c->worker->tree, c->node))
		coherence_before_read(c->node, c->offset, len);
	coherence_before_write(c->to_node, c->to_offset, len);
	if (!ret)
		ret = copy(from, c->offset, to, c->to_offset, len, &copied);
	ret = told(to, c->to_offset, len, "copying", ret);
	changed(c, c->to_node);
	coherence_after_write(c->to_node, c->to_offset, len);
	if (ret && !copied)
		fuse_reply_err(c->req, -ret);
	else
		fuse_reply_write(c->req, copied);
}

static void run_copy(struct call *c)
{
	struct window from, to;
	int ret = tree_window(c->worker->tree, c->node, &from);

	if (!ret) {
		ret = writable_window(c, c->to_node, &to);
		if (!ret) {
			copy_windows(c, &from, &to);
			tree_window_put(c->worker->tree, &to);
		}
		tree_window_put(c->worker->tree, &from);
	}
	if (ret)
		call_error(c, -ret);
}

void write_op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_ino_t to,
			      off_t to_offset, size_t len)
{
	struct call *c = call_new(req, run_copy, from, NULL);

	c->offset = (uint64_t)from_offset;
	c->to_node = to;
	c->to_offset = (uint64_t)to_offset;
	c->len = len;
	call_start(c);
}
