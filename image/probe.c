/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of formats, and which of them a file looks like. */
#include "config.h"

#include <string.h>

#include "image/core.h"

static const struct format *const *formats;

G_DEFINE_QUARK(imgfs - image - error, image_error)

void image_set_formats(const struct format *const *table)
{
	formats = table;
}

const struct format *const *image_formats(void)
{
	return formats;
}

/* How many letters must be changed, added or left out; -1: more than 2, not worth naming. */
static int distance(const char *a, const char *b)
{
	int best = -1, rest;

	while (*a && *a == *b)
		a++, b++;
	if (!*a && !*b)
		return 0;
	for (int way = 0; way < 3; way++) {
		/* 0: replace, 1: leave out, 2: add */
		if ((way < 2 && !*a) || (way != 1 && !*b))
			continue;
		rest = strcmp(a + (way < 2), b + (way != 1)) == 0 ? 0 : -1;
		if (rest == 0)
			best = 1;
	}
	return best;
}

static const struct format *find(const char *name, const char *what, GError **error)
{
	const char *near = NULL;

	for (const struct format *const *f = formats; f && *f; f++) {
		if (strcmp((*f)->name, name) == 0)
			return *f;
		if (distance(name, (*f)->name) == 1 || g_ascii_strcasecmp(name, (*f)->name) == 0)
			near = (*f)->name;
	}
	if (near)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND,
			    "Unknown %s '%s', did you mean '%s'?", what, name, near);
	else
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_NOT_FOUND, "Unknown %s '%s'", what,
			    name);
	return NULL;
}

const struct format *image_find_format(const char *name, GError **error)
{
	return find(name, "file format", error);
}

const struct format *probe_find_driver(const char *name, GError **error)
{
	return find(name, "driver", error);
}

static const struct format *best_match(const struct probe *p, int *score)
{
	const struct format *best = NULL;

	*score = 0;
	for (const struct format *const *f = formats; f && *f; f++) {
		int s = (*f)->probe ? (*f)->probe(p) : 0;

		if (s > *score || (!best && strcmp((*f)->name, "raw") == 0)) {
			best = *f;
			*score = s;
		}
	}
	return best;
}

/* What probe functions look at. */
struct ends {
	uint8_t head[PROBE_HEAD], tail[PROBE_TAIL];
};

static int read_ends(struct file *file, struct ends *ends, struct probe *p)
{
	size_t n = MIN(file_size(file), PROBE_TAIL);
	int ret;

	*p = (struct probe){ends->head, ends->tail, file_size(file), file_name(file)};
	memset(ends->tail, 0, sizeof(ends->tail));
	ret = file_read(file, 0, ends->head, sizeof(ends->head));
	/* A short file's bytes stand at the end of tail, where a trailer is looked for. */
	if (ret == 0 && n > 0)
		ret = file_read(file, p->file_size - n, ends->tail + PROBE_TAIL - n, n);
	return ret;
}

/*
 * The format that the file's head and tail look most like; raw when there is
 * nothing else. *score (may be NULL): 0 when nobody knew it. NULL and *error when
 * the file cannot be read. May yield.
 */
const struct format *probe_format(struct file *file, int *score, GError **error)
{
	const struct format *best;
	struct ends ends;
	struct probe p;
	int unused, ret = read_ends(file, &ends, &p);

	if (ret < 0) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_FAILED, "Could not read '%s': %s",
			    file_name(file), g_strerror(-ret));
		return NULL;
	}
	best = best_match(&p, score ? score : &unused);
	if (!best)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_INVALID,
			    "'%s' is in no format that is known here", file_name(file));
	return best;
}

/* Puts what is written at offset into the bytes of the file at [start, start+n) that buf holds. */
static void put_over(uint8_t *buf, uint64_t start, size_t n, uint64_t offset,
		     const struct iovec *iov, int niov, uint64_t len)
{
	uint64_t from = MAX(offset, start), to = MIN(offset + len, start + n);
	struct iov_walk w;

	if (from >= to)
		return;
	if (!iov) {
		memset(buf + (from - start), 0, to - from);
		return;
	}
	iov_walk_init(&w, iov, niov);
	iov_walk_advance(&w, from - offset);
	iov_walk_copy_out(&w, buf + (from - start), to - from);
}

int probe_changed(struct file *file, uint64_t offset, const struct iovec *iov, int niov,
		  uint64_t len, const struct format **format)
{
	struct ends ends;
	struct probe p;
	int score, ret = read_ends(file, &ends, &p);
	size_t n = MIN(p.file_size, PROBE_TAIL);

	if (ret < 0)
		return ret;
	put_over(ends.head, 0, sizeof(ends.head), offset, iov, niov, len);
	put_over(ends.tail + PROBE_TAIL - n, p.file_size - n, n, offset, iov, niov, len);
	*format = best_match(&p, &score);
	return 0;
}
