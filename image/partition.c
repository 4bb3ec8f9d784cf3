/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Partition tables. GPT after the UEFI specification 2.10, chapter 5; MBR as
 * DOS and Linux read it: four entries in the first sector, and a chain of
 * extended boot records, each with one logical partition and a link.
 */
#include "image/partition.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "image/bytes.h"
#include "image/image.h"

#define MBR_TABLE	446 /* offset of the four entries */
#define MBR_LOGICAL_MAX 255 /* links of the chain that are followed */
#define GPT_ENTRIES_MAX PARTITION_MAX
#define GPT_ARRAY_MAX	(1u << 20) /* bytes: 128 entries of 128 bytes are usual */
#define TYPE_PROTECTIVE 0xee

struct mbr_entry {
	uint8_t status;
	uint8_t first_chs[3];
	uint8_t type;
	uint8_t last_chs[3];
	le32_t start, sectors;
};
static_assert(sizeof(struct mbr_entry) == 16, "MBR entry");

struct gpt_header {
	uint8_t signature[8];
	le32_t revision, header_size, header_crc, reserved;
	le64_t my_lba, alternate_lba, first_usable, last_usable;
	uint8_t disk_guid[16];
	le64_t entries_lba;
	le32_t entries, entry_size, entries_crc;
};
static_assert(sizeof(struct gpt_header) == 92, "GPT header");

struct gpt_entry {
	uint8_t type[16], guid[16];
	le64_t first, last, attributes;
	le16_t name[36];
};
static_assert(sizeof(struct gpt_entry) == 128, "GPT entry");

/* What the functions below work on. */
struct reader {
	uint64_t size; /* bytes of the disk */
	partition_read_fn *read;
	void *arg;
	struct partition_table *table;
};

static const struct {
	const char *guid, *name;
} gpt_types[] = {
	{"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI System"},
	{"21686148-6449-6e6f-744e-656564454649", "BIOS boot"},
	{"0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux filesystem"},
	{"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"},
	{"e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"},
	{"a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"},
	{"4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "Linux root (x86-64)"},
	{"b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (ARM-64)"},
	{"bc13c2ff-59e6-4262-a352-b275fd6f7172", "Linux extended boot"},
	{"933ac7e1-2eb4-4f13-b844-0e14e2aef915", "Linux home"},
	{"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Microsoft basic data"},
	{"e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"},
	{"de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery environment"},
	{"48465300-0000-11aa-aa11-00306543ecac", "Apple HFS/HFS+"},
	{"7c3457ef-0000-11aa-aa11-00306543ecac", "Apple APFS"},
	{"516e7cb6-6ecf-11d6-8ff8-00022d09712b", "FreeBSD UFS"},
	{"516e7cba-6ecf-11d6-8ff8-00022d09712b", "FreeBSD ZFS"},
};

static const struct {
	uint8_t type;
	const char *name;
} mbr_types[] = {
	{0x01, "FAT12"},
	{0x04, "FAT16 <32M"},
	{0x06, "FAT16"},
	{0x07, "HPFS/NTFS/exFAT"},
	{0x0b, "W95 FAT32"},
	{0x0c, "W95 FAT32 (LBA)"},
	{0x0e, "W95 FAT16 (LBA)"},
	{0x27, "Hidden NTFS WinRE"},
	{0x82, "Linux swap"},
	{0x83, "Linux"},
	{0x8e, "Linux LVM"},
	{0xa5, "FreeBSD"},
	{0xa6, "OpenBSD"},
	{0xa9, "NetBSD"},
	{0xaf, "HFS / HFS+"},
	{0xef, "EFI (FAT-12/16/32)"},
	{0xfd, "Linux raid autodetect"},
};

static void partition_free(void *data)
{
	struct partition *p = data;

	g_free(p->type);
	g_free(p->label);
	g_free(p->uuid);
	g_free(p);
}

void partition_table_free(struct partition_table *table)
{
	if (!table)
		return;
	g_free(table->uuid);
	g_ptr_array_unref(table->entries);
	g_free(table);
}

const struct partition *partition_find(const struct partition_table *table, unsigned number)
{
	for (unsigned i = 0; i < table->entries->len; i++) {
		const struct partition *p = g_ptr_array_index(table->entries, i);

		if (p->number == number)
			return p;
	}
	return NULL;
}

const char *partition_scheme_name(enum partition_scheme scheme)
{
	switch (scheme) {
	case PARTITION_GPT:
		return "gpt";
	case PARTITION_MBR:
		return "dos";
	case PARTITION_NONE:
		break;
	}
	return NULL;
}

uint32_t partition_crc32(const void *data, size_t len)
{
	return crc32(crc32(0, NULL, 0), data, len);
}

/* A range that leaves the disk is no failure: there is just nothing there (1). */
static int read_at(struct reader *r, uint64_t offset, void *buf, size_t len)
{
	if (offset > r->size || len > r->size - offset)
		return 1;
	return r->read(r->arg, offset, buf, len);
}

/*
 * Adds sectors [first, first+count), clipped to the disk. NULL when nothing of
 * it lies there.
 */
static struct partition *add(struct reader *r, unsigned number, uint64_t first, uint64_t count)
{
	uint64_t sector = r->table->sector_size, disk = r->size;
	struct partition *p;

	if (!count || first > disk / sector || first * sector >= disk)
		return NULL;
	p = g_new0(struct partition, 1);
	p->number = number;
	p->start = first * sector;
	p->len = disk - p->start;
	if (count < p->len / sector)
		p->len = count * sector;
	g_ptr_array_add(r->table->entries, p);
	return p;
}

/* ---- GPT ---- */

/* The first three fields of a GUID are little-endian (UEFI 2.10, appendix A). */
static char *guid_text(const uint8_t g[16])
{
	return g_strdup_printf(
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", g[3], g[2],
		g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14],
		g[15]);
}

