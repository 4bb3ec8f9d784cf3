/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a disk image is: one driver, its files, and at most one backing image.
 * The one header that fs/ and tools/ need from this folder (with the small ones
 * that it includes). All calls on an image are made from coroutines of the loop
 * that opened it, unless said otherwise.
 */
#ifndef IMGFS_IMAGE_IMAGE_H
#define IMGFS_IMAGE_IMAGE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "image/check.h"
#include "image/codec.h"
#include "image/extent.h"
#include "image/format.h"
#include "image/option.h"
#include "image/report.h"
#include "image/units.h"
#include "io/co.h"
#include "io/file.h"

/*
 * The table of formats, handed in once by main (or a test) before anything is
 * opened; NULL-terminated and never freed. The first entry whose name is "raw"
 * is the fallback of probing.
 */
void image_set_formats(const struct format *const *table);
const struct format *const *image_formats(void);
/* NULL and *error "Unknown file format 'x'" with the nearest name if one is near. */
const struct format *image_find_format(const char *name, GError **error);

/* gate.c: which names inside images may be opened (design.md). */
struct gate;
enum gate_policy {
	GATE_DEFAULT, /* same directory tree, or recognised as an image other than raw */
	GATE_DIRS,    /* the default, and the directories added */
	GATE_ANY,     /* --allow-references=any, and imgtool called as qemu-img */
};
struct gate *gate_new(enum gate_policy policy);
/* Each word of --allow-references: a directory, or a file, or "any". */
bool gate_allow(struct gate *g, const char *word, GError **error);
void gate_free(struct gate *g);
/*
 * Opens nothing for long: is `name`, found inside image file `referrer` (path as opened), allowed?
 * Returns the path to open (relative names are relative to the referrer's
 * directory), to be freed; NULL and IMAGE_ERROR_REFUSED with a sentence that
 * names both files and the option that would allow it.
 */
char *gate_resolve(struct gate *g, const char *referrer, const char *name, GError **error);

enum image_flags {
	IMAGE_RDWR = 1 << 0,
	IMAGE_NO_BACKING = 1 << 1,     /* do not open the backing file (info) */
	IMAGE_NO_DATA_FILES = 1 << 2,  /* nor any other file named inside (info); map then fails */
	IMAGE_FORCE_SHARE = 1 << 3,    /* -U: lock nothing but what says "I read" */
	IMAGE_FOR_CHECK = 1 << 4,      /* opens what is damaged, as far as check needs */
	IMAGE_NO_SHARE_WRITE = 1 << 5, /* convert's sources: nobody may write meanwhile */
	IMAGE_NO_READ_AHEAD = 1 << 6,  /* many reads are under way at any time: nothing to gain */
};

/* What becomes of bytes that a guest discards. */
enum discard_mode {
	DISCARD_DEFAULT, /* nobody said: as DISCARD_UNMAP, but detect-zeroes=unmap needs it said */
	DISCARD_IGNORE,	 /* nothing */
	DISCARD_UNMAP,	 /* the host gets the space back */
};
/* What becomes of zeroes that are written as data. */
enum detect_zeroes {
	DETECT_ZEROES_OFF,
	DETECT_ZEROES_ON,    /* as image_write_zeroes; space that is there stays */
	DETECT_ZEROES_UNMAP, /* the host gets the space back; only with DISCARD_UNMAP */
};
/* "ignore" or "off", "unmap" or "on"; "off", "on", "unmap". false if the word is none of them. */
bool discard_mode_parse(const char *word, enum discard_mode *mode);
bool detect_zeroes_parse(const char *word, enum detect_zeroes *detect);

struct image_open_options {
	const char *format;	    /* NULL: probe */
	const char *backing_format; /* overrides what the top image records; NULL: do not */
	unsigned flags;		    /* enum image_flags */
	enum cache_mode cache;
	enum aio_engine aio;
	size_t cache_size; /* bytes of metadata cache of the whole chain; 0: default */
	struct gate *gate; /* borrowed, outlives the image; NULL: the default gate */
	enum discard_mode discard;
	enum detect_zeroes detect_zeroes; /* of the top image */
	/* With IMAGE_RDWR: so many images below the top is one that is opened for writing too
	 * (commit's base); 0: none. */
	unsigned writable_depth;
	/* Called for each sentence that is no error ("no format recorded for the
	 * backing file ..."). NULL: dropped. */
	void (*warn)(void *arg, const char *sentence);
	void *warn_arg;
};

