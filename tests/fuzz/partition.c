/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Partition tables of a disk, and what blkid makes of it. */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "image/fsprobe.h"
#include "image/partition.h"

/* libblkid looks for some dozens of file systems: only now and then, on small disks. */
#define PROBE_MAX (64u << 10)

static void check_entries(const struct image *img, const struct partition_table *table)
{
	unsigned last = 0;

	for (guint i = 0; i < table->entries->len; i++) {
		const struct partition *p = g_ptr_array_index(table->entries, i);

		if (p->number <= last || p->number > PARTITION_MAX || p->len == 0 ||
		    p->start > img->size || p->len > img->size - p->start || !p->type)
			abort();
		if (p->label && !g_utf8_validate(p->label, -1, NULL))
			abort();
		if (partition_find(table, p->number) != p)
			abort();
		last = p->number;
	}
	if ((table->scheme == PARTITION_NONE) != !partition_scheme_name(table->scheme))
		abort();
}

static void body(void *arg)
{
	struct image *img = fuzz_open(arg, "raw", 0);
	struct partition_table *table;

	if (!img)
		return;
	if (partition_table_of_image(img, &table) == 0)
		check_entries(img, table);
	if (table && table->scheme == PARTITION_NONE && img->size <= PROBE_MAX && img->size > 0) {
		struct fsprobe found;

		if (fsprobe_image(img, 0, img->size, &found) == 0)
			fsprobe_clear(&found);
	}
	partition_table_free(table);
	image_unref(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file *f = fuzz_file(data, size);

	if (f)
		fuzz_run(body, f);
	file_unref(f);
	return 0;
}
