/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A rate limit for long copies: so many bytes a second, whoever moves them. */
#ifndef IMGFS_IMAGE_THROTTLE_H
#define IMGFS_IMAGE_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

struct throttle {
	uint64_t rate; /* bytes a second; 0: no limit */
	uint64_t next; /* loop_now() from which the next bytes may move; 0 at first */
};

/*
 * Waits until `bytes` more may be moved, and counts them. What was not used in the last
 * THROTTLE_BURST_NS may be caught up with, so a pause to flush does not lower the rate. stop (may
 * be NULL) is asked now and then: false is returned as soon as it says true. Yields.
 */
#define THROTTLE_BURST_NS 100000000u
bool throttle_wait(struct throttle *t, uint64_t bytes, bool (*stop)(void *arg), void *arg);

#endif
