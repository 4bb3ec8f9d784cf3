/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fs/kernel.h"
#include "fs/log.h"
#include "fs/session.h"
#include "image/fsprobe.h"
#include "image/inspect.h"
#include "image/report.h"

#define READ_MAX (1u << 20)

struct text {
	unsigned refs; /* with the lock */
	int fd;
	uint64_t size;
};

/* The last ones that were made, of all loops. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct text *texts[LEAF_CHECK - LEAF_INFO + 1];
/* Every one that there is, with the lock. */
static GQueue all = G_QUEUE_INIT;

static struct text **slot_of(uint64_t node)
{
	return &texts[node_leaf(node) - LEAF_INFO];
}

/* Adds a reference; NULL: none was made. */
static struct text *text_get(uint64_t node)
{
	struct text *text;

	pthread_mutex_lock(&lock);
	text = *slot_of(node);
	if (text)
		text->refs++;
	pthread_mutex_unlock(&lock);
	return text;
}

/* With the lock. */
static void drop(struct text *text)
{
	g_queue_remove(&all, text);
	close(text->fd);
	g_free(text);
}

/* With the lock. */
static void put(struct text *text)
{
	if (text && --text->refs == 0)
		drop(text);
}

void text_close(struct text *text)
{
	pthread_mutex_lock(&lock);
	put(text);
	pthread_mutex_unlock(&lock);
}

uint64_t text_size(uint64_t node)
{
	struct text *text = text_get(node);
	uint64_t size = text ? text->size : 0;

	text_close(text);
	return size;
}

/* ---- contents ---- */

static int report_partition(struct report *r, struct image *img, const struct partition *p)
{
	struct fsprobe fs;
	int ret = fsprobe_image(img, p->start, p->len, &fs);
	const struct {
		const char *key, *value;
	} strings[] = {
		{"type", p->type},	{"type-name", p->type_name}, {"label", p->label},
		{"uuid", p->uuid},	{"fs-type", fs.type},	     {"fs-version", fs.version},
		{"fs-label", fs.label}, {"fs-uuid", fs.uuid},
	};

	report_begin_object(r, NULL);
	report_uint(r, "number", p->number);
	report_uint(r, "start", p->start);
	report_uint(r, "size", p->len);
	report_bool(r, "bootable", p->bootable);
	for (unsigned i = 0; i < G_N_ELEMENTS(strings); i++)
		if (strings[i].value)
			report_string(r, strings[i].key, strings[i].value);
	report_end_object(r);
	fsprobe_clear(&fs);
	return ret;
}

/* What imgtool info does not have: the table, its entries, what lies in them. */
static int report_partitions(struct report *r, struct tree *t)
{
	const struct partition_table *table;
	struct window w;
	int ret = tree_window(t, node_make(DISK_TOP, LEAF_DISK), &w);

	if (ret)
		return ret;
	ret = tree_partitions(t, &w, &table);
	if (!ret && table->scheme != PARTITION_NONE) {
		report_string(r, "partition-table", partition_scheme_name(table->scheme));
		report_uint(r, "sector-size", table->sector_size);
		if (table->uuid)
			report_string(r, "partition-table-uuid", table->uuid);
		if (table->scheme == PARTITION_GPT)
			report_bool(r, "partition-table-from-backup", table->from_backup);
	}
	if (!ret) {
		report_begin_array(r, "partitions");
		/* What cannot be read of one partition says nothing of the others. */
		for (unsigned i = 0; i < table->entries->len; i++)
			if (report_partition(r, w.img, g_ptr_array_index(table->entries, i)))
				log_read_error(w.img, 0, 0, EIO);
		report_end_array(r);
	}
	tree_window_put(t, &w);
	return ret;
}

static bool write_info(struct report *r, struct tree *t, GError **error)
{
	struct image *img = tree_image(t);
	bool good;

	/* One object: what info says, then what only the mount knows. */
	report_begin_object(r, NULL);
	good = image_info_rows(img, r, error);
	if (good && report_partitions(r, t))
		log_read_error(img, 0, 0, EIO);
	report_end_object(r);
	return good;
}