struct image {
	const struct format *format;
	struct file *file;     /* the main file */
	struct image *backing; /* NULL: none, or not opened */
	uint64_t size;	       /* bytes of the disk */
	char *filename;	       /* as the user or the referring image named it, resolved */
	unsigned flags;
	bool is_view; /* shows a snapshot */

	/* Set by the driver's open: */
	void *state;
	uint32_t cluster_size; /* bytes; 0: the format has none */
	char *backing_name;    /* as recorded, any bytes but NUL; NULL: none */
	char *backing_format;  /* as recorded; NULL: none */
	/* Bytes that are written without reading around them, and that can be zero by themselves;
	 * 0: cluster_size. */
	uint32_t write_unit;
	const struct codec *codec; /* for image_write_coded; NULL: it cannot */
	bool encrypted, compressed, dirty, corrupt;

	/* Set by rebase: a backing file comes below it, so zeroes are written as such and holes are
	 * not relied on to read as zeroes. */
	bool gets_backing;
	bool tracks_changes; /* the driver wants will_change: it keeps enabled bitmaps */

	/* The core's: */
	struct image_core *core; /* private to image/ */
	struct cache *cache;	 /* metadata cache of the tree */
	struct gate *gate;
};

/*
 * Opens the image and its whole backing chain. name: a path, "file:path",
 * "json:{...}". NULL and *error: one sentence that names the file. Read-only opens
 * never write a byte. Same file twice in one process: shared (design.md).
 */
struct image *image_open(const char *name, const struct image_open_options *o, GError **error);
/* --image-opts: "driver=qcow2,file.filename=x". Takes the options over (frees them). */
struct image *image_open_with_options(struct options *options, const struct image_open_options *o,
				      GError **error);
/*
 * The same on a file that is open already (a memory file of a test or a fuzzer): takes a
 * reference. It has no backing file of its own unless it names one.
 */
struct image *image_open_file(struct file *file, const struct image_open_options *o,
			      GError **error);
/*
 * For drivers: opens another file of this image, an external data file: one that is named inside
 * it, through the gate, or one that the user has given; with the cache mode and locks of the main
 * file. The core flushes it with the image; the caller owns a reference. NULL and *error, also
 * under IMAGE_NO_DATA_FILES (ask img->flags first). May yield.
 */
struct file *image_open_data_file(struct image *img, const char *name, bool given, GError **error);
/* Of this layer's files beside the main one, the index-th; NULL: it has no more. */
struct file *image_extra_file(const struct image *img, unsigned index);
/*
 * Makes an image writable, or read-only again, that lies below one that was opened for writing;
 * readers go on. false and *error: it is as it was, but when it was to be made read-only and
 * flushing it failed. May yield.
 */
bool image_set_writable(struct image *img, bool writable, GError **error);
/*
 * Would opening this image's file, or writing to it, meet somebody's lock? To be asked of one that
 * was opened with IMAGE_FORCE_SHARE, which has none of its own that is in the way.
 */
bool image_is_locked(const struct image *img, bool writing);
struct image *image_ref(struct image *img);
/* Flushes a writable image, whose failure is told by image_close_error ... use
 * image_flush first when you must know. NULL is allowed. */
void image_unref(struct image *img);

/* Snapshots. */
GPtrArray *image_snapshots(struct image *img,
			   GError **error); /* of struct snapshot; empty when none */
/* Index into that list: by ID first, then by name; -1 and *error if there is none. */
int image_find_snapshot(GPtrArray *list, const char *id_or_name, GError **error);
/* Host bytes that only snapshot `index` of that list needs, and those that others need too. */
bool image_snapshot_usage(struct image *img, unsigned index, uint64_t *own, uint64_t *shared,
			  GError **error);
/* "snapshot.id=1,snapshot.name=x" (both must match) or ID or NAME. */
int image_find_snapshot_param(GPtrArray *list, const char *param, GError **error);
/* A read-only image that shows the snapshot; holds a reference to img. */
struct image *image_view(struct image *img, unsigned index, GError **error);

/*
 * map.c: what the whole chain says of the bytes from offset on, not past
 * offset+len: one extent, never of kind HOLE with a backing image below it unasked: HOLE means
 * that no layer describes it. e->layer and e->depth are set (past the end of a short backing
 * file the depth is that of the layer above it, as qemu-img counts). Not past the end of
 * the disk. base: stop above this image (its bytes count as HOLE); NULL: the whole
 * chain. 0 or -errno. May yield.
 */
int image_map(struct image *img, uint64_t offset, uint64_t len, struct image *base,
	      struct extent *e);
/*
 * The same, and neighbours that continue one another are joined, as far as they go in len. CODED
 * units are joined too: then unit_len and coded_len are 0, and the extent only says where coded
 * data is, it cannot be read as one.
 */
