/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads: the main thread is worker 0. It opens the image first, so that an error is
 * told once; then the other workers open theirs, each on its own thread, while the
 * main thread mounts; serving begins when all are there. All watch the one
 * /dev/fuse descriptor, and the kernel wakes one of them for a request: parallel readers
 * spread, a single one stays where the caches are warm.
 *
 * Locks: session.lock guards `ready`, `go`, `stopping` and each worker's `serving`:
 * a worker that serves gets one posted stop and waits for it. Nothing else is shared.
 */
#include "config.h"

#include "fs/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/attr.h"
#include "fs/bdi.h"
#include "fs/coherence.h"
#include "fs/control.h"
#include "fs/daemonize.h"
#include "fs/data.h"
#include "fs/events.h"
#include "fs/guard.h"
#include "fs/handles.h"
#include "fs/kernel.h"
#include "fs/log.h"
#include "fs/mounting.h"
#include "fs/open.h"
#include "fs/ops.h"
#include "fs/overlay.h"
#include "fs/receive.h"
#include "fs/resized.h"
#include "fs/signals.h"
#include "fs/status.h"
#include "fs/text.h"
#include "io/co.h"
#include "io/loop.h"
#include "io/pool.h"

#define IN_FLIGHT_MAX	64	   /* requests of one loop that wait for I/O */
#define KEPT_BYTES_MAX	(4u << 20) /* of writes: more would only leave the processors' caches */
#define STOP_PAUSE	1000000	   /* nanoseconds between looks for requests at the end */
#define THREADS_DEFAULT 4
#define RECEIVE_ALL_MAX 4096 /* requests: who sends more all the time must not keep us forever */

enum go { GO_WAIT, GO_SERVE, GO_HOME };

struct session {
	const struct mount_options *options;
	struct fuse_session *fuse;
	struct tree_look look;
	struct worker workers[MOUNT_MAX_THREADS];
	unsigned count; /* of workers */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned ready; /* workers that have opened, or failed to */
	enum go go;
	bool stopping;
	bool initialised, announced; /* atomic */
	int pidfile;
	char *mounted_at; /* absolute */
	bool detached;	  /* by a signal */
	enum mount_status status;
};

static __thread struct worker *this_worker;

struct worker *worker_self(void)
{
	return this_worker;
}

/* ---- serving ---- */

struct start {
	struct worker *worker;
	unsigned *counter;
	void (*fn)(void *arg);
	void *arg;
};

static void wake_receiver(struct worker *w)
{
	if (w->receiver)
		co_wake(w->receiver);
	w->receiver = NULL;
}

static void request_main(void *arg)
{
	struct start s = *(struct start *)arg;

	s.fn(s.arg);
	--*s.counter;
	wake_receiver(s.worker);
}

static void start(struct worker *w, unsigned *counter, void (*fn)(void *arg), void *arg)
{
	/* The coroutine runs at once and copies this before its first yield. */
	struct start s = {w, counter, fn, arg};

	++*counter;
	co_spawn(request_main, &s);
}

void worker_start(struct worker *w, void (*fn)(void *arg), void *arg)
{
	start(w, &w->in_flight, fn, arg);
}

void worker_start_aside(struct worker *w, void (*fn)(void *arg), void *arg)
{
	start(w, &w->aside, fn, arg);
}

void worker_lift_limit(struct worker *w, bool on)
{
	w->unlimited += on ? 1 : -1;
	wake_receiver(w);
}

void worker_waits_for_kernel(struct worker *w)
{
	w->with_kernel++;
	worker_lift_limit(w, true);
}

void worker_goes_on(struct worker *w)
{
	w->with_kernel--;
	worker_lift_limit(w, false);
}

static void wait_for_change(struct worker *w)
{
	w->receiver = co_self();
	co_yield();
}

/* Until there is room for one more request in flight. */
static void wait_for_room(struct worker *w)
{
	while ((w->in_flight >= IN_FLIGHT_MAX || w->kept_bytes >= KEPT_BYTES_MAX) && !w->unlimited)
		wait_for_change(w);
}

static void stop_worker(void *arg)
{
	struct worker *w = arg;

	w->stop = true;
	watch_cancel(w->watch);
	wake_receiver(w);
}

/* Makes every worker that serves stop. From any of their threads. */
static void session_stop(struct session *s)
{
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; !s->stopping && i < s->count; i++)
		if (s->workers[i].serving)
			loop_post(s->workers[i].loop, stop_worker, &s->workers[i]);
	s->stopping = true;
	pthread_mutex_unlock(&s->lock);
}

