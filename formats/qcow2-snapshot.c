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

/* As the specification has it: entries one behind the other. *length: of those that are good. */
static bool walk(struct image *img, const struct qcow2 *q, GArray *offsets, uint64_t *length,
		 GError **error)
{
	const struct qcow2_header *h = &q->header;
	bool check = img->flags & IMAGE_FOR_CHECK;
	uint64_t at = 0;

	/* For a check nobody has looked at the place yet. */
	if (check && !qcow2_header_check_snapshots(h, q->file_size, error))
		return false;
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
		/* Others read it as an empty disk without a name. */
		if (check && !s.id_length && !s.l1_offset) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
				    "snapshot table entry %u is empty", i);
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
	*length = at;
	return true;
}

/* ---- damaged tables -----------------------------------------------------------------------------
 */

#define MAX_NAME 255 /* no program writes longer ones */

/* The ID: a decimal number, or at least a word. */
static bool is_word(struct image *img, uint64_t at, size_t len)
{
	char text[64];

	if (len == 0 || len > sizeof(text) || cache_read(img->cache, img->file, at, text, len) < 0)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!g_ascii_isgraph(text[i]))
			return false;
	return true;
}

/* A name without an end is cut: what follows it may be the next entry. */
static bool fit_name(struct image *img, uint64_t place, struct qcow2_snapshot *s)
{
	uint64_t before = sizeof(struct qcow2_snapshot_disk) + s->extra_length + s->id_length;
	char text[MAX_NAME];

	if (s->name_length <= MAX_NAME)
		return true;
	if (cache_read(img->cache, img->file, place + before, text, sizeof(text)) < 0)
		return false;
	s->name_length = strnlen(text, sizeof(text));
	s->total = (before + s->name_length + 7) & ~7ull;
	return true;
}

/* Is what lies here an entry, as far as can be told, when its extra data is so long? Random bytes
 * are not, nor zeroes. */
static bool is_entry(struct image *img, const struct qcow2 *q, uint64_t at, uint32_t extra_length,
		     struct qcow2_snapshot *s)
{
	uint8_t buf[sizeof(struct qcow2_snapshot_disk) + sizeof(struct qcow2_snapshot_extra_disk)];
	uint64_t place = q->header.snapshots_offset + at;
	be32_t length = be32_make(extra_length);

	if (cache_read(img->cache, img->file, place, buf, sizeof(buf)) < 0)
		return false;
	memcpy(buf + offsetof(struct qcow2_snapshot_disk, extra_length), &length, sizeof(length));
	qcow2_snapshot_decode(buf, sizeof(buf), s);
	return !qcow2_snapshot_l1_wrong(q, s) && s->l1_offset &&
	       qcow2_inside(s->l1_offset, s->l1_size * 8ull, q->file_size) &&
	       s->date_nsec < 1000000000 &&
	       is_word(img, place + sizeof(struct qcow2_snapshot_disk) + extra_length,
		       s->id_length) &&
	       fit_name(img, place, s) && at + s->total <= QCOW2_MAX_SNAPSHOT_BYTES &&
	       qcow2_inside(place, s->total - 7, q->file_size);
}

static bool believable(struct image *img, const struct qcow2 *q, uint64_t at,
		       struct qcow2_snapshot *s)
{
	uint64_t place = q->header.snapshots_offset + at;
	uint32_t usual[] = {sizeof(struct qcow2_snapshot_extra_disk), 16};

	if (!qcow2_inside(place, sizeof(struct qcow2_snapshot_disk), q->file_size) ||
	    !read_entry(img, place, s, NULL))
		return false;
	if (is_entry(img, q, at, s->extra_length, s))
		return true;
	for (size_t i = 0; i < G_N_ELEMENTS(usual); i++)
		if (is_entry(img, q, at, usual[i], s))
			return true;
	return false;
}

/*
 * Whatever can be told to be an entry. Behind one that cannot, the next is searched for in the same
 * cluster only: further on, bytes may be a guest's, who can write what looks like one.
 */
static void salvage(struct image *img, struct qcow2 *q, GArray *offsets)
{
	struct qcow2_header *h = &q->header;
	uint32_t wanted = MIN(h->nb_snapshots, QCOW2_MAX_SNAPSHOTS);
	uint64_t at = 0, stop = 0;

	g_array_set_size(offsets, 0);
	q->salvaged = g_array_new(FALSE, FALSE, sizeof(struct qcow2_snapshot));
	q->snapshots_length = 0;
	if (!(h->snapshots_offset & (q->cluster_size - 1)) && h->snapshots_offset)
		stop = q->cluster_size;
	while (offsets->len < wanted && at < stop) {
		struct qcow2_snapshot s;
		uint32_t here = at;

		if (!believable(img, q, at, &s)) {
			at += 8;
			continue;
		}
		g_array_append_val(offsets, here);
		g_array_append_val(q->salvaged, s);
		at += s.total;
		q->snapshots_length = at;
		stop = MAX(stop, (at + q->cluster_size) & ~(q->cluster_size - 1ull));
	}
	q->lost_snapshots = h->nb_snapshots - offsets->len;
	h->nb_snapshots = offsets->len;
}

void qcow2_snapshots_forget(struct qcow2 *q)
{
	g_clear_pointer(&q->snapshot_offsets, g_array_unref);
	g_clear_pointer(&q->salvaged, g_array_unref);
	q->snapshots_length = 0;
	q->lost_snapshots = 0;
}

bool qcow2_snapshots_index(struct image *img, struct qcow2 *q, GError **error)
{
	g_autoptr(GArray) offsets = g_array_new(FALSE, FALSE, sizeof(uint32_t));
	g_autoptr(GError) why = NULL;

	if (!walk(img, q, offsets, &q->snapshots_length, &why)) {
		if (!(img->flags & IMAGE_FOR_CHECK) ||
		    g_error_matches(why, IMAGE_ERROR, IMAGE_ERROR_FAILED)) {
			g_set_error(error, IMAGE_ERROR, why->code,
				    "%s (check -r all may repair it)", why->message);
			return false;
		}
		salvage(img, q, offsets);
	}
	q->snapshot_offsets = g_steal_pointer(&offsets);
	return true;
}

bool qcow2_snapshot_read(struct image *img, unsigned index, struct qcow2_snapshot *s,
			 GError **error)
{
	const struct qcow2 *q = qcow2_of(img);

	if (q->salvaged) {
		*s = g_array_index(q->salvaged, struct qcow2_snapshot, index);
		return true;
	}
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
	q->snapshot_offsets = q->salvaged = NULL;
	q->data = from->data ? file_ref(from->data) : NULL;
	q->l1_offset = s.l1_offset;
	q->l1_size = s.l1_size;
	q->last_l1_index = UINT64_MAX;
	view->state = q;
	view->size = s.has_disk_size ? s.disk_size : from->header.size;
	view->cluster_size = q->cluster_size;
	return true;
}
