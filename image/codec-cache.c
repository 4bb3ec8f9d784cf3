/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Decoded units, shared by all loops of the process and bounded in bytes.
 *
 * Threads: one mutex guards the table, the list and every field of a unit but its
 * data, which is written by the one who decodes (state DECODING) and only
 * read afterwards. Whoever waits for a unit is a coroutine of any loop; it is
 * woken through loop_post of its own loop. Nothing yields with the mutex held.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "image/core.h"
#include "io/loop.h"
#include "io/pool.h"

#define DEFAULT_LIMIT (8u << 20)
/* A hand-over to a worker and back costs more than decoding a unit this small. */
#define DECODE_IN_PLACE 16384
#define SPREAD_MIN	4 /* units that are worth a hand-over which somebody waits for */

struct waiter {
	struct loop *loop;
	struct co *co;
	struct waiter *next;
};

enum unit_state { UNIT_DECODING, UNIT_READY, UNIT_FAILED };

struct unit {
	dev_t dev;
	ino_t ino;
	uint64_t host;
	const struct codec *codec;
	uint32_t len;
	enum unit_state state;
	int error;
	unsigned refs; /* the table's one, and one for each that uses it now */
	bool hashed;
	struct unit *older, *newer; /* READY and in the table */
	struct waiter *waiters;
	uint8_t *data;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static GHashTable *table; /* struct unit -> itself */
static struct unit *oldest, *newest;
static size_t held, limit = DEFAULT_LIMIT; /* bytes */
static bool always_in_place;		   /* set before there are other threads */
static unsigned batches;		   /* being decoded at this moment; atomic */

static guint unit_hash(gconstpointer p)
{
	const struct unit *u = p;

	return (guint)((u->host * 0x9e3779b97f4a7c15u) >> 32) ^ (guint)u->ino;
}

static gboolean unit_equal(gconstpointer a, gconstpointer b)
{
	const struct unit *x = a, *y = b;

	return x->host == y->host && x->ino == y->ino && x->dev == y->dev && x->codec == y->codec &&
	       x->len == y->len;
}

static struct unit key_of(const struct extent *e)
{
	const struct stat *st = file_stat(e->file);
	struct unit key = {
		.dev = st->st_dev,
		.ino = st->st_ino,
		.host = e->host,
		.codec = e->codec,
		.len = e->unit_len,
	};

	return key;
}

/* ---- under the mutex ----------------------------------------------------------------------- */

static void list_remove(struct unit *u)
{
	*(u->older ? &u->older->newer : &oldest) = u->newer;
	*(u->newer ? &u->newer->older : &newest) = u->older;
	u->older = u->newer = NULL;
}

static void list_append(struct unit *u)
{
	u->older = newest;
	u->newer = NULL;
	*(newest ? &newest->newer : &oldest) = u;
	newest = u;
}

static void unit_put(struct unit *u)
{
	if (--u->refs)
		return;
	free(u->data);
	g_free(u);
}

static void unhash(struct unit *u)
{
	if (!u->hashed)
		return;
	u->hashed = false;
	g_hash_table_remove(table, u);
	held -= u->len;
	if (u->state == UNIT_READY)
		list_remove(u);
	unit_put(u);
}

static void shrink(size_t to)
{
	while (held > to && oldest)
		unhash(oldest);
}

static struct unit *find(const struct unit *key)
{
	return table ? g_hash_table_lookup(table, key) : NULL;
}

/* A new unit that the caller is to decode, with the caller's reference; NULL: no memory. */
static struct unit *add(const struct unit *key)
{
	struct unit *u = g_memdup2(key, sizeof(*key));