int image_map_run(struct image *img, uint64_t offset, uint64_t len, struct image *base,
		  struct extent *e);

/* A DATA extent that may be a hole of its host's file is cut where that changes, and becomes ZERO
 * where it is one. */
void image_ask_host(struct extent *e);

/*
 * read.c: bytes of the disk. Past the end of the disk: -EINVAL. 0 or -errno; the
 * first cause of an error is in image_fault_text. May yield; answered in
 * place when everything needed is in caches.
 */
int image_read(struct image *img, uint64_t offset, void *buf, size_t len);
int image_readv(struct image *img, uint64_t offset, const struct iovec *iov, int niov);
/*
 * image_read for one who waits for this request before he makes the next, as with O_DIRECT: its
 * coded units are decoded on several processors even where each of them has a loop.
 */
int image_read_alone(struct image *img, uint64_t offset, void *buf, size_t len);
/* Reads what one extent from image_map describes, all or a part of it: no second walk. Only where
 * image_stays says so, or the caller sees to it, are these bytes there still. */
int image_read_extent(struct image *img, const struct extent *e, uint64_t offset, void *buf,
		      size_t len);
/* Nobody of this process writes to it or below it as long as it is open: what image_map said of it
 * stays true. Else only image_read keeps clusters where they are until they are read. */
bool image_stays(const struct image *img);
/*
 * What the page cache has of a DATA extent: bytes from the front, 0 when it must be read in
 * earnest. From any thread, as long as the image stays open; does not yield.
 */
size_t image_peek_extent(const struct extent *e, uint64_t offset, void *buf, size_t len);
/* Tells that [offset, offset+len) will be read soon: decodes and reads ahead. Does not wait. */
void image_readahead(struct image *img, uint64_t offset, uint64_t len);

/*
 * write.c. -EROFS on read-only images. -EPERM for what would make an image whose format
 * was guessed to be raw look like another format: its next reader would believe what a guest wrote
 * there (image_fault_text has the sentence). May yield.
 */
int image_write(struct image *img, uint64_t offset, const void *buf, size_t len);
int image_writev(struct image *img, uint64_t offset, const struct iovec *iov, int niov);
/* Copies bytes of another file inside the kernel. -EOPNOTSUPP: not that way, or not all of it; then
 * an ordinary write of all of it is to follow. */
int image_copy_range(struct image *img, uint64_t offset, struct file *from, uint64_t from_host,
		     uint64_t len);
/* Makes the range read as zeroes in the cheapest way; may_unmap: space may be given up, unless
 * under DISCARD_IGNORE. */
int image_write_zeroes(struct image *img, uint64_t offset, uint64_t len, bool may_unmap);
/* Gives the range space of its own without changing what it reads as, so that writing to it later
 * needs none (but see snapshots: what they come to share is copied all the same). */
int image_allocate(struct image *img, uint64_t offset, uint64_t len);
/* Nothing under DISCARD_IGNORE. */
int image_discard(struct image *img, uint64_t offset, uint64_t len);
/* One cluster (from its first byte on), already encoded as the image's compression type wants it:
 * -ENOTSUP where the format or this image has no compressed clusters. */
int image_write_coded(struct image *img, uint64_t offset, const void *coded, size_t coded_len);
/* Everything acknowledged before is durable: tables, then every file. */
int image_flush(struct image *img);
/* The same at the end of writing, with what is only stored then: bitmaps that followed the changes.
 * The last image_unref does it too, but cannot say that it failed. */
int image_settle(struct image *img);

/*
 * control.c: changes of an image's structure. Each waits until nothing else is under way on the
 * image, flushes before and after, and is refused on a read-only image. false and *error: the
 * sentence is the driver's, without the file name; nothing has changed for a reader. A format that
 * cannot: IMAGE_ERROR_UNSUPPORTED. All may yield.
 */
struct image_progress { /* of something that takes long; tell may be NULL */
	void (*tell)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};
/* options: "preallocation" for what is added; NULL: none. It is the caller's to ask whether
 * shrinking is wanted. */
bool image_resize(struct image *img, uint64_t size, struct options *options, GError **error);
/* name as it is recorded, NULL: none; format NULL: not recorded. The file is not opened:
 * img->backing stays as it is, img->backing_name and backing_format follow. */
bool image_set_backing(struct image *img, const char *name, const char *format, GError **error);
/* Changes options of the format's amend_options; progress may be NULL. */
bool image_amend(struct image *img, struct options *options, const struct image_progress *progress,
		 GError **error);
