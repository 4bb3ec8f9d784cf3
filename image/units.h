/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes as qemu-img reads and prints them: the one place. */
#ifndef IMGFS_IMAGE_UNITS_H
#define IMGFS_IMAGE_UNITS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * "1.5k", "10M", "0x100": bytes; one optional suffix of b k K M G T P E, powers of
 * 1024, b being 1. A fraction needs a suffix. Range min..max. `what` names the
 * thing in the message ("image size").
 */
bool units_parse(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *bytes,
		 GError **error);
/* The same for an option's value, with the sentences that qemu-img has for one. */
bool units_parse_parameter(const char *text, const char *key, uint64_t max, uint64_t *bytes,
			   GError **error);
/*
 * What resize takes: a size, or one with a sign in front, by which the size changes. / The size
 * that comes of it, at least 1 and no more than INT64_MAX.
 */
struct size_change {
	char sign; /* '+', '-', or 0: absolute */
	uint64_t bytes;
};
bool units_parse_change(const char *text, struct size_change *change, GError **error);
bool units_apply_change(const struct size_change *change, uint64_t old, uint64_t *size,
			GError **error);
/* "1 GiB", "193 KiB", "0 B": three significant digits. Caller frees. */
char *units_format(uint64_t bytes);
/* true for on/yes/true/y, off/no/false/n as qemu takes them. */
bool units_parse_bool(const char *text, const char *what, bool *value, GError **error);

#endif
