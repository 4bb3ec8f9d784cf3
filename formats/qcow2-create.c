/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2: making a new image. Everything that can be refused is refused before a file is touched;
 * the header comes last, so that what a cut leaves is no image.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "formats/qcow2.h"
#include "image/create.h"

#define REFUSE(...) (g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, __VA_ARGS__), false)

#define DEFAULT_CLUSTER_SIZE "65536"
#define FIRST		     512u /* the sector that makes it an image */

/* In the order of the "Formatting" line. */
const struct option_desc qcow2_create_options[] = {
	{"encryption", OPTION_BOOL,
	 "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)", NULL},
	{"encrypt.format", OPTION_STRING, "Encrypt the image, format choices: 'aes', 'luks'", NULL},
	{"encrypt.key-secret", OPTION_STRING,
	 "ID of secret providing qcow AES key or LUKS passphrase", NULL},
	{"encrypt.cipher-alg", OPTION_STRING, "Name of encryption cipher algorithm", NULL},
	{"encrypt.cipher-mode", OPTION_STRING, "Name of encryption cipher mode", NULL},
	{"encrypt.ivgen-alg", OPTION_STRING, "Name of IV generator algorithm", NULL},
	{"encrypt.ivgen-hash-alg", OPTION_STRING, "Name of IV generator hash algorithm", NULL},
	{"encrypt.hash-alg", OPTION_STRING, "Name of encryption hash algorithm", NULL},
	{"encrypt.iter-time", OPTION_NUMBER, "Time to spend in PBKDF in milliseconds", NULL},
	{"cluster_size", OPTION_SIZE, "qcow2 cluster size", DEFAULT_CLUSTER_SIZE},
	{"extended_l2", OPTION_BOOL, "Extended L2 tables", "off"},
	{"preallocation", OPTION_STRING,
	 "Preallocation mode (allowed values: off, metadata, falloc, full)", NULL},
	{"compression_type", OPTION_STRING, "Compression method used for image cluster compression",
	 "zlib"},
	{"size", OPTION_SIZE, "Virtual disk size", NULL},
	{"compat", OPTION_STRING, "Compatibility level (v2 [0.10] or v3 [1.1])", NULL},
	{"backing_file", OPTION_STRING, "File name of a base image", NULL},
	{"backing_fmt", OPTION_STRING, "Image format of the base image", NULL},
	{"data_file", OPTION_STRING, "File name of an external data file", NULL},
	{"data_file_raw", OPTION_BOOL, "The external data file must stay valid as a raw image",
	 NULL},
	{"lazy_refcounts", OPTION_BOOL, "Postpone refcount updates", "off"},
	{"refcount_bits", OPTION_NUMBER, "Width of a reference count entry in bits", "16"},
	{"nocow", OPTION_BOOL, "Turn off copy-on-write (valid only on btrfs)", NULL,
	 .protocol = true},
	{"extent_size_hint", OPTION_SIZE, "Extent size hint for the image file, 0 to disable", NULL,
	 .protocol = true},
	{NULL},
};

/* ---- the options --------------------------------------------------------------------------- */

static bool take_version(struct qcow2_new *n, struct options *o, GError **error)
{
	g_autofree char *word = options_take_string(o, "compat");

	n->version = 3;
	if (!word || !strcmp(word, "1.1") || !strcmp(word, "v3"))
		return true;
	n->version = 2;
	if (!strcmp(word, "0.10") || !strcmp(word, "v2"))
		return true;
	return REFUSE("Parameter 'version' does not accept value '%s'", word);
}

bool qcow2_take_widths(struct qcow2_shape *s, struct options *o, GError **error)
{
	g_autofree char *bits = options_take_string(o, "refcount_bits");
	uint64_t cluster = 65536, width = bits ? g_ascii_strtoull(bits, NULL, 10) : 16;

	if (!options_take_size(o, "cluster_size", &cluster, error))
		return false;
	if (cluster < 1u << QCOW2_MIN_CLUSTER_BITS || cluster > 1u << QCOW2_MAX_CLUSTER_BITS ||
	    (cluster & (cluster - 1)))
		return REFUSE("Cluster size must be a power of two between 512 and 2048k");
	if (width < 1 || width > 64 || (width & (width - 1)))
		return REFUSE("Refcount width must be a power of two and may not exceed 64 bits");
	s->cluster_bits = __builtin_ctzll(cluster);
	s->refcount_order = __builtin_ctzll(width);
	return true;
}

