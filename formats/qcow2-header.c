/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: the header and its extensions, decoded and checked. */
#include "formats/qcow2.h"

#include <inttypes.h>
#include <string.h>

#define INVALID(...)	 g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID, __VA_ARGS__)
#define UNSUPPORTED(...) g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED, __VA_ARGS__)

bool qcow2_inside(uint64_t offset, uint64_t len, uint64_t file_size)
{
	return offset <= file_size && len <= file_size - offset;
}

uint64_t qcow2_l1_needed(const struct qcow2_header *h, uint64_t size)
{
	unsigned entry_bits = h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2 ? 4 : 3;
	/* Bytes of disk that one L2 table describes: at most 2^39, so shifts are safe. */
	unsigned span_bits = 2 * h->cluster_bits - entry_bits;

	return (size >> span_bits) + ((size & ((1ull << span_bits) - 1)) != 0);
}

static bool decode_v3(const struct qcow2_header_disk *d, size_t len, struct qcow2_header *h,
		      GError **error)
{
	h->incompatible = be64_get(d->incompatible);
	h->compatible = be64_get(d->compatible);
	h->autoclear = be64_get(d->autoclear);
	h->refcount_order = be32_get(d->refcount_order);
	h->header_length = be32_get(d->header_length);
	if (h->header_length < QCOW2_HEADER_V3 || h->header_length % 8 ||
	    h->header_length > 1u << h->cluster_bits)
		return INVALID("header length %u (byte 100) is not a multiple of 8 from 104 to the "
			       "cluster size",
			       h->header_length),
		       false;
	if (h->header_length > offsetof(struct qcow2_header_disk, compression_type) &&
	    len > offsetof(struct qcow2_header_disk, compression_type))
		h->compression_type = d->compression_type;
	if (h->refcount_order > 6)
		return INVALID("refcount order %u (byte 96) is greater than 6", h->refcount_order),
		       false;
	return true;
}

static bool check_fixed(const struct qcow2_header *h, GError **error)
{
	uint64_t mask = (1ull << h->cluster_bits) - 1;

	if (h->size > INT64_MAX)
		return INVALID("disk size %" PRIu64 " (byte 24) is too large", h->size), false;
	if (h->crypt_method > QCOW2_CRYPT_LUKS)
		return UNSUPPORTED("encryption method %u (byte 32) is unknown", h->crypt_method),
		       false;
	if (h->l1_size > QCOW2_MAX_L1_ENTRIES)
		return INVALID("active L1 table of %u entries (byte 36) is larger than %u",
			       h->l1_size, QCOW2_MAX_L1_ENTRIES),
		       false;
	if (h->l1_offset & mask)
		return INVALID("L1 table offset 0x%" PRIx64 " (byte 40) is not on a cluster "
			       "boundary",
			       h->l1_offset),
		       false;
	if (h->reftable_clusters > QCOW2_MAX_REFTABLE_BYTES >> h->cluster_bits)
		return INVALID("refcount table of %u clusters (byte 56) is larger than 8 MiB",
			       h->reftable_clusters),
		       false;
	return true;
}

