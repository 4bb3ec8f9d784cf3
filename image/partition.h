/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Partition tables of a disk: MBR (with logical partitions) and GPT (also from
 * its backup), with sectors of 512 and of 4096 bytes. A table says nothing about its
 * sector size, so the reader finds it out. Every number in a table is hostile:
 * entries are clipped to the disk, chains and counts are bounded.
 */
#ifndef IMGFS_IMAGE_PARTITION_H
#define IMGFS_IMAGE_PARTITION_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct image;

enum partition_scheme { PARTITION_NONE, PARTITION_MBR, PARTITION_GPT };

/* Highest partition number that is ever given out (file names, inode numbers). */
#define PARTITION_MAX 4096

struct partition {
	unsigned number;       /* as Linux counts them: GPT entry + 1; MBR 1-4, logical from 5 */
	uint64_t start, len;   /* bytes of the disk; inside it; len > 0 */
	char *type;	       /* GPT: GUID in lower case; MBR: "0x83" */
	const char *type_name; /* "Linux filesystem"; NULL: not known here */
	char *label;	       /* GPT only, UTF-8; NULL: none */
	char *uuid;	       /* GPT: partition GUID; MBR: "diskid-NN"; NULL: none */
	bool bootable;	       /* MBR: active; GPT: legacy BIOS bootable */
};

struct partition_table {
	enum partition_scheme scheme;
	uint32_t sector_size; /* 512 or 4096 */
	bool from_backup;     /* GPT: the primary table is damaged */
	char *uuid;	      /* GPT: disk GUID; MBR: disk id as eight digits */
	GPtrArray *entries;   /* of struct partition, by number; never NULL */
};

/*
 * Reads len bytes of the disk at offset, all inside it. 0 or -errno. May yield.
 */
typedef int partition_read_fn(void *arg, uint64_t offset, void *buf, size_t len);

/*
 * Finds the table of a disk of size bytes. *table is made also when there is none
 * (scheme PARTITION_NONE): damage is not an error. 0, or -errno when read failed where
 * a table may be (then *table is NULL). May yield.
 */
int partition_table_read(uint64_t size, partition_read_fn *read, void *arg,
			 struct partition_table **table);
/* The same for an image. */
int partition_table_of_image(struct image *img, struct partition_table **table);
void partition_table_free(struct partition_table *table); /* NULL is allowed */

/* The entry with that number, or NULL. */
const struct partition *partition_find(const struct partition_table *table, unsigned number);
/* "gpt", "dos" (as blkid and lsblk say), or NULL when there is no table. */
const char *partition_scheme_name(enum partition_scheme scheme);

/* CRC-32 as of UEFI 2.10 section 5.3.1 (the one of zlib). */
uint32_t partition_crc32(const void *data, size_t len);

#endif
