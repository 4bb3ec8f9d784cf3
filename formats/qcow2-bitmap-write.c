/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: changing stored bitmaps ("Bitmaps"). Nothing is changed in place: new data, a new
 * table and a new directory are written where nothing points, the header makes them the image's in
 * one step, and only then the old ones are free. Cut anywhere, the old bitmaps or the new ones are
 * there, and clusters may leak.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/bitmap.h"
#include "image/cache.h"

#define TABLE_RESERVED 0xff000000000001feull /* "Bitmap table"; bit 0 only without an offset */
#define ALL_ONES       1ull

void qcow2_stored_bitmap_free(struct qcow2_stored_bitmap *s)
{
	if (!s)
		return;
	g_free(s->name);
	g_free(s->extra);
	g_free(s);
}

/* ---- the directory ------------------------------------------------------------------------- */

struct reading {
	struct image *img;
	GPtrArray *list;
	int err;
};

static bool read_one(void *arg, const struct qcow2_bitmap *b, const char *name)
{
	struct reading *r = arg;
	struct qcow2_stored_bitmap *s = g_new0(struct qcow2_stored_bitmap, 1);

	s->b = *b;
	s->name = g_strdup(name);
	g_ptr_array_add(r->list, s);
	if (!b->extra_length)
		return true;
	s->extra = g_try_malloc(b->extra_length);
	r->err = !s->extra ? -ENOMEM
			   : cache_read(r->img->cache, r->img->file,
					b->at + sizeof(struct qcow2_bitmap_disk), s->extra,
					b->extra_length);
	return r->err == 0;
}

GPtrArray *qcow2_bitmaps_read(struct image *img, GError **error)
{
	struct reading r = {.img = img};

	r.list = g_ptr_array_new_with_free_func((GDestroyNotify)qcow2_stored_bitmap_free);
	if (!qcow2_has_bitmaps(qcow2_of(img)) || qcow2_bitmaps_each(img, read_one, &r, error))
		return r.list;
	g_ptr_array_unref(r.list);
	if (r.err)
		image_fail(img, r.err, "the bitmap directory could not be read", error);
	return NULL;
}

static uint64_t directory_size(const GPtrArray *list)
{
	uint64_t size = 0;

	for (guint i = 0; i < list->len; i++)
		size += ((const struct qcow2_stored_bitmap *)g_ptr_array_index(list, i))->b.total;
	return size;
}

static void encode(const struct qcow2_stored_bitmap *s, uint8_t *to)
{
	struct qcow2_bitmap_disk d = {
		.table_offset = be64_make(s->b.table_offset),
		.table_size = be32_make(s->b.table_size),
		.flags = be32_make(s->b.flags),
		.type = s->b.type,
		.granularity_bits = s->b.granularity_bits,
		.name_length = be16_make(s->b.name_length),
		.extra_length = be32_make(s->b.extra_length),
	};

	memcpy(to, &d, sizeof(d));
	if (s->b.extra_length)
		memcpy(to + sizeof(d), s->extra, s->b.extra_length);
	memcpy(to + sizeof(d) + s->b.extra_length, s->name, s->b.name_length);
}

/* Clusters that nothing points at are written around the cache, which may remember what was
 * there. */
static int write_new(struct image *img, uint64_t host, const void *buf, size_t len)
{
	cache_drop_range(img->cache, img->file, host, len);
	return file_write(img->file, host, buf, len);
}

static uint64_t round_up(const struct qcow2 *q, uint64_t len)
{
	return (len + q->cluster_size - 1) & ~(uint64_t)(q->cluster_size - 1);
}

static int write_directory(struct image *img, const GPtrArray *list, uint64_t size, uint64_t *host)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t len = round_up(q, size), at = 0;
	g_autofree uint8_t *buf = g_try_malloc0(len);
	int ret = buf ? qcow2_alloc(img, len, host) : -ENOMEM;

	if (ret < 0)
		return ret;
	for (guint i = 0; i < list->len; i++) {
		const struct qcow2_stored_bitmap *s = g_ptr_array_index(list, i);

		encode(s, buf + at);
		at += s->b.total;
	}
	ret = write_new(img, *host, buf, len);
	if (ret < 0)
		qcow2_unref(img, *host, len);
	return ret;
}

