/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names that come out of images, made into names of files. */
#ifndef IMGFS_FS_NAMES_H
#define IMGFS_FS_NAMES_H

#include <glib.h>

#define NAME_LEN_MAX 255 /* bytes, as NAME_MAX */

/*
 * Any bytes as one UTF-8 file name: control bytes, '/', bytes that are no
 * UTF-8, and a '%' that would look like an escape become %XX; "." and ".." too.
 * Longer than max bytes: cut after a whole character or escape. "" stays "".
 * Caller frees.
 */
char *name_escape(const char *bytes, size_t max);

/* The bytes that name_escape shows as this name; NULL: there are none, or a NUL. Caller frees. */
char *name_unescape(const char *name);

/*
 * A name for bytes that `taken` (a set of names) does not have, added to it:
 * the escaped bytes, with "-ID" (escaped as well) when they were too long,
 * empty or taken, and with the index (a number that no other has) after it
 * when even that is taken. The set keeps the string; the result is borrowed from it.
 */
const char *name_unique(GHashTable *taken, const char *bytes, const char *id, unsigned index);

#endif