/* From now on exactly one stop_worker will come. false: stop was said before. */
static bool begin_serving(struct worker *w)
{
	struct session *s = w->session;

	pthread_mutex_lock(&s->lock);
	w->serving = !s->stopping;
	pthread_mutex_unlock(&s->lock);
	return w->serving;
}

void session_initialised(struct session *s)
{
	__atomic_store_n(&s->initialised, true, __ATOMIC_RELEASE);
}

void session_lost_write(struct session *s)
{
	if (s->detached)
		s->status = MOUNT_FAILED;
}

bool session_is_writable(const struct session *s)
{
	return s->look.writable;
}

static void write_pid(struct session *s)
{
	char text[24];
	int len = g_snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (s->pidfile < 0)
		return;
	if (write(s->pidfile, text, (size_t)len) != len)
		log_message("%s: %s", s->options->pidfile, g_strerror(errno));
	close(s->pidfile);
	s->pidfile = -1;
}

static void say_ready(struct session *s)
{
	write_pid(s);
	daemonize_ready();
}

/*
 * The kernel made the root before it knew anything of it, and with its write-back cache it takes no
 * size from us later unless it is told so.
 */
static void announce_single_file(void *arg)
{
	struct session *s = arg;

	resized_tell(s->workers[0].tree);
	say_ready(s);
}

/* INIT was answered: the files are there. */
static void announce(struct session *s)
{
	if (!__atomic_load_n(&s->initialised, __ATOMIC_ACQUIRE) ||
	    __atomic_exchange_n(&s->announced, true, __ATOMIC_ACQ_REL))
		return;
	bdi_tune(s->options->mountpoint, session_is_writable(s));
	if (session_is_writable(s))
		resized_begin(s->mounted_at, s->look.single_file);
	if (session_is_writable(s) && s->look.single_file)
		worker_start_aside(worker_self(), announce_single_file, s);
	else
		say_ready(s);
}

/* Receives one request and begins to answer it. */
static ssize_t take_request(struct worker *w)
{
	struct fuse_buf buf = {0};
	ssize_t n;

	/* A write in flight may have kept the last one. */
	if (!w->buffer)
		w->buffer = receive_buffer_get();
	if (!w->buffer)
		return -ENOMEM;
	n = receive_request(fuse_session_fd(w->session->fuse), w->buffer);
	if (n < 0)
		return n;
	buf.mem = w->buffer;
	buf.size = (size_t)n;
	fuse_session_process_buf(w->session->fuse, &buf);
	return n;
}

void worker_receive_all(struct worker *w)
{
	for (unsigned n = 1; n < RECEIVE_ALL_MAX && take_request(w) >= 0; n++)
		if (n % 64 == 0)
			co_relax();
}

/* Takes requests until the mount is gone or stop is said. */
static void receive(struct worker *w)
{
	struct session *s = w->session;
	unsigned since_pause = 0;

	if (!begin_serving(w))
		return;
	/* What a request in flight waits for is answered even after stop was said. */
	while (!w->stop || w->with_kernel) {
		ssize_t n = take_request(w);

		if (n == -EAGAIN) {
			since_pause = 0;
			if (w->stop)
				co_sleep_ns(STOP_PAUSE);
			else if (watch_wait(w->watch) == -ECANCELED && !w->with_kernel)
				break;
			continue;
		}
		if (n < 0)
			break;
		if (!__atomic_load_n(&s->announced, __ATOMIC_RELAXED))
			announce(s);
		wait_for_room(w);
		/* Others of this loop, such as finished I/O, must get their turn. */
		if (++since_pause >= (w->in_flight ? 4 : 64)) {
			since_pause = 0;
			co_relax();
		}
	}
	session_stop(s);
	events_end();
	if (w->number == 0) {
		control_hold_end_all();
		control_commit_end();
	}
	/* The loop must not end before the call that was posted to it. */
	while (!w->stop)
		wait_for_change(w);
	while (w->in_flight || w->aside)
		wait_for_change(w);
}

static bool make_watch(struct worker *w, GError **error)
{
	w->watch = watch_new(fuse_session_fd(w->session->fuse), POLLIN, true, error);
	return w->watch;
}

/* ---- opening ---- */

static bool open_worker(struct worker *w, GError **error)
{
	struct session *s = w->session;

	w->img = open_mounted(s->options, s->count, w->number == 0, &w->gate, error);
	return w->img;
}

static bool plant_tree(struct worker *w, GError **error)
{
	w->tree = tree_new(w->img, w->session->options->snapshot, &w->session->look, error);
	return w->tree;
}

static void close_worker(struct worker *w)
{
	tree_free(w->tree);
	image_unref(w->img);
	gate_free(w->gate);
	watch_free(w->watch);
	if (w->buffer)
		receive_buffer_put(w->buffer);
	receive_thread_end();
	data_thread_end();
	w->tree = NULL;
	w->img = NULL;
	w->watch = NULL;
	w->buffer = NULL;
}

