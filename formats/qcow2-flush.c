/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: from the first change to the last sync. What must be marked before anything is
 * changed, the order in which changes become durable (formats/qcow2.h, "Writing"), the frees that
 * wait for it, and the end of it all when a table is found where none may be.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "image/cache.h"

#define MAX_SNAPSHOT_TABLES (1u << 20) /* clusters of snapshots' L1 tables that are remembered */

struct qcow2_writer *qcow2_writer_new(void)
{
	struct qcow2_writer *w = g_new0(struct qcow2_writer, 1);

	w->frees = g_array_new(FALSE, FALSE, sizeof(struct qcow2_region));
	w->tables = g_hash_table_new(NULL, NULL);
	return w;
}

void qcow2_writer_free(struct qcow2_writer *w)
{
	if (!w)
		return;
	g_array_unref(w->frees);
	g_hash_table_unref(w->tables);
	g_free(w);
}

void qcow2_writer_forget(struct qcow2_writer *w)
{
	memset(w->hint, 0, sizeof(w->hint));
	w->coded_at = 0;
	g_hash_table_remove_all(w->tables);
	w->begun = false;
}

/* ---- tables that nothing else may be written to -------------------------------------------------
 */

static gpointer key_of(const struct qcow2 *q, uint64_t host)
{
	return (gpointer)(uintptr_t)(host >> q->cluster_bits);
}

void qcow2_note_table(struct qcow2 *q, uint64_t host)
{
	g_hash_table_add(q->writer->tables, key_of(q, host));
}

bool qcow2_is_table(const struct qcow2 *q, uint64_t host)
{
	return g_hash_table_contains(q->writer->tables, key_of(q, host));
}

int qcow2_check_place(struct image *img, uint64_t host, uint64_t len, const char *what)
{
	const struct qcow2 *q = qcow2_of(img);
	const struct qcow2_range *fixed = qcow2_fixed_overlap(q, host, len);

	if (fixed)
		return qcow2_mark_corrupt(img, 0, "%s at 0x%" PRIx64 " would overwrite the %s",
					  what, host, fixed->what);
	for (uint64_t at = host & ~(q->cluster_size - 1ull); at < host + len; at += q->cluster_size)
		if (qcow2_is_table(q, at))
			return qcow2_mark_corrupt(img, 0,
						  "%s at 0x%" PRIx64
						  " would overwrite an L2 table or a refcount "
						  "block",
						  what, at);
	return 0;
}

void qcow2_give_up(struct image *img, const char *why)
{
	struct qcow2_writer *w = qcow2_of(img)->writer;

	if (!w || w->failed)
		return;
	w->failed = -EIO;
	w->why = why;
}

static int tell_failed(struct image *img)
{
	const struct qcow2_writer *w = qcow2_of(img)->writer;

	if (w->why)
		image_fault(img, w->failed, 0, "nothing is written to '%s' any more: %s",
			    file_name(img->file), w->why);
	return w->failed;
}

/* With the refcount table that is whole on disk. */
static void store_corrupt(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t table = q->header.reftable_offset;

	if (q->writer->old_table)
		q->header.reftable_offset = q->writer->old_table;
	qcow2_header_store(img);
	q->header.reftable_offset = table;
}

int qcow2_mark_corrupt(struct image *img, uint64_t offset, const char *format, ...)
{
	struct qcow2 *q = qcow2_of(img);
	g_autofree char *words = NULL;
	va_list ap;

	va_start(ap, format);
	words = g_strdup_vprintf(format, ap);
	va_end(ap);
	image_fault(img, EIO, offset, "%s; the image is corrupt and must be repaired", words);
	if (!q->writer || q->writer->failed)
		return -EIO;
	qcow2_give_up(img, "it is corrupt and must be repaired");
	/* Version 2 has no place to say it. For a check, saying so is all that is wanted. */
	if (q->header.version < 3 || (img->flags & IMAGE_FOR_CHECK))
		return -EIO;
	q->header.incompatible |= QCOW2_INCOMPAT_CORRUPT;
	img->corrupt = true;
	store_corrupt(img);
	return -EIO;
}

