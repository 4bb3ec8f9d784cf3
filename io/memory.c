/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <config.h>

#include "io/memory.h"

#include <malloc.h>

/* Larger than any buffer for I/O or decoding. glibc adapts its limit by itself to
 * what is freed, but never far enough for aligned buffers, whose requests
 * are longer than the blocks that come back. */
#define MAPPED_FROM (16 << 20)
#define KEPT	    (32 << 20)

void memory_keep_large_buffers(void)
{
#if defined(__GLIBC__)
	(void)mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
	(void)mallopt(M_TRIM_THRESHOLD, KEPT);
	/* An arena for each thread would each keep so much: what one thread frees another
	 * could not use, and decoding would take three times the memory. */
	(void)mallopt(M_ARENA_MAX, 1);
#endif
}
