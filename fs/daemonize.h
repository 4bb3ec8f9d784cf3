/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Going to the background the other way round: fork first, then open, mount and
 * answer INIT in the child, while the parent waits on a pipe. So the command returns
 * only when the files are there, and every failure is its exit status.
 */
#ifndef IMGFS_FS_DAEMONIZE_H
#define IMGFS_FS_DAEMONIZE_H

#include <stdbool.h>

/* Exit statuses of mount(8). */
enum mount_status {
	MOUNT_OK = 0,
	MOUNT_USAGE = 1,  /* wrong call or no permission */
	MOUNT_SYSTEM = 2, /* out of memory, cannot fork */
	MOUNT_FAILED = 32,
};

/*
 * background: forks; the parent does not return but exits as the child reports.
 * Foreground: only notes that reports go to stderr. Call before any thread is
 * made.
 */
void daemonize_begin(bool background);
/*
 * Mounted and answering: the parent exits with 0. In the background the process
 * leaves its terminal, directory and standard streams. Later calls do nothing. From any thread.
 */
void daemonize_ready(void);
/*
 * Failed before daemonize_ready: the parent prints "imgfs: SENTENCE" and exits with
 * status; in the foreground this prints it. Returns status, for main to return.
 */
int daemonize_failed(enum mount_status status, const char *sentence);
/* Are standard streams gone (messages go to syslog)? */
bool daemonize_is_background(void);

#endif
