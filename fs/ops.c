/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests. Each handler copies what it needs out of libfuse's buffer (which
 * the next request overwrites) and starts a coroutine, which runs at once and mostly
 * to its end: what is in caches is answered without going back to the loop.
 */
#include "config.h"

#include "fs/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "fs/control.h"
#include "fs/data.h"
#include "fs/handles.h"
#include "fs/log.h"
#include "fs/session.h"
#include "fs/snapshot-dir.h"
#include "fs/status.h"
#include "fs/text.h"
#include "fs/xattr.h"

#define FOREVER (10 * 365.0 * 86400) /* seconds: nothing changes in a read-only mount */

struct call {
	struct worker *worker;
	fuse_req_t req;
	void (*run)(struct call *c);
	uint64_t node, offset;
	size_t size;
	int whence;
	bool plus;
	struct fuse_file_info fi;
	char name[]; /* lookup, getxattr */
};

static void call_main(void *arg)
{
	struct call *c = arg;

	c->run(c);
	g_free(c);
}

static struct call *call_new(fuse_req_t req, void (*run)(struct call *c), uint64_t node,
			     const char *name)
{
	size_t len = name ? strlen(name) + 1 : 0;
	struct call *c = g_malloc0(sizeof(*c) + len);

	c->worker = worker_self();
	c->req = req;
	c->run = run;
	c->node = node;
	if (name)
		memcpy(c->name, name, len);
	return c;
}

static void call_start(struct call *c)
{
	worker_start(c->worker, call_main, c);
}

/* An error of the tree, opening a snapshot or reading a table: said in the log if it is one. */
static void reply_err(struct call *c, int err)
{
	if (err == EIO)
		log_read_error(tree_image(c->worker->tree), 0, 0, err);
	fuse_reply_err(c->req, err);
}

/* ---- attributes ---- */

/* In a writable mount partitions and snapshots come and go, and the kernel is to ask each time. */
static bool names_are_fixed(const struct tree *t, uint64_t dir)
{
	return !tree_is_writable(t) ||
	       (node_leaf(dir) != LEAF_PARTITIONS && node_leaf(dir) != LEAF_SNAPSHOTS);
}

/* The kernel may keep everything but the size of a text that was not made yet. */
static double attr_timeout(uint64_t node)
{
	return node_is_text(node) ? 0 : FOREVER;
}

static int stat_node(struct tree *t, uint64_t node, struct stat *st)
{
	struct window w;
	int ret = tree_stat(t, node, st);

	if (ret)
		return ret;
	if (node_is_text(node)) {
		st->st_size = (off_t)text_size(node);
		st->st_blocks = (st->st_size + 511) / 512;
	} else if (S_ISREG(st->st_mode) && !node_is_control(node)) {
		ret = tree_window(t, node, &w);
		if (ret)
			return ret;
		st->st_blocks = (blkcnt_t)data_blocks(&w, node);
		tree_window_put(t, &w);
	}
	return 0;
}

int ops_fill_entry(struct tree *t, uint64_t dir, uint64_t node, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = node;
	e->generation = 1;
	e->entry_timeout = names_are_fixed(t, dir) ? FOREVER : 0;
	e->attr_timeout = attr_timeout(node);
	return stat_node(t, node, &e->attr);
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
		e.entry_timeout = FOREVER;
		ret = 0;
	}
	if (ret)
		reply_err(c, -ret);
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
	int ret = stat_node(c->worker->tree, c->node, &st);

	if (ret)
		reply_err(c, -ret);
	else
		fuse_reply_attr(c->req, &st, attr_timeout(c->node));
}

static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
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
			reply_err(c, -ret);
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

static void run_open(struct call *c)
{
	int ret = handles_add(c->node, false);

	c->fi.keep_cache = 1;
	if (ret)
		fuse_reply_err(c->req, -ret);
	else if (fuse_reply_open(c->req, &c->fi) == -ENOENT)
		handles_drop(c->node, false);
}

static void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct call *c;

	if (node_is_control(node)) {
		control_op_open(req, node, fi);
		return;
	}
	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
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
		handles_drop(node, false);
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
	ret = tree_window(c->worker->tree, c->node, &w);
	if (ret) {
		reply_err(c, -ret);
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
	int ret = tree_window(c->worker->tree, c->node, &w);

	if (ret) {
		reply_err(c, -ret);
		return;
	}
	ret = data_seek(&w, c->offset, c->whence, &found);
	tree_window_put(c->worker->tree, &w);
	if (ret)
		reply_err(c, -ret);
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

/* ---- control files ---- */

static void op_write(fuse_req_t req, fuse_ino_t node, const char *data, size_t size, off_t offset,
		     struct fuse_file_info *fi)
{
	if (node_is_control(node))
		control_op_write(req, data, size, (uint64_t)offset, fi);
	else
		fuse_reply_err(req, EROFS);
}

static void op_flush(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	if (node_is_control(node))
		control_op_flush(req, fi);
	else
		fuse_reply_err(req, 0);
}

/* What a shell's ">" asks for: there is nothing to cut. */
static void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *st, int set,
		       struct fuse_file_info *fi)
{
	if (node_is_control(node) && tree_is_writable(worker_self()->tree) &&
	    !(set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) &&
	    (!(set & FUSE_SET_ATTR_SIZE) || st->st_size == 0))
		call_start(call_new(req, run_getattr, node, NULL));
	else
		fuse_reply_err(req, tree_is_writable(worker_self()->tree) ? EPERM : EROFS);
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
		reply_err(c, -ret);
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
		reply_err(c, -ret);
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
	conn->max_background = 64; /* read-ahead of several readers at a time */
	conn->congestion_threshold = 64;
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
	.release = op_release,
	.poll = op_poll,
	.setattr = op_setattr,
	.mkdir = snapshot_dir_op_mkdir,
	.rmdir = snapshot_dir_op_rmdir,
	.rename = snapshot_dir_op_rename,
	.lseek = op_lseek,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.statfs = op_statfs,
};
