/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tests/crash/guest.h"

#define SECTOR 512u
#define NEVER  SIZE_MAX

/* Something that changes bytes: what they are after it. */
struct op {
	enum { OP_WRITE, OP_ZERO, OP_UNMAP, OP_DISCARD, OP_CODED, OP_FLUSH } kind;
	uint64_t offset, len;
	uint8_t *data;
	size_t begun;	/* cuts before this position know nothing of it */
	size_t durable; /* no cut from this position on loses it */
	bool returned;
};

struct guest {
	struct disk before;
	GPtrArray *ops; /* of struct op, without flushes; overlapping ones one after the other */

	/* Of a script: positions at which creating and deleting it began and had returned. */
	struct {
		size_t creating, created, deleting, deleted;
		struct disk disk;
	} snapshot;
};

static void op_free(void *p)
{
	g_free(((struct op *)p)->data);
	g_free(p);
}

struct guest *guest_new(struct disk *before)
{
	struct guest *g = g_new0(struct guest, 1);

	g->before = *before;
	memset(before, 0, sizeof(*before));
	g->ops = g_ptr_array_new_with_free_func(op_free);
	g->snapshot.creating = g->snapshot.created = NEVER;
	g->snapshot.deleting = g->snapshot.deleted = NEVER;
	return g;
}

const struct disk *guest_before(const struct guest *g)
{
	return &g->before;
}

void guest_free(struct guest *g)
{
	disk_clear(&g->before);
	disk_clear(&g->snapshot.disk);
	g_ptr_array_unref(g->ops);
	g_free(g);
}

static uint64_t next_random(uint64_t *state)
{
	/* xorshift64*: any state but 0. */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * UINT64_C(0x2545f4914f6cdd1d)) >> 16;
}

/* Of its own for every operation and sector, never 0. */
static void fill(struct op *op, unsigned number)
{
	for (uint64_t i = 0; i < op->len; i++)
		op->data[i] = 1 + (number * 29 + (op->offset + i) / SECTOR * 7) % 255;
}

/* ---- work ------------------------------------------------------------------------------------ */

struct job {
	struct guest *g;
	struct image *img;
	const struct record_log *log;
	struct op *op; /* FLUSH: not in the list */
	bool through;
};

static GPtrArray *acknowledged(const struct guest *g)
{
	GPtrArray *list = g_ptr_array_new();

	for (guint i = 0; i < g->ops->len; i++) {
		struct op *op = g_ptr_array_index(g->ops, i);

		if (op->returned && op->durable == NEVER)
			g_ptr_array_add(list, op);
	}
	return list;
}

static void set_durable(const struct job *job, const GPtrArray *covered)
{
	for (guint i = 0; i < covered->len; i++) {
		struct op *op = g_ptr_array_index(covered, i);

		op->durable = MIN(op->durable, record_log_length(job->log));
	}
}

static int flush(struct job *job)
{
	g_autoptr(GPtrArray) covered = acknowledged(job->g);
	int ret = image_flush(job->img);

	if (ret == 0)
		set_durable(job, covered);
	return ret;
}

static int write_coded(struct job *job)
{
	g_autofree void *coded = g_malloc(job->op->len);
	int64_t len = codec_deflate.encode(job->op->data, job->op->len, coded, job->op->len, 0);

	return len < 0 ? (int)len : image_write_coded(job->img, job->op->offset, coded, len);
}

static int job_run(void *arg)
{
	struct job *job = arg;
	struct op *op = job->op;
	int ret;

	op->begun = record_log_length(job->log);
	switch (op->kind) {
	case OP_WRITE:
		ret = image_write(job->img, op->offset, op->data, op->len);
		break;
	case OP_ZERO:
	case OP_UNMAP:
		ret = image_write_zeroes(job->img, op->offset, op->len, op->kind == OP_UNMAP);
		break;
	case OP_DISCARD:
		ret = image_discard(job->img, op->offset, op->len);
		break;
	case OP_CODED:
		ret = write_coded(job);
		break;
	default:
		return flush(job);
	}
	op->returned = true;
	if (ret == 0 && job->through)
		op->durable = MIN(op->durable, record_log_length(job->log));
	return ret;
}

