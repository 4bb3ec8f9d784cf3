/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: clusters that become holes, or zeroes with or without space of their own
 * ("Standard Cluster Descriptor", bit 0; "Extended L2 Entries").
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <string.h>

#include "image/cache.h"

struct unmap {
	struct image *img;
	struct qcow2 *q;
	enum unmap_mode mode;
	bool below;	     /* a backing file shows through holes */
	uint64_t start, end; /* bytes of the disk */
};

static bool zero_all(uint64_t bitmap)
{
	return bitmap >> 32 == UINT32_MAX && !(uint32_t)bitmap;
}

/* What the entry of a whole cluster becomes; false: it stays. */
static bool next_entry(const struct unmap *u, uint64_t entry, const struct qcow2_cluster *c,
		       uint64_t *new_entry, uint64_t *new_bitmap)
{
	const struct qcow2 *q = u->q;
	/* Only our own space can be kept: of a shared cluster the others have it. */
	bool keep = u->mode == UNMAP_TO_ZERO_KEEP && c->kind != QCOW2_CLUSTER_CODED && c->copied;

	*new_entry = *new_bitmap = 0;
	if (u->mode == UNMAP_TO_HOLE || (q->header.version < 3 && !u->below))
		return entry || c->bitmap;
	/* Without anything below, a hole is as good as a zero to who only gives space up. */
	if (u->mode == UNMAP_DISCARD && c->kind == QCOW2_CLUSTER_HOLE && !c->mixed && !u->below)
		return entry;
	if (keep)
		*new_entry = c->host | QCOW2_COPIED;
	if (q->extended)
		*new_bitmap = (uint64_t)UINT32_MAX << 32;
	else
		*new_entry |= QCOW2_ZERO;
	return *new_entry != entry || (q->extended && !zero_all(c->bitmap));
}

/* The same of the subclusters in bits: the host cluster stays for the others, and a cluster that
 * snapshots share stays theirs. */
static bool next_bitmap(const struct unmap *u, uint64_t entry, const struct qcow2_cluster *c,
			uint32_t bits, uint64_t *new_entry, uint64_t *new_bitmap)
{
	uint32_t data = c->bitmap, zero = c->bitmap >> 32, set = bits;

	if (u->mode == UNMAP_TO_HOLE)
		set = 0;
	else if (u->mode == UNMAP_DISCARD && !u->below)
		set = bits & (data | zero);
	data &= ~bits;
	zero = (zero & ~bits) | set;
	*new_bitmap = (uint64_t)zero << 32 | data;
	*new_entry = entry;
	/* Written space is kept, as of whole clusters; discarded space not, when all of it is. */
	if (u->mode == UNMAP_DISCARD && !data)
		*new_entry = 0;
	return *new_entry != entry || *new_bitmap != c->bitmap;
}

static int unmap_cluster(const struct unmap *u, uint64_t l2_offset, uint64_t cluster)
{
	uint32_t bits = qcow2_subclusters(u->q, cluster, u->start, u->end);
	struct qcow2_cluster c;
	uint64_t entry, new_entry, new_bitmap;
	int ret = qcow2_l2_get(u->img, l2_offset, cluster, &entry, &c);
	bool change;

	if (ret < 0)
		return ret;
	if (bits != UINT32_MAX && c.kind == QCOW2_CLUSTER_CODED)
		return -EOPNOTSUPP;
	change = bits == UINT32_MAX ? next_entry(u, entry, &c, &new_entry, &new_bitmap)
				    : next_bitmap(u, entry, &c, bits, &new_entry, &new_bitmap);
	if (!change)
		return 0;
	ret = qcow2_l2_write(u->img, l2_offset, cluster, new_entry, new_bitmap);
	if (ret < 0 || (new_entry & QCOW2_OFFSET_MASK))
		return ret;
	return qcow2_l2_release(u->img, &c);
}

/* Does a hole stay one? */
static bool nothing_to_hide(const struct unmap *u)
{
	return u->mode == UNMAP_TO_HOLE ||
	       (!u->below && (u->mode == UNMAP_DISCARD || u->q->header.version < 3));
}

/* Clusters [first, end) of one L2 table. */
static int unmap_table(const struct unmap *u, uint64_t first, uint64_t end)
{
	uint64_t l2_offset;
	int ret = cache_wants_flush(u->img->cache, u->img->file) ? qcow2_flush(u->img) : 0;

	if (ret == 0)
		ret = qcow2_l2_find(u->img, first, false, &l2_offset);
	if (ret < 0)
		return ret;
	if (!l2_offset && nothing_to_hide(u))
		return 0;
	ret = qcow2_l2_find(u->img, first, true, &l2_offset);
	for (uint64_t i = first; ret == 0 && i < end; i++)
		ret = unmap_cluster(u, l2_offset, i);
	return ret;
}

/*
 * The bytes in a data file. They are always at the same place, so that a hole in it cannot wait for
 * the tables: the next write may come before. Where it would show what is neither old nor new if
 * the power went, it is left as it is.
 */
static int clear_data(const struct unmap *u, uint64_t offset, uint64_t len)
{
	struct qcow2 *q = u->q;
	int ret = -EOPNOTSUPP;

	if (!q->data_file_raw && u->mode == UNMAP_TO_HOLE && u->below)
		return 0;
	if (u->mode != UNMAP_TO_ZERO_KEEP)
		ret = file_punch(q->data, offset, len);
	if (ret == -EOPNOTSUPP && q->data_file_raw)
		ret = file_zero(q->data, offset, len);
	/* Only a raw data file must read as the disk does. */
	return q->data_file_raw ? ret : 0;
}

int qcow2_unmap(struct image *img, uint64_t offset, uint64_t len, enum unmap_mode mode)
{
	struct unmap u = {
		.img = img,
		.q = qcow2_of(img),
		.mode = mode,
		.below = img->backing_name || img->backing || img->gets_backing,
		.start = offset,
		.end = offset + len,
	};
	unsigned bits = u.q->cluster_bits;
	uint64_t end = (offset + len + u.q->cluster_size - 1) >> bits;
	int ret = qcow2_begin(img);

	/* The disk's last cluster is whole even where the disk ends in its middle. */
	if (u.end == img->size)
		u.end = end << bits;

	if (ret == 0 && u.q->header.version < 3 && mode != UNMAP_TO_HOLE && u.below)
		return -EOPNOTSUPP;
	if (ret == 0 && u.q->external) {
		ret = u.q->data ? clear_data(&u, offset, len) : -EINVAL;
		/* A raw data file's bytes say all: the tables may go on pointing at them. */
		if (u.q->data_file_raw)
			return ret;
	}
	for (uint64_t at = offset >> bits; ret == 0 && at < end;) {
		uint64_t next = MIN(end, qcow2_l2_end(u.q, at));

		ret = unmap_table(&u, at, next);
		at = next;
	}
	return ret;
}
