/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: what check finds out and repair uses. Private to qcow2-check.c and qcow2-repair*.c. */
#ifndef IMGFS_FORMATS_QCOW2_CHECK_H
#define IMGFS_FORMATS_QCOW2_CHECK_H

#include "formats/qcow2.h"
#include "image/spacemap.h"

enum finding { FOUND_CORRUPTION, FOUND_LEAK, FOUND_ERROR, FOUND_KINDS };

struct check {
	struct image *img;
	struct qcow2 *q;
	const struct check_options *options;
	struct check_result *result;
	/* References found to each cluster; of these, as an L2 table; and as refcount table or
	 * block. */
	struct spacemap *map, *l2_role, *refcount_role;
	uint64_t clusters; /* of the file */
	uint64_t told[FOUND_KINDS], told_repairs;
	bool active; /* statistics are of the active tables */
	bool no_memory, cancelled;
	uint8_t *l2; /* one table */

	bool bad_entries;   /* L1 or L2 entries are wrong by themselves */
	bool lost_tables;   /* what an unusable table refers to is not counted */
	bool bad_structure; /* refcounts cannot be put right where they are */
	bool holes;	    /* something in use has refcount 0 */
	bool io_error;	    /* something could not be read: references may be missing */
	/* Refcounts of clusters [first, first+n), in the cache. */
	struct cache_block *pinned;
	const uint8_t *pinned_data;
	uint64_t pinned_first, pinned_n;
	uint64_t greatest; /* count found */
};

/* qcow2-check.c */

/* Counts everything, compares and tells. On success the maps are there until check_end. */
bool check_run(struct check *k, struct image *img, const struct check_options *options,
	       struct check_result *result, GError **error);
void check_end(struct check *k);
/* Before blocks of the cache are forgotten. */
void check_unpin(struct check *k);
/* Words that an option's `tell` is told, as long as *told says that there were not too many. */
void check_tell(struct check *k, uint64_t *told, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* The refcount as it is stored; 0 where no block is. 0 or -errno. */
int check_refcount(struct check *k, uint64_t cluster, uint64_t *count);
/* Where refcount block i is. 0, CHECK_NO_BLOCK, or -errno: -EIO also when it is in an impossible
 * place. */
int check_refcount_block(struct check *k, uint64_t i, uint64_t *block);
#define CHECK_NO_BLOCK 1
/* Would a reference to this region be counted: does it begin and end in the file, up to one
 * cluster? */
bool check_countable(const struct qcow2 *q, uint64_t offset, uint64_t len);

/* Would a cluster here lie in the header or the active L1 table? Those two are believed. The
 * refcount and snapshot tables may be what is in the wrong place. */
bool check_in_own_tables(const struct qcow2 *q, uint64_t host);

/* qcow2-repair-entries.c: puts right what is wrong in L1 and L2 tables by itself. *changed: the
 * references must be counted again. 0 or -errno. Yields. */
int repair_entries(struct check *k, bool *changed);

/* qcow2-repair.c */

/* Repairs as the options say; result as check's. Yields. */
bool qcow2_repair(struct image *img, const struct check_options *options,
		  struct check_result *result, GError **error);
/* Writes, so that check and map see it after repair_settle. 0 or -errno. Yields. */
int repair_write(struct check *k, uint64_t offset, const void *buf, size_t len);
/* Everything written is durable. */
int repair_settle(struct check *k);
void repair_tell(struct check *k, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* References that are no part of the refcount structure. */
static inline uint64_t check_in_use(const struct check *k, uint64_t cluster)
{
	return spacemap_get(k->map, cluster) - spacemap_get(k->refcount_role, cluster);
}
/* Is the cluster an L2 table and nothing else, so that it can be changed in place? */
static inline bool check_only_l2(const struct check *k, uint64_t cluster)
{
	return spacemap_get(k->l2_role, cluster) == check_in_use(k, cluster);
}

#endif
