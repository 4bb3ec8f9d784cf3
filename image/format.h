/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver interface: what a format file gives to the core. A driver says
 * where bytes are; it never reads or writes guest data itself.
 *
 * Threads: everything of one image runs on the loop that opened it. The core
 * holds the image's metadata lock: shared for map, exclusive for every other
 * callback marked [x], so drivers contain no locks. Ranges were checked by the
 * core: inside the disk, len > 0. Control callbacks return bool and set *error
 * with a sentence that names the thing, the place and the value (not the file
 * name: the core puts it in front). Data callbacks return 0 or -errno and may
 * call image_fault first to say why. All may yield unless said otherwise.
 */
#ifndef IMGFS_IMAGE_FORMAT_H
#define IMGFS_IMAGE_FORMAT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "image/extent.h"
#include "image/option.h"

struct image;
struct file;
struct cache;
struct report;
struct check_result;
struct check_options;
struct snapshot;
struct bitmap;
struct image_progress;

/* Domain of all errors of image/ and formats/. */
#define IMAGE_ERROR image_error_quark()
GQuark image_error_quark(void);
enum image_error {
	IMAGE_ERROR_FAILED,	 /* a system call, memory: see the words */
	IMAGE_ERROR_INVALID,	 /* the image breaks its specification */
	IMAGE_ERROR_UNSUPPORTED, /* valid, but a feature that is not here (yet) */
	IMAGE_ERROR_REFUSED,	 /* a name in an image that the gate does not allow */
	IMAGE_ERROR_LOCKED,	 /* somebody else uses it */
	IMAGE_ERROR_NOT_FOUND,	 /* snapshot, format name, file */
	IMAGE_ERROR_BUSY,	 /* this process itself still uses it: a view of a snapshot */
	IMAGE_ERROR_USAGE,	 /* options that contradict each other or are unknown */
};

#define PROBE_HEAD 2048 /* bytes of the file's front that probe sees */
#define PROBE_TAIL 1024 /* bytes of its end */
struct probe {
	const uint8_t *head, *tail; /* zero-filled when the file is shorter */
	uint64_t file_size;
	const char *filename;
};

/* An allocating write in three steps: reserve -> (core fills and writes) -> commit or abandon. */
struct claim {
	uint64_t start, len; /* bytes of the disk that the claim covers: whole units */
	struct file *file;   /* where the data goes: file[host .. host+len) */
	uint64_t host;
	uint32_t coded_len; /* set before a compressed write is reserved: bytes at host */
	bool fresh;	    /* nothing was ever written at host: it reads as zeroes */
	bool fill; /* the core must fill the rest of the unit from what was readable before */
	uint64_t word[4]; /* the driver's own */
};
enum reserve_flags {
	RESERVE_CODED = 1 << 0, /* coded_len bytes will be written */
};
struct image_measure { /* bytes of a file */
	uint64_t required, fully_allocated;
	bool has_bitmaps; /* both have bitmaps: */
	uint64_t bitmaps;
};
enum unmap_mode {
	UNMAP_TO_HOLE, /* forget: the backing image shows again */
	UNMAP_TO_ZERO,
	UNMAP_TO_ZERO_KEEP, /* and keep its space, where the format can */
	UNMAP_DISCARD,	    /* the same as TO_ZERO, but what is empty already stays so */
};

struct format {
	const char *name;			  /* "qcow2" */
	const char *long_name;			  /* for help */
	const struct option_desc *open_options;	  /* NULL: none beside driver, file.* */
	const struct option_desc *create_options; /* NULL: cannot be created */
	const struct option_desc *amend_options;
	bool has_backing;     /* knows backing files */
	bool has_compression; /* new images can have compressed clusters */

	/* 0: not mine .. 100: surely. Pure: no I/O. */
	int (*probe)(const struct probe *p);

	/*
	 * img has: file (the opened main file), filename, flags, cache, gate. Sets img->size,
	 * img->state, and as they apply cluster_size, backing_name,
	 * backing_format, encrypted, dirty, corrupt. options: what is left for
	 * the driver; it takes what it knows (NULL is never passed). On failure
	 * nothing is left behind (state NULL; close is not called).
	 */
	bool (*open)(struct image *img, struct options *options, GError **error);
	/*
	 * img->flags have gained or lost IMAGE_RDWR and the files are open accordingly; a writable
	 * image was flushed before. To begin writing may fail, and leaves it as it was.
	 * NULL: nothing depends on it. Control path.
	 */
	bool (*set_writable)(struct image *img, GError **error);
	/* Does not fail; a writable image was flushed before. Also called for views. */
	void (*close)(struct image *img);

	/*
	 * Describes the bytes from offset on: *e covers offset and is as long as the
	 * driver finds without much work, but not past offset+len. e->start ==
	 * offset. Consecutive clusters that are alike (kind, file, host in
	 * sequence) come as one extent. A CODED extent lies inside one unit.
	 *
	 * Host offsets come from hostile tables. The driver refuses what its
	 * specification forbids (alignment, reserved bits). The core refuses (-EIO and a
	 * fault) a DATA cluster, or a coded unit, that begins at or past the end
	 * of e->file, and cuts an extent in front of it; of a cluster that the file's
	 * end cuts short, the missing bytes read as zeroes. cluster_size is the grain
	 * of that rule (0: one byte).
	 */
	int (*map)(struct image *img, uint64_t offset, uint64_t len, struct extent *e);

