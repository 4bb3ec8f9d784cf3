/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing what lies in another file already: copied inside the kernel, or shared where the file
 * system can. The same steps as any write (write.c), for whole clusters.
 */
#include <errno.h>

#include "image/core.h"

/* All of it, or -EOPNOTSUPP: whoever asked copies by hand, over what was copied before. */
static int copy_all(struct file *from, uint64_t from_host, struct file *to, uint64_t host,
		    uint64_t len)
{
	while (len > 0) {
		int64_t n = file_copy_range(from, from_host, to, host, len);

		if (n <= 0)
			return -EOPNOTSUPP;
		from_host += n;
		host += n;
		len -= n;
	}
	return 0;
}

/* The front of the range, as far as one claim goes. */
static int copy_claim(struct image *img, uint64_t offset, struct file *from, uint64_t from_host,
		      uint64_t len, uint64_t *done)
{
	struct claim c = {0};
	int ret;

	if (!img->format->reserve)
		return -EOPNOTSUPP;
	co_rwlock_wrlock(&img->core->lock);
	ret = img->format->reserve(img, offset, len, 0, &c);
	co_rwlock_unlock(&img->core->lock);
	if (ret < 0)
		return ret;
	*done = c.len;
	/* Nothing is filled in here: the units are whole. */
	ret = c.start == offset && c.len <= len ? copy_all(from, from_host, c.file, c.host, c.len)
						: -EOPNOTSUPP;
	return claim_end(img, &c, ret);
}

static int copy_step(struct image *img, uint64_t offset, struct file *from, uint64_t from_host,
		     uint64_t len, uint64_t *done)
{
	struct extent e;
	int ret = layer_map(img, offset, len, &e);

	if (ret < 0)
		return ret;
	*done = e.len;
	if (!extent_overwritable(&e))
		return copy_claim(img, offset, from, from_host, e.len, done);
	if (e.cryptor)
		return -EOPNOTSUPP;
	return copy_all(from, from_host, e.file, e.host, e.len);
}

int image_copy_range(struct image *img, uint64_t offset, struct file *from, uint64_t from_host,
		     uint64_t len)
{
	uint32_t grain = img->cluster_size ? img->cluster_size : 1;
	struct disk_lock l;
	int ret;

	if (offset % grain || len % grain || img->core->stays_raw)
		return -EOPNOTSUPP;
	ret = write_begin(img, &l, offset, len);
	while (ret == 0 && len > 0) {
		uint64_t done = 0;

		ret = copy_step(img, offset, from, from_host, len, &done);
		offset += done;
		from_host += done;
		len -= done;
	}
	return write_end(img, &l, ret);
}
