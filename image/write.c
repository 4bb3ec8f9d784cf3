/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing. In place where the map says so; else reserve -> fill -> write ->
 * commit: the table entry comes last, so no table ever points at bytes that were not
 * written, whatever fails in between. An exclusive range lock is held from the map to the end of
 * the I/O, widened to whole clusters because a claim covers whole clusters.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/bitmap.h"
#include "image/core.h"

#define ZERO_CHUNK (64u << 10)
#define MIN_HOLE   (64u << 10)
/* Zeroes inside of a longer write are looked for in steps of it. */
#define DETECT_STEP (64u << 10)

static uint64_t grain_of(const struct image *img)
{
	return img->cluster_size ? img->cluster_size : 1;
}

/* Where writes are to last at once, their table entries are too. */
static int through(struct image *img, int ret)
{
	enum cache_mode mode = img->core->options.cache;

	if (ret < 0 || !img->format->flush)
		return ret;
	return mode == CACHE_WRITETHROUGH || mode == CACHE_DIRECTSYNC ? image_flush(img) : 0;
}

static bool extra_sync_failed(const struct image *img)
{
	const GPtrArray *extra = img->core->extra_files;

	for (guint i = 0; extra && i < extra->len; i++)
		if (file_sync_failed(g_ptr_array_index(extra, i)))
			return true;
	return false;
}

/* Who tracks changes knows of them before they are made. */
static int tell_change(struct image *img, uint64_t offset, uint64_t len)
{
	int ret;

	if (img->core->changes && bitmap_set(img->core->changes, offset, len) < 0)
		return -ENOMEM;
	if (!img->tracks_changes)
		return 0;
	co_rwlock_wrlock(&img->core->lock);
	ret = img->format->will_change(img, offset, len);
	co_rwlock_unlock(&img->core->lock);
	return ret;
}

static int check_writable(struct image *img, uint64_t offset, uint64_t len)
{
	if (!(img->flags & IMAGE_RDWR))
		return -EROFS;
	if (offset > img->size || len > img->size - offset)
		return -EINVAL;
	/* After a sync that failed nobody can promise that a later write will last. */
	if (!file_sync_failed(img->file) && !extra_sync_failed(img))
		return 0;
	image_fault(img, EIO, offset,
		    "nothing is written any more: a sync failed, and what was written before it "
		    "may be lost");
	return -EIO;
}

/* The disk may have become smaller, or a sync failed, while this waited: asked again. To be
 * unlocked in any case. */
static int lock_clusters(struct image *img, struct disk_lock *l, uint64_t offset, uint64_t len)
{
	uint64_t grain = grain_of(img), start = offset - offset % grain;
	uint64_t end = offset + len;

	end += (grain - end % grain) % grain;
	/* Two writers must not make half a header each. */
	if (img->core->stays_raw && start < PROBE_HEAD) {
		start = 0;
		end = MAX(end, PROBE_HEAD);
	}
	disk_lock(img, l, start, end - start, true);
	return check_writable(img, offset, len);
}

/* See image_write of image.h; the range is locked. iov NULL: zeroes. */
static int check_stays_raw(struct image *img, uint64_t offset, const struct iovec *iov, int niov,
			   uint64_t len)
{
	const struct format *format;
	uint64_t size = file_size(img->file);
	int ret;

	if (!img->core->stays_raw ||
	    (offset >= PROBE_HEAD && (size > PROBE_TAIL && offset + len <= size - PROBE_TAIL)))
		return 0;
	ret = probe_changed(img->file, offset, iov, niov, len, &format);
	if (ret < 0 || format == img->format)
		return ret;
	image_fault(img, -EPERM, offset,
		    "with this write the image would be taken for %s from then on; where that is "
		    "meant, say that its format is raw (imgtool: -f raw, imgfs: -o format=raw)",
		    format->name);
	return -EPERM;
}

/* ---- reserve, fill, write, commit ----------------------------------------------------------- */