static bool write_map(struct report *r, struct image *img, GError **error)
{
	int ret = image_map_json(img, 0, img->size, r);

	if (ret)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "%s: cannot map: %s",
			    img->filename, g_strerror(-ret));
	return !ret;
}

static bool write_check(struct report *r, struct image *img, GError **error)
{
	const struct check_options options = {.repair = CHECK_REPAIR_NONE};
	struct check_result result = {0};

	if (!image_check(img, &options, &result, error))
		return false;
	check_result_json(img->filename, img->format->name, &result, false, r);
	return true;
}

static bool write_text(struct report *r, struct tree *t, uint64_t node, GError **error)
{
	switch (node_leaf(node)) {
	case LEAF_INFO:
		return write_info(r, t, error);
	case LEAF_MAP:
		return write_map(r, tree_image(t), error);
	default:
		return write_check(r, tree_image(t), error);
	}
}

/* ---- making ---- */

static int open_temporary(void)
{
	int fd = open(g_get_tmp_dir(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	return fd >= 0 ? fd : memfd_create("imgfs-text", MFD_CLOEXEC);
}

/* The text is the last one now. Takes fd over. */
static struct text *publish(uint64_t node, int fd, uint64_t size)
{
	struct text *text = g_new(struct text, 1), **slot = slot_of(node);

	*text = (struct text){2, fd, size}; /* the caller's reference, and this one */
	pthread_mutex_lock(&lock);
	g_queue_push_tail(&all, text);
	put(*slot);
	*slot = text;
	pthread_mutex_unlock(&lock);
	return text;
}

static int make(struct tree *t, uint64_t node, int fd)
{
	g_autoptr(GError) error = NULL;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	FILE *stream = copy >= 0 ? fdopen(copy, "w") : NULL;
	enum report_style style = node_leaf(node) == LEAF_MAP ? REPORT_JSON_COMPACT : REPORT_JSON;
	struct report *r;
	bool good;

	if (!stream) {
		int err = errno;

		if (copy >= 0)
			close(copy);
		return -err;
	}
	r = report_new_stream(stream, style, 0);
	good = write_text(r, t, node, &error);
	if (!good)
		log_message("%s", error->message);
	if (!report_free(r) || fclose(stream)) {
		log_message("writing a temporary file: %s", g_strerror(errno));
		good = false;
	}
	return good ? 0 : -EIO;
}

/* With everything that programs wrote, and nothing changing meanwhile. */
static int make_held(struct tree *t, uint64_t node, int fd)
{
	g_autoptr(GError) error = NULL;
	struct image_hold *hold;
	int ret;

	kernel_settle();
	/* Writes that wait for the end of this must not keep our own reads from being received. */
	worker_lift_limit(worker_self(), true);
	hold = image_hold(tree_image(t), &error);
	if (hold) {
		ret = make(t, node, fd);
		image_hold_end(hold);
	} else {
		log_message("%s", error->message);
		ret = -EIO;
	}
	worker_lift_limit(worker_self(), false);
	return ret;
}

int text_open(struct tree *t, uint64_t node, struct text **text)
{
	off_t size;
	int fd, ret;

	*text = tree_is_writable(t) ? NULL : text_get(node);
	if (*text)
		return 0;
	fd = open_temporary();
	if (fd < 0)
		return -errno;
	ret = tree_is_writable(t) ? make_held(t, node, fd) : make(t, node, fd);
	size = ret ? 0 : lseek(fd, 0, SEEK_END);
	if (ret || size < 0) {
		close(fd);
		return ret ? ret : -EIO;
	}
	*text = publish(node, fd, (uint64_t)size);
	return 0;
}

void text_reply_read(fuse_req_t req, const struct text *text, uint64_t offset, size_t size)
{
	g_autofree char *buf = NULL;
	ssize_t n;

	size = MIN(size, READ_MAX);
	buf = g_malloc(size);
	do {
		n = pread(text->fd, buf, size, (off_t)offset);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

void text_clear(void)
{
	pthread_mutex_lock(&lock);
	/* Open ones too: a kernel that unmounts sends no releases that are still under way. */
	while (!g_queue_is_empty(&all))
		drop(g_queue_peek_head(&all));
	memset(texts, 0, sizeof(texts));
	pthread_mutex_unlock(&lock);
}
