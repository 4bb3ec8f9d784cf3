/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2's structures, decoded from buffers: each field with the values at and past its limits. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "formats/qcow2.h"

#define CLUSTER 65536u

/* A small version 3 header that is right. */
static struct qcow2_header_disk good(void)
{
	return (struct qcow2_header_disk){
		.magic = be32_make(QCOW2_MAGIC),
		.version = be32_make(3),
		.cluster_bits = be32_make(16),
		.size = be64_make(1 << 30),
		.l1_size = be32_make(2),
		.l1_offset = be64_make(3 * CLUSTER),
		.reftable_offset = be64_make(CLUSTER),
		.reftable_clusters = be32_make(1),
		.refcount_order = be32_make(4),
		.header_length = be32_make(112),
	};
}

/* NULL: it must be accepted; else words of the refusal. */
static void decode_len(const struct qcow2_header_disk *d, size_t len, const char *words)
{
	struct qcow2_header h, zero = {0};
	GError *error = NULL;
	bool ok = qcow2_header_decode(d, len, &h, &error);

	if (ok == (words != NULL))
		fail_msg("%s: %s", words ? words : "must be accepted",
			 error ? error->message : "accepted");
	if (words && !strstr(error->message, words))
		fail_msg("not \"%s\": %s", words, error->message);
	if (words)
		assert_memory_equal(&h, &zero, sizeof(h));
	g_clear_error(&error);
}

static void decode(const struct qcow2_header_disk *d, const char *words)
{
	decode_len(d, sizeof(*d), words);
}

#define POKE32(field, value, words)                                                                \
	do {                                                                                       \
		struct qcow2_header_disk poked = good();                                           \
		poked.field = be32_make(value);                                                    \
		decode(&poked, words);                                                             \
	} while (0)
#define POKE64(field, value, words)                                                                \
	do {                                                                                       \
		struct qcow2_header_disk poked = good();                                           \
		poked.field = be64_make(value);                                                    \
		decode(&poked, words);                                                             \
	} while (0)

static void test_header(void **state)
{
	struct qcow2_header_disk d = good();
	struct qcow2_header h;

	assert_true(qcow2_header_decode(&d, sizeof(d), &h, NULL));
	assert_int_equal(h.version, 3);
	assert_int_equal(h.cluster_bits, 16);
	assert_int_equal(h.size, 1 << 30);
	assert_int_equal(h.l1_offset, 3 * CLUSTER);
	assert_int_equal(h.refcount_order, 4);
	decode_len(&d, 71, "too short");
	decode_len(&d, 103, "too short");
	decode_len(&d, 104, NULL);
	/* Version 2 ends at 72 bytes, and what follows is not its. */
	d.version = be32_make(2);
	d.incompatible = be64_make(UINT64_MAX);
	d.refcount_order = be32_make(99);
	assert_true(qcow2_header_decode(&d, 72, &h, NULL));
	assert_true(qcow2_header_decode(&d, sizeof(d), &h, NULL));
	assert_int_equal(h.refcount_order, 4);
	assert_int_equal(h.header_length, 72);
	assert_int_equal(h.incompatible, 0);

	POKE32(magic, 0x514649fa, "not in qcow2 format");
	POKE32(version, 0, "version 0");
	POKE32(version, 1, "version 1");
	POKE32(version, 4, "version 4");
	POKE32(version, UINT32_MAX, "version");
	POKE32(cluster_bits, 8, "cluster size");
	POKE32(cluster_bits, 9, NULL);
	POKE32(cluster_bits, 22, "cluster size");
	POKE32(cluster_bits, UINT32_MAX, "cluster size");
	POKE32(header_length, 103, "header length");
	POKE32(header_length, 96, "header length");
	POKE32(header_length, 108, "header length");
	POKE32(header_length, 104, NULL);
	POKE32(header_length, CLUSTER, NULL);
	POKE32(header_length, CLUSTER + 8, "header length");
	POKE32(header_length, 0x7ffffff8, "header length");
	POKE32(refcount_order, 6, NULL);
	POKE32(refcount_order, 7, "refcount order");
	POKE64(size, INT64_MAX, NULL);
	POKE64(size, UINT64_C(1) << 63, "disk size");
	POKE32(crypt_method, 2, NULL);
	POKE32(crypt_method, 3, "encryption method 3");
	POKE32(l1_size, QCOW2_MAX_L1_ENTRIES, NULL);
	POKE32(l1_size, QCOW2_MAX_L1_ENTRIES + 1, "L1 table of");
	POKE64(l1_offset, 3 * CLUSTER + 512, "L1 table offset");
	POKE32(reftable_clusters, 128, NULL);
	POKE32(reftable_clusters, 129, "refcount table of 129 clusters");
	POKE64(snapshots_offset, 1, NULL); /* of no table */
}