/* The untouched bytes [from, to) of a claimed unit, as they were readable before. */
static int fill_part(struct image *img, uint64_t from, uint64_t to, struct iovec *iov)
{
	uint64_t inside = from < img->size ? MIN(to, img->size) - from : 0;
	struct iovec read;

	*iov = (struct iovec){NULL, to - from};
	if (to == from)
		return 0;
	iov->iov_base = calloc(1, to - from); /* past the disk's end: zeroes */
	if (!iov->iov_base)
		return -ENOMEM;
	read = (struct iovec){iov->iov_base, inside};
	return inside ? read_unlocked(img, from, &read, 1, NULL) : 0;
}

/* Is there nothing to fill in: does [from, to) read as zeroes, without a look at any data? */
static bool is_blank(struct image *img, uint64_t from, uint64_t to)
{
	to = MIN(to, img->size);
	while (from < to) {
		struct extent e;

		if (image_map(img, from, to - from, NULL, &e) < 0 || !extent_is_zero(&e))
			return false;
		from += e.len;
	}
	return true;
}

/* One write of the whole unit: head, data, tail. Zeroes that are there already are not written. */
static int write_filled(struct image *img, const struct claim *c, uint64_t offset,
			const struct iovec *iov, int niov, size_t len)
{
	struct iovec *all = g_new(struct iovec, niov + 2);
	struct iovec tail = {0};
	uint64_t start = c->start, end = c->start + c->len;
	int ret;

	if (c->fresh && is_blank(img, start, offset))
		start = offset;
	if (c->fresh && is_blank(img, offset + len, end))
		end = offset + len;
	ret = fill_part(img, start, offset, &all[0]);
	if (ret == 0)
		ret = fill_part(img, offset + len, end, &tail);
	if (ret == 0) {
		memcpy(all + 1, iov, niov * sizeof(*iov));
		all[niov + 1] = tail;
		ret = file_writev(c->file, c->host + (start - c->start), all, niov + 2);
	}
	free(all[0].iov_base);
	free(tail.iov_base);
	g_free(all);
	return ret;
}

int claim_end(struct image *img, struct claim *c, int ret)
{
	co_rwlock_wrlock(&img->core->lock);
	if (ret < 0)
		img->format->abandon(img, c);
	else
		ret = img->format->commit(img, c);
	co_rwlock_unlock(&img->core->lock);
	return ret;
}

/* Writes the front of iov (len bytes) that one claim takes; *done says how many. */
static int write_claim(struct image *img, uint64_t offset, const struct iovec *iov, int niov,
		       size_t len, size_t *done)
{
	struct claim c = {0};
	struct iovec *slice;
	int n, ret;

	if (!img->format->reserve)
		return -EROFS;
	co_rwlock_wrlock(&img->core->lock);
	ret = img->format->reserve(img, offset, len, 0, &c);
	co_rwlock_unlock(&img->core->lock);
	if (ret < 0)
		return ret;
	g_assert(c.len > 0 && c.start <= offset && offset < c.start + c.len);
	g_assert(c.start >= offset - offset % grain_of(img));

	len = MIN(len, c.start + c.len - offset);
	slice = g_new(struct iovec, niov);
	n = iov_slice(iov, niov, 0, len, slice);
	if (c.fill)
		ret = write_filled(img, &c, offset, slice, n, len);
	else
		ret = file_writev(c.file, c.host + (offset - c.start), slice, n);
	g_free(slice);
	*done = len;
	return claim_end(img, &c, ret);
}

static int write_in_place(const struct extent *e, uint64_t offset, const struct iovec *iov,
			  int niov, size_t len)
{
	struct iovec *slice = g_new(struct iovec, niov);
	int n = iov_slice(iov, niov, 0, len, slice);
	int ret = e->cryptor ? -ENOTSUP
			     : file_writev(e->file, e->host + (offset - e->start), slice, n);

	g_free(slice);
	return ret;
}