static void set_header(struct qcow2_header *h, uint32_t n, uint64_t offset, uint64_t size)
{
	h->has_bitmaps = n > 0;
	h->nb_bitmaps = n;
	h->bitmap_directory_offset = n ? offset : 0;
	h->bitmap_directory_size = n ? size : 0;
	if (n)
		h->autoclear |= QCOW2_AUTOCLEAR_BITMAPS;
	else
		h->autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
}

int qcow2_bitmaps_prepare(struct image *img, const GPtrArray *list, struct qcow2_bitmaps_change *c)
{
	struct qcow2 *q = qcow2_of(img);
	const struct qcow2_header *h = &q->header;
	uint64_t size = directory_size(list), host = 0;
	int ret;

	*c = (struct qcow2_bitmaps_change){
		.old_count = qcow2_has_bitmaps(q) ? h->nb_bitmaps : 0,
		.old_offset = h->bitmap_directory_offset,
		.old_size = h->bitmap_directory_size,
	};
	if (list->len > QCOW2_MAX_BITMAPS || size > QCOW2_MAX_BITMAP_BYTES)
		return -EFBIG;
	ret = list->len ? write_directory(img, list, size, &host) : 0;
	if (ret < 0)
		return ret;
	set_header(&q->header, list->len, host, size);
	qcow2_collect_fixed(q);
	return 0;
}

void qcow2_bitmaps_swap(struct image *img, struct qcow2_bitmaps_change *c)
{
	struct qcow2_header *h = &qcow2_of(img)->header;
	const struct qcow2_bitmaps_change now = {.old_count = h->nb_bitmaps,
						 .old_offset = h->bitmap_directory_offset,
						 .old_size = h->bitmap_directory_size};

	if (c->nothing)
		return;
	set_header(h, c->old_count, c->old_offset, c->old_size);
	c->old_count = now.old_count;
	c->old_offset = now.old_offset;
	c->old_size = now.old_size;
	qcow2_collect_fixed(qcow2_of(img));
}

int qcow2_bitmaps_finish(struct image *img, struct qcow2_bitmaps_change *c, int ret)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_header *h = &q->header;

	if (c->nothing)
		return ret;
	if (ret == 0) {
		if (c->old_count)
			ret = qcow2_free_later(img, c->old_offset, round_up(q, c->old_size));
		for (guint i = 0; ret == 0 && c->old_bits && i < c->old_bits->len; i++)
			ret = qcow2_bitmap_free_bits(
				img, &g_array_index(c->old_bits, struct qcow2_bitmap, i));
	} else {
		/* Unless nobody knows which header is there, the new directory was never seen. */
		if (h->nb_bitmaps && !q->writer->failed)
			qcow2_unref(img, h->bitmap_directory_offset,
				    round_up(q, h->bitmap_directory_size));
		set_header(h, c->old_count, c->old_offset, c->old_size);
	}
	g_clear_pointer(&c->old_bits, g_array_unref);
	qcow2_collect_fixed(q);
	qcow2_bitmaps_watch(img);
	return ret;
}

int qcow2_bitmaps_publish(struct image *img, const GPtrArray *list)
{
	struct qcow2_bitmaps_change c;
	int ret = qcow2_bitmaps_prepare(img, list, &c);

	if (ret < 0)
		return ret;
	return qcow2_bitmaps_finish(img, &c, qcow2_flush_header(img));
}

/* ---- the bits ------------------------------------------------------------------------------- */

static uint64_t table_entries(const struct qcow2 *q, uint64_t length)
{
	return (length + q->cluster_size - 1) >> q->cluster_bits;
}

