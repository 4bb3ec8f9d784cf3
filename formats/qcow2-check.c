/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: check. Counts the references to each host cluster that the tables
 * make, compares them with the stored refcounts ("Host cluster management"), and
 * then the COPIED flags of the active tables with the refcounts. Sentences and
 * their order are those of qemu-img check. Each phase is a function of its own,
 * so that a repair can run between them.
 */
#include "formats/qcow2-check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "image/cache.h"

/* An image can say that there are 2^40 entries to look at, so whoever asked may lose patience. */
static bool goes_on(struct check *k)
{
	if (!k->cancelled && k->options->cancelled)
		k->cancelled = k->options->cancelled();
	return !k->no_memory && !k->cancelled;
}
/* For loops over what is cheap. */
#define NOW_AND_THEN(i) (((i)&1023) == 0)

static void found(struct check *k, enum finding kind, const char *format, ...) G_GNUC_PRINTF(3, 4);
static void found(struct check *k, enum finding kind, const char *format, ...)
{
	uint64_t *counts[] = {&k->result->corruptions, &k->result->leaks, &k->result->check_errors};
	va_list ap;

	++*counts[kind];
	k->io_error |= kind == FOUND_ERROR && !k->bad_structure;
	/* An image can hold millions of errors: the first ones say it. */
	if (!k->options->tell || k->told[kind]++ >= CHECK_MESSAGES)
		return;
	va_start(ap, format);
	g_autofree char *sentence = g_strdup_vprintf(format, ap);
	va_end(ap);
	k->options->tell(k->options->arg, sentence);
}

void check_tell(struct check *k, uint64_t *told, const char *format, ...)
{
	va_list ap;

	if (!k->options->tell || (*told)++ >= CHECK_MESSAGES)
		return;
	va_start(ap, format);
	g_autofree char *sentence = g_strdup_vprintf(format, ap);
	va_end(ap);
	k->options->tell(k->options->arg, sentence);
}

static void tell_rest(struct check *k)
{
	static const char *const names[] = {"corruptions", "leaks", "check errors"};

	for (int i = 0; i < FOUND_KINDS; i++) {
		if (k->told[i] <= CHECK_MESSAGES || !k->options->tell)
			continue;
		g_autofree char *s = g_strdup_printf("... and %" PRIu64 " more %s",
						     k->told[i] - CHECK_MESSAGES, names[i]);
		k->options->tell(k->options->arg, s);
	}
}

bool check_countable(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
	return offset <= UINT64_MAX - len && offset + len < q->file_size + q->cluster_size;
}

bool check_in_own_tables(const struct qcow2 *q, uint64_t host)
{
	uint64_t l1_end = q->header.l1_offset + q->header.l1_size * 8ull;

	return host < q->cluster_size ||
	       (host < l1_end && q->header.l1_offset < host + q->cluster_size);
}

/* Counts a reference to each cluster that [offset, offset+len) touches; role: NULL, or the map of
 * what they are. */
static void count_role(struct check *k, uint64_t offset, uint64_t len, struct spacemap *role)
{
	const struct qcow2 *q = k->q;

	if (!len)
		return;
	if (!check_countable(q, offset, len)) {
		k->bad_entries = true;
		found(k, FOUND_CORRUPTION,
		      "ERROR: counting reference for region exceeding the end of the file by one "
		      "cluster or more: offset 0x%" PRIx64 " size 0x%" PRIx64,
		      offset, len);
		return;
	}
	uint64_t first = offset >> q->cluster_bits, last = (offset + len - 1) >> q->cluster_bits;

	if (!spacemap_add(k->map, first, last - first + 1) ||
	    (role && !spacemap_add(role, first, last - first + 1)))
		k->no_memory = true;
}

static void count_region(struct check *k, uint64_t offset, uint64_t len)
{
	count_role(k, offset, len, NULL);
}

/* Refcounts as stored. */

