/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files: every case on every engine and cache mode that the kernel allows. */
#include <config.h>

#include "tests/unit/in-loop.h"

#include "io/co.h"
#include "io/file-fault.h"
#include "io/file.h"
#include "io/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME "file"

static const struct setup {
	const char *name;
	enum aio_engine aio;
	enum cache_mode cache;
} setups[] = {
	{"threads, writeback", AIO_THREADS, CACHE_WRITEBACK},
	{"threads, none", AIO_THREADS, CACHE_NONE},
	{"native, none", AIO_NATIVE, CACHE_NONE},
	{"native, directsync", AIO_NATIVE, CACHE_DIRECTSYNC},
	{"io_uring, writeback", AIO_IO_URING, CACHE_WRITEBACK},
	{"io_uring, none", AIO_IO_URING, CACHE_NONE},
	{"auto, writethrough", AIO_AUTO, CACHE_WRITETHROUGH},
	{"auto, unsafe", AIO_AUTO, CACHE_UNSAFE},
};

static struct file *open_with(const struct setup *s, unsigned flags)
{
	struct file_options o = {.flags = flags, .cache = s->cache, .aio = s->aio};
	GError *error = NULL;
	struct file *f = file_open(NAME, &o, &error);

	if (!f) {
		printf("%s: skipped: %s\n", s->name, error->message);
		g_error_free(error);
	}
	return f;
}

static struct file *create_with(const struct setup *s)
{
	unlink(NAME);
	return open_with(s, FILE_RDWR | FILE_CREATE | FILE_EXCL);
}

struct each {
	void (*fn)(struct file *f);
	unsigned ran;
};

static int run_each(void *arg)
{
	struct each *e = arg;

	for (size_t i = 0; i < G_N_ELEMENTS(setups); i++) {
		struct file *f = create_with(&setups[i]);

		if (!f)
			continue;
		e->fn(f);
		file_unref(f);
		e->ran++;
	}
	unlink(NAME);
	return 0;
}

/* fn with a new, empty, writable file of every setup. */
static void with_each(void (*fn)(struct file *f))
{
	struct each e = {.fn = fn};

	in_loop(run_each, &e);
	assert_true(e.ran >= 2); /* threads are always there */
}

static void fill(uint8_t *buf, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(seed + i * 7 + i / 251) | 1;
}

static bool all_zero(const uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (buf[i])
			return false;
	return true;
}

/* --- a file is an array of bytes --- */

#define MODEL_MAX (300 * 1000)
struct model {
	struct file *f;
	GRand *rand;
	uint8_t *bytes, *buf; /* MODEL_MAX each */
	uint64_t size;
};

static uint64_t random_below(struct model *m, uint64_t n)
{
	return n < 2 ? 0 : (uint64_t)g_rand_int_range(m->rand, 0, (gint32)n);
}

/* Small and large, odd and round. */
static uint64_t random_length(struct model *m, uint64_t max)
{
	static const uint64_t limits[] = {10, 700, 5000, 100000};
	uint64_t len = 1 + random_below(m, MIN(limits[random_below(m, 4)], max));

	if (random_below(m, 3) == 0)
		len = (len + 4095) & ~UINT64_C(4095);
	return CLAMP(len, 1, max);
}

static uint64_t random_offset(struct model *m)
{
	uint64_t offset = random_below(m, MODEL_MAX - 1);

	return random_below(m, 3) == 0 ? offset & ~UINT64_C(4095) : offset;
}

/* Cuts buf into odd pieces. */
static int random_vector(struct model *m, uint8_t *buf, size_t len, struct iovec *iov, int slots)
{
	int n = 0;

	while (len > 0) {
		size_t piece = n == slots - 1 ? len : random_below(m, len + 1);

		iov[n++] = (struct iovec){.iov_base = buf, .iov_len = piece};
		buf += piece;
		len -= piece;
	}
	return n;
}

static void model_read(struct model *m, uint64_t offset, uint64_t len)
{
	struct iovec iov[10];
	int n = random_vector(m, m->buf, len, iov, 10);

	memset(m->buf, 0xee, len);
	assert_int_equal(file_readv(m->f, offset, iov, n), 0);
	assert_memory_equal(m->buf, m->bytes + offset, len);
}

