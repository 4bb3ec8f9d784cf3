/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEATH	  SIGUSR1
#define DIES_SOON 200 /* milliseconds for a program that nothing keeps */

static pid_t guard;

/* From the kernel's memory: a plain stat would be a request to who may be dead. */
static bool device_of(const char *mountpoint, unsigned *dev_major, unsigned *dev_minor)
{
	struct statx st;

	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW,
		  0, &st) < 0)
		return false;
	*dev_major = st.stx_dev_major;
	*dev_minor = st.stx_dev_minor;
	return true;
}

/* ---- the guard's process: after a fork beside threads, so system calls and nothing else ---- */

/* The mount's owner may use this file, where it is mounted. */
static bool abort_by_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, "1", 1) == 1;

	if (fd >= 0)
		close(fd);
	return done;
}

/* Waits for the signal, which is pending if the parent was gone at once. */
static void wait_for_death(pid_t parent)
{
	sigset_t set;
	int sig;

	prctl(PR_SET_NAME, "imgfs-guard");
	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	sigemptyset(&set);
	sigaddset(&set, DEATH);
	if (prctl(PR_SET_PDEATHSIG, DEATH) < 0)
		_exit(1);
	if (getppid() != parent)
		return;
	while (sigwait(&set, &sig) != 0 || sig != DEATH)
		;
}

static void keep_watch(const char *mountpoint, const char *abort_file, pid_t parent)
{
	/* Readable when its last thread is gone. */
	struct pollfd program = {.fd = (int)syscall(SYS_pidfd_open, parent, 0), .events = POLLIN};
	unsigned was[2], is[2];

	if (!device_of(mountpoint, &was[0], &was[1]))
		_exit(1);
	wait_for_death(parent);
	if (program.fd >= 0 && poll(&program, 1, DIES_SOON) != 0)
		_exit(0);
	if (abort_by_file(abort_file))
		_exit(0);
	/* Another mount may be there by now, or hide it. */
	if (device_of(mountpoint, &is[0], &is[1]) && is[0] == was[0] && is[1] == was[1])
		umount2(mountpoint, MNT_FORCE | UMOUNT_NOFOLLOW);
	_exit(0);
}

static void close_all(void)
{
#ifdef SYS_close_range
	if (syscall(SYS_close_range, 0, ~0u, 0) == 0)
		return;
#endif
	for (int fd = 0, end = (int)sysconf(_SC_OPEN_MAX); fd < end; fd++)
		close(fd);
}

/* ---- the program ---- */

void guard_begin(const char *mountpoint)
{
	unsigned dev_major, dev_minor;
	char abort_file[80];
	pid_t parent = getpid();

	if (!device_of(mountpoint, &dev_major, &dev_minor))
		return;
	snprintf(abort_file, sizeof(abort_file), "/sys/fs/fuse/connections/%u/abort", dev_minor);
	guard = fork();
	if (guard == 0) {
		close_all();
		if (chdir("/") < 0)
			_exit(1);
		keep_watch(mountpoint, abort_file, parent);
	}
}

void guard_end(void)
{
	if (guard <= 0)
		return;
	kill(guard, SIGKILL);
	while (waitpid(guard, NULL, 0) < 0 && errno == EINTR)
		;
	guard = 0;
}
