/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What drivers share to make new image files. */
#ifndef IMGFS_IMAGE_CREATE_H
#define IMGFS_IMAGE_CREATE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct file;
struct options;

/*
 * A file that is about to become an image: opened or made, locked against everybody, and left as
 * it was until new_file_empty. It ends with new_file_keep or new_file_drop.
 */
struct new_file {
	const char *path;     /* the caller's */
	bool nocow;	      /* ask btrfs not to copy on write */
	uint32_t extent_hint; /* ask XFS to allocate so many bytes at a time; 0: don't */
	struct file *file;
	bool made; /* it did not exist before */
};
/* Takes nocow and extent_size_hint, of which each driver with files offers both. */
bool new_file_take_hints(struct new_file *n, struct options *options, GError **error);
/* false: "Could not create 'path': ..."; nothing is left. */
bool new_file_open(struct new_file *n, GError **error);
/* Cuts it to nothing; a device stays as it is. 0 or -errno. Yields. */
int new_file_empty(struct new_file *n);
/* Closes it. One that was never opened is allowed, here and below. */
void new_file_keep(struct new_file *n);
/* The making failed: takes it away, or leaves an empty file where one was. Yields. */
void new_file_drop(struct new_file *n);

/* A regular file becomes `size` bytes long; a device must have them. 0 or -errno. Yields. */
int image_set_file_size(struct file *f, uint64_t size);
/* Writes zeroes, and nothing else, so that space is taken. 0 or -errno. Yields. */
int image_write_zero_bytes(struct file *f, uint64_t start, uint64_t len);
/* What `name`, found inside the image `referrer`, means: relative to its directory. Caller frees.
 */
char *image_path_beside(const char *referrer, const char *name);

#endif