/* Entries of an L1 table or the refcount table whose bits `mask` are the place of a table. */
static int note_tables_of(struct image *img, uint64_t offset, uint64_t n, uint64_t mask)
{
	struct qcow2 *q = qcow2_of(img);

	for (uint64_t i = 0; i < n;) {
		struct cache_block *block;
		const void *data;
		size_t left;
		int ret = cache_get(img->cache, img->file, offset + i * 8, &block, &data, &left);

		if (ret < 0) {
			image_fault(img, ret, 0, "a table at 0x%" PRIx64 " cannot be read", offset);
			return ret;
		}
		for (uint64_t k = 0; k < left / 8 && i < n; k++, i++) {
			uint64_t host = be64_get(((const be64_t *)data)[k]) & mask;

			if (host)
				qcow2_note_table(q, host);
		}
		cache_put(block);
	}
	return 0;
}

static int note_snapshots(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t budget = MAX_SNAPSHOT_TABLES;

	for (unsigned i = 0; i < q->header.nb_snapshots; i++) {
		struct qcow2_snapshot s;
		uint64_t n;

		if (!qcow2_snapshot_read(img, i, &s, NULL))
			return -EIO;
		if (qcow2_snapshot_l1_wrong(q, &s))
			continue;
		n = (s.l1_size * 8ull + q->cluster_size - 1) >> q->cluster_bits;
		if (n > budget)
			break;
		budget -= n;
		for (uint64_t k = 0; k < n; k++)
			qcow2_note_table(q, s.l1_offset + (k << q->cluster_bits));
	}
	return 0;
}

static int note_all_tables(struct image *img)
{
	const struct qcow2 *q = qcow2_of(img);
	int ret = note_tables_of(img, q->l1_offset, q->l1_size, QCOW2_OFFSET_MASK);

	if (ret == 0)
		ret = note_tables_of(img, q->header.reftable_offset, qcow2_reftable_entries(q),
				     QCOW2_REFTABLE_OFFSET_MASK);
	return ret < 0 ? ret : note_snapshots(img);
}

/* ---- the beginning and the end ------------------------------------------------------------------
 */

static int set_dirty_bit(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	int ret;

	if (!(q->header.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS) ||
	    (q->header.incompatible & QCOW2_INCOMPAT_DIRTY))
		return 0;
	q->header.incompatible |= QCOW2_INCOMPAT_DIRTY;
	ret = qcow2_header_store(img);
	if (ret < 0)
		q->header.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
	else
		q->writer->set_dirty = true;
	return ret;
}

int qcow2_begin(struct image *img)
{
	struct qcow2_writer *w = qcow2_of(img)->writer;
	int ret;

	if (!w)
		return -EROFS;
	if (w->failed)
		return tell_failed(img);
	if (w->begun)
		return 0;
	ret = note_all_tables(img);
	if (ret == 0)
		ret = set_dirty_bit(img);
	w->begun = ret == 0;
	return ret;
}

void qcow2_end(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_writer *w = q->writer;

	if (!w || !w->set_dirty || w->failed)
		return;
	for (unsigned phase = 0; phase < CACHE_PHASES; phase++)
		if (cache_has_dirty(img->cache, img->file, phase))
			return;
	if (w->frees->len)
		return;
	q->header.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
	qcow2_header_store(img);
}

/* ---- frees
 * ----------------------------------------------------------------------------------------
 */

static bool aligned(const struct qcow2 *q, const struct qcow2_region *r)
{
	return !((r->host | r->len) & (q->cluster_size - 1));
}

int qcow2_free_later(struct image *img, uint64_t host, uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);
	GArray *frees = q->writer->frees;
	struct qcow2_region r = {host, len}, *last;

	if (!len)
		return 0;
	last = frees->len ? &g_array_index(frees, struct qcow2_region, frees->len - 1) : NULL;
	/* Compressed units stay apart: each is one reference to the cluster that they share. */
	if (last && last->host + last->len == host && aligned(q, last) && aligned(q, &r))
		last->len += len;
	else
		g_array_append_val(frees, r);
	return 0;
}

/* Gives the space of free clusters back to the host. A hint: its failure changes nothing. */
static void punch(struct image *img, uint64_t first, uint64_t end)
{
	struct qcow2 *q = qcow2_of(img);

	if (q->writer->no_punch || first == end)
		return;
	if (file_punch(img->file, first << q->cluster_bits, (end - first) << q->cluster_bits) ==
	    -EOPNOTSUPP)
		q->writer->no_punch = true;
}

static int punch_free(struct image *img, const struct qcow2_region *r)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t at = r->host >> q->cluster_bits, run = at;
	uint64_t end = ((r->host + r->len - 1) >> q->cluster_bits) + 1;

	for (; at < end; at++) {
		uint64_t count;
		int ret = qcow2_refcount(img, at << q->cluster_bits, &count);

		if (ret < 0)
			return ret;
		if (count) {
			punch(img, run, at);
			run = at + 1;
		}
	}
	punch(img, run, end);
	return 0;
}