	if (!table)
		table = g_hash_table_new(unit_hash, unit_equal);
	shrink(limit > u->len ? limit - u->len : 0);
	u->data = malloc(u->len);
	if (!u->data) {
		g_free(u);
		return NULL;
	}
	u->state = UNIT_DECODING;
	u->refs = 2;
	u->hashed = true;
	held += u->len;
	g_hash_table_add(table, u);
	return u;
}

/* ---- waiting -----------------------------------------------------------------------------------
 */

static void wake_here(void *co)
{
	co_wake(co);
}

static void wake_waiters(struct waiter *w)
{
	while (w) {
		/* The waiter lives on its coroutine's stack: it may be gone after the post. */
		struct waiter *next = w->next;

		loop_post(w->loop, wake_here, w->co);
		w = next;
	}
}

/* Mutex held at call and return; not while it waits. Yields. */
static void wait_until_decoded(struct unit *u)
{
	while (u->state == UNIT_DECODING) {
		struct waiter w = {loop_self(), co_self(), u->waiters};

		u->waiters = &w;
		pthread_mutex_unlock(&lock);
		co_yield();
		pthread_mutex_lock(&lock);
	}
}

/* ---- decoding -----------------------------------------------------------------------------------
 */

struct job {
	const struct codec *codec;
	void *in, *out;
	size_t in_len, out_len;
};

static int run_job(void *arg)
{
	struct job *job = arg;

	return job->codec->decode(job->in, job->in_len, job->out, job->out_len);
}

/* Reads and decodes the whole unit into out. Yields. in_place: this thread has nothing better to
 * do. */
static int decode_unit(const struct extent *e, void *out, bool in_place)
{
	struct job job = {e->codec, malloc(e->coded_len), out, e->coded_len, e->unit_len};
	int ret;

	if (!job.in)
		return -ENOMEM;
	ret = file_read(e->file, e->host, job.in, job.in_len);
	if (ret == 0)
		ret = in_place || always_in_place || e->unit_len <= DECODE_IN_PLACE
			      ? run_job(&job)
			      : pool_run(run_job, &job);
	free(job.in);
	return ret;
}

static void finish(struct unit *u, int error)
{
	struct waiter *waiters;

	pthread_mutex_lock(&lock);
	u->error = error;
	waiters = u->waiters;
	u->waiters = NULL;
	if (error < 0) {
		unhash(u);
		u->state = UNIT_FAILED;
	} else {
		u->state = UNIT_READY;
		if (u->hashed)
			list_append(u);
		shrink(limit);
	}
	pthread_mutex_unlock(&lock);
	wake_waiters(waiters);
}

static void report_fault(const struct extent *e, int error)
{
	if (e->layer)
		image_fault(e->layer, error, e->unit_start,
			    "the %s-compressed data at offset %" G_GUINT64_FORMAT
			    " of '%s' could not be read",
			    e->codec->name, e->host, file_name(e->file));
}

/* Takes over the caller's reference to a unit that is decoded or under way. */
static int copy_out(struct unit *u, uint64_t skip, void *buf, size_t len)
{
	int error;

	pthread_mutex_lock(&lock);
	wait_until_decoded(u);
	error = u->error;
	if (u->hashed && u->state == UNIT_READY && u != newest) {
		list_remove(u);
		list_append(u);
	}
	pthread_mutex_unlock(&lock);
	if (error == 0)
		memcpy(buf, u->data + skip, len);
	pthread_mutex_lock(&lock);
	unit_put(u);
	pthread_mutex_unlock(&lock);
	return error;
}

bool codec_try_read(const struct extent *e, uint64_t offset, void *buf, size_t len)
{
	struct unit key = key_of(e), *u;

	pthread_mutex_lock(&lock);
	u = find(&key);
	if (u && u->state == UNIT_READY)
		u->refs++;
	else
		u = NULL;
	pthread_mutex_unlock(&lock);
	return u && copy_out(u, offset - e->unit_start, buf, len) == 0;
}

/* The unit with a reference for the caller, made if it is not there. *mine: the caller is to decode
 * it. NULL: no memory. */
static struct unit *get_or_add(const struct unit *key, bool *mine)
{
	struct unit *u;

	pthread_mutex_lock(&lock);
	u = find(key);
	*mine = !u;
	if (u)
		u->refs++;
	else
		u = add(key);
	pthread_mutex_unlock(&lock);
	return u;
}

static bool is_known(const struct unit *key)
{
	bool known;

	pthread_mutex_lock(&lock);
	known = find(key) != NULL;
	pthread_mutex_unlock(&lock);
	return known;
}

bool codec_is_known(const struct extent *e)
{
	struct unit key = key_of(e);

	return is_known(&key);
}

void codec_forget(struct file *file, uint64_t host, uint32_t unit_len)
{
	static const struct codec *const codecs[] = {&codec_deflate, &codec_zstd};

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < G_N_ELEMENTS(codecs); i++) {
		struct extent e = {
			.file = file, .host = host, .codec = codecs[i], .unit_len = unit_len};
		struct unit key = key_of(&e), *u = find(&key);

		if (u)
			unhash(u);
	}
	pthread_mutex_unlock(&lock);
}