static bool take_words(struct qcow2_new *n, struct options *o, GError **error)
{
	static const char *const modes[] = {"off", "metadata", "falloc", "full"};
	g_autofree char *mode = options_take_string(o, "preallocation");
	g_autofree char *codec = options_take_string(o, "compression_type");
	unsigned i = 0;

	while (mode && i < G_N_ELEMENTS(modes) && strcmp(mode, modes[i]))
		i++;
	if (i == G_N_ELEMENTS(modes))
		return REFUSE("Parameter 'preallocation' does not accept value '%s'", mode);
	n->preallocation = i;
	n->compression_type = codec && !strcmp(codec, "zstd");
	if (codec && strcmp(codec, "zlib") && strcmp(codec, "zstd"))
		return REFUSE("Parameter 'compression-type' does not accept value '%s'", codec);
#ifndef HAVE_ZSTD
	if (n->compression_type)
		return REFUSE("compression_type=zstd is not available: built without libzstd");
#endif
	return true;
}

static bool refuse_encryption(struct options *o, GError **error)
{
	struct options *group = options_take_group(o, "encrypt");
	bool on = false, asked = group != NULL;

	options_free(group);
	if (!options_take_bool(o, "encryption", &on, error))
		return false;
	if (on || asked)
		return REFUSE("Encrypted images cannot be made: encryption is not supported yet");
	return true;
}

/* What needs version 3. */
static bool check_version(const struct qcow2_new *n, GError **error)
{
	const char *what = NULL;

	if (n->version >= 3)
		return true;
	if (n->compression_type)
		return REFUSE("Non-zlib compression type is only supported with compatibility "
			      "level 1.1 and above (use version=v3 or greater)");
	if (n->shape.refcount_order != 4)
		return REFUSE("Different refcount widths than 16 bits require compatibility level "
			      "1.1 or above (use version=v3 or greater)");
	if (n->lazy_refcounts)
		what = "Lazy refcounts only";
	else if (n->shape.extended)
		what = "Extended L2 entries are only";
	else if (n->data_file)
		what = "External data files are only";
	if (!what)
		return true;
	return REFUSE("%s supported with compatibility level 1.1 and above (use version=v3 or "
		      "greater)",
		      what);
}

static bool check_combinations(const struct qcow2_new *n, GError **error)
{
	if (n->shape.extended && n->shape.cluster_bits < QCOW2_MIN_EXTENDED_CLUSTER_BITS)
		return REFUSE("Extended L2 entries are only supported with cluster sizes of at "
			      "least 16384 bytes");
	if (n->data_file_raw && !n->data_file)
		return REFUSE("data-file-raw requires data-file");
	if (n->backing_file && n->data_file_raw)
		return REFUSE("Backing file and data-file-raw cannot be used at the same time");
	if (n->backing_file && n->preallocation && !n->shape.extended)
		return REFUSE("Backing file and preallocation can only be used at the same time if "
			      "extended_l2 is on");
	if (n->backing_format && !n->backing_file)
		return REFUSE("Backing format cannot be used without backing file");
	if (n->backing_format && strlen(n->backing_format) > QCOW2_MAX_BACKING_FORMAT)
		return REFUSE("Backing format '%s' is longer than %d bytes", n->backing_format,
			      QCOW2_MAX_BACKING_FORMAT);
	return true;
}

