/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/log.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "fs/daemonize.h"
#include "fs/status.h"
#include "image/image.h"

#define CAUSES_MAX 1000 /* different ones that are told; a hostile image has more */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static GHashTable *causes; /* sentences already told */

void log_message(const char *format, ...)
{
	g_autofree char *text = NULL;
	va_list args;

	va_start(args, format);
	text = g_strdup_vprintf(format, args);
	va_end(args);
	if (daemonize_is_background())
		syslog(LOG_DAEMON | LOG_ERR, "%s", text);
	else
		fprintf(stderr, "imgfs: %s\n", text);
}

/* Takes the sentence over. Is it new? */
static bool note(char *sentence, bool *last)
{
	bool is_new = false;

	pthread_mutex_lock(&lock);
	if (!causes)
		causes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	if (g_hash_table_size(causes) < CAUSES_MAX)
		is_new = g_hash_table_add(causes, sentence);
	else
		g_free(sentence);
	*last = is_new && g_hash_table_size(causes) == CAUSES_MAX;
	pthread_mutex_unlock(&lock);
	return is_new;
}

void log_read_error(struct image *img, uint64_t offset, size_t len, int err)
{
	const char *why = image_fault_text(img);
	g_autofree char *sentence = NULL;
	bool last;

	if (why)
		sentence = g_strdup(why);
	else
		sentence =
			g_strdup_printf("%s: reading %zu bytes at offset %" G_GUINT64_FORMAT ": %s",
					img->filename, len, offset, g_strerror(err));
	image_fault_clear(img);
	status_error(err, "read", sentence);
	if (!note(g_strdup(sentence), &last))
		return;
	log_message("%s", sentence);
	if (last)
		log_message("%s: more read errors are not logged", img->filename);
}

void log_change_error(struct image *img, const char *doing, uint64_t offset, uint64_t len, int err)
{
	const char *why = image_fault_text(img);
	g_autofree char *sentence = NULL;
	bool last;

	sentence = g_strdup_printf("%s: %s at offset %" G_GUINT64_FORMAT " (%" G_GUINT64_FORMAT
				   " bytes): %s",
				   img->filename, doing, offset, len, why ? why : g_strerror(err));
	image_fault_clear(img);
	status_error(err, "write", sentence);
	/* A full host fails at every offset: told once, not for each. */
	if (note(g_strdup_printf("%s: %s: %d", img->filename, doing, err), &last))
		log_message("%s", sentence);
}

void log_clear(void)
{
	pthread_mutex_lock(&lock);
	g_clear_pointer(&causes, g_hash_table_unref);
	pthread_mutex_unlock(&lock);
}
