/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of image/ know of an image beside image.h. Private to image/.
 *
 * Lock order: range lock, then metadata lock; no other lock is held while either is waited for.
 */
#ifndef IMGFS_IMAGE_CORE_H
#define IMGFS_IMAGE_CORE_H

#include "image/image.h"
#include "io/iov.h"

#define CHAIN_MAX	  1000 /* images in one chain; deeper ones are refused */
#define NAME_MAX_IN_IMAGE 4095 /* bytes of a name found inside an image */

/* rangelock.c: who reads or writes which bytes of a disk at this moment. */
struct range {
	uint64_t start, end;
	bool exclusive;
	struct range *next;
};
struct range_locks {
	struct range *first; /* held or waited for, in the order in which they came */
	struct co_queue waiters;
};
/* r is the caller's and lives until range_unlock. Yields while an overlapping range excludes it. */
void range_lock(struct range_locks *l, struct range *r, uint64_t start, uint64_t len,
		bool exclusive);
void range_unlock(struct range_locks *l, struct range *r);

/*
 * What a request on a disk holds: its bytes, and for reading the same bytes of an image further
 * down while a commit writes to that one, so that nothing moves there under the reader.
 */
struct disk_lock {
	struct range own, below;
	struct image *lower; /* whose `below` is; NULL: none */
};
void disk_lock(struct image *img, struct disk_lock *l, uint64_t start, uint64_t len,
	       bool exclusive);
void disk_unlock(struct image *img, struct disk_lock *l);

/* readahead.c: one sequential reader that was noticed. */
#define READ_STREAMS 4
struct read_stream {
	uint64_t next;	/* where it will go on */
	uint64_t ahead; /* up to here units were asked for */
	uint64_t window, used;
};

struct image_core {
	unsigned refs;
	struct co_rwlock lock; /* metadata: shared for map, exclusive for changes */
	struct range_locks ranges;
	/* Somebody may write to it, or to an image below it, while it is open: readers lock. */
	bool guarded;
	struct image *written_below; /* the base that a commit under way writes to; NULL: none */
	struct bitmap *changes;	     /* what was written since a commit asked; NULL: none does */
	struct image *owner;	     /* view: the image that it shows a snapshot of */
	char *shows;		     /* view: the snapshot's ID */
	GPtrArray *views;	/* of struct image: the views of it that are open; NULL: none */
	GPtrArray *extra_files; /* struct file: data files, flushed with the image; NULL: none */
	struct image_open_options options;
	bool stays_raw;	     /* writable, and raw by guessing: see image_write */
	bool guessed;	     /* a backing file whose format was probed: names in it open nothing */
	char *key;	     /* in the table of shared images; NULL: not shared */
	unsigned background; /* prefetches under way; the last unref waits for them */
	struct co_queue background_done;
	struct read_stream streams[READ_STREAMS];
	uint64_t stream_clock;
	char *fault; /* first cause since image_fault_clear */
};

/* image.c */
struct image *image_new(void);
void image_background_begin(struct image *img);
void image_background_end(struct image *img);

/* open.c: what is asked for, after json:{}, --image-opts and flags were put together. */
struct open_spec {
	char *path;
	const struct format *format; /* NULL: probe */
	struct options *options;     /* the driver's; never NULL */
	struct options *backing;     /* "backing.*", or NULL */
	struct image_open_options o; /* as changed by read-only=, force-share=, cache.* */
	bool regular_only;	     /* a name from an image */
	const struct stat *expect;   /* NULL, or the file that the gate allowed */
};
void open_spec_init(struct open_spec *spec, const struct image_open_options *o);
/* Takes out of options (which it frees) what the core knows; the rest is the driver's. */
bool open_spec_parse(struct open_spec *spec, struct options *options, GError **error);
void open_spec_clear(struct open_spec *spec);
/* One image without its chain; cache and gate gain a reference. May yield. */
struct image *open_layer(struct open_spec *spec, struct cache *cache, struct gate *gate,
			 GError **error);
void open_file_options(const struct image_open_options *o, struct file_options *fo);
/* "(path)" or the recorded name, one image of this name; NULL: it must be opened. */
struct image *open_shared(const struct open_spec *spec, bool guessed);
/* From now on others may share img, which was opened as spec says. */
void open_share(struct image *img, const struct open_spec *spec);
void open_unshare(struct image *img);

/* chain.c: opens what img's backing names say, down to the end. backing: "backing.*" of json:{}
 * for the image below the top, or NULL; taken over. */
