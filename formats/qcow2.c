/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: the driver's table, opening, closing and describing. */
#include "formats/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/formats.h"
#include "image/report.h"

static int qcow2_probe(const struct probe *p)
{
	const struct qcow2_header_disk *d = (const void *)p->head;
	static_assert(sizeof(*d) <= PROBE_HEAD, "probe sees the header");

	/* Version 1 has the same magic and is another format. */
	return be32_get(d->magic) == QCOW2_MAGIC && be32_get(d->version) >= 2 ? 100 : 0;
}

const struct qcow2_range *qcow2_fixed_overlap(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
	for (unsigned i = 0; i < q->nb_fixed; i++)
		if (offset < q->fixed[i].end && q->fixed[i].start < offset + len)
			return &q->fixed[i];
	return NULL;
}

static void add_fixed(struct qcow2 *q, uint64_t start, uint64_t len, const char *what)
{
	if (!len)
		return;
	q->fixed[q->nb_fixed++] = (struct qcow2_range){start, start + len, what};
	q->fixed_end = MAX(q->fixed_end, start + len);
}

/* All were checked to lie inside the file, so the sums do not overflow; but for check the refcount
 * table may be anywhere. */
void qcow2_collect_fixed(struct qcow2 *q)
{
	const struct qcow2_header *h = &q->header;
	uint64_t reftable_len = (uint64_t)h->reftable_clusters << h->cluster_bits;

	q->nb_fixed = 0;
	q->fixed_end = 0;
	add_fixed(q, 0, q->cluster_size, "header");
	add_fixed(q, h->l1_offset, h->l1_size * 8ull, "active L1 table");
	if (qcow2_inside(h->reftable_offset, reftable_len, q->file_size))
		add_fixed(q, h->reftable_offset, reftable_len, "refcount table");
	if (h->nb_snapshots)
		add_fixed(q, h->snapshots_offset, q->snapshots_length, "snapshot table");
	/* One that is not aligned is damage, and not looked at. */
	if (qcow2_has_bitmaps(q) && !(h->bitmap_directory_offset & (q->cluster_size - 1)) &&
	    qcow2_inside(h->bitmap_directory_offset, h->bitmap_directory_size, q->file_size))
		add_fixed(q, h->bitmap_directory_offset, h->bitmap_directory_size,
			  "bitmap directory");
	if (h->has_crypto)
		add_fixed(q, h->crypto_offset, h->crypto_length, "encryption header");
}

/* May this image be opened in the way that flags ask for? */
static bool check_mode(const struct image *img, const struct qcow2_header *h, GError **error)
{
	bool check = img->flags & IMAGE_FOR_CHECK;

	if (h->crypt_method && !(img->flags & (IMAGE_NO_DATA_FILES | IMAGE_FOR_CHECK))) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_UNSUPPORTED,
			    "the image is encrypted (%s), and encryption is not supported yet",
			    h->crypt_method == QCOW2_CRYPT_AES ? "aes" : "luks");
		return false;
	}
	if (!(img->flags & IMAGE_RDWR) || check)
		return true;
	if (h->incompatible & QCOW2_INCOMPAT_CORRUPT) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			    "Image is corrupt; cannot be opened read/write");
		return false;
	}
	return true;
}

/* "External data file bit"; the option overrides the recorded name. */
static bool open_data(struct image *img, struct qcow2 *q, struct options *options, GError **error)
{
	g_autofree char *given = options_take_string(options, "data-file.filename");
	const char *name = given ? given : q->header.data_file;

	q->external = q->header.incompatible & QCOW2_INCOMPAT_DATA_FILE;
	q->data_file_raw = q->external && (q->header.autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW);
	if (!q->external) {
		if (given) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
				    "'data-file' can only be set for images with an external data "
				    "file");
			return false;
		}
		q->data = file_ref(img->file);
	} else if (img->flags & IMAGE_NO_DATA_FILES) {
		return true;
	} else if (!name) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			    "'data-file' is required for this image: it does not name its data "
			    "file");
		return false;
	} else {
		q->data = image_open_data_file(img, name, given, error);
		if (!q->data)
			return false;
		if (stat_same_file(file_stat(q->data), file_stat(img->file))) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
				    "the data file '%s' is the image itself", name);
			return false;
		}
	}
	q->data_size = file_size(q->data);
	return true;
}

static void set_geometry(struct qcow2 *q, const struct image *img)
{
	const struct qcow2_header *h = &q->header;

	q->extended = h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
	q->cluster_bits = h->cluster_bits;
	q->cluster_size = 1u << h->cluster_bits;
	q->entry_bits = q->extended ? 4 : 3;
	q->l2_bits = h->cluster_bits - q->entry_bits;
	q->l1_offset = h->l1_offset;
	q->l1_size = h->l1_size;
	q->file_size = file_size(img->file);
	int64_t allocated = file_allocated(img->file);
	q->sparse = allocated >= 0 && (uint64_t)allocated < q->file_size / 4 * 3;
	q->codec = h->compression_type ? &codec_zstd : &codec_deflate;
	q->last_l1_index = UINT64_MAX;
}

