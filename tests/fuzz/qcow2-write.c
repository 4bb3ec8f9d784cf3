/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes an image in every way. Of one that check finds nothing wrong with, what is read must be
 * what was written, and check must find nothing afterwards; one that is damaged must do no more
 * than refuse. The last bytes of the input say what is done.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/bytes.h"
#include "io/file-fault.h"

#define MODEL_MAX  (1u << 20) /* disks up to this size are compared whole */
#define WRITE_MAX  (40u << 10)
#define STEPS	   24
#define GROWTH_MAX (512u << 20) /* of 2 MiB clusters, some for each step */
#define PATIENCE   150

struct fuzz {
	struct file *file;
	struct image *img;
	uint64_t seed;
	bool sound;  /* nothing was wrong with it: it is judged, too */
	bool faulty; /* some I/O fails: contents are not judged */
	bool zstd;
	uint8_t *model;
	uint64_t size; /* of the model */
};

/* FUZZ_TRACE=1 tells each step, to find out what an input does. */
static void trace(const char *format, ...) G_GNUC_PRINTF(1, 2);
static void trace(const char *format, ...)
{
	static int on = -1;
	va_list ap;

	if (on < 0)
		on = getenv("FUZZ_TRACE") != NULL;
	if (!on)
		return;
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
}

static void tell(void *arg, const char *sentence)
{
	trace("  %s\n", sentence);
}

static unsigned asked;

static bool lose_patience(void)
{
	return ++asked > PATIENCE;
}

/* true: it was checked to its end. */
static bool check(struct file *f, enum check_repair repair, struct check_result *result)
{
	struct check_options options = {.tell = tell, .cancelled = lose_patience, .repair = repair};
	unsigned flags = IMAGE_FOR_CHECK | IMAGE_NO_DATA_FILES | (repair ? IMAGE_RDWR : 0);
	struct image *img = fuzz_open(f, "qcow2", flags);
	bool ok;

	memset(result, 0, sizeof(*result));
	asked = 0;
	ok = img && image_check(img, &options, result, NULL);
	image_unref(img);
	return ok;
}

static bool is_clean(struct file *f)
{
	struct check_result r;

	return check(f, CHECK_REPAIR_NONE, &r) && !r.corruptions && !r.leaks && !r.check_errors;
}

static bool is_sound(struct file *f)
{
	be32_t cluster_bits = {0};
	uint64_t size = file_size(f);
	struct image *img;
	bool sound;

	if (!is_clean(f))
		return false;
	/* With the counts of clusters that are not there yet, which check would not look at. */
	if (file_read(f, 20, &cluster_bits, sizeof(cluster_bits)) < 0 ||
	    file_truncate(f, size + (UINT64_C(4096) << (be32_get(cluster_bits) & 31))) < 0)
		return false;
	sound = is_clean(f);
	if (file_truncate(f, size) < 0 || !sound)
		return false;
	img = fuzz_open(f, "qcow2", 0);
	sound = img && !img->dirty && !img->corrupt;
	image_unref(img);
	return sound;
}

/* ---- what is done ---- */

static uint64_t below(struct fuzz *z, uint64_t n)
{
	return n ? fuzz_random(&z->seed) % n : 0;
}

/* A range that is now and then aligned. */
static uint64_t range(struct fuzz *z, uint64_t *offset)
{
	uint64_t align = UINT64_C(1) << below(z, 17), len;

	*offset = below(z, z->img->size);
	if (below(z, 2))
		*offset -= *offset % align;
	len = 1 + below(z, WRITE_MAX);
	if (below(z, 2))
		len = (len + align - 1) / align * align;
	return MIN(len, z->img->size - *offset);
}

static void note(struct fuzz *z, uint64_t offset, const uint8_t *buf, uint64_t len)
{
	uint64_t end = MIN(offset + len, z->size);

	if (!z->model || offset >= end)
		return;
	if (buf)
		memcpy(z->model + offset, buf, end - offset);
	else
		memset(z->model + offset, 0, end - offset);
}

static int write_some(struct fuzz *z, bool zeroes)
{
	uint64_t offset, len = z->img->size ? range(z, &offset) : 0;
	g_autofree uint8_t *buf = g_malloc(len + 1);
	int ret;

	if (!len)
		return 0;
	memset(buf, 1 + (int)below(z, 255), len);
	ret = zeroes ? image_write_zeroes(z->img, offset, len, below(z, 2))
		     : image_write(z->img, offset, buf, len);
	trace("%s %" PRIu64 " +%" PRIu64 ": %d\n", zeroes ? "zero" : "write", offset, len, ret);
	if (ret == 0)
		note(z, offset, zeroes ? NULL : buf, len);
	return ret;
}