static bool overlaps(const struct job *jobs, unsigned n, const struct op *op)
{
	for (unsigned i = 0; i < n; i++)
		if (jobs[i].op->offset < op->offset + op->len &&
		    op->offset < jobs[i].op->offset + jobs[i].op->len)
			return true;
	return false;
}

/* A whole cluster, of which the last one may have less of the disk. */
static void make_coded(struct op *op, uint32_t cluster)
{
	op->kind = OP_CODED;
	op->offset -= op->offset % cluster;
	op->len = cluster;
}

static struct op *choose(struct guest *g, const struct guest_work *w, uint32_t cluster,
			 uint64_t *state)
{
	struct op *op = g_new0(struct op, 1);
	unsigned kind = next_random(state) % 16;
	uint64_t unit = next_random(state) % 4 ? SECTOR : 1;

	op->durable = NEVER;
	if (kind < 3 && !(w->few_flushes && next_random(state) % 16)) {
		op->kind = OP_FLUSH;
		return op;
	}
	if (kind == 3 && w->zeroes)
		op->kind = OP_ZERO;
	else if (kind == 4 && w->zeroes)
		op->kind = OP_UNMAP;
	else if ((kind == 5 || kind == 6) && w->discards)
		op->kind = OP_DISCARD;
	/* Small ones are the most frequent, and often near to one another. */
	op->len = 1 + next_random(state) % (next_random(state) % 3 ? w->max_len / 8 : w->max_len);
	op->len = (op->len + unit - 1) / unit * unit;
	op->len = MIN(op->len, g->before.size);
	op->offset = next_random(state) % (g->before.size - op->len + 1);
	if (next_random(state) % 2)
		op->offset /= 4;
	op->offset -= op->offset % unit;
	if (kind >= 12 && w->coded)
		make_coded(op, cluster);
	op->data = g_malloc0(op->len);
	if (op->kind == OP_WRITE || op->kind == OP_CODED)
		fill(op, g->ops->len);
	return op;
}

/* A discard may have done less than it was asked for: what it did is read. */
static int read_discarded(struct job *jobs, unsigned n)
{
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < n; i++)
		if (jobs[i].op->kind == OP_DISCARD)
			ret = image_read(jobs[i].img, jobs[i].op->offset, jobs[i].op->data,
					 jobs[i].op->len);
	return ret;
}

static int batch(struct guest *g, struct image *img, const struct record_log *log,
		 const struct guest_work *w, uint64_t *state)
{
	struct job jobs[8];
	unsigned n = 1 + next_random(state) % MIN(w->concurrent, G_N_ELEMENTS(jobs)), made = 0;
	struct co_group group;
	int ret;

	co_group_init(&group, n);
	while (made < n) {
		struct op *op = choose(g, w, img->cluster_size, state);

		if (op->kind != OP_FLUSH && overlaps(jobs, made, op)) {
			op_free(op);
			n--;
			continue;
		}
		if (op->kind != OP_FLUSH)
			g_ptr_array_add(g->ops, op);
		jobs[made] = (struct job){
			.g = g, .img = img, .log = log, .op = op, .through = w->through};
		co_group_spawn(&group, job_run, &jobs[made++]);
	}
	ret = co_group_wait(&group);
	if (ret == 0)
		ret = read_discarded(jobs, made);
	for (unsigned i = 0; i < made; i++)
		if (jobs[i].op->kind == OP_FLUSH)
			op_free(jobs[i].op);
	return ret;
}

