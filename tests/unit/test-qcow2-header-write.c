/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 header: encoded and decoded again, and stored with the power cut at any sector. */
#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "formats/formats.h"
#include "formats/qcow2.h"
#include "io/file-fault.h"
#include "tests/unit/in-loop.h"

#define SECTOR 512

static struct qcow2_header small_header(uint32_t version, unsigned cluster_bits)
{
	struct qcow2_header h = {
		.version = version,
		.cluster_bits = cluster_bits,
		.refcount_order = version < 3 ? 4 : 6,
		.size = 0,
		.reftable_offset = 1ull << cluster_bits,
		.reftable_clusters = 1,
	};
	return h;
}

static void decode(const void *bytes, size_t len, struct qcow2_header *h)
{
	g_autoptr(GError) error = NULL;

	if (!qcow2_header_decode(bytes, len, h, &error) ||
	    !qcow2_extensions_decode(bytes, h, &error))
		fail_msg("%s", error->message);
}

static GBytes *extension(uint32_t type, const char *data, uint32_t len)
{
	struct qcow2_extension_disk d = {be32_make(type), be32_make(len)};
	GByteArray *a = g_byte_array_new();

	g_byte_array_append(a, (const void *)&d, sizeof(d));
	g_byte_array_append(a, (const void *)data, len);
	return g_byte_array_free_to_bytes(a);
}

static void fill(struct qcow2_header *h)
{
	h->backing_name = g_strdup("a/base image.raw");
	h->backing_format = g_strdup("raw");
	h->unknown = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
	g_ptr_array_add(h->unknown, extension(0x12345678, "odd", 3));
	g_ptr_array_add(h->unknown, extension(0x23456789, NULL, 0));
}

static void test_round_trip(void **state)
{
	for (uint32_t version = 2; version <= 3; version++) {
		for (unsigned bits = 9; bits <= 21; bits++) {
			g_autofree uint8_t *bytes = g_malloc(1u << bits);
			struct qcow2_header h = small_header(version, bits), back;

			fill(&h);
			h.size = 0x123456789abcd;
			h.l1_offset = 3ull << bits;
			h.l1_size = 77;
			h.nb_snapshots = 2;
			h.snapshots_offset = 9ull << bits;
			assert_int_equal(qcow2_header_encode(&h, bytes), 0);
			decode(bytes, 1u << bits, &back);
			assert_int_equal(back.version, version);
			assert_int_equal(back.size, h.size);
			assert_int_equal(back.l1_offset, h.l1_offset);
			assert_int_equal(back.l1_size, 77);
			assert_int_equal(back.reftable_offset, 1ull << bits);
			assert_int_equal(back.nb_snapshots, 2);
			assert_int_equal(back.snapshots_offset, 9ull << bits);
			assert_int_equal(back.refcount_order, h.refcount_order);
			assert_string_equal(back.backing_name, "a/base image.raw");
			assert_string_equal(back.backing_format, "raw");
			assert_int_equal(back.unknown->len, 2);
			for (unsigned i = 0; i < 2; i++)
				assert_true(g_bytes_equal(g_ptr_array_index(h.unknown, i),
							  g_ptr_array_index(back.unknown, i)));
			/* In 512 bytes there is no room for names; in version 2 they mean nothing.
			 */
			assert_int_equal(back.feature_names != NULL, version == 3 && bits > 9);
			qcow2_header_clear(&back);
			qcow2_header_clear(&h);
		}
	}
}

static void test_version_3_fields(void **state)
{
	struct qcow2_header h = small_header(3, 16), back;
	g_autofree uint8_t *bytes = g_malloc(1u << 16);
	struct qcow2_feature_disk odd = {1, 33, "of another program"};
	static const uint8_t later[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8};

	h.incompatible = 0x1c;
	h.compatible = 1 | 1ull << 33;
	h.autoclear = 3;
	h.compression_type = 1;
	h.data_file = g_strdup("data");
	h.has_bitmaps = true;
	h.nb_bitmaps = 5;
	h.bitmap_directory_offset = 0x50000;
	h.bitmap_directory_size = 0x123;
	h.feature_names = g_array_new(FALSE, FALSE, sizeof(odd));
	g_array_append_val(h.feature_names, odd);
	h.more_fields = g_bytes_new(later, sizeof(later));
	assert_int_equal(qcow2_header_encode(&h, bytes), 0);
	decode(bytes, 1u << 16, &back);
	assert_int_equal(back.incompatible, h.incompatible);
	assert_int_equal(back.compatible, h.compatible);
	assert_int_equal(back.autoclear, h.autoclear);
	assert_int_equal(back.compression_type, 1);
	assert_string_equal(back.data_file, "data");
	assert_int_equal(back.nb_bitmaps, 5);
	assert_int_equal(back.bitmap_directory_offset, 0x50000);
	assert_int_equal(back.bitmap_directory_size, 0x123);
	assert_int_equal(back.header_length, 128);
	assert_true(g_bytes_equal(back.more_fields, h.more_fields));
	/* Our eight, and the other program's. */
	assert_int_equal(back.feature_names->len, 9);
	assert_memory_equal(&g_array_index(back.feature_names, struct qcow2_feature_disk, 8), &odd,
			    sizeof(odd));
	qcow2_header_clear(&back);
	qcow2_header_clear(&h);
}

