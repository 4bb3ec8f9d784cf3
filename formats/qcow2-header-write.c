/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: the header and its extensions, encoded and stored.
 *
 * A power cut tears a write between sectors of 512 bytes, and a header with its extensions and the
 * backing file's name can be longer than that. So the first sector, which has every offset that an
 * operation changes, is written alone and last, and everything behind it goes before that
 * to places that the header on disk does not use. Extensions whose contents change
 * come first, so that they lie in the first sector; the feature names, which are long and which
 * nobody needs, are left out where they are in the way.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "formats/qcow2.h"

#define SECTOR 512u

/* "Feature name table": what every QEMU writes. */
static const struct {
	uint8_t kind, bit;
	const char *name;
} features[] = {
	{0, 0, "dirty bit"},	    {0, 1, "corrupt bit"},	   {0, 2, "external data file"},
	{0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},	    {2, 1, "raw external data"},
};

struct layout {
	bool names;	    /* with the feature name table */
	uint32_t name_from; /* the backing file's name begins here or later */
};

struct writer {
	uint8_t *buf;
	size_t at, size;
	bool full;
};

/* ---- encoding ------------------------------------------------------------------------------ */

static void put(struct writer *w, const void *data, size_t len)
{
	if (w->full || len > w->size - w->at) {
		w->full = true;
		return;
	}
	if (len) /* else data may be NULL */
		memcpy(w->buf + w->at, data, len);
	w->at += len;
}

/* The buffer is zero already; only the place moves. */
static void align(struct writer *w, size_t to)
{
	size_t skip = (to - w->at % to) % to;

	if (w->full || skip > w->size - w->at)
		w->full = true;
	else
		w->at += skip;
}

static void put_extension(struct writer *w, uint32_t type, const void *data, size_t len)
{
	struct qcow2_extension_disk d = {be32_make(type), be32_make(len)};

	put(w, &d, sizeof(d));
	put(w, data, len);
	align(w, 8);
}

static void put_string(struct writer *w, uint32_t type, const char *text)
{
	if (text)
		put_extension(w, type, text, strlen(text));
}

static bool is_standard(const struct qcow2_feature_disk *f)
{
	for (size_t i = 0; i < G_N_ELEMENTS(features); i++)
		if (features[i].kind == f->kind && features[i].bit == f->bit)
			return true;
	return false;
}

/* The names of our own features, and those that another program gave to its own. */
static void put_feature_names(struct writer *w, const struct qcow2_header *h)
{
	g_autoptr(GArray) table = g_array_new(FALSE, TRUE, sizeof(struct qcow2_feature_disk));

	for (size_t i = 0; i < G_N_ELEMENTS(features); i++) {
		struct qcow2_feature_disk f = {features[i].kind, features[i].bit, ""};

		memcpy(f.name, features[i].name, strlen(features[i].name));
		g_array_append_val(table, f);
	}
	for (guint i = 0; h->feature_names && i < h->feature_names->len; i++) {
		const struct qcow2_feature_disk *f =
			&g_array_index(h->feature_names, struct qcow2_feature_disk, i);

		if (!is_standard(f))
			g_array_append_vals(table, f, 1);
	}
	put_extension(w, QCOW2_EXT_FEATURE_NAMES, table->data,
		      table->len * sizeof(struct qcow2_feature_disk));
}

static void put_extensions(struct writer *w, const struct qcow2_header *h, bool names)
{
	struct qcow2_bitmaps_disk bitmaps = {
		.count = be32_make(h->nb_bitmaps),
		.directory_size = be64_make(h->bitmap_directory_size),
		.directory_offset = be64_make(h->bitmap_directory_offset),
	};
	struct qcow2_crypto_disk crypto = {be64_make(h->crypto_offset),
					   be64_make(h->crypto_length)};
	gsize len;

	put_string(w, QCOW2_EXT_BACKING_FORMAT, h->backing_format);
	put_string(w, QCOW2_EXT_DATA_FILE, h->data_file);
	if (h->has_crypto)
		put_extension(w, QCOW2_EXT_CRYPTO, &crypto, sizeof(crypto));
	if (h->has_bitmaps)
		put_extension(w, QCOW2_EXT_BITMAPS, &bitmaps, sizeof(bitmaps));
	if (names && h->version >= 3)
		put_feature_names(w, h);
	for (guint i = 0; h->unknown && i < h->unknown->len; i++) {
		const void *kept = g_bytes_get_data(g_ptr_array_index(h->unknown, i), &len);

		put(w, kept, len);
		align(w, 8);
	}
	put_extension(w, QCOW2_EXT_END, NULL, 0);
}