/* What a discard leaves is not promised: it is looked at. */
static int discard_some(struct fuzz *z)
{
	uint64_t offset, len = z->img->size ? range(z, &offset) : 0;
	int ret = len ? image_discard(z->img, offset, len) : 0;

	trace("discard %" PRIu64 " +%" PRIu64 ": %d\n", len ? offset : 0, len, ret);
	if (ret == 0 && z->model && offset < z->size && len)
		ret = image_read(z->img, offset, z->model + offset, MIN(len, z->size - offset));
	return ret;
}

/* The disk is another one now. Check does not decode, so a compressed cluster may be garbage: then
 * there is no model. */
static int read_model(struct fuzz *z)
{
	int ret;

	g_clear_pointer(&z->model, g_free);
	z->size = z->img->size;
	if (!z->sound || z->size > MODEL_MAX)
		return 0;
	z->model = g_malloc(z->size + 1);
	ret = image_read(z->img, 0, z->model, z->size);
	if (ret < 0)
		g_clear_pointer(&z->model, g_free);
	return ret;
}

static bool change_snapshots(struct fuzz *z)
{
	static const char *const names[] = {"create", "delete", "rename", "apply"};
	g_autoptr(GPtrArray) list = image_snapshots(z->img, NULL);
	unsigned what = below(z, 4), i = below(z, list && list->len ? list->len : 1);
	bool ok = what == 0 || (list && list->len);

	if (ok && what == 0)
		ok = image_snapshot_create(z->img, "fuzz", NULL);
	else if (ok && what == 1)
		ok = image_snapshot_delete(z->img, i, NULL);
	else if (ok && what == 2)
		ok = image_snapshot_rename(z->img, i, "other", NULL);
	else if (ok)
		ok = image_snapshot_apply(z->img, i, NULL);
	trace("snapshot %s %u: %d\n", names[what], i, ok);
	return ok && (what != 3 || read_model(z) == 0);
}

static bool change_bitmaps(struct fuzz *z)
{
	const char *name = below(z, 2) ? "fuzz" : "b";
	unsigned what = below(z, 5);
	bool ok;

	if (what == 0)
		ok = image_bitmap_add(z->img, name, UINT64_C(512) << below(z, 10), NULL);
	else if (what == 1)
		ok = image_bitmap_remove(z->img, name, NULL);
	else if (what == 2)
		ok = image_bitmap_clear(z->img, name, NULL);
	else if (what == 3)
		ok = image_bitmap_enable(z->img, name, below(z, 2), NULL);
	else
		ok = image_bitmap_merge(z->img, name, z->img, below(z, 2) ? "fuzz" : "b", NULL);
	trace("bitmap %u %s: %d\n", what, name, ok);
	return ok;
}

/* A cluster encoded by deflate, whatever the codec of the image is. */
static bool write_coded(struct fuzz *z)
{
	uint32_t cluster = z->img->cluster_size;
	uint64_t offset = below(z, z->img->size + 1) / MAX(cluster, 1) * cluster;
	g_autofree uint8_t *plain = g_malloc(cluster + 1), *coded = g_malloc(cluster + 1);
	int64_t len;
	int ret;

	memset(plain, 1 + (int)below(z, 255), cluster);
	len = codec_deflate.encode(plain, cluster, coded, cluster, 0);
	if (len <= 0 || offset + cluster > z->img->size)
		return true;
	ret = image_write_coded(z->img, offset, coded, len);
	trace("coded %" PRIu64 ": %d\n", offset, ret);
	/* With another codec it is garbage, which nobody looks at before it is read. */
	if (ret == 0 && z->model && z->zstd)
		g_clear_pointer(&z->model, g_free);
	else if (ret == 0)
		note(z, offset, plain, cluster);
	return ret == 0;
}