static bool parse(struct qcow2_new *n, struct options *o, GError **error)
{
	n->shape.size = 0;
	n->has_size = options_peek(o, "size");
	if (!options_take_size(o, "size", &n->shape.size, error) || !refuse_encryption(o, error) ||
	    !take_version(n, o, error) || !qcow2_take_widths(&n->shape, o, error) ||
	    !take_words(n, o, error) ||
	    !options_take_bool(o, "extended_l2", &n->shape.extended, error) ||
	    !options_take_bool(o, "lazy_refcounts", &n->lazy_refcounts, error) ||
	    !options_take_bool(o, "data_file_raw", &n->data_file_raw, error) ||
	    !new_file_take_hints(&n->hints, o, error))
		return false;
	n->backing_file = options_take_string(o, "backing_file");
	n->backing_format = options_take_string(o, "backing_fmt");
	n->data_file = options_take_string(o, "data_file");
	n->shape.external = n->data_file;
	if (!check_version(n, error) || !check_combinations(n, error))
		return false;
	/* A raw data file has every cluster in its place from the beginning. */
	if (n->data_file_raw && n->preallocation == QCOW2_PREALLOC_OFF)
		n->preallocation = QCOW2_PREALLOC_METADATA;
	return true;
}

bool qcow2_new_parse(struct qcow2_new *n, struct options *options, GError **error)
{
	*n = (struct qcow2_new){0};
	if (parse(n, options, error))
		return true;
	qcow2_new_clear(n);
	return false;
}

void qcow2_new_clear(struct qcow2_new *n)
{
	g_free(n->backing_file);
	g_free(n->backing_format);
	g_free(n->data_file);
	*n = (struct qcow2_new){0};
}

/* ---- layout and header --------------------------------------------------------------------- */

static bool plan(struct qcow2_new *n, struct qcow2_layout *l, GError **error)
{
	struct qcow2_shape *s = &n->shape;

	if (!n->has_size)
		return REFUSE("Image creation needs a size parameter");
	/* A disk has whole sectors. */
	s->size = (s->size + 511) & ~511ull;
	if (n->preallocation) {
		s->l2_tables = qcow2_l2_needed(s);
		s->data_bytes = n->data_file ? 0 : s->size;
	}
	if (s->size <= INT64_MAX && qcow2_layout(s, l) &&
	    l->reftable_clusters <= QCOW2_MAX_REFTABLE_BYTES >> s->cluster_bits)
		return true;
	return REFUSE("The image size is too large for file format 'qcow2' (try using a larger "
		      "cluster size)");
}

static struct qcow2_header make_header(const struct qcow2_new *n, const struct qcow2_layout *l)
{
	struct qcow2_header h = {
		.version = n->version,
		.cluster_bits = n->shape.cluster_bits,
		.refcount_order = n->shape.refcount_order,
		.compression_type = n->compression_type,
		.size = n->shape.size,
		.l1_offset = l->l1,
		.l1_size = l->l1_entries,
		.reftable_offset = l->reftable,
		.reftable_clusters = l->reftable_clusters,
		.incompatible = (n->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
				(n->compression_type ? QCOW2_INCOMPAT_COMPRESSION : 0) |
				(n->shape.extended ? QCOW2_INCOMPAT_EXTENDED_L2 : 0),
		.compatible = n->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0,
		.autoclear = n->data_file_raw ? QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0,
		.backing_name = n->backing_file, /* borrowed, as the two below */
		.backing_format = n->backing_format,
		.data_file = n->data_file,
	};
	return h;
}

static void *encode_header(const struct qcow2_new *n, const struct qcow2_layout *l, GError **error)
{
	struct qcow2_header h = make_header(n, l);
	void *cluster = g_malloc(1u << h.cluster_bits);
	int ret = qcow2_header_encode(&h, cluster);

	if (ret == 0)
		return cluster;
	g_free(cluster);
	if (n->backing_file)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Could not assign backing file '%s': the name is too long for the "
			    "header",
			    n->backing_file);
	else
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "The data file's name '%s' is too long for the header", n->data_file);
	return NULL;
}

/* ---- writing --------------------------------------------------------------------------------- */

/*
 * Guest clusters that the tables name already must read as zeroes. A file that was just cut to
 * nothing does; of a device only version 3 can say so without writing all of it.
 */
