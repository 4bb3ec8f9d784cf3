/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <config.h>

#include "io/co.h"
#include "io/file-fault.h"
#include "io/file-internal.h"

#include <errno.h>

struct fault {
	uint64_t countdown; /* 0: none is due */
	int error;
	bool forever;
	uint64_t count;
};

struct fault_file {
	struct file base;
	struct file *inner;
	struct fault faults[FAULT_OPS];
	struct fault_plan *plan; /* NULL: none */
	uint64_t changes;
	bool unsynced; /* counted in the plan */
	bool yield;
};

static int follow(struct fault_plan *plan, enum fault_op op)
{
	if (!plan || !(plan->kinds & 1u << op))
		return 0;
	plan->count++;
	if (plan->nth == 0 || plan->count < plan->nth ||
	    (plan->count > plan->nth && !plan->forever))
		return 0;
	plan->failed++;
	return -plan->error;
}

/* Counts the operation: 0 to go on, or the error that it ends in. */
static int meet(struct file *f, enum fault_op op)
{
	struct fault_file *ff = (struct fault_file *)f;
	struct fault *fault = &ff->faults[op];

	if (ff->yield && co_self())
		co_relax();
	fault->count++;
	if (fault->countdown == 0 || --fault->countdown > 0)
		return follow(ff->plan, op);
	if (fault->forever)
		fault->countdown = 1;
	return -fault->error;
}

static void note_change(struct file *f)
{
	struct fault_file *ff = (struct fault_file *)f;

	ff->changes++;
	if (ff->plan && !ff->unsynced) {
		ff->unsynced = true;
		ff->plan->unsynced++;
	}
}

static void note_synced(struct fault_file *ff, uint64_t changes)
{
	if (ff->unsynced && ff->changes == changes) {
		ff->unsynced = false;
		ff->plan->unsynced--;
	}
}

static struct file *inner_of(struct file *f)
{
	return ((struct fault_file *)f)->inner;
}

static int fault_readv(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
		       size_t len)
{
	int ret = meet(f, FAULT_READ);

	return ret < 0 ? ret : file_readv(inner_of(f), offset, iov, niov);
}

static size_t fault_read_nowait(struct file *f, uint64_t offset, void *buf, size_t len)
{
	struct fault_file *ff = (struct fault_file *)f;

	/* Neither may it yield nor fail: the real read does, if there is something to
	 * be done. */
	if (ff->yield || ff->faults[FAULT_READ].countdown > 0 || ff->plan)
		return 0;
	return file_read_nowait(ff->inner, offset, buf, len);
}

static int fault_writev(struct file *f, uint64_t offset, const struct iovec *iov, int niov,
			size_t len)
{
	int ret = meet(f, FAULT_WRITE);

	note_change(f);
	return ret < 0 ? ret : file_writev(inner_of(f), offset, iov, niov);
}

static int fault_flush(struct file *f)
{
	struct fault_file *ff = (struct fault_file *)f;
	uint64_t changes = ff->changes;
	int ret = meet(f, FAULT_FLUSH);

	if (ret == 0)
		ret = file_flush(ff->inner);
	if (ret == 0)
		note_synced(ff, changes);
	return ret;
}

static int fault_truncate(struct file *f, uint64_t size)
{
	int ret = meet(f, FAULT_TRUNCATE);

	note_change(f);
	return ret < 0 ? ret : file_truncate(inner_of(f), size);
}

static int fault_change(struct file *f, enum file_change what, uint64_t offset, uint64_t len)
{
	int ret = meet(f, FAULT_CHANGE);

	note_change(f);
	return ret < 0 ? ret : file_change(inner_of(f), what, offset, len);
}

static int64_t fault_copy_range(struct file *from, uint64_t from_offset, struct file *to,
				uint64_t to_offset, uint64_t len)
{
	int ret = meet(from, FAULT_READ);

	if (ret == 0)
		ret = meet(to, FAULT_WRITE);
	if (ret < 0)
		return ret;
	note_change(to);
	return file_copy_range(inner_of(from), from_offset, inner_of(to), to_offset, len);
}

static int fault_extent(struct file *f, uint64_t offset, bool *is_data, uint64_t *end)
{
	return file_inner_extent(f, inner_of(f), offset, is_data, end);
}

static void fault_readahead(struct file *f, uint64_t offset, uint64_t len)
{
	file_readahead(inner_of(f), offset, len);
}

static int fault_measure(struct file *f, uint64_t *size, int64_t *allocated)
{
	return file_inner_measure(inner_of(f), size, allocated);
}

static bool fault_set_writable(struct file *f, bool writable, GError **error)
{
	return file_set_writable(inner_of(f), writable, error);
}

static void fault_close(struct file *f)
{
	file_unref(inner_of(f));
	file_fini(f);
	g_free(f);
}

static const struct file_ops fault_ops = {
	.readv = fault_readv,
	.read_nowait = fault_read_nowait,
	.writev = fault_writev,
	.flush = fault_flush,
	.truncate = fault_truncate,
	.change = fault_change,
	.copy_range = fault_copy_range,
	.extent = fault_extent,
	.readahead = fault_readahead,
	.measure = fault_measure,
	.set_writable = fault_set_writable,
	.close = fault_close,
};

struct file *file_new_fault(struct file *inner)
{
	struct fault_file *ff = g_new0(struct fault_file, 1);

	file_init(&ff->base, &fault_ops, file_name(inner));
	ff->inner = file_ref(inner);
	file_inner_look(&ff->base, inner);
	return &ff->base;
}

static struct fault_file *as_fault(struct file *f)
{
	g_assert(f->ops == &fault_ops);
	return (struct fault_file *)f;
}

void file_fault_set(struct file *f, enum fault_op op, uint64_t nth, int error, bool forever)
{
	struct fault *fault = &as_fault(f)->faults[op];

	fault->countdown = nth;
	fault->error = error;
	fault->forever = forever;
}

uint64_t file_fault_count(const struct file *f, enum fault_op op)
{
	return as_fault((struct file *)f)->faults[op].count;
}

void file_fault_cut(struct file *f)
{
	for (enum fault_op op = FAULT_WRITE; op < FAULT_OPS; op++)
		file_fault_set(f, op, 1, EIO, true);
}

void file_fault_follow(struct file *f, struct fault_plan *plan)
{
	as_fault(f)->plan = plan;
}

void file_fault_yield(struct file *f, bool yield)
{
	as_fault(f)->yield = yield;
}
