/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What programs do to the files of a writable mount, at random, beside a model in memory: whatever
 * is read, through whichever file, must be what the model says.
 *
 * usage: model [-s SEED] [-n OPERATIONS] [-t SECONDS] [-g GRAIN] [-m MIN] [-M MAX] [-S FOLDER]
 *		[-x WORDS] [-w FILE:START:SIZE]... [-d MOUNT] [-b NAME]... [-l FILE] FILE
 *
 * FILE is the disk, -w a file that shows a part of it (a partition), MOUNT the mount's folder, for
 * snapshots and control files. MIN and MAX bound the sizes that truncate gives. Places are chosen
 * at multiples of GRAIN (a cluster) rather often. -x: operations to leave out, with commas. FOLDER
 * keeps the model of the disk and of each snapshot as raw files between runs. -b: an image that
 * may be committed into, as control/commit knows it, the one right below first. -l: a file that
 * shows the disk's bytes too, and cannot be written to. The first sector is
 * never written to: it has the partition table.
 */
#include "config.h"

#include "tests/mount/model.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NOTES 40

uint8_t *bytes;
uint64_t size, min_size, max_size;
struct window windows[MAX_WINDOWS];
unsigned window_count;
struct snapshot snapshots[MAX_SNAPSHOTS];
unsigned snapshot_count;
struct counts counts;
const char *base_names[MAX_BASES];
unsigned base_count;
const char *mount_dir, *exclude = "";

static uint64_t seed = 1, grain = 65536, done;
static char notes[NOTES][160];
static unsigned noted;
static const char *layer; /* NULL, or a file that shows the disk and cannot be written */
static uint8_t *buffer;	  /* MAX_LEN, aligned for O_DIRECT */

uint64_t rnd(uint64_t below)
{
	uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return below ? z % below : z;
}

bool allowed(const char *word)
{
	size_t len = strlen(word);

	for (const char *at = exclude; (at = strstr(at, word)); at += len)
		if ((at == exclude || at[-1] == ',') && (!at[len] || at[len] == ','))
			return false;
	return true;
}

void note(const char *format, ...)
{
	char *line = notes[noted++ % NOTES];
	int n = snprintf(line, sizeof(notes[0]), "%" PRIu64 ": ", done);
	va_list args;

	va_start(args, format);
	vsnprintf(line + n, sizeof(notes[0]) - (size_t)n, format, args);
	va_end(args);
	if (getenv("MODEL_VERBOSE"))
		fprintf(stderr, "%s\n", line);
}

