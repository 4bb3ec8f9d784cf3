/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The folder control/: files that take commands, one a line, and that say how things are. Each is
 * a row of the table in control.c. Commands are carried out one after another, whichever file and
 * whoever they come from, on a writable mount's one loop.
 */
#ifndef IMGFS_FS_CONTROL_H
#define IMGFS_FS_CONTROL_H

#include <glib.h>
#include <pthread.h>
#include <stdbool.h>

#include "fs/fuse.h"
#include "fs/tree.h"

#define CONTROL_LINE_MAX 4096 /* bytes of a line, without its end */

struct control_open;
struct events_reader;

struct control_file {
	const char *name;
	/*
	 * Carries out a line, without its end and the blanks around it, valid UTF-8 without control
	 * bytes; never empty unless takes_empty. line may be changed. 0, or -errno and *error with
	 * the sentence; then nothing has changed. NULL: the file takes no commands. May yield.
	 */
	int (*command)(struct tree *t, struct control_open *o, char *line, GError **error);
	/*
	 * What is read, made anew by each read from the file's start. 0 or -errno and *error. NULL:
	 * what is read are events. May yield.
	 */
	int (*show)(struct tree *t, struct control_open *o, GString *out, GError **error);
	/* Last close, and close(2) by a process that read the file last and has no other descriptor
	 * of it; NULL: nothing. The kernel may keep back the last close, which it sends behind
	 * writes that wait, but not the other. May yield. */
	void (*closed)(struct tree *t, struct control_open *o);
	bool takes_empty;
	/* poll(2) says that there is something to read only when control_changed came since the
	 * last read from the start. */
	bool polls;
};

/* One open file; the two functions above may keep something in data. */
struct control_open {
	void *data;
	/* Private to control.c: */
	const struct control_file *file;
	struct co_mutex writing; /* of these; writes come to one loop */
	GString *line;		 /* a line that is not complete */
	uint64_t writer;	 /* who wrote it last */
	GBytes *failed;		 /* a write that failed; NULL: none */
	size_t failed_done;	 /* of it so many bytes were carried out */
	int failed_ret;		 /* and the rest got this -errno */
	pthread_mutex_t lock;	 /* of these; reads may come to several loops */
	uint64_t reader;	 /* who read last; 0: nobody */
	GString *text;		 /* what is read; NULL: to be made */
	uint64_t text_start;	 /* the file's offset where text begins */
	struct events_reader *events;
	unsigned seen; /* changes of the file */
	struct fuse_pollhandle *poll;
};

unsigned control_count(void);
const char *control_name(unsigned index);

/* Something that this file shows is new: wakes who polls it. From any thread. */
void control_changed(const char *name);

/*
 * For commands: runs fn(t, arg, error) as one of them, alone, as mkdir does in snapshots/. Returns
 * what fn returned (0 or -errno); its sentence becomes the last error. May yield.
 */
typedef int control_fn(struct tree *t, void *arg, GError **error);
int control_run(struct tree *t, const char *source, control_fn *fn, void *arg);

/*
 * The mount is about to end: waits for the command that is under way, which may need requests that
 * are still to be received, and refuses all others from now on.
 */
void control_finish(void);

/* The errno (positive) for an error of image/. */
int control_errno(const GError *error);
/* Sets *error to the sentence and returns -err. */
int control_refuse(GError **error, int err, const char *format, ...) G_GNUC_PRINTF(3, 4);

/*
 * Takes a word off *rest: up to a blank, or in double quotes, where \" and \\ stand for these.
 * whole: not in quotes, it is all of *rest. *rest moves behind it and the blanks that follow. NULL
 * and *error. what: "name", for the sentence. The result is inside *rest's string.
 */
char *control_word(char **rest, bool whole, const char *what, GError **error);

/* Requests for nodes of control files (node_is_control). Called by the handlers in ops.c. */
void control_op_open(fuse_req_t req, uint64_t node, struct fuse_file_info *fi);
void control_op_read(fuse_req_t req, uint64_t offset, size_t size, struct fuse_file_info *fi);
void control_op_write(fuse_req_t req, const char *data, size_t size, uint64_t offset,
		      struct fuse_file_info *fi);
void control_op_flush(fuse_req_t req, struct fuse_file_info *fi);
void control_op_release(fuse_req_t req, struct fuse_file_info *fi);
void control_op_poll(fuse_req_t req, struct fuse_file_info *fi, struct fuse_pollhandle *ph);

/* The folder's files: control-snapshot.c and control-resize.c. */
int control_snapshot_command(struct tree *t, struct control_open *o, char *line, GError **error);
int control_snapshot_show(struct tree *t, struct control_open *o, GString *out, GError **error);
int control_resize_command(struct tree *t, struct control_open *o, char *line, GError **error);
int control_resize_show(struct tree *t, struct control_open *o, GString *out, GError **error);

/* control-hold.c */
int control_hold_show(struct tree *t, struct control_open *o, GString *out, GError **error);
void control_hold_end(struct tree *t, struct control_open *o);
/* The mount ends: nobody holds from now on. On the first loop. */
void control_hold_end_all(void);
/* control-commit.c */
int control_commit_command(struct tree *t, struct control_open *o, char *line, GError **error);
int control_commit_show(struct tree *t, struct control_open *o, GString *out, GError **error);
/* The mount ends: a commit that runs is to end soon, and none begins. Does not wait for it. */
void control_commit_end(void);
/* Forgets the last one (end of process). */
void control_commit_clear(void);

#endif