static bool guid_is_zero(const uint8_t g[16])
{
	static const uint8_t zero[16];

	return memcmp(g, zero, sizeof(zero)) == 0;
}

/* Unpaired surrogates become U+FFFD. NULL for an empty name. */
static char *gpt_name(const le16_t name[36])
{
	GString *s = g_string_new(NULL);

	for (int i = 0; i < 36; i++) {
		uint32_t c = le16_get(name[i]);

		if (!c)
			break;
		if (c >= 0xd800 && c < 0xdc00 && i + 1 < 36) {
			uint32_t low = le16_get(name[i + 1]);

			if (low >= 0xdc00 && low < 0xe000) {
				c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
				i++;
			}
		}
		g_string_append_unichar(s, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
	}
	return g_string_free(s, s->len == 0);
}

static void gpt_add(struct reader *r, unsigned number, const struct gpt_entry *e)
{
	uint64_t first = le64_get(e->first), last = le64_get(e->last);
	struct partition *p;

	/* An LBA of 2^63 and more cannot be a sector of any disk, and last + 1 may wrap. */
	if (guid_is_zero(e->type) || first > last || last >= UINT64_MAX / 2)
		return;
	p = add(r, number, first, last - first + 1);
	if (!p)
		return;
	p->type = guid_text(e->type);
	p->uuid = guid_text(e->guid);
	p->label = gpt_name(e->name);
	p->bootable = le64_get(e->attributes) & 4;
	for (unsigned i = 0; i < G_N_ELEMENTS(gpt_types); i++)
		if (!strcmp(p->type, gpt_types[i].guid))
			p->type_name = gpt_types[i].name;
}

/* The checks of UEFI 2.10, 5.3.2 on a sector that should hold the header of lba. */
static bool gpt_header_is_good(const uint8_t *sector, uint32_t sector_size, uint64_t lba,
			       struct gpt_header *h)
{
	g_autofree uint8_t *copy = NULL;
	uint32_t size;

	memcpy(h, sector, sizeof(*h));
	size = le32_get(h->header_size);
	if (memcmp(h->signature, "EFI PART", 8) || size < sizeof(*h) || size > sector_size ||
	    le64_get(h->my_lba) != lba)
		return false;
	copy = g_memdup2(sector, size);
	memset(copy + offsetof(struct gpt_header, header_crc), 0, 4);
	return partition_crc32(copy, size) == le32_get(h->header_crc);
}

/* Reads the array that a good header names, checks it, fills the table. 1: it is bad. */
static int gpt_read_entries(struct reader *r, const struct gpt_header *h)
{
	uint32_t count = le32_get(h->entries), each = le32_get(h->entry_size);
	uint64_t lba = le64_get(h->entries_lba), sector = r->table->sector_size;
	g_autofree uint8_t *array = NULL;
	int ret;

	/* The size of an entry is 128 * 2^n. */
	if (each < sizeof(struct gpt_entry) || (each & (each - 1)) || each > 4096 || !count ||
	    count > GPT_ENTRIES_MAX || (uint64_t)count * each > GPT_ARRAY_MAX ||
	    lba > r->size / sector)
		return 1;
	array = g_malloc((size_t)count * each);
	ret = read_at(r, lba * sector, array, (size_t)count * each);
	if (ret)
		return ret;
	if (partition_crc32(array, (size_t)count * each) != le32_get(h->entries_crc))
		return 1;
	r->table->scheme = PARTITION_GPT;
	r->table->uuid = guid_text(h->disk_guid);
	for (uint32_t i = 0; i < count; i++) {
		struct gpt_entry e;

		memcpy(&e, array + (size_t)i * each, sizeof(e));
		gpt_add(r, i + 1, &e);
	}
	return 0;
}

/* Tries the header in sector lba. 0: done; 1: nothing good there; or -errno. */
static int gpt_try(struct reader *r, uint32_t sector_size, uint64_t lba, bool backup)
{
	g_autofree uint8_t *sector = g_malloc(sector_size);
	struct gpt_header h;
	int ret = read_at(r, lba * sector_size, sector, sector_size);

	if (ret)
		return ret;
	if (!gpt_header_is_good(sector, sector_size, lba, &h))
		return 1;
	r->table->sector_size = sector_size;
	r->table->from_backup = backup;
	return gpt_read_entries(r, &h);
}

static int gpt_read(struct reader *r, bool backup)
{
	static const uint32_t sizes[] = {512, 4096};

	for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
		uint64_t lba = backup ? r->size / sizes[i] - 1 : 1;
		int ret;

		if (r->size < 2 * (uint64_t)sizes[i])
			continue;
		ret = gpt_try(r, sizes[i], lba, backup);
		if (ret <= 0)
			return ret;
	}
	return 1;
}