int guest_work(struct guest *g, struct image *img, const struct record_log *log,
	       const struct guest_work *w)
{
	uint64_t state = w->seed * 2 + 1;
	struct op last = {.kind = OP_FLUSH, .durable = NEVER};
	struct job job = {.g = g, .img = img, .log = log, .op = &last};
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < w->batches; i++)
		ret = batch(g, img, log, w, &state);
	return ret < 0 ? ret : flush(&job);
}

/* ---- scripts --------------------------------------------------------------------------------- */

static int script_snapshot(struct job *job, char letter)
{
	struct guest *g = job->g;
	GError *error = NULL;
	int ret = 0;
	bool ok;

	if (letter == 'S') {
		g->snapshot.disk.size = g->before.size;
		g->snapshot.disk.bytes = g_malloc(g->before.size);
		ret = image_read(job->img, 0, g->snapshot.disk.bytes, g->before.size);
		g->snapshot.creating = record_log_length(job->log);
		ok = ret == 0 && image_snapshot_create(job->img, "s", &error);
		g->snapshot.created = record_log_length(job->log);
	} else if (letter == 'X') {
		g->snapshot.deleting = record_log_length(job->log);
		ok = image_snapshot_delete(job->img, 0, &error);
		g->snapshot.deleted = record_log_length(job->log);
	} else {
		struct op *op = g_new0(struct op, 1);

		op->len = g->before.size;
		op->data = g_memdup2(g->snapshot.disk.bytes, op->len);
		op->begun = record_log_length(job->log);
		op->durable = NEVER;
		g_ptr_array_add(g->ops, op);
		ok = image_snapshot_apply(job->img, 0, &error);
		op->returned = true;
	}
	if (ok) {
		/* Each of them flushes, too. */
		g_autoptr(GPtrArray) covered = acknowledged(g);

		set_durable(job, covered);
		return 0;
	}
	g_printerr("%c: %s\n", letter, error ? error->message : g_strerror(-ret));
	g_clear_error(&error);
	return ret ? ret : -EIO;
}

static int script_step(struct job *job, char letter)
{
	static const char letters[] = "WwBZUDC";
	static const int kinds[] = {OP_WRITE, OP_WRITE,	  OP_WRITE, OP_ZERO,
				    OP_UNMAP, OP_DISCARD, OP_CODED};
	uint32_t cluster = job->img->cluster_size;
	const char *found = strchr(letters, letter);
	struct op *op;
	int ret;

	if (letter == 'F')
		return flush(job);
	if (!found)
		return script_snapshot(job, letter);
	op = g_new0(struct op, 1);
	op->kind = kinds[found - letters];
	op->durable = NEVER;
	op->offset = letter == 'B' ? 5 * cluster : letter == 'w' ? 100 : 0;
	op->len = letter == 'w' ? 300 : cluster;
	op->data = g_malloc0(op->len);
	if (op->kind == OP_WRITE || op->kind == OP_CODED)
		fill(op, job->g->ops->len);
	g_ptr_array_add(job->g->ops, op);
	job->op = op;
	ret = job_run(job);
	return ret < 0 ? ret : read_discarded(job, 1);
}

int guest_script(struct guest *g, struct image *img, const struct record_log *log,
		 const char *letters)
{
	struct job job = {.g = g, .img = img, .log = log};
	int ret = 0;

	for (; ret == 0 && *letters; letters++)
		ret = script_step(&job, *letters);
	return ret < 0 ? ret : flush(&job);
}

/* ---- judging --------------------------------------------------------------------------------- */

static bool may_be(const struct guest *g, size_t position, uint64_t at, uint8_t byte)
{
	for (guint i = 0; i < g->ops->len; i++) {
		const struct op *op = g_ptr_array_index(g->ops, i);

		if (op->begun < position && op->durable > position && at >= op->offset &&
		    at - op->offset < op->len && op->data[at - op->offset] == byte)
			return true;
	}
	return false;
}

