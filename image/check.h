/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What `check` asks of a driver and is told. */
#ifndef IMGFS_IMAGE_CHECK_H
#define IMGFS_IMAGE_CHECK_H

#include <stdbool.h>
#include <stdint.h>

enum check_repair { CHECK_REPAIR_NONE, CHECK_REPAIR_LEAKS, CHECK_REPAIR_ALL };

struct check_options {
	enum check_repair repair;
	/* One finding, one sentence without newline ("Leaked cluster 21 refcount=1
	 * reference=0"). At most CHECK_MESSAGES a class are told, then one that counts
	 * the rest. NULL: nobody listens. */
	void (*tell)(void *arg, const char *sentence);
	void *arg;
	/* Asked again and again, at least every few milliseconds of work: true ends the check
	 * (not a repair in its middle) with an error. NULL: never. */
	bool (*cancelled)(void);
};
#define CHECK_MESSAGES 100

struct check_result {
	uint64_t corruptions, leaks, check_errors;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t image_end_offset; /* bytes; 0: not known */
	uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
};

#endif
