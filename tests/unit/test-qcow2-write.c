/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing qcow2: refcounts of every width, allocation and its growth, frees that wait, and what is
 * left when any one write or sync fails. Images are made by our own create, and lie in memory.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/in-loop.h"

#include "formats/formats.h"
#include "formats/qcow2.h"
#include "image/cache.h"
#include "io/file-fault.h"

#define MADE "made.qcow2"

struct fixture {
	struct file *memory, *f;
	struct image *img;
	struct qcow2 *q;
};

static GBytes *create(const char *size, const char *cluster_size, const char *bits,
		      const char *more)
{
	struct options *o = options_new();
	struct file_options fo = {0};
	struct file *disk;
	uint64_t len;
	void *bytes;

	options_set(o, "size", size);
	options_set(o, "cluster_size", cluster_size);
	options_set(o, "refcount_bits", bits);
	if (more)
		options_set(o, more, "on");
	unlink(MADE);
	assert_true(image_create(MADE, image_find_format("qcow2", NULL), o, NULL));
	options_free(o);
	disk = file_open(MADE, &fo, NULL);
	assert_non_null(disk);
	len = file_size(disk);
	bytes = g_malloc(len);
	assert_int_equal(file_read(disk, 0, bytes, len), 0);
	file_unref(disk);
	unlink(MADE);
	return g_bytes_new_take(bytes, len);
}

