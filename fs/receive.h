/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Taking requests off /dev/fuse. Each is read into a buffer of ours, so that a write's payload can
 * stay where the kernel has put it until it is in the image.
 */
#ifndef IMGFS_FS_RECEIVE_H
#define IMGFS_FS_RECEIVE_H

#include <sys/types.h>

/* The largest write that the kernel may send. */
#define RECEIVE_WRITE_MAX (1u << 20)

/* For one request of any kind. A write's payload in it is aligned to a page. NULL: no memory. */
void *receive_buffer_get(void);
/* A few are kept by each thread, so that their pages stay warm. */
void receive_buffer_put(void *buf);
void receive_thread_end(void);

/* One request from /dev/fuse: its bytes, -EAGAIN when none waits, -ENODEV when the mount is gone,
 * or another -errno. Does not yield. */
ssize_t receive_request(int fd, void *buf);

#endif
