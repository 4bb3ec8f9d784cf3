/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: the directory of stored bitmaps ("Bitmaps"), for info and check. Damage
 * in it never keeps the disk from being read.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"

static bool bad(GError **error, uint32_t i, const char *what)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID, "bitmap directory entry %u %s", i,
		    what);
	return false;
}

bool qcow2_bitmap_decode(const void *buf, struct qcow2_bitmap *b)
{
	struct qcow2_bitmap_disk d;

	memcpy(&d, buf, sizeof(d));
	b->table_offset = be64_get(d.table_offset);
	b->table_size = be32_get(d.table_size);
	b->flags = be32_get(d.flags);
	b->type = d.type;
	b->granularity_bits = d.granularity_bits;
	b->name_length = be16_get(d.name_length);
	b->extra_length = be32_get(d.extra_length);
	b->total = (sizeof(d) + (uint64_t)b->extra_length + b->name_length + 7) & ~7ull;
	return true;
}

static const char *bitmap_wrong(const struct qcow2 *q, const struct qcow2_bitmap *b)
{
	if (!b->name_length || b->name_length > QCOW2_MAX_BITMAP_NAME)
		return "has a name that is empty or too long";
	if (b->type != 1)
		return "has an unknown type";
	if (b->flags >> 3)
		return "has reserved flags set";
	if (b->granularity_bits < 9 || b->granularity_bits > 31)
		return "has a granularity that is not from 2^9 to 2^31";
	if (b->table_offset & (q->cluster_size - 1))
		return "has a table that is not cluster aligned";
	if (b->table_size > QCOW2_MAX_BITMAP_TABLE)
		return "has a table that is too large";
	return NULL;
}

static bool check_directory(const struct qcow2 *q, GError **error)
{
	const struct qcow2_header *h = &q->header;
	const char *wrong = NULL;

	if (!h->nb_bitmaps)
		wrong = "found bitmaps extension with zero bitmaps";
	else if (h->nb_bitmaps > QCOW2_MAX_BITMAPS)
		wrong = "the bitmaps extension has too many bitmaps";
	else if (h->bitmap_directory_size > QCOW2_MAX_BITMAP_BYTES)
		wrong = "the bitmap directory is too large";
	else if (h->bitmap_directory_offset & (q->cluster_size - 1))
		wrong = "the bitmap directory is not cluster aligned";
	else if (!h->bitmap_directory_offset ||
		 !qcow2_inside(h->bitmap_directory_offset, h->bitmap_directory_size, q->file_size))
		wrong = "the bitmap directory does not lie inside the file";
	if (wrong)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			    "%s (%u bitmaps, %" PRIu64 " bytes at offset 0x%" PRIx64 ")", wrong,
			    h->nb_bitmaps, h->bitmap_directory_size, h->bitmap_directory_offset);
	return !wrong;
}

bool qcow2_has_bitmaps(const struct qcow2 *q)
{
	return q->header.has_bitmaps && (q->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS);
}

bool qcow2_bitmaps_each(struct image *img, qcow2_bitmap_fn *fn, void *arg, GError **error)
{
	const struct qcow2 *q = qcow2_of(img);
	const struct qcow2_header *h = &q->header;
	g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	uint64_t at = 0, end = h->bitmap_directory_size;
	struct qcow2_bitmap b;

	if (!h->has_bitmaps)
		return true;
	if (!check_directory(q, error))
		return false;
	for (uint32_t i = 0; i < h->nb_bitmaps; i++) {
		uint8_t buf[sizeof(struct qcow2_bitmap_disk)];
		char name[QCOW2_MAX_BITMAP_NAME + 1] = "";
		const char *wrong;
		int err;

		if (end - at < sizeof(buf))
			return bad(error, i, "is not there: the directory is too small");
		err = cache_read(img->cache, img->file, h->bitmap_directory_offset + at, buf,
				 sizeof(buf));
		if (err)
			return bad(error, i, "could not be read");
		qcow2_bitmap_decode(buf, &b);
		b.at = h->bitmap_directory_offset + at;
		wrong = bitmap_wrong(q, &b);
		if (wrong)
			return bad(error, i, wrong);
		if (b.total > end - at)
			return bad(error, i, "goes past the directory's end");
		err = cache_read(img->cache, img->file,
				 h->bitmap_directory_offset + at + sizeof(buf) + b.extra_length,
				 name, b.name_length);
		if (err)
			return bad(error, i, "could not be read");
		if (strlen(name) != b.name_length)
			return bad(error, i, "has a name with a zero byte in it");
		if (!g_hash_table_add(names, g_strdup(name)))
			return bad(error, i, "has the name of an entry before it");
		if (!fn(arg, &b, name))
			return false;
		at += b.total;
	}
	return true;
}

static bool describe_one(void *arg, const struct qcow2_bitmap *b, const char *name)
{
	struct report *r = arg;

	report_begin_object(r, NULL);
	report_begin_array(r, "flags");
	if (b->flags & QCOW2_BITMAP_IN_USE)
		report_string(r, NULL, "in-use");
	if (b->flags & QCOW2_BITMAP_AUTO)
		report_string(r, NULL, "auto");
	report_end_array(r);
	report_string(r, "name", name);
	report_uint(r, "granularity", 1ull << b->granularity_bits);
	report_end_object(r);
	return true;
}

static bool ignore_one(void *arg, const struct qcow2_bitmap *b, const char *name)
{
	return true;
}

void qcow2_describe_bitmaps(struct image *img, struct report *r)
{
	/* A directory that cannot be listed whole is not listed at all. */
	if (!qcow2_of(img)->header.has_bitmaps ||
	    !(qcow2_of(img)->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS) ||
	    !qcow2_bitmaps_each(img, ignore_one, NULL, NULL))
		return;
	report_begin_array(r, "bitmaps");
	qcow2_bitmaps_each(img, describe_one, r, NULL);
	report_end_array(r);
}
