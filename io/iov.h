/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walking through a vector of buffers without changing it: for io/ and image/. */
#ifndef IMGFS_IO_IOV_H
#define IMGFS_IO_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/* The sum of the lengths; SIZE_MAX if it overflows. */
size_t iov_total(const struct iovec *iov, int niov);

struct iov_walk {
	const struct iovec *iov;
	int niov;
	size_t skip; /* bytes of iov[0] that are behind us */
};
void iov_walk_init(struct iov_walk *w, const struct iovec *iov, int niov);
void iov_walk_advance(struct iov_walk *w, size_t len);
/* Describes the next bytes, at most max of them, in at most `slots` parts, without
 * advancing. Returns the number of parts; *len is how many bytes they hold. */
int iov_walk_peek(const struct iov_walk *w, struct iovec *part, int slots, size_t max, size_t *len);
/* Each of these advances by len, which must not be more than what is left. */
void iov_walk_zero(struct iov_walk *w, size_t len);
void iov_walk_copy_in(struct iov_walk *w, const void *from, size_t len);
void iov_walk_copy_out(struct iov_walk *w, void *to, size_t len);

#endif