bool chain_open(struct image *top, struct options *backing, const struct image_open_options *o,
		GError **error);

/* probe.c */
/* image_find_format in the words that qemu-img has for what is there already: "Unknown driver". */
const struct format *probe_find_driver(const char *name, GError **error);
const struct format *probe_format(struct file *file, int *score, GError **error);
/* What would the file be taken for after len bytes at offset were overwritten with iov (NULL: with
 * zeroes)? 0 or -errno. May yield. */
int probe_changed(struct file *file, uint64_t offset, const struct iovec *iov, int niov,
		  uint64_t len, const struct format **format);

/* filename.c */
enum filename_kind { FILENAME_PATH, FILENAME_JSON, FILENAME_PROTOCOL };
/* *rest: the path, the JSON text, or the whole name. */
enum filename_kind filename_classify(const char *name, const char **rest);
/* name relative to the directory of referrer. Caller frees. */
char *filename_beside(const char *referrer, const char *name);

/* gate.c: gate_resolve, and which file it was that was allowed, so that a file swapped in between
 * is noticed. any: the gate is open to all. */
char *gate_check(struct gate *g, const char *referrer, const char *name, struct stat *st,
		 GError **error);
bool gate_is_open(const struct gate *g);
struct gate *gate_ref(struct gate *g);

/* map.c: what this layer alone says; checked. Offsets inside the layer. */
int layer_map(struct image *img, uint64_t offset, uint64_t len, struct extent *e);

/* read.c: without range locks (write.c holds them). */
int read_unlocked(struct image *img, uint64_t offset, const struct iovec *iov, int niov,
		  struct image *base);

/* write.c: the range is locked exclusively. */
int write_unlocked(struct image *img, uint64_t offset, const struct iovec *iov, int niov);
/* Locks the range and tells of the change, 0 or -errno; and gives it free again, whatever
 * write_begin said: returns ret, or what failed since. */
int write_begin(struct image *img, struct disk_lock *l, uint64_t offset, uint64_t len);
int write_end(struct image *img, struct disk_lock *l, int ret);
/* Commits a claim, or abandons it when ret is an error. */
int claim_end(struct image *img, struct claim *c, int ret);
/* May its bytes be written in place? */
bool extent_overwritable(const struct extent *e);

/* readahead.c: called after a read that met coded units. */
void readahead_note(struct image *img, uint64_t offset, uint64_t len);

/* codec-cache.c: is the unit there, so that reading it does not wait? */
bool codec_try_read(const struct extent *e, uint64_t offset, void *buf, size_t len);
/*
 * Whole units, each into a buffer of its own, decoded by one worker: for long reads, where a
 * hand-over for each unit costs as much as a half of its decoding. Not cached. 0 or -errno; yields.
 */
#define CODED_BATCH 8
struct coded_batch {
	unsigned n;
	bool alone; /* see image_read_alone */
	struct extent e[CODED_BATCH];
	void *buf[CODED_BATCH];
};
int codec_read_batch(const struct coded_batch *b);
/* The unit that begins at this place of the file is about to be overwritten. */
void codec_forget(struct file *file, uint64_t host, uint32_t unit_len);
/* Is the unit in the cache, or on its way there? */
bool codec_is_known(const struct extent *e);
/* Is decoding ahead of a reader of any use? */
bool codec_reads_ahead(void);

/* control.c: the whole disk for oneself, nothing flushed; range_unlock gives it free. */
bool control_lock(struct image *img, struct range *r, GError **error);
/* image_empty with the disk locked. */
bool control_empty(struct image *img, GError **error);
/* image_flush that sets *error. */
bool control_flush(struct image *img, GError **error);
/* Alone on a writable image, with everything flushed, until control_end, which flushes
 * again and returns ok, or false when that failed. */
bool control_begin(struct image *img, struct range *r, GError **error);
bool control_end(struct image *img, struct range *r, bool ok, GError **error);

/* snapshot.c: is a view of the snapshot with this ID open? */
bool snapshot_is_shown(const struct image *img, const char *id);

/* zero.c: moves in an iovec. Fills out (at least niov long) with bytes [skip, skip+len); entries
 * used. */
int iov_slice(const struct iovec *iov, int niov, size_t skip, size_t len, struct iovec *out);
void iov_zero(const struct iovec *iov, int niov);
/* Are bytes [skip, skip+len) all zero? */
bool iov_is_zero(const struct iovec *iov, int niov, size_t skip, size_t len);

#endif