static void test_too_long(void **state)
{
	struct qcow2_header h = small_header(3, 9);
	uint8_t bytes[512];

	h.backing_name = g_strnfill(300, 'x');
	assert_int_equal(qcow2_header_encode(&h, bytes), 0);
	g_free(h.backing_name);
	h.backing_name = g_strnfill(400, 'x');
	assert_int_equal(qcow2_header_encode(&h, bytes), -ENOSPC);
	g_free(h.backing_name);
	h.backing_name = g_strnfill(1024, 'x');
	assert_int_equal(qcow2_header_encode(&h, bytes), -EINVAL);
	g_free(h.backing_name);
	h.backing_name = NULL;
	h.backing_format = g_strnfill(16, 'x');
	assert_int_equal(qcow2_header_encode(&h, bytes), -EINVAL);
	qcow2_header_clear(&h);
}

/* ---- storing --------------------------------------------------------------------------------- */

struct bench {
	struct file *memory, *fault;
	struct image *img;
	uint32_t cluster;
};

static void bench_open(struct bench *b, const void *first_cluster, unsigned bits)
{
	static const struct format *const formats[] = {&format_raw, &format_qcow2, NULL};
	struct image_open_options o = {.format = "qcow2", .flags = IMAGE_RDWR | IMAGE_NO_BACKING};
	g_autoptr(GError) error = NULL;
	g_autofree uint8_t *bytes = g_malloc0(2u << bits);

	image_set_formats(formats);
	b->cluster = 1u << bits;
	memcpy(bytes, first_cluster, b->cluster);
	b->memory = file_new_memory("test.qcow2", bytes, 2u << bits);
	b->fault = file_new_fault(b->memory);
	b->img = image_open_file(b->fault, &o, &error);
	if (!b->img)
		fail_msg("%s", error->message);
}

static void bench_close(struct bench *b)
{
	image_unref(b->img);
	file_unref(b->fault);
	file_unref(b->memory);
}

static uint8_t *contents(struct bench *b)
{
	uint8_t *bytes = g_malloc(b->cluster);

	assert_int_equal(file_read(b->memory, 0, bytes, b->cluster), 0);
	return bytes;
}

static void expect_name(const uint8_t *bytes, uint32_t len, const char *name, const char *format)
{
	struct qcow2_header h;

	decode(bytes, len, &h);
	if (g_strcmp0(h.backing_name, name) || g_strcmp0(h.backing_format, format))
		fail_msg("backing file '%s' '%s', not '%s' '%s'", h.backing_name, h.backing_format,
			 name, format);
	qcow2_header_clear(&h);
}

/* Every mix of the sectors of before and after, or many when they are many, reads as `name`. */
static void expect_torn(const uint8_t *before, const uint8_t *after, uint32_t len, const char *name,
			const char *format)
{
	g_autofree uint8_t *mix = g_malloc(len);
	g_autoptr(GRand) r = g_rand_new_with_seed(len);

	for (unsigned round = 0; round < 200; round++) {
		for (uint32_t at = 0; at < len; at += SECTOR)
			memcpy(mix + at, (g_rand_boolean(r) ? before : after) + at, SECTOR);
		expect_name(mix, len, name, format);
	}
}

/* One change of the backing file, from `bytes` on disk, with a cut before the commit and one
 * after it. Returns what is on disk then. */