void qcow2_relayout(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);

	q->l1_offset = q->header.l1_offset;
	q->l1_size = q->header.l1_size;
	q->last_l1_index = UINT64_MAX;
	q->file_size = MAX(q->file_size, file_size(img->file));
	if (!q->external)
		q->data_size = q->file_size;
	img->size = q->header.size;
	img->dirty = q->header.incompatible & QCOW2_INCOMPAT_DIRTY;
	img->corrupt = q->header.incompatible & QCOW2_INCOMPAT_CORRUPT;
	qcow2_collect_fixed(q);
}

static void publish(struct image *img, struct qcow2 *q)
{
	const struct qcow2_header *h = &q->header;

	img->state = q;
	img->size = h->size;
	img->cluster_size = q->cluster_size;
	img->write_unit = q->extended ? q->cluster_size / QCOW2_SUBCLUSTERS : q->cluster_size;
	img->codec = q->external ? NULL : q->codec;
	img->backing_name = g_strdup(h->backing_name);
	img->backing_format = g_strdup(h->backing_format);
	img->encrypted = h->crypt_method != QCOW2_CRYPT_NONE;
	img->dirty = h->incompatible & QCOW2_INCOMPAT_DIRTY;
	img->corrupt = h->incompatible & QCOW2_INCOMPAT_CORRUPT;
}

static void qcow2_free(struct qcow2 *q)
{
	qcow2_writer_free(q->writer);
	qcow2_tracking_free(q->tracking);
	file_unref(q->data);
	if (!q->parent)
		qcow2_header_clear(&q->header);
	qcow2_snapshots_forget(q);
	g_free(q);
}

/* "Autoclear features": whoever changes an image must clear those that he does not know. */
static bool clear_unknown(struct image *img, struct qcow2 *q, GError **error)
{
	uint64_t known = QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	int ret;

	if (!(q->header.autoclear & ~known) || (img->flags & IMAGE_FOR_CHECK))
		return true;
	q->header.autoclear &= known;
	ret = qcow2_header_store(img);
	if (ret < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "the autoclear feature bits could not be cleared: %s",
			    g_strerror(-ret));
	return ret == 0;
}

/* "Dirty bit": its refcounts are stale, and nothing may be allocated by them. */
static bool settle_dirty(struct image *img, const struct qcow2 *q, GError **error)
{
	if (!(q->header.incompatible & QCOW2_INCOMPAT_DIRTY) || (img->flags & IMAGE_FOR_CHECK))
		return true;
	if (!qcow2_repair_dirty(img, error))
		return false;
	image_warn(img, "it was not closed properly, and its refcounts were repaired");
	return true;
}

static bool ignore_bitmap(void *arg, const struct qcow2_bitmap *b, const char *name)
{
	return true;
}

/* Bitmaps that cannot be kept true forbid writing; for reading they do not matter. */
static bool check_bitmaps(struct image *img, GError **error)
{
	return (img->flags & IMAGE_FOR_CHECK) || !qcow2_has_bitmaps(qcow2_of(img)) ||
	       qcow2_bitmaps_each(img, ignore_bitmap, NULL, error);
}

static void warn_of_bitmaps(struct image *img)
{
	g_autoptr(GError) error = NULL;

	if (!check_bitmaps(img, &error))
		image_warn(img, "the dirty bitmaps are damaged and not looked at: %s",
			   error->message);
}

/* What comes before the first change of an image that has been read so far. */
static bool begin_writing(struct image *img, GError **error)
{
	struct qcow2 *q = qcow2_of(img);

	/* What an earlier writer could not finish may have made it longer. */
	q->file_size = MAX(q->file_size, file_size(img->file));
	q->writer = qcow2_writer_new();
	if (!check_bitmaps(img, error) || !clear_unknown(img, q, error) ||
	    !settle_dirty(img, q, error))
		return false;
	qcow2_bitmaps_watch(img);
	return true;
}

static void end_writing(struct image *img)
{
	/* Frees what the old bitmaps took, too. When either fails, they are marked or leak. */
	if (qcow2_of(img)->tracking && qcow2_bitmaps_settle(img) == 0)
		qcow2_flush(img);
	qcow2_end(img);
}

static bool qcow2_set_writable(struct image *img, GError **error)
{
	struct qcow2 *q = qcow2_of(img);
	bool ok = true;

	if (img->flags & IMAGE_RDWR) {
		ok = check_mode(img, &q->header, error) && begin_writing(img, error);
		if (ok)
			return true;
	} else {
		end_writing(img);
	}
	g_clear_pointer(&q->writer, qcow2_writer_free);
	img->tracks_changes = false;
	return ok;
}