/* One entry of the table: cluster i of the bits. */
static int load_entry(struct image *img, uint64_t i, uint64_t entry, struct bitmap *bits,
		      uint8_t *buf)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t offset = entry & QCOW2_OFFSET_MASK, at = i << q->cluster_bits;
	int ret;

	if ((entry & TABLE_RESERVED) || (offset & (q->cluster_size - 1)) ||
	    (offset && (entry & 1)) ||
	    !qcow2_inside(offset, q->cluster_size, q->file_size + q->cluster_size - 1)) {
		image_fault(img, EIO, 0,
			    "entry %" PRIu64 " of a bitmap table, 0x%" PRIx64 ", is not valid", i,
			    entry);
		return -EIO;
	}
	if (!offset && !(entry & ALL_ONES))
		return 0;
	if (!offset) {
		memset(buf, 0xff, q->cluster_size);
	} else {
		ret = cache_read(img->cache, img->file, offset, buf, q->cluster_size);
		if (ret < 0)
			return ret;
	}
	return bitmap_or_bytes(bits, at, buf, q->cluster_size);
}

struct bitmap *qcow2_bitmap_load(struct image *img, const struct qcow2_stored_bitmap *s,
				 GError **error)
{
	const struct qcow2 *q = qcow2_of(img);
	struct bitmap *bits = bitmap_new(q->header.size, s->b.granularity_bits);
	g_autofree uint8_t *buf = g_try_malloc(q->cluster_size);
	g_autofree char *what = g_strdup_printf("Bitmap '%s' could not be read", s->name);
	int ret = 0;

	if (!bits || !buf) {
		bitmap_free(bits);
		image_fail(img, -ENOMEM, what, error);
		return NULL;
	}
	if (s->b.table_size != table_entries(q, bitmap_length(bits)) ||
	    !qcow2_inside(s->b.table_offset, s->b.table_size * 8ull, q->file_size)) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			    "%s: its table of %" PRIu32 " entries does not fit the disk", what,
			    s->b.table_size);
		bitmap_free(bits);
		return NULL;
	}
	for (uint32_t i = 0; ret == 0 && i < s->b.table_size; i++) {
		be64_t entry;

		ret = cache_read(img->cache, img->file, s->b.table_offset + i * 8ull, &entry,
				 sizeof(entry));
		if (ret == 0)
			ret = load_entry(img, i, be64_get(entry), bits, buf);
	}
	if (ret == 0)
		return bits;
	bitmap_free(bits);
	image_fail(img, ret, what, error);
	return NULL;
}

static bool all_ones(const uint8_t *buf, size_t len)
{
	return buf[0] == 0xff && memcmp(buf, buf + 1, len - 1) == 0;
}

/* Writes cluster i of the bits, when it needs one; its table entry. */
static int write_cluster(struct image *img, const struct bitmap *bits, uint64_t i, uint8_t *buf,
			 be64_t *entry)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t host = 0;
	int ret;

	*entry = be64_make(0);
	if (!bitmap_get_bytes(bits, i << q->cluster_bits, buf, q->cluster_size))
		return 0;
	if (all_ones(buf, q->cluster_size)) {
		*entry = be64_make(ALL_ONES);
		return 0;
	}
	ret = qcow2_alloc(img, q->cluster_size, &host);
	if (ret == 0)
		ret = write_new(img, host, buf, q->cluster_size);
	if (ret == 0)
		*entry = be64_make(host);
	else if (host)
		qcow2_unref(img, host, q->cluster_size);
	return ret;
}

static void drop_clusters(struct image *img, const be64_t *table, uint64_t n)
{
	const struct qcow2 *q = qcow2_of(img);

	for (uint64_t i = 0; i < n; i++)
		if (be64_get(table[i]) & QCOW2_OFFSET_MASK)
			qcow2_unref(img, be64_get(table[i]), q->cluster_size);
}

int qcow2_bitmap_write(struct image *img, struct qcow2_stored_bitmap *s, const struct bitmap *bits)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t n = table_entries(q, bitmap_length(bits)), done = 0, host = 0;
	uint64_t len = MAX(round_up(q, n * 8), q->cluster_size);
	g_autofree be64_t *table = g_try_malloc0(len);
	g_autofree uint8_t *buf = g_try_malloc(q->cluster_size);
	int ret = table && buf ? 0 : -ENOMEM;

	for (; ret == 0 && done < n; done += ret == 0)
		ret = write_cluster(img, bits, done, buf, &table[done]);
	if (ret == 0)
		ret = qcow2_alloc(img, len, &host);
	if (ret == 0)
		ret = write_new(img, host, table, len);
	if (ret < 0) {
		if (host)
			qcow2_unref(img, host, len);
		if (table)
			drop_clusters(img, table, done);
		return ret;
	}
	s->b.table_offset = host;
	s->b.table_size = n;
	return 0;
}