static gint by_host(gconstpointer a, gconstpointer b)
{
	const struct qcow2_region *x = a, *y = b;

	return x->host < y->host ? -1 : x->host > y->host;
}

/* In the order of the file, neighbours as one: a guest frees in the order of its disk, and each
 * region costs a call of the host. */
static void join_frees(const struct qcow2 *q, GArray *frees)
{
	struct qcow2_region *r = (void *)frees->data;
	guint n = 0;

	g_array_sort(frees, by_host);
	for (guint i = 1; i < frees->len; i++) {
		if (r[n].host + r[n].len == r[i].host && aligned(q, &r[n]) && aligned(q, &r[i]))
			r[n].len += r[i].len;
		else
			r[++n] = r[i];
	}
	g_array_set_size(frees, MIN(frees->len, n + 1));
}

int qcow2_punch(struct image *img, GArray *regions)
{
	int ret = 0;

	join_frees(qcow2_of(img), regions);
	for (guint i = 0; ret == 0 && i < regions->len; i++)
		ret = punch_free(img, &g_array_index(regions, struct qcow2_region, i));
	return ret;
}

static int apply_frees(struct image *img, GArray *frees)
{
	int ret = 0;

	join_frees(qcow2_of(img), frees);
	for (guint i = 0; i < frees->len; i++) {
		const struct qcow2_region *r = &g_array_index(frees, struct qcow2_region, i);
		int failed = qcow2_unref(img, r->host, r->len);

		/* What could not be freed is not tried again: half of it may be. It leaks. */
		if (failed == 0)
			failed = punch_free(img, r);
		ret = ret ? ret : failed;
	}
	return ret;
}

/* ---- flushing ---------------------------------------------------------------------------------
 */

int qcow2_sync(struct image *img, struct file *f)
{
	int ret = file_flush(f);

	/* What it would have made durable may be lost, and will never be known to be. */
	if (ret < 0) {
		image_fault(img, ret, 0, "'%s' could not be synced", file_name(f));
		qcow2_give_up(img, "a sync failed, and what was written before it may be lost");
	}
	return ret;
}

static int write_phase(struct image *img, enum qcow2_phase phase)
{
	int ret = cache_write_phase(img->cache, img->file, phase);

	if (ret < 0)
		image_fault(img, ret, 0, "the tables of '%s' could not be written",
			    file_name(img->file));
	return ret;
}

/* Steps 1 to 3. With nothing to write in 2 and 3 it is one sync. */
static int write_tables(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);
	int ret = write_phase(img, QCOW2_NEW);

	if (ret == 0 && q->external && q->data)
		ret = qcow2_sync(img, q->data);
	if (ret == 0)
		ret = qcow2_sync(img, img->file);
	for (enum qcow2_phase p = QCOW2_REFTABLE; p <= QCOW2_TABLES && ret == 0; p++) {
		if (!cache_has_dirty(img->cache, img->file, p))
			continue;
		ret = write_phase(img, p);
		if (ret == 0)
			ret = qcow2_sync(img, img->file);
	}
	return ret;
}

static int flush(struct image *img, bool with_header)
{
	struct qcow2_writer *w = qcow2_of(img)->writer;
	GArray *frees;
	int ret;

	if (!w)
		return 0;
	if (w->failed)
		return tell_failed(img);
	frees = w->frees;
	w->frees = g_array_new(FALSE, FALSE, sizeof(struct qcow2_region));
	ret = write_tables(img);
	if (ret == 0 && with_header)
		ret = qcow2_header_store(img);
	if (ret < 0) {
		/* Still pending. Nothing was added meanwhile: the lock is held. */
		g_array_unref(w->frees);
		w->frees = frees;
		return ret;
	}
	ret = apply_frees(img, frees);
	g_array_unref(frees);
	/* Not synced: until the lower counts are on disk, the clusters leak there. */
	if (ret == 0 && cache_has_dirty(img->cache, img->file, QCOW2_NEW))
		ret = write_phase(img, QCOW2_NEW);
	/* The header is the new one whatever came after it; what could not be written is tried
	 * again by the next flush, which tells of it. */
	return with_header ? 0 : ret;
}

int qcow2_flush(struct image *img)
{
	return flush(img, false);
}

int qcow2_flush_header(struct image *img)
{
	int ret = qcow2_begin(img);

	return ret < 0 ? ret : flush(img, true);
}
