/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that read, and the table of all. */
#include "config.h"

#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "fs/attr.h"
#include "fs/call.h"
#include "fs/coherence.h"
#include "fs/control.h"
#include "fs/data.h"
#include "fs/handles.h"
#include "fs/kernel.h"
#include "fs/log.h"
#include "fs/overrun.h"
#include "fs/receive.h"
#include "fs/session.h"
#include "fs/snapshot-dir.h"
#include "fs/status.h"
#include "fs/text.h"
#include "fs/write.h"
#include "fs/xattr.h"

/* ---- attributes ---- */

/* In a writable mount partitions and snapshots come and go, layers change their sizes, and the
 * kernel is to ask each time. */
static bool names_are_fixed(const struct tree *t, uint64_t dir)
{
	unsigned leaf = node_leaf(dir);

	return !tree_is_writable(t) ||
	       (leaf != LEAF_PARTITIONS && leaf != LEAF_SNAPSHOTS && leaf != LEAF_LAYERS);
}

int ops_fill_entry(struct tree *t, uint64_t dir, uint64_t node, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = node;
	e->generation = 1;
	e->entry_timeout = names_are_fixed(t, dir) ? ATTR_FOREVER : 0;
	e->attr_timeout = attr_timeout(node);
	if (tree_is_writable(t) && tree_node_is_disk(t, node))
		kernel_knows(node);
	return attr_stat(t, node, &e->attr);
}

static void run_lookup(struct call *c)
{
	struct fuse_entry_param e;
	uint64_t child;
	int ret = tree_lookup(c->worker->tree, c->node, c->name, &child);

	if (!ret)
		ret = ops_fill_entry(c->worker->tree, c->node, child, &e);
	if (ret == -ENOENT && names_are_fixed(c->worker->tree, c->node)) {
		/* Inode 0: the kernel remembers that there is no such name. */
		memset(&e, 0, sizeof(e));
		e.entry_timeout = ATTR_FOREVER;
		ret = 0;
	}
	if (ret)
		call_error(c, -ret);
	else
		fuse_reply_entry(c->req, &e);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	call_start(call_new(req, run_lookup, parent, name));
}

static void run_getattr(struct call *c)
{
	struct stat st;
	int ret = attr_stat(c->worker->tree, c->node, &st);

	if (ret)
		call_error(c, -ret);
	else
		fuse_reply_attr(c->req, &st, attr_timeout(c->node));
}

/* fi: not stat(2), but a program that is about to write, or to read behind the end. */
static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	if (fi && overrun_refuses(node)) {
		fuse_reply_err(req, EFBIG);
		return;
	}
	call_start(call_new(req, run_getattr, node, NULL));
}

static void op_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct worker *w = worker_self();
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};

	st.f_blocks = tree_image(w->tree)->size / 4096;
	st.f_files = 1;
	fuse_reply_statfs(req, &st);
}

/* ---- directories ---- */

static uint64_t nth_entry(struct tree *t, uint64_t dir, uint64_t n, char name[256], int *ret)
{
	uint64_t child = dir;

	*ret = 0;
	if (n == 0)
		strcpy(name, ".");
	else if (n == 1)
		child = tree_parent(dir), strcpy(name, "..");
	else
		*ret = tree_child(t, dir, n - 2, &child, name);
	return child;
}

/* One entry into buf; the bytes that it takes, which may be more than len. */
static size_t add_entry(struct call *c, char *buf, size_t len, uint64_t n, uint64_t node,
			const char *name, int *ret)
{
	struct fuse_entry_param e = {.attr = {.st_ino = node}};
	bool dots = n < 2;

	if (!c->plus) {
		/* The type in d_type: only snapshots/ and the root have directories. */
		*ret = tree_stat(c->worker->tree, node, &e.attr);
		return fuse_add_direntry(c->req, buf, len, name, &e.attr, (off_t)n + 1);
	}
	if (dots) {
		/* "." and ".." give no reference: inode 0, and the kernel does not look. */
		e.attr.st_mode = S_IFDIR;
		*ret = 0;
	} else {
		*ret = ops_fill_entry(c->worker->tree, c->node, node, &e);
	}
	return fuse_add_direntry_plus(c->req, buf, len, name, &e, (off_t)n + 1);
}

static void run_readdir(struct call *c)
{
	g_autofree char *buf = g_malloc(c->size);
	size_t used = 0;

	for (uint64_t n = c->offset;; n++) {
		char name[256];
		int ret;
		uint64_t node = nth_entry(c->worker->tree, c->node, n, name, &ret);
		size_t need;

		if (ret == -ENOENT)
			break;
		if (!ret) {
			need = add_entry(c, buf + used, c->size - used, n, node, name, &ret);
			if (!ret && need > c->size - used)
				break;
		}
		if (ret && !used) {
			call_error(c, -ret);
			return;
		}
		if (ret)
			break; /* what was found first; the next call meets the error */
		used += need;
	}
	fuse_reply_buf(c->req, buf, used);
}

static void start_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, bool plus)
{
	struct call *c = call_new(req, run_readdir, node, NULL);

	c->size = MIN(size, DATA_READ_MAX);
	c->offset = (uint64_t)offset;
	c->plus = plus;
	call_start(c);
}

