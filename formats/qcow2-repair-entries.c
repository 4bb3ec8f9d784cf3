/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: repair of L1 and L2 entries that are wrong by themselves ("Cluster mapping"). Nothing that
 * could be read is lost: first what is reserved is cleared, then what has no effect on reading;
 * only what nobody could read becomes zeroes, and that is told. A table that is something else too
 * (somebody's data, say) is not changed but copied, so that the other use keeps its bytes.
 *
 * Only references are removed or moved to new clusters here, and refcounts are not touched: cut
 * anywhere, counts are too high, or wrong as they were.
 */
#include "formats/qcow2-check.h"

#include <inttypes.h>
#include <string.h>

struct fix {
	struct check *k;
	struct qcow2_l2_rules rules;
	bool changed;
	unsigned first, last; /* changed bytes of the L2 table in k->l2 */
};

/* An L2 entry that reads as zeroes; version 2 has only holes. */
static void make_zero(const struct fix *f, uint64_t *entry, uint64_t *bitmap)
{
	*entry = !f->rules.extended && f->rules.version >= 3 ? QCOW2_ZERO : 0;
	*bitmap = f->rules.extended ? 0xffffffffull << 32 : 0;
}

/* Can what it says be read, as map sees it? */
static bool readable(const struct fix *f, uint64_t entry, uint64_t bitmap)
{
	const struct qcow2 *q = f->k->q;
	struct qcow2_cluster c;

	qcow2_l2_decode(&f->rules, entry, bitmap, &c);
	if (c.kind == QCOW2_CLUSTER_INVALID)
		return false;
	if (c.kind == QCOW2_CLUSTER_CODED)
		return c.host < q->file_size && !c.copied;
	if (!c.host || q->external)
		return true;
	return check_countable(q, c.host, q->cluster_size) && !check_in_own_tables(q, c.host);
}

/* The sectors that it says it has end where the file does: what is missing was never there. */
static void shorten_coded(const struct fix *f, uint64_t *entry)
{
	const struct qcow2 *q = f->k->q;
	unsigned x = 62 - (q->cluster_bits - 8);
	uint64_t host = *entry & ((1ull << x) - 1);
	uint64_t sectors = (*entry & (QCOW2_COMPRESSED - 1)) >> x;

	while (sectors && !check_countable(q, host, sectors * 512 + 512 - (host & 511)))
		sectors--;
	*entry = QCOW2_COMPRESSED | sectors << x | host;
}

static void fix_coded(const struct fix *f, uint64_t *entry, uint64_t *bitmap)
{
	*entry &= ~QCOW2_COPIED;
	*bitmap = 0;
	if (readable(f, *entry, 0))
		shorten_coded(f, entry);
}

/* Subclusters: of two claims the one for data stands, since nothing else would show it. */
static void fix_subclusters(uint64_t entry, uint64_t *bitmap, bool external)
{
	uint64_t alloc = (uint32_t)*bitmap, zero = *bitmap >> 32;
	bool allocated = (entry & QCOW2_OFFSET_MASK) || (external && (entry & QCOW2_COPIED));

	if (allocated)
		zero &= ~alloc;
	else
		zero |= alloc, alloc = 0;
	*bitmap = zero << 32 | alloc;
}

static void fix_standard(const struct fix *f, uint64_t *entry, uint64_t *bitmap)
{
	bool no_flag = f->rules.extended || f->rules.version < 3;

	*entry &= ~(QCOW2_L2_RESERVED | (no_flag ? QCOW2_ZERO : 0));
	if (f->rules.extended)
		fix_subclusters(*entry, bitmap, f->rules.external);
	if (!(*entry & QCOW2_OFFSET_MASK) && !f->rules.external)
		*entry &= ~QCOW2_COPIED;
	if (!readable(f, *entry, *bitmap) && (*entry & QCOW2_ZERO))
		*entry = QCOW2_ZERO; /* only the space kept for it was in a wrong place */
}

/* false: nothing to do. */
static bool fix_entry(const struct fix *f, uint64_t cluster, uint64_t *entry, uint64_t *bitmap)
{
	uint64_t old_entry = *entry, old_bitmap = *bitmap;

	if (*entry & QCOW2_COMPRESSED)
		fix_coded(f, entry, bitmap);
	else if (*entry || *bitmap)
		fix_standard(f, entry, bitmap);
	if (!readable(f, *entry, *bitmap)) {
		make_zero(f, entry, bitmap);
		repair_tell(f->k,
			    "Repairing cluster %" PRIu64 ": L2 entry 0x%" PRIx64
			    " could never be read; it becomes %s",
			    cluster, old_entry, *entry || *bitmap ? "zeroes" : "unallocated");
	} else if (*entry != old_entry || *bitmap != old_bitmap) {
		repair_tell(f->k,
			    "Repairing cluster %" PRIu64 ": L2 entry 0x%" PRIx64
			    " becomes 0x%" PRIx64,
			    cluster, old_entry, *entry);
	}
	return *entry != old_entry || *bitmap != old_bitmap;
}

static void fix_l2_entries(struct fix *f, uint64_t l1_index)
{
	const struct qcow2 *q = f->k->q;
	be64_t *words = (be64_t *)f->k->l2;
	uint64_t n = 1ull << q->l2_bits;

	f->first = UINT_MAX;
	for (uint64_t i = 0; i < n; i++) {
		be64_t *word = &words[q->extended ? 2 * i : i];
		uint64_t entry = be64_get(word[0]), bitmap = q->extended ? be64_get(word[1]) : 0;

		if (!fix_entry(f, (l1_index << q->l2_bits) + i, &entry, &bitmap))
			continue;
		word[0] = be64_make(entry);
		if (q->extended)
			word[1] = be64_make(bitmap);
		f->first = MIN(f->first, i << q->entry_bits);
		f->last = (i + 1) << q->entry_bits;
	}
}

/* A copy of k->l2 behind the file's end. */
static int append_table(struct fix *f, uint64_t *offset)
{
	struct check *k = f->k;
	uint64_t size = k->q->cluster_size;
	int err;

	*offset = (file_size(k->img->file) + size - 1) & ~(size - 1);
	err = repair_write(k, *offset, k->l2, size);
	/* Before an entry points at it. */
	return err ? err : repair_settle(k);
}

/* The table that *entry points at. */
static int fix_table(struct fix *f, uint64_t l1_index, uint64_t *entry)
{
	struct check *k = f->k;
	uint64_t offset = *entry & QCOW2_OFFSET_MASK;
	bool alone = check_only_l2(k, offset >> k->q->cluster_bits);
	int err = file_read(k->img->file, offset, k->l2, k->q->cluster_size);

	if (err)
		return err;
	if (!alone)
		repair_tell(k,
			    "Repairing L1 entry %" PRIu64 ": the L2 table at offset 0x%" PRIx64
			    " is used for something else too; it gets a place of its own",
			    l1_index, offset);
	fix_l2_entries(f, l1_index);
	if (alone && f->first == UINT_MAX)
		return 0;
	f->changed = true;
	if (alone)
		return repair_write(k, offset + f->first, k->l2 + f->first, f->last - f->first);
	err = append_table(f, &offset);
	*entry = offset | (*entry & QCOW2_COPIED);
	return err;
}

static bool table_possible(const struct qcow2 *q, uint64_t offset)
{
	return !(offset & (q->cluster_size - 1)) &&
	       qcow2_inside(offset, q->cluster_size, q->file_size) &&
	       !check_in_own_tables(q, offset);
}

static int fix_l1_entry(struct fix *f, uint64_t l1_offset, uint32_t i)
{
	struct check *k = f->k;
	be64_t word;
	int err = file_read(k->img->file, l1_offset + i * 8ull, &word, sizeof(word));
	uint64_t old = be64_get(word), entry = old & ~QCOW2_L1_RESERVED;

	if (err)
		return err;
	if (!(entry & QCOW2_OFFSET_MASK)) {
		entry = 0;
	} else if (!table_possible(k->q, entry & QCOW2_OFFSET_MASK)) {
		repair_tell(k,
			    "Repairing L1 entry %u: no L2 table can be where 0x%" PRIx64
			    " points; what it described could never be read and becomes "
			    "unallocated",
			    i, old);
		entry = 0;
	} else {
		err = fix_table(f, i, &entry);
	}
	if (err || entry == old)
		return err;
	f->changed = true;
	word = be64_make(entry);
	return repair_write(k, l1_offset + i * 8ull, &word, sizeof(word));
}

/* Is every cluster of the table this table's alone? */
static bool l1_alone(const struct check *k, uint64_t offset, uint64_t len)
{
	uint64_t bits = k->q->cluster_bits;

	for (uint64_t c = offset >> bits; c <= (offset + len - 1) >> bits; c++)
		if (check_in_use(k, c) != 1)
			return false;
	return true;
}

static int fix_l1(struct fix *f, uint64_t offset, uint32_t size)
{
	int err = 0;

	/* The active table is believed: what else refers to it loses its reference. */
	if (!size || !qcow2_inside(offset, size * 8ull, f->k->q->file_size) ||
	    (offset != f->k->q->header.l1_offset && !l1_alone(f->k, offset, size * 8ull)))
		return 0;
	for (uint32_t i = 0; !err && i < size; i++)
		err = fix_l1_entry(f, offset, i);
	return err;
}

int repair_entries(struct check *k, bool *changed)
{
	const struct qcow2_header *h = &k->q->header;
	struct fix f = {.k = k, .rules = qcow2_rules(k->q)};
	int err = fix_l1(&f, h->l1_offset, h->l1_size);

	for (unsigned i = 0; !err && i < h->nb_snapshots; i++) {
		struct qcow2_snapshot s;

		if (!qcow2_snapshot_read(k->img, i, &s, NULL))
			return -EIO;
		if (!qcow2_snapshot_l1_wrong(k->q, &s))
			err = fix_l1(&f, s.l1_offset, s.l1_size);
	}
	*changed = f.changed;
	return err;
}