/* ---- extensions ------------------------------------------------------------------------------ */

struct area {
	struct qcow2_header h;
	uint8_t cluster[CLUSTER];
	size_t at;
};

static void area_begin(struct area *a)
{
	struct qcow2_header_disk d = good();

	memset(a, 0, sizeof(*a));
	memcpy(a->cluster, &d, sizeof(d));
	assert_true(qcow2_header_decode(a->cluster, CLUSTER, &a->h, NULL));
	a->at = a->h.header_length;
}

static void add(struct area *a, uint32_t type, const void *data, uint32_t len)
{
	struct qcow2_extension_disk head = {be32_make(type), be32_make(len)};

	memcpy(a->cluster + a->at, &head, sizeof(head));
	if (data)
		memcpy(a->cluster + a->at + sizeof(head), data, len);
	a->at += sizeof(head) + (len + 7) / 8 * 8;
}

/* The name lies behind what was added. */
static void set_backing(struct area *a, const char *name, uint32_t len)
{
	a->h.backing_offset = a->at + 8;
	a->h.backing_length = len;
	memcpy(a->cluster + a->h.backing_offset, name, strlen(name));
}

static void area_end(struct area *a, const char *words)
{
	GError *error = NULL;
	bool ok = qcow2_extensions_decode(a->cluster, &a->h, &error);

	if (ok == (words != NULL))
		fail_msg("%s: %s", words ? words : "must be accepted",
			 error ? error->message : "accepted");
	if (words && !strstr(error->message, words))
		fail_msg("not \"%s\": %s", words, error->message);
	g_clear_error(&error);
	if (words)
		qcow2_header_clear(&a->h);
}

static struct area area;