static void op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
		       struct fuse_file_info *fi)
{
	start_readdir(req, node, size, offset, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
			   struct fuse_file_info *fi)
{
	start_readdir(req, node, size, offset, true);
}

static void op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	bool fixed = names_are_fixed(worker_self()->tree, node);

	fi->cache_readdir = fixed;
	fi->keep_cache = fixed;
	fuse_reply_open(req, fi);
}

/* ---- files ---- */

static void run_open_text(struct call *c)
{
	struct text *text;
	int ret = text_open(c->worker->tree, c->node, &text);

	/* Its size is known only now, after the kernel asked for it. */
	c->fi.direct_io = 1;
	c->fi.fh = (uintptr_t)text;
	if (ret)
		fuse_reply_err(c->req, -ret);
	else if (fuse_reply_open(c->req, &c->fi) == -ENOENT)
		text_close(text); /* interrupted: no release will come */
}

static bool opens_for_writing(const struct fuse_file_info *fi)
{
	return (fi->flags & O_ACCMODE) != O_RDONLY;
}

/* How a file whose bytes may change is opened depends on what else is open. */
static int open_changing(struct call *c)
{
	struct coherence_open how;
	struct window w;
	int ret = tree_window(c->worker->tree, c->node, &w);

	if (ret)
		return ret;
	how = coherence_opened(c->node, &w);
	c->fi.direct_io = how.direct;
	c->fi.keep_cache = how.keep;
	tree_window_put(c->worker->tree, &w);
	return 0;
}

static void closed(uint64_t node, bool writing)
{
	handles_drop(node, writing);
	if (tree_node_changes(worker_self()->tree, node))
		coherence_closed(node);
}

static void run_open(struct call *c)
{
	bool writing = opens_for_writing(&c->fi);
	int ret = handles_add(c->node, writing);

	if (ret) {
		fuse_reply_err(c->req, -ret);
		return;
	}
	c->fi.keep_cache = 1;
	if (tree_node_changes(c->worker->tree, c->node))
		ret = open_changing(c);
	if (ret) {
		handles_drop(c->node, writing);
		call_error(c, -ret);
	} else if (fuse_reply_open(c->req, &c->fi) == -ENOENT) {
		closed(c->node, writing); /* interrupted: no release will come */
	}
}

static void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct call *c;

	if (node_is_control(node)) {
		control_op_open(req, node, fi);
		return;
	}
	if (opens_for_writing(fi) && !tree_node_is_writable(worker_self()->tree, node)) {
		fuse_reply_err(req, EROFS);
		return;
	}
	c = call_new(req, node_is_text(node) ? run_open_text : run_open, node, NULL);
	c->fi = *fi;
	call_start(c);
}

static void op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	if (node_is_control(node)) {
		control_op_release(req, fi);
		return;
	}
	if (node_is_text(node))
		text_close((struct text *)(uintptr_t)fi->fh);
	else
		closed(node, opens_for_writing(fi));
	fuse_reply_err(req, 0);
}

static void run_read(struct call *c)
{
	struct window w;
	int ret;

	if (node_is_text(c->node)) {
		text_reply_read(c->req, (struct text *)(uintptr_t)c->fi.fh, c->offset, c->size);
		return;
	}
	if (tree_node_changes(c->worker->tree, c->node))
		coherence_before_read(c->node, c->offset, c->size);
	ret = tree_window(c->worker->tree, c->node, &w);
	if (ret) {
		call_error(c, -ret);
		return;
	}
	data_reply_read(c->req, &w, c->offset, c->size, c->fi.flags & O_DIRECT);
	status_count(c->worker->tree, STATUS_READ,
		     c->offset < w.size ? MIN(c->size, w.size - c->offset) : 0);
	tree_window_put(c->worker->tree, &w);
}

static void op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct call *c;

	if (node_is_control(node)) {
		control_op_read(req, (uint64_t)offset, size, fi);
		return;
	}
	c = call_new(req, run_read, node, NULL);
	c->fi = *fi;
	c->size = size;
	c->offset = (uint64_t)offset;
	call_start(c);
}

static void run_lseek(struct call *c)
{
	struct window w;
	uint64_t found;
	int ret;

	/* What the kernel still keeps is data too, and may make the disk longer. */
	if (handles_is_written(c->node))
		kernel_settle_range(c->node, c->offset, UINT64_MAX);
	if (tree_node_changes(c->worker->tree, c->node))
		coherence_before_read(c->node, c->offset, UINT64_MAX);
	ret = tree_window(c->worker->tree, c->node, &w);
	if (ret) {
		call_error(c, -ret);
		return;
	}
	ret = data_seek(&w, c->offset, c->whence, &found);
	tree_window_put(c->worker->tree, &w);
	if (ret)
		call_error(c, -ret);
	else
		fuse_reply_lseek(c->req, (off_t)found);
}

static void op_lseek(fuse_req_t req, fuse_ino_t node, off_t offset, int whence,
		     struct fuse_file_info *fi)
{
	struct call *c;