bool extent_overwritable(const struct extent *e)
{
	return e->kind == EXTENT_DATA && (e->flags & EXTENT_WRITABLE);
}

/* The range is locked. */
int write_unlocked(struct image *img, uint64_t offset, const struct iovec *iov, int niov)
{
	size_t total = iov_total(iov, niov), done = 0;
	struct iovec *rest = g_new(struct iovec, MAX(niov, 1));
	int ret = 0;

	while (ret == 0 && done < total) {
		size_t left = total - done, n = left;
		int nrest = iov_slice(iov, niov, done, left, rest);
		struct extent e;

		ret = layer_map(img, offset + done, left, &e);
		if (ret < 0)
			break;
		if (extent_overwritable(&e)) {
			n = e.len;
			ret = write_in_place(&e, offset + done, rest, nrest, n);
		} else {
			/* Not past what needs the claim: what follows may be writable in place. */
			ret = write_claim(img, offset + done, rest, nrest, e.len, &n);
		}
		if (ret < 0)
			image_fault(img, ret, offset + done, "writing failed");
		done += n;
	}
	g_free(rest);
	return ret;
}

/* ---- zeroes ---------------------------------------------------------------------------------- */

static int write_zero_bytes(struct image *img, uint64_t offset, uint64_t len)
{
	static const uint8_t zeroes[ZERO_CHUNK];
	int ret = 0;

	while (ret == 0 && len > 0) {
		struct iovec iov = {(void *)zeroes, MIN(len, sizeof(zeroes))};

		ret = write_unlocked(img, offset, &iov, 1);
		offset += iov.iov_len;
		len -= iov.iov_len;
	}
	return ret;
}

/* By the host, where bytes may be overwritten in place. -EOPNOTSUPP: by hand. */
static int zero_in_place(const struct extent *e, bool may_unmap)
{
	int ret = -EOPNOTSUPP;

	if (!extent_overwritable(e) || e->cryptor)
		return -EOPNOTSUPP;
	if (may_unmap)
		ret = file_punch(e->file, e->host, e->len);
	if (ret == -EOPNOTSUPP)
		ret = file_zero(e->file, e->host, e->len);
	return ret;
}

static int unmap(struct image *img, uint64_t offset, uint64_t len, enum unmap_mode mode)
{
	int ret;

	co_rwlock_wrlock(&img->core->lock);
	ret = img->format->unmap(img, offset, len, mode);
	co_rwlock_unlock(&img->core->lock);
	return ret;
}

/* Bytes that the driver can make zero by themselves. */
static uint64_t zero_unit(const struct image *img)
{
	return img->write_unit ? img->write_unit : grain_of(img);
}

/*
 * What the driver can be asked for at the front of the range: the rest of a cluster, whole
 * clusters, or the front of one, in whole units. offset lies on a unit's boundary; 0: the range
 * ends in this unit. The disk's last unit is whole even where the disk ends in its middle.
 */
static uint64_t unmap_span(const struct image *img, uint64_t offset, uint64_t len)
{
	uint64_t grain = grain_of(img), skew = offset % grain;
	bool to_the_end = offset + len == img->size;

	if (skew && len >= grain - skew)
		return grain - skew;
	if (to_the_end)
		return len;
	if (len >= grain)
		return len - len % grain;
	return len - len % zero_unit(img);
}

/* What reads as zero in the file may still have room there, which fallocate gave it. */
static int give_room_back(struct image *img, const struct extent *e)
{
	int ret = 0;

	if (e->layer == img && !img->format->unmap && (e->flags & EXTENT_HAS_HOST) &&
	    (e->flags & EXTENT_WRITABLE))
		ret = file_punch(e->file, e->host, e->len);
	return ret == -EOPNOTSUPP ? 0 : ret;
}

