/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counted host units: how many references to each cluster (block, grain) of a
 * file were found, for check. Costs 2 bytes for each unit of an area that is in
 * use (pages of 4096 units), so a file that is large and empty costs little.
 */
#ifndef IMGFS_IMAGE_SPACEMAP_H
#define IMGFS_IMAGE_SPACEMAP_H

#include <stdbool.h>
#include <stdint.h>

struct spacemap;

/* For units 0 .. units-1. NULL: out of memory, or units > 2^32. */
struct spacemap *spacemap_new(uint64_t units);
void spacemap_free(struct spacemap *m); /* NULL is allowed */
/* Units first .. first+n-1, all of them inside. false: out of memory (some may be counted). */
bool spacemap_add(struct spacemap *m, uint64_t first, uint64_t n);
uint64_t spacemap_get(const struct spacemap *m, uint64_t unit);

#endif
