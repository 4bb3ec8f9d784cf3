/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <config.h>

#include "io/iov.h"

#include <glib.h>
#include <stdint.h>
#include <string.h>

size_t iov_total(const struct iovec *iov, int niov)
{
	size_t total = 0;

	for (int i = 0; i < niov; i++)
		if (__builtin_add_overflow(total, iov[i].iov_len, &total))
			return SIZE_MAX;
	return total;
}

void iov_walk_init(struct iov_walk *w, const struct iovec *iov, int niov)
{
	*w = (struct iov_walk){.iov = iov, .niov = niov};
	iov_walk_advance(w, 0); /* over empty parts */
}

void iov_walk_advance(struct iov_walk *w, size_t len)
{
	w->skip += len;
	while (w->niov > 0 && w->skip >= w->iov->iov_len) {
		w->skip -= w->iov->iov_len;
		w->iov++;
		w->niov--;
	}
	g_assert(w->niov > 0 || w->skip == 0);
}

int iov_walk_peek(const struct iov_walk *w, struct iovec *part, int slots, size_t max, size_t *len)
{
	size_t skip = w->skip, total = 0;
	int n = 0;

	for (int i = 0; i < w->niov && n < slots && total < max; i++) {
		size_t size = MIN(w->iov[i].iov_len - skip, max - total);

		if (size > 0) {
			part[n].iov_base = (char *)w->iov[i].iov_base + skip;
			part[n].iov_len = size;
			n++;
		}
		total += size;
		skip = 0;
	}
	*len = total;
	return n;
}

/* The next stretch of memory, at most len of it, and steps over it. */
static void *next_stretch(struct iov_walk *w, size_t len, size_t *size)
{
	struct iovec part;
	int n = iov_walk_peek(w, &part, 1, len, size);

	g_assert(n == 1);
	iov_walk_advance(w, *size);
	return part.iov_base;
}

void iov_walk_zero(struct iov_walk *w, size_t len)
{
	while (len > 0) {
		size_t size;
		void *p = next_stretch(w, len, &size);

		memset(p, 0, size);
		len -= size;
	}
}

void iov_walk_copy_in(struct iov_walk *w, const void *from, size_t len)
{
	while (len > 0) {
		size_t size;
		void *p = next_stretch(w, len, &size);

		memcpy(p, from, size);
		from = (const char *)from + size;
		len -= size;
	}
}

void iov_walk_copy_out(struct iov_walk *w, void *to, size_t len)
{
	while (len > 0) {
		size_t size;
		const void *p = next_stretch(w, len, &size);

		memcpy(to, p, size);
		to = (char *)to + size;
		len -= size;
	}
}
