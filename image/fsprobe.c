/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "image/fsprobe.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/image.h"
#include "io/pool.h"

#define EDGE  (2u << 20) /* bytes copied of each end: every superblock but exotic ones is there */
#define PIECE (256u << 10)

void fsprobe_clear(struct fsprobe *found)
{
	g_free(found->type);
	g_free(found->label);
	g_free(found->uuid);
	g_free(found->version);
	memset(found, 0, sizeof(*found));
}

#ifdef HAVE_BLKID
#include <blkid.h>

struct probe_job {
	int fd;
	uint64_t len;
	struct fsprobe *found;
};

static char *value_of(blkid_probe probe, const char *name)
{
	const char *data;
	size_t len;

	if (blkid_probe_lookup_value(probe, name, &data, &len) < 0)
		return NULL;
	return g_utf8_make_valid(data, strnlen(data, len));
}

/* On a worker: libblkid's checksums and searches take milliseconds. */
static int probe_fd(void *arg)
{
	struct probe_job *job = arg;
	blkid_probe probe = blkid_new_probe();

	if (!probe)
		return -ENOMEM;
	if (blkid_probe_set_device(probe, job->fd, 0, (blkid_loff_t)job->len) == 0) {
		blkid_probe_enable_superblocks(probe, 1);
		blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL |
								 BLKID_SUBLKS_UUID |
								 BLKID_SUBLKS_VERSION);
		if (blkid_do_safeprobe(probe) == 0) {
			job->found->type = value_of(probe, "TYPE");
			job->found->label = value_of(probe, "LABEL");
			job->found->uuid = value_of(probe, "UUID");
			job->found->version = value_of(probe, "VERSION");
		}
	}
	blkid_free_probe(probe);
	return 0;
}

static int write_all(int fd, uint64_t offset, const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = pwrite(fd, buf, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		buf += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* [from, to) of the range that begins at start of the disk; zeroes stay holes. */
static int copy_edge(struct image *img, uint64_t start, uint64_t from, uint64_t to, int fd)
{
	g_autofree uint8_t *buf = g_malloc(PIECE);

	while (from < to) {
		size_t n = MIN(PIECE, to - from);
		int ret = image_read(img, start + from, buf, n);

		if (!ret && !buffer_is_zero(buf, n))
			ret = write_all(fd, from, buf, n);
		if (ret)
			return ret;
		from += n;
	}
	return 0;
}

int fsprobe_image(struct image *img, uint64_t start, uint64_t len, struct fsprobe *found)
{
	struct probe_job job = {.len = len, .found = found};
	uint64_t head = MIN(len, EDGE);
	int ret;

	memset(found, 0, sizeof(*found));
	if (!len || len > INT64_MAX)
		return 0;
	job.fd = memfd_create("imgfs-probe", MFD_CLOEXEC);
	if (job.fd < 0)
		return -errno;
	ret = ftruncate(job.fd, (off_t)len) < 0 ? -errno : 0;
	if (!ret)
		ret = copy_edge(img, start, 0, head, job.fd);
	if (!ret)
		ret = copy_edge(img, start, MAX(head, len - MIN(len, EDGE)), len, job.fd);
	if (!ret)
		ret = pool_run(probe_fd, &job);
	close(job.fd);
	return ret;
}

#else /* !HAVE_BLKID */

int fsprobe_image(struct image *img, uint64_t start, uint64_t len, struct fsprobe *found)
{
	memset(found, 0, sizeof(*found));
	return 0;
}

#endif