static void fail_at(const struct guest *g, size_t position, uint64_t at, uint8_t found,
		    uint8_t flushed, GError **error)
{
	GString *s = g_string_new(NULL);

	for (guint i = 0; i < g->ops->len; i++) {
		const struct op *op = g_ptr_array_index(g->ops, i);

		if (op->begun < position && at >= op->offset && at - op->offset < op->len)
			g_string_append_printf(
				s, "\n  operation %u (kind %d) from %zu, durable from %zd: 0x%02x",
				i, op->kind, op->begun, (ssize_t)op->durable,
				op->data[at - op->offset]);
	}
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
		    "byte 0x%" PRIx64 " is 0x%02x, which is neither what was flushed (0x%02x) nor "
		    "written later:%s",
		    at, found, flushed, s->str);
	g_string_free(s, TRUE);
}

bool guest_allows(struct guest *g, size_t position, const struct disk *d, GError **error)
{
	g_autofree uint8_t *flushed = g_memdup2(g->before.bytes, g->before.size);
	uint64_t at;

	if (d->size != g->before.size) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "the disk has %" PRIu64 " bytes", d->size);
		return false;
	}
	for (guint i = 0; i < g->ops->len; i++) {
		const struct op *op = g_ptr_array_index(g->ops, i);

		if (op->durable <= position)
			memcpy(flushed + op->offset, op->data, op->len);
	}
	for (at = 0; at < d->size; at++) {
		if (at % SECTOR == 0 && d->size - at >= SECTOR &&
		    memcmp(d->bytes + at, flushed + at, SECTOR) == 0) {
			at += SECTOR - 1;
			continue;
		}
		if (d->bytes[at] != flushed[at] && !may_be(g, position, at, d->bytes[at])) {
			fail_at(g, position, at, d->bytes[at], flushed[at], error);
			return false;
		}
	}
	return true;
}

bool guest_allows_snapshot(const struct guest *g, size_t position, const char *name, GError **error)
{
	bool may = g->snapshot.creating < position && g->snapshot.deleted > position;
	bool must = g->snapshot.created <= position && g->snapshot.deleting >= position;
	g_auto(GStrv) list = disk_snapshots(name, error);
	struct disk d = {0};
	uint64_t where = 0;
	bool ok;

	if (!list)
		return false;
	if (list[0] ? !may : must) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "the snapshot is %s",
			    list[0] ? "there too early or too late" : "lost");
		return false;
	}
	if (!list[0])
		return true;
	ok = disk_read(name, "s", &d, error);
	if (ok && !disk_equal(&d, &g->snapshot.disk, &where)) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED,
			    "the snapshot has another byte at 0x%" PRIx64, where);
		ok = false;
	}
	disk_clear(&d);
	return ok;
}

/* ---- after the cut --------------------------------------------------------------------------- */

struct going_on {
	const char *name;
	uint64_t state;
	struct disk *d;
	GError **error;
};

static int go_on(void *arg)
{
	struct going_on *w = arg;
	struct image_open_options o = {.flags = IMAGE_RDWR};
	struct image *img = image_open(w->name, &o, w->error);
	int ret = 0;

	if (!img)
		return -1;
	for (unsigned i = 0; ret == 0 && i < 3; i++) {
		uint64_t len = 1 + next_random(&w->state) % MIN(w->d->size, 20000);
		uint64_t offset = next_random(&w->state) % (w->d->size - len + 1);

		memset(w->d->bytes + offset, 0xf0 + i, len);
		ret = image_write(img, offset, w->d->bytes + offset, len);
	}
	if (ret == 0)
		ret = image_flush(img);
	if (ret < 0)
		g_set_error(w->error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "going on after the cut: %s",
			    image_fault_text(img) ? image_fault_text(img) : g_strerror(-ret));
	image_unref(img);
	return ret;
}

bool guest_goes_on(const char *name, uint64_t seed, struct disk *d, GError **error)
{
	struct going_on w = {.name = name, .state = seed * 2 + 1, .d = d, .error = error};

	return run_in_loop(go_on, &w) == 0;
}
