/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/status.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fs/events.h"
#include "fs/options.h"
#include "fs/session.h"
#include "image/cache.h"
#include "image/report.h"
#include "io/loop.h"

#define KINDS_MAX     1000	/* different errors that are events; a hostile image has more */
#define PROGRESS_STEP 100000000 /* nanoseconds between two events of progress */

/* ---- counters: a worker writes only its own, so that none waits for another ---- */

static struct counters {
	uint64_t requests[STATUS_COUNTERS], bytes[STATUS_COUNTERS];
	uint64_t hits, misses;
	uint64_t unflushed; /* bytes written since the last flush */
} counters[MOUNT_MAX_THREADS] __attribute__((aligned(64)));

static void add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static uint64_t get(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void note_cache(struct counters *c, struct tree *t)
{
	struct cache_stats stats;

	cache_get_stats(tree_image(t)->cache, &stats);
	__atomic_store_n(&c->hits, stats.hits, __ATOMIC_RELAXED);
	__atomic_store_n(&c->misses, stats.misses, __ATOMIC_RELAXED);
}

void status_count(struct tree *t, enum status_counter what, uint64_t bytes)
{
	struct counters *c = &counters[worker_self()->number];

	add(&c->requests[what], 1);
	add(&c->bytes[what], bytes);
	if (what == STATUS_WRITE)
		add(&c->unflushed, bytes);
	else if (what == STATUS_FLUSH)
		__atomic_store_n(&c->unflushed, 0, __ATOMIC_RELAXED);
	note_cache(c, t);
}

static void sum_counters(struct counters *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned i = 0; i < MOUNT_MAX_THREADS; i++) {
		const struct counters *c = &counters[i];

		for (unsigned k = 0; k < STATUS_COUNTERS; k++) {
			sum->requests[k] += get(&c->requests[k]);
			sum->bytes[k] += get(&c->bytes[k]);
		}
		sum->hits += get(&c->hits);
		sum->misses += get(&c->misses);
		sum->unflushed += get(&c->unflushed);
	}
}

/* ---- everything else; with the lock ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *mode, *image, *overlay, *mountpoint;
static uint64_t began;	  /* by loop_now */
static GHashTable *kinds; /* sentences that were events */
static struct {
	int err;
	int64_t time; /* microseconds since 1970 */
	char *source, *sentence;
} last;
static struct {
	bool running;
	char *name;
	uint64_t done, total, told;
} job;

/* json:{} and such stay as they are. Caller frees. */
static char *absolute(const char *name)
{
	g_autofree char *real = realpath(name, NULL);

	return g_strdup(real ? real : name);
}

void status_begin(const char *new_mode, const char *file, const char *above, const char *at)
{
	mode = g_strdup(new_mode);
	image = absolute(file);
	overlay = above ? absolute(above) : NULL;
	mountpoint = absolute(at);
	began = loop_now();
}

void status_clear(void)
{
	g_clear_pointer(&mode, g_free);
	g_clear_pointer(&image, g_free);
	g_clear_pointer(&overlay, g_free);
	g_clear_pointer(&mountpoint, g_free);
	g_clear_pointer(&kinds, g_hash_table_unref);
	g_clear_pointer(&last.source, g_free);
	g_clear_pointer(&last.sentence, g_free);
	g_clear_pointer(&job.name, g_free);
	memset(&last, 0, sizeof(last));
	memset(&job, 0, sizeof(job));
	memset(counters, 0, sizeof(counters));
}

static bool is_new_kind(const char *sentence)
{
	if (!kinds)
		kinds = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	return g_hash_table_size(kinds) < KINDS_MAX && g_hash_table_add(kinds, g_strdup(sentence));
}

void status_error(int err, const char *source, const char *sentence)
{
	bool is_new;

	pthread_mutex_lock(&lock);
	g_free(last.source);
	g_free(last.sentence);
	last.err = err;
	last.time = g_get_real_time();
	last.source = g_strdup(source);
	last.sentence = g_strdelimit(g_strdup(sentence), "\n", ' ');
	is_new = is_new_kind(sentence);
	pthread_mutex_unlock(&lock);
	if (is_new)
		events_tell("error", EVENT_NUMBER("errno", (uint64_t)err),
			    EVENT_STRING("source", source), EVENT_STRING("message", sentence));
}