static int prepare_data(const struct qcow2_new *n, struct file *f, uint64_t start, uint64_t len,
			uint64_t *entry_flags)
{
	bool device = !S_ISREG(file_stat(f)->st_mode) && file_fd(f) >= 0;
	int ret = 0;

	if (len == 0 || (n->preallocation == QCOW2_PREALLOC_OFF && !device))
		return 0;
	if (n->preallocation == QCOW2_PREALLOC_FALLOC && !device) {
		ret = file_allocate(f, start, len);
		if (ret != -EOPNOTSUPP)
			return ret;
		return image_write_zero_bytes(f, start, len);
	}
	if (n->preallocation == QCOW2_PREALLOC_FULL)
		return image_write_zero_bytes(f, start, len);
	if (!device)
		return 0;
	if (n->version >= 3 && !n->shape.extended && !n->data_file_raw) {
		*entry_flags |= QCOW2_ZERO;
		return 0;
	}
	ret = file_zero(f, start, len);
	return ret == -EOPNOTSUPP ? image_write_zero_bytes(f, start, len) : ret;
}

static int write_data_file(const struct qcow2_new *n, struct file *f, uint64_t *entry_flags)
{
	int ret = image_set_file_size(f, n->shape.size);

	/* Without preallocation nothing points into it yet. */
	if (ret == 0 && n->preallocation)
		ret = prepare_data(n, f, 0, n->shape.size, entry_flags);
	return ret ? ret : file_flush(f);
}

static int write_image(const struct qcow2_new *n, const struct qcow2_layout *l, struct file *f,
		       struct file *data, const void *header)
{
	struct qcow2_tables tables = {.file = f, .shape = &n->shape, .layout = l};
	bool ends_in_l1 = l->end == l->l2;
	int ret;

	/* Of extended entries the bitmap says what is allocated: nothing, so that a backing file
	 * shows, except in a raw data file, whose bytes always count. */
	if (n->data_file_raw)
		tables.bitmap = UINT32_MAX;
	ret = image_set_file_size(f, ends_in_l1 ? l->l1 + l->l1_entries * 8 : l->end);
	if (ret == 0 && data)
		ret = write_data_file(n, data, &tables.entry_flags);
	if (ret == 0 && n->shape.data_bytes)
		ret = prepare_data(n, f, l->data, l->end - l->data, &tables.entry_flags);
	if (ret == 0)
		ret = qcow2_tables_write(&tables);
	if (ret == 0 && n->shape.cluster_bits > QCOW2_MIN_CLUSTER_BITS)
		ret = file_write(f, FIRST, (const uint8_t *)header + FIRST,
				 (1u << n->shape.cluster_bits) - FIRST);
	if (ret == 0)
		ret = file_flush(f);
	if (ret == 0)
		ret = file_write(f, 0, header, FIRST);
	return ret ? ret : file_flush(f);
}

static bool write_files(const struct qcow2_new *n, const struct qcow2_layout *l,
			const char *filename, const void *header, GError **error)
{
	g_autofree char *data_path =
		n->data_file ? image_path_beside(filename, n->data_file) : NULL;
	struct new_file image = n->hints, data = n->hints;
	int ret;

	image.path = filename;
	data.path = data_path;
	if (!new_file_open(&image, error))
		return false;
	if (data_path && !new_file_open(&data, error)) {
		new_file_drop(&image);
		return false;
	}
	ret = new_file_empty(&image);
	if (ret == 0 && data_path)
		ret = new_file_empty(&data);
	if (ret == 0)
		ret = write_image(n, l, image.file, data.file, header);
	if (ret == 0) {
		new_file_keep(&image);
		new_file_keep(&data);
		return true;
	}
	new_file_drop(&image);
	new_file_drop(&data);
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Could not create '%s': %s", filename,
		    g_strerror(-ret));
	return false;
}

bool qcow2_create(const char *filename, struct options *options, GError **error)
{
	struct qcow2_new n;
	struct qcow2_layout l;
	g_autofree void *header = NULL;
	bool ok;

	if (!qcow2_new_parse(&n, options, error))
		return false;
	ok = plan(&n, &l, error);
	if (ok) {
		header = encode_header(&n, &l, error);
		ok = header && write_files(&n, &l, filename, header, error);
	}
	qcow2_new_clear(&n);
	return ok;
}