/* ---- MBR ---- */

static bool has_boot_signature(const uint8_t *sector)
{
	return sector[510] == 0x55 && sector[511] == 0xaa;
}

static void mbr_entries(const uint8_t *sector, struct mbr_entry e[4])
{
	memcpy(e, sector + MBR_TABLE, 4 * sizeof(*e));
}

static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

static bool is_used(const struct mbr_entry *e)
{
	return e->type && le32_get(e->sectors);
}

/*
 * Boot sectors of FAT and NTFS end with the same signature but have code where
 * a table has entries: a status byte that is neither 0 nor 0x80 tells.
 */
static bool mbr_is_plausible(const uint8_t *sector)
{
	struct mbr_entry e[4];

	if (!has_boot_signature(sector))
		return false;
	mbr_entries(sector, e);
	for (int i = 0; i < 4; i++)
		if (e[i].status & 0x7f)
			return false;
	return true;
}

static bool mbr_has_type(const uint8_t *sector, uint8_t type)
{
	struct mbr_entry e[4];

	mbr_entries(sector, e);
	for (int i = 0; i < 4; i++)
		if (e[i].type == type)
			return true;
	return false;
}

/* Does something that begins a partition lie at that byte? 1 yes, 0 no, or -errno. */
static int looks_like_content(struct reader *r, uint64_t offset)
{
	uint8_t head[4096];
	int ret = read_at(r, offset, head, sizeof(head));

	if (ret)
		return ret < 0 ? ret : 0;
	return has_boot_signature(head) ||		     /* FAT, NTFS, an EBR */
	       (head[1080] == 0x53 && head[1081] == 0xef) || /* ext2-4 */
	       !memcmp(head, "XFSB", 4) || !memcmp(head, "LUKS\xba\xbe", 6) ||
	       !memcmp(head + 4086, "SWAPSPACE2", 10) || !memcmp(head + 512, "LABELONE", 8);
}

/*
 * An MBR does not tell its sector size. 4096 is believed only where more
 * partitions begin with something known than with 512.
 */
static int mbr_sector_size(struct reader *r, const struct mbr_entry e[4], uint32_t *size)
{
	int hits[2] = {0, 0};

	for (int i = 0; i < 4; i++) {
		for (int big = 0; is_used(&e[i]) && big < 2; big++) {
			int ret = looks_like_content(r, (uint64_t)le32_get(e[i].start) *
								(big ? 4096 : 512));

			if (ret < 0)
				return ret;
			hits[big] += ret;
		}
	}
	*size = hits[1] > hits[0] ? 4096 : 512;
	return 0;
}

static void mbr_add(struct reader *r, unsigned number, uint64_t start, uint64_t count,
		    const struct mbr_entry *e)
{
	struct partition *p = add(r, number, start, count);

	if (!p)
		return;
	p->type = g_strdup_printf("0x%02x", e->type);
	p->bootable = e->status == 0x80;
	if (r->table->uuid)
		p->uuid = g_strdup_printf("%s-%02x", r->table->uuid, number);
	for (unsigned i = 0; i < G_N_ELEMENTS(mbr_types); i++)
		if (e->type == mbr_types[i].type)
			p->type_name = mbr_types[i].name;
}

/*
 * Follows the chain inside the extended partition [base, base+count) sectors.
 * Each record's first used entry that is not a link is relative to the record, the link is
 * relative to base. A link that leaves the partition or comes back ends the chain.
 */
