/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zero detection, and the few things that are done to iovecs. */
#include "config.h"

#include <string.h>

#include "image/core.h"

/*
 * Is all of buf zero? Any alignment, any length. The first bytes are looked at
 * one by one, and then the buffer is compared with itself, shifted: memcmp is vectorised
 * in every libc, and data that is not zero mostly shows in its first bytes.
 */
bool buffer_is_zero(const void *buf, size_t len)
{
	const uint8_t *p = buf;
	size_t front = MIN(len, 16);

	for (size_t i = 0; i < front; i++)
		if (p[i])
			return false;
	if (len <= 16)
		return true;
	/* A block that differs at its end or middle is common (tables, file system blocks). */
	if (p[len - 1] || p[len / 2])
		return false;
	return memcmp(p, p + 16, len - 16) == 0;
}

int iov_slice(const struct iovec *iov, int niov, size_t skip, size_t len, struct iovec *out)
{
	struct iov_walk w;
	size_t got;

	iov_walk_init(&w, iov, niov);
	iov_walk_advance(&w, skip);
	return iov_walk_peek(&w, out, niov, len, &got);
}

void iov_zero(const struct iovec *iov, int niov)
{
	for (int i = 0; i < niov; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
}

bool iov_is_zero(const struct iovec *iov, int niov, size_t skip, size_t len)
{
	struct iovec part;
	struct iov_walk w;
	size_t n;

	iov_walk_init(&w, iov, niov);
	iov_walk_advance(&w, skip);
	for (; len > 0; len -= n) {
		iov_walk_peek(&w, &part, 1, len, &n);
		if (!buffer_is_zero(part.iov_base, n))
			return false;
		iov_walk_advance(&w, n);
	}
	return true;
}