void wrong(const char *format, ...)
{
	va_list args;

	for (unsigned i = noted > NOTES ? noted - NOTES : 0; i < noted; i++)
		fprintf(stderr, "  %s\n", notes[i % NOTES]);
	fprintf(stderr, "model: operation %" PRIu64 ": ", done);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

void same(const char *what, const uint8_t *got, const uint8_t *expect, uint64_t offset,
	  uint64_t len)
{
	uint64_t first = 0, last = len, others = 0;

	if (memcmp(got, expect, len) == 0)
		return;
	while (got[first] == expect[first])
		first++;
	while (got[last - 1] == expect[last - 1])
		last--;
	for (uint64_t i = first; i < last; i++)
		others += got[i] != expect[i];
	wrong("%s: bytes of the disk from %" PRIu64 " to %" PRIu64 " (%" PRIu64
	      " of them) are others: 0x%02x, not 0x%02x",
	      what, offset + first, offset + last, others, got[first], expect[first]);
}

/* ---- windows ------------------------------------------------------------------------------------
 */

static uint64_t window_size(const struct window *w)
{
	return w->size ? w->size : size;
}

static void window_open(struct window *w)
{
	struct stat st;

	w->fd = open(w->path, O_RDWR | O_CLOEXEC);
	if (w->fd < 0)
		wrong("open %s: %s", w->path, strerror(errno));
	if (allowed("direct")) {
		w->direct = open(w->path, O_RDWR | O_CLOEXEC | O_DIRECT);
		if (w->direct < 0)
			wrong("open %s with O_DIRECT: %s", w->path, strerror(errno));
	}
	if (allowed("mmap")) {
		w->map = mmap(NULL, max_size, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
		if (w->map == MAP_FAILED)
			w->map = NULL;
		/* Of files that show the same bytes, only one can be mapped at a time. */
		if (!w->map && errno != ENODEV)
			wrong("mmap %s: %s", w->path, strerror(errno));
	}
	if (fstat(w->fd, &st) || (uint64_t)st.st_size != window_size(w))
		wrong("%s has %" PRIu64 " bytes, not %" PRIu64, w->path, (uint64_t)st.st_size,
		      window_size(w));
}

static void window_close(struct window *w)
{
	if (w->map)
		munmap(w->map, max_size);
	w->map = NULL;
	/* With a write-back cache, an error that nobody waited for comes here. */
	if (w->fd >= 0 && close(w->fd))
		wrong("close %s: %s", w->path, strerror(errno));
	if (w->direct >= 0 && close(w->direct))
		wrong("close %s: %s", w->path, strerror(errno));
	w->fd = w->direct = -1;
}

/* Of those that overlap the one that is opened first is cached: not always the same. */
void windows_open(void)
{
	unsigned first = (unsigned)rnd(window_count);

	for (unsigned i = 0; i < window_count; i++)
		window_open(&windows[(first + i) % window_count]);
}

void windows_close(void)
{
	for (unsigned i = 0; i < window_count; i++)
		window_close(&windows[i]);
}

void set_size(uint64_t new_size)
{
	if (new_size < size)
		memset(bytes + new_size, 0, size - new_size);
	size = new_size;
}

/* ---- places and contents ------------------------------------------------------------------------
 */

struct place {
	struct window *w;
	uint64_t at, disk; /* in the file, and in the disk */
	size_t len;
};

/* Somewhere in a window; align divides start and length. growing: may reach past the disk's end. */
static struct place choose(uint64_t align, bool writing, bool growing)
{
	struct place p = {&windows[rnd(window_count)], 0, 0, 0};
	uint64_t limit = window_size(p.w),
		 len = 1 + rnd(rnd(4) ? rnd(2) ? 4096 : 2 * grain : MAX_LEN);

	growing = growing && p.w == &windows[0] && allowed("truncate") && rnd(4) == 0 &&
		  !commit_may_run();
	if (growing) {
		limit = max_size;
		align = SECTOR;
	}
	p.at = growing ? size - rnd(8192) : rnd(limit);
	if (rnd(3) == 0)
		p.at -= (p.w->start + p.at) % grain % (p.at + 1);
	if (rnd(3) == 0)
		len = grain;
	p.at -= p.at % align;
	/* The partition table stays. */
	if (writing && p.w->start + p.at < SECTOR)
		p.at = SECTOR;
	if (len > MAX_LEN)
		len = MAX_LEN;
	if (len > limit - p.at)
		len = limit - p.at;
	p.len = len <= align ? align : len - len % align;
	p.disk = p.w->start + p.at;
	return p;
}

static void fill(uint8_t *buf, size_t len)
{
	uint64_t word = rnd(0);

	if (rnd(8) == 0) {
		memset(buf, 0, len);
		return;
	}
	for (size_t i = 0; i < len; i++) {
		if (i % 8 == 0)
			word = word * UINT64_C(6364136223846793005) + 1442695040888963407;
		buf[i] = (uint8_t)(word >> (56 - i % 8 * 4));
	}
}

static void grown(const struct place *p)
{
	if (p->disk + p->len > size)
		size = p->disk + p->len;
}

static void say(const char *what, const struct place *p)
{
	note("%s %s %" PRIu64 " %zu (disk %" PRIu64 " to %" PRIu64 ")", what, p->w->path, p->at,
	     p->len, p->disk, p->disk + p->len);
}

static void failed(const char *what, const struct place *p)
{
	wrong("%s %s %" PRIu64 " %zu: %s", what, p->w->path, p->at, p->len, strerror(errno));
}

/* ---- operations ---------------------------------------------------------------------------------
 */

static void put(const char *what, int fd, const struct place *p)
{
	size_t n = 0;

	say(what, p);
	fill(buffer, p->len);
	while (n < p->len) {
		ssize_t ret = pwrite(fd, buffer + n, p->len - n, (off_t)(p->at + n));

		if (ret <= 0)
			failed(what, p);
		n += (size_t)ret;
	}
	memcpy(bytes + p->disk, buffer, p->len);
	touch(p->disk, p->len);
	grown(p);
}

static void get(const char *what, int fd, const struct place *p)
{
	size_t n = 0;

	say(what, p);
	while (n < p->len) {
		ssize_t ret = pread(fd, buffer + n, p->len - n, (off_t)(p->at + n));

		if (ret == 0)
			wrong("%s %s %" PRIu64 ": nothing behind %zu bytes", what, p->w->path,
			      p->at, n);
		if (ret < 0)
			failed(what, p);
		n += (size_t)ret;
	}
	same(what, buffer, bytes + p->disk, p->disk, p->len);
}

static void op_read(void)
{
	struct place p = choose(1, false, false);

	get("read", p.w->fd, &p);
}

static void op_direct_write(void)
{
	struct place p = choose(SECTOR, true, true);

	put("direct write", p.w->direct, &p);
}

static void op_direct_read(void)
{
	struct place p = choose(SECTOR, false, false);

	get("direct read", p.w->direct, &p);
}

static void op_map_write(void)
{
	struct place p = choose(1, true, false);
	bool sync = rnd(2);
	uintptr_t from;

	if (!p.w->map)
		return;
	say(sync ? "store and msync" : "store", &p);
	fill(buffer, p.len);
	memcpy(p.w->map + p.at, buffer, p.len);
	memcpy(bytes + p.disk, buffer, p.len);
	touch(p.disk, p.len);
	from = (uintptr_t)(p.w->map + p.at) & ~(uintptr_t)4095;
	if (sync && msync((void *)from, (uintptr_t)(p.w->map + p.at) + p.len - from, MS_SYNC))
		failed("msync", &p);
}

static void op_map_read(void)
{
	struct place p = choose(1, false, false);

	if (!p.w->map)
		return;
	say("load", &p);
	same("load", p.w->map + p.at, bytes + p.disk, p.disk, p.len);
}

static void op_punch(void)
{
	struct place p = choose(1, true, false);

	say("punch", &p);
	if (fallocate(p.w->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)p.at,
		      (off_t)p.len))
		failed("punch", &p);
	memset(bytes + p.disk, 0, p.len);
	touch(p.disk, p.len);
}

static void op_zero(void)
{
	struct place p = choose(1, true, true);
	bool keep = p.disk + p.len <= size && rnd(2);

	say(keep ? "zero, keep size" : "zero", &p);
	if (fallocate(p.w->fd, FALLOC_FL_ZERO_RANGE | (keep ? FALLOC_FL_KEEP_SIZE : 0), (off_t)p.at,
		      (off_t)p.len))
		failed("zero", &p);
	memset(bytes + p.disk, 0, p.len);
	touch(p.disk, p.len);
	grown(&p);
}

static void op_allocate(void)
{
	struct place p = choose(1, false, true);
	bool keep = p.disk + p.len <= size && rnd(2);

	say(keep ? "allocate, keep size" : "allocate", &p);
	if (fallocate(p.w->fd, keep ? FALLOC_FL_KEEP_SIZE : 0, (off_t)p.at, (off_t)p.len))
		failed("allocate", &p);
	grown(&p);
}

static void op_truncate(void)
{
	uint64_t to = min_size + rnd((max_size - min_size) / SECTOR + 1) * SECTOR;

	if (rnd(3) == 0)
		to = size - rnd((size - min_size) / SECTOR + 1) % 64 * SECTOR;
	truncate_to(to);
}

static void op_sync(void)
{
	struct window *w = &windows[rnd(window_count)];
	bool data = rnd(2);

	note("%s %s", data ? "fdatasync" : "fsync", w->path);
	if (data ? fdatasync(w->fd) : fsync(w->fd))
		wrong("fsync %s: %s", w->path, strerror(errno));
}

static void op_copy(void)
{
	struct place from = choose(1, false, false), to = choose(1, true, false);
	size_t n = 0;

	if (to.len > from.len)
		to.len = from.len;
	from.len = to.len;
	if (from.disk < to.disk + to.len && to.disk < from.disk + from.len)
		return;
	say("copy from", &from);
	say("copy to", &to);
	while (n < to.len) {
		off_t in = (off_t)(from.at + n), out = (off_t)(to.at + n);
		ssize_t ret = copy_file_range(from.w->fd, &in, to.w->fd, &out, to.len - n, 0);

		if (ret <= 0)
			failed("copy", &to);
		n += (size_t)ret;
	}
	memcpy(bytes + to.disk, bytes + from.disk, to.len);
	touch(to.disk, to.len);
}

/* Holes must read as zeroes: cp and tar believe it. */
static void op_holes(void)
{
	struct window *w = &windows[rnd(window_count)];
	off_t end = (off_t)window_size(w), at = (off_t)rnd((uint64_t)end);

	if (!allowed("holes"))
		return;
	note("holes of %s from %" PRIu64, w->path, (uint64_t)at);
	for (int i = 0; i < 30 && at < end; i++) {
		off_t data = lseek(w->fd, at, SEEK_DATA);

		if (data < 0 && errno == ENXIO)
			data = end;
		if (data < at || data > end)
			wrong("SEEK_DATA %" PRIu64 ": %" PRId64 " (%s)", (uint64_t)at,
			      (int64_t)data, strerror(errno));
		for (off_t k = at; k < data; k++)
			if (bytes[w->start + (uint64_t)k])
				wrong("SEEK_DATA %" PRIu64 " of %s gives %" PRIu64
				      ", but byte %" PRIu64 " is not zero",
				      (uint64_t)at, w->path, (uint64_t)data, (uint64_t)k);
		if (data == end)
			return;
		at = lseek(w->fd, data, SEEK_HOLE);
		/* A commit that has ended between the two may have found zeroes there. */
		if (at == data && commit_may_run() && !bytes[w->start + (uint64_t)data])
			return;
		if (at <= data || at > end)
			wrong("SEEK_HOLE %" PRIu64 ": %" PRId64, (uint64_t)data, (int64_t)at);
	}
}

static void op_write(void)
{
	struct place p = choose(rnd(2) ? SECTOR : 1, true, true);
	uint64_t before = size;

	put("write", p.w->fd, &p);
	/* What nobody but the kernel knows of yet. */
	if (size > before && rnd(3) == 0)
		op_holes();
}

/* The top layer, where it is the only one, is the disk as well: opened anew, its size may lack what
 * only the kernel knows of. */
static void op_layer(void)
{
	uint64_t at, len;
	struct stat st;
	int fd;

	if (!layer)
		return;
	fd = open(layer, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		wrong("open %s: %s", layer, strerror(errno));
	len = (uint64_t)st.st_size < size ? (uint64_t)st.st_size : size;
	at = rnd(len);
	len = len - at < MAX_LEN ? len - at : 1 + rnd(MAX_LEN);
	note("read layer %" PRIu64 " %" PRIu64, at, len);
	for (uint64_t n = 0; n < len;) {
		ssize_t ret = pread(fd, buffer + n, len - n, (off_t)(at + n));

		if (ret <= 0)
			wrong("read %s at %" PRIu64 ": %s", layer, at + n,
			      ret ? strerror(errno) : "nothing there");
		n += (uint64_t)ret;
	}
	same(layer, buffer, bytes + at, at, len);
	close(fd);
}

static void op_reopen(void)
{
	struct window *w = &windows[rnd(window_count)];

	if (rnd(3) == 0) {
		note("reopen all");
		windows_close();
		windows_open();
		return;
	}
	note("reopen %s", w->path);
	window_close(w);
	window_open(w);
}

void verify_all(void)
{
	note("verify");
	for (unsigned i = 0; i < window_count; i++) {
		struct place p = {&windows[i], 0, windows[i].start, 0};
		uint64_t end = window_size(p.w);
		struct stat st;

		if (fstat(p.w->fd, &st) || (uint64_t)st.st_size != end)
			wrong("%s has %" PRIu64 " bytes, not %" PRIu64, p.w->path,
			      (uint64_t)st.st_size, end);
		for (; p.at < end; p.at += p.len, p.disk += p.len) {
			p.len = end - p.at < MAX_LEN ? end - p.at : MAX_LEN;
			get("verify", p.w->fd, &p);
		}
	}
}

static bool op_tree(unsigned which)
{
	static bool (*const table[])(void) = {
		snapshot_create, snapshot_create, snapshot_delete, snapshot_rename, snapshot_apply,
		snapshot_read,	 snapshot_read,	  control_size,	   control_commit,  control_commit};

	return mount_dir && table[which % (sizeof(table) / sizeof(table[0]))]();
}

static void op_tree_any(void)
{
	op_tree((unsigned)rnd(10));
}

static const struct {
	const char *word;
	unsigned weight;
	void (*op)(void);
} table[] = {
	{"write", 24, op_write},       {"read", 20, op_read},	  {"direct", 8, op_direct_write},
	{"direct", 8, op_direct_read}, {"mmap", 6, op_map_write}, {"mmap", 6, op_map_read},
	{"punch", 5, op_punch},	       {"zero", 5, op_zero},	  {"allocate", 2, op_allocate},
	{"truncate", 2, op_truncate},  {"sync", 2, op_sync},	  {"copy", 5, op_copy},
	{"holes", 2, op_holes},	       {"reopen", 2, op_reopen},  {"layer", 2, op_layer},
	{"tree", 4, op_tree_any},      {"burst", 2, burst},
};

static void operation(void)
{
	unsigned sum = 0, at;

	commit_look();
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		sum += table[i].weight;
	at = (unsigned)rnd(sum);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (at < table[i].weight) {
			if (allowed(table[i].word))
				table[i].op();
			break;
		}
		at -= table[i].weight;
	}
	if (rnd(400) == 0)
		verify_all();
}

/* ---- command line -------------------------------------------------------------------------------
 */

static bool add_window(char *words)
{
	char *start = strchr(words, ':'), *len = start ? strchr(start + 1, ':') : NULL;
	struct window *w = &windows[window_count];

	if (!len || window_count == MAX_WINDOWS)
		return false;
	*start = *len = 0;
	*w = (struct window){
		words, strtoull(start + 1, NULL, 0), strtoull(len + 1, NULL, 0), -1, -1, NULL};
	window_count++;
	return w->size > 0;
}

/* The first time, the disk itself says what the model is. */
static void learn(void)
{
	int fd = open(windows[0].path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		wrong("open %s: %s", windows[0].path, strerror(errno));
	size = (uint64_t)st.st_size;
	if (size > max_size || size < min_size)
		wrong("%s has %" PRIu64 " bytes", windows[0].path, size);
	for (uint64_t at = 0; at < size;) {
		ssize_t n = pread(fd, bytes + at, size - at, (off_t)at);

		if (n <= 0)
			wrong("read %s: %s", windows[0].path, strerror(errno));
		at += (uint64_t)n;
	}
	close(fd);
}

static int usage(void)
{
	fprintf(stderr, "usage: see the head of tests/mount/model.c\n");
	return 2;
}

int main(int argc, char **argv)
{
	uint64_t operations = UINT64_MAX, seconds = UINT64_MAX;
	const char *state = NULL;
	time_t start = time(NULL);
	int opt;

	window_count = 1;
	while ((opt = getopt(argc, argv, "s:n:t:g:m:M:S:x:w:d:b:l:")) != -1) {
		if (opt == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (opt == 'n')
			operations = strtoull(optarg, NULL, 0);
		else if (opt == 't')
			seconds = strtoull(optarg, NULL, 0);
		else if (opt == 'g')
			grain = strtoull(optarg, NULL, 0);
		else if (opt == 'm')
			min_size = strtoull(optarg, NULL, 0);
		else if (opt == 'M')
			max_size = strtoull(optarg, NULL, 0);
		else if (opt == 'S')
			state = optarg;
		else if (opt == 'x')
			exclude = optarg;
		else if (opt == 'd')
			mount_dir = optarg;
		else if (opt == 'l')
			layer = optarg;
		else if (opt == 'b' && base_count < MAX_BASES)
			base_names[base_count++] = optarg;
		else if (opt != 'w' || !add_window(optarg))
			return usage();
	}
	if (optind != argc - 1 || !grain || !max_size || min_size < 16 * SECTOR)
		return usage();
	windows[0] = (struct window){argv[optind], 0, 0, -1, -1, NULL};
	bytes = calloc(1, max_size + MAX_LEN);
	buffer = aligned_alloc(4096, MAX_LEN);
	if (!bytes || !buffer)
		return 1;
	if (state)
		state_load(state);
	if (!size)
		learn();
	windows_open();
	verify_all();
	for (done = 1; done <= operations && (uint64_t)(time(NULL) - start) < seconds; done++)
		operation();
	/* Or the end of the mount cancels it. */
	if (rnd(2))
		commit_wait();
	if (rnd(2))
		verify_all();
	windows_close();
	if (state)
		state_save(state);
	printf("%" PRIu64 " operations, %" PRIu64 " beside, %" PRIu64 " snapshots, %" PRIu64
	       " applied, %" PRIu64 " committed, %" PRIu64 " cancelled\n",
	       done - 1, counts.beside, counts.snapshots, counts.applied, counts.committed,
	       counts.cancelled);
	return 0;
}