/* Of the table that there is: with -r it may lie outside of the file. */
static uint64_t reftable_entries(const struct qcow2 *q)
{
	const struct qcow2_header *h = &q->header;
	uint64_t len = (uint64_t)h->reftable_clusters << q->cluster_bits;

	if (!h->reftable_offset || (h->reftable_offset & (q->cluster_size - 1)) ||
	    !qcow2_inside(h->reftable_offset, len, q->file_size))
		return 0;
	return len / 8;
}

int check_refcount_block(struct check *k, uint64_t i, uint64_t *block)
{
	const struct qcow2 *q = k->q;
	be64_t entry;
	int err;

	if (i >= reftable_entries(q))
		return CHECK_NO_BLOCK;
	err = cache_read(k->img->cache, k->img->file, q->header.reftable_offset + i * 8, &entry,
			 sizeof(entry));
	if (err)
		return err;
	*block = be64_get(entry) & QCOW2_REFTABLE_OFFSET_MASK;
	if (!*block || *block >= q->file_size)
		return CHECK_NO_BLOCK;
	return *block & (q->cluster_size - 1) ? -EIO : 0;
}

void check_unpin(struct check *k)
{
	if (k->pinned)
		cache_put(k->pinned);
	k->pinned = NULL;
	k->pinned_n = 0;
}

/* Keeps the part of a refcount block around this cluster's entry: the next one is mostly in it. As
 * check_refcount_block. */
static int pin_refcounts(struct check *k, uint64_t cluster)
{
	unsigned order = k->q->header.refcount_order;
	unsigned block_bits = k->q->cluster_bits + 3 - order; /* log2 of entries a block */
	uint64_t within = cluster & ((1ull << block_bits) - 1), block, at, end;
	const void *data;
	size_t left;
	int err = check_refcount_block(k, cluster >> block_bits, &block);

	check_unpin(k);
	if (err)
		return err;
	at = block + (within << order) / 8;
	at = MAX(block, at - at % CACHE_BLOCK);
	err = cache_get(k->img->cache, k->img->file, at, &k->pinned, &data, &left);
	if (err) {
		k->pinned = NULL;
		return err;
	}
	end = MIN(at + left, block + k->q->cluster_size);
	k->pinned_data = data;
	k->pinned_n = (end - at) * 8 >> order;
	k->pinned_first = cluster - within + ((at - block) * 8 >> order);
	return 0;
}

/* As check_refcount_block. */
static int stored_refcount(struct check *k, uint64_t cluster, uint64_t *count)
{
	unsigned order = k->q->header.refcount_order;

	*count = 0;
	if (cluster < k->pinned_first || cluster - k->pinned_first >= k->pinned_n) {
		int err = pin_refcounts(k, cluster);

		if (err)
			return err;
	}
	*count = qcow2_refcount_entry(k->pinned_data, cluster - k->pinned_first, order);
	return 0;
}

int check_refcount(struct check *k, uint64_t cluster, uint64_t *count)
{
	int err = stored_refcount(k, cluster, count);

	return err == CHECK_NO_BLOCK ? 0 : err;
}

/* Counting references. */

static void count_coded(struct check *k, uint64_t cluster, uint64_t entry, uint64_t bitmap)
{
	unsigned x = 62 - (k->q->cluster_bits - 8);
	uint64_t host = entry & ((1ull << x) - 1);
	uint64_t len = ((entry & (QCOW2_COMPRESSED - 1)) >> x) * 512 + 512 - (host & 511);

	k->bad_entries |= (entry & QCOW2_COPIED) || k->q->external || (k->q->extended && bitmap) ||
			  host >= k->q->file_size;
	if (entry & QCOW2_COPIED)
		found(k, FOUND_CORRUPTION,
		      "ERROR: coffset=0x%" PRIx64
		      ": copied flag must never be set for compressed clusters",
		      host);
	if (k->q->external) {
		found(k, FOUND_CORRUPTION,
		      "ERROR compressed cluster %" PRIu64 " with data file, entry=0x%" PRIx64,
		      cluster, entry);
		return;
	}
	if (k->q->extended && bitmap) {
		found(k, FOUND_CORRUPTION,
		      "ERROR compressed cluster %" PRIu64
		      " with non-zero subcluster allocation bitmap, entry=0x%" PRIx64,
		      cluster, entry);
		return;
	}
	count_region(k, host, len);
	if (k->active) {
		k->result->allocated_clusters++;
		k->result->compressed_clusters++;
		/* Compressed clusters are never in sequence. */
		k->result->fragmented_clusters++;
	}
}

