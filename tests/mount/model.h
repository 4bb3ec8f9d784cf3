/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tests/mount/model: a disk in memory, and the files that must read the same. See model.c. */
#ifndef IMGFS_TESTS_MOUNT_MODEL_H
#define IMGFS_TESTS_MOUNT_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR	      512u
#define MAX_SNAPSHOTS 4
#define MAX_WINDOWS   4
#define MAX_BASES     3
#define MAX_LEN	      (512u << 10) /* bytes of one operation */

/* One file of the mount: these bytes of the disk. The first one is the disk itself. */
struct window {
	const char *path;
	uint64_t start, size; /* size 0: up to the end of the disk */
	int fd, direct;	      /* -1: closed */
	uint8_t *map;	      /* max_size bytes, or NULL */
};

struct snapshot {
	char name[32];
	uint8_t *bytes;
	uint64_t size;
};

/* The disk as it must be. bytes has room for max_size; what lies behind size is zero. */
extern uint8_t *bytes;
extern uint64_t size, min_size, max_size;
extern struct window windows[MAX_WINDOWS];
extern unsigned window_count;
extern struct snapshot snapshots[MAX_SNAPSHOTS];
extern unsigned snapshot_count;
/* How much was done, for the last line. */
extern struct counts {
	uint64_t beside; /* operations of threads beside one another */
	uint64_t snapshots, applied, committed, cancelled;
} counts;
extern const char *base_names[MAX_BASES];
extern unsigned base_count;
extern const char *mount_dir;
extern const char *exclude; /* words: operations that are not done */

/* model.c */
uint64_t rnd(uint64_t below); /* below 0: any number */
bool allowed(const char *word);
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints what was done last, and ends the program. */
_Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
void same(const char *what, const uint8_t *got, const uint8_t *expect, uint64_t offset,
	  uint64_t len);
void windows_open(void);
void windows_close(void);
void verify_all(void);
void set_size(uint64_t new_size);

/* model-tree.c */
/* Writes one line into a control file: 0, or what write or close says. */
int control(const char *file, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* false: a commit that runs is in the way. */
bool snapshot_make(char name[32]);
void snapshot_remove(struct snapshot *s);
/* Its bytes are what the mount shows of it. */
void snapshot_take(struct snapshot *s);
void truncate_to(uint64_t to);
/* What is not done while files are open for writing. */
void refusals(void);
/* Snapshots and control files at random; each returns false when there is nothing to do. */
bool snapshot_create(void);
bool snapshot_delete(void);
bool snapshot_rename(void);
bool snapshot_apply(void);
bool snapshot_read(void);
bool control_size(void);

/* model-commit.c */
bool control_commit(void);
/* These bytes of the disk are changed. Both before and after where other threads ask for commits.
 */
void touch(uint64_t at, uint64_t len);
/* As far as is known: it may have ended by itself. */
bool commit_may_run(void);
void commit_begin(void);
void commit_cancel(void);
/* Asks how it stands; when it is done, the base must have what it should. The third does not ask.
 */
void commit_look(void);
void commit_wait(void);
void commit_forget(void);

/* model-state.c: the model as files of a folder, for the next run and for who judges the image. */
void state_load(const char *folder);
void state_save(const char *folder);

/* model-burst.c */
void burst(void);

#endif
