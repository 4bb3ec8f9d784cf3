/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: internal snapshots ("Snapshots"). The table is walked once, an entry
 * at a time through the cache; what stays in memory is 4 bytes an entry.
 */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "image/cache.h"

static bool fail_read(int err, GError **error)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "could not read the snapshot table: %s",
		    g_strerror(-err));
	return false;
}

bool qcow2_snapshot_decode(const void *buf, size_t len, struct qcow2_snapshot *s)
{
	struct qcow2_snapshot_disk d;
	struct qcow2_snapshot_extra_disk x = {0};

	if (len < sizeof(d))
		return false;
	memcpy(&d, buf, sizeof(d));
	memset(s, 0, sizeof(*s));
	s->l1_offset = be64_get(d.l1_offset);
	s->l1_size = be32_get(d.l1_size);
	s->id_length = be16_get(d.id_length);
	s->name_length = be16_get(d.name_length);
	s->date_sec = be32_get(d.date_sec);
	s->date_nsec = be32_get(d.date_nsec);
	s->vm_clock_nsec = be64_get(d.vm_clock_nsec);
	s->extra_length = be32_get(d.extra_length);
	memcpy(&x, (const uint8_t *)buf + sizeof(d),
	       MIN(MIN(s->extra_length, sizeof(x)), len - sizeof(d)));
	s->vm_state_size =
		s->extra_length >= 8 ? be64_get(x.vm_state_size) : be32_get(d.vm_state_size);
	s->has_disk_size = s->extra_length >= 16;
	s->disk_size = be64_get(x.disk_size);
	s->icount = s->extra_length >= 24 ? be64_get(x.icount) : UINT64_MAX;
	s->total = sizeof(d) + (uint64_t)s->extra_length + s->id_length + s->name_length;
	s->total = (s->total + 7) & ~7ull;
	return true;
}

/* Reads and decodes the entry at this place of the main file. */
static bool read_entry(struct image *img, uint64_t at, struct qcow2_snapshot *s, GError **error)
{
	uint8_t buf[sizeof(struct qcow2_snapshot_disk) + sizeof(struct qcow2_snapshot_extra_disk)];
	int err = cache_read(img->cache, img->file, at, buf, sizeof(buf));

	if (err)
		return fail_read(err, error);
	qcow2_snapshot_decode(buf, sizeof(buf), s);
	return true;
}

bool qcow2_snapshots_index(struct image *img, struct qcow2 *q, GError **error)
{
	const struct qcow2_header *h = &q->header;
	g_autoptr(GArray) offsets = g_array_new(FALSE, FALSE, sizeof(uint32_t));
	uint64_t at = 0;

	for (uint32_t i = 0; i < h->nb_snapshots; i++) {
		struct qcow2_snapshot s;
		uint32_t here = at;

		if (!read_entry(img, h->snapshots_offset + at, &s, error))
			return false;
		if (s.extra_length > QCOW2_MAX_SNAPSHOT_EXTRA) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
				    "Too much extra metadata in snapshot table entry %u: %u bytes",
				    i, s.extra_length);
			return false;
		}
		at += s.total;
		if (at > QCOW2_MAX_SNAPSHOT_BYTES) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
				    "snapshot table is larger than 64 MiB at entry %u", i);
			return false;
		}
		/* The padding of the last entry may be missing. */
		if (!qcow2_inside(h->snapshots_offset, at - 7, q->file_size)) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
				    "snapshot table entry %u at offset 0x%" PRIx64
				    " goes past the end of the file",
				    i, h->snapshots_offset + here);
			return false;
		}
		g_array_append_val(offsets, here);
	}
	q->snapshots_length = at;
	q->snapshot_offsets = g_steal_pointer(&offsets);
	return true;
}

bool qcow2_snapshot_read(struct image *img, unsigned index, struct qcow2_snapshot *s,
			 GError **error)
{
	const struct qcow2 *q = qcow2_of(img);

	return read_entry(img,
			  q->header.snapshots_offset +
				  g_array_index(q->snapshot_offsets, uint32_t, index),
			  s, error);
}

