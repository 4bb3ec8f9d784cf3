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
#endif
}