/* ---- the other workers ---- */

static bool wait_for_go(struct worker *w)
{
	struct session *s = w->session;
	bool serve;

	pthread_mutex_lock(&s->lock);
	s->ready++;
	pthread_cond_broadcast(&s->changed);
	while (s->go == GO_WAIT)
		pthread_cond_wait(&s->changed, &s->lock);
	serve = s->go == GO_SERVE;
	pthread_mutex_unlock(&s->lock);
	return serve;
}

static int worker_main(void *arg)
{
	struct worker *w = arg;
	struct session *s = w->session;
	bool good = open_worker(w, NULL) && open_same_chain(w->img, s->workers[0].img) &&
		    plant_tree(w, NULL);

	/* One loop fewer is no failure: the first one serves all. */
	if (wait_for_go(w) && good && make_watch(w, NULL))
		receive(w);
	return 0;
}

static void *worker_thread(void *arg)
{
	struct worker *w = arg;
	struct loop *loop = loop_new(NULL);

	this_worker = w;
	if (!loop) {
		wait_for_go(w);
		return NULL;
	}
	w->loop = loop;
	loop_run(loop, worker_main, w);
	close_worker(w);
	loop_free(loop);
	return NULL;
}

static void start_workers(struct session *s)
{
	for (unsigned i = 1; i < s->count; i++) {
		struct worker *w = &s->workers[i];

		w->thread = g_thread_try_new("imgfs", worker_thread, w, NULL);
		if (!w->thread) {
			pthread_mutex_lock(&s->lock);
			s->ready++;
			pthread_mutex_unlock(&s->lock);
		}
	}
}

static void wait_until_opened(struct session *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->ready < s->count - 1)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static void say_go(struct session *s, enum go go)
{
	pthread_mutex_lock(&s->lock);
	s->go = go;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static void join_workers(struct session *s)
{
	for (unsigned i = 1; i < s->count; i++)
		if (s->workers[i].thread)
			g_thread_join(s->workers[i].thread);
}

/* ---- the end by a signal ---- */

/* Without a wait for those who have files open there, as umount -l. */
static int detach_mount(void *arg)
{
	struct session *s = arg;
	const char *argv[] = {"fusermount3", "-u", "-z", "-q", "--", s->mounted_at, NULL};
	int status;

	if (umount2(s->mounted_at, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL,
			  &status, NULL))
		return -ENOENT;
	return g_spawn_check_wait_status(status, NULL) ? 0 : -EBUSY;
}

/*
 * A signal ends a writable mount only after the kernel has sent what it kept of the files: it does
 * so for all that nobody has open when the mount goes, and for the others when it is asked.
 */
static void take_leave(struct session *s)
{
	pool_run_blocking(detach_mount, s);
	s->detached = true;
	control_finish();
	kernel_settle();
}

static void leave(void *arg)
{
	struct session *s = arg;

	control_hold_end_all();
	control_commit_end();
	if (session_is_writable(s))
		take_leave(s);
	session_stop(s);
}

/* Serves on the main thread with an eye on signals. */
static void serve(struct session *s)
{
	struct signals *signals = signals_watch(leave, s);

	receive(&s->workers[0]);
	signals_unwatch(signals);
}

/* ---- mounting ---- */

/*
 * Without allow_other only the user who mounts comes here, so the files are
 * theirs. With it others come too: then owner, group and mode of the image file decide, as
 * they would without us.
 */
static void set_look(struct session *s, struct image *img, bool single_file)
{
	const struct mount_options *o = s->options;
	const struct stat *st = open_named_stat(o, img);
	mode_t mode = o->allow_other ? st->st_mode & 0444 : 0400;

	mode &= ~(mode_t)o->umask;
	s->look.uid = o->uid != UINT64_MAX ? (uid_t)o->uid : o->allow_other ? st->st_uid : getuid();
	s->look.gid = o->gid != UINT64_MAX ? (gid_t)o->gid : o->allow_other ? st->st_gid : getgid();
	s->look.file_mode = mode;
	s->look.disk_mode =
		mode | ((o->allow_other ? st->st_mode & 0222 : 0200) & ~(mode_t)o->umask);
	s->look.dir_mode = mode | mode >> 2; /* who may read may enter */
	s->look.single_file = single_file;
	s->look.writable = o->mode != MODE_RO;
	s->look.scratch = o->mode == MODE_SCRATCH;
	s->look.control_uid = o->uid != UINT64_MAX ? (uid_t)o->uid : getuid();
	s->look.control_gid = o->gid != UINT64_MAX ? (gid_t)o->gid : getgid();
}

static bool mount_it(struct session *s, GError **error)
{
	const struct mount_options *o = s->options;

	s->fuse = mounting_begin(o, &fs_operations, sizeof(fs_operations), s, error);
	if (!s->fuse)
		return false;
	if (session_is_writable(s)) {
		s->mounted_at = g_canonicalize_filename(o->mountpoint, NULL);
		kernel_begin(s->fuse);
		guard_begin(s->mounted_at);
		if (s->look.single_file)
			kernel_knows(FUSE_ROOT_ID);
	}
	return true;
}

static void unmount_it(struct session *s)
{
	if (!s->fuse)
		return;
	kernel_end();
	resized_end();
	mounting_end(s->fuse, s->detached);
	s->fuse = NULL;
	guard_end();
}

static bool open_pidfile(struct session *s, GError **error)
{
	const char *name = s->options->pidfile;

	if (!name)
		return true;
	s->pidfile = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (s->pidfile < 0)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "%s: %s", name,
			    g_strerror(errno));
	return s->pidfile >= 0;
}