static uint8_t *change(uint8_t *bytes, unsigned bits, const char *old_name, const char *old_format,
		       const char *name, const char *format)
{
	struct bench b;
	struct qcow2_header *h;
	uint64_t writes;
	int ret;

	/* Counts the writes that there are: the last one is the commit. */
	bench_open(&b, bytes, bits);
	h = &qcow2_of(b.img)->header;
	g_free(h->backing_name);
	g_free(h->backing_format);
	h->backing_name = g_strdup(name);
	h->backing_format = g_strdup(format);
	ret = qcow2_header_store(b.img);
	if (ret == -ENOSPC) {
		bench_close(&b);
		return NULL;
	}
	assert_int_equal(ret, 0);
	writes = file_fault_count(b.fault, FAULT_WRITE);
	assert_int_equal(file_fault_count(b.fault, FAULT_FLUSH), writes);
	assert_int_equal(h->backing_length, name ? strlen(name) : 0);
	g_autofree uint8_t *done = contents(&b);
	bench_close(&b);

	bench_open(&b, bytes, bits);
	h = &qcow2_of(b.img)->header;
	g_free(h->backing_name);
	g_free(h->backing_format);
	h->backing_name = g_strdup(name);
	h->backing_format = g_strdup(format);
	file_fault_set(b.fault, FAULT_WRITE, writes, EIO, true);
	assert_int_equal(qcow2_header_store(b.img), -EIO);
	g_autofree uint8_t *before_commit = contents(&b);
	bench_close(&b);

	expect_torn(bytes, before_commit, 1u << bits, old_name, old_format);
	assert_memory_equal(before_commit + SECTOR, done + SECTOR, (1u << bits) - SECTOR);
	expect_name(done, 1u << bits, name, format);
	return g_steal_pointer(&done);
}

static char *random_name(GRand *r)
{
	return g_rand_boolean(r)
		       ? g_strnfill(g_rand_int_range(r, 1, 1024), g_rand_int_range(r, 'a', 'z'))
		       : NULL;
}

static int body_store(void *arg)
{
	static const char *const formats[] = {NULL, "raw", "qcow2"};
	g_autoptr(GRand) r = g_rand_new_with_seed(5);
	unsigned refused = 0, done = 0;

	for (unsigned bits = 9; bits <= 16; bits++) {
		struct qcow2_header h = small_header(bits % 2 ? 3 : 2, bits);
		g_autofree uint8_t *bytes = g_malloc(1u << bits);
		g_autofree char *name = NULL, *format = NULL;

		assert_int_equal(qcow2_header_encode(&h, bytes), 0);
		for (unsigned step = 0; step < 40; step++) {
			g_autofree char *next = random_name(r);
			const char *f = next ? formats[g_rand_int_range(r, 0, 3)] : NULL;
			uint8_t *after = change(bytes, bits, name, format, next, f);

			refused += !after;
			if (!after)
				continue;
			done++;
			g_free(bytes);
			bytes = after;
			g_free(name);
			name = g_steal_pointer(&next);
			g_free(format);
			format = g_strdup(f);
		}
	}
	/* Names of up to 1023 bytes in clusters of 512 and 1024: those, and no others. */
	assert_true(refused > 0 && refused < 60);
	assert_true(done > 200);
	return 0;
}

static void test_store(void **state)
{
	in_loop(body_store, NULL);
}

/* As QEMU lays it out: the end of the feature names and the backing name behind the sector. */
static int body_other_layout(void *arg)
{
	struct qcow2_header h = small_header(3, 12);
	uint8_t bytes[4096];
	g_autofree uint8_t *a = NULL, *b = NULL, *c = NULL;

	fill(&h);
	assert_int_equal(qcow2_header_encode(&h, bytes), 0);
	qcow2_header_clear(&h);
	a = change(bytes, 12, "a/base image.raw", "raw", "other", "qcow2");
	assert_non_null(a);
	b = change(a, 12, "other", "qcow2", NULL, NULL);
	assert_non_null(b);
	c = change(b, 12, NULL, NULL, "third", NULL);
	assert_non_null(c);
	/* What nobody knows went through all of it, and the names are back. */
	decode(c, 4096, &h);
	assert_int_equal(h.unknown->len, 2);
	assert_int_equal(h.feature_names->len, 8);
	qcow2_header_clear(&h);
	return 0;
}

static void test_other_layout(void **state)
{
	in_loop(body_other_layout, NULL);
}

/* What changes no byte behind the sector is one write and one sync. */
static int body_one_write(void *arg)
{
	struct qcow2_header h = small_header(3, 16);
	g_autofree uint8_t *bytes = g_malloc(1u << 16);
	struct bench b;

	fill(&h);
	assert_int_equal(qcow2_header_encode(&h, bytes), 0);
	qcow2_header_clear(&h);
	bench_open(&b, bytes, 16);
	qcow2_of(b.img)->header.incompatible |= QCOW2_INCOMPAT_DIRTY;
	assert_int_equal(qcow2_header_store(b.img), 0);
	assert_int_equal(file_fault_count(b.fault, FAULT_WRITE), 1);
	assert_int_equal(file_fault_count(b.fault, FAULT_FLUSH), 1);
	bench_close(&b);
	return 0;
}

static void test_one_write(void **state)
{
	in_loop(body_one_write, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_version_3_fields),
		cmocka_unit_test(test_too_long),     cmocka_unit_test(test_store),
		cmocka_unit_test(test_other_layout), cmocka_unit_test(test_one_write),
	};

	fail_by_abort();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
