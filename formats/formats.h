/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of formats: only the two main.c (and tests of whole programs) include it. */
#ifndef IMGFS_FORMATS_FORMATS_H
#define IMGFS_FORMATS_FORMATS_H

#include "image/format.h"

extern const struct format format_raw, format_qcow2;

/* NULL-terminated, for image_set_formats. */
extern const struct format *const formats_table[];

#endif