	if ((whence != SEEK_DATA && whence != SEEK_HOLE) || offset < 0 || node_is_text(node) ||
	    node_is_control(node)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	c = call_new(req, run_lseek, node, NULL);
	c->offset = (uint64_t)offset;
	c->whence = whence;
	call_start(c);
}

/* ---- changing: control files take commands, disks bytes ---- */

static void op_write(fuse_req_t req, fuse_ino_t node, const char *data, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	if (node_is_control(node))
		control_op_write(req, data, size, (uint64_t)offset, fi);
	else
		write_op_write(req, node, data, size, offset, fi);
}

/*
 * A close. The kernel has sent what it kept of the file before, and tells errors of that by itself;
 * close(2) does not promise more, so nothing is synced.
 */
static void op_flush(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	if (node_is_control(node))
		control_op_flush(req, fi);
	else
		fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi)
{
	write_op_fsync(req, node);
}

/* What a shell's ">" asks for: there is nothing to cut. */
static bool changes_nothing(int set, const struct stat *attr)
{
	return !(set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) &&
	       (!(set & FUSE_SET_ATTR_SIZE) || attr->st_size == 0);
}

static void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *attr, int set,
		       struct fuse_file_info *fi)
{
	const struct tree *t = worker_self()->tree;

	if (tree_node_is_writable(t, node))
		write_op_setattr(req, node, attr, set);
	else if (node_is_control(node) && tree_is_writable(t) && changes_nothing(set, attr))
		call_start(call_new(req, run_getattr, node, NULL));
	else
		fuse_reply_err(req, tree_is_writable(t) ? EPERM : EROFS);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t len,
			 struct fuse_file_info *fi)
{
	/* Not EOPNOTSUPP: posix_fallocate would write zeroes to it then. */
	if (node_is_control(node))
		fuse_reply_err(req, ENODEV);
	else
		write_op_fallocate(req, node, mode, offset, len);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset,
			       struct fuse_file_info *fi_from, fuse_ino_t to, off_t to_offset,
			       struct fuse_file_info *fi_to, size_t len, int flags)
{
	write_op_copy_file_range(req, from, from_offset, to, to_offset, len);
}

/* Files that are no streams are always ready. */
static void op_poll(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi,
		    struct fuse_pollhandle *ph)
{
	if (node_is_control(node)) {
		control_op_poll(req, fi, ph);
		return;
	}
	if (ph)
		fuse_pollhandle_destroy(ph);
	fuse_reply_poll(req, POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
}

/* ---- extended attributes ---- */

static void reply_xattr(struct call *c, const char *data, size_t len)
{
	if (!c->size)
		fuse_reply_xattr(c->req, len);
	else if (len > c->size)
		fuse_reply_err(c->req, ERANGE);
	else
		fuse_reply_buf(c->req, data, len);
}

static void run_getxattr(struct call *c)
{
	g_autofree char *value = NULL;
	int ret = xattr_get(c->worker->tree, c->node, c->name, &value);

	if (ret)
		call_error(c, -ret);
	else
		reply_xattr(c, value, strlen(value));
}

static void op_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
	struct call *c;

	/* ls asks for security.* of everything that it shows. */
	if (!g_str_has_prefix(name, XATTR_PREFIX)) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	c = call_new(req, run_getxattr, node, name);
	c->size = size;
	call_start(c);
}

static void run_listxattr(struct call *c)
{
	g_autoptr(GString) names = g_string_new(NULL);
	int ret = xattr_list(c->worker->tree, c->node, names);

	if (ret)
		call_error(c, -ret);
	else
		reply_xattr(c, names->str, names->len);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size)
{
	struct call *c = call_new(req, run_listxattr, node, NULL);

	c->size = size;
	call_start(c);
}

/* ---- the connection ---- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	/* Requests are small: a pipe for each would only cost. */
	conn->want &= ~(unsigned)FUSE_CAP_SPLICE_READ;
	conn->want |= conn->capable &
		      (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS |
		       FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS);
	conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE);
	if (session_is_writable(userdata))
		conn->want |= conn->capable & FUSE_CAP_WRITEBACK_CACHE;
	conn->max_write = RECEIVE_WRITE_MAX;
	conn->max_background = 64; /* read-ahead of several readers at a time */
	/* Direct writes that wait until the kernel has given up pages must not be in the way of the
	 * writes by which it does so. */
	if (session_is_writable(userdata))
		conn->max_background = UINT16_MAX;
	conn->congestion_threshold = conn->max_background;
	conn->time_gran = 1;
	session_initialised(userdata);
}

const struct fuse_lowlevel_ops fs_operations = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
	.copy_file_range = op_copy_file_range,
	.release = op_release,
	.poll = op_poll,
	.setattr = op_setattr,
	.mkdir = snapshot_dir_op_mkdir,
	.unlink = snapshot_dir_op_unlink,
	.mknod = snapshot_dir_op_mknod,
	.symlink = snapshot_dir_op_symlink,
	.link = snapshot_dir_op_link,
	.rmdir = snapshot_dir_op_rmdir,
	.rename = snapshot_dir_op_rename,
	.lseek = op_lseek,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.statfs = op_statfs,
};