/* A new image in memory. Each kind is created once: that syncs a disk, and hundreds are wanted. */
static struct file *make(const char *size, const char *cluster_size, const char *bits,
			 const char *more)
{
	static GHashTable *made;
	char *key = g_strjoin(" ", size, cluster_size, bits, more, NULL);
	GBytes *bytes;

	if (!made)
		made = g_hash_table_new(g_str_hash, g_str_equal);
	bytes = g_hash_table_lookup(made, key);
	if (bytes) {
		g_free(key);
	} else {
		bytes = create(size, cluster_size, bits, more);
		g_hash_table_insert(made, key, bytes);
	}
	return file_new_memory("memory", g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
}

static struct image *open_on(struct file *f, unsigned flags)
{
	struct image_open_options o = {.format = "qcow2", .flags = flags};
	GError *error = NULL;
	struct image *img = image_open_file(f, &o, &error);

	if (!img)
		fail_msg("%s", error->message);
	return img;
}

static struct fixture begin_with(struct file *memory)
{
	struct fixture x = {.memory = memory};

	x.f = file_new_fault(x.memory);
	x.img = open_on(x.f, IMAGE_RDWR);
	x.q = qcow2_of(x.img);
	return x;
}

static struct fixture begin(const char *cluster_size, const char *bits)
{
	return begin_with(make("1M", cluster_size, bits, NULL));
}

static void end(struct fixture *x)
{
	image_unref(x->img);
	file_unref(x->f);
	file_unref(x->memory);
}

static void note(void *arg, const char *sentence)
{
	fprintf(stderr, "check: %s\n", sentence);
}

/* What check says of the bytes in memory now. */
static struct check_result judge(struct fixture *x, bool tell)
{
	struct check_options o = {.tell = tell ? note : NULL};
	struct check_result r;
	struct image *img = open_on(x->memory, IMAGE_FOR_CHECK);

	assert_true(image_check(img, &o, &r, NULL));
	image_unref(img);
	return r;
}

static void expect_clean(struct fixture *x)
{
	struct check_result r = judge(x, true);

	assert_int_equal(r.corruptions + r.check_errors + r.leaks, 0);
}

static uint64_t count_of(struct fixture *x, uint64_t host)
{
	uint64_t count;

	assert_int_equal(qcow2_refcount(x->img, host, &count), 0);
	return count;
}

static uint64_t take(struct fixture *x, uint64_t bytes)
{
	uint64_t host = 0;

	assert_int_equal(qcow2_alloc(x->img, bytes, &host), 0);
	return host;
}

/* ---- refcounts ---------------------------------------------------------------------------------
 */

static int co_entries(void *arg)
{
	for (unsigned order = 0; order <= 6; order++) {
		unsigned n = 64 * 8 >> order;
		uint64_t max = UINT64_MAX >> (64 - (1u << order));
		uint8_t block[64] = {0};

		for (unsigned i = 0; i < n; i++)
			qcow2_set_refcount_entry(block, i, order, (i * 7 + 1) & max);
		/* Each is by itself: none has changed a neighbour. */
		for (unsigned i = 0; i < n; i++)
			assert_int_equal(qcow2_refcount_entry(block, i, order), (i * 7 + 1) & max);
		qcow2_set_refcount_entry(block, 3, order, max);
		assert_int_equal(qcow2_refcount_entry(block, 3, order), max);
		assert_int_equal(qcow2_refcount_entry(block, 2, order), 15 & max);
		assert_int_equal(qcow2_refcount_entry(block, 4, order), 29 & max);
	}
	/* "bit 0 means the least significant bit"; wider ones are big-endian. */
	assert_int_equal(qcow2_refcount_entry("\x02", 1, 0), 1);
	assert_int_equal(qcow2_refcount_entry("\x34", 0, 2), 4);
	assert_int_equal(qcow2_refcount_entry("\x01\x02", 0, 4), 0x102);
	return 0;
}

static void try_width(const char *bits, uint64_t max)
{
	struct fixture x = begin("512", bits);
	uint64_t a = take(&x, 512), b = take(&x, 3 * 512);

	assert_int_equal(count_of(&x, a), 1);
	assert_int_equal(b, a + 512);
	for (uint64_t count = 2; count <= MIN(max, 300); count++)
		assert_int_equal(qcow2_ref(x.img, b + 512, 1), 0);
	assert_int_equal(count_of(&x, b + 512), MIN(max, 300));
	if (max <= 300) {
		/* All or nothing: the cluster in front is not raised either. */
		assert_int_equal(qcow2_ref(x.img, b, 3 * 512), -EOVERFLOW);
		assert_int_equal(count_of(&x, b), 1);
	}
	for (uint64_t count = MIN(max, 300); count > 0; count--)
		assert_int_equal(qcow2_unref(x.img, b + 512, 1), 0);
	assert_int_equal(count_of(&x, b + 512), 0);
	/* The lowest free one is taken, where it fits. */
	assert_int_equal(take(&x, 512), b + 512);
	assert_int_equal(qcow2_unref(x.img, a, 4 * 512), 0);
	assert_int_equal(image_flush(x.img), 0);
	expect_clean(&x);
	end(&x);
}

static int co_widths(void *arg)
{
	try_width("1", 1);
	try_width("2", 3);
	try_width("4", 15);
	try_width("8", 255);
	try_width("16", 65535);
	try_width("32", UINT32_MAX);
	try_width("64", UINT64_MAX);
	return 0;
}

/* A table of one cluster of 512 bytes covers 2 MiB with 64 bits each: it grows several times. */
static int co_growth(void *arg)
{
	struct fixture x = begin("512", "64");
	uint64_t offset = x.q->header.reftable_offset, taken = 0, sizes[] = {1, 7, 64, 65, 300};
	struct check_result r;

	for (unsigned i = 0; taken < 40000; i++) {
		uint64_t n = sizes[i % G_N_ELEMENTS(sizes)], host = take(&x, n * 512);

		for (uint64_t k = 0; k < n; k++)
			assert_int_equal(count_of(&x, host + k * 512), 1);
		/* check counts what the file has. */
		assert_int_equal(file_write(x.f, host + (n - 1) * 512, "x", 1), 0);
		taken += n;
	}
	assert_int_not_equal(x.q->header.reftable_offset, offset);
	assert_int_equal(image_flush(x.img), 0);
	/* The one that was freed by the last growth is freed by the next flush. */
	assert_int_equal(image_flush(x.img), 0);
	r = judge(&x, false);
	assert_int_equal(r.corruptions, 0);
	assert_int_equal(r.leaks, taken);
	end(&x);
	return 0;
}

static int co_frees_wait(void *arg)
{
	struct fixture x = begin("4096", "16");
	uint64_t a = take(&x, 4096);

	assert_int_equal(qcow2_free_later(x.img, a, 4096), 0);
	assert_int_equal(count_of(&x, a), 1);
	assert_int_not_equal(take(&x, 4096), a);
	assert_int_equal(qcow2_flush(x.img), 0);
	assert_int_equal(count_of(&x, a), 0);
	assert_int_equal(take(&x, 4096), a);
	end(&x);
	return 0;
}

/* ---- order and syncs
 * -----------------------------------------------------------------------------
 */

static uint64_t syncs(struct fixture *x)
{
	return file_fault_count(x->f, FAULT_FLUSH);
}

static int fill_write(struct fixture *x, uint64_t offset, int byte, size_t len)
{
	g_autofree uint8_t *buf = g_malloc(len);

	memset(buf, byte, len);
	return image_write(x->img, offset, buf, len);
}

static int co_syncs(void *arg)
{
	struct fixture x = begin("4096", "16");
	uint64_t before;

	assert_int_equal(fill_write(&x, 0, 1, 8192), 0);
	before = syncs(&x);
	assert_int_equal(image_flush(x.img), 0);
	assert_int_equal(syncs(&x) - before, 2);
	/* Data over data: nothing but the sync. */
	assert_int_equal(fill_write(&x, 100, 2, 5000), 0);
	before = syncs(&x);
	assert_int_equal(image_flush(x.img), 0);
	assert_int_equal(syncs(&x) - before, 1);
	end(&x);
	return 0;
}

static int co_failed_sync(void *arg)
{
	struct fixture x = begin("4096", "16");

	assert_int_equal(fill_write(&x, 0, 1, 100), 0);
	file_fault_set(x.f, FAULT_FLUSH, 1, EIO, false);
	assert_int_equal(image_flush(x.img), -EIO);
	/* Nobody knows what is on the disk now. */
	assert_int_equal(fill_write(&x, 0, 1, 100), -EIO);
	assert_int_equal(image_write_zeroes(x.img, 0, 4096, true), -EIO);
	assert_true(image_flush(x.img) < 0);
	end(&x);
	return 0;
}

static int co_lazy(void *arg)
{
	struct fixture x = begin_with(make("1M", "65536", "16", "lazy_refcounts"));
	uint8_t byte;

	assert_int_equal(image_flush(x.img), 0);
	assert_int_equal(file_read(x.memory, 79, &byte, 1), 0);
	assert_int_equal(byte & 1, 0);
	assert_int_equal(fill_write(&x, 0, 1, 100), 0);
	assert_int_equal(file_read(x.memory, 79, &byte, 1), 0);
	assert_int_equal(byte & 1, 1);
	image_unref(x.img);
	assert_int_equal(file_read(x.memory, 79, &byte, 1), 0);
	assert_int_equal(byte & 1, 0);
	expect_clean(&x);
	x.img = NULL;
	end(&x);
	return 0;
}

/* ---- damage ------------------------------------------------------------------------------------
 */

/* The count of an L2 table is lost: what is allocated next would lie on it. */
static int co_table_without_count(void *arg)
{
	struct fixture x = begin("4096", "16");
	uint64_t l2;
	uint8_t byte;

	assert_int_equal(fill_write(&x, 0, 1, 4096), 0);
	assert_int_equal(image_flush(x.img), 0);
	assert_int_equal(qcow2_l2_find(x.img, 0, false, &l2), 0);
	assert_int_not_equal(l2, 0);
	image_unref(x.img);

	x.img = open_on(x.f, IMAGE_RDWR);
	assert_int_equal(qcow2_begin(x.img), 0);
	assert_int_equal(qcow2_unref(x.img, l2, 4096), 0);
	image_unref(x.img);

	x.img = open_on(x.f, IMAGE_RDWR);
	assert_int_equal(fill_write(&x, 8192, 2, 4096), -EIO);
	assert_non_null(strstr(image_fault_text(x.img), "corrupt"));
	assert_int_equal(file_read(x.memory, 79, &byte, 1), 0);
	assert_int_equal(byte & 2, 2);
	assert_int_equal(fill_write(&x, 16384, 2, 4096), -EIO);
	end(&x);
	return 0;
}

/* A guest's cluster that is a refcount block at the same time: no write may reach it. */
static int co_data_on_a_table(void *arg)
{
	struct fixture x = begin("4096", "16");
	uint8_t before[4096], after[4096];
	uint64_t l2, block;
	be64_t entry;

	assert_int_equal(fill_write(&x, 0, 1, 4096), 0);
	assert_int_equal(image_flush(x.img), 0);
	assert_int_equal(qcow2_l2_find(x.img, 0, false, &l2), 0);
	assert_int_equal(file_read(x.memory, x.q->header.reftable_offset, &entry, 8), 0);
	block = be64_get(entry);
	image_unref(x.img);
	entry = be64_make(block | QCOW2_COPIED);
	assert_int_equal(file_write(x.memory, l2, &entry, 8), 0);
	assert_int_equal(file_read(x.memory, block, before, 4096), 0);

	/* As the first change, when in place writes are allowed already, and to give it up. */
	for (int how = 0; how < 3; how++) {
		uint8_t bits = 0;

		assert_int_equal(file_write(x.memory, 79, &bits, 1), 0);
		x.img = open_on(x.f, IMAGE_RDWR);
		if (how == 1)
			assert_int_equal(qcow2_begin(x.img), 0);
		if (how == 2)
			assert_int_equal(image_discard(x.img, 0, 4096), -EIO);
		else
			assert_int_equal(fill_write(&x, 10, 2, 100), -EIO);
		assert_int_equal(file_read(x.memory, 79, &bits, 1), 0);
		assert_int_equal(bits & 2, 2);
		image_unref(x.img);
		assert_int_equal(file_read(x.memory, block, after, 4096), 0);
		assert_memory_equal(before, after, 4096);
	}
	x.img = NULL;
	end(&x);
	return 0;
}

/* ---- any one failure
 * -----------------------------------------------------------------------------
 */

/* Steps of a guest; what was acknowledged is in `disk`. */
struct guest {
	struct fixture *x;
	uint8_t disk[1 << 20];
	uint64_t seed;
};

static uint64_t rnd(struct guest *g, uint64_t below)
{
	g->seed ^= g->seed << 13;
	g->seed ^= g->seed >> 7;
	g->seed ^= g->seed << 17;
	return (g->seed >> 11) % below;
}

/* One cluster, compressed; clusters of one image are packed together. */
static int guest_coded(struct guest *g, uint64_t offset, int byte)
{
	struct image *img = g->x->img;
	uint32_t len = img->cluster_size;
	uint8_t in[4096], out[4096];
	int64_t n;
	int ret;

	g_assert(len <= sizeof(in));
	offset -= offset % len;
	memset(in, byte, len);
	n = codec_deflate.encode(in, len, out, len - 1, 0);
	assert_true(n > 0);
	ret = image_write_coded(img, offset, out, n);
	if (ret == 0)
		memcpy(g->disk + offset, in, len);
	return ret;
}

static int guest_step(struct guest *g)
{
	uint64_t offset = rnd(g, sizeof(g->disk)), kind = rnd(g, 10);
	uint64_t len = 1 + rnd(g, 20000);
	int byte = 1 + rnd(g, 255), ret;

	len = MIN(len, sizeof(g->disk) - offset);
	if (kind == 0)
		return image_flush(g->x->img);
	if (kind >= 8)
		return guest_coded(g, offset, byte);
	if (kind < 3) {
		byte = 0;
		ret = image_write_zeroes(g->x->img, offset, len, kind == 1);
	} else {
		ret = fill_write(g->x, offset, byte, len);
	}
	if (ret == 0)
		memset(g->disk + offset, byte, len);
	return ret;
}

static void expect_disk(struct guest *g)
{
	struct image *img = open_on(g->x->memory, 0);
	g_autofree uint8_t *buf = g_malloc(sizeof(g->disk));

	assert_int_equal(image_read(img, 0, buf, sizeof(g->disk)), 0);
	assert_memory_equal(buf, g->disk, sizeof(g->disk));
	image_unref(img);
}

/* Goes on after one failed operation, as a guest whose disk was full for a moment does: nothing
 * is lost but the step that failed, which is done again. */
static void try_fault(enum fault_op op, uint64_t nth, int error, const char *bits)
{
	struct fixture x = begin("512", bits);
	g_autofree struct guest *g = g_new0(struct guest, 1);
	struct check_result r;
	unsigned failures = 0;

	g->x = &x;
	g->seed = 88172645463325252u;
	file_fault_set(x.f, op, nth, error, false);
	for (unsigned i = 0; i < 40; i++) {
		uint64_t seed = g->seed;

		if (guest_step(g) == 0)
			continue;
		failures++;
		g->seed = seed;
		assert_int_equal(guest_step(g), 0);
	}
	assert_true(failures <= 1);
	if (image_flush(x.img) < 0)
		assert_int_equal(image_flush(x.img), 0);
	r = judge(&x, true);
	assert_int_equal(r.corruptions, 0);
	/* What a failed write had reserved was given back. */
	if (op == FAULT_WRITE)
		assert_int_equal(r.leaks, 0);
	expect_disk(g);
	end(&x);
}

static int co_any_write(void *arg)
{
	for (uint64_t nth = 1; nth < 150; nth++)
		try_fault(FAULT_WRITE, nth, ENOSPC, nth % 2 ? "64" : "1");
	return 0;
}

static int co_any_read(void *arg)
{
	for (uint64_t nth = 1; nth < 60; nth++)
		try_fault(FAULT_READ, nth, EIO, "16");
	return 0;
}

/* Several at a time, on a file that lets others run in front of each request, and of which some
 * fail: what each was told is so, whatever the others did to the clusters that they share. */
struct actor {
	struct guest *g;
	uint64_t who, count;
};
#define ACTORS 6u
#define STRIPE 1536u

static int act(void *arg)
{
	struct actor *a = arg;
	struct guest *g = a->g;

	for (unsigned i = 0; i < a->count; i++) {
		uint64_t stripes = sizeof(g->disk) / STRIPE / ACTORS;
		uint64_t offset = (rnd(g, stripes) * ACTORS + a->who) * STRIPE, tries = 0;
		uint64_t len = 1 + rnd(g, STRIPE), kind = rnd(g, 12);
		int byte = kind < 3 ? 0 : 1 + rnd(g, 255), ret = -EIO;

		for (; ret < 0 && tries < 50; tries++)
			ret = kind == 3	 ? image_flush(g->x->img)
			      : kind < 3 ? image_write_zeroes(g->x->img, offset, len, kind == 1)
					 : fill_write(g->x, offset, byte, len);
		assert_int_equal(ret, 0);
		if (kind != 3)
			memset(g->disk + offset, byte, len);
		if (rnd(g, 8) == 0)
			file_fault_set(g->x->f, rnd(g, 3) ? FAULT_WRITE : FAULT_READ, 1 + rnd(g, 3),
				       ENOSPC, false);
	}
	return 0;
}

static int co_parallel(void *arg)
{
	for (unsigned round = 0; round < 30; round++) {
		const char *sizes[] = {"512", "4096", "65536"};
		struct fixture x = begin(sizes[round % 3], round % 2 ? "1" : "64");
		g_autofree struct guest *g = g_new0(struct guest, 1);
		struct actor actors[ACTORS];
		struct co_group group;

		g->x = &x;
		g->seed = 1234567 + round;
		file_fault_yield(x.f, true);
		co_group_init(&group, ACTORS);
		for (unsigned i = 0; i < ACTORS; i++) {
			actors[i] = (struct actor){g, i, 60};
			co_group_spawn(&group, act, &actors[i]);
		}
		assert_int_equal(co_group_wait(&group), 0);
		file_fault_set(x.f, FAULT_WRITE, 0, EIO, false);
		file_fault_set(x.f, FAULT_READ, 0, EIO, false);
		assert_int_equal(image_flush(x.img), 0);
		assert_int_equal(judge(&x, false).corruptions, 0);
		expect_disk(g);
		end(&x);
	}
	return 0;
}

/*
 * Snapshots come and go while others write without a pause: whoever changes the structure gets his
 * turn, an open view keeps its bytes, and what it shows cannot be deleted.
 */
struct busy {
	struct fixture *x;
	bool stop;
	uint64_t writes;
};

static int keep_writing(void *arg)
{
	struct busy *b = arg;

	while (!b->stop) {
		uint64_t n = b->writes++;

		assert_int_equal(
			fill_write(b->x, n * 7919 % 1000 * 1024, 1 + n % 255, 1 + n % 9000), 0);
		g_assert(b->writes < 1000000); /* nobody got a turn */
	}
	return 0;
}

static unsigned index_of(struct image *img, const char *name)
{
	g_autoptr(GPtrArray) list = image_snapshots(img, NULL);
	int i = image_find_snapshot(list, name, NULL);

	assert_true(i >= 0);
	return (unsigned)i;
}

static void expect_view(struct image *view, const uint8_t *bytes)
{
	g_autofree uint8_t *now = g_malloc(view->size);

	assert_int_equal(image_read(view, 0, now, view->size), 0);
	assert_memory_equal(now, bytes, view->size);
}

static void come_and_go(struct busy *b)
{
	struct image *img = b->x->img, *view;
	g_autofree uint8_t *bytes = g_malloc(img->size);
	uint64_t seen = b->writes;
	GError *error = NULL;

	assert_true(image_snapshot_create(img, "old", NULL));
	assert_true(image_snapshot_create(img, "shown", NULL));
	view = image_view(img, index_of(img, "shown"), NULL);
	assert_non_null(view);
	assert_int_equal(image_read(view, 0, bytes, view->size), 0);
	while (b->writes < seen + 300)
		co_relax();
	assert_true(image_snapshot_delete(img, index_of(img, "old"), NULL));
	expect_view(view, bytes);
	assert_false(image_snapshot_delete(img, index_of(img, "shown"), &error));
	assert_true(g_error_matches(error, IMAGE_ERROR, IMAGE_ERROR_BUSY));
	g_clear_error(&error);
	assert_true(image_snapshot_apply(img, index_of(img, "shown"), NULL));
	expect_view(view, bytes);
	image_unref(view);
	assert_true(image_snapshot_delete(img, index_of(img, "shown"), NULL));
}

static int co_structure(void *arg)
{
	for (unsigned round = 0; round < 6; round++) {
		struct fixture x = begin(round % 2 ? "512" : "4096", round % 3 ? "16" : "64");
		struct busy b = {.x = &x};
		struct co_group group;

		file_fault_yield(x.f, true);
		co_group_init(&group, 4);
		for (unsigned i = 0; i < 4; i++)
			co_group_spawn(&group, keep_writing, &b);
		come_and_go(&b);
		assert_true(image_resize(x.img, 2u << 20, NULL, NULL));
		b.stop = true;
		assert_int_equal(co_group_wait(&group), 0);
		assert_int_equal(image_flush(x.img), 0);
		expect_clean(&x);
		end(&x);
	}
	return 0;
}

/* Snapshots and another size, each of which may meet the fault: what it was told of is so. */
static void change_structure(struct fixture *x, struct guest *g)
{
	bool made = image_snapshot_create(x->img, "a", NULL);

	guest_step(g);
	image_resize(x->img, x->img->size + (512u << 10), NULL, NULL);
	guest_step(g);
	made = image_snapshot_create(x->img, "b", NULL) || made;
	guest_step(g);
	if (made)
		image_snapshot_apply(x->img, 0, NULL);
	if (made)
		image_snapshot_delete(x->img, 0, NULL);
}

static void try_structure(uint64_t nth, const char *cluster_size, bool whole)
{
	struct fixture x = begin(cluster_size, "16");
	g_autofree struct guest *g = g_new0(struct guest, 1);

	g->x = &x;
	g->seed = 88172645463325252u;
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(guest_step(g), 0);
	assert_int_equal(image_flush(x.img), 0);
	file_fault_set(x.f, FAULT_WRITE, nth, ENOSPC, whole);
	change_structure(&x, g);
	/* With room again. */
	file_fault_set(x.f, FAULT_WRITE, 0, 0, false);
	if (image_flush(x.img) < 0)
		assert_int_equal(image_flush(x.img), 0);
	assert_int_equal(judge(&x, true).corruptions, 0);
	assert_true(image_snapshot_create(x.img, "c", NULL));
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(guest_step(g), 0);
	assert_true(image_resize(x.img, x.img->size + (512u << 10), NULL, NULL));
	assert_int_equal(image_flush(x.img), 0);
	assert_int_equal(judge(&x, true).corruptions, 0);
	end(&x);
}

/* A sync may say as late as that there was no room: then nobody knows which header there is. */
static void try_structure_sync(uint64_t nth)
{
	struct fixture x = begin("512", "16");
	g_autofree struct guest *g = g_new0(struct guest, 1);

	g->x = &x;
	g->seed = 88172645463325252u;
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(guest_step(g), 0);
	file_fault_set(x.f, FAULT_FLUSH, nth, ENOSPC, false);
	change_structure(&x, g);
	image_flush(x.img);
	guest_step(g);
	image_flush(x.img);
	assert_int_equal(judge(&x, false).corruptions, 0);
	end(&x);
}

static int co_full_structure(void *arg)
{
	for (uint64_t nth = 1; nth < 40; nth++)
		try_structure_sync(nth);
	for (uint64_t nth = 1; nth < 90; nth++) {
		try_structure(nth, nth % 2 ? "512" : "4096", false);
		try_structure(nth, nth % 2 ? "4096" : "512", true);
	}
	return 0;
}

/* After a failed sync all fails; what is on disk was never worse than leaks. */
static int co_any_sync(void *arg)
{
	for (uint64_t nth = 1; nth < 40; nth++) {
		struct fixture x = begin("512", "64");
		g_autofree struct guest *g = g_new0(struct guest, 1);
		bool failed = false;

		g->x = &x;
		g->seed = 88172645463325252u + nth;
		file_fault_set(x.f, FAULT_FLUSH, nth, EIO, false);
		for (unsigned i = 0; i < 60; i++) {
			int ret = guest_step(g);

			assert_true(!failed || ret < 0);
			failed = failed || ret < 0;
		}
		assert_int_equal(judge(&x, false).corruptions, 0);
		end(&x);
	}
	return 0;
}

TEST_IN_LOOP(entries, co_entries)
TEST_IN_LOOP(widths, co_widths)
TEST_IN_LOOP(growth, co_growth)
TEST_IN_LOOP(frees_wait, co_frees_wait)
TEST_IN_LOOP(syncs, co_syncs)
TEST_IN_LOOP(failed_sync, co_failed_sync)
TEST_IN_LOOP(lazy, co_lazy)
TEST_IN_LOOP(table_without_count, co_table_without_count)
TEST_IN_LOOP(data_on_a_table, co_data_on_a_table)
TEST_IN_LOOP(any_write, co_any_write)
TEST_IN_LOOP(any_read, co_any_read)
TEST_IN_LOOP(parallel, co_parallel)
TEST_IN_LOOP(structure, co_structure)
TEST_IN_LOOP(full_structure, co_full_structure)
TEST_IN_LOOP(any_sync, co_any_sync)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_widths),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_frees_wait),
		cmocka_unit_test(test_syncs),
		cmocka_unit_test(test_failed_sync),
		cmocka_unit_test(test_lazy),
		cmocka_unit_test(test_table_without_count),
		cmocka_unit_test(test_data_on_a_table),
		cmocka_unit_test(test_any_write),
		cmocka_unit_test(test_any_read),
		cmocka_unit_test(test_parallel),
		cmocka_unit_test(test_structure),
		cmocka_unit_test(test_full_structure),
		cmocka_unit_test(test_any_sync),
	};

	fail_by_abort();
	image_set_formats(formats_table);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