bool status_job_begin(const char *name)
{
	bool good;

	pthread_mutex_lock(&lock);
	good = !job.running;
	if (good) {
		g_free(job.name);
		memset(&job, 0, sizeof(job));
		job.running = true;
		job.name = g_strdup(name);
	}
	pthread_mutex_unlock(&lock);
	if (good)
		events_tell("job-started", EVENT_STRING("job", name));
	return good;
}

void status_job_progress(uint64_t done, uint64_t total)
{
	g_autofree char *name = NULL;
	uint64_t now = loop_now();

	pthread_mutex_lock(&lock);
	job.done = done;
	job.total = total;
	if (now - job.told >= PROGRESS_STEP) {
		job.told = now;
		name = g_strdup(job.name);
	}
	pthread_mutex_unlock(&lock);
	if (name)
		events_tell("job-progress", EVENT_STRING("job", name), EVENT_NUMBER("done", done),
			    EVENT_NUMBER("total", total));
}

void status_job_end(enum status_job_end how, const char *sentence)
{
	static const char *const names[] = {"job-done", "job-failed", "job-cancelled"};
	g_autofree char *name = NULL;

	pthread_mutex_lock(&lock);
	job.running = false;
	name = g_strdup(job.name);
	pthread_mutex_unlock(&lock);
	events_tell(names[how], EVENT_STRING("job", name), EVENT_STRING("message", sentence));
}

/* ---- the text ---- */

static void report_counters(struct report *r, struct tree *t)
{
	struct cache_stats stats;
	struct counters sum;

	note_cache(&counters[worker_self()->number], t);
	sum_counters(&sum);
	cache_get_stats(tree_image(t)->cache, &stats);
	report_uint(r, "dirty_bytes", stats.dirty);
	report_uint(r, "unflushed_bytes", sum.unflushed);
	report_begin_object(r, "cache");
	report_uint(r, "hits", sum.hits);
	report_uint(r, "misses", sum.misses);
	report_end_object(r);
	report_begin_object(r, "requests");
	report_uint(r, "reads", sum.requests[STATUS_READ]);
	report_uint(r, "read_bytes", sum.bytes[STATUS_READ]);
	report_uint(r, "writes", sum.requests[STATUS_WRITE]);
	report_uint(r, "written_bytes", sum.bytes[STATUS_WRITE]);
	report_uint(r, "flushes", sum.requests[STATUS_FLUSH]);
	report_end_object(r);
}

static void report_job(struct report *r)
{
	if (!job.running) {
		report_null(r, "job");
		return;
	}
	report_begin_object(r, "job");
	report_string(r, "name", job.name);
	report_uint(r, "done", job.done);
	report_uint(r, "total", job.total);
	report_end_object(r);
}

static void report_last_error(struct report *r)
{
	if (!last.sentence) {
		report_null(r, "last_error");
		return;
	}
	report_begin_object(r, "last_error");
	report_int(r, "errno", last.err);
	report_string(r, "source", last.source);
	report_string(r, "message", last.sentence);
	report_int(r, "time", last.time / G_USEC_PER_SEC);
	report_end_object(r);
}

void status_show(struct tree *t, GString *out)
{
	struct image *img = tree_image(t);
	struct report *r = report_new(out, REPORT_JSON, 0);

	pthread_mutex_lock(&lock);
	report_begin_object(r, NULL);
	report_string(r, "mode", mode);
	report_bool(r, "writable", tree_is_writable(t));
	if (!tree_is_writable(t))
		report_string(r, "hint", STATUS_READ_ONLY);
	report_string(r, "image", image);
	if (overlay)
		report_string(r, "overlay", overlay);
	report_string(r, "format", img->format->name);
	report_string(r, "mountpoint", mountpoint);
	report_uint(r, "virtual_size", img->size);
	report_uint(r, "uptime", (loop_now() - began) / 1000000000);
	report_counters(r, t);
	report_job(r);
	report_last_error(r);
	report_end_object(r);
	pthread_mutex_unlock(&lock);
	report_free(r);
}
