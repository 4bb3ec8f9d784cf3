/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "formats/formats.h"

const struct format *const formats_table[] = {
	&format_qcow2,
	&format_raw,
	NULL,
};