/* Zeroes by bytes: what no driver can do, in the one layer. *done says how much. */
static int zero_by_hand(struct image *img, uint64_t offset, uint64_t len, bool may_unmap,
			uint64_t *done)
{
	struct extent e;
	int ret = image_map(img, offset, len, NULL, &e);

	if (ret < 0)
		return ret;
	*done = e.len;
	if (extent_is_zero(&e) && (!img->gets_backing || (e.kind == EXTENT_ZERO && e.layer == img)))
		return may_unmap ? give_room_back(img, &e) : 0;
	/* Parts of clusters are small: holes in them would only cut the host's file to pieces. */
	if (e.layer == img && (!img->format->unmap || e.len >= MIN_HOLE)) {
		ret = zero_in_place(&e, may_unmap);
		if (ret != -EOPNOTSUPP)
			return ret;
	}
	return write_zero_bytes(img, offset, e.len);
}

/* Of the unit that these bytes lie in, is the rest zero already? */
static bool rest_is_blank(struct image *img, uint64_t offset, uint64_t len)
{
	uint64_t unit = zero_unit(img), start = offset - offset % unit;

	return is_blank(img, start, offset) && is_blank(img, offset + len, start + unit);
}

/* Zeroes the front of the range, locked; *done says how much. */
static int zero_step(struct image *img, uint64_t offset, uint64_t len, bool may_unmap,
		     uint64_t *done)
{
	enum unmap_mode mode = may_unmap ? UNMAP_TO_ZERO : UNMAP_TO_ZERO_KEEP;
	uint64_t unit = zero_unit(img), skew = offset % unit, span;
	int ret = -EOPNOTSUPP;

	if (!img->format->unmap)
		return zero_by_hand(img, offset, len, may_unmap, done);
	span = skew ? 0 : unmap_span(img, offset, len);
	*done = span ? span : MIN(len, unit - skew);
	if (span)
		ret = unmap(img, offset, span, mode);
	else if (rest_is_blank(img, offset, *done))
		ret = unmap(img, offset - skew, MIN(unit, img->size - (offset - skew)), mode);
	return ret == -EOPNOTSUPP ? zero_by_hand(img, offset, *done, may_unmap, done) : ret;
}

/* The range is locked. */
static int zero_unlocked(struct image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	int ret = 0;

	while (ret == 0 && len > 0) {
		uint64_t done = 0;

		ret = zero_step(img, offset, len, may_unmap, &done);
		offset += done;
		len -= done;
	}
	return ret;
}

/* ---- what a guest writes ------------------------------------------------------------------------
 */

/* The first `left` bytes that w stands before, as far as they are alike: zeroes, or not. */
static size_t alike(const struct image *img, uint64_t offset, const struct iovec *iov, int niov,
		    size_t done, size_t left, bool *zero)
{
	size_t step = MAX(grain_of(img), DETECT_STEP), len = 0;

	/* Whole clusters: zeroes in a part of one save nothing. In place: a MiB of zeroes takes 13
	 * us to look at, less than a worker of the pool takes to begin. */
	while (len < left) {
		size_t n = MIN(left - len, step - (offset + len) % step);
		bool is_zero = iov_is_zero(iov, niov, done + len, n);

		if (len > 0 && is_zero != *zero)
			break;
		*zero = is_zero;
		len += n;
	}
	return len;
}

/* Where zeroes are looked for. The range is locked. */
static int write_detecting(struct image *img, uint64_t offset, const struct iovec *iov, int niov,
			   size_t total)
{
	bool may_unmap = img->core->options.detect_zeroes == DETECT_ZEROES_UNMAP;
	struct iovec *slice = g_new(struct iovec, MAX(niov, 1));
	int ret = 0;

	for (size_t n, done = 0; ret == 0 && done < total; done += n) {
		bool zero = false;

		n = alike(img, offset + done, iov, niov, done, total - done, &zero);
		if (zero)
			ret = zero_unlocked(img, offset + done, n, may_unmap);
		else
			ret = write_unlocked(img, offset + done, slice,
					     iov_slice(iov, niov, done, n, slice));
	}
	g_free(slice);
	return ret;
}

