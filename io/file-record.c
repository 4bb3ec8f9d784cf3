/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <config.h>

#include "io/co.h"
#include "io/file-internal.h"
#include "io/file-record.h"
#include "io/iov.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define SECTOR	 512u
#define TEAR_MAX (4u << 20) /* longer ranges are not torn: millions of sectors tell nothing new */
#define COPY	 (256u << 10)
#define NEVER	 SIZE_MAX

enum entry_kind {
	ENTRY_WRITE,
	ENTRY_ZERO,
	ENTRY_PUNCH,
	ENTRY_GROW,
	ENTRY_SIZE,
	ENTRY_FLUSH,
	ENTRY_NOTHING
};

struct entry {
	enum entry_kind kind;
	unsigned file;
	uint64_t offset, len; /* SIZE: the new size in offset */
	void *data;	      /* of a WRITE */
	size_t finished;      /* position at which it had returned; NEVER: not yet, or failed */
	size_t durable;	      /* position from which on no cut loses it */
};

struct recorded {
	char *name;
	dev_t dev;
	ino_t ino;
	struct file *initial; /* in memory */
	uint64_t size;	      /* as of the end of the log */
};

struct record_log {
	GPtrArray *entries; /* of struct entry */
	GPtrArray *files;   /* of struct recorded */
	bool yield;
	unsigned open; /* record files that exist */
};

struct record_file {
	struct file base;
	struct file *inner;
	struct record_log *log;
	unsigned number;
};

/* ---- the log --------------------------------------------------------------------------------- */

static void entry_free(void *p)
{
	struct entry *e = p;

	g_free(e->data);
	g_free(e);
}

static void recorded_free(void *p)
{
	struct recorded *r = p;

	file_unref(r->initial);
	g_free(r->name);
	g_free(r);
}

struct record_log *record_log_new(void)
{
	struct record_log *log = g_new0(struct record_log, 1);

	log->entries = g_ptr_array_new_with_free_func(entry_free);
	log->files = g_ptr_array_new_with_free_func(recorded_free);
	return log;
}

void record_log_free(struct record_log *log)
{
	g_assert(log->open == 0);
	g_ptr_array_unref(log->entries);
	g_ptr_array_unref(log->files);
	g_free(log);
}

void record_log_yield(struct record_log *log, bool yield)
{
	log->yield = yield;
}

unsigned record_log_files(const struct record_log *log)
{
	return log->files->len;
}

static struct recorded *recorded_at(const struct record_log *log, unsigned file)
{
	g_assert(file < log->files->len);
	return g_ptr_array_index(log->files, file);
}

static struct entry *entry_at(const struct record_log *log, size_t n)
{
	return g_ptr_array_index(log->entries, n);
}

const char *record_log_name(const struct record_log *log, unsigned file)
{
	return recorded_at(log, file)->name;
}

size_t record_log_length(const struct record_log *log)
{
	return log->entries->len;
}

static struct entry *add_entry(struct record_log *log, enum entry_kind kind, unsigned file,
			       uint64_t offset, uint64_t len)
{
	struct entry *e = g_new0(struct entry, 1);

	*e = (struct entry){.kind = kind, .file = file, .offset = offset, .len = len};
	e->finished = e->durable = NEVER;
	g_ptr_array_add(log->entries, e);
	return e;
}

bool record_log_flushed(const struct record_log *log, size_t position)
{
	return position > 0 && entry_at(log, position - 1)->kind == ENTRY_FLUSH;
}

static bool changes_file(const struct entry *e)
{
	return e->kind < ENTRY_FLUSH;
}

static bool is_pending(const struct entry *e, size_t position)
{
	return changes_file(e) && e->durable > position;
}

/* Of the first `end` entries. */
static unsigned pending_before(const struct record_log *log, size_t end, size_t position)
{
	unsigned n = 0;

	for (size_t i = 0; i < end; i++)
		n += is_pending(entry_at(log, i), position);
	return n;
}

unsigned record_log_pending(const struct record_log *log, size_t position)
{
	return pending_before(log, position, position);
}

