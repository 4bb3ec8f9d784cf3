/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a name of an image means: a path, json:{...}, or another protocol. */
#include "config.h"

#include <string.h>

#include "image/core.h"

/*
 * A protocol is what stands before a colon that comes before any slash, as
 * everywhere in this family of tools: "./a:b" names the file a:b, "a:b" does not.
 */
enum filename_kind filename_classify(const char *name, const char **rest)
{
	size_t word = strcspn(name, ":/");

	*rest = name;
	if (g_str_has_prefix(name, "json:")) {
		*rest = name + 5;
		return FILENAME_JSON;
	}
	if (g_str_has_prefix(name, "file:")) {
		*rest = name + 5;
		/* file:///path is the URL form. */
		if (g_str_has_prefix(*rest, "///"))
			*rest += 2;
		return FILENAME_PATH;
	}
	return name[word] == ':' ? FILENAME_PROTOCOL : FILENAME_PATH;
}

char *filename_beside(const char *referrer, const char *name)
{
	const char *slash = strrchr(referrer, '/');

	if (name[0] == '/' || !slash)
		return g_strdup(name);
	return g_strdup_printf("%.*s%s", (int)(slash - referrer + 1), referrer, name);
}
