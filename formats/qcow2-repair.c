/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: check -r, and the repair of an image whose dirty bit is set. Order of writes, with a sync
 * after each step, so that a cut leaves what was wrong before or leaks:
 *
 *   1. entries that are wrong by themselves (qcow2-repair-entries.c); references only become fewer
 *   2. COPIED flags, as the references that were counted say
 *   3. refcounts: where they are, or as a new structure (qcow2-rebuild.c)
 *   4. a new snapshot table, by the order of formats/qcow2.h, when the counts are right to allocate
 * by
 *   5. the dirty and corrupt bits, when a check of the result finds nothing wrong
 */
#include "formats/qcow2-check.h"

#include <inttypes.h>
#include <string.h>

#include "image/cache.h"

int repair_write(struct check *k, uint64_t offset, const void *buf, size_t len)
{
	return file_write(k->img->file, offset, buf, len);
}

int repair_settle(struct check *k)
{
	int err = file_flush(k->img->file);

	check_unpin(k);
	cache_drop_file(k->img->cache, k->img->file);
	return err;
}

void repair_tell(struct check *k, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	g_autofree char *sentence = g_strdup_vprintf(format, ap);
	va_end(ap);
	check_tell(k, &k->told_repairs, "%s", sentence);
}

/* ---- COPIED flags ---------------------------------------------------------------------------- */

/*
 * What an entry's flag should be. leaks: only where the stored count is too high, since lowering it
 * makes an unset flag wrong.
 */
static bool flag_differs(struct check *k, uint64_t host, bool copied, bool leaks)
{
	uint64_t cluster = host >> k->q->cluster_bits, real, stored;

	if (cluster > k->clusters)
		return false;
	real = check_in_use(k, cluster);
	if (k->q->lost_snapshots && !check_refcount(k, cluster, &stored))
		real = MAX(real, stored);
	if ((real == 1) == copied)
		return false;
	return !leaks || (!check_refcount(k, cluster, &stored) && stored > real);
}

static int fix_flags_l2(struct check *k, uint64_t offset, bool leaks)
{
	const struct qcow2 *q = k->q;
	be64_t *words = (be64_t *)k->l2;
	uint64_t n = 1ull << q->l2_bits, first = n, last = 0;
	int err = file_read(k->img->file, offset, k->l2, q->cluster_size);

	if (err)
		return err;
	for (uint64_t i = 0; i < n; i++) {
		be64_t *word = &words[q->extended ? 2 * i : i];
		uint64_t entry = be64_get(*word), host = entry & QCOW2_OFFSET_MASK;
		bool copied = entry & QCOW2_COPIED;

		if (!host || (entry & QCOW2_COMPRESSED) ||
		    !(q->external ? !copied : flag_differs(k, host, copied, leaks)))
			continue;
		repair_tell(k,
			    "Repairing OFLAG_COPIED data cluster: l2_entry=%" PRIx64
			    " reference=%" PRIu64,
			    entry, q->external ? 1 : check_in_use(k, host >> q->cluster_bits));
		*word = be64_make(entry ^ QCOW2_COPIED);
		first = MIN(first, i);
		last = i + 1;
	}
	if (first == n)
		return 0;
	return repair_write(k, offset + (first << q->entry_bits), k->l2 + (first << q->entry_bits),
			    (last - first) << q->entry_bits);
}

static int fix_flags_l1_entry(struct check *k, uint32_t i, bool leaks)
{
	const struct qcow2 *q = k->q;
	uint64_t at = q->header.l1_offset + i * 8ull, entry, offset;
	be64_t word;
	int err = file_read(k->img->file, at, &word, sizeof(word));

	entry = be64_get(word);
	offset = entry & QCOW2_OFFSET_MASK;
	if (err || !offset || qcow2_l1_wrong(q->cluster_bits, entry) ||
	    !qcow2_inside(offset, q->cluster_size, q->file_size))
		return err;
	if (flag_differs(k, offset, entry & QCOW2_COPIED, leaks)) {
		repair_tell(k,
			    "Repairing OFLAG_COPIED L2 cluster: l1_index=%u l1_entry=%" PRIx64
			    " reference=%" PRIu64,
			    i, entry, check_in_use(k, offset >> q->cluster_bits));
		word = be64_make(entry ^ QCOW2_COPIED);
		err = repair_write(k, at, &word, sizeof(word));
	}
	/* A table that is something else too keeps its bytes; repair_entries gave it another
	 * place, if it was allowed to. */
	if (!err && check_only_l2(k, offset >> q->cluster_bits))
		err = fix_flags_l2(k, offset, leaks);
	return err;
}

static int fix_flags(struct check *k, bool leaks)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < k->q->header.l1_size; i++)
		err = fix_flags_l1_entry(k, i, leaks);
	return err ? err : repair_settle(k);
}

/* ---- refcounts --------------------------------------------------------------------------------
 */