static void model_write(struct model *m, uint64_t offset, uint64_t len)
{
	struct iovec iov[10];
	int n = random_vector(m, m->bytes + offset, len, iov, 10);

	fill(m->bytes + offset, len, g_rand_int(m->rand));
	assert_int_equal(file_writev(m->f, offset, iov, n), 0);
	m->size = MAX(m->size, offset + len);
}

static void model_truncate(struct model *m, uint64_t size)
{
	assert_int_equal(file_truncate(m->f, size), 0);
	if (size < m->size)
		memset(m->bytes + size, 0, m->size - size);
	m->size = size;
}

static void model_zero(struct model *m, uint64_t offset, uint64_t len, bool punch)
{
	int ret = punch ? file_punch(m->f, offset, len) : file_zero(m->f, offset, len);

	if (ret == -EOPNOTSUPP)
		return;
	assert_int_equal(ret, 0);
	if (punch)
		len = offset < m->size ? MIN(len, m->size - offset) : 0;
	memset(m->bytes + offset, 0, len);
	if (!punch)
		m->size = MAX(m->size, offset + len);
}

static void model_extents(struct model *m)
{
	uint64_t offset = 0, run;

	while (offset < MODEL_MAX) {
		bool data;

		assert_int_equal(file_extent(m->f, offset, MODEL_MAX - offset, &data, &run), 0);
		assert_in_range(run, 1, MODEL_MAX - offset);
		if (!data)
			assert_true(all_zero(m->bytes + offset, run));
		offset += run;
	}
}

static void model_step(struct model *m)
{
	uint64_t offset = random_offset(m), len = random_length(m, MODEL_MAX - offset);

	switch (random_below(m, 12)) {
	case 0:
		model_truncate(m, offset);
		break;
	case 1:
	case 2:
		model_zero(m, offset, len, random_below(m, 2));
		break;
	case 3:
		model_extents(m);
		break;
	case 4:
		assert_int_equal(file_flush(m->f), 0);
		break;
	case 5:
	case 6:
	case 7:
	case 8:
		model_write(m, offset, len);
		break;
	default:
		model_read(m, offset, len);
	}
	assert_int_equal(file_size(m->f), m->size);
}

static void model_run(struct file *f, unsigned steps)
{
	struct model m = {.f = f, .rand = g_rand_new_with_seed(steps)};

	m.bytes = g_malloc0(MODEL_MAX);
	m.buf = g_malloc0(MODEL_MAX);
	for (unsigned i = 0; i < steps; i++)
		model_step(&m);
	model_read(&m, 0, MODEL_MAX);
	assert_int_equal(file_refresh_size(f), 0);
	assert_int_equal(file_size(f), m.size);
	assert_true(file_allocated(f) >= 0);
	g_free(m.buf);
	g_free(m.bytes);
	g_rand_free(m.rand);
}

static void model_of(struct file *f)
{
	model_run(f, file_alignment(f) > 1 ? 300 : 600);
}

static void test_random(void **state)
{
	with_each(model_of);
}

static int random_memory(void *arg)
{
	struct file *inner = file_new_memory("memory", NULL, 0), *f = file_new_fault(inner);

	file_fault_yield(f, true);
	model_run(inner, 1000);
	file_truncate(f, 0);
	model_run(f, 1000);
	file_unref(f);
	file_unref(inner);
	return 0;
}

static void test_memory(void **state)
{
	in_loop(random_memory, NULL);
	random_memory(NULL); /* nor does it need a coroutine */
}

static void test_outside_of_coroutines(void **state)
{
	struct each e = {.fn = model_of};

	run_each(&e);
}

/* --- parallel requests --- */

#define PART	   ((size_t)777)
#define PARTS	   1000
#define PART_START UINT64_C(12345)

struct part {
	struct file *f;
	size_t i;
};

static int part_write(void *arg)
{
	struct part p = *(struct part *)arg;
	uint8_t buf[PART];

	fill(buf, PART, p.i);
	return file_write(p.f, PART_START + p.i * PART, buf, PART);
}

