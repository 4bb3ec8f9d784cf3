/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: an image without zero flags and without another compression than deflate, as version 2
 * wants it ("Standard Cluster Descriptor", bit 0). A zero cluster becomes a hole where no backing
 * file is, else a cluster of zeroes. A table that several L1 tables share is changed in place,
 * since the same is true for all of them; what it refers to has as many references as it has
 * itself.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"

struct expand {
	struct image *img;
	struct qcow2 *q;
	GHashTable *seen; /* clusters of L2 tables */
	const struct image_progress *progress;
	uint64_t done, total; /* L1 entries */
	bool zstd;
};

static int write_zeroes(struct expand *x, uint64_t host)
{
	g_autofree uint8_t *zeroes = NULL;
	int err = file_zero(x->img->file, host, x->q->cluster_size);

	if (err != -EOPNOTSUPP)
		return err;
	zeroes = g_try_malloc0(x->q->cluster_size);
	return zeroes ? file_write(x->img->file, host, zeroes, x->q->cluster_size) : -ENOMEM;
}

static int refer(struct expand *x, uint64_t host, uint64_t times)
{
	int err = 0;

	while (!err && times-- > 0)
		err = qcow2_ref(x->img, host, x->q->cluster_size);
	return err;
}

/* A cluster of zeroes that `users` tables refer to: the one that is kept, when nobody else has it.
 */
static int zero_cluster(struct expand *x, uint64_t kept, uint64_t users, uint64_t *host)
{
	uint64_t count = 0;
	int err = kept ? qcow2_refcount(x->img, kept, &count) : 0;

	*host = kept;
	if (!err && (!kept || count != users)) {
		err = qcow2_alloc(x->img, x->q->cluster_size, host);
		if (!err)
			err = refer(x, *host, users - 1);
	}
	return err ? err : write_zeroes(x, *host);
}

static int forget(struct expand *x, uint64_t host, uint64_t times)
{
	int err = 0;

	while (!err && times-- > 0)
		err = qcow2_free_later(x->img, host, x->q->cluster_size);
	return err;
}

static int expand_entry(struct expand *x, uint64_t table, uint64_t i, uint64_t entry,
			uint64_t users)
{
	uint64_t kept = entry & QCOW2_OFFSET_MASK, host = 0;
	int err = 0;

	if (x->img->backing_name)
		err = zero_cluster(x, kept, users, &host);
	if (err)
		return err;
	err = qcow2_l2_write(x->img, table, i, host && users == 1 ? host | QCOW2_COPIED : host, 0);
	if (!err && kept && host != kept)
		err = forget(x, kept, users);
	return err;
}

static int compressed(struct expand *x)
{
	return x->zstd ? -ENOTSUP : 0;
}

static int expand_table(struct expand *x, uint64_t table, bool change)
{
	uint64_t n = 1ull << x->q->l2_bits, users;
	int err = qcow2_refcount(x->img, table, &users);

	for (uint64_t i = 0; !err && i < n; i++) {
		uint64_t entry, bitmap;

		err = qcow2_l2_read(x->img, table, i, &entry, &bitmap);
		if (err)
			break;
		if (entry & QCOW2_COMPRESSED)
			err = compressed(x);
		else if (change && (entry & QCOW2_ZERO))
			err = expand_entry(x, table, i, entry, users);
	}
	if (!err && cache_wants_flush(x->img->cache, x->img->file))
		err = qcow2_flush(x->img);
	return err;
}

static void tell(struct expand *x)
{
	x->done++;
	if (x->progress && x->progress->tell)
		x->progress->tell(x->progress->arg, x->done, x->total);
}

static int expand_l1(struct expand *x, uint64_t offset, uint32_t n, bool change)
{
	int err = 0;

	for (uint32_t i = 0; !err && i < n; i++) {
		uint64_t entry, table;
		be64_t word;

		err = cache_read(x->img->cache, x->img->file, offset + i * 8ull, &word,
				 sizeof(word));
		entry = be64_get(word);
		table = entry & QCOW2_OFFSET_MASK;
		if (change)
			tell(x);
		if (err || !table)
			continue;
		if (qcow2_l1_wrong(x->q->cluster_bits, entry) ||
		    !qcow2_inside(table, x->q->cluster_size, x->q->file_size)) {
			image_fault(x->img, EIO, 0, "L1 entry 0x%016" PRIx64 " is damaged", entry);
			return -EIO;
		}
		if (g_hash_table_add(x->seen, (gpointer)(uintptr_t)(table >> x->q->cluster_bits)))
			err = expand_table(x, table, change);
	}
	return err;
}

static int expand_all(struct expand *x, bool change)
{
	const struct qcow2_header *h = &x->q->header;
	int err = expand_l1(x, h->l1_offset, h->l1_size, change);

	for (unsigned i = 0; !err && i < h->nb_snapshots; i++) {
		struct qcow2_snapshot s;

		if (!qcow2_snapshot_usable(x->img, i, &s, NULL))
			return -EIO;
		x->total += change ? s.l1_size : 0;
		err = expand_l1(x, s.l1_offset, s.l1_size, change);
	}
	g_hash_table_remove_all(x->seen);
	return err;
}

bool qcow2_expand_zeroes(struct image *img, const struct image_progress *progress, GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	struct expand x = {
		.img = img,
		.q = q,
		.seen = g_hash_table_new(NULL, NULL),
		.progress = progress,
		.total = q->header.l1_size,
		.zstd = q->header.compression_type,
	};
	/* Looked through before anything is changed. */
	int err = x.zstd ? expand_all(&x, false) : 0;

	if (!err)
		err = expand_all(&x, true);
	g_hash_table_unref(x.seen);
	if (!err)
		return true;
	if (err == -ENOTSUP) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "Cannot downgrade an image with zstd compression type and existing "
			    "compressed clusters");
		return false;
	}
	return image_fail(img, err, "Failed to turn zero into data clusters", error);
}