/* One block, which is in k->l2. *first, *last: changed bytes. */
static void fix_block(struct check *k, uint64_t start, uint64_t n, bool leaks, uint64_t *first,
		      uint64_t *last)
{
	unsigned order = k->q->header.refcount_order;

	for (uint64_t c = 0; c < n && start + c <= k->clusters; c++) {
		uint64_t stored = qcow2_refcount_entry(k->l2, c, order);
		uint64_t real = spacemap_get(k->map, start + c);

		if (stored == real || (leaks && stored < real) ||
		    (k->q->lost_snapshots && stored > real))
			continue;
		repair_tell(k,
			    "Repairing cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
			    start + c, stored, real);
		qcow2_set_refcount_entry(k->l2, c, order, real);
		*first = MIN(*first, (c << order) / 8);
		*last = ((c + 1) << order) / 8 + 1;
	}
}

/* leaks: counts are only lowered. The blocks are refcount blocks and nothing else, or they would be
 * rebuilt. */
static int fix_counts(struct check *k, bool leaks)
{
	const struct qcow2 *q = k->q;
	unsigned block_bits = q->cluster_bits + 3 - q->header.refcount_order;

	for (uint64_t i = 0; i <= k->clusters >> block_bits; i++) {
		uint64_t block, first = q->cluster_size, last = 0;
		int err = check_refcount_block(k, i, &block);

		if (err == CHECK_NO_BLOCK)
			continue;
		if (!err)
			err = file_read(k->img->file, block, k->l2, q->cluster_size);
		if (err)
			return err;
		fix_block(k, i << block_bits, 1ull << block_bits, leaks, &first, &last);
		last = MIN(last, q->cluster_size);
		if (first < last)
			err = repair_write(k, block + first, k->l2 + first, last - first);
		if (err)
			return err;
	}
	return repair_settle(k);
}

/* The narrowest width, from the present one up, that holds every count. */
static unsigned wide_enough(const struct check *k)
{
	unsigned order = k->q->header.refcount_order;

	while (order < 6 && k->greatest >> (1u << order))
		order++;
	return order;
}

static int get_in_use(void *arg, uint64_t cluster, uint64_t *count)
{
	*count = check_in_use(arg, cluster);
	return 0;
}

static int rebuild(struct check *k)
{
	struct qcow2_count_source source = {get_in_use, k, NULL};
	unsigned order = wide_enough(k);

	if (order != k->q->header.refcount_order && k->q->header.version < 3)
		return -ERANGE;
	check_tell(k, &k->told_repairs, "Rebuilding refcount structure");
	if (order != k->q->header.refcount_order)
		repair_tell(k, "Refcounts get %u bits: one of %" PRIu64 " does not fit into %u",
			    1u << order, k->greatest, 1u << k->q->header.refcount_order);
	return qcow2_rebuild_refcounts(k->img, &source, k->clusters + 1, order);
}

static int fix_refcounts(struct check *k, bool leaks)
{
	if (!leaks &&
	    (k->bad_structure || k->greatest >> MIN(63, 1u << k->q->header.refcount_order)))
		return rebuild(k);
	return fix_counts(k, leaks);
}

/* ---- the whole --------------------------------------------------------------------------------
 */

struct repair {
	struct image *img;
	const struct check_options *options;
	struct check_result *result;
	bool leaks, entries;
};

static bool refuse(GError **error, const char *why)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "%s", why);
	return false;
}

/* Entries, and counting again when some changed. *k is the last count. */
static bool settle_entries(const struct repair *r, struct check *k, GError **error)
{
	struct check_options quiet = {.repair = CHECK_REPAIR_ALL};
	struct check_result ignored;
	bool changed = false;
	int err = repair_entries(k, &changed);

	if (!err && changed)
		err = repair_settle(k);
	if (err) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "repairing the L1 and L2 tables failed: %s", g_strerror(-err));
		return false;
	}
	if (!changed)
		return true;
	check_end(k);
	qcow2_relayout(r->img);
	if (!check_run(k, r->img, &quiet, &ignored, error))
		return false;
	k->options = r->options;
	return true;
}

static bool settle_counts(const struct repair *r, struct check *k, GError **error)
{
	int err = fix_flags(k, r->leaks);

	if (!err)
		err = fix_refcounts(k, r->leaks);
	if (!err)
		return true;
	if (err == -ERANGE)
		return refuse(error, "a refcount does not fit into the image's refcount width, "
				     "which version 2 cannot change");
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "repairing the refcounts failed: %s",
		    g_strerror(-err));
	return false;
}

/* false without *error: there is nothing that may be repaired, and result stays. */
static bool may_repair(const struct repair *r, struct check *k, GError **error)
{
	if (k->io_error) {
		repair_tell(k, "Nothing is repaired: not all tables could be read");
		return false;
	}
	if (!r->leaks && k->q->lost_snapshots && r->result->leaks)
		repair_tell(k, "Leaks are kept: some are what snapshots had that cannot be read "
			       "any more; check -r leaks frees them");
	if (!r->leaks)
		return true;
	if (k->holes || k->bad_structure) {
		repair_tell(k, "ERROR need to rebuild refcount structures");
		return refuse(error, "Input/output error (the refcounts need more than -r leaks)");
	}
	if (k->lost_tables) {
		repair_tell(k, "Leaks are not repaired: what a damaged table refers to looks like "
			       "one");
		return false;
	}
	return true;
}

