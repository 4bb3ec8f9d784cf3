/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2, as "Qcow2 Image File Format" (docs/interop/qcow2 of QEMU's manual)
 * specifies it; section names in comments are that document's. Private to
 * qcow2*.c and their tests.
 */
#ifndef IMGFS_FORMATS_QCOW2_H
#define IMGFS_FORMATS_QCOW2_H

#include <assert.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "image/bytes.h"
#include "image/create.h"
#include "image/image.h"

struct spacemap;

/* On disk. */

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

/* "Header" */
struct qcow2_header_disk {
	be32_t magic, version;
	be64_t backing_offset;
	be32_t backing_length, cluster_bits;
	be64_t size;
	be32_t crypt_method, l1_size;
	be64_t l1_offset, reftable_offset;
	be32_t reftable_clusters, nb_snapshots;
	be64_t snapshots_offset;
	/* version 3: */
	be64_t incompatible, compatible, autoclear;
	be32_t refcount_order, header_length;
	/* optional: */
	uint8_t compression_type, padding[7];
};
#define QCOW2_HEADER_V2 72
#define QCOW2_HEADER_V3 104
static_assert(sizeof(struct qcow2_header_disk) == 112, "header");
static_assert(offsetof(struct qcow2_header_disk, incompatible) == QCOW2_HEADER_V2, "header");
static_assert(offsetof(struct qcow2_header_disk, compression_type) == QCOW2_HEADER_V3, "header");

/* "Header extensions" */
struct qcow2_extension_disk {
	be32_t type, length;
};
static_assert(sizeof(struct qcow2_extension_disk) == 8, "extension");
enum qcow2_extension_type {
	QCOW2_EXT_END = 0,
	QCOW2_EXT_BACKING_FORMAT = 0xe2792aca,
	QCOW2_EXT_FEATURE_NAMES = 0x6803f857,
	QCOW2_EXT_BITMAPS = 0x23852875,
	QCOW2_EXT_CRYPTO = 0x0537be77,
	QCOW2_EXT_DATA_FILE = 0x44415441,
};

/* "Feature name table" */
struct qcow2_feature_disk {
	uint8_t kind, bit;
	char name[46];
};
static_assert(sizeof(struct qcow2_feature_disk) == 48, "feature name");

/* "Bitmaps extension" */
struct qcow2_bitmaps_disk {
	be32_t count, reserved;
	be64_t directory_size, directory_offset;
};
static_assert(sizeof(struct qcow2_bitmaps_disk) == 24, "bitmaps extension");

/* "Full disk encryption header pointer" */
struct qcow2_crypto_disk {
	be64_t offset, length;
};
static_assert(sizeof(struct qcow2_crypto_disk) == 16, "crypto extension");

/* "Snapshots"; extra data, ID and name follow, padded to a multiple of 8 */
struct qcow2_snapshot_disk {
	be64_t l1_offset;
	be32_t l1_size;
	be16_t id_length, name_length;
	be32_t date_sec, date_nsec;
	be64_t vm_clock_nsec;
	be32_t vm_state_size, extra_length;
};
static_assert(sizeof(struct qcow2_snapshot_disk) == 40, "snapshot");
struct qcow2_snapshot_extra_disk {
	be64_t vm_state_size, disk_size, icount;
};
static_assert(sizeof(struct qcow2_snapshot_extra_disk) == 24, "snapshot extra data");

/* "Bitmap directory"; extra data and name follow, padded to a multiple of 8 */
struct qcow2_bitmap_disk {
	be64_t table_offset;
	be32_t table_size, flags;
	uint8_t type, granularity_bits;
	be16_t name_length;
	be32_t extra_length;
};
static_assert(sizeof(struct qcow2_bitmap_disk) == 24, "bitmap");
#define QCOW2_BITMAP_IN_USE	      (1u << 0)
#define QCOW2_BITMAP_AUTO	      (1u << 1)
#define QCOW2_BITMAP_EXTRA_COMPATIBLE (1u << 2)

#define QCOW2_INCOMPAT_DIRTY	      (1ull << 0)
#define QCOW2_INCOMPAT_CORRUPT	      (1ull << 1)
#define QCOW2_INCOMPAT_DATA_FILE      (1ull << 2)
#define QCOW2_INCOMPAT_COMPRESSION    (1ull << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2    (1ull << 4)
#define QCOW2_INCOMPAT_KNOWN	      0x1full
#define QCOW2_COMPAT_LAZY_REFCOUNTS   (1ull << 0)
#define QCOW2_AUTOCLEAR_BITMAPS	      (1ull << 0)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW (1ull << 1)

enum qcow2_crypt_method { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };

/* "Cluster mapping" */
#define QCOW2_COPIED		   (1ull << 63)
#define QCOW2_COMPRESSED	   (1ull << 62)
#define QCOW2_ZERO		   (1ull << 0)
#define QCOW2_OFFSET_MASK	   0x00fffffffffffe00ull
#define QCOW2_L1_RESERVED	   0x7f000000000001ffull
#define QCOW2_L2_RESERVED	   0x3f000000000001feull
#define QCOW2_REFTABLE_OFFSET_MASK 0xfffffffffffffe00ull
#define QCOW2_REFTABLE_RESERVED	   0x1ffull
#define QCOW2_SUBCLUSTERS	   32

/* Limits: what QEMU reads, so that whatever it makes opens here. */
#define QCOW2_MIN_CLUSTER_BITS		9
#define QCOW2_MAX_CLUSTER_BITS		21
#define QCOW2_MIN_EXTENDED_CLUSTER_BITS 14
#define QCOW2_MAX_L1_BYTES		(32u << 20)
#define QCOW2_MAX_L1_ENTRIES		(QCOW2_MAX_L1_BYTES / 8)
#define QCOW2_MAX_REFTABLE_BYTES	(8u << 20)
#define QCOW2_MAX_SNAPSHOTS		65536
#define QCOW2_MAX_SNAPSHOT_BYTES	(64u << 20)
#define QCOW2_MAX_SNAPSHOT_EXTRA	1024
#define QCOW2_MAX_BITMAPS		65535
#define QCOW2_MAX_BITMAP_BYTES		(1024u * QCOW2_MAX_BITMAPS)
#define QCOW2_MAX_BITMAP_TABLE		(128u << 20) /* entries */
#define QCOW2_MAX_BITMAP_NAME		1023
#define QCOW2_MAX_BACKING_NAME		1023
#define QCOW2_MAX_BACKING_FORMAT	15

/* qcow2-header.c: the header, decoded. */

struct qcow2_header {
	uint32_t version, header_length, cluster_bits, refcount_order;
	uint32_t crypt_method, compression_type;
	uint64_t size;
	uint64_t l1_offset, reftable_offset, snapshots_offset, backing_offset;
	uint32_t l1_size; /* entries */
	uint32_t reftable_clusters, nb_snapshots, backing_length;
	uint64_t incompatible, compatible, autoclear;

	/* Extensions; NULL or false: not there. */
	char *backing_name, *backing_format, *data_file;
	GArray *feature_names; /* of struct qcow2_feature_disk */
	GPtrArray *unknown;    /* of GBytes: extension heads with their data, kept for a writer */
	GBytes *more_fields;   /* of a header longer than the one above, kept for a writer */
	/* Behind the last extension or its end marker, from the front of the file. */
	uint32_t extensions_end;
	bool has_bitmaps, has_crypto;
	uint32_t nb_bitmaps;
	uint64_t bitmap_directory_size, bitmap_directory_offset;
	uint64_t crypto_offset, crypto_length;
};

/*
 * Decodes the fixed part from the file's first `len` bytes and checks each field
 * by itself. false and *error: *h is all zero. Pure.
 */
bool qcow2_header_decode(const void *buf, size_t len, struct qcow2_header *h, GError **error);
/*
 * Decodes extensions and the backing file name from the file's first cluster,
 * which buf holds whole (zeroes past the end of the file). After it, the
 * incompatible bits are checked, with their names. On failure *h holds what
 * qcow2_header_clear frees. Pure.
 */
bool qcow2_extensions_decode(const void *buf, struct qcow2_header *h, GError **error);
/*
 * Checks that what the header points at lies in a file of this size. for_check: a refcount or
 * snapshot table that is missing or in the wrong place is check's to report. Pure.
 */
bool qcow2_header_check_tables(const struct qcow2_header *h, uint64_t file_size, bool for_check,
			       GError **error);
/* The same of the snapshot table. Pure. */
bool qcow2_header_check_snapshots(const struct qcow2_header *h, uint64_t file_size, GError **error);
/* Reads, decodes and checks all of it. On failure *h is all zero. May yield. */
bool qcow2_header_read(struct file *f, bool for_check, struct qcow2_header *h, GError **error);
void qcow2_header_clear(struct qcow2_header *h);
/* Is [offset, offset+len) in a file of size file_size? Safe for every value. */
bool qcow2_inside(uint64_t offset, uint64_t len, uint64_t file_size);
/* L1 entries that a disk of `size` bytes needs. Does not overflow. */
uint64_t qcow2_l1_needed(const struct qcow2_header *h, uint64_t size);

/* qcow2.c: an open image. */

struct qcow2_range {
	uint64_t start, end; /* bytes of the main file */
	const char *what;
};
#define QCOW2_FIXED_RANGES 6

struct qcow2 {
	struct qcow2_header header; /* a view has its parent's, borrowed */
	struct qcow2 *parent;	    /* NULL, or whose snapshot this shows */
	uint64_t l1_offset;	    /* of what is shown: active table or snapshot's */
	uint32_t l1_size;	    /* entries */
	unsigned cluster_bits;
	uint32_t cluster_size;
	unsigned entry_bits; /* log2 of bytes an L2 entry: 3, or 4 when extended */
	unsigned l2_bits;    /* log2 of entries an L2 table */
	bool extended;
	uint64_t file_size; /* of the main file, or where what was allocated since ends */
	struct file
		*data; /* where guest clusters are: main file, data file, or NULL (not opened) */
	uint64_t data_size;
	/* The file has far less on its host than it is long, as after metadata preallocation:
	 * its holes are worth asking for. */
	bool sparse;
	bool external; /* data is not the main file */
	bool data_file_raw;
	const struct codec *codec;

	/* Where no L2 table and no guest cluster may lie. */
	struct qcow2_range fixed[QCOW2_FIXED_RANGES];
	unsigned nb_fixed;
	uint64_t fixed_end; /* the greatest of their ends */

	GArray *snapshot_offsets;  /* uint32_t, from the table's start */
	uint64_t snapshots_length; /* bytes of the snapshot table */
	/* With IMAGE_FOR_CHECK, when the table is damaged, else NULL: struct qcow2_snapshot of what
	 * can be read of it, header.nb_snapshots entries. lost_snapshots: those that cannot. */
	GArray *salvaged;
	uint32_t lost_snapshots;

	struct qcow2_tracking *tracking; /* bitmaps that follow what is written; NULL: none yet */
	struct qcow2_writer *writer;	 /* NULL: nothing may be changed (read-only, or a view) */

	/* The L2 table of the last map: sequential and local readers save the L1 look-up. */
	uint64_t last_l1_index, last_l2_offset; /* UINT64_MAX: none */
};

static inline struct qcow2 *qcow2_of(const struct image *img)
{
	return img->state;
}
/* After the header's tables have moved or the file has grown: what was derived from them. */
void qcow2_relayout(struct image *img);
/* The fixed range that [offset, offset+len) meets, or NULL. */
const struct qcow2_range *qcow2_fixed_overlap(const struct qcow2 *q, uint64_t offset, uint64_t len);
/* Fills in the fixed ranges anew, after the header's fields for them changed. */
void qcow2_collect_fixed(struct qcow2 *q);

/* qcow2-map.c */

enum qcow2_cluster_kind {
	QCOW2_CLUSTER_HOLE,
	QCOW2_CLUSTER_ZERO, /* host: 0, or space that is kept */
	QCOW2_CLUSTER_DATA,
	QCOW2_CLUSTER_CODED,
	QCOW2_CLUSTER_INVALID, /* `wrong` says why */
};
/* An L2 entry, decoded: "L2 table entry", "Extended L2 Entries". */
struct qcow2_cluster {
	enum qcow2_cluster_kind kind;
	bool copied;
	bool mixed;	    /* subclusters differ: look at the bitmap */
	uint32_t coded_len; /* CODED: up to the end of the last sector */
	uint64_t host;
	uint64_t bitmap; /* extended: the second word */
	const char *wrong;
};
struct qcow2_l2_rules { /* what the meaning of an entry depends on */
	unsigned cluster_bits, version;
	bool extended, external;
};
/* Pure; bitmap is ignored unless rules->extended. */
void qcow2_l2_decode(const struct qcow2_l2_rules *rules, uint64_t entry, uint64_t bitmap,
		     struct qcow2_cluster *c);
/* NULL, or what is wrong with this L1 entry by itself. Pure. */
const char *qcow2_l1_wrong(unsigned cluster_bits, uint64_t entry);
struct qcow2_l2_rules qcow2_rules(const struct qcow2 *q);

int qcow2_map(struct image *img, uint64_t offset, uint64_t len, struct extent *e);

/* qcow2-snapshot.c */

struct qcow2_snapshot { /* a table entry without its texts */
	uint64_t l1_offset, vm_state_size, disk_size, vm_clock_nsec, icount;
	uint32_t l1_size, date_sec, date_nsec, extra_length;
	uint16_t id_length, name_length;
	bool has_disk_size; /* version 2 may lack it; in version 3 that is damage */
	uint64_t total;	    /* bytes in the table, with padding */
};
/* From the first bytes of an entry: the fixed part and as much extra data as len
 * has. false: too short. Pure. */
bool qcow2_snapshot_decode(const void *buf, size_t len, struct qcow2_snapshot *s);
/* Walks the table, at open: it must lie inside the file. With IMAGE_FOR_CHECK a damaged one is not
 * refused: what can be told to be entries in its first clusters is kept. May yield. */
bool qcow2_snapshots_index(struct image *img, struct qcow2 *q, GError **error);
void qcow2_snapshots_forget(struct qcow2 *q); /* before it is walked again */
/* index < nb_snapshots of an opened image. May yield. */
bool qcow2_snapshot_read(struct image *img, unsigned index, struct qcow2_snapshot *s,
			 GError **error);
/* The ID or the name; to be freed. NULL and *error. May yield. */
char *qcow2_snapshot_text(struct image *img, unsigned index, const struct qcow2_snapshot *s,
			  bool name, GError **error);
/* NULL, or what is wrong with the snapshot's L1 table by its size and alignment. */
const char *qcow2_snapshot_l1_wrong(const struct qcow2 *q, const struct qcow2_snapshot *s);
/* Reads the entry, and checks that its disk can be shown. May yield. */
bool qcow2_snapshot_usable(struct image *img, unsigned index, struct qcow2_snapshot *s,
			   GError **error);
GPtrArray *qcow2_snapshot_list(struct image *img, GError **error);
bool qcow2_view(struct image *img, unsigned index, struct image *view, GError **error);

/*
 * Writing. Order on disk, the same for every operation:
 *
 *   1. guest data (the core wrote it), and in phase QCOW2_NEW: refcount blocks with raised counts,
 *	and all of a table that nothing durable points at yet (new L2, L1, refcount and snapshot
 *	tables, new refcount blocks)
 *   2. phase QCOW2_REFTABLE: refcount table entries that point at new refcount blocks
 *   3. phase QCOW2_TABLES: L2 and L1 entries
 *   4. the header, one sector, where an operation changes it (that is its point of commit)
 *   5. only now counts are lowered (qcow2_free_later), and freed clusters may be used again
 *
 * with a sync of the file between steps that have something to write. Cut anywhere, the image has
 * at worst counts that are too high: leaks. Nothing is ever lowered or reused before what no longer
 * points at it is durable. Where COPIED flags change with counts, both come with step 4 at once
 * (qcow2-shadow.c).
 */
enum qcow2_phase { QCOW2_NEW, QCOW2_REFTABLE, QCOW2_TABLES };

/*
 * The caller of all that follows holds the metadata lock exclusively (every callback marked [x]).
 * 0 or -errno with a fault recorded; all may yield.
 *
 * qcow2_alloc may have to flush, when the refcount table must grow: allocate first; then change
 * entries; and only then qcow2_free_later what they pointed at.
 */
struct qcow2_region {
	uint64_t host, len; /* bytes of the main file */
};
#define QCOW2_HINTS 24
struct qcow2_writer {
	/* Where to search for free clusters: below hint[k] no run of 2^k of them is known. */
	uint64_t hint[QCOW2_HINTS];
	uint64_t touched;   /* up to here a failed write may have left bytes past the file's end */
	uint64_t coded_at;  /* where the next compressed cluster may go on; 0: nowhere */
	GArray *frees;	    /* struct qcow2_region: to be freed by the next flush */
	GHashTable *tables; /* clusters of L2 tables, refcount blocks, snapshots' L1 tables */
	uint64_t old_table; /* 0, or the refcount table that is in force on disk: qcow2-shadow.c */
	bool begun;	    /* qcow2_begin was here */
	bool set_dirty;	    /* and has set the dirty bit, which closing takes back */
	bool no_punch;	    /* the host's file system cannot */
	int failed;	    /* -errno: nothing may be changed any more */
	const char *why;    /* the half of a sentence that says it, or NULL; not freed */
};

/* qcow2-flush.c */
struct qcow2_writer *qcow2_writer_new(void);
void qcow2_writer_free(struct qcow2_writer *w); /* NULL is allowed */
/* After the refcount structure was replaced: what was learned of the old one. */
void qcow2_writer_forget(struct qcow2_writer *w);
/*
 * Before anything is changed, each time: -EROFS, or what failed before. The first time: finds the
 * tables, and sets the dirty bit with lazy refcounts.
 */
int qcow2_begin(struct image *img);
/* What is at [host, host+len) must be written to no more: -EIO, with the corrupt bit set, if it is
 * a table. `what` names what would have been written, "guest data". */
int qcow2_check_place(struct image *img, uint64_t host, uint64_t len, const char *what);
/* Is this cluster a table that qcow2_begin found or that was allocated as one since? */
bool qcow2_is_table(const struct qcow2 *q, uint64_t host);
/* Remembers that this cluster is one. */
void qcow2_note_table(struct qcow2 *q, uint64_t host);
/* Sets the corrupt bit and refuses all further changes; the sentence becomes the fault. -EIO. */
int qcow2_mark_corrupt(struct image *img, uint64_t offset, const char *format, ...)
	G_GNUC_PRINTF(3, 4);
/* Refuses all further changes, because nobody knows what is on disk; why: half of a sentence, which
 * each refusal tells. The first one stays. */
void qcow2_give_up(struct image *img, const char *why);
/* file_flush of one of the image's files; when it fails, with a fault, everything is given up.
 * 0 or -errno. Yields. */
int qcow2_sync(struct image *img, struct file *f);
/* Lowers counts by one, after step 4 of the next qcow2_flush; at 0 the host gets the space back.
 * Takes effect in memory at that time too. */
int qcow2_free_later(struct image *img, uint64_t host, uint64_t len);
/* Steps 1 to 3, then the frees that were pending when it began. Durable when it returns 0. */
int qcow2_flush(struct image *img);
/* The same, with step 4: writes the header from q->header (qcow2_header_store). On failure the
 * header on disk is the old one (-ENOSPC: the new one does not fit), or nobody knows, and then
 * nothing can be changed any more (qcow2_give_up). */
int qcow2_flush_header(struct image *img);
/* Gives the space of these regions back to the host, as far as they are free; sorts them. */
int qcow2_punch(struct image *img, GArray *regions);
/* Takes the dirty bit back, when all that was changed is durable. */
void qcow2_end(struct image *img);

/* qcow2-refcount.c */
/* Entry i of a block of 1 << order bits an entry: "Refcount blocks". Pure. */
uint64_t qcow2_refcount_entry(const void *block, uint64_t i, unsigned order);
void qcow2_set_refcount_entry(void *block, uint64_t i, unsigned order, uint64_t count);
int qcow2_refcount(struct image *img, uint64_t host, uint64_t *count);
/* Raises the counts of all clusters that [host, host+len) touches by one; -EOVERFLOW leaves none
 * raised. */
int qcow2_ref(struct image *img, uint64_t host, uint64_t len);
/* Lowers them at once: what nothing ever pointed at, and what qcow2_flush frees. */
int qcow2_unref(struct image *img, uint64_t host, uint64_t len);
/* Entries of one refcount block that lie in one cache block, pinned; block NULL: none is there,
 * all n are 0. */
struct qcow2_counts {
	struct cache_block *block;
	uint8_t *data;
	uint64_t first, n; /* entry `first` of data is that of the cluster asked for */
};
int qcow2_counts_get(struct image *img, uint64_t cluster, uint64_t n, struct qcow2_counts *c);
void qcow2_counts_put(struct qcow2_counts *c);
/* log2 of entries a refcount block; entries of the refcount table */
unsigned qcow2_block_bits(const struct qcow2 *q);
uint64_t qcow2_reftable_entries(const struct qcow2 *q);

/* qcow2-alloc.c */
/*
 * Contiguous clusters with refcount 1, `bytes` rounded up to clusters. They lie outside of fixed
 * ranges, tables and pending frees, and of what the file has where a refcount block is missing.
 */
int qcow2_alloc(struct image *img, uint64_t bytes, uint64_t *host);
/* Room for a compressed cluster of len bytes, at any byte: each cluster that it touches has one
 * reference more. */
int qcow2_alloc_coded(struct image *img, uint32_t len, uint64_t *host);
/* Fills newly allocated clusters, of a table, with zeroes, in phase QCOW2_NEW. Past the end of the
 * file only the last sector is written. */
int qcow2_zero_table(struct image *img, uint64_t host, uint64_t len);
/* Copies a table, or a part of one, to newly allocated clusters, in phase QCOW2_NEW. */
int qcow2_copy_table(struct image *img, uint64_t from, uint64_t to, uint64_t len);

/* qcow2-header-write.c */
/*
 * The first cluster for h: extensions, feature names (left out when they do not fit), backing
 * name. backing_offset, backing_length and header_length of h are not looked at: they follow from
 * the rest. -ENOSPC: does not fit; -EINVAL: a name is longer than the specification allows. Pure.
 */
int qcow2_header_encode(const struct qcow2_header *h, void *cluster);
/*
 * Writes the header from q->header so that a cut leaves the old or the new one, and syncs. What
 * commits is the first 512-byte sector; the rest is written before it where the header on disk has
 * no use for it. q->header's own place fields are brought up to date. 0 or -errno: -ENOSPC (with a
 * fault) when the new one does not fit, or not beside the old one. Yields.
 */
int qcow2_header_store(struct image *img);
/*
 * Overwrites the first len bytes of the header, at most a sector, and syncs. A failed write is
 * taken back, so that the header is the old one whatever came of it; where that fails too, or a
 * sync, nothing may be changed any more (qcow2_give_up). 0 or -errno. Yields.
 */
int qcow2_header_switch(struct image *img, const void *old, const void *new, size_t len);
/* Would it fail for what the header has, room before all? Writes nothing. */
int qcow2_header_try(struct image *img);

/* qcow2-layout.c: where the parts of a new image lie: header, refcount table, refcount blocks,
 * L1 table, L2 tables, guest clusters, each in one piece and in this order. */
struct qcow2_shape { /* what it follows from */
	unsigned cluster_bits, refcount_order;
	bool extended, external;
	uint64_t size;	     /* of the disk, bytes */
	uint64_t l2_tables;  /* of them: those that will be there */
	uint64_t data_bytes; /* of guest clusters in this file */
};
struct qcow2_layout {
	uint64_t l1_entries, reftable_clusters, refcount_blocks;
	uint64_t l2_tables;			 /* that are there */
	uint64_t reftable, blocks, l1, l2, data; /* offsets */
	uint64_t end;				 /* of the file, rounded up to clusters */
};
/* L2 tables that a disk of this size needs in all. */
uint64_t qcow2_l2_needed(const struct qcow2_shape *s);
/* false: the disk is too large for its tables or for the specification's limits (of the refcount
 * table the caller judges). Pure. */
bool qcow2_layout(const struct qcow2_shape *s, struct qcow2_layout *l);
/* Writes reference counts of one, L1 and L2 tables for the layout, in large pieces and not the
 * header. 0 or -errno. Yields. */
struct qcow2_tables {
	struct file *file;
	const struct qcow2_shape *shape;
	const struct qcow2_layout *layout;
	uint64_t entry_flags; /* of L2 entries, beside QCOW2_COPIED */
	uint64_t bitmap;      /* extended: of each entry */
};
int qcow2_tables_write(const struct qcow2_tables *t);

/* qcow2-create.c */
extern const struct option_desc qcow2_create_options[];
struct qcow2_new { /* the options, understood */
	struct qcow2_shape shape;
	uint32_t version, compression_type;
	enum {
		QCOW2_PREALLOC_OFF,
		QCOW2_PREALLOC_METADATA,
		QCOW2_PREALLOC_FALLOC,
		QCOW2_PREALLOC_FULL
	} preallocation;
	bool lazy_refcounts, data_file_raw, has_size;
	struct new_file hints; /* of its files */
	char *backing_file, *backing_format, *data_file;
};
/* Takes the options and refuses what contradicts itself; *n is what qcow2_new_clear frees. */
bool qcow2_new_parse(struct qcow2_new *n, struct options *options, GError **error);
void qcow2_new_clear(struct qcow2_new *n);
bool qcow2_create(const char *filename, struct options *options, GError **error);
/* cluster_size and refcount_bits, also for measure. */
bool qcow2_take_widths(struct qcow2_shape *s, struct options *options, GError **error);

/* qcow2-measure.c */
bool qcow2_measure(struct options *options, uint64_t size, struct image *source,
		   struct image_measure *m, GError **error);

/* qcow2-l2.c: L2 tables that are to be changed. */
/*
 * The L2 table of a cluster of the disk. make: it is this image's alone, made or copied from one
 * that a snapshot shares, when it was not; else *l2_offset is 0 when there is none. May flush.
 */
int qcow2_l2_find(struct image *img, uint64_t cluster, bool make, uint64_t *l2_offset);
/* The entry of a cluster in that table. */
int qcow2_l2_read(struct image *img, uint64_t l2_offset, uint64_t cluster, uint64_t *entry,
		  uint64_t *bitmap);
int qcow2_l2_write(struct image *img, uint64_t l2_offset, uint64_t cluster, uint64_t entry,
		   uint64_t bitmap);
/* Decodes; what is wrong is a fault and -EIO. l2_offset 0: a hole. */
int qcow2_l2_get(struct image *img, uint64_t l2_offset, uint64_t cluster, uint64_t *entry,
		 struct qcow2_cluster *c);
/* Gives up what an entry that was overwritten pointed at. */
int qcow2_l2_release(struct image *img, const struct qcow2_cluster *old);
/* The first cluster behind those that one L2 table describes. */
uint64_t qcow2_l2_end(const struct qcow2 *q, uint64_t cluster);

/* qcow2-write.c */
/* Bits of the subclusters that [start, end) of the disk touches in this cluster: of 32 equal parts,
 * also where there are no subclusters. Pure. */
uint32_t qcow2_subclusters(const struct qcow2 *q, uint64_t cluster, uint64_t start, uint64_t end);
int qcow2_reserve(struct image *img, uint64_t offset, uint64_t len, unsigned flags,
		  struct claim *claim);
int qcow2_commit(struct image *img, struct claim *claim);
void qcow2_abandon(struct image *img, struct claim *claim);
int qcow2_unmap(struct image *img, uint64_t offset, uint64_t len, enum unmap_mode mode);

/* qcow2-empty.c: callback of struct format. On failure the disk is as before or empty. */
int qcow2_empty(struct image *img);

/* qcow2-bitmap.c */

struct qcow2_bitmap { /* a directory entry without its name */
	uint64_t at;  /* where in the file it is; set by qcow2_bitmaps_each */
	uint64_t table_offset, total;
	uint32_t table_size, flags, extra_length;
	uint8_t type, granularity_bits;
	uint16_t name_length;
};
/* From the sizeof(struct qcow2_bitmap_disk) bytes of an entry. Pure. */
bool qcow2_bitmap_decode(const void *buf, struct qcow2_bitmap *b);
/* Return false to stop. */
typedef bool qcow2_bitmap_fn(void *arg, const struct qcow2_bitmap *b, const char *name);
/* Calls fn for each entry. false: damage, said in *error, or fn stopped. May yield. */
bool qcow2_bitmaps_each(struct image *img, qcow2_bitmap_fn *fn, void *arg, GError **error);
/* The "bitmaps" rows of info. May yield. */
void qcow2_describe_bitmaps(struct image *img, struct report *r);
/* Does the image have bitmaps that count? */
bool qcow2_has_bitmaps(const struct qcow2 *q);

/* qcow2-bitmap-write.c; the caller holds the metadata lock exclusively */

struct bitmap;
struct qcow2_stored_bitmap { /* a directory entry */
	struct qcow2_bitmap b;
	char *name;
	uint8_t *extra;
};
void qcow2_stored_bitmap_free(struct qcow2_stored_bitmap *s);
/* The directory, of struct qcow2_stored_bitmap; empty when there is none. */
GPtrArray *qcow2_bitmaps_read(struct image *img, GError **error);
/* May its bits be relied on? */
bool qcow2_bitmap_usable(const struct qcow2_bitmap *b);
struct bitmap *qcow2_bitmap_load(struct image *img, const struct qcow2_stored_bitmap *s,
				 GError **error);
/* Writes the bits where nothing points yet and has s->b point there. On failure s is as it was. */
int qcow2_bitmap_write(struct image *img, struct qcow2_stored_bitmap *s, const struct bitmap *bits);
/* The bits and the table are free, after the next flush. */
int qcow2_bitmap_free_bits(struct image *img, const struct qcow2_bitmap *b);
/*
 * Makes `list` the image's bitmaps in two steps, for who has more to say in the same header:
 * prepare writes the directory and changes q->header; then the caller calls qcow2_flush_header;
 * then finish, with its result, frees the old directory or takes the change back. Returns ret, or
 * what failed. publish is all of it.
 */
struct qcow2_bitmaps_change {
	bool nothing; /* there are no bitmaps */
	uint32_t old_count;
	uint64_t old_offset, old_size;
	GArray *old_bits; /* struct qcow2_bitmap, to be freed; NULL: none */
};
int qcow2_bitmaps_prepare(struct image *img, const GPtrArray *list, struct qcow2_bitmaps_change *c);
/* Between prepare and finish: the old ones in q->header again, and at the next call the new ones.
 */
void qcow2_bitmaps_swap(struct image *img, struct qcow2_bitmaps_change *c);
int qcow2_bitmaps_finish(struct image *img, struct qcow2_bitmaps_change *c, int ret);
int qcow2_bitmaps_publish(struct image *img, const GPtrArray *list);
/* Callbacks of struct format. */
bool qcow2_bitmap_possible(const struct image *img);
GPtrArray *qcow2_bitmap_list(struct image *img, GError **error);
struct bitmap *qcow2_bitmap_load_named(struct image *img, const char *name, GError **error);
bool qcow2_bitmap_add(struct image *img, const char *name, unsigned granularity_bits,
		      GError **error);
bool qcow2_bitmap_remove(struct image *img, const char *name, GError **error);
bool qcow2_bitmap_store(struct image *img, const char *name, const struct bitmap *bits,
			bool enabled, GError **error);

/* qcow2-bitmap-track.c; the same */
void qcow2_tracking_free(struct qcow2_tracking *t); /* NULL is allowed */
/* Sets img->tracks_changes. */
void qcow2_bitmaps_watch(struct image *img);
/* Callback of struct format: notes the change in each enabled bitmap. */
int qcow2_will_change(struct image *img, uint64_t offset, uint64_t len);
/* Stores what was noted, so that the bitmaps on disk are true. On failure they stay marked, with a
 * fault. */
int qcow2_bitmaps_settle(struct image *img);
/* For a resize, before q->header.size changes: bitmaps for a disk of `size` bytes are prepared;
 * is_data: what it gains is not empty, and is set in the enabled ones.
 * Call qcow2_bitmaps_finish after qcow2_flush_header. On failure nothing needs to be taken back. */
int qcow2_bitmaps_prepare_resize(struct image *img, uint64_t size, bool is_data,
				 struct qcow2_bitmaps_change *c);

/* qcow2-tree.c */
enum qcow2_walk {
	QCOW2_WALK_LENIENT = 1,	  /* leaves out what is damaged; else -EIO with a fault */
	QCOW2_WALK_NO_TABLES = 2, /* guest clusters only */
};
/*
 * Appends to regions (of struct qcow2_region) each reference that entries [first, end) of the L1
 * table at l1_offset make: L2 tables and guest clusters, neighbours joined. Yields.
 */
int qcow2_tree_regions(struct image *img, uint64_t l1_offset, uint64_t first, uint64_t end,
		       unsigned flags, GArray *regions);
/* Raises all of their counts by one; on failure none is raised. Yields. */
int qcow2_regions_ref(struct image *img, const GArray *regions);
/* Takes back what was raised for the first n, at once. Yields. */
void qcow2_regions_unref(struct image *img, const GArray *regions, guint n);
void qcow2_regions_free_later(struct image *img, const GArray *regions);
/* Takes out of both what both have, in whole clusters; where memory is short, nothing. */
void qcow2_regions_cancel(const struct qcow2 *q, GArray *a, GArray *b);
/* How often each cluster is in them; NULL: out of memory. */
struct spacemap *qcow2_regions_count(const struct qcow2 *q, const GArray *regions);
/* Clears the flag in the L2 tables of a snapshot, where it means nothing. May flush. Yields. */
int qcow2_clear_copied(struct image *img, uint64_t l1_offset, uint64_t n);
/* Makes the flags of the active tables what the counts will say when `less` was freed. May flush.
 * Yields. */
int qcow2_set_copied(struct image *img, const struct spacemap *less);
/*
 * The same without a change of the active tables: those whose flags are to change are written to
 * new clusters, and a new L1 table with them, l1_offset (0: nothing needs to change). less NULL:
 * all L2 tables, with every flag cleared. made and replaced (struct qcow2_region, the caller's) are
 * the new clusters, after a failure too, and those in whose place they will be. May flush. Yields.
 */
struct qcow2_tree_copy {
	uint64_t l1_offset;
	GArray *made, *replaced;
};
int qcow2_tree_copy(struct image *img, const struct spacemap *less, struct qcow2_tree_copy *result);

/* qcow2-shadow.c */
/*
 * From begin on counts are changed in copies of the blocks that count a's and b's regions (NULL:
 * none), and of no others; nothing is to be allocated. The next qcow2_flush_header makes the copies
 * the image's. end takes its result, or what failed before it: it frees the old ones, or takes
 * everything back. begin, when it fails, has done so. Both return ret, or what failed. Yield.
 */
struct qcow2_shadow {
	GArray *blocks; /* private to qcow2-shadow.c, like the rest */
	uint64_t old_table, new_table, len;
	bool in_force;
};
int qcow2_shadow_begin(struct image *img, struct qcow2_shadow *s, const GArray *a, const GArray *b);
int qcow2_shadow_end(struct image *img, struct qcow2_shadow *s, int ret);

/* qcow2-snapshot-write.c */
bool qcow2_snapshot_create(struct image *img, const char *name, GError **error);
bool qcow2_snapshot_apply(struct image *img, unsigned index, GError **error);
bool qcow2_snapshot_delete(struct image *img, unsigned index, GError **error);
bool qcow2_snapshot_rename(struct image *img, unsigned index, const char *name, GError **error);
bool qcow2_snapshot_usage(struct image *img, unsigned index, uint64_t *own, uint64_t *shared,
			  GError **error);

/* Gives every snapshot the extra data that version 3 wants; *changed: some lacked it, or the table
 * was damaged, and there is a new one. */
bool qcow2_snapshots_complete(struct image *img, bool *changed, GError **error);

/* qcow2-amend.c */
extern const struct option_desc qcow2_amend_options[];
bool qcow2_amend(struct image *img, struct options *options, const struct image_progress *progress,
		 GError **error);
bool qcow2_check_backing(struct image *img, const char *name, const char *format, GError **error);
bool qcow2_set_backing(struct image *img, const char *name, const char *format, GError **error);

/* qcow2-downgrade.c: no zero flags in any table; with zstd, refused where something is compressed.
 * May flush. Yields. */
bool qcow2_expand_zeroes(struct image *img, const struct image_progress *progress, GError **error);

/* qcow2-resize.c: the new size with "preallocation" of options. */
bool qcow2_resize(struct image *img, uint64_t size, struct options *options, GError **error);

/* qcow2-rebuild.c */
/* What a new refcount structure counts, beside itself. */
struct qcow2_count_source {
	int (*get)(void *arg, uint64_t cluster, uint64_t *count); /* 0 or -errno; may yield */
	void *arg;
	const struct image_progress *progress; /* NULL: nobody waits */
};
/*
 * Writes a new refcount structure, with refcounts of 2^order bits, behind everything that is in
 * use, and makes it the image's by one write of the header; the old one is then free space, so
 * source does not count it. The caller holds the metadata lock exclusively, and nothing is dirty.
 * On failure the image on disk is as before, but for -EIO, when its header may be either. Else 0 or
 * -errno (-ERANGE: a count does not fit, -EFBIG: the table would be larger than 8 MiB). Yields.
 */
int qcow2_rebuild_refcounts(struct image *img, const struct qcow2_count_source *source,
			    uint64_t clusters, unsigned order);
/* The same counts in another width. 0, or -errno with or without *error. May flush. Yields. */
int qcow2_change_refcount_order(struct image *img, unsigned order,
				const struct image_progress *progress, GError **error);
/* Writes the fields of the fixed header that q->header has, in place and in one sector, and syncs.
 * Extensions and names stay. 0 or -errno. Yields. */
int qcow2_header_store_fixed(struct image *img);

/* qcow2-repair.c */
/*
 * For a writable open of an image whose dirty bit is set: makes refcounts and COPIED flags what the
 * references say, and clears the bit. false and *error when there is more wrong than that. Yields.
 */
bool qcow2_repair_dirty(struct image *img, GError **error);

/* qcow2-check.c */
bool qcow2_check(struct image *img, const struct check_options *options,
		 struct check_result *result, GError **error);

#endif