int write_begin(struct image *img, struct disk_lock *l, uint64_t offset, uint64_t len)
{
	int ret = lock_clusters(img, l, offset, len);

	return ret < 0 ? ret : tell_change(img, offset, len);
}

int write_end(struct image *img, struct disk_lock *l, int ret)
{
	disk_unlock(img, l);
	return through(img, ret);
}

int image_writev(struct image *img, uint64_t offset, const struct iovec *iov, int niov)
{
	size_t total = iov_total(iov, niov);
	int ret = check_writable(img, offset, total);
	struct disk_lock l;

	if (ret < 0 || total == 0)
		return ret;
	ret = lock_clusters(img, &l, offset, total);
	if (ret == 0)
		ret = check_stays_raw(img, offset, iov, niov, total);
	if (ret == 0)
		ret = tell_change(img, offset, total);
	if (ret == 0 && img->core->options.detect_zeroes == DETECT_ZEROES_OFF)
		ret = write_unlocked(img, offset, iov, niov);
	else if (ret == 0)
		ret = write_detecting(img, offset, iov, niov, total);
	disk_unlock(img, &l);
	return through(img, ret);
}

int image_write(struct image *img, uint64_t offset, const void *buf, size_t len)
{
	struct iovec iov = {(void *)buf, len};

	return image_writev(img, offset, &iov, 1);
}

int image_write_coded(struct image *img, uint64_t offset, const void *coded, size_t coded_len)
{
	uint64_t grain = grain_of(img);
	struct claim c = {.coded_len = coded_len};
	struct disk_lock l;
	int ret = check_writable(img, offset,
				 offset < img->size ? MIN(grain, img->size - offset) : grain);

	if (ret < 0)
		return ret;
	if (!img->format->reserve || offset % grain || coded_len > grain)
		return -ENOTSUP;
	ret = lock_clusters(img, &l, offset, MIN(grain, img->size - offset));
	if (ret == 0)
		ret = tell_change(img, offset, grain);
	if (ret == 0) {
		co_rwlock_wrlock(&img->core->lock);
		ret = img->format->reserve(img, offset, grain, RESERVE_CODED, &c);
		co_rwlock_unlock(&img->core->lock);
	}
	if (ret == 0) {
		/* A unit that was at this place before may still be known, decoded. */
		codec_forget(c.file, c.host, grain);
		ret = claim_end(img, &c, file_write(c.file, c.host, coded, coded_len));
	}
	disk_unlock(img, &l);
	if (ret < 0)
		image_fault(img, ret, offset, "writing compressed data failed");
	return through(img, ret);
}

/* ---- zeroes and discard asked for -------------------------------------------------------------
 */

int image_write_zeroes(struct image *img, uint64_t offset, uint64_t len, bool may_unmap)
{
	int ret = check_writable(img, offset, len);
	struct disk_lock l;

	if (ret < 0 || len == 0)
		return ret;
	ret = lock_clusters(img, &l, offset, len);
	if (ret == 0)
		ret = check_stays_raw(img, offset, NULL, 0, len);
	if (ret == 0)
		ret = tell_change(img, offset, len);
	if (ret == 0)
		ret = zero_unlocked(img, offset, len,
				    may_unmap && img->core->options.discard != DISCARD_IGNORE);
	disk_unlock(img, &l);
	return through(img, ret);
}

/* A hint: units that are only touched in part stay as they are, and so does what could only be
 * zero by taking space. */
static int discard_units(struct image *img, uint64_t offset, uint64_t len)
{
	int ret = 0;

	while (ret == 0 && len > 0) {
		uint64_t span = unmap_span(img, offset, len);

		if (!span)
			return 0;
		ret = unmap(img, offset, span, UNMAP_DISCARD);
		if (ret == -EOPNOTSUPP)
			ret = 0;
		offset += span;
		len -= span;
	}
	return ret;
}

