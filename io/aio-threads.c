/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine that is always there: plain system calls on the blocking pool. */
#include <config.h>

#include "io/aio.h"
#include "io/pool.h"

#include <errno.h>

ssize_t aio_transfer_here(const struct aio_transfer *t)
{
	ssize_t n;

	do {
		if (t->write)
			n = pwritev(t->fd, t->iov, t->niov, (off_t)t->offset);
		else
			n = preadv(t->fd, t->iov, t->niov, (off_t)t->offset);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

struct job {
	const struct aio_transfer *transfer;
	ssize_t result; /* an int, as the pool returns it, would not hold all counts */
};

static int job_run(void *arg)
{
	struct job *job = arg;

	job->result = aio_transfer_here(job->transfer);
	return 0;
}

static int threads_prepare(struct loop *loop)
{
	return 0;
}

static ssize_t threads_transfer(struct loop *loop, const struct aio_transfer *t)
{
	struct job job = {.transfer = t};

	pool_run_blocking(job_run, &job);
	return job.result;
}

const struct aio_ops aio_threads = {
	.name = "threads",
	.prepare = threads_prepare,
	.transfer = threads_transfer,
};