static int part_read(void *arg)
{
	struct part p = *(struct part *)arg;
	uint8_t buf[PART], want[PART];
	int ret = file_read(p.f, PART_START + p.i * PART, buf, PART);

	fill(want, PART, p.i);
	if (ret == 0)
		assert_memory_equal(buf, want, PART);
	return ret;
}

/* Every part shares blocks with its neighbours, and many make the file longer. */
static void in_parallel(struct file *f)
{
	struct co_group g;
	uint8_t head[PART_START];

	co_group_init(&g, 300);
	for (size_t i = 0; i < PARTS; i++) {
		struct part p = {f, i * 7 % PARTS};

		co_group_spawn(&g, part_write, &p);
	}
	assert_int_equal(co_group_wait(&g), 0);
	assert_int_equal(file_refresh_size(f), 0);
	assert_int_equal(file_size(f), PART_START + PARTS * PART);
	for (size_t i = 0; i < PARTS; i++) {
		struct part p = {f, i * 13 % PARTS};

		co_group_spawn(&g, part_read, &p);
	}
	assert_int_equal(co_group_wait(&g), 0);
	assert_int_equal(file_read(f, 0, head, sizeof(head)), 0);
	assert_true(all_zero(head, sizeof(head)));
}

static void test_parallel(void **state)
{
	with_each(in_parallel);
}

/* --- the ends of things --- */