/* ---- the files ------------------------------------------------------------------------------- */

static struct record_file *as_record(struct file *f)
{
	return (struct record_file *)f;
}

static void relax(struct record_file *rf)
{
	if (rf->log->yield && co_self())
		co_relax();
}

/* The entry is in the log already: a cut may come while the operation is under way. */
static int finish(struct record_file *rf, struct entry *e, int ret)
{
	struct recorded *r = recorded_at(rf->log, rf->number);

	if (ret < 0) {
		/* What failed is taken to have done nothing: inner is a file that works. */
		e->kind = ENTRY_NOTHING;
		return ret;
	}
	e->finished = rf->log->entries->len;
	if (e->kind == ENTRY_SIZE)
		r->size = e->offset;
	else if (e->kind != ENTRY_PUNCH)
		r->size = MAX(r->size, e->offset + e->len);
	return 0;
}

static int record_readv(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
			size_t len)
{
	relax(as_record(f));
	return file_readv(as_record(f)->inner, offset, iov, niov);
}

static size_t record_read_nowait(struct file *f, uint64_t offset, void *buf, size_t len)
{
	struct record_file *rf = as_record(f);

	return rf->log->yield ? 0 : file_read_nowait(rf->inner, offset, buf, len);
}

static int record_writev(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
			 size_t len)
{
	struct record_file *rf = as_record(f);
	struct entry *e = add_entry(rf->log, ENTRY_WRITE, rf->number, offset, len);
	struct iov_walk w;

	int ret;

	e->data = g_malloc(len);
	iov_walk_init(&w, iov, niov);
	iov_walk_copy_out(&w, e->data, len);
	relax(rf);
	ret = finish(rf, e, file_writev(rf->inner, offset, iov, niov));
	if (ret == 0 && f->sync_changes) {
		/* O_DSYNC: as if a flush of this write alone had followed. */
		add_entry(rf->log, ENTRY_FLUSH, rf->number, 0, 0);
		e->durable = rf->log->entries->len;
	}
	return ret;
}

/* What this flush will cover: all that has returned by now, and was not covered before. */
static GPtrArray *returned_entries(const struct record_file *rf)
{
	GPtrArray *list = g_ptr_array_new();

	for (size_t i = 0; i < rf->log->entries->len; i++) {
		struct entry *e = entry_at(rf->log, i);

		if (changes_file(e) && e->file == rf->number && e->finished != NEVER &&
		    e->durable == NEVER)
			g_ptr_array_add(list, e);
	}
	return list;
}

static int record_flush(struct file *f)
{
	struct record_file *rf = as_record(f);
	g_autoptr(GPtrArray) covered = returned_entries(rf);
	int ret;

	relax(rf);
	ret = file_flush(rf->inner);
	if (ret < 0)
		return ret;
	add_entry(rf->log, ENTRY_FLUSH, rf->number, 0, 0);
	for (guint i = 0; i < covered->len; i++) {
		struct entry *e = g_ptr_array_index(covered, i);

		e->durable = MIN(e->durable, rf->log->entries->len);
	}
	return 0;
}

static int record_truncate(struct file *f, uint64_t size)
{
	struct record_file *rf = as_record(f);
	struct entry *e = add_entry(rf->log, ENTRY_SIZE, rf->number, size, 0);

	relax(rf);
	return finish(rf, e, file_truncate(rf->inner, size));
}

static int record_change(struct file *f, enum file_change what, uint64_t offset, uint64_t len)
{
	static const enum entry_kind kinds[] = {
		[CHANGE_ALLOCATE] = ENTRY_GROW,
		[CHANGE_ZERO] = ENTRY_ZERO,
		[CHANGE_PUNCH] = ENTRY_PUNCH,
	};
	struct record_file *rf = as_record(f);
	struct entry *e = add_entry(rf->log, kinds[what], rf->number, offset, len);

	relax(rf);
	return finish(rf, e, file_change(rf->inner, what, offset, len));
}