#define ALLOCATE_PIECE (1u << 20)

/* Writes what is read there, unless it is in place already. The range is locked. */
static int allocate_step(struct image *img, uint64_t offset, uint64_t len, void *buf,
			 uint64_t *done)
{
	struct iovec iov = {buf, 0};
	struct extent e;
	int ret = layer_map(img, offset, len, &e);

	if (ret < 0)
		return ret;
	*done = e.len;
	if (extent_overwritable(&e)) {
		/* Its own hole, if it is one, is the host's to fill. */
		ret = file_allocate(e.file, e.host, e.len);
		return ret == -EOPNOTSUPP ? 0 : ret;
	}
	iov.iov_len = *done = MIN(e.len, ALLOCATE_PIECE);
	ret = read_unlocked(img, offset, &iov, 1, NULL);
	return ret < 0 ? ret : write_unlocked(img, offset, &iov, 1);
}

int image_allocate(struct image *img, uint64_t offset, uint64_t len)
{
	int ret = check_writable(img, offset, len);
	void *buf = ret == 0 ? malloc(ALLOCATE_PIECE) : NULL;
	struct disk_lock l;

	if (ret == 0 && !buf)
		return -ENOMEM;
	while (ret == 0 && len > 0) {
		uint64_t done = 0;

		/* Piece by piece, so that others get their turn. */
		ret = lock_clusters(img, &l, offset, MIN(len, ALLOCATE_PIECE));
		if (ret == 0)
			ret = allocate_step(img, offset, MIN(len, ALLOCATE_PIECE), buf, &done);
		disk_unlock(img, &l);
		offset += done;
		len -= done;
	}
	free(buf);
	return through(img, ret);
}

/*
 * Discarded bytes read as zeroes: above a backing file the range becomes zero rather than a
 * hole, or the guest would see data again that an older layer holds.
 */
int image_discard(struct image *img, uint64_t offset, uint64_t len)
{
	uint64_t unit = zero_unit(img), skip = (unit - offset % unit) % unit;
	int ret = check_writable(img, offset, len);
	struct disk_lock l;

	if (ret < 0 || len <= skip || img->core->options.discard == DISCARD_IGNORE)
		return ret;
	if (!img->format->unmap)
		return image_write_zeroes(img, offset, len, true);
	offset += skip;
	len -= skip;
	if (!unmap_span(img, offset, len))
		return 0;
	ret = lock_clusters(img, &l, offset, len);
	if (ret == 0)
		ret = tell_change(img, offset, len);
	if (ret == 0)
		ret = discard_units(img, offset, len);
	disk_unlock(img, &l);
	return through(img, ret);
}

/* ---- flush -------------------------------------------------------------------------------------
 */

static int sync_files(struct image *img)
{
	GPtrArray *extra = img->core->extra_files;
	int ret = 0, r;

	/* Data files first: the main file's tables point into them. */
	for (guint i = 0; extra && i < extra->len; i++) {
		r = file_flush(g_ptr_array_index(extra, i));
		ret = ret ? ret : r;
	}
	r = file_flush(img->file);
	return ret ? ret : r;
}

int image_flush(struct image *img)
{
	int ret;

	if (!(img->flags & IMAGE_RDWR))
		return 0;
	if (!img->format->flush)
		return sync_files(img);
	co_rwlock_wrlock(&img->core->lock);
	ret = img->format->flush(img);
	co_rwlock_unlock(&img->core->lock);
	return ret;
}

int image_settle(struct image *img)
{
	int ret = 0, flushed;

	if ((img->flags & IMAGE_RDWR) && img->format->settle) {
		co_rwlock_wrlock(&img->core->lock);
		ret = img->format->settle(img);
		co_rwlock_unlock(&img->core->lock);
	}
	flushed = image_flush(img);
	/* And the freeing of what was stored before, which the first flush has only begun. */
	if (flushed == 0)
		flushed = image_flush(img);
	return ret ? ret : flushed;
}
