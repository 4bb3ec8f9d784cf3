/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files without a name. What is made in one appears under its name at once and complete, or is
 * gone with the process, whatever way that ends.
 */
#ifndef IMGFS_IO_FILE_UNNAMED_H
#define IMGFS_IO_FILE_UNNAMED_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct file;

struct unnamed {
	int fd;
	char *path; /* by which it can be opened, until unnamed_close */
	char *name; /* its real one, where the file system knows no files without; else NULL */
};
/*
 * A new, empty file in the folder of `beside`, with these permissions as far as the umask lets
 * them. false and *error: "Could not create a file in
 * 'FOLDER': ...". Nothing is to be closed then.
 */
bool unnamed_open(struct unnamed *u, const char *beside, mode_t mode, GError **error);
/* Gives it the name `path`, in the same folder, that of no file yet (-EEXIST). Its content must
 * be on disk already. 0 or -errno. */
int unnamed_publish(struct unnamed *u, const char *path);
/* One that was not published is gone. */
void unnamed_close(struct unnamed *u);

/*
 * An empty writable file that nobody else sees: the first `memory` bytes are kept in memory, what
 * lies behind them in a file without a name in $TMPDIR or /var/tmp. Flushing it does nothing. NULL
 * and *error. For the loop of the caller, as file_open.
 */
struct file *file_new_scratch(const char *name, uint64_t memory, GError **error);
/*
 * By this path the part in memory can be opened, to make something in it by name before the file
 * is used. Then scratch_look notices what was made, all of which stays in memory. 0 or -errno.
 */
const char *scratch_path(const struct file *f);
int scratch_look(struct file *f);

#endif
