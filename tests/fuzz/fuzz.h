/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the fuzz targets share. A target is one program: LLVMFuzzerTestOneInput, linked with
 * libFuzzer (--enable-fuzz) or with replay.c, which runs the files it is given.
 */
#ifndef IMGFS_TESTS_FUZZ_FUZZ_H
#define IMGFS_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * The file that an input stands for, in memory. An input that begins with 'S' is a list of records,
 * each a big-endian 16-bit number of a 512-byte sector, a 16-bit length, and as many bytes: what
 * lies at that sector; so a file of megabytes with some tables in it costs hundreds of bytes, and
 * mutations hit what matters. The file ends with the last byte that a record has. Any other input
 * is the file itself. NULL: too large to be fast.
 */
struct file *fuzz_file(const uint8_t *data, size_t size);

/* Opens f as this format with these flags, following nothing and threads avoided; NULL: refused. */
struct image *fuzz_open(struct file *f, const char *format, unsigned flags);

/* Runs body(arg) in a coroutine of the loop that all runs share. */
void fuzz_run(void (*body)(void *arg), void *arg);

/* A pseudo-random number that depends on the input alone. */
uint64_t fuzz_random(uint64_t *state);

#endif