/* By hand, because the log needs the bytes. */
static int64_t record_copy_range(struct file *from, uint64_t from_offset, struct file *to,
				 uint64_t to_offset, uint64_t len)
{
	g_autofree void *buf = g_malloc(COPY);
	struct iovec iov = {.iov_base = buf};
	int ret;

	if (from_offset >= from->size)
		return 0;
	iov.iov_len = (size_t)MIN(MIN(len, from->size - from_offset), COPY);
	ret = record_readv(from, from_offset, &iov, 1, iov.iov_len);
	if (ret == 0)
		ret = record_writev(to, to_offset, &iov, 1, iov.iov_len);
	return ret < 0 ? ret : (int64_t)iov.iov_len;
}

static int record_extent(struct file *f, uint64_t offset, bool *is_data, uint64_t *end)
{
	return file_inner_extent(f, as_record(f)->inner, offset, is_data, end);
}

static int record_measure(struct file *f, uint64_t *size, int64_t *allocated)
{
	return file_inner_measure(as_record(f)->inner, size, allocated);
}

static bool record_set_writable(struct file *f, bool writable, GError **error)
{
	return file_set_writable(as_record(f)->inner, writable, error);
}

static void record_close(struct file *f)
{
	struct record_file *rf = as_record(f);

	rf->log->open--;
	file_unref(rf->inner);
	file_fini(f);
	g_free(f);
}

static const struct file_ops record_ops = {
	.readv = record_readv,
	.read_nowait = record_read_nowait,
	.writev = record_writev,
	.flush = record_flush,
	.truncate = record_truncate,
	.change = record_change,
	.copy_range = record_copy_range,
	.extent = record_extent,
	.measure = record_measure,
	.set_writable = record_set_writable,
	.close = record_close,
};

int record_copy_data(struct file *from, struct file *to)
{
	g_autofree void *buf = g_malloc(COPY);
	int ret = 0;

	for (uint64_t at = 0, run; ret == 0 && at < file_size(from); at += run) {
		bool is_data = false;

		ret = file_extent(from, at, file_size(from) - at, &is_data, &run);
		if (ret < 0 || !is_data)
			continue;
		run = MIN(run, COPY);
		ret = file_read(from, at, buf, run);
		if (ret == 0)
			ret = file_write(to, at, buf, run);
	}
	return ret;
}

/* A file in memory with the bytes and the holes of f. May yield. */
static struct file *copy_file(struct file *f)
{
	struct file *copy = file_new_memory(file_name(f), NULL, file_size(f));

	g_assert(record_copy_data(f, copy) == 0);
	return copy;
}

static unsigned find_recorded(struct record_log *log, const struct stat *st)
{
	unsigned n = 0;

	for (; n < log->files->len; n++)
		if (recorded_at(log, n)->ino == st->st_ino &&
		    recorded_at(log, n)->dev == st->st_dev)
			break;
	return n;
}

struct file *record_file(struct record_log *log, struct file *inner)
{
	struct record_file *rf = g_new0(struct record_file, 1);
	unsigned number = find_recorded(log, file_stat(inner));

	if (number == log->files->len) {
		struct recorded *r = g_new0(struct recorded, 1);

		r->name = g_strdup(file_name(inner));
		r->dev = file_stat(inner)->st_dev;
		r->ino = file_stat(inner)->st_ino;
		r->size = file_size(inner);
		r->initial = copy_file(inner);
		g_ptr_array_add(log->files, r);
	} else if (recorded_at(log, number)->size != file_size(inner)) {
		/* Cut when it was opened, which is below this layer. */
		struct entry *e = add_entry(log, ENTRY_SIZE, number, file_size(inner), 0);

		e->finished = log->entries->len;
		recorded_at(log, number)->size = file_size(inner);
	}
	file_init(&rf->base, &record_ops, file_name(inner));
	rf->inner = file_ref(inner);
	rf->log = log;
	rf->number = number;
	file_inner_look(&rf->base, inner);
	log->open++;
	return &rf->base;
}

struct file *record_opened(struct file *opened, void *log)
{
	struct file *f = record_file(log, opened);

	file_unref(opened);
	return f;
}

/* ---- cuts ------------------------------------------------------------------------------------ */

