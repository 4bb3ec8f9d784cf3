/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Partition tables, good and hostile, made byte by byte in memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "image/partition.h"

#define DISK (8u << 20)

struct disk {
	uint8_t *bytes;
	uint64_t size;
	uint64_t bad; /* a read that touches this byte fails; UINT64_MAX: none */
};

static int read_disk(void *arg, uint64_t offset, void *buf, size_t len)
{
	struct disk *d = arg;

	assert_true(offset <= d->size && len <= d->size - offset);
	if (d->bad >= offset && d->bad - offset < len)
		return -EIO;
	memcpy(buf, d->bytes + offset, len);
	return 0;
}

static struct disk *disk_new(void)
{
	struct disk *d = g_new0(struct disk, 1);

	d->size = DISK;
	d->bytes = g_malloc0(DISK);
	d->bad = UINT64_MAX;
	return d;
}

static struct partition_table *read_and_free(struct disk *d)
{
	struct partition_table *t;

	assert_int_equal(partition_table_read(d->size, read_disk, d, &t), 0);
	g_free(d->bytes);
	g_free(d);
	return t;
}

static void put(uint8_t *at, uint64_t value, int bytes)
{
	for (int i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static void mbr_put(uint8_t *sector, int slot, uint8_t type, uint32_t start, uint32_t count)
{
	uint8_t *e = sector + 446 + 16 * slot;

	e[4] = type;
	put(e + 8, start, 4);
	put(e + 12, count, 4);
	sector[510] = 0x55;
	sector[511] = 0xaa;
}

static void gpt_put(struct disk *d, uint32_t ss, uint64_t lba, uint64_t entries_lba)
{
	uint8_t *h = d->bytes + lba * ss, *array = d->bytes + entries_lba * ss;

	memset(array, 0, 128 * 128);
	for (int i = 0; i < 2; i++) {
		uint8_t *e = array + 128 * 2 * i; /* entries 1 and 3 */
		static const uint8_t linux_type[16] = {0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84,
						       0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69,
						       0xd8, 0x47, 0x7d, 0xe4};

		memcpy(e, linux_type, 16);
		memset(e + 16, 0x11 * (i + 1), 16);
		put(e + 32, 100 + 100 * i, 8);
		put(e + 40, 199 + 100 * i, 8);
		e[56] = 'p';
		e[58] = (uint8_t)('1' + i);
	}
	memcpy(h, "EFI PART", 8);
	put(h + 8, 0x10000, 4);
	put(h + 12, 92, 4);
	put(h + 24, lba, 8);
	put(h + 72, entries_lba, 8);
	put(h + 80, 128, 4);
	put(h + 84, 128, 4);
	put(h + 88, partition_crc32(array, 128 * 128), 4);
	put(h + 16, 0, 4);
	put(h + 16, partition_crc32(h, 92), 4);
}

static struct disk *gpt_disk(uint32_t ss)
{
	struct disk *d = disk_new();
	uint64_t last = DISK / ss - 1;

	mbr_put(d->bytes, 0, 0xee, 1, 0xffffffff);
	gpt_put(d, ss, 1, 2);
	gpt_put(d, ss, last, last - 128 * 128 / ss);
	return d;
}

static void assert_gpt(struct partition_table *t, uint32_t ss, bool from_backup)
{
	const struct partition *p;

	assert_int_equal(t->scheme, PARTITION_GPT);
	assert_int_equal(t->sector_size, ss);
	assert_int_equal(t->from_backup, from_backup);
	assert_int_equal(t->entries->len, 2);
	p = partition_find(t, 3);
	assert_non_null(p);
	assert_int_equal(p->start, 200 * ss);
	assert_int_equal(p->len, 100 * ss);
	assert_string_equal(p->label, "p2");
	assert_string_equal(p->type, "0fc63daf-8483-4772-8e79-3d69d8477de4");
	assert_string_equal(p->type_name, "Linux filesystem");
	assert_string_equal(p->uuid, "22222222-2222-2222-2222-222222222222");
	assert_null(partition_find(t, 2));
	partition_table_free(t);
}

static void gpt_in_both_sector_sizes(void **state)
{
	assert_gpt(read_and_free(gpt_disk(512)), 512, false);
	assert_gpt(read_and_free(gpt_disk(4096)), 4096, false);
}

static void gpt_backup_when_primary_is_damaged(void **state)
{
	struct disk *d = gpt_disk(512);

	d->bytes[512 + 57] ^= 1; /* the header's checksum */
	assert_gpt(read_and_free(d), 512, true);
	d = gpt_disk(4096);
	d->bytes[2 * 4096 + 33] ^= 1; /* the array's */
	assert_gpt(read_and_free(d), 4096, true);
}

static void gpt_forgotten_backup_does_not_show(void **state)
{
	struct disk *d = gpt_disk(512);
	struct partition_table *t;

	memset(d->bytes, 0, 64 * 512);
	t = read_and_free(d);
	assert_int_equal(t->scheme, PARTITION_NONE);
	partition_table_free(t);
}

static void gpt_hybrid_wins_over_mbr(void **state)
{
	struct disk *d = gpt_disk(512);

	mbr_put(d->bytes, 1, 0x83, 100, 100);
	assert_gpt(read_and_free(d), 512, false);
}

static void gpt_hostile_numbers(void **state)
{
	static const struct {
		int at, bytes;
		uint64_t value;
	} bad[] = {
		{12, 4, 0xffffffff}, {12, 4, 91}, {72, 8, UINT64_MAX}, {72, 8, DISK / 512},
		{80, 4, 0xffffffff}, {80, 4, 0},  {84, 4, 0xffffffff}, {84, 4, 64},
		{84, 4, 192},	     {24, 8, 2},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		struct disk *d = gpt_disk(512);
		uint8_t *h = d->bytes + 512;

		put(h + bad[i].at, bad[i].value, bad[i].bytes);
		put(h + 16, 0, 4);
		put(h + 16, partition_crc32(h, 92), 4);
		assert_gpt(read_and_free(d), 512, true);
	}
}

/* Entries with a good checksum that lie outside, wrap, or reach over the end. */
static void gpt_entries_are_clipped(void **state)
{
	struct disk *d = gpt_disk(512);
	uint8_t *e = d->bytes + 1024, *h = d->bytes + 512;
	struct partition_table *t;

	for (int i = 1; i < 5; i++)
		memcpy(e + 128 * i, e, 128);
	put(e + 32, DISK / 512 - 4, 8); /* 1: clipped to four sectors */
	put(e + 40, UINT64_MAX / 4, 8);
	put(e + 128 + 32, DISK / 512, 8); /* 2: begins at the end */
	put(e + 128 + 40, DISK / 512 + 7, 8);
	put(e + 256 + 32, 9, 8); /* 3: ends before it begins */
	put(e + 256 + 40, 8, 8);
	put(e + 384 + 32, 0, 8); /* 4: the count would wrap */
	put(e + 384 + 40, UINT64_MAX, 8);
	put(e + 512 + 32, UINT64_MAX / 512 + 2, 8); /* 5: the byte offset would wrap */
	put(e + 512 + 40, UINT64_MAX / 512 + 3, 8);
	put(h + 88, partition_crc32(e, 128 * 128), 4);
	put(h + 16, 0, 4);
	put(h + 16, partition_crc32(h, 92), 4);
	t = read_and_free(d);
	assert_false(t->from_backup);
	assert_int_equal(t->entries->len, 1);
	assert_int_equal(partition_find(t, 1)->len, 4 * 512);
	partition_table_free(t);
}

static void mbr_with_logical(void **state)
{
	struct disk *d = disk_new();
	struct partition_table *t;
	const struct partition *p;

	mbr_put(d->bytes, 0, 0x83, 64, 100);
	d->bytes[446] = 0x80;
	mbr_put(d->bytes, 3, 0x0f, 1000, 5000);
	put(d->bytes + 440, 0xcafe1234, 4);
	mbr_put(d->bytes + 1000 * 512, 0, 0x82, 8, 50);
	mbr_put(d->bytes + 1000 * 512, 1, 0x05, 500, 600);
	mbr_put(d->bytes + 1500 * 512, 0, 0x83, 16, 70);
	t = read_and_free(d);
	assert_int_equal(t->scheme, PARTITION_MBR);
	assert_string_equal(t->uuid, "cafe1234");
	assert_int_equal(t->entries->len, 3);
	assert_true(partition_find(t, 1)->bootable);
	p = partition_find(t, 5);
	assert_int_equal(p->start, 1008 * 512);
	assert_string_equal(p->type_name, "Linux swap");
	p = partition_find(t, 6);
	assert_int_equal(p->start, 1516 * 512);
	assert_int_equal(p->len, 70 * 512);
	assert_string_equal(p->uuid, "cafe1234-06");
	partition_table_free(t);
}

static void mbr_of_4096_byte_sectors(void **state)
{
	struct disk *d = disk_new();
	struct partition_table *t;

	mbr_put(d->bytes, 0, 0x83, 256, 100);
	mbr_put(d->bytes, 1, 0x05, 512, 1000);
	mbr_put(d->bytes + 512 * 4096, 0, 0x83, 4, 70);
	t = read_and_free(d);
	assert_int_equal(t->sector_size, 4096);
	assert_int_equal(partition_find(t, 1)->start, 256 * 4096);
	assert_int_equal(partition_find(t, 5)->start, 516 * 4096);
	partition_table_free(t);
}

static void mbr_chain_that_loops_ends(void **state)
{
	struct disk *d = disk_new();
	struct partition_table *t;

	mbr_put(d->bytes, 0, 0x05, 1000, 5000);
	mbr_put(d->bytes + 1000 * 512, 0, 0x83, 8, 50);
	mbr_put(d->bytes + 1000 * 512, 1, 0x05, 500, 600);
	mbr_put(d->bytes + 1500 * 512, 0, 0x83, 8, 50);
	mbr_put(d->bytes + 1500 * 512, 1, 0x05, 500, 600); /* to itself */
	t = read_and_free(d);
	assert_int_equal(t->entries->len, 2);
	partition_table_free(t);
}

static void mbr_endless_chain_is_bounded(void **state)
{
	struct disk *d = disk_new();
	struct partition_table *t;

	mbr_put(d->bytes, 0, 0x05, 1000, 15000);
	for (int i = 0; i < 10000; i++) {
		mbr_put(d->bytes + (1000 + i) * 512, 0, 0x83, 1, 1);
		mbr_put(d->bytes + (1000 + i) * 512, 1, 0x05, (uint32_t)i + 1, 1);
	}
	t = read_and_free(d);
	assert_in_range(t->entries->len, 200, 300);
	partition_table_free(t);
}

static void boot_code_is_no_table(void **state)
{
	struct disk *d = disk_new();
	struct partition_table *t;

	memset(d->bytes, 'x', 512);
	d->bytes[510] = 0x55;
	d->bytes[511] = 0xaa;
	t = read_and_free(d);
	assert_int_equal(t->scheme, PARTITION_NONE);
	assert_int_equal(t->entries->len, 0);
	partition_table_free(t);
}

static void tiny_disks(void **state)
{
	for (uint64_t size = 0; size < 3000; size += 100) {
		struct disk *d = disk_new();
		struct partition_table *t;

		mbr_put(d->bytes, 0, 0xee, 1, 0xffffffff);
		mbr_put(d->bytes, 1, 0x83, 1, 0xffffffff);
		d->size = size;
		t = read_and_free(d);
		for (unsigned i = 0; i < t->entries->len; i++) {
			const struct partition *p = g_ptr_array_index(t->entries, i);

			assert_true(p->start + p->len <= size);
		}
		partition_table_free(t);
	}
}

static void read_error_is_told(void **state)
{
	struct disk *d = gpt_disk(512);
	struct partition_table *t;

	d->bad = 600;
	assert_int_equal(partition_table_read(d->size, read_disk, d, &t), -EIO);
	assert_null(t);
	g_free(d->bytes);
	g_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gpt_in_both_sector_sizes),
		cmocka_unit_test(gpt_backup_when_primary_is_damaged),
		cmocka_unit_test(gpt_forgotten_backup_does_not_show),
		cmocka_unit_test(gpt_hybrid_wins_over_mbr),
		cmocka_unit_test(gpt_hostile_numbers),
		cmocka_unit_test(gpt_entries_are_clipped),
		cmocka_unit_test(mbr_with_logical),
		cmocka_unit_test(mbr_of_4096_byte_sectors),
		cmocka_unit_test(mbr_chain_that_loops_ends),
		cmocka_unit_test(mbr_endless_chain_is_bounded),
		cmocka_unit_test(boot_code_is_no_table),
		cmocka_unit_test(tiny_disks),
		cmocka_unit_test(read_error_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
