/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "fs/names.h"

#include <string.h>

#define ID_LEN_MAX    40
#define COUNT_LEN_MAX 20

static gboolean looks_like_escape(const char *p)
{
	return p[0] == '%' && g_ascii_isxdigit(p[1]) && g_ascii_isxdigit(p[2]);
}

/* Bytes of the character at p if it may stay as it is; 0: escape one byte. */
static size_t plain_len(const char *p)
{
	gunichar c;

	if (looks_like_escape(p) || *p == '/')
		return 0;
	c = g_utf8_get_char_validated(p, -1);
	if (c == (gunichar)-1 || c == (gunichar)-2 || c < 0x20 || (c >= 0x7f && c < 0xa0))
		return 0;
	return (size_t)(g_utf8_next_char(p) - p);
}

char *name_escape(const char *bytes, size_t max)
{
	GString *out = g_string_new(NULL);
	gboolean dots = !strcmp(bytes, ".") || !strcmp(bytes, "..");

	while (*bytes) {
		size_t n = dots ? 0 : plain_len(bytes);

		if (out->len + (n ? n : 3) > max)
			break;
		if (n) {
			g_string_append_len(out, bytes, (gssize)n);
			bytes += n;
		} else {
			g_string_append_printf(out, "%%%02X", (unsigned char)*bytes++);
		}
	}
	return g_string_free(out, FALSE);
}

char *name_unescape(const char *name)
{
	GString *out = g_string_new(NULL);
	g_autofree char *bytes = NULL, *again = NULL;

	for (const char *p = name; *p; p++) {
		if (looks_like_escape(p)) {
			int high = g_ascii_xdigit_value(p[1]), low = g_ascii_xdigit_value(p[2]);

			g_string_append_c(out, (char)(high << 4 | low));
			p += 2;
		} else {
			g_string_append_c(out, *p);
		}
	}
	bytes = g_string_free(out, FALSE);
	again = name_escape(bytes, NAME_LEN_MAX + 3);
	return strcmp(again, name) ? NULL : g_steal_pointer(&bytes);
}

static const char *take(GHashTable *taken, char *name)
{
	if (*name && strlen(name) <= NAME_LEN_MAX && !g_hash_table_contains(taken, name)) {
		g_hash_table_add(taken, name);
		return name;
	}
	g_free(name);
	return NULL;
}

const char *name_unique(GHashTable *taken, const char *bytes, const char *id, unsigned index)
{
	g_autofree char *tag = name_escape(id, ID_LEN_MAX);
	g_autofree char *stem = NULL;
	/* One escape more than fits shows that it was too long. */
	const char *name = take(taken, name_escape(bytes, NAME_LEN_MAX + 3));

	if (name)
		return name;
	stem = name_escape(bytes, NAME_LEN_MAX - ID_LEN_MAX - 2 * COUNT_LEN_MAX);
	name = take(taken, g_strdup_printf("%s-%s", stem, tag));
	/* The index makes it new at once unless somebody chose names to be hit. */
	if (!name)
		name = take(taken, g_strdup_printf("%s-%s-%u", stem, tag, index));
	for (unsigned count = 1; !name; count++)
		name = take(taken, g_strdup_printf("%s-%s-%u-%u", stem, tag, index, count));
	return name;
}
