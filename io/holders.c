/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel knows no owner of the locks that QEMU and we take: they belong to open files, and a
 * descriptor of such a file lists them in /proc/PID/fdinfo.
 */
#include "config.h"

#include "io/holders.h"

#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NAMED_MAX   3  /* processes */
#define COMMAND_MAX 80 /* bytes of a command line */

/*
 * What the kernel knows by itself: other descriptors may be of files on FUSE or NFS, and a plain
 * stat of these waits for whoever serves them, perhaps forever.
 */
static bool is_same_file(const char *link, const struct stat *file)
{
	struct statx st;

	return statx(AT_FDCWD, link, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &st) == 0 &&
	       makedev(st.stx_dev_major, st.stx_dev_minor) == file->st_dev &&
	       st.stx_ino == file->st_ino;
}

/* The descriptor `fd` of process `pid` is of the file, and has locks on it. */
static bool locks(const char *pid, const char *fd, const struct stat *file)
{
	g_autofree char *link = g_strdup_printf("/proc/%s/fd/%s", pid, fd);
	g_autofree char *info = g_strdup_printf("/proc/%s/fdinfo/%s", pid, fd);
	g_autofree char *text = NULL;

	return is_same_file(link, file) && g_file_get_contents(info, &text, NULL, NULL) &&
	       strstr(text, "\nlock:");
}

static bool has_locks(const char *pid, const struct stat *file)
{
	g_autofree char *path = g_strdup_printf("/proc/%s/fd", pid);
	GDir *dir = g_dir_open(path, 0, NULL);
	const char *fd;
	bool found = false;

	while (dir && !found && (fd = g_dir_read_name(dir)))
		found = locks(pid, fd, file);
	if (dir)
		g_dir_close(dir);
	return found;
}

/* Its command line as one line; else the name that the kernel knows. Caller frees. */
static char *command_of(const char *pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%s/cmdline", pid);
	g_autofree char *text = NULL, *valid = NULL;
	gsize len = 0;

	if (!g_file_get_contents(path, &text, &len, NULL) || !len)
		return g_strdup("a program");
	for (gsize i = 0; i + 1 < len; i++)
		if (!text[i])
			text[i] = ' ';
	valid = g_utf8_make_valid(text, -1);
	for (char *p = valid; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	if (strlen(valid) <= COMMAND_MAX)
		return g_steal_pointer(&valid);
	*g_utf8_find_prev_char(valid, valid + COMMAND_MAX + 1) = '\0';
	return g_strconcat(valid, "...", NULL);
}

char *holders_name(const char *path)
{
	g_autoptr(GString) names = g_string_new(NULL);
	g_autofree char *self = g_strdup_printf("%d", (int)getpid());
	GDir *proc = g_dir_open("/proc", 0, NULL);
	unsigned count = 0;
	struct stat file;
	const char *pid;

	if (stat(path, &file) != 0) {
		if (proc)
			g_dir_close(proc);
		return NULL;
	}
	while (proc && count < NAMED_MAX && (pid = g_dir_read_name(proc))) {
		g_autofree char *command = NULL;

		if (!g_ascii_isdigit(*pid) || !strcmp(pid, self) || !has_locks(pid, &file))
			continue;
		command = command_of(pid);
		g_string_append_printf(names, "%s%s (process %s)", count++ ? ", " : "", command,
				       pid);
	}
	if (proc)
		g_dir_close(proc);
	return count ? g_strdup(names->str) : NULL;
}