bool qcow2_header_decode(const void *buf, size_t len, struct qcow2_header *h, GError **error)
{
	struct qcow2_header_disk d = {0};
	struct qcow2_header t = {.refcount_order = 4, .header_length = QCOW2_HEADER_V2};

	memset(h, 0, sizeof(*h));
	memcpy(&d, buf, MIN(len, sizeof(d)));
	if (len < QCOW2_HEADER_V2)
		return INVALID("the file is too short for a qcow2 header"), false;
	if (be32_get(d.magic) != QCOW2_MAGIC)
		return INVALID("Image is not in qcow2 format"), false;
	t.version = be32_get(d.version);
	if (t.version < 2 || t.version > 3)
		return UNSUPPORTED("Unsupported qcow2 version %u", t.version), false;
	t.cluster_bits = be32_get(d.cluster_bits);
	if (t.cluster_bits < QCOW2_MIN_CLUSTER_BITS || t.cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return UNSUPPORTED("Unsupported cluster size: 2^%u (byte 20) is not from 2^9 to "
				   "2^21",
				   t.cluster_bits),
		       false;
	t.backing_offset = be64_get(d.backing_offset);
	t.backing_length = be32_get(d.backing_length);
	t.size = be64_get(d.size);
	t.crypt_method = be32_get(d.crypt_method);
	t.l1_size = be32_get(d.l1_size);
	t.l1_offset = be64_get(d.l1_offset);
	t.reftable_offset = be64_get(d.reftable_offset);
	t.reftable_clusters = be32_get(d.reftable_clusters);
	t.nb_snapshots = be32_get(d.nb_snapshots);
	t.snapshots_offset = be64_get(d.snapshots_offset);
	if (t.version >= 3 && len < QCOW2_HEADER_V3)
		return INVALID("the file is too short for a qcow2 header"), false;
	if (t.version >= 3 && !decode_v3(&d, len, &t, error))
		return false;
	if (!check_fixed(&t, error))
		return false;
	*h = t;
	return true;
}

/* A string extension: any bytes but NUL, which a file name cannot have. */
static bool take_string(const char *what, const uint8_t *data, uint32_t len, uint32_t max,
			char **to, GError **error)
{
	if (len > max)
		return INVALID("%s of %u bytes is longer than %u", what, len, max), false;
	if (memchr(data, 0, len))
		return INVALID("%s has a NUL byte in it", what), false;
	*to = g_strndup((const char *)data, len);
	return true;
}

static bool take_bitmaps(const uint8_t *data, uint32_t len, struct qcow2_header *h, GError **error)
{
	struct qcow2_bitmaps_disk d;

	if (len != sizeof(d))
		return INVALID("bitmaps extension has %u bytes, not %zu", len, sizeof(d)), false;
	memcpy(&d, data, sizeof(d));
	h->has_bitmaps = true;
	h->nb_bitmaps = be32_get(d.count);
	h->bitmap_directory_size = be64_get(d.directory_size);
	h->bitmap_directory_offset = be64_get(d.directory_offset);
	return true;
}

static bool take_crypto(const uint8_t *data, uint32_t len, struct qcow2_header *h, GError **error)
{
	struct qcow2_crypto_disk d;

	if (len != sizeof(d))
		return INVALID("encryption header extension has %u bytes, not %zu", len, sizeof(d)),
		       false;
	memcpy(&d, data, sizeof(d));
	h->has_crypto = true;
	h->crypto_offset = be64_get(d.offset);
	h->crypto_length = be64_get(d.length);
	if (h->crypto_offset & ((1ull << h->cluster_bits) - 1))
		return INVALID("encryption header offset 0x%" PRIx64
			       " is not on a cluster boundary",
			       h->crypto_offset),
		       false;
	return true;
}

static bool take_extension(uint32_t type, const uint8_t *data, uint32_t len, struct qcow2_header *h,
			   GError **error)
{
	struct qcow2_extension_disk head;
	GByteArray *kept;

	switch (type) {
	case QCOW2_EXT_BACKING_FORMAT:
		return take_string("backing format name", data, len, QCOW2_MAX_BACKING_FORMAT,
				   &h->backing_format, error);
	case QCOW2_EXT_DATA_FILE:
		return take_string("data file name", data, len, 1u << h->cluster_bits,
				   &h->data_file, error);
	case QCOW2_EXT_FEATURE_NAMES:
		h->feature_names = g_array_new(FALSE, FALSE, sizeof(struct qcow2_feature_disk));
		g_array_append_vals(h->feature_names, data,
				    len / sizeof(struct qcow2_feature_disk));
		return true;
	case QCOW2_EXT_BITMAPS:
		return take_bitmaps(data, len, h, error);
	case QCOW2_EXT_CRYPTO:
		return take_crypto(data, len, h, error);
	default:
		head.type = be32_make(type);
		head.length = be32_make(len);
		kept = g_byte_array_new();
		g_byte_array_append(kept, (const uint8_t *)&head, sizeof(head));
		g_byte_array_append(kept, data, len);
		if (!h->unknown)
			h->unknown = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
		g_ptr_array_add(h->unknown, g_byte_array_free_to_bytes(kept));
		return true;
	}
}

/*
 * "unless stated otherwise, each header extension type shall appear at most
 * once". Types seen are in a set, so that a header full of empty extensions
 * (262,144 of them fit into 2 MiB) costs linear time.
 */
static bool decode_area(const uint8_t *buf, uint64_t end, struct qcow2_header *h, GError **error)
{
	g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
	struct qcow2_extension_disk d;
	uint64_t at = h->header_length;

	h->extensions_end = end;
	while (end - at >= sizeof(d)) {
		memcpy(&d, buf + at, sizeof(d));
		uint32_t type = be32_get(d.type), len = be32_get(d.length);
		uint64_t data = at + sizeof(d);

		if (type == QCOW2_EXT_END) {
			h->extensions_end = data;
			return true;
		}
		if (len > end - data)
			return INVALID("header extension 0x%08x at byte %" PRIu64 " of %u bytes "
				       "goes past byte %" PRIu64,
				       type, at, len, end),
			       false;
		if (!g_hash_table_add(seen, GUINT_TO_POINTER(type)))
			return INVALID("header extension 0x%08x at byte %" PRIu64
				       " appears for the second time",
				       type, at),
			       false;
		if (!take_extension(type, buf + data, len, h, error))
			return false;
		at = MIN(data + ((uint64_t)len + 7) / 8 * 8, end);
	}
	/* The backing file name may follow the last extension directly. */
	if (h->backing_offset)
		return true;
	INVALID("the header extensions have no end marker");
	return false;
}

static bool decode_backing_name(const uint8_t *buf, struct qcow2_header *h, GError **error)
{
	uint64_t cluster_size = 1ull << h->cluster_bits;

	if (!h->backing_offset)
		return true;
	if (h->backing_length > QCOW2_MAX_BACKING_NAME)
		return INVALID("Backing file name too long: %u bytes (byte 16) are more than %u",
			       h->backing_length, QCOW2_MAX_BACKING_NAME),
		       false;
	if (!h->backing_length)
		return INVALID("backing file name of length 0 (byte 16) at offset %" PRIu64,
			       h->backing_offset),
		       false;
	return take_string("backing file name", buf + h->backing_offset,
			   MIN(h->backing_length, cluster_size - h->backing_offset),
			   QCOW2_MAX_BACKING_NAME, &h->backing_name, error);
}

static const char *feature_name(const struct qcow2_header *h, unsigned bit, char name[64])
{
	for (unsigned i = 0; h->feature_names && i < h->feature_names->len; i++) {
		const struct qcow2_feature_disk *f =
			&g_array_index(h->feature_names, struct qcow2_feature_disk, i);
		g_autofree char *raw = g_strndup(f->name, sizeof(f->name));

		if (f->kind != 0 || f->bit != bit)
			continue;
		g_autofree char *shown = report_escape(raw, -1);
		g_strlcpy(name, shown, 64);
		return name;
	}
	g_snprintf(name, 64, "unknown incompatible feature, bit %u", bit);
	return name;
}

static bool check_incompatible(const struct qcow2_header *h, GError **error)
{
	uint64_t unknown = h->incompatible & ~QCOW2_INCOMPAT_KNOWN;
	g_autoptr(GString) names = g_string_new(NULL);
	char name[64];

	if (!unknown)
		return true;
	for (unsigned bit = 0; bit < 64; bit++)
		if (unknown >> bit & 1)
			g_string_append_printf(names, "%s%s", names->len ? ", " : "",
					       feature_name(h, bit, name));
	UNSUPPORTED("Unsupported qcow2 feature(s): %s", names->str);
	return false;
}

/* Fields of which one gives the other its meaning. */
static bool check_features(const struct qcow2_header *h, GError **error)
{
	bool typed = h->incompatible & QCOW2_INCOMPAT_COMPRESSION;
	bool external = h->incompatible & QCOW2_INCOMPAT_DATA_FILE;

	if (h->compression_type > 1)
		return UNSUPPORTED("qcow2: unknown compression type: %u", h->compression_type),
		       false;
	if (typed != (h->compression_type != 0))
		return INVALID("compression type %u (byte 104) does not agree with incompatible "
			       "feature bit 3",
			       h->compression_type),
		       false;
	if ((h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2) &&
	    h->cluster_bits < QCOW2_MIN_EXTENDED_CLUSTER_BITS)
		return INVALID("clusters of %u bytes are too small for extended L2 entries",
			       1u << h->cluster_bits),
		       false;
	if ((h->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW) && !external)
		return INVALID("autoclear feature bit 1 (raw data file) is set without a data "
			       "file"),
		       false;
	if (external && h->nb_snapshots)
		return INVALID("an image with a data file cannot have %u snapshots",
			       h->nb_snapshots),
		       false;
	if (h->crypt_method == QCOW2_CRYPT_LUKS && !h->has_crypto)
		return INVALID("encryption method LUKS without an encryption header extension"),
		       false;
	if (h->crypt_method != QCOW2_CRYPT_LUKS && h->has_crypto)
		return INVALID("an encryption header extension, but encryption method %u",
			       h->crypt_method),
		       false;
	return true;
}

bool qcow2_extensions_decode(const void *buf, struct qcow2_header *h, GError **error)
{
	uint64_t cluster_size = 1ull << h->cluster_bits, end = cluster_size;

	if (h->header_length > sizeof(struct qcow2_header_disk))
		h->more_fields =
			g_bytes_new((const uint8_t *)buf + sizeof(struct qcow2_header_disk),
				    h->header_length - sizeof(struct qcow2_header_disk));
	if (h->backing_offset) {
		if (h->backing_offset < h->header_length || h->backing_offset > cluster_size ||
		    h->backing_length > cluster_size - h->backing_offset)
			return INVALID("backing file name of %u bytes at offset %" PRIu64
				       " does not lie between the header and the end of the first "
				       "cluster",
				       h->backing_length, h->backing_offset),
			       false;
		end = h->backing_offset;
	}
	return decode_area(buf, end, h, error) && check_incompatible(h, error) &&
	       check_features(h, error) && decode_backing_name(buf, h, error);
}

static bool check_table(const char *what, uint64_t offset, uint64_t len, uint64_t file_size,
			GError **error)
{
	if (offset && qcow2_inside(offset, len, file_size))
		return true;
	INVALID("%s of %" PRIu64 " bytes at offset 0x%" PRIx64
		" does not lie behind the header and inside the file of %" PRIu64 " bytes",
		what, len, offset, file_size);
	return false;
}

bool qcow2_header_check_snapshots(const struct qcow2_header *h, uint64_t file_size, GError **error)
{
	if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS)
		return INVALID("%u snapshots (byte 60) are more than %u", h->nb_snapshots,
			       QCOW2_MAX_SNAPSHOTS),
		       false;
	if (h->nb_snapshots && (h->snapshots_offset & ((1ull << h->cluster_bits) - 1)))
		return INVALID("snapshot table offset 0x%" PRIx64 " (byte 64) is not on a cluster "
			       "boundary",
			       h->snapshots_offset),
		       false;
	return !h->nb_snapshots ||
	       check_table("snapshot table", h->snapshots_offset,
			   h->nb_snapshots * (uint64_t)sizeof(struct qcow2_snapshot_disk),
			   file_size, error);
}

