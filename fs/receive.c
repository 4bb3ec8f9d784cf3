/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/receive.h"

#include <assert.h>
#include <errno.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE	    4096u
#define WRITE_FRONT (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define KEPT	    16

static_assert(WRITE_FRONT < PAGE, "a write's front fits before the first page boundary");

static __thread void *kept[KEPT];
static __thread unsigned kept_count;

/* What stands in front of a write's payload ends where a page begins. */
static void *skew(void *pages)
{
	return (uint8_t *)pages + PAGE - WRITE_FRONT;
}

static void *unskew(void *buf)
{
	return (uint8_t *)buf - (PAGE - WRITE_FRONT);
}

void *receive_buffer_get(void)
{
	void *pages;

	if (kept_count)
		return kept[--kept_count];
	if (posix_memalign(&pages, PAGE, PAGE + RECEIVE_WRITE_MAX + PAGE))
		return NULL;
	return skew(pages);
}

void receive_buffer_put(void *buf)
{
	if (kept_count < KEPT)
		kept[kept_count++] = buf;
	else
		free(unskew(buf));
}

void receive_thread_end(void)
{
	while (kept_count)
		free(unskew(kept[--kept_count]));
}

ssize_t receive_request(int fd, void *buf)
{
	ssize_t n;

	/* ENOENT: the request was interrupted before anybody took it. */
	do
		n = read(fd, buf, WRITE_FRONT + RECEIVE_WRITE_MAX + PAGE);
	while (n < 0 && (errno == EINTR || errno == ENOENT));
	if (n < 0)
		return -errno;
	return n < (ssize_t)sizeof(struct fuse_in_header) ? -EIO : n;
}
