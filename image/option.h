/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Option tables: one table parses, validates, and prints its own help, for
 * --image-opts, json:{...}, `-o` of create and amend.
 */
#ifndef IMGFS_IMAGE_OPTION_H
#define IMGFS_IMAGE_OPTION_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum option_type { OPTION_STRING, OPTION_BOOL, OPTION_SIZE, OPTION_NUMBER };

struct option_desc {	  /* a table ends with name == NULL */
	const char *name; /* dotted: "cache.direct" */
	enum option_type type;
	const char *help;
	const char *default_text; /* NULL: none, or not worth telling */
	bool protocol;		  /* of the file rather than of the format */
};

/* Keys and values in the order given; the last of equal keys wins. */
struct options;
struct options *options_new(void);
void options_free(struct options *o); /* NULL is allowed */
struct options *options_copy(const struct options *o);

/*
 * Adds "a=b,c=d,,e": ",," is a comma in a value; a word without "=" is
 * implied_key's value when it comes first (NULL: refused), else a bool set to "on".
 */
bool options_parse(struct options *o, const char *text, const char *implied_key, GError **error);
/* Adds what json:{...} says (text begins after "json:"): nested objects become
 * dotted keys, array members "key.0". Depth and size are bounded; duplicate keys refused. */
bool options_parse_json(struct options *o, const char *text, GError **error);
void options_set(struct options *o, const char *key, const char *value);

const char *options_peek(const struct options *o, const char *key); /* NULL: not there */
/* Takes the key out, so that options_refuse_rest finds what nobody knows. The
 * value is default when absent. */
char *options_take_string(struct options *o, const char *key);
bool options_take_bool(struct options *o, const char *key, bool *value, GError **error);
bool options_take_size(struct options *o, const char *key, uint64_t *value, GError **error);
/* Moves every key that begins with "prefix." into a new set, without the prefix. NULL if none. */
struct options *options_take_group(struct options *o, const char *prefix);
bool options_is_empty(const struct options *o);
/* false and a message that names the first key left: "Invalid parameter 'foo'". */
bool options_refuse_rest(const struct options *o, const char *context, GError **error);

/* Checks each key and value against the table. */
bool options_validate(const struct options *o, const struct option_desc *table, GError **error);
/* As qemu-img prints `-o help`: sorted, "name=<type>  - help" with the help at column 24. */
char *option_table_help(const struct option_desc *table, bool with_protocol);

#endif