/* index: of the list that image_snapshots gives; an earlier list is out of date afterwards. */
bool image_snapshot_create(struct image *img, const char *name, GError **error);
bool image_snapshot_apply(struct image *img, unsigned index, GError **error);
/* IMAGE_ERROR_BUSY while a view of it is open. */
bool image_snapshot_delete(struct image *img, unsigned index, GError **error);
/* Would image_set_backing be refused? false and *error: yes, and why. Writes nothing. */
bool image_check_backing(struct image *img, const char *name, const char *format, GError **error);
/* Makes all of it a hole, so that the backing file shows; the host gets the space back, and the
 * file becomes as short as a new one unless it has snapshots, bitmaps or a data file. */
bool image_empty(struct image *img, GError **error);
bool image_snapshot_rename(struct image *img, unsigned index, const char *name, GError **error);

/*
 * hold.c: from now on until image_hold_end the files of the chain stay as they are, with everything
 * written before in them, so that another process may read them. Reads go on; writes, flushes that
 * have something to write and changes of structure wait. Several may hold. NULL and *error: a
 * flush failed. Yields. / Does not yield.
 */
struct image_hold;
struct image_hold *image_hold(struct image *img, GError **error);
void image_hold_end(struct image_hold *h);

/*
 * stored-bitmap.c: dirty bitmaps that are stored in the image. Sentences do not name the file. As
 * the functions of control.c they wait until nothing else is under way, and flush.
 */
bool image_may_have_bitmaps(const struct image *img);
GPtrArray *image_bitmaps(struct image *img, GError **error); /* of struct bitmap_info */
/* Enabled and clear. granularity: bytes, 0: the default for this image. */
bool image_bitmap_add(struct image *img, const char *name, uint64_t granularity, GError **error);
bool image_bitmap_remove(struct image *img, const char *name, GError **error);
bool image_bitmap_clear(struct image *img, const char *name, GError **error);
bool image_bitmap_enable(struct image *img, const char *name, bool enabled, GError **error);
/* What is set in bitmap source_name of source (which may be img) is set in `name` too. */
bool image_bitmap_merge(struct image *img, const char *name, struct image *source,
			const char *source_name, GError **error);
/*
 * For convert --bitmaps: adds every bitmap of source to target, with its granularity, bits, and
 * enabled or not. Inconsistent ones: refused before anything is done, or with skip_broken
 * left out, each told to warn.
 */
bool image_bitmaps_copy(struct image *source, struct image *target, bool skip_broken,
			void (*warn)(void *arg, const char *sentence), void *arg, GError **error);

/* Control. */
/* create.c. The new image may not be its own backing or data file. On failure nothing new is left
 * behind. */
bool image_create(const char *filename, const struct format *format, struct options *options,
		  GError **error);
/* Of the options: what image_create refuses because of names, to be told earlier. */
bool image_check_names(const char *filename, struct options *options, GError **error);
/* Opens what `name` means when it stands inside image `filename`, which may not exist yet. */
struct image *image_open_beside(const char *filename, const char *name,
				const struct image_open_options *o, GError **error);
bool image_check(struct image *img, const struct check_options *options,
		 struct check_result *result,
		 GError **error); /* IMAGE_ERROR_UNSUPPORTED: no checks here */
/* Bytes that the image's own files occupy on the host, or -errno. */
int64_t image_allocated(struct image *img);
/* Backing path for people: recorded name made absolute or relative to the working
 * directory as qemu's "actual path"; NULL when there is none. Caller frees. */
char *image_backing_path(struct image *img);

/* fault.c: the first cause of a data path error, for logs and messages. */
void image_fault(struct image *img, int err, uint64_t offset, const char *format, ...)
	G_GNUC_PRINTF(4, 5);
/* "x.qcow2: offset 65536: L2 table offset 0x2a00 is not aligned ..."; NULL when
 * there was none since image_fault_clear. Owned by img. A fault in any layer of
 * the chain is found. */
const char *image_fault_text(struct image *img);
/* Why it failed, in words: image_fault_text, else err's (negative). */
const char *image_cause(struct image *img, int err);
/* Sets *error to "what: why"; false. */
bool image_fail(struct image *img, int err, const char *what, GError **error);
/* Sets *error to the sentence of IMAGE_ERROR_UNSUPPORTED; false. */
bool image_unsupported(GError **error, const char *sentence);
void image_fault_clear(struct image *img);
/* For drivers, while they open: a sentence that is no error, to whoever opens the image; the file's
 * name is put in front. */
void image_warn(struct image *img, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* zero.c */
bool buffer_is_zero(const void *buf, size_t len);

#endif