/* Everything that is wrong is repaired, as far as it goes. */
static bool change(const struct repair *r, struct check *k, GError **error)
{
	const struct check_result *c = r->result;

	if (!c->corruptions && !c->leaks && !c->check_errors && !k->bad_entries)
		return true;
	if (!may_repair(r, k, error))
		return !*error;
	if (r->entries && k->bad_entries && !settle_entries(r, k, error))
		return false;
	if (!settle_counts(r, k, error))
		return false;
	qcow2_relayout(r->img);
	return true;
}

/* What is left, by a check of what there is now; what is gone since `before` was repaired.
 * *countable: the refcounts can be relied on. */
static bool verify(const struct repair *r, const struct check_result *before, bool *countable,
		   GError **error)
{
	struct check_options quiet = {.repair = CHECK_REPAIR_ALL};
	struct check_result after;
	struct check k;

	if (!check_run(&k, r->img, &quiet, &after, error))
		return false;
	check_end(&k);
	*countable = !k.io_error && !k.holes && !k.bad_structure;
	if (before->corruptions > after.corruptions)
		after.corruptions_fixed = before->corruptions - after.corruptions;
	if (before->leaks > after.leaks)
		after.leaks_fixed = before->leaks - after.leaks;
	*r->result = after;
	return true;
}

/* A snapshot table that is damaged or lacks something, anew. */
static bool settle_snapshots(const struct repair *r, const struct check_result *before,
			     GError **error)
{
	const struct qcow2 *q = qcow2_of(r->img);
	g_autofree char *words = NULL;
	bool changed, countable;

	if (q->lost_snapshots)
		words = g_strdup_printf("Repairing the snapshot table: %u entries that cannot be "
					"read are removed",
					q->lost_snapshots);
	if (!qcow2_snapshots_complete(r->img, &changed, error))
		return false;
	if (!changed)
		return true;
	if (r->options->tell)
		r->options->tell(r->options->arg, words ? words : "Repairing the snapshot table");
	if (qcow2_flush(r->img) < 0 || file_flush(r->img->file) < 0)
		return refuse(error, "the new snapshot table could not be written");
	return verify(r, before, &countable, error);
}

/* "Bit 0: Dirty bit", "Bit 1: Corrupt bit" */
static bool clear_bits(struct image *img, GError **error)
{
	struct qcow2_header *h = &qcow2_of(img)->header;
	uint64_t old = h->incompatible;
	int err;

	h->incompatible &= ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
	if (h->incompatible == old)
		return true;
	err = qcow2_header_store_fixed(img);
	if (err) {
		h->incompatible = old;
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "could not clear the dirty and corrupt bits: %s", g_strerror(-err));
		return false;
	}
	qcow2_relayout(img);
	cache_drop_file(img->cache, img->file);
	return true;
}

static bool run(const struct repair *r, GError **error)
{
	g_autoptr(GError) failed = NULL;
	struct check_result before;
	bool ok, countable;
	struct check k;

	if (!check_run(&k, r->img, r->options, r->result, error))
		return false;
	ok = change(r, &k, &failed);
	check_end(&k);
	if (!ok) {
		qcow2_relayout(r->img);
		g_propagate_error(error, g_steal_pointer(&failed));
		return false;
	}
	before = *r->result;
	if (!verify(r, &before, &countable, error))
		return false;
	if (r->entries && !r->leaks && r->result->corruptions && countable &&
	    !settle_snapshots(r, &before, error))
		return false;
	if (r->result->corruptions || r->result->check_errors)
		return true;
	return clear_bits(r->img, error);
}

bool qcow2_repair(struct image *img, const struct check_options *options,
		  struct check_result *result, GError **error)
{
	struct repair r = {
		.img = img,
		.options = options,
		.result = result,
		.leaks = options->repair == CHECK_REPAIR_LEAKS,
		/* A wrong entry may be all that is known of where data is: -r leaks keeps it. */
		.entries = options->repair == CHECK_REPAIR_ALL,
	};

	return run(&r, error);
}

bool qcow2_repair_dirty(struct image *img, GError **error)
{
	struct check_options options = {.repair = CHECK_REPAIR_ALL};
	struct check_result result;
	/* Entries that are wrong have nothing to do with lazy refcounts: they are the user's to
	 * decide about. */
	struct repair r = {.img = img, .options = &options, .result = &result};

	if (!run(&r, error))
		return false;
	if (!result.corruptions && !result.check_errors)
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
		    "the image was not closed properly (dirty bit), and %" PRIu64
		    " errors are left after its refcounts were repaired: run check -r all",
		    result.corruptions + result.check_errors);
	return false;
}