static bool resize(struct fuzz *z)
{
	uint64_t size = below(z, 4) ? below(z, MODEL_MAX) : below(z, 1 << 28);
	uint64_t old = z->size;
	g_autofree uint8_t *was = g_steal_pointer(&z->model);

	size &= ~UINT64_C(511);
	if (!image_resize(z->img, size, NULL, NULL)) {
		trace("resize %" PRIu64 ": 0\n", size);
		z->model = g_steal_pointer(&was);
		return false;
	}
	trace("resize %" PRIu64 ": 1\n", size);
	if (read_model(z) < 0)
		return false;
	/* A write that failed may have got halfway. */
	if (was && z->model && !z->faulty && memcmp(was, z->model, MIN(old, z->size)) != 0)
		abort();
	if (was && z->model && z->size > old && !buffer_is_zero(z->model + old, z->size - old))
		abort();
	return true;
}

static bool step(struct fuzz *z)
{
	switch (below(z, 14)) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
		return write_some(z, false) == 0;
	case 5:
		return write_some(z, true) == 0;
	case 6:
		return discard_some(z) == 0;
	case 7:
	case 8:
		trace("flush\n");
		return image_flush(z->img) == 0;
	case 9:
		return resize(z);
	case 10:
		return change_bitmaps(z);
	case 11:
		return write_coded(z);
	default:
		return change_snapshots(z);
	}
}

/* ---- judging ---- */

static void compare(const struct fuzz *z, struct image *img)
{
	g_autofree uint8_t *now = NULL;

	if (!z->model || z->faulty)
		return;
	now = g_malloc(z->size + 1);
	if (img->size != z->size || image_read(img, 0, now, z->size) < 0)
		abort();
	for (uint64_t i = 0; i < z->size; i++) {
		if (now[i] == z->model[i])
			continue;
		trace("byte %" PRIu64 " is 0x%02x, not 0x%02x\n", i, now[i], z->model[i]);
		abort();
	}
}

static void judge(const struct fuzz *z, struct file *f)
{
	struct check_result r;
	struct image *img;

	if (file_size(f) > GROWTH_MAX)
		abort();
	if (!z->sound || !check(f, CHECK_REPAIR_NONE, &r))
		return;
	/* A fault may leave counts too high, and flags that do not agree with them. */
	if (z->faulty && (r.corruptions || r.leaks))
		check(f, CHECK_REPAIR_LEAKS, &r);
	if (z->faulty && !check(f, CHECK_REPAIR_NONE, &r))
		return;
	if (r.corruptions || r.leaks || r.check_errors)
		abort();
	img = fuzz_open(f, "qcow2", 0);
	if (!img)
		abort();
	compare(z, img);
	image_unref(img);
}

static void change(struct fuzz *z, struct file *f)
{
	z->img = fuzz_open(f, "qcow2", IMAGE_RDWR);
	if (!z->img)
		return;
	read_model(z);
	for (unsigned i = 0; i < STEPS; i++) {
		if (!step(z) && z->sound && !z->faulty && below(z, 2))
			break; /* refused: too small for a table, or not there */
		trace("    the file has %" PRIu64 " bytes\n", file_size(f));
	}
	compare(z, z->img);
	image_unref(z->img);
}

static void body(void *arg)
{
	struct fuzz *z = arg;
	struct fault_plan plan = {
		.kinds = 1 << FAULT_WRITE | 1 << FAULT_FLUSH | 1 << FAULT_TRUNCATE,
		.error = ENOSPC,
	};
	struct file *faulty = NULL;
	struct check_result result;
	uint8_t codec = 0;

	z->sound = is_sound(z->file);
	z->zstd = file_read(z->file, 104, &codec, 1) == 0 && codec == 1;
	trace("sound %d\n", z->sound);
	z->faulty = below(z, 4) == 0;
	if (z->faulty) {
		plan.nth = 1 + below(z, 40);
		plan.forever = below(z, 2);
		faulty = file_new_fault(z->file);
		file_fault_follow(faulty, &plan);
		trace("fault at %" PRIu64 "%s\n", plan.nth, plan.forever ? " for ever" : "");
	}
	change(z, faulty ? faulty : z->file);
	file_unref(faulty);
	judge(z, z->file);
	if (!z->sound)
		check(z->file, below(z, 2) ? CHECK_REPAIR_ALL : CHECK_REPAIR_LEAKS, &result);
	g_free(z->model);
}

static bool is_too_much(struct file *f)
{
	be32_t count = {0};

	return file_read(f, 60, &count, sizeof(count)) < 0 || be32_get(count) > 64;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz z = {.file = fuzz_file(data, size)};

	if (size >= 2)
		z.seed = data[size - 1] | data[size - 2] << 8;
	if (z.file && !is_too_much(z.file))
		fuzz_run(body, &z);
	file_unref(z.file);
	return 0;
}