static void test_extensions(void **state)
{
	struct qcow2_bitmaps_disk bitmaps = {.count = be32_make(3),
					     .directory_size = be64_make(96),
					     .directory_offset = be64_make(5 * CLUSTER)};

	area_begin(&area);
	add(&area, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	add(&area, QCOW2_EXT_BITMAPS, &bitmaps, sizeof(bitmaps));
	add(&area, 0x12345678, "kept", 4);
	add(&area, QCOW2_EXT_DATA_FILE, "disk.data", 9);
	set_backing(&area, "base.img", 8);
	area_end(&area, NULL);
	assert_string_equal(area.h.backing_format, "raw");
	assert_string_equal(area.h.backing_name, "base.img");
	assert_string_equal(area.h.data_file, "disk.data");
	assert_true(area.h.has_bitmaps);
	assert_int_equal(area.h.nb_bitmaps, 3);
	assert_int_equal(area.h.bitmap_directory_offset, 5 * CLUSTER);
	assert_int_equal(area.h.unknown->len, 1);
	assert_int_equal(g_bytes_get_size(g_ptr_array_index(area.h.unknown, 0)), 12);
	qcow2_header_clear(&area.h);

	area_begin(&area);
	add(&area, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	add(&area, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
	area_end(&area, "second time");
	area_begin(&area);
	add(&area, 0x1111, NULL, 0);
	add(&area, 0x1111, NULL, 0);
	area_end(&area, "second time");
	area_begin(&area);
	add(&area, QCOW2_EXT_BACKING_FORMAT, "sixteen-letters!", 16);
	area_end(&area, "longer than 15");
	area_begin(&area);
	add(&area, QCOW2_EXT_BACKING_FORMAT, "r\0w", 3);
	area_end(&area, "NUL");
	area_begin(&area);
	add(&area, QCOW2_EXT_BITMAPS, &bitmaps, 23);
	area_end(&area, "23 bytes");
	area_begin(&area);
	add(&area, 0x1111, NULL, 0x7fffffff);
	area_end(&area, "goes past");
	area_begin(&area);
	add(&area, 0x1111, NULL, CLUSTER - 112 - 8);
	area_end(&area, "no end marker");
	area_begin(&area);
	add(&area, 0x1111, NULL, CLUSTER - 112 - 8 + 1);
	area_end(&area, "goes past");
}

static void test_backing_name(void **state)
{
	g_autofree char *name = g_strnfill(1024, 'n');

	area_begin(&area);
	set_backing(&area, name, 1023);
	area_end(&area, NULL);
	assert_int_equal(strlen(area.h.backing_name), 1023);
	qcow2_header_clear(&area.h);
	area_begin(&area);
	set_backing(&area, name, 1024);
	area_end(&area, "too long");
	area_begin(&area);
	set_backing(&area, "x", 0);
	area_end(&area, "length 0");
	area_begin(&area);
	set_backing(&area, "x", 2);
	area_end(&area, "NUL");
	/* Over the header, over the end, and where no cluster is. */
	area_begin(&area);
	area.h.backing_offset = 8;
	area.h.backing_length = 4;
	area_end(&area, "does not lie between");
	area_begin(&area);
	area.h.backing_offset = CLUSTER - 3;
	area.h.backing_length = 4;
	area_end(&area, "does not lie between");
	area_begin(&area);
	area.h.backing_offset = UINT64_MAX;
	area.h.backing_length = UINT32_MAX;
	area_end(&area, "does not lie between");
	/* Extensions may not go into the name. */
	area_begin(&area);
	add(&area, 0x1111, NULL, 100);
	area.h.backing_offset = 112 + 8 + 50;
	area.h.backing_length = 4;
	area_end(&area, "goes past");
}

static void test_features(void **state)
{
	struct qcow2_feature_disk names[] = {
		{.kind = 0, .bit = 40, .name = "time travel"},
		{.kind = 1, .bit = 41, .name = "only compatible"},
		{.kind = 0, .bit = 42, .name = "bell \a"},
	};

	area_begin(&area);
	add(&area, QCOW2_EXT_FEATURE_NAMES, names, sizeof(names));
	area.h.incompatible = 1ull << 40 | 1ull << 41;
	area_end(&area, "time travel, unknown incompatible feature, bit 41");
	area_begin(&area);
	add(&area, QCOW2_EXT_FEATURE_NAMES, names, sizeof(names));
	area.h.incompatible = 1ull << 42;
	area_end(&area, "bell \\"); /* control bytes never reach a terminal */
	area_begin(&area);
	area.h.compatible = area.h.autoclear = ~QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	area_end(&area, NULL);
	qcow2_header_clear(&area.h);

	area_begin(&area);
	area.h.compression_type = 1;
	area_end(&area, "compression type 1");
	area_begin(&area);
	area.h.incompatible = QCOW2_INCOMPAT_COMPRESSION;
	area_end(&area, "compression type 0");
	area_begin(&area);
	area.h.incompatible = QCOW2_INCOMPAT_COMPRESSION;
	area.h.compression_type = 2;
	area_end(&area, "unknown compression type: 2");
	area_begin(&area);
	area.h.autoclear = QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	area_end(&area, "raw data file");
	area_begin(&area);
	area.h.incompatible = QCOW2_INCOMPAT_DATA_FILE;
	area.h.nb_snapshots = 1;
	area_end(&area, "cannot have 1 snapshots");
	area_begin(&area);
	area.h.crypt_method = QCOW2_CRYPT_LUKS;
	area_end(&area, "without an encryption header");
}

static void test_tables(void **state)
{
	struct qcow2_header_disk d = good();
	struct qcow2_header h;
	GError *error = NULL;

	assert_true(qcow2_header_decode(&d, sizeof(d), &h, NULL));
	/* 1 GiB needs 2 entries of 512 MiB; one byte more needs a third. */
	assert_int_equal(qcow2_l1_needed(&h, 1 << 30), 2);
	assert_int_equal(qcow2_l1_needed(&h, (1 << 30) + 1), 3);
	assert_int_equal(qcow2_l1_needed(&h, 0), 0);
	assert_int_equal(qcow2_l1_needed(&h, INT64_MAX), 1ull << 34);
	h.incompatible = QCOW2_INCOMPAT_EXTENDED_L2;
	assert_int_equal(qcow2_l1_needed(&h, 1 << 30), 4);
	h.incompatible = 0;

	assert_true(qcow2_header_check_tables(&h, 3 * CLUSTER + 16, false, NULL));
	assert_false(qcow2_header_check_tables(&h, 3 * CLUSTER + 15, false, &error));
	assert_non_null(strstr(error->message, "L1 table"));
	g_clear_error(&error);
	h.l1_size = 1;
	assert_false(qcow2_header_check_tables(&h, 1 << 30, false, &error));
	assert_non_null(strstr(error->message, "too small"));
	g_clear_error(&error);
	h.l1_size = 2;
	h.reftable_clusters = 0;
	assert_false(qcow2_header_check_tables(&h, 1 << 30, false, NULL));
	assert_true(qcow2_header_check_tables(&h, 1 << 30, true, NULL));

	h.reftable_clusters = 1;
	h.snapshots_offset = CLUSTER;
	h.nb_snapshots = 65536;
	assert_true(qcow2_header_check_tables(&h, 1 << 30, false, NULL));
	h.nb_snapshots = 65537;
	assert_false(qcow2_header_check_tables(&h, 1 << 30, false, &error));
	assert_non_null(strstr(error->message, "65537 snapshots"));
	g_clear_error(&error);
	h.nb_snapshots = 1;
	h.snapshots_offset = CLUSTER + 8;
	assert_false(qcow2_header_check_tables(&h, 1 << 30, false, &error));
	assert_non_null(strstr(error->message, "snapshot table offset"));
	g_clear_error(&error);
	h.snapshots_offset = 1 << 30;
	assert_false(qcow2_header_check_tables(&h, 1 << 30, false, NULL));
	/* A check finds that out by itself. */
	assert_true(qcow2_header_check_tables(&h, 1 << 30, true, NULL));

	assert_true(qcow2_inside(5, 0, 5));
	assert_true(qcow2_inside(0, 5, 5));
	assert_false(qcow2_inside(6, 0, 5));
	assert_false(qcow2_inside(1, UINT64_MAX, 5));
	assert_false(qcow2_inside(UINT64_MAX, 1, UINT64_MAX));
}

/* ---- L1 and L2 entries ----------------------------------------------------------------------- */

static struct qcow2_l2_rules rules = {.cluster_bits = 16, .version = 3};

static struct qcow2_cluster l2(uint64_t entry, uint64_t bitmap)
{
	struct qcow2_cluster c;

	qcow2_l2_decode(&rules, entry, bitmap, &c);
	assert_true((c.kind == QCOW2_CLUSTER_INVALID) == (c.wrong != NULL));
	return c;
}

static void l2_is(uint64_t entry, uint64_t bitmap, enum qcow2_cluster_kind kind, uint64_t host)
{
	struct qcow2_cluster c = l2(entry, bitmap);

	if (c.kind != kind || (kind != QCOW2_CLUSTER_INVALID && c.host != host))
		fail_msg("0x%llx 0x%llx: kind %d at 0x%llx: %s", (unsigned long long)entry,
			 (unsigned long long)bitmap, c.kind, (unsigned long long)c.host,
			 c.wrong ? c.wrong : "right");
}

static void test_l1(void **state)
{
	assert_null(qcow2_l1_wrong(16, 0));
	assert_null(qcow2_l1_wrong(16, QCOW2_COPIED | 0x40000));
	assert_null(qcow2_l1_wrong(16, 0x00ffffffffff0000));
	assert_non_null(qcow2_l1_wrong(16, 0x0100000000000000));
	assert_non_null(qcow2_l1_wrong(16, 0x40001));
	assert_non_null(qcow2_l1_wrong(16, 0x40200));
	assert_null(qcow2_l1_wrong(9, 0x40200));
}

static void test_l2(void **state)
{
	rules = (struct qcow2_l2_rules){.cluster_bits = 16, .version = 3};
	l2_is(0, 0, QCOW2_CLUSTER_HOLE, 0);
	l2_is(0x50000, 0, QCOW2_CLUSTER_DATA, 0x50000);
	assert_false(l2(0x50000, 0).copied);
	assert_true(l2(QCOW2_COPIED | 0x50000, 0).copied);
	l2_is(QCOW2_COPIED | 0x50000, 0, QCOW2_CLUSTER_DATA, 0x50000);
	l2_is(1, 0, QCOW2_CLUSTER_ZERO, 0);
	l2_is(0x50001, 0, QCOW2_CLUSTER_ZERO, 0x50000);
	l2_is(0x50000, UINT64_MAX, QCOW2_CLUSTER_DATA, 0x50000); /* no bitmap here */
	l2_is(QCOW2_COPIED, 0, QCOW2_CLUSTER_INVALID, 0);
	l2_is(0x50200, 0, QCOW2_CLUSTER_INVALID, 0);
	l2_is(0x50002, 0, QCOW2_CLUSTER_INVALID, 0);
	l2_is(0x0100000000050000, 0, QCOW2_CLUSTER_INVALID, 0);
	rules.version = 2;
	l2_is(0x50001, 0, QCOW2_CLUSTER_INVALID, 0);
	l2_is(0x50000, 0, QCOW2_CLUSTER_DATA, 0x50000);
	/* In a data file offset 0 is a place. */
	rules = (struct qcow2_l2_rules){.cluster_bits = 16, .version = 3, .external = true};
	l2_is(QCOW2_COPIED, 0, QCOW2_CLUSTER_DATA, 0);
	l2_is(0, 0, QCOW2_CLUSTER_HOLE, 0);
	l2_is(QCOW2_COMPRESSED | 0x50000, 0, QCOW2_CLUSTER_INVALID, 0);
}

/* "Compressed Clusters Descriptor": x = 62 - (cluster_bits - 8) bits of offset, then sectors. */
static void test_coded(void **state)
{
	rules = (struct qcow2_l2_rules){.cluster_bits = 16, .version = 2};
	struct qcow2_cluster c = l2(QCOW2_COMPRESSED | 0x50123, 0);

	assert_int_equal(c.kind, QCOW2_CLUSTER_CODED);
	assert_int_equal(c.host, 0x50123);
	assert_int_equal(c.coded_len, 512 - 0x123);
	c = l2(QCOW2_COMPRESSED | 3ull << 54 | 0x50000, 0);
	assert_int_equal(c.coded_len, 4 * 512);
	c = l2(QCOW2_COMPRESSED | 0xffull << 54 | 0x501ff, 0);
	assert_int_equal(c.coded_len, 256 * 512 - 511);
	/* Bit 0 is an address here, not the zero flag. */
	c = l2(QCOW2_COMPRESSED | 1, 0);
	assert_int_equal(c.kind, QCOW2_CLUSTER_CODED);
	assert_int_equal(c.host, 1);
	/* 512-byte clusters have 61 offset bits, of which 56 may be used. */
	rules.cluster_bits = 9;
	l2_is(QCOW2_COMPRESSED | 1ull << 56, 0, QCOW2_CLUSTER_INVALID, 0);
	l2_is(QCOW2_COMPRESSED | 1ull << 55, 0, QCOW2_CLUSTER_CODED, 1ull << 55);
	c = l2(QCOW2_COMPRESSED | 1ull << 61 | 512, 0);
	assert_int_equal(c.coded_len, 1024);
	rules.cluster_bits = 21;
	c = l2(QCOW2_COMPRESSED | 0x1fffull << 49 | (1ull << 48), 0);
	assert_int_equal(c.host, 1ull << 48);
	assert_int_equal(c.coded_len, 8192 * 512);
}

static void test_extended(void **state)
{
	rules = (struct qcow2_l2_rules){.cluster_bits = 16, .version = 3, .extended = true};
	l2_is(0, 0, QCOW2_CLUSTER_HOLE, 0);
	l2_is(0x50000, UINT32_MAX, QCOW2_CLUSTER_DATA, 0x50000);
	l2_is(0x50000, 0, QCOW2_CLUSTER_HOLE, 0x50000); /* space kept, nothing in it */
	l2_is(0x50000, 0xffffffff00000000, QCOW2_CLUSTER_ZERO, 0x50000);
	l2_is(0, 0xffffffff00000000, QCOW2_CLUSTER_ZERO, 0);
	assert_true(l2(0x50000, 1).mixed);
	assert_int_equal(l2(0x50000, 1).bitmap, 1);
	assert_true(l2(0x50000, 0xfffffffe00000001).mixed);
	assert_true(l2(0, 1ull << 32).mixed);
	l2_is(0x50000, 1ull << 32 | 1, QCOW2_CLUSTER_INVALID, 0); /* both */
	l2_is(0, 1, QCOW2_CLUSTER_INVALID, 0);			  /* allocated nowhere */
	l2_is(0x50001, UINT32_MAX, QCOW2_CLUSTER_INVALID, 0);	  /* bit 0 is reserved */
	l2_is(QCOW2_COMPRESSED | 0x50000, 0, QCOW2_CLUSTER_CODED, 0x50000);
	l2_is(QCOW2_COMPRESSED | 0x50000, 1, QCOW2_CLUSTER_INVALID, 0);
	rules.external = true;
	assert_true(l2(QCOW2_COPIED, 1).mixed);
}

/* ---- snapshots and bitmaps ------------------------------------------------------------------- */

static void test_snapshot(void **state)
{
	struct {
		struct qcow2_snapshot_disk d;
		struct qcow2_snapshot_extra_disk x;
	} on_disk = {
		.d = {.l1_offset = be64_make(0x30000),
		      .l1_size = be32_make(7),
		      .id_length = be16_make(1),
		      .name_length = be16_make(6),
		      .date_sec = be32_make(1000),
		      .date_nsec = be32_make(5),
		      .vm_clock_nsec = be64_make(99),
		      .vm_state_size = be32_make(11),
		      .extra_length = be32_make(24)},
		.x = {be64_make(1ull << 40), be64_make(1 << 20), be64_make(77)},
	};
	struct qcow2_snapshot s;

	assert_true(qcow2_snapshot_decode(&on_disk, sizeof(on_disk), &s));
	assert_int_equal(s.l1_offset, 0x30000);
	assert_int_equal(s.l1_size, 7);
	assert_int_equal(s.date_sec, 1000);
	assert_int_equal(s.vm_clock_nsec, 99);
	assert_int_equal(s.vm_state_size, 1ull << 40);
	assert_true(s.has_disk_size);
	assert_int_equal(s.disk_size, 1 << 20);
	assert_int_equal(s.icount, 77);
	assert_int_equal(s.total, 72); /* 40 + 24 + 1 + 6, padded */

	/* Less extra data: what is missing is said to be so. */
	on_disk.d.extra_length = be32_make(16);
	assert_true(qcow2_snapshot_decode(&on_disk, sizeof(on_disk), &s));
	assert_int_equal(s.icount, UINT64_MAX);
	assert_int_equal(s.total, 64);
	on_disk.d.extra_length = be32_make(8);
	assert_true(qcow2_snapshot_decode(&on_disk, sizeof(on_disk), &s));
	assert_false(s.has_disk_size);
	assert_int_equal(s.vm_state_size, 1ull << 40);
	on_disk.d.extra_length = be32_make(0);
	assert_true(qcow2_snapshot_decode(&on_disk, sizeof(on_disk.d), &s));
	assert_int_equal(s.vm_state_size, 11);
	assert_int_equal(s.total, 48);
	assert_false(qcow2_snapshot_decode(&on_disk, sizeof(on_disk.d) - 1, &s));
	/* The largest of everything does not wrap. */
	on_disk.d.extra_length = be32_make(UINT32_MAX);
	on_disk.d.id_length = on_disk.d.name_length = be16_make(UINT16_MAX);
	assert_true(qcow2_snapshot_decode(&on_disk, sizeof(on_disk), &s));
	assert_int_equal(s.total, (40 + 0xffffffffull + 2 * 65535 + 7) / 8 * 8);
}

static void test_snapshot_l1(void **state)
{
	struct qcow2 q = {.cluster_bits = 16, .cluster_size = CLUSTER, .file_size = 1 << 20};
	struct qcow2_snapshot s = {
		.l1_offset = 0x30000, .l1_size = 2, .disk_size = 1 << 30, .has_disk_size = true};

	q.header.cluster_bits = 16;
	q.header.version = 3;
	q.header.size = 1 << 30;
	assert_null(qcow2_snapshot_l1_wrong(&q, &s));
	s.l1_offset = 0x30200;
	assert_non_null(qcow2_snapshot_l1_wrong(&q, &s));
	s.l1_offset = 0x30000;
	s.l1_size = 0x10000000;
	assert_non_null(qcow2_snapshot_l1_wrong(&q, &s));
}

static void test_bitmap(void **state)
{
	struct qcow2_bitmap_disk d = {.table_offset = be64_make(0x70000),
				      .table_size = be32_make(2),
				      .flags = be32_make(QCOW2_BITMAP_AUTO),
				      .type = 1,
				      .granularity_bits = 16,
				      .name_length = be16_make(5),
				      .extra_length = be32_make(3)};
	struct qcow2_bitmap b;

	assert_true(qcow2_bitmap_decode(&d, &b));
	assert_int_equal(b.table_offset, 0x70000);
	assert_int_equal(b.table_size, 2);
	assert_int_equal(b.flags, QCOW2_BITMAP_AUTO);
	assert_int_equal(b.granularity_bits, 16);
	assert_int_equal(b.total, 32);
	d.name_length = be16_make(UINT16_MAX);
	d.extra_length = be32_make(UINT32_MAX);
	assert_true(qcow2_bitmap_decode(&d, &b));
	assert_int_equal(b.total, (24 + 0xffffffffull + 65535 + 7) / 8 * 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),	     cmocka_unit_test(test_extensions),
		cmocka_unit_test(test_backing_name), cmocka_unit_test(test_features),
		cmocka_unit_test(test_tables),	     cmocka_unit_test(test_l1),
		cmocka_unit_test(test_l2),	     cmocka_unit_test(test_coded),
		cmocka_unit_test(test_extended),     cmocka_unit_test(test_snapshot),
		cmocka_unit_test(test_snapshot_l1),  cmocka_unit_test(test_bitmap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