static void past_the_end(struct file *f)
{
	static const uint64_t far_away[] = {5000,      UINT64_C(1) << 40, INT64_MAX - 50,
					    INT64_MAX, UINT64_MAX - 3,	  UINT64_MAX};
	uint8_t buf[9000];
	struct iovec iov[2] = {{buf, 10}, {buf + 10, 90}};

	assert_int_equal(file_write(f, 0, "data", 4), 0);
	for (size_t i = 0; i < G_N_ELEMENTS(far_away); i++) {
		memset(buf, 1, sizeof(buf));
		assert_int_equal(file_read(f, far_away[i], buf, 100), 0);
		assert_true(all_zero(buf, 100));
		memset(buf, 1, sizeof(buf));
		assert_int_equal(file_readv(f, far_away[i], iov, 2), 0);
		assert_true(all_zero(buf, 100));
	}
	memset(buf, 1, sizeof(buf));
	assert_int_equal(file_read(f, 2, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, "ta", 2);
	assert_true(all_zero(buf + 2, sizeof(buf) - 2));
	assert_int_equal(file_write(f, INT64_MAX, "x", 1), -EFBIG);
	assert_int_equal(file_write(f, UINT64_MAX, "x", 1), -EFBIG);
	assert_int_equal(file_truncate(f, UINT64_MAX), -EFBIG);
	assert_int_equal(file_size(f), 4);
	assert_int_equal(file_write(f, 9, NULL, 0), 0);
	assert_int_equal(file_size(f), 4);
}

static void test_past_the_end(void **state)
{
	with_each(past_the_end);
}

static void cut_under_us(struct file *f)
{
	uint8_t buf[40000], old[40000];
	bool is_data;
	uint64_t run;

	fill(old, sizeof(old), 3);
	assert_int_equal(file_write(f, 0, old, sizeof(old)), 0);
	assert_int_equal(truncate(NAME, 10001), 0);
	/* Zeroes instead of what was there would be taken for data. */
	assert_int_equal(file_read(f, 0, buf, sizeof(buf)), -EIO);
	assert_int_equal(file_read(f, 20000, buf, 10), -EIO);
	assert_int_equal(file_read_nowait(f, 20000, buf, 10), 0);
	assert_int_equal(file_extent(f, 20000, 10, &is_data, &run), -EIO);
	assert_int_equal(file_read(f, 0, buf, 10001), 0);
	assert_memory_equal(buf, old, 10001);
	assert_int_equal(file_size(f), 40000); /* as we know it */
	assert_int_equal(file_refresh_size(f), 0);
	assert_int_equal(file_size(f), 10001);
	assert_int_equal(file_read(f, 0, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, old, 10001);
	assert_true(all_zero(buf + 10001, sizeof(buf) - 10001));
}

static void test_cut_under_us(void **state)
{
	with_each(cut_under_us);
}

static void many_buffers(struct file *f)
{
	enum { N = 3000 };
	uint8_t *a = g_malloc(2 * N), *b = g_malloc0(2 * N);
	struct iovec *iov = g_new0(struct iovec, N);

	fill(a, 2 * N, 9);
	for (int i = 0; i < N; i++)
		iov[i] = (struct iovec){a + 2 * i, i % 5 ? 2 : 0}; /* some are empty */
	assert_int_equal(file_writev(f, 3, iov, N), 0);
	assert_int_equal(file_size(f), 3 + 2 * (N - N / 5));
	for (int i = 0; i < N; i++)
		iov[i].iov_base = b + 2 * i;
	assert_int_equal(file_readv(f, 3, iov, N), 0);
	for (int i = 0; i < N; i++)
		if (i % 5)
			assert_memory_equal(a + 2 * i, b + 2 * i, 2);
		else
			assert_true(all_zero(b + 2 * i, 2));
	g_free(iov);
	g_free(b);
	g_free(a);
}

static void test_many_buffers(void **state)
{
	with_each(many_buffers);
}

static void holes(struct file *f)
{
	const uint64_t mib = 1 << 20;
	uint8_t buf[65536];
	bool data;
	uint64_t run;

	memset(buf, 5, sizeof(buf));
	assert_int_equal(file_truncate(f, 8 * mib), 0);
	assert_int_equal(file_write(f, 4 * mib, buf, sizeof(buf)), 0);
	assert_int_equal(file_extent(f, 0, 8 * mib, &data, &run), 0);
	if (data)
		return; /* this file system cannot tell */
	assert_int_equal(run, 4 * mib);
	assert_int_equal(file_extent(f, mib, mib, &data, &run), 0);
	assert_false(data);
	assert_int_equal(run, mib);
	assert_int_equal(file_extent(f, 4 * mib + 7, 8 * mib, &data, &run), 0);
	assert_true(data);
	assert_int_equal(run, sizeof(buf) - 7);
	assert_int_equal(file_extent(f, 5 * mib, 100 * mib, &data, &run), 0);
	assert_false(data);
	assert_int_equal(run, 100 * mib); /* beyond the end too */
	/* What was remembered does not outlive a change. */
	assert_int_equal(file_write(f, 6 * mib, buf, 4096), 0);
	assert_int_equal(file_extent(f, 6 * mib, 10, &data, &run), 0);
	assert_true(data);
	assert_true(file_allocated(f) < (int64_t)mib);
	assert_int_equal(file_extent(f, 0, 0, &data, &run), -EINVAL);
}

static void test_holes(void **state)
{
	with_each(holes);
}

/* --- interruptions --- */

static volatile sig_atomic_t interruptions;

static void interrupt(int signo)
{
	interruptions++;
}

static void interrupted(struct file *f)
{
	struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
	struct sigaction action = {.sa_handler = interrupt}; /* no SA_RESTART */

	interruptions = 0;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	in_parallel(f);
	assert_int_equal(file_truncate(f, 0), 0);
	model_run(f, 100);
	while (interruptions == 0)
		co_sleep_ns(100000);
	setitimer(ITIMER_REAL, &never, NULL);
	signal(SIGALRM, SIG_IGN); /* one may still be on its way */
}

static void test_interruptions(void **state)
{
	with_each(interrupted);
}

/* --- errors --- */

static void too_big(struct file *f)
{
	struct rlimit old, limit;
	uint8_t *buf = g_malloc0(100000);

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	limit = old;
	limit.rlim_cur = 65536;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	/* Also after a short write that went well. */
	assert_true(file_write(f, 0, buf, 100000) < 0);
	assert_int_equal(file_write(f, 200000, buf, 10), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(file_write(f, 0, buf, 100000), 0);
	g_free(buf);
}

static void test_too_big(void **state)
{
	with_each(too_big);
}

static void expect_refusal(const char *path, const struct file_options *o, const char *message)
{
	GError *error = NULL;

	assert_null(file_open(path, o, &error));
	assert_non_null(error);
	assert_string_equal(error->message, message);
	g_error_free(error);
}

static void test_refusals(void **state)
{
	struct file_options o = {0}, regular = {.flags = FILE_REGULAR_ONLY},
			    rdwr = {.flags = FILE_RDWR},
			    excl = {.flags = FILE_RDWR | FILE_CREATE | FILE_EXCL},
			    native = {.aio = AIO_NATIVE};
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
	struct stat st;
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	signal(SIGALRM, SIG_DFL);
	alarm(20); /* nothing of this may block */
	unlink("fifo");
	unlink("socket");
	assert_int_equal(mkfifo("fifo", 0600), 0);
	assert_int_equal(bind(s, (struct sockaddr *)&address, sizeof(address)), 0);
	close(s);
	assert_true(g_file_set_contents(NAME, "x", 1, NULL));
	expect_refusal("none", &o, "Could not open 'none': No such file or directory");
	expect_refusal("no/ne", &rdwr, "Could not open 'no/ne': No such file or directory");
	expect_refusal(".", &o, "Could not open '.': it is a directory");
	expect_refusal("fifo", &rdwr,
		       "Could not open 'fifo': neither a regular file nor a block device");
	expect_refusal("socket", &o,
		       "Could not open 'socket': neither a regular file nor a block device");
	expect_refusal("/dev/null", &o,
		       "Could not open '/dev/null': neither a regular file nor a block device");
	expect_refusal("fifo", &regular, "Could not open 'fifo': not a regular file");
	expect_refusal(NAME, &excl, "Could not open '" NAME "': File exists");
	expect_refusal(NAME, &native,
		       "Could not open '" NAME "': aio=native was specified, but it requires "
		       "cache.direct=on, which was not specified.");
	assert_int_equal(file_lookup("none", &st), -ENOENT);
	assert_int_equal(file_lookup(".", &st), -EISDIR);
	assert_int_equal(file_lookup("fifo", &st), -ENOTSUP);
	assert_int_equal(file_lookup(NAME, &st), 0);
	assert_int_equal(st.st_size, 1);
	assert_int_equal(file_sync_directory(NAME), 0);
	assert_int_equal(file_sync_directory("none/x"), -ENOENT);
	unlink("fifo");
	unlink("socket");
	unlink(NAME);
	alarm(0);
}

static int read_only(void *arg)
{
	struct file_options o = {0};
	char buf[4];
	struct stat before, after;

	assert_true(g_file_set_contents(NAME, "abc", 3, NULL));
	assert_int_equal(stat(NAME, &before), 0);
	struct file *f = file_open(NAME, &o, NULL);
	assert_false(file_writable(f));
	assert_string_equal(file_name(f), NAME);
	assert_int_equal(file_stat(f)->st_ino, before.st_ino);
	assert_true(file_fd(f) >= 0);
	assert_int_equal(file_read(f, 0, buf, 4), 0);
	assert_memory_equal(buf, "abc", 4);
	assert_int_equal(file_write(f, 0, "x", 1), -EBADF);
	assert_int_equal(file_truncate(f, 0), -EBADF);
	assert_int_equal(file_punch(f, 0, 1), -EBADF);
	assert_int_equal(file_zero(f, 0, 1), -EBADF);
	assert_int_equal(file_allocate(f, 0, 10), -EBADF);
	assert_int_equal(file_copy_range(f, 0, f, 10, 1), -EBADF);
	assert_int_equal(file_flush(f), 0);
	assert_ptr_equal(file_ref(f), f);
	file_unref(f);
	file_unref(f);
	file_unref(NULL);
	assert_int_equal(stat(NAME, &after), 0);
	assert_int_equal(after.st_size, 3);
	assert_int_equal(after.st_atim.tv_nsec, before.st_atim.tv_nsec);
	assert_int_equal(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	unlink(NAME);
	return 0;
}

static void test_read_only(void **state)
{
	in_loop(read_only, NULL);
}

static int faults(void *arg)
{
	struct file *inner = file_new_memory("memory", "0123456789", 10);
	struct file *f = file_new_fault(inner);
	struct fault_plan plan = {.kinds = 1 << FAULT_READ, .nth = 3, .error = ENOSPC};
	char buf[10];

	file_fault_set(f, FAULT_READ, 2, EIO, false);
	assert_int_equal(file_read(f, 0, buf, 10), 0);
	assert_int_equal(file_read_nowait(f, 0, buf, 10), 0);
	assert_int_equal(file_read(f, 0, buf, 10), -EIO);
	assert_int_equal(file_read(f, 0, buf, 10), 0);
	assert_int_equal(file_read_nowait(f, 0, buf, 10), 10);
	assert_int_equal(file_fault_count(f, FAULT_READ), 3);

	file_fault_set(f, FAULT_WRITE, 1, ENOSPC, true);
	assert_int_equal(file_write(f, 50, "x", 1), -ENOSPC);
	assert_int_equal(file_write(f, 50, "x", 1), -ENOSPC);
	assert_int_equal(file_size(f), 10);
	file_fault_set(f, FAULT_WRITE, 0, 0, false);
	assert_int_equal(file_write(f, 50, "x", 1), 0);
	assert_int_equal(file_size(f), 51);

	/* What did not change needs no second flush. */
	assert_int_equal(file_flush(f), 0);
	assert_int_equal(file_flush(f), 0);
	assert_int_equal(file_fault_count(f, FAULT_FLUSH), 1);
	/* One failed flush, and no later one may say that all is well. */
	file_fault_set(f, FAULT_FLUSH, 1, EIO, false);
	assert_int_equal(file_write(f, 50, "x", 1), 0);
	assert_int_equal(file_flush(f), -EIO);
	assert_int_equal(file_flush(f), -EIO);
	assert_int_equal(file_fault_count(f, FAULT_FLUSH), 2);

	/* The third operation of several files. */
	file_fault_follow(f, &plan);
	assert_int_equal(file_read(f, 0, buf, 10), 0);
	assert_int_equal(file_write(f, 50, "x", 1), 0);
	assert_int_equal(file_read(f, 0, buf, 10), 0);
	assert_int_equal(file_read(f, 0, buf, 10), -ENOSPC);
	assert_int_equal(file_read(f, 0, buf, 10), 0);
	assert_int_equal(plan.count, 4);
	assert_int_equal(plan.failed, 1);
	file_fault_follow(f, NULL);

	file_fault_cut(f);
	assert_int_equal(file_write(f, 0, "y", 1), -EIO);
	assert_int_equal(file_truncate(f, 0), -EIO);
	assert_int_equal(file_punch(f, 0, 51), -EIO);
	assert_int_equal(file_read(f, 0, buf, 10), 0);
	assert_memory_equal(buf, "0123456789", 10);
	assert_int_equal(file_size(inner), 51);
	file_unref(f);
	file_unref(inner);
	return 0;
}

static void test_faults(void **state)
{
	in_loop(faults, NULL);
}

/* --- without waiting --- */

static void nowait(struct file *f)
{
	uint8_t buf[20000], want[20000];

	fill(want, sizeof(want), 1);
	assert_int_equal(file_write(f, 0, want, sizeof(want)), 0);
	memset(buf, 0, sizeof(buf));
	size_t n = file_read_nowait(f, 5, buf, 15000);
	assert_true(n <= 15000);
	assert_memory_equal(buf, want + 5, n);
	if (file_alignment(f) == 1 && n > 0) {
		assert_int_equal(n, 15000); /* it was just written: the page cache has it */
		memset(buf, 1, sizeof(buf));
		assert_int_equal(file_read_nowait(f, 19990, buf, 1000), 1000);
		assert_memory_equal(buf, want + 19990, 10);
		assert_true(all_zero(buf + 10, 990));
	}
	assert_int_equal(file_read_nowait(f, UINT64_MAX, buf, 10), 0);

	/* Not in the cache, or perhaps: never wrong. */
	assert_int_equal(file_flush(f), 0);
	posix_fadvise(file_fd(f), 0, 0, POSIX_FADV_DONTNEED);
	memset(buf, 0, sizeof(buf));
	n = file_read_nowait(f, 0, buf, sizeof(buf));
	assert_memory_equal(buf, want, n);
	posix_fadvise(file_fd(f), 0, 0, POSIX_FADV_DONTNEED);
	file_readahead(f, 0, 1 << 30);
	file_readahead(f, 1 << 30, 5);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(file_read(f, 0, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, want, sizeof(want));
}

static void test_nowait(void **state)
{
	with_each(nowait);
}

/* --- copying inside the kernel --- */

static void copies(struct file *f)
{
	uint8_t buf[50000], want[50000];
	int64_t n;

	fill(want, sizeof(want), 1);
	assert_int_equal(file_write(f, 0, want, sizeof(want)), 0);
	n = file_copy_range(f, 0, f, 131072, sizeof(want));
	if (n == -EOPNOTSUPP)
		return;
	assert_in_range(n, 1, sizeof(want));
	assert_int_equal(file_size(f), 131072 + n);
	assert_int_equal(file_read(f, 131072, buf, (size_t)n), 0);
	assert_memory_equal(buf, want, (size_t)n);
	assert_int_equal(file_copy_range(f, 0, f, 100, 40000), -EOPNOTSUPP); /* overlap */
	assert_int_equal(file_copy_range(f, 0, f, 0, 0), 0);
}

static void test_copy(void **state)
{
	with_each(copies);
}

static int truncates(void *arg)
{
	struct file_options o = {.flags = FILE_RDWR | FILE_CREATE | FILE_TRUNC};

	assert_true(g_file_set_contents(NAME, "abc", 3, NULL));
	struct file *f = file_open(NAME, &o, NULL);
	assert_non_null(f);
	assert_int_equal(file_size(f), 0);
	assert_int_equal(file_stat(f)->st_size, 0);
	int ret = file_allocate(f, 0, 100000);
	if (ret != -EOPNOTSUPP) {
		assert_int_equal(ret, 0);
		assert_int_equal(file_size(f), 100000);
		assert_true(file_allocated(f) >= 100000);
	}
	file_unref(f);
	unlink(NAME);
	return 0;
}

static void test_truncate_at_open(void **state)
{
	in_loop(truncates, NULL);
}

static void test_words(void **state)
{
	enum cache_mode mode;
	enum aio_engine engine;

	assert_true(cache_mode_parse("off", &mode) && mode == CACHE_NONE);
	assert_true(cache_mode_parse("none", &mode) && mode == CACHE_NONE);
	assert_true(cache_mode_parse("directsync", &mode) && mode == CACHE_DIRECTSYNC);
	assert_true(cache_mode_parse("writethrough", &mode) && mode == CACHE_WRITETHROUGH);
	assert_true(cache_mode_parse("writeback", &mode) && mode == CACHE_WRITEBACK);
	assert_true(cache_mode_parse("unsafe", &mode) && mode == CACHE_UNSAFE);
	assert_false(cache_mode_parse("Unsafe", &mode));
	assert_true(aio_engine_parse("threads", &engine) && engine == AIO_THREADS);
	assert_true(aio_engine_parse("native", &engine) && engine == AIO_NATIVE);
	assert_true(aio_engine_parse("io_uring", &engine) && engine == AIO_IO_URING);
	assert_false(aio_engine_parse("", &engine));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_truncate_at_open),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_outside_of_coroutines),
		cmocka_unit_test(test_parallel),
		cmocka_unit_test(test_past_the_end),
		cmocka_unit_test(test_cut_under_us),
		cmocka_unit_test(test_many_buffers),
		cmocka_unit_test(test_holes),
		cmocka_unit_test(test_interruptions),
		cmocka_unit_test(test_too_big),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_nowait),
		cmocka_unit_test(test_copy),
	};

	fail_by_abort();
	int ret = cmocka_run_group_tests(tests, NULL, NULL);
	pool_shutdown();
	return ret;
}
