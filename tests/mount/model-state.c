/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "tests/mount/model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "snapshot."

static void save(const char *folder, const char *prefix, const char *name, const uint8_t *data,
		 uint64_t len)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s%s", folder, prefix, name);
	f = fopen(path, "w");
	if (!f || fwrite(data, 1, len, f) != len || fclose(f))
		wrong("write %s: %s", path, strerror(errno));
}

void state_save(const char *folder)
{
	DIR *dir = opendir(folder);

	for (struct dirent *e; dir && (e = readdir(dir));)
		if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) == 0)
			unlinkat(dirfd(dir), e->d_name, 0);
	if (dir)
		closedir(dir);
	save(folder, "", "disk", bytes, size);
	for (unsigned i = 0; i < snapshot_count; i++)
		save(folder, PREFIX, snapshots[i].name, snapshots[i].bytes, snapshots[i].size);
}

/* false: no such file. into NULL: memory of its own. */
static bool load(const char *folder, const char *name, uint8_t **into, uint64_t *len)
{
	char path[512];
	struct stat st;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "r");
	if (!f)
		return false;
	if (fstat(fileno(f), &st) || (uint64_t)st.st_size > max_size)
		wrong("%s: larger than -M", path);
	if (!*into)
		*into = calloc(1, max_size);
	*len = (uint64_t)st.st_size;
	if (!*into || fread(*into, 1, *len, f) != *len)
		wrong("read %s", path);
	fclose(f);
	return true;
}

void state_load(const char *folder)
{
	DIR *dir = opendir(folder);

	if (!dir)
		wrong("open %s: %s", folder, strerror(errno));
	load(folder, "disk", &bytes, &size);
	for (struct dirent *e; (e = readdir(dir));) {
		struct snapshot *s = &snapshots[snapshot_count];

		if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) || snapshot_count == MAX_SNAPSHOTS)
			continue;
		snprintf(s->name, sizeof(s->name), "%s", e->d_name + strlen(PREFIX));
		load(folder, e->d_name, &s->bytes, &s->size);
		snapshot_count++;
	}
	closedir(dir);
}