static bool qcow2_open(struct image *img, struct options *options, GError **error)
{
	struct qcow2 *q = g_new0(struct qcow2, 1);

	if (!qcow2_header_read(img->file, img->flags & IMAGE_FOR_CHECK, &q->header, error) ||
	    !check_mode(img, &q->header, error) || !open_data(img, q, options, error))
		goto fail;
	set_geometry(q, img);
	if (!qcow2_snapshots_index(img, q, error))
		goto fail;
	qcow2_collect_fixed(q);
	publish(img, q);
	if (!(img->flags & IMAGE_RDWR)) {
		warn_of_bitmaps(img);
		return true;
	}
	if (begin_writing(img, error))
		return true;
	img->state = NULL;
	g_clear_pointer(&img->backing_name, g_free);
	g_clear_pointer(&img->backing_format, g_free);

fail:
	qcow2_free(q);
	return false;
}

static void qcow2_close(struct image *img)
{
	end_writing(img);
	qcow2_free(qcow2_of(img));
	img->state = NULL;
}

/* The rows of qemu-img info, in its order: version 2 has only some of them. */
static bool qcow2_describe(struct image *img, struct report *r, GError **error)
{
	const struct qcow2 *q = qcow2_of(img);
	const struct qcow2_header *h = &q->header;
	bool v3 = h->version >= 3;

	report_string(r, "compat", v3 ? "1.1" : "0.10");
	report_string(r, "compression-type", h->compression_type ? "zstd" : "zlib");
	if (v3)
		report_bool(r, "lazy-refcounts", h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS);
	qcow2_describe_bitmaps(img, r);
	report_uint(r, "refcount-bits", 1ull << h->refcount_order);
	if (h->crypt_method) {
		report_begin_object(r, "encrypt");
		report_string(r, "format", h->crypt_method == QCOW2_CRYPT_AES ? "aes" : "luks");
		report_end_object(r);
	}
	if (v3 && h->data_file)
		report_string(r, "data-file", h->data_file);
	if (v3 && q->external)
		report_bool(r, "data-file-raw", q->data_file_raw);
	if (v3)
		report_bool(r, "corrupt", h->incompatible & QCOW2_INCOMPAT_CORRUPT);
	if (v3)
		report_bool(r, "extended-l2", q->extended);
	return true;
}

static char **qcow2_references(struct image *img)
{
	const struct qcow2_header *h = &qcow2_of(img)->header;
	char **names;

	if (!(h->incompatible & QCOW2_INCOMPAT_DATA_FILE) || !h->data_file)
		return NULL;
	names = g_new0(char *, 2);
	names[0] = g_strdup(h->data_file);
	return names;
}

static const struct option_desc open_options[] = {
	{"data-file.filename", OPTION_STRING, "Data file, instead of the one that the image names",
	 NULL},
	{NULL},
};

const struct format format_qcow2 = {
	.name = "qcow2",
	.long_name = "QEMU copy on write, version 2 and 3",
	.open_options = open_options,
	.create_options = qcow2_create_options,
	.has_backing = true,
	.has_compression = true,
	.probe = qcow2_probe,
	.open = qcow2_open,
	.set_writable = qcow2_set_writable,
	.close = qcow2_close,
	.map = qcow2_map,
	.reserve = qcow2_reserve,
	.commit = qcow2_commit,
	.abandon = qcow2_abandon,
	.unmap = qcow2_unmap,
	.empty = qcow2_empty,
	.flush = qcow2_flush,
	.create = qcow2_create,
	.measure = qcow2_measure,
	.check = qcow2_check,
	.snapshot_list = qcow2_snapshot_list,
	.resize = qcow2_resize,
	.check_backing = qcow2_check_backing,
	.set_backing = qcow2_set_backing,
	.amend = qcow2_amend,
	.amend_options = qcow2_amend_options,
	.view = qcow2_view,
	.snapshot_create = qcow2_snapshot_create,
	.snapshot_apply = qcow2_snapshot_apply,
	.snapshot_delete = qcow2_snapshot_delete,
	.snapshot_rename = qcow2_snapshot_rename,
	.snapshot_usage = qcow2_snapshot_usage,
	.bitmap_possible = qcow2_bitmap_possible,
	.bitmap_list = qcow2_bitmap_list,
	.bitmap_load = qcow2_bitmap_load_named,
	.bitmap_add = qcow2_bitmap_add,
	.bitmap_remove = qcow2_bitmap_remove,
	.bitmap_store = qcow2_bitmap_store,
	.will_change = qcow2_will_change,
	.settle = qcow2_bitmaps_settle,
	.describe = qcow2_describe,
	.references = qcow2_references,
};