static uint32_t length_of(const struct qcow2_header *h)
{
	if (h->version < 3)
		return QCOW2_HEADER_V2;
	return sizeof(struct qcow2_header_disk) +
	       (h->more_fields ? g_bytes_get_size(h->more_fields) : 0);
}

static void encode_fixed(const struct qcow2_header *h, struct qcow2_header_disk *d)
{
	*d = (struct qcow2_header_disk){
		.magic = be32_make(QCOW2_MAGIC),
		.version = be32_make(h->version),
		.cluster_bits = be32_make(h->cluster_bits),
		.size = be64_make(h->size),
		.crypt_method = be32_make(h->crypt_method),
		.l1_size = be32_make(h->l1_size),
		.l1_offset = be64_make(h->l1_offset),
		.reftable_offset = be64_make(h->reftable_offset),
		.reftable_clusters = be32_make(h->reftable_clusters),
		.nb_snapshots = be32_make(h->nb_snapshots),
		.snapshots_offset = be64_make(h->snapshots_offset),
		.incompatible = be64_make(h->incompatible),
		.compatible = be64_make(h->compatible),
		.autoclear = be64_make(h->autoclear),
		.refcount_order = be32_make(h->refcount_order),
		.header_length = be32_make(length_of(h)),
		.compression_type = h->compression_type,
	};
}

static int check_names(const struct qcow2_header *h)
{
	if (h->backing_name && strlen(h->backing_name) > QCOW2_MAX_BACKING_NAME)
		return -EINVAL;
	if (h->backing_format && strlen(h->backing_format) > QCOW2_MAX_BACKING_FORMAT)
		return -EINVAL;
	return 0;
}

static int encode(const struct qcow2_header *h, const struct layout *layout, void *cluster)
{
	struct writer w = {.buf = cluster, .size = 1ull << h->cluster_bits};
	struct qcow2_header_disk d;
	int ret = check_names(h);

	if (ret < 0)
		return ret;
	encode_fixed(h, &d);
	memset(cluster, 0, w.size);
	put(&w, &d, MIN(length_of(h), sizeof(d)));
	if (h->version >= 3 && h->more_fields)
		put(&w, g_bytes_get_data(h->more_fields, NULL), g_bytes_get_size(h->more_fields));
	put_extensions(&w, h, layout->names);
	if (h->backing_name && *h->backing_name) {
		if (w.at < layout->name_from && layout->name_from <= w.size)
			w.at = layout->name_from;
		d.backing_offset = be64_make(w.at);
		d.backing_length = be32_make(strlen(h->backing_name));
		put(&w, h->backing_name, strlen(h->backing_name));
		memcpy(cluster, &d, QCOW2_HEADER_V2); /* once more, with the name's place */
	}
	return w.full ? -ENOSPC : 0;
}

int qcow2_header_encode(const struct qcow2_header *h, void *cluster)
{
	int ret = encode(h, &(struct layout){.names = true}, cluster);

	return ret == -ENOSPC ? encode(h, &(struct layout){.names = false}, cluster) : ret;
}

/* ---- storing --------------------------------------------------------------------------------- */

/* Does byte `at` of the first cluster mean anything to this header? */
static bool uses(const struct qcow2_header *h, uint32_t at)
{
	return at < h->extensions_end || (h->backing_offset && at >= h->backing_offset &&
					  at - h->backing_offset < h->backing_length);
}

static uint32_t end_of(const struct qcow2_header *h)
{
	return MAX(h->extensions_end, h->backing_offset + h->backing_length);
}

/*
 * The bytes behind the first sector while the old header is still in force: the old ones, and the
 * new ones where the old header has no use for the place. false: both need a byte.
 */
static bool merge(const struct qcow2_header *old, const uint8_t *old_bytes,
		  const struct qcow2_header *new, const uint8_t *new_bytes, uint32_t size,
		  uint8_t *merged)
{
	memcpy(merged, old_bytes, size);
	for (uint32_t at = SECTOR; at < end_of(new); at++) {
		if (!uses(new, at))
			continue;
		if (uses(old, at) && old_bytes[at] != new_bytes[at])
			return false;
		merged[at] = new_bytes[at];
	}
	return true;
}

struct store {
	struct image *img;
	struct qcow2_header *h; /* what is to be stored */
	uint32_t size;		/* of a cluster */
	struct qcow2_header old;
	uint8_t *old_bytes, *new_bytes, *merged;
};