bool qcow2_header_check_tables(const struct qcow2_header *h, uint64_t file_size, bool for_check,
			       GError **error)
{
	uint64_t needed = qcow2_l1_needed(h, h->size);

	if (h->l1_size < needed)
		return INVALID("L1 table is too small: %u entries (byte 36) for a disk of %" PRIu64
			       " bytes, which needs %" PRIu64,
			       h->l1_size, h->size, needed),
		       false;
	if (h->l1_size &&
	    !check_table("L1 table", h->l1_offset, h->l1_size * 8ull, file_size, error))
		return false;
	if (!h->reftable_clusters && !for_check)
		return INVALID("Image does not contain a reference count table (byte 56 is 0)"),
		       false;
	if (!for_check && (h->reftable_offset & ((1ull << h->cluster_bits) - 1)))
		return INVALID("refcount table offset 0x%" PRIx64 " (byte 48) is not on a cluster "
			       "boundary",
			       h->reftable_offset),
		       false;
	if (h->reftable_clusters && !for_check &&
	    !check_table("refcount table", h->reftable_offset,
			 (uint64_t)h->reftable_clusters << h->cluster_bits, file_size, error))
		return false;
	if (!for_check && !qcow2_header_check_snapshots(h, file_size, error))
		return false;
	if (h->has_crypto &&
	    !check_table("encryption header", h->crypto_offset, h->crypto_length, file_size, error))
		return false;
	return true;
}

