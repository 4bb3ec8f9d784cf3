/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two sets of threads, alike but for their number: one as wide as the machine, one
 * for calls that block. A job lives on the stack of the coroutine that waits for
 * it. Everything in struct pool is under its lock.
 */
#include <config.h>

#include "io/co.h"
#include "io/loop-internal.h"
#include "io/pool.h"

#include <glib.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#define BLOCKING_THREADS 64
#define JOBS_AT_ONCE	 8
#define THREADS_MAX	 1024
/* zstd, zlib and system calls need little; 64 default stacks would not fit into a
 * bounded address space. */
#define WORKER_STACK (1024 * 1024)

struct job {
	struct job *next;
	int (*fn)(void *arg);
	void *arg;
	int ret;
	struct pool_turn *turn; /* NULL: runs beside any other */
	struct loop *loop;
	struct co *co;
	struct loop_call done;
};

struct pool {
	const char *name;
	pthread_mutex_t lock;
	pthread_cond_t wanted;
	struct job *jobs, **jobs_tail;
	unsigned queued; /* in `jobs` */
	unsigned idle;	 /* threads in pthread_cond_wait */
	unsigned limit;	 /* of threads; 0 before the first use */
	bool stopping;
	pthread_t threads[THREADS_MAX];
	unsigned thread_count;
};

static struct pool processors = {
	.name = "worker",
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.wanted = PTHREAD_COND_INITIALIZER,
};
static struct pool blocking = {
	.name = "blocking",
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.wanted = PTHREAD_COND_INITIALIZER,
};

static unsigned count_processors(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
		return (unsigned)CPU_COUNT(&set);
	/* More processors than the set has room for. */
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n > 0 ? (unsigned)n : 1;
}

unsigned pool_width(void)
{
	static unsigned width; /* asked once; all who ask at first get the same */
	unsigned known = __atomic_load_n(&width, __ATOMIC_RELAXED);

	if (!known) {
		known = count_processors();
		__atomic_store_n(&width, known, __ATOMIC_RELAXED);
	}
	return known;
}

static void job_done(void *arg)
{
	struct job *job = arg;

	co_wake(job->co);
}

/*
 * Jobs for one worker, as a list. More than one when so many wait that the others
 * keep busy: fewer turns at the lock, which the loop wants too.
 */
static struct job *next_jobs(struct pool *p)
{
	while (!p->jobs && !p->stopping) {
		p->idle++;
		pthread_cond_wait(&p->wanted, &p->lock);
		p->idle--;
	}

	struct job *first = p->jobs, *last = first;
	if (first) {
		unsigned n = MIN(p->queued / (2 * p->limit), JOBS_AT_ONCE);

		for (p->queued--; n > 1; n--, p->queued--)
			last = last->next;
		p->jobs = last->next;
		last->next = NULL;
	}
	return first;
}

/* The next of those that were to run after this one, which is gone from here on. */
static struct job *end_job(struct pool *p, struct job *job)
{
	struct pool_turn *turn = job->turn;
	struct job *next = NULL;

	if (turn) {
		pthread_mutex_lock(&p->lock);
		next = turn->first;
		turn->first = next ? next->next : NULL;
		turn->taken = next != NULL;
		pthread_mutex_unlock(&p->lock);
	}
	loop_post_call(job->loop, &job->done);
	return next;
}

/* The job, and those that had to wait for it. */
static void do_job(struct pool *p, struct job *job)
{
	while (job) {
		job->ret = job->fn(job->arg);
		job = end_job(p, job);
	}
}

static void *worker(void *arg)
{
	struct pool *p = arg;
	struct job *job;

	pthread_mutex_lock(&p->lock);
	while ((job = next_jobs(p)) != NULL) {
		pthread_mutex_unlock(&p->lock);
		while (job) {
			struct job *next = job->next; /* the job is gone once it is posted */

			do_job(p, job);
			job = next;
		}
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* --- fork: the child has the memory of the threads, but not the threads --- */

static void pool_forget_threads(struct pool *p)
{
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wanted, NULL);
	p->jobs = NULL;
	p->queued = p->idle = 0;
	p->stopping = false;
	p->thread_count = 0;
}

static void before_fork(void)
{
	pthread_mutex_lock(&processors.lock);
	pthread_mutex_lock(&blocking.lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&blocking.lock);
	pthread_mutex_unlock(&processors.lock);
}

static void after_fork_child(void)
{
	pool_forget_threads(&processors);
	pool_forget_threads(&blocking);
}

static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* --- threads --- */

/* One more thread, if the system gives one. Signals stay with the main thread. */
static void pool_grow(struct pool *p)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;

	pthread_once(&once, watch_forks);
	if (pthread_attr_init(&attr) != 0)
		return;
	pthread_attr_setstacksize(&attr, WORKER_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&thread, &attr, worker, p) == 0) {
		pthread_setname_np(thread, p->name);
		p->threads[p->thread_count++] = thread;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
}

/* Called with the lock: another job has the turn, and this one follows it. */
static bool wait_for_turn(struct job *job)
{
	struct pool_turn *turn = job->turn;

	if (!turn)
		return false;
	if (!turn->taken) {
		turn->taken = true;
		return false;
	}
	if (!turn->first)
		turn->tail = &turn->first;
	*turn->tail = job;
	turn->tail = &job->next;
	return true;
}

/* false: there is no thread, and none can be had. */
static bool pool_submit(struct pool *p, unsigned limit, struct job *job)
{
	pthread_mutex_lock(&p->lock);
	if (p->limit == 0)
		p->limit = MIN(limit, THREADS_MAX);
	if (p->queued >= p->idle && p->thread_count < p->limit)
		pool_grow(p);

	bool have_thread = p->thread_count > 0;
	if (have_thread && !wait_for_turn(job)) {
		if (!p->jobs)
			p->jobs_tail = &p->jobs;
		*p->jobs_tail = job;
		p->jobs_tail = &job->next;
		p->queued++;
		pthread_cond_signal(&p->wanted);
	}
	pthread_mutex_unlock(&p->lock);
	return have_thread;
}

static int run(struct pool *p, unsigned limit, struct pool_turn *turn, int (*fn)(void *arg),
	       void *arg)
{
	struct job job = {.fn = fn, .arg = arg, .turn = turn, .loop = loop_self(), .co = co_self()};

	if (!job.co || !job.loop)
		return fn(arg);
	job.done.fn = job_done;
	job.done.arg = &job;
	if (!pool_submit(p, limit, &job))
		return fn(arg); /* late is better than never */
	co_yield();
	return job.ret;
}

int pool_run(int (*fn)(void *arg), void *arg)
{
	return run(&processors, pool_width(), NULL, fn, arg);
}

int pool_run_in_turn(struct pool_turn *turn, int (*fn)(void *arg), void *arg)
{
	return run(&processors, pool_width(), turn, fn, arg);
}

int pool_run_blocking(int (*fn)(void *arg), void *arg)
{
	return run(&blocking, BLOCKING_THREADS, NULL, fn, arg);
}

static void shut_down(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	g_assert(!p->jobs);
	p->stopping = true;
	pthread_cond_broadcast(&p->wanted);
	pthread_mutex_unlock(&p->lock);

	/* Nobody adds to them now. */
	for (unsigned i = 0; i < p->thread_count; i++)
		pthread_join(p->threads[i], NULL);

	pthread_mutex_lock(&p->lock);
	p->stopping = false;
	p->thread_count = 0;
	p->limit = 0;
	pthread_mutex_unlock(&p->lock);
}

void pool_shutdown(void)
{
	shut_down(&processors);
	shut_down(&blocking);
}
