/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <stdio.h>

#include "formats/formats.h"
#include "fs/daemonize.h"
#include "fs/fuse.h"
#include "fs/options.h"
#include "fs/session.h"
#include "image/image.h"
#include "io/memory.h"

static int print_version(void)
{
	printf("imgfs %s\nlibfuse %s\n", PACKAGE_VERSION, fuse_pkgversion());
	return MOUNT_OK;
}

static int run(const struct mount_options *o)
{
	if (o->help) {
		mount_options_help(stdout);
		return MOUNT_OK;
	}
	if (o->version)
		return print_version();
	if (o->fake)
		return MOUNT_OK;
	if (o->rw_by_mount)
		fprintf(stderr,
			"imgfs: %s: read-only: mount(8) always says rw (-o writable says that "
			"it is meant)\n",
			o->image);
	/* Before anything makes a thread. */
	daemonize_begin(!o->foreground);
	return session_main(o);
}

int main(int argc, char **argv)
{
	g_autoptr(GError) error = NULL;
	struct mount_options options;
	int status = MOUNT_USAGE;

	memory_keep_large_buffers();
	image_set_formats(formats_table);
	if (mount_options_parse(&options, argc, argv, &error))
		status = run(&options);
	else
		fprintf(stderr, "imgfs: %s\n", error->message);
	mount_options_clear(&options);
	return status;
}
