/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest format that allocates and is on disk: a table of 64 cluster numbers in the first
 * cluster, then clusters of 512 bytes. It can be told to break the order of writes in the usual
 * ways, to prove that the power cuts find that.
 */
#ifndef IMGFS_TESTS_TOY_FORMAT_H
#define IMGFS_TESTS_TOY_FORMAT_H

#include "image/image.h"

enum toy_mistake {
	TOY_RIGHT,
	TOY_TABLE_AT_ONCE, /* the table goes to the file with the data, no sync in between */
	TOY_TABLE_LATE,	   /* a flush leaves the table to the next one */
	TOY_REUSES_EARLY,  /* a freed cluster is used again before the table that freed it is there
			    */
	TOY_MISTAKES,
};
extern enum toy_mistake toy_mistake;

#define TOY_CLUSTER  512u
#define TOY_CLUSTERS 64u
#define TOY_SIZE     (TOY_CLUSTER * TOY_CLUSTERS)

extern const struct format *const toy_formats[];

#endif