int codec_read(const struct extent *e, uint64_t offset, void *buf, size_t len)
{
	struct unit key = key_of(e);
	int ret;

	if (offset == e->unit_start && len == e->unit_len && !is_known(&key)) {
		/* Who wants all of it decodes into his own buffer: a copy in the cache would be a
		 * second walk over memory for a reader that goes on. */
		ret = decode_unit(e, buf, false);
	} else {
		bool mine;
		struct unit *u = get_or_add(&key, &mine);

		if (!u)
			return -ENOMEM;
		if (mine)
			finish(u, decode_unit(e, u->data, false));
		ret = copy_out(u, offset - e->unit_start, buf, len);
	}
	if (ret < 0)
		report_fault(e, ret);
	return ret;
}

struct batch_job {
	struct job jobs[CODED_BATCH];
	unsigned n, done;
};

static int run_batch(void *arg)
{
	struct batch_job *b = arg;
	int ret = 0;

	for (b->done = 0; ret == 0 && b->done < b->n; b->done += ret == 0)
		ret = run_job(&b->jobs[b->done]);
	return ret;
}

/*
 * Where there is a loop for each processor, the requests of readers who read ahead keep all of
 * them busy. One who waits for each request would keep one: his first batch goes to a worker while
 * this loop takes the next one.
 */
static int decode_batch(struct batch_job *b, bool alone)
{
	bool busy = __atomic_fetch_add(&batches, 1, __ATOMIC_RELAXED) > 0;
	bool spread = alone && !busy && b->n >= SPREAD_MIN;
	int ret = always_in_place && !spread ? run_batch(b) : pool_run(run_batch, b);

	__atomic_fetch_sub(&batches, 1, __ATOMIC_RELAXED);
	return ret;
}

/* Reads what unit e is stored as. Yields. */
static int read_stored(const struct extent *e, void *out, struct job *job)
{
	*job = (struct job){e->codec, malloc(e->coded_len), out, e->coded_len, e->unit_len};
	return job->in ? file_read(e->file, e->host, job->in, job->in_len) : -ENOMEM;
}

int codec_read_batch(const struct coded_batch *b)
{
	struct batch_job batch = {.n = 0};
	int ret = 0;

	while (ret == 0 && batch.n < b->n) {
		batch.done = batch.n; /* whose fault it would be */
		ret = read_stored(&b->e[batch.n], b->buf[batch.n], &batch.jobs[batch.n]);
		batch.n++;
	}
	if (ret == 0)
		ret = decode_batch(&batch, b->alone);
	if (ret < 0)
		report_fault(&b->e[batch.done], ret);
	for (unsigned i = 0; i < batch.n; i++)
		free(batch.jobs[i].in);
	return ret;
}

/* ---- ahead of the reader ------------------------------------------------------------------------
 */

struct prefetch {
	struct extent e;
	struct unit *unit;
};

static void run_prefetch(void *arg)
{
	struct prefetch *p = arg;

	finish(p->unit, decode_unit(&p->e, p->unit->data, false));
	pthread_mutex_lock(&lock);
	unit_put(p->unit);
	pthread_mutex_unlock(&lock);
	file_unref(p->e.file);
	image_background_end(p->e.layer);
	g_free(p);
}

void codec_prefetch(const struct extent *e)
{
	struct unit key = key_of(e), *u = NULL;
	struct prefetch *p;

	if (always_in_place)
		return;
	pthread_mutex_lock(&lock);
	if (!find(&key))
		u = add(&key);
	pthread_mutex_unlock(&lock);
	if (!u)
		return;
	p = g_new(struct prefetch, 1);
	p->e = *e;
	p->unit = u;
	file_ref(e->file);
	/* The last image_unref waits for this. */
	image_background_begin(e->layer);
	co_spawn(run_prefetch, p);
}

void codec_set_in_place(bool on)
{
	always_in_place = on;
}

bool codec_reads_ahead(void)
{
	return !always_in_place;
}

void codec_cache_set_limit(size_t bytes)
{
	pthread_mutex_lock(&lock);
	limit = bytes;
	shrink(limit);
	pthread_mutex_unlock(&lock);
}

void codec_cache_clear(void)
{
	pthread_mutex_lock(&lock);
	shrink(0);
	if (table && g_hash_table_size(table) == 0)
		g_clear_pointer(&table, g_hash_table_unref);
	pthread_mutex_unlock(&lock);
}
