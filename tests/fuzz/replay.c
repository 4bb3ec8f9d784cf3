/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Instead of libFuzzer: runs every file of its arguments, and of folders among them, once. */
#include "config.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

static unsigned done;

static bool run_file(const char *path)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *data = NULL;
	gsize size;

	if (!g_file_get_contents(path, &data, &size, &error)) {
		fprintf(stderr, "%s\n", error->message);
		return false;
	}
	/* Of exactly its size, so that a sanitizer sees a byte too many. */
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		return false;
	if (size)
		memcpy(copy, data, size);
	/* What was running when the program was ended. */
	printf("%s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
	done++;
	return true;
}

static bool run_path(const char *path)
{
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	const char *name;
	bool ok = true;

	if (!dir)
		return run_file(path);
	while (ok && (name = g_dir_read_name(dir))) {
		g_autofree char *file = g_build_filename(path, name, NULL);

		ok = run_file(file);
	}
	return ok;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!run_path(argv[i]))
			return 1;
	printf("%u inputs\n", done);
	return done ? 0 : 1;
}