/* A number that depends on all three and on nothing else (the finalizer of splitmix64). */
static uint64_t chance(uint64_t seed, uint64_t a, uint64_t b)
{
	uint64_t x = seed + a * UINT64_C(0x9e3779b97f4a7c15) + b * UINT64_C(0xd1342543de82ef95);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* What a seed means: how it decides, and about which operation in particular. */
struct fate {
	uint64_t seed;
	enum {
		FATE_LOSE_ALL,
		FATE_KEEP_ALL,
		FATE_MANY,
		FATE_FEW,
		FATE_HALF,
		FATE_ONLY_ONE,
		FATE_ALL_BUT_ONE,
		FATE_SUBSET,
	} style;
	size_t one;
	const struct record_log *log;
	size_t position;
};

static struct fate fate_of(const struct record_log *log, size_t position, uint64_t seed)
{
	/* One alone and all but one find most wrong orders between two writes. */
	static const int styles[] = {FATE_ONLY_ONE, FATE_ALL_BUT_ONE, FATE_HALF, FATE_MANY,
				     FATE_ONLY_ONE, FATE_FEW,	      FATE_HALF, FATE_ALL_BUT_ONE};
	struct fate fate = {.seed = seed, .log = log, .position = position};
	unsigned pending, chosen;

	if (seed == RECORD_LOSE_ALL || seed == RECORD_KEEP_ALL) {
		fate.style = seed == RECORD_KEEP_ALL ? FATE_KEEP_ALL : FATE_LOSE_ALL;
		return fate;
	}
	if (seed >> 63) {
		fate.style = FATE_SUBSET;
		return fate;
	}
	fate.style = styles[seed % G_N_ELEMENTS(styles)];
	pending = record_log_pending(log, position);
	chosen = pending ? chance(seed, position, 1) % pending : 0;
	for (size_t i = 0; i < position; i++)
		if (is_pending(entry_at(log, i), position) && chosen-- == 0)
			fate.one = i;
	return fate;
}

/* Which sectors of a pending operation survive. */
enum survival { SURVIVES_NOT, SURVIVES, SURVIVES_TORN };

static enum survival survival_of(const struct fate *fate, size_t n)
{
	unsigned coin = chance(fate->seed, n, 2) % 100, nth;
	unsigned torn = chance(fate->seed, n, 3) % 100 < 15 ? SURVIVES_TORN : SURVIVES;

	switch (fate->style) {
	case FATE_LOSE_ALL:
		return SURVIVES_NOT;
	case FATE_KEEP_ALL:
		return SURVIVES;
	case FATE_MANY:
		return coin < 88 ? torn : SURVIVES_NOT;
	case FATE_FEW:
		return coin < 12 ? torn : SURVIVES_NOT;
	case FATE_HALF:
		return coin < 50 ? torn : SURVIVES_NOT;
	case FATE_ONLY_ONE:
		return n == fate->one ? torn : SURVIVES_NOT;
	case FATE_SUBSET:
		nth = pending_before(fate->log, n, fate->position);
		return nth < 63 && fate->seed >> nth & 1 ? SURVIVES : SURVIVES_NOT;
	case FATE_ALL_BUT_ONE:
		/* Of the one, sometimes a part. */
		return n != fate->one ? SURVIVES : coin < 30 ? SURVIVES_TORN : SURVIVES_NOT;
	}
	g_assert_not_reached();
}

static void apply_range(struct file *f, const struct entry *e, uint64_t offset, uint64_t len)
{
	int ret = 0;

	if (e->kind == ENTRY_WRITE)
		ret = file_write(f, offset, (char *)e->data + (offset - e->offset), len);
	else if (e->kind == ENTRY_ZERO)
		ret = file_zero(f, offset, len);
	else if (offset < file_size(f))
		ret = file_punch(f, offset, len);
	g_assert(ret == 0);
}

static void grow(struct file *f, uint64_t size)
{
	if (size > file_size(f))
		g_assert(file_truncate(f, size) == 0);
}

static void apply(struct file *f, const struct entry *e)
{
	if (e->kind == ENTRY_SIZE)
		g_assert(file_truncate(f, e->offset) == 0);
	else if (e->kind == ENTRY_GROW)
		grow(f, e->offset + e->len);
	else
		apply_range(f, e, e->offset, e->len);
}

static void apply_torn(struct file *f, const struct entry *e, size_t n, uint64_t seed)
{
	uint64_t end = e->offset + e->len, next;

	if (e->kind == ENTRY_SIZE || e->kind == ENTRY_GROW || e->len > TEAR_MAX) {
		apply(f, e);
		return;
	}
	for (uint64_t at = e->offset; at < end; at = next) {
		next = MIN(end, at - at % SECTOR + SECTOR);
		if (chance(seed, n, at / SECTOR + 100) % 2)
			apply_range(f, e, at, next - at);
	}
}

/* File systems may have recorded the new size although the bytes never came. */
static void apply_growth_only(struct file *f, const struct entry *e, size_t n, uint64_t seed)
{
	if ((e->kind == ENTRY_WRITE || e->kind == ENTRY_ZERO) && seed != RECORD_LOSE_ALL &&
	    !(seed >> 63) && chance(seed, n, 4) % 4 == 0)
		grow(f, e->offset + e->len);
}

static void apply_fate(struct file *f, const struct record_log *log, size_t n, size_t position,
		       const struct fate *fate)
{
	const struct entry *e = entry_at(log, n);

	if (!is_pending(e, position)) {
		apply(f, e);
		return;
	}
	switch (survival_of(fate, n)) {
	case SURVIVES:
		apply(f, e);
		break;
	case SURVIVES_TORN:
		apply_torn(f, e, n, fate->seed);
		break;
	case SURVIVES_NOT:
		apply_growth_only(f, e, n, fate->seed);
		break;
	}
}

/* Were both under way at one time, so that the later one may have reached the disk first? */
static bool may_swap(const struct record_log *log, size_t a, size_t b, size_t position)
{
	return is_pending(entry_at(log, a), position) && is_pending(entry_at(log, b), position) &&
	       entry_at(log, a)->finished > b;
}

struct file *record_log_cut(const struct record_log *log, unsigned file, size_t position,
			    uint64_t seed)
{
	struct fate fate = fate_of(log, position, seed);
	struct file *f = copy_file(recorded_at(log, file)->initial);
	size_t held = NEVER; /* an entry that the one after it overtakes */

	g_assert(position <= log->entries->len);
	for (size_t i = 0; i < position; i++) {
		const struct entry *e = entry_at(log, i);

		if (e->file != file || !changes_file(e))
			continue;
		if (held == NEVER) {
			held = i;
			continue;
		}
		if (seed > RECORD_KEEP_ALL && !(seed >> 63) && may_swap(log, held, i, position) &&
		    chance(seed, i, 5) % 2) {
			apply_fate(f, log, i, position, &fate);
		} else {
			apply_fate(f, log, held, position, &fate);
			held = i;
		}
	}
	if (held != NEVER)
		apply_fate(f, log, held, position, &fate);
	return f;
}

char *record_log_describe(const struct record_log *log, size_t from, size_t to, uint64_t seed)
{
	static const char *const kinds[] = {"write", "zero",  "punch", "grow",
					    "size",  "flush", "failed"};
	static const char *const fates[] = {" LOST", " kept", " TORN"};
	struct fate fate = fate_of(log, to, seed);
	GString *s = g_string_new(NULL);

	for (size_t i = from; i < to; i++) {
		const struct entry *e = entry_at(log, i);
		const char *word = is_pending(e, to) ? fates[survival_of(&fate, i)] : "";

		g_string_append_printf(s, "%zu %s %s", i, record_log_name(log, e->file),
				       kinds[e->kind]);
		if (e->kind != ENTRY_FLUSH)
			g_string_append_printf(s, " 0x%" PRIx64 "+0x%" PRIx64 "%s", e->offset,
					       e->len, word);
		g_string_append_c(s, '\n');
	}
	return g_string_free(s, FALSE);
}