bool qcow2_header_read(struct file *f, bool for_check, struct qcow2_header *h, GError **error)
{
	uint8_t fixed[sizeof(struct qcow2_header_disk)];
	g_autofree uint8_t *cluster = NULL;
	int err;

	memset(h, 0, sizeof(*h));
	err = file_read(f, 0, fixed, sizeof(fixed));
	if (err)
		goto unreadable;
	if (!qcow2_header_decode(fixed, MIN(file_size(f), sizeof(fixed)), h, error))
		return false;
	cluster = g_try_malloc(1u << h->cluster_bits);
	err = cluster ? file_read(f, 0, cluster, 1u << h->cluster_bits) : -ENOMEM;
	if (err)
		goto unreadable;
	if (qcow2_extensions_decode(cluster, h, error) &&
	    qcow2_header_check_tables(h, file_size(f), for_check, error))
		return true;
	qcow2_header_clear(h);
	return false;

unreadable:
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "could not read the qcow2 header: %s",
		    g_strerror(-err));
	qcow2_header_clear(h);
	return false;
}

void qcow2_header_clear(struct qcow2_header *h)
{
	g_free(h->backing_name);
	g_free(h->backing_format);
	g_free(h->data_file);
	if (h->feature_names)
		g_array_unref(h->feature_names);
	if (h->unknown)
		g_ptr_array_unref(h->unknown);
	if (h->more_fields)
		g_bytes_unref(h->more_fields);
	memset(h, 0, sizeof(*h));
}