char *qcow2_snapshot_text(struct image *img, unsigned index, const struct qcow2_snapshot *s,
			  bool name, GError **error)
{
	const struct qcow2 *q = qcow2_of(img);
	uint64_t at =
		q->header.snapshots_offset + g_array_index(q->snapshot_offsets, uint32_t, index) +
		sizeof(struct qcow2_snapshot_disk) + s->extra_length + (name ? s->id_length : 0);
	size_t len = name ? s->name_length : s->id_length;
	g_autofree char *text = g_malloc(len + 1);
	int err = cache_read(img->cache, img->file, at, text, len);

	if (err) {
		fail_read(err, error);
		return NULL;
	}
	/* A NUL ends the text: it cannot be asked for by name, but by its index. */
	text[len] = 0;
	return g_steal_pointer(&text);
}

GPtrArray *qcow2_snapshot_list(struct image *img, GError **error)
{
	const struct qcow2 *q = qcow2_of(img);
	g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)snapshot_free);

	for (unsigned i = 0; !q->parent && i < q->header.nb_snapshots; i++) {
		struct qcow2_snapshot s;
		struct snapshot *out;

		if (!qcow2_snapshot_read(img, i, &s, error))
			return NULL;
		out = snapshot_new();
		g_ptr_array_add(list, out);
		g_free(out->id);
		g_free(out->name);
		out->id = qcow2_snapshot_text(img, i, &s, false, error);
		out->name = out->id ? qcow2_snapshot_text(img, i, &s, true, error) : NULL;
		if (!out->name)
			return NULL;
		out->disk_size = s.has_disk_size ? s.disk_size : q->header.size;
		out->vm_state_size = s.vm_state_size;
		out->date_sec = s.date_sec;
		out->date_nsec = s.date_nsec;
		out->vm_clock_nsec = s.vm_clock_nsec;
		out->icount = s.icount;
	}
	return g_steal_pointer(&list);
}

const char *qcow2_snapshot_l1_wrong(const struct qcow2 *q, const struct qcow2_snapshot *s)
{
	if (s->l1_size > QCOW2_MAX_L1_ENTRIES)
		return "L1 table is too large";
	if (s->l1_offset & (q->cluster_size - 1))
		return "L1 table is not cluster aligned";
	return NULL;
}

bool qcow2_snapshot_usable(struct image *img, unsigned index, struct qcow2_snapshot *s,
			   GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	const char *wrong;

	if (q->parent || index >= q->header.nb_snapshots) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND, "there is no snapshot %u",
			    index);
		return false;
	}
	if (!qcow2_snapshot_read(img, index, s, error))
		return false;
	wrong = qcow2_snapshot_l1_wrong(q, s);
	if (!wrong && s->l1_size &&
	    (!s->l1_offset || !qcow2_inside(s->l1_offset, s->l1_size * 8ull, q->file_size)))
		wrong = "L1 table does not lie inside the file";
	if (!wrong && s->has_disk_size && s->disk_size > INT64_MAX)
		wrong = "disk size is too large";
	/* Without a recorded size the disk's own is meant, which may have grown since. */
	if (!wrong && s->has_disk_size && s->disk_size > 0 &&
	    (s->disk_size - 1) >> (q->cluster_bits + q->l2_bits) >= s->l1_size)
		wrong = "L1 table is too small for the snapshot's disk";
	if (!wrong)
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
		    "snapshot table entry %u: %s (l1_offset=0x%" PRIx64 " l1_size=%u)", index,
		    wrong, s->l1_offset, s->l1_size);
	return false;
}

bool qcow2_view(struct image *img, unsigned index, struct image *view, GError **error)
{
	struct qcow2 *from = qcow2_of(img), *q;
	struct qcow2_snapshot s;

	if (!qcow2_snapshot_usable(img, index, &s, error))
		return false;
	q = g_memdup2(from, sizeof(*from));
	q->parent = from;
	q->writer = NULL;
	q->snapshot_offsets = NULL;
	q->data = from->data ? file_ref(from->data) : NULL;
	q->l1_offset = s.l1_offset;
	q->l1_size = s.l1_size;
	q->last_l1_index = UINT64_MAX;
	view->state = q;
	view->size = s.has_disk_size ? s.disk_size : from->header.size;
	view->cluster_size = q->cluster_size;
	return true;
}