static int read_logical(struct reader *r, uint64_t base, uint64_t count)
{
	uint64_t sector = r->table->sector_size, at = base;
	g_autoptr(GHashTable) seen =
		g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);

	for (unsigned number = 5; number < 5 + MBR_LOGICAL_MAX;) {
		uint8_t record[512];
		struct mbr_entry e[4];
		uint64_t next = 0;
		int ret;

		if (!g_hash_table_add(seen, g_memdup2(&at, sizeof(at))))
			return 0;
		ret = read_at(r, at * sector, record, sizeof(record));
		if (ret)
			return ret < 0 ? ret : 0;
		if (!has_boot_signature(record))
			return 0;
		mbr_entries(record, e);
		for (int i = 0; i < 4; i++) {
			uint64_t start = le32_get(e[i].start);

			if (!is_used(&e[i]))
				continue;
			if (!is_extended(e[i].type)) {
				mbr_add(r, number++, at + start, le32_get(e[i].sectors), &e[i]);
			} else if (!next && start < count) {
				next = base + start;
			}
		}
		if (!next)
			return 0;
		at = next;
	}
	return 0;
}

static int mbr_read(struct reader *r, const uint8_t *sector)
{
	struct mbr_entry e[4];
	le32_t id;
	bool any = false;
	int ret;

	mbr_entries(sector, e);
	ret = mbr_sector_size(r, e, &r->table->sector_size);
	if (ret)
		return ret;
	memcpy(&id, sector + 440, sizeof(id));
	if (le32_get(id))
		r->table->uuid = g_strdup_printf("%08x", le32_get(id));
	for (unsigned i = 0; i < 4; i++) {
		if (!is_used(&e[i]) || e[i].type == TYPE_PROTECTIVE)
			continue;
		any = true;
		if (!is_extended(e[i].type))
			mbr_add(r, i + 1, le32_get(e[i].start), le32_get(e[i].sectors), &e[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		if (!is_used(&e[i]) || !is_extended(e[i].type))
			continue;
		ret = read_logical(r, le32_get(e[i].start), le32_get(e[i].sectors));
		if (ret)
			return ret;
		break; /* Linux too numbers the logical partitions of the first one only */
	}
	if (any)
		r->table->scheme = PARTITION_MBR;
	return 0;
}

static int compare_number(const void *a, const void *b)
{
	const struct partition *const *pa = a, *const *pb = b;

	return (int)(*pa)->number - (int)(*pb)->number;
}

/* A GPT that failed halfway leaves nothing to the next attempt. */
static void reset(struct partition_table *t)
{
	g_ptr_array_set_size(t->entries, 0);
	g_clear_pointer(&t->uuid, g_free);
	t->scheme = PARTITION_NONE;
	t->from_backup = false;
	t->sector_size = 512;
}

/*
 * A GPT counts when the MBR has its protective entry (a hybrid MBR has others
 * beside it: the GPT wins, as everywhere). Without one, only a primary header with a good checksum
 * is believed, and only when the MBR describes nothing: a forgotten backup
 * at the end of a disk that is used otherwise must not show.
 */
static int find_table(struct reader *r)
{
	uint8_t sector[512] = {0};
	bool plausible, protective;
	int ret = read_at(r, 0, sector, sizeof(sector));

	if (ret)
		return ret < 0 ? ret : 0;
	plausible = mbr_is_plausible(sector);
	protective = plausible && mbr_has_type(sector, TYPE_PROTECTIVE);
	if (plausible && !protective) {
		ret = mbr_read(r, sector);
		if (ret || r->table->scheme != PARTITION_NONE)
			return ret;
		reset(r->table);
	}
	for (int backup = 0; backup <= protective; backup++) {
		ret = gpt_read(r, backup);
		if (ret <= 0)
			return ret;
		reset(r->table);
	}
	/* Both copies are gone: what a hybrid MBR still says is better than nothing. */
	return protective ? mbr_read(r, sector) : 0;
}

int partition_table_read(uint64_t size, partition_read_fn *read, void *arg,
			 struct partition_table **table)
{
	struct reader r = {.size = size, .read = read, .arg = arg};
	int ret;

	*table = NULL;
	r.table = g_new0(struct partition_table, 1);
	r.table->sector_size = 512;
	r.table->entries = g_ptr_array_new_with_free_func(partition_free);
	ret = find_table(&r);
	if (ret) {
		partition_table_free(r.table);
		return ret;
	}
	g_ptr_array_sort(r.table->entries, compare_number);
	*table = r.table;
	return 0;
}

static int read_image(void *arg, uint64_t offset, void *buf, size_t len)
{
	return image_read(arg, offset, buf, len);
}

int partition_table_of_image(struct image *img, struct partition_table **table)
{
	return partition_table_read(img->size, read_image, img, table);
}
