/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/daemonize.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child's end of the pipe; -1 in the foreground and once it was used. */
static int report_fd = -1;
static bool detached;
static bool reported;

static void write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* the parent is gone: nobody is left to be told */
		data += n;
		len -= (size_t)n;
	}
}

/* The report: one byte of status, then the sentence. */
static G_GNUC_NORETURN void wait_for_report(int fd, pid_t child)
{
	char buf[4096];
	size_t used = 0;
	int status;

	for (;;) {
		ssize_t n = read(fd, buf + used, sizeof(buf) - 1 - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		used += (size_t)n;
		if (used == sizeof(buf) - 1)
			break;
	}
	if (used) {
		buf[used] = '\0';
		if (buf[1])
			fprintf(stderr, "imgfs: %s\n", buf + 1);
		_exit((unsigned char)buf[0]);
	}
	if (waitpid(child, &status, 0) == child && WIFSIGNALED(status))
		fprintf(stderr, "imgfs: the mount process was ended by signal %d (%s)\n",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		fputs("imgfs: the mount process ended without a report\n", stderr);
	_exit(MOUNT_FAILED);
}

void daemonize_begin(bool background)
{
	int fds[2];
	pid_t child;

	if (!background)
		return;
	fflush(NULL);
	if (pipe2(fds, O_CLOEXEC) < 0 || (child = fork()) < 0) {
		fprintf(stderr, "imgfs: cannot go to the background: %s\n", strerror(errno));
		exit(MOUNT_SYSTEM);
	}
	if (child) {
		close(fds[1]);
		wait_for_report(fds[0], child);
	}
	close(fds[0]);
	report_fd = fds[1];
}

/* Keeps descriptors 0-2 taken, so that no image is ever opened as one of them. */
static void leave_terminal(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (chdir("/") < 0)
		return; /* then the working directory stays in use, and no more */
	if (null < 0)
		return;
	fflush(NULL);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

void daemonize_ready(void)
{
	char status = MOUNT_OK;

	if (reported)
		return;
	reported = true;
	if (report_fd < 0)
		return;
	leave_terminal();
	__atomic_store_n(&detached, true, __ATOMIC_RELEASE);
	write_all(report_fd, &status, 1);
	close(report_fd);
	report_fd = -1;
}

int daemonize_failed(enum mount_status status, const char *sentence)
{
	if (reported)
		return status;
	reported = true;
	if (report_fd < 0) {
		fprintf(stderr, "imgfs: %s\n", sentence);
		return status;
	}
	g_autofree char *message = g_strdup_printf("%c%s", (char)status, sentence);

	write_all(report_fd, message, 1 + strlen(sentence));
	close(report_fd);
	report_fd = -1;
	return status;
}

bool daemonize_is_background(void)
{
	return __atomic_load_n(&detached, __ATOMIC_ACQUIRE);
}