static void count_standard(struct check *k, uint64_t entry, uint64_t bitmap, uint64_t *expected)
{
	const struct qcow2 *q = k->q;
	uint64_t host = entry & QCOW2_OFFSET_MASK;
	bool allocated = host || (q->external && (entry & QCOW2_COPIED));
	/* Bit 0 is reserved where no zero flag is. */
	bool no_flag = q->extended || q->header.version < 3;
	uint64_t reserved = QCOW2_L2_RESERVED | (no_flag ? QCOW2_ZERO : 0);
	bool zero = !no_flag && (entry & QCOW2_ZERO);

	k->bad_entries |= (entry & reserved) || (host & (q->cluster_size - 1)) ||
			  (!allocated && (uint32_t)bitmap) || ((uint32_t)bitmap & bitmap >> 32) ||
			  (host && !q->external && check_in_own_tables(q, host));
	if (entry & reserved)
		found(k, FOUND_CORRUPTION, "ERROR found l2 entry with reserved bits set: %" PRIx64,
		      entry);
	if (!allocated) {
		if (q->extended && (uint32_t)bitmap)
			found(k, FOUND_CORRUPTION,
			      "ERROR: Unallocated cluster has non-zero subcluster allocation map");
		return;
	}
	if (q->extended && ((uint32_t)bitmap & bitmap >> 32))
		found(k, FOUND_CORRUPTION,
		      "ERROR offset=%" PRIx64
		      ": Allocated cluster has corrupted subcluster allocation bitmap",
		      host);
	if (k->active) {
		k->result->allocated_clusters++;
		if (*expected && host != *expected)
			k->result->fragmented_clusters++;
		*expected = host + q->cluster_size;
	}
	if (host & (q->cluster_size - 1))
		found(k, FOUND_CORRUPTION,
		      "ERROR offset=%" PRIx64
		      ": %s cluster is not properly aligned; L2 entry corrupted.",
		      host, zero ? "Preallocated" : "Data");
	if (!q->external)
		count_region(k, host, q->cluster_size);
}

static bool read_l2(struct check *k, uint64_t offset)
{
	int err;

	if (!qcow2_inside(offset, k->q->cluster_size, k->q->file_size)) {
		k->bad_entries = k->lost_tables = true;
		return false;
	}
	err = file_read(k->img->file, offset, k->l2, k->q->cluster_size);
	if (!err)
		return true;
	found(k, FOUND_ERROR, "ERROR: I/O error in check_refcounts_l2: %s", g_strerror(-err));
	return false;
}

static void get_entry(const struct check *k, uint64_t i, uint64_t *entry, uint64_t *bitmap)
{
	const be64_t *words = (const be64_t *)k->l2;

	*entry = be64_get(words[k->q->extended ? 2 * i : i]);
	*bitmap = k->q->extended ? be64_get(words[2 * i + 1]) : 0;
}

static void count_l2(struct check *k, uint64_t l1_index, uint64_t offset)
{
	uint64_t n = 1ull << k->q->l2_bits, expected = 0;

	if (!read_l2(k, offset))
		return;
	for (uint64_t i = 0; i < n && !k->no_memory; i++) {
		uint64_t entry, bitmap;

		if (NOW_AND_THEN(i) && !goes_on(k))
			return;
		get_entry(k, i, &entry, &bitmap);
		if (entry & QCOW2_COMPRESSED)
			count_coded(k, (l1_index << k->q->l2_bits) + i, entry, bitmap);
		else if (entry || bitmap)
			count_standard(k, entry, bitmap, &expected);
	}
}