	/* Writing [x]. NULL in read-only drivers; drivers whose map gives WRITABLE data need none.
	 */
	int (*reserve)(struct image *img, uint64_t offset, uint64_t len, unsigned flags,
		       struct claim *claim);
	int (*commit)(struct image *img, struct claim *claim);
	void (*abandon)(struct image *img, struct claim *claim);
	/* From the beginning of a cluster to the end of one, or of the disk; or, where write_unit
	 * is smaller, whole units of one cluster. -EOPNOTSUPP: cannot be said without data; nothing
	 * was changed. */
	int (*unmap)(struct image *img, uint64_t offset, uint64_t len, enum unmap_mode mode);
	/* [x] Makes all of the disk a hole and the file as short as a new image's. NULL or
	 * -EOPNOTSUPP: it has more than the disk; nothing was changed, and unmap does the rest. */
	int (*empty)(struct image *img);
	/* Tables to files, in the driver's order, with the syncs between them: when it returns 0,
	 * all that was committed is durable in every file. NULL: there are no tables; the core
	 * syncs the files. */
	int (*flush)(struct image *img);

	/* Control [x]. NULL: the format cannot. */
	bool (*create)(const char *filename, struct options *options, GError **error);
	/* Sets img->size. options: "preallocation", taken out. */
	bool (*resize)(struct image *img, uint64_t size, struct options *options, GError **error);
	bool (*set_backing)(struct image *img, const char *name, const char *format,
			    GError **error);
	/* What set_backing would refuse, without writing. NULL: set_backing refuses nothing. */
	bool (*check_backing)(struct image *img, const char *name, const char *format,
			      GError **error);
	bool (*amend)(struct image *img, struct options *options,
		      const struct image_progress *progress, GError **error);
	/* How large a new file of this format will be: empty, for a disk of `size` bytes, or for a
	 * copy of source (NULL: none), whose size that is. m is all zero before. */
	bool (*measure)(struct options *options, uint64_t size, struct image *source,
			struct image_measure *m, GError **error);
	/* Finds what is wrong; see image/check.h. */
	bool (*check)(struct image *img, const struct check_options *options,
		      struct check_result *result, GError **error);

	/*
	 * Snapshots. list: a new GPtrArray of struct snapshot (free function set),
	 * in table order. view: makes `view` (a fresh image that shares file and
	 * cache with img) show snapshot number `index` of the list; sets
	 * view->size and view->state. open's promises hold.
	 */
	GPtrArray *(*snapshot_list)(struct image *img, GError **error);
	bool (*view)(struct image *img, unsigned index, struct image *view, GError **error);
	bool (*snapshot_create)(struct image *img, const char *name, GError **error);
	bool (*snapshot_apply)(struct image *img, unsigned index, GError **error);
	bool (*snapshot_delete)(struct image *img, unsigned index, GError **error);
	bool (*snapshot_rename)(struct image *img, unsigned index, const char *name,
				GError **error);

	/* Bytes of host clusters that only this snapshot refers to, tables among them, and those
	 * that others need too: what deleting it would free, and what not. */
	bool (*snapshot_usage)(struct image *img, unsigned index, uint64_t *own, uint64_t *shared,
			       GError **error);

	/*
	 * Dirty bitmaps [x]. list: a new GPtrArray of struct bitmap_info (free function set). load:
	 * a copy of the bits; an inconsistent bitmap, or one that is not there, is refused. store:
	 * bits NULL: only `enabled` changes. Names are unique; add refuses one that is there. Each
	 * is complete, and durable after the next flush, or has changed nothing. possible: could
	 * this image have some?
	 */
	bool (*bitmap_possible)(const struct image *img);
	GPtrArray *(*bitmap_list)(struct image *img, GError **error);
	struct bitmap *(*bitmap_load)(struct image *img, const char *name, GError **error);
	bool (*bitmap_add)(struct image *img, const char *name, unsigned granularity_bits,
			   GError **error); /* enabled, all clear */
	bool (*bitmap_remove)(struct image *img, const char *name, GError **error);
	bool (*bitmap_store)(struct image *img, const char *name, const struct bitmap *bits,
			     bool enabled, GError **error);
	/* Before bytes [offset, offset+len) of the disk change [x]; called while
	 * img->tracks_changes. Failing forbids the change. */
	int (*will_change)(struct image *img, uint64_t offset, uint64_t len);
	/* Stores what was noted of changes [x], before a flush; more may follow. NULL: nothing is.
	 */
	int (*settle)(struct image *img);

	/* The "format-specific" part of info: emits one object's rows; no begin/end. */
	bool (*describe)(struct image *img, struct report *r, GError **error);
	/* The names inside the image that opening it would open, for info --references
	 * and the gate: data files. NULL-terminated, caller g_strfreev()s. NULL: none. */
	char **(*references)(struct image *img);
};

struct snapshot {
	char *id, *name;    /* any bytes but NUL: escape before printing */
	uint64_t disk_size; /* bytes */
	uint64_t vm_state_size;
	int64_t date_sec;
	uint32_t date_nsec;
	uint64_t vm_clock_nsec;
	uint64_t icount; /* UINT64_MAX: not recorded */
};
struct snapshot *snapshot_new(void);
void snapshot_free(struct snapshot *s);

struct bitmap_info { /* a stored bitmap without its bits */
	char *name;
	unsigned granularity_bits;
	bool enabled;	   /* follows what is written to the disk */
	bool inconsistent; /* may have missed changes: can only be removed */
};
void bitmap_info_free(struct bitmap_info *b);

#endif