/* Of a table that is not what it should be, nothing is freed: a leak is better than a hole. */
int qcow2_bitmap_free_bits(struct image *img, const struct qcow2_bitmap *b)
{
	const struct qcow2 *q = qcow2_of(img);
	int ret = 0;

	if (!b->table_offset || !qcow2_inside(b->table_offset, b->table_size * 8ull, q->file_size))
		return 0;
	for (uint32_t i = 0; ret == 0 && i < b->table_size; i++) {
		be64_t entry;
		uint64_t host;

		if (cache_read(img->cache, img->file, b->table_offset + i * 8ull, &entry,
			       sizeof(entry)) < 0)
			return 0;
		host = be64_get(entry) & QCOW2_OFFSET_MASK;
		if (host && !(be64_get(entry) & TABLE_RESERVED) &&
		    !(host & (q->cluster_size - 1)) &&
		    qcow2_inside(host, q->cluster_size, q->file_size + q->cluster_size - 1))
			ret = qcow2_free_later(img, host, q->cluster_size);
	}
	if (ret == 0)
		ret = qcow2_free_later(img, b->table_offset,
				       MAX(round_up(q, b->table_size * 8ull), q->cluster_size));
	return ret;
}

/* ---- the driver's callbacks -------------------------------------------------------------------
 */

/* Index in the list; -1 and *error. */
static int find(const GPtrArray *list, const char *name, GError **error)
{
	for (guint i = 0; i < list->len; i++) {
		const struct qcow2_stored_bitmap *s = g_ptr_array_index(list, i);

		if (strcmp(s->name, name) == 0)
			return i;
	}
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND, "Dirty bitmap '%s' not found", name);
	return -1;
}

/* Extra data that nobody here understands forbids the use of a bitmap, not its removal. */
bool qcow2_bitmap_usable(const struct qcow2_bitmap *b)
{
	return !(b->flags & QCOW2_BITMAP_IN_USE) &&
	       (!b->extra_length || (b->flags & QCOW2_BITMAP_EXTRA_COMPATIBLE));
}

static bool check_usable(const struct qcow2_stored_bitmap *s, GError **error)
{
	if (qcow2_bitmap_usable(&s->b))
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
		    "Bitmap '%s' is inconsistent and cannot be used", s->name);
	return false;
}

/* Header extensions came with version 3's autoclear bits, which say that bitmaps are true. */
bool qcow2_bitmap_possible(const struct image *img)
{
	return qcow2_of(img)->header.version >= 3;
}

GPtrArray *qcow2_bitmap_list(struct image *img, GError **error)
{
	g_autoptr(GPtrArray) stored = NULL;
	GPtrArray *list;

	if (qcow2_bitmaps_settle(img) < 0) /* else what is tracked counts as inconsistent */
		image_fault_clear(img);
	stored = qcow2_bitmaps_read(img, error);
	if (!stored)
		return NULL;
	list = g_ptr_array_new_with_free_func((GDestroyNotify)bitmap_info_free);
	for (guint i = 0; i < stored->len; i++) {
		const struct qcow2_stored_bitmap *s = g_ptr_array_index(stored, i);
		struct bitmap_info *info = g_new0(struct bitmap_info, 1);

		info->name = g_strdup(s->name);
		info->granularity_bits = s->b.granularity_bits;
		info->enabled = s->b.flags & QCOW2_BITMAP_AUTO;
		info->inconsistent = !qcow2_bitmap_usable(&s->b);
		g_ptr_array_add(list, info);
	}
	return list;
}

struct bitmap *qcow2_bitmap_load_named(struct image *img, const char *name, GError **error)
{
	g_autoptr(GPtrArray) list = NULL;
	int i;

	qcow2_bitmaps_settle(img);
	list = qcow2_bitmaps_read(img, error);
	i = list ? find(list, name, error) : -1;
	if (i < 0 || !check_usable(g_ptr_array_index(list, i), error))
		return NULL;
	return qcow2_bitmap_load(img, g_ptr_array_index(list, i), error);
}

