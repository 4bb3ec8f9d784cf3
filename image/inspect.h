/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What people and scripts are told about an image: info, map, check. imgtool
 * prints these, and the mount's info.json, map.json and check.json are made of
 * them. Everything that comes out of an image is escaped here.
 */
#ifndef IMGFS_IMAGE_INSPECT_H
#define IMGFS_IMAGE_INSPECT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "image/check.h"
#include "image/report.h"

struct image;
struct snapshot;

/*
 * info.c. Only this layer, not its backing image. JSON: one object in the keys of
 * qemu's ImageInfo (r is of a JSON style). Text: appended to out; `limit` bounds
 * the bytes of the snapshot list (a hostile image may have 65,536 of them with
 * names of 64 KiB), SIZE_MAX lists all. false and *error when the snapshots or the
 * driver's part cannot be read. May yield.
 */
bool image_info_rows(struct image *img, struct report *r, GError **error); /* without the braces */
bool image_info_json(struct image *img, struct report *r, GError **error);
bool image_info_text(struct image *img, GString *out, size_t limit, GError **error);
#define INFO_SNAPSHOT_LIMIT (1u << 20)

/*
 * The files that opening this layer would open beside its own, as the image names them: nothing is
 * opened, and what these files name in their turn is not known. Text has one line a file.
 */
void image_references_json(struct image *img, struct report *r);
void image_references_text(struct image *img, GString *out);

/* The table of `snapshot -l` with its heading; list is of struct snapshot. */
void snapshot_table_text(GPtrArray *list, GString *out, size_t limit);

/* What JSON says of a snapshot, without the braces. */
void snapshot_rows(const struct snapshot *s, struct report *r);

/*
 * map-report.c: the rows of `map` over [start, start+len) cut to the disk. JSON:
 * one array (style REPORT_JSON_COMPACT). Streams. 0 or -errno; may yield.
 */
int image_map_json(struct image *img, uint64_t start, uint64_t len, struct report *r);
/*
 * Text: the rows whose bytes can be had from a file as they are. *hidden: there is
 * also data that cannot (compressed, encrypted), which has no row. A failed write
 * to stream shows in ferror.
 */
int image_map_text(struct image *img, uint64_t start, uint64_t len, FILE *stream, bool *hidden);

/*
 * check-report.c: one object in the keys of qemu's ImageCheck, where counters that are 0 are left
 * out, except check-errors; all: every key is there. / Its sentences.
 */
void check_result_json(const char *filename, const char *format, const struct check_result *result,
		       bool all, struct report *r);
void check_result_text(const struct check_result *result, GString *out);
/* The exit status of `check`: 0 clean, 1 not completed, 2 corrupt, 3 leaks only. */
int check_result_status(const struct check_result *result);

#endif