/* ---- the whole ---- */

static bool set_up(struct session *s, GError **error)
{
	struct worker *w = &s->workers[0];
	bool single_file;

	if (!mounting_judge(s->options, &single_file, error) || !open_pidfile(s, error) ||
	    !open_worker(w, error))
		return false;
	set_look(s, w->img, single_file);
	status_begin(mount_mode_name(s->options->mode), s->options->image, s->options->overlay,
		     s->options->mountpoint);
	if (!plant_tree(w, error))
		return false;
	start_workers(s);
	if (!mount_it(s, error) || !make_watch(w, error))
		return false;
	wait_until_opened(s);
	return true;
}

/* What was written since the last fsync; nobody else is left who could be told that it failed. */
static void flush_at_last(struct session *s)
{
	struct image *img = s->workers[0].img;
	int ret = session_is_writable(s) ? image_settle(img) : 0;

	if (ret == 0)
		return;
	log_message("%s: what was written last could not be flushed: %s", img->filename,
		    image_cause(img, ret));
	s->status = MOUNT_FAILED;
}

static int main_worker(void *arg)
{
	struct session *s = arg;
	g_autoptr(GError) error = NULL;

	if (set_up(s, &error)) {
		say_go(s, GO_SERVE);
		serve(s);
		flush_at_last(s);
		if (!__atomic_load_n(&s->announced, __ATOMIC_ACQUIRE))
			mounting_failed(&error, s->options, "unmounted before it was ready");
	} else {
		say_go(s, GO_HOME);
	}
	join_workers(s);
	unmount_it(s);
	overlay_end(error != NULL);
	if (error)
		s->status = (enum mount_status)daemonize_failed(MOUNT_FAILED, error->message);
	return 0;
}

static unsigned worker_count(const struct mount_options *o)
{
	unsigned processors = g_get_num_processors();

	/* What is written is seen by all: one loop has the one image. */
	if (o->single || o->mode != MODE_RO)
		return 1;
	if (o->max_threads)
		return (unsigned)o->max_threads;
	return MIN(processors, THREADS_DEFAULT);
}

int session_main(const struct mount_options *options)
{
	g_autoptr(GError) error = NULL;
	struct session s = {.options = options, .pidfile = -1};

	s.count = worker_count(options);
	/* A loop for every processor: the kernel's requests keep all of them busy. */
	codec_set_in_place(s.count > 1 && s.count >= g_get_num_processors());
	pthread_mutex_init(&s.lock, NULL);
	pthread_cond_init(&s.changed, NULL);
	for (unsigned i = 0; i < s.count; i++) {
		s.workers[i].session = &s;
		s.workers[i].number = i;
	}
	signals_block();
	/* Each loop opens every file of the chain. */
	file_allow_many();
	this_worker = &s.workers[0];
	s.workers[0].loop = loop_new(&error);
	if (!s.workers[0].loop)
		return daemonize_failed(MOUNT_SYSTEM, error->message);
	loop_run(s.workers[0].loop, main_worker, &s);
	close_worker(&s.workers[0]);
	loop_free(s.workers[0].loop);
	pool_shutdown();
	if (s.pidfile >= 0)
		close(s.pidfile);
	if (options->pidfile && s.announced)
		unlink(options->pidfile);
	data_clear();
	text_clear();
	attr_clear();
	coherence_clear();
	events_clear();
	handles_clear();
	control_commit_clear();
	status_clear();
	log_clear();
	codec_cache_clear();
	mounting_clear();
	pthread_mutex_destroy(&s.lock);
	pthread_cond_destroy(&s.changed);
	g_free(s.mounted_at);
	return s.status;
}