static int read_l1_entry(struct check *k, uint64_t l1_offset, uint64_t i, uint64_t *entry)
{
	be64_t e;
	int err = cache_read(k->img->cache, k->img->file, l1_offset + i * 8, &e, sizeof(e));

	*entry = err ? 0 : be64_get(e);
	return err;
}

/* An L1 table that is known to be aligned and not too large. */
static void count_l1(struct check *k, uint64_t l1_offset, uint32_t l1_size)
{
	count_region(k, l1_offset, l1_size * 8ull);
	/* A table that is not in the file refers to nothing. */
	if (!qcow2_inside(l1_offset, l1_size * 8ull, k->q->file_size)) {
		k->lost_tables = true;
		return;
	}
	for (uint32_t i = 0; i < l1_size && !k->no_memory; i++) {
		uint64_t entry, offset;

		if (NOW_AND_THEN(i) && !goes_on(k))
			return;
		if (read_l1_entry(k, l1_offset, i, &entry)) {
			found(k, FOUND_ERROR, "ERROR: I/O error in check_refcounts_l1");
			return;
		}
		offset = entry & QCOW2_OFFSET_MASK;
		if (!entry)
			continue;
		k->bad_entries |=
			(entry & QCOW2_L1_RESERVED) || !offset || check_in_own_tables(k->q, offset);
		if (entry & QCOW2_L1_RESERVED)
			found(k, FOUND_CORRUPTION,
			      "ERROR found L1 entry with reserved bits set: %" PRIx64, entry);
		if (!offset) {
			if (entry & QCOW2_COPIED)
				found(k, FOUND_CORRUPTION,
				      "ERROR L1 entry %u is marked as in use at offset 0: %" PRIx64,
				      i, entry);
			continue;
		}
		count_role(k, offset, k->q->cluster_size, k->l2_role);
		if (offset & (k->q->cluster_size - 1)) {
			k->bad_entries = k->lost_tables = true;
			found(k, FOUND_CORRUPTION,
			      "ERROR l2_offset=%" PRIx64
			      ": Table is not cluster aligned; L1 entry corrupted",
			      offset);
			continue;
		}
		count_l2(k, i, offset);
	}
}

static void count_snapshots(struct check *k)
{
	const struct qcow2_header *h = &k->q->header;

	for (unsigned i = 0; i < h->nb_snapshots && goes_on(k); i++) {
		struct qcow2_snapshot s;
		const char *wrong;

		if (!qcow2_snapshot_read(k->img, i, &s, NULL)) {
			found(k, FOUND_ERROR, "ERROR failed to read the snapshot table");
			return;
		}
		wrong = qcow2_snapshot_l1_wrong(k->q, &s);
		if (wrong) {
			g_autofree char *id = qcow2_snapshot_text(k->img, i, &s, false, NULL);
			g_autofree char *name = qcow2_snapshot_text(k->img, i, &s, true, NULL);
			g_autofree char *safe_id = report_escape(id ? id : "", -1);
			g_autofree char *safe_name = report_escape(name ? name : "", -1);
			bool size = s.l1_size > QCOW2_MAX_L1_ENTRIES;

			k->lost_tables = true;
			found(k, FOUND_CORRUPTION,
			      "ERROR snapshot %s (%s) %s=0x%" PRIx64
			      ": %s; snapshot table entry corrupted",
			      safe_id, safe_name, size ? "l1_size" : "l1_offset",
			      size ? (uint64_t)s.l1_size : s.l1_offset, wrong);
			continue;
		}
		count_l1(k, s.l1_offset, s.l1_size);
	}
	if (h->nb_snapshots)
		count_region(k, h->snapshots_offset, k->q->snapshots_length);
}

