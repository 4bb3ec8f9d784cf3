/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image/buffers.h"

#include <stdlib.h>

#define ALIGNMENT 4096

void *buffers_take(struct buffers *b)
{
	void *buf = NULL;

	if (b->n_idle)
		return b->idle[--b->n_idle];
	return posix_memalign(&buf, ALIGNMENT, b->size) == 0 ? buf : NULL;
}

void buffers_give(struct buffers *b, void *buf)
{
	if (buf && b->n_idle < BUFFERS_IDLE_MAX)
		b->idle[b->n_idle++] = buf;
	else
		free(buf);
}

void buffers_clear(struct buffers *b)
{
	while (b->n_idle)
		free(b->idle[--b->n_idle]);
}
