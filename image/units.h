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
/* "1 GiB", "193 KiB", "0 B": three significant digits. Caller frees. */
char *units_format(uint64_t bytes);
/* true for on/yes/true/y, off/no/false/n as qemu takes them. */
bool units_parse_bool(const char *text, const char *what, bool *value, GError **error);

#endif