static bool count_bitmap(void *arg, const struct qcow2_bitmap *b, const char *name)
{
	struct check *k = arg;

	count_region(k, b->table_offset, b->table_size * 8ull);
	if (!qcow2_inside(b->table_offset, b->table_size * 8ull, k->q->file_size)) {
		k->lost_tables = true;
		return true;
	}
	for (uint32_t i = 0; i < b->table_size && !k->no_memory; i++) {
		uint64_t entry, offset;

		if (NOW_AND_THEN(i) && !goes_on(k))
			return false;
		if (read_l1_entry(k, b->table_offset, i, &entry)) {
			found(k, FOUND_ERROR, "ERROR: I/O error in a bitmap table");
			return true;
		}
		offset = entry & QCOW2_OFFSET_MASK;
		if (entry & (QCOW2_L1_RESERVED | QCOW2_COPIED) & ~(offset ? 0ull : 1ull)) {
			g_autofree char *safe = report_escape(name, -1);

			found(k, FOUND_CORRUPTION,
			      "ERROR bitmap '%s' has an invalid table entry 0x%" PRIx64, safe,
			      entry);
			k->lost_tables = true;
			continue;
		}
		if (offset)
			count_region(k, offset, k->q->cluster_size);
	}
	return true;
}

static void count_bitmaps(struct check *k)
{
	const struct qcow2_header *h = &k->q->header;
	g_autoptr(GError) error = NULL;

	/* Without the bit they belong to nobody: their clusters are leaks. */
	if (!h->has_bitmaps || !(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return;
	if (!qcow2_bitmaps_each(k->img, count_bitmap, k, &error)) {
		if (!error)
			return; /* cancelled */
		k->lost_tables = true;
		found(k, FOUND_CORRUPTION, "ERROR %s", error->message);
		return;
	}
	count_region(k, h->bitmap_directory_offset, h->bitmap_directory_size);
}

static void count_refcount_blocks(struct check *k)
{
	const struct qcow2 *q = k->q;
	uint64_t n = reftable_entries(q);

	for (uint64_t i = 0; i < n && !k->no_memory; i++) {
		uint64_t entry, offset, count;

		if (NOW_AND_THEN(i) && !goes_on(k))
			return;
		if (read_l1_entry(k, q->header.reftable_offset, i, &entry)) {
			found(k, FOUND_ERROR, "ERROR: I/O error in the refcount table");
			return;
		}
		offset = entry & QCOW2_REFTABLE_OFFSET_MASK;
		if (entry & QCOW2_REFTABLE_RESERVED) {
			k->bad_structure = true;
			found(k, FOUND_CORRUPTION,
			      "ERROR refcount table entry %" PRIu64 " has reserved bits set", i);
			continue;
		}
		if (!offset)
			continue;
		if (offset & (q->cluster_size - 1)) {
			k->bad_structure = true;
			found(k, FOUND_CORRUPTION,
			      "ERROR refcount block %" PRIu64
			      " is not cluster aligned; refcount table entry corrupted",
			      i);
			continue;
		}
		if (offset >= q->file_size) {
			k->bad_structure = true;
			found(k, FOUND_CORRUPTION,
			      "ERROR refcount block %" PRIu64 " is outside image", i);
			continue;
		}
		count_role(k, offset, q->cluster_size, k->refcount_role);
		count = spacemap_get(k->map, offset >> q->cluster_bits);
		k->bad_structure |= count != 1;
		if (count != 1)
			found(k, FOUND_CORRUPTION,
			      "ERROR refcount block %" PRIu64 " refcount=%" PRIu64, i, count);
	}
}

/* Writing counts into clusters that are something else too would destroy that. */
static void check_reftable_alone(struct check *k)
{
	const struct qcow2 *q = k->q;

	if (!reftable_entries(q)) {
		k->bad_structure = true;
		return;
	}
	for (uint64_t i = 0; i < q->header.reftable_clusters; i++)
		if (spacemap_get(k->map, (q->header.reftable_offset >> q->cluster_bits) + i) != 1)
			k->bad_structure = true;
}

/* "Version 3 images must include extra data at least up to byte 55": the disk's size. Without it
 * the snapshot is shown as large as the disk is now, as in version 2. */
static void check_snapshot_entries(struct check *k)
{
	const struct qcow2_header *h = &k->q->header;
	struct qcow2_snapshot s;

	if (k->q->salvaged)
		found(k, FOUND_CORRUPTION,
		      "ERROR the snapshot table is damaged: %u of its %u entries can be read",
		      h->nb_snapshots, h->nb_snapshots + k->q->lost_snapshots);
	k->lost_tables |= k->q->lost_snapshots;
	for (unsigned i = 0; h->version >= 3 && i < h->nb_snapshots && goes_on(k); i++)
		if (qcow2_snapshot_read(k->img, i, &s, NULL) && !s.has_disk_size)
			found(k, FOUND_CORRUPTION, "ERROR snapshot table entry %u is incomplete",
			      i);
}

static void count_all(struct check *k)
{
	const struct qcow2_header *h = &k->q->header;

	check_snapshot_entries(k);
	count_region(k, 0, k->q->cluster_size);
	k->active = true;
	count_l1(k, h->l1_offset, h->l1_size);
	k->active = false;
	count_snapshots(k);
	count_role(k, h->reftable_offset, (uint64_t)h->reftable_clusters << h->cluster_bits,
		   k->refcount_role);
	if (h->has_crypto)
		count_region(k, h->crypto_offset, h->crypto_length);
	count_bitmaps(k);
	count_refcount_blocks(k);
	if (!k->no_memory)
		check_reftable_alone(k);
}

/* Comparing. */

static void compare_one(struct check *k, uint64_t i, uint64_t *end)
{
	uint64_t stored, real = spacemap_get(k->map, i);
	int err = stored_refcount(k, i, &stored);

	if (err < 0 && i < k->clusters) {
		found(k, FOUND_ERROR, "Can't get refcount for cluster %" PRIu64 ": %s", i,
		      g_strerror(-err));
		return;
	}
	/* One cluster past the end counts only when something refers to it. */
	if (i == k->clusters && !real)
		return;
	k->greatest = MAX(k->greatest, real);
	k->bad_structure |= real && err == CHECK_NO_BLOCK;
	k->holes |= real && !stored;
	if (stored || real)
		*end = i + 1;
	if (stored != real)
		found(k, stored < real ? FOUND_CORRUPTION : FOUND_LEAK,
		      "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
		      stored < real ? "ERROR" : "Leaked", i, stored, real);
}

static void compare_refcounts(struct check *k)
{
	uint64_t end = 0;

	for (uint64_t i = 0; i <= k->clusters; i++) {
		if (NOW_AND_THEN(i) && !goes_on(k))
			return;
		compare_one(k, i, &end);
	}
	k->result->image_end_offset = end << k->q->cluster_bits;
}

/*
 * COPIED says that the refcount is 1. While the count is too high, which is a leak and no more, the
 * flag may also go by the references that there are: so it is after a cut in the middle of
 * qemu-img's snapshot commands, and of ours on a full host, and nothing is written that is shared.
 */
static bool copied_wrong(struct check *k, uint64_t host, bool copied, uint64_t *stored)
{
	uint64_t cluster = host >> k->q->cluster_bits, real;

	*stored = 0;
	if (stored_refcount(k, cluster, stored) < 0 || (*stored == 1) == copied)
		return false;
	real = cluster <= k->clusters ? spacemap_get(k->map, cluster) : 0;
	return !(*stored > real && (real == 1) == copied);
}

static void check_copied_l2(struct check *k, uint64_t offset)
{
	const struct qcow2 *q = k->q;
	uint64_t n = 1ull << q->l2_bits;

	if ((offset & (q->cluster_size - 1)) || !read_l2(k, offset))
		return;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t entry, bitmap, host, count = 1;
		bool copied, wrong;

		if (NOW_AND_THEN(i) && !goes_on(k))
			return;
		get_entry(k, i, &entry, &bitmap);
		host = entry & QCOW2_OFFSET_MASK;
		/* Zero clusters without a host cluster, and with a data file
		 * those at offset 0, have nothing to be counted. */
		if (!host || (entry & QCOW2_COMPRESSED))
			continue;
		copied = entry & QCOW2_COPIED;
		wrong = q->external ? !copied : copied_wrong(k, host, copied, &count);
		if (wrong)
			found(k, FOUND_CORRUPTION,
			      "ERROR OFLAG_COPIED data cluster: l2_entry=%" PRIx64
			      " refcount=%" PRIu64,
			      entry, count);
	}
}

static void check_copied(struct check *k)
{
	const struct qcow2_header *h = &k->q->header;

	for (uint32_t i = 0; i < h->l1_size; i++) {
		uint64_t entry, offset, count;

		if (NOW_AND_THEN(i) && !goes_on(k))
			return;
		if (read_l1_entry(k, h->l1_offset, i, &entry))
			return;
		offset = entry & QCOW2_OFFSET_MASK;
		if (!offset)
			continue;
		if (copied_wrong(k, offset, entry & QCOW2_COPIED, &count))
			found(k, FOUND_CORRUPTION,
			      "ERROR OFLAG_COPIED L2 cluster: l1_index=%u l1_entry=%" PRIx64
			      " refcount=%" PRIu64,
			      i, entry, count);
		check_copied_l2(k, offset);
	}
}

void check_end(struct check *k)
{
	check_unpin(k);
	spacemap_free(k->map);
	spacemap_free(k->l2_role);
	spacemap_free(k->refcount_role);
	g_free(k->l2);
	k->map = k->l2_role = k->refcount_role = NULL;
	k->l2 = NULL;
}

/* roles: repair will follow. */
static bool begin(struct check *k, bool roles)
{
	k->map = spacemap_new(k->clusters + 2);
	k->l2 = g_try_malloc(k->q->cluster_size);
	if (roles) {
		k->l2_role = spacemap_new(k->clusters + 2);
		k->refcount_role = spacemap_new(k->clusters + 2);
	}
	return k->map && k->l2 && (!roles || (k->l2_role && k->refcount_role));
}

bool check_run(struct check *k, struct image *img, const struct check_options *options,
	       struct check_result *result, GError **error)
{
	struct qcow2 *q = qcow2_of(img);

	*k = (struct check){
		.img = img,
		.q = q,
		.options = options,
		.result = result,
		.clusters = (q->file_size + q->cluster_size - 1) >> q->cluster_bits,
	};
	memset(result, 0, sizeof(*result));
	result->total_clusters =
		(q->header.size >> q->cluster_bits) + !!(q->header.size & (q->cluster_size - 1));
	k->no_memory = !begin(k, options->repair != CHECK_REPAIR_NONE);
	if (!k->no_memory)
		count_all(k);
	if (!k->no_memory) {
		compare_refcounts(k);
		check_copied(k);
		tell_rest(k);
	}
	if (!k->no_memory && !k->cancelled)
		return true;
	if (k->cancelled)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "interrupted");
	else
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "not enough memory to count the references to %" PRIu64 " clusters",
			    k->clusters);
	check_end(k);
	return false;
}

bool qcow2_check(struct image *img, const struct check_options *options,
		 struct check_result *result, GError **error)
{
	struct check k;
	bool ok;

	if (options->repair != CHECK_REPAIR_NONE)
		return qcow2_repair(img, options, result, error);
	ok = check_run(&k, img, options, result, error);
	if (ok)
		check_end(&k);
	return ok;
}