static bool check_name(const char *name, GError **error)
{
	size_t len = strlen(name);

	if (len > 0 && len <= QCOW2_MAX_BITMAP_NAME)
		return true;
	if (len == 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Bitmap name cannot be empty");
	else
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Can't make bitmap '%s' persistent: Name length exceeds maximum (%u "
			    "characters)",
			    name, QCOW2_MAX_BITMAP_NAME);
	return false;
}

/* What every change begins with: the list as it is, with what is being tracked stored. */
static GPtrArray *begin_change(struct image *img, GError **error)
{
	int ret;

	if (!qcow2_bitmap_possible(img)) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Cannot store dirty bitmaps in qcow2 v2 files");
		return NULL;
	}
	ret = qcow2_bitmaps_settle(img);
	if (ret < 0) {
		image_fail(img, ret, "the bitmaps could not be stored", error);
		return NULL;
	}
	return qcow2_bitmaps_read(img, error);
}

static bool end_change(struct image *img, const GPtrArray *list, const struct qcow2_bitmap *gone,
		       GError **error)
{
	int ret = qcow2_bitmaps_publish(img, list);

	if (ret == 0 && gone)
		ret = qcow2_bitmap_free_bits(img, gone);
	return ret == 0 || image_fail(img, ret, "the bitmap directory could not be written", error);
}

bool qcow2_bitmap_add(struct image *img, const char *name, unsigned granularity_bits,
		      GError **error)
{
	g_autoptr(GPtrArray) list = NULL;
	struct qcow2_stored_bitmap *s;
	struct bitmap *bits;
	int ret;

	if (!check_name(name, error))
		return false;
	if (!qcow2_of(img)->header.size) { /* other programs refuse to open the image then */
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "An empty disk cannot have bitmaps");
		return false;
	}
	list = begin_change(img, error);
	if (!list)
		return false;
	if (find(list, name, NULL) >= 0) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Bitmap already exists: %s",
			    name);
		return false;
	}
	bits = bitmap_new(qcow2_of(img)->header.size, granularity_bits);
	if (!bits) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "a bitmap of this granularity would be too large");
		return false;
	}
	s = g_new0(struct qcow2_stored_bitmap, 1);
	s->name = g_strdup(name);
	s->b.flags = QCOW2_BITMAP_AUTO;
	s->b.type = 1;
	s->b.granularity_bits = granularity_bits;
	s->b.name_length = strlen(name);
	s->b.total = (sizeof(struct qcow2_bitmap_disk) + s->b.name_length + 7) & ~7ull;
	g_ptr_array_add(list, s);
	ret = qcow2_bitmap_write(img, s, bits);
	bitmap_free(bits);
	if (ret < 0)
		return image_fail(img, ret, "the bitmap could not be written", error);
	return end_change(img, list, NULL, error);
}

bool qcow2_bitmap_remove(struct image *img, const char *name, GError **error)
{
	g_autoptr(GPtrArray) list = begin_change(img, error);
	int i = list ? find(list, name, error) : -1;
	struct qcow2_bitmap gone;

	if (i < 0)
		return false;
	gone = ((const struct qcow2_stored_bitmap *)g_ptr_array_index(list, i))->b;
	g_ptr_array_remove_index(list, i);
	return end_change(img, list, &gone, error);
}

bool qcow2_bitmap_store(struct image *img, const char *name, const struct bitmap *bits,
			bool enabled, GError **error)
{
	g_autoptr(GPtrArray) list = begin_change(img, error);
	int i = list ? find(list, name, error) : -1, ret;
	struct qcow2_stored_bitmap *s;
	struct qcow2_bitmap old;

	if (i < 0 || !check_usable(g_ptr_array_index(list, i), error))
		return false;
	s = g_ptr_array_index(list, i);
	old = s->b;
	s->b.flags = enabled ? s->b.flags | QCOW2_BITMAP_AUTO : s->b.flags & ~QCOW2_BITMAP_AUTO;
	if (!bits)
		return end_change(img, list, NULL, error);
	ret = qcow2_bitmap_write(img, s, bits);
	if (ret < 0)
		return image_fail(img, ret, "the bitmap could not be written", error);
	return end_change(img, list, &old, error);
}