static bool decode(const uint8_t *bytes, uint32_t size, struct qcow2_header *h)
{
	if (qcow2_header_decode(bytes, size, h, NULL) && qcow2_extensions_decode(bytes, h, NULL))
		return true;
	qcow2_header_clear(h);
	return false;
}

/* Encodes in this layout, and decodes again what is about to be relied upon. */
static int try_layout(struct store *s, const struct layout *layout, bool *safe)
{
	struct qcow2_header new;
	int ret = encode(s->h, layout, s->new_bytes);

	*safe = false;
	if (ret < 0)
		return ret;
	if (!decode(s->new_bytes, s->size, &new))
		return -EINVAL;
	*safe = merge(&s->old, s->old_bytes, &new, s->new_bytes, s->size, s->merged);
	s->h->backing_offset = new.backing_offset;
	s->h->backing_length = new.backing_length;
	s->h->header_length = new.header_length;
	s->h->extensions_end = new.extensions_end;
	qcow2_header_clear(&new);
	return *safe ? 0 : -ENOSPC;
}

static int choose_layout(struct store *s)
{
	uint32_t behind = (end_of(&s->old) + 7) & ~7u;
	const struct layout layouts[] = {{true, 0}, {true, behind}, {false, 0}, {false, behind}};
	bool safe = false;
	int ret = -ENOSPC;

	for (size_t i = 0; i < G_N_ELEMENTS(layouts) && !safe && ret == -ENOSPC; i++)
		ret = try_layout(s, &layouts[i], &safe);
	if (ret == -ENOSPC)
		image_fault(s->img, ret, 0,
			    "No space left in the file header: its first cluster of %u bytes has "
			    "no room for the new header beside the old one",
			    s->size);
	else if (ret < 0)
		image_fault(s->img, ret, 0, "the header would not be valid");
	return ret;
}

static int write_behind(struct store *s)
{
	uint32_t from = SECTOR, to = s->size;
	int ret;

	while (from < to && memcmp(s->merged + from, s->old_bytes + from, SECTOR) == 0)
		from += SECTOR;
	while (from < to &&
	       memcmp(s->merged + to - SECTOR, s->old_bytes + to - SECTOR, SECTOR) == 0)
		to -= SECTOR;
	if (from == to)
		return 0;
	ret = file_write(s->img->file, from, s->merged + from, to - from);
	return ret ? ret : qcow2_sync(s->img, s->img->file);
}

/* Everything but writing. */
static int prepare(struct store *s)
{
	int ret = file_read(s->img->file, 0, s->old_bytes, s->size);

	if (ret == 0 && !decode(s->old_bytes, s->size, &s->old))
		ret = -EIO; /* it was valid when the image was opened */
	if (ret < 0) {
		image_fault(s->img, ret, 0, "the header on disk cannot be read any more");
		return ret;
	}
	return choose_layout(s);
}

int qcow2_header_switch(struct image *img, const void *old, const void *new, size_t len)
{
	struct file *f = img->file;
	int ret = file_write(f, 0, new, len), synced;

	if (ret == -ENOSPC)
		return ret; /* nothing was written */
	if (ret < 0 && file_write(f, 0, old, len) < 0) {
		qcow2_give_up(img, "its header could not be written, and may be the old or the new "
				   "one until it is opened again");
		return ret;
	}
	synced = qcow2_sync(img, f);
	return ret < 0 ? ret : synced;
}

static int write_header(struct store *s)
{
	int ret = write_behind(s);

	if (ret == 0)
		ret = qcow2_header_switch(s->img, s->old_bytes, s->new_bytes, SECTOR);
	if (ret < 0)
		image_fault(s->img, ret, 0, "the header cannot be written");
	return ret;
}

static int store(struct image *img, bool write)
{
	struct qcow2_header *h = &qcow2_of(img)->header;
	struct store s = {.img = img, .h = h, .size = 1u << h->cluster_bits};
	uint8_t *memory = g_try_malloc_n(3, s.size);
	int ret;

	if (!memory)
		return -ENOMEM;
	s.old_bytes = memory;
	s.new_bytes = memory + s.size;
	s.merged = memory + 2 * (size_t)s.size;
	ret = prepare(&s);
	if (ret == 0 && write)
		ret = write_header(&s);
	qcow2_header_clear(&s.old);
	g_free(memory);
	return ret;
}

int qcow2_header_store(struct image *img)
{
	return store(img, true);
}

int qcow2_header_try(struct image *img)
{
	return store(img, false);
}
