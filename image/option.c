/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Option sets: parsing of "a=b,c=d" and of json:{...}, taking keys out, validation, help. */
#include "config.h"

#include <jansson.h>
#include <string.h>

#include "image/format.h"
#include "image/option.h"
#include "image/units.h"

#define JSON_DEPTH_MAX 32
#define JSON_TEXT_MAX  (64u << 10)
#define OPTIONS_MAX    1024

struct pair {
	char *key, *value;
};
struct options {
	GArray *pairs; /* struct pair, in the order given */
};

static void pair_clear(void *p)
{
	struct pair *pair = p;

	g_free(pair->key);
	g_free(pair->value);
}

struct options *options_new(void)
{
	struct options *o = g_new0(struct options, 1);

	o->pairs = g_array_new(FALSE, FALSE, sizeof(struct pair));
	g_array_set_clear_func(o->pairs, pair_clear);
	return o;
}

void options_free(struct options *o)
{
	if (!o)
		return;
	g_array_free(o->pairs, TRUE);
	g_free(o);
}

static struct pair *pair_at(const struct options *o, guint i)
{
	return &g_array_index(o->pairs, struct pair, i);
}

static void append(struct options *o, const char *key, const char *value)
{
	struct pair pair = {g_strdup(key), g_strdup(value)};

	g_array_append_val(o->pairs, pair);
}

struct options *options_copy(const struct options *o)
{
	struct options *copy = options_new();

	for (guint i = 0; i < o->pairs->len; i++)
		append(copy, pair_at(o, i)->key, pair_at(o, i)->value);
	return copy;
}

/* Index of the key, or -1. */
static int find(const struct options *o, const char *key)
{
	for (guint i = 0; i < o->pairs->len; i++)
		if (strcmp(pair_at(o, i)->key, key) == 0)
			return i;
	return -1;
}

void options_set(struct options *o, const char *key, const char *value)
{
	int i = find(o, key);

	if (i < 0) {
		append(o, key, value);
	} else {
		g_free(pair_at(o, i)->value);
		pair_at(o, i)->value = g_strdup(value);
	}
}

/* Moves *text past one "a=b" and the comma after it; ",," becomes one comma. Caller frees. */
static char *next_word(const char **text)
{
	GString *word = g_string_new(NULL);
	const char *p = *text;

	for (; *p; p++) {
		if (*p == ',') {
			if (p[1] != ',')
				break;
			p++;
		}
		g_string_append_c(word, *p);
	}
	*text = *p ? p + 1 : p;
	return g_string_free(word, FALSE);
}

bool options_parse(struct options *o, const char *text, const char *implied_key, GError **error)
{
	bool first = true;

	while (*text) {
		g_autofree char *word = next_word(&text);
		char *equals = strchr(word, '=');

		if (equals == word) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
				    "Option without a name in '%s'", word);
			return false;
		}
		if (equals) {
			*equals = '\0';
			options_set(o, word, equals + 1);
		} else if (first && implied_key) {
			options_set(o, implied_key, word);
		} else if (*word) {
			options_set(o, word, "on");
		}
		first = false;
		if (o->pairs->len > OPTIONS_MAX) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "More than %d options",
				    OPTIONS_MAX);
			return false;
		}
	}
	return true;
}

/* The text of a JSON scalar; NULL for objects and arrays. Caller frees. A null becomes "", which
 * for "backing" means none. */
static char *json_scalar(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_STRING:
		return g_strdup(json_string_value(value));
	case JSON_INTEGER:
		return g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	case JSON_REAL:
		return g_strdup_printf("%.17g", json_real_value(value));
	case JSON_TRUE:
		return g_strdup("on");
	case JSON_FALSE:
		return g_strdup("off");
	case JSON_NULL:
		return g_strdup("");
	default:
		return NULL;
	}
}

static bool flatten(struct options *o, const char *key, const json_t *value, unsigned depth,
		    GError **error);

static bool flatten_member(struct options *o, const char *prefix, const char *name,
			   const json_t *value, unsigned depth, GError **error)
{
	g_autofree char *key = *prefix ? g_strdup_printf("%s.%s", prefix, name) : g_strdup(name);

	return flatten(o, key, value, depth + 1, error);
}

static bool flatten(struct options *o, const char *key, const json_t *value, unsigned depth,
		    GError **error)
{
	g_autofree char *text = json_scalar(value);
	const char *name;
	const json_t *member;
	size_t i;

	if (depth > JSON_DEPTH_MAX || o->pairs->len > OPTIONS_MAX) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "The JSON options are nested too deep or too many at '%s'", key);
		return false;
	}
	if (text) {
		if (find(o, key) >= 0) {
			/* "a.b" beside {"a": {"b"}}: one of them would be ignored in silence. */
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
				    "Option '%s' is given twice", key);
			return false;
		}
		append(o, key, text);
		return true;
	}
	if (json_is_array(value)) {
		json_array_foreach(value, i, member)
		{
			g_autofree char *index = g_strdup_printf("%zu", i);

			if (!flatten_member(o, key, index, member, depth, error))
				return false;
		}
		return true;
	}
	json_object_foreach((json_t *)value, name, member)
	{
		if (!flatten_member(o, key, name, member, depth, error))
			return false;
	}
	return true;
}

bool options_parse_json(struct options *o, const char *text, GError **error)
{
	json_error_t why;
	json_t *root;
	bool ok;

	if (strlen(text) > JSON_TEXT_MAX) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Could not parse the JSON options: longer than %u bytes",
			    JSON_TEXT_MAX);
		return false;
	}
	root = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
	if (!root) {
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Could not parse the JSON options: %s at character %d", why.text,
			    why.position);
		return false;
	}
	ok = json_is_object(root);
	if (ok)
		ok = flatten(o, "", root, 0, error);
	else
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "The JSON options are not an object");
	json_decref(root);
	return ok;
}

const char *options_peek(const struct options *o, const char *key)
{
	int i = find(o, key);

	return i < 0 ? NULL : pair_at(o, i)->value;
}

char *options_take_string(struct options *o, const char *key)
{
	int i = find(o, key);
	char *value;

	if (i < 0)
		return NULL;
	value = g_steal_pointer(&pair_at(o, i)->value);
	g_array_remove_index(o->pairs, i);
	return value;
}

bool options_take_bool(struct options *o, const char *key, bool *value, GError **error)
{
	g_autofree char *text = options_take_string(o, key);

	return !text || units_parse_bool(text, key, value, error);
}

bool options_take_size(struct options *o, const char *key, uint64_t *value, GError **error)
{
	g_autofree char *text = options_take_string(o, key);

	return !text || units_parse(text, key, 0, INT64_MAX, value, error);
}

struct options *options_take_group(struct options *o, const char *prefix)
{
	size_t len = strlen(prefix);
	struct options *group = NULL;

	for (guint i = 0; i < o->pairs->len;) {
		struct pair *pair = pair_at(o, i);

		if (strncmp(pair->key, prefix, len) != 0 || pair->key[len] != '.') {
			i++;
			continue;
		}
		if (!group)
			group = options_new();
		append(group, pair->key + len + 1, pair->value);
		g_array_remove_index(o->pairs, i);
	}
	return group;
}

bool options_is_empty(const struct options *o)
{
	return o->pairs->len == 0;
}

bool options_refuse_rest(const struct options *o, const char *context, GError **error)
{
	if (options_is_empty(o))
		return true;
	if (context)
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "%s: Invalid parameter '%s'",
			    context, pair_at(o, 0)->key);
	else
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Invalid parameter '%s'",
			    pair_at(o, 0)->key);
	return false;
}

static const struct option_desc *table_find(const struct option_desc *table, const char *key)
{
	for (; table && table->name; table++)
		if (strcmp(table->name, key) == 0)
			return table;
	return NULL;
}

static bool validate_number(const struct pair *pair, GError **error)
{
	guint64 n;

	if (g_ascii_string_to_unsigned(pair->value, 10, 0, INT64_MAX, &n, NULL))
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Parameter '%s' expects a number",
		    pair->key);
	return false;
}

static bool validate_size(const struct pair *pair, GError **error)
{
	uint64_t size;

	return units_parse_parameter(pair->value, pair->key, INT64_MAX, &size, error);
}

static bool validate_pair(const struct pair *pair, const struct option_desc *desc, GError **error)
{
	bool on;

	switch (desc->type) {
	case OPTION_BOOL:
		return units_parse_bool(pair->value, pair->key, &on, error);
	case OPTION_SIZE:
		return validate_size(pair, error);
	case OPTION_NUMBER:
		return validate_number(pair, error);
	case OPTION_STRING:
		break;
	}
	return true;
}

bool options_validate(const struct options *o, const struct option_desc *table, GError **error)
{
	for (guint i = 0; i < o->pairs->len; i++) {
		const struct pair *pair = pair_at(o, i);
		const struct option_desc *desc = table_find(table, pair->key);

		if (!desc) {
			g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Invalid parameter '%s'",
				    pair->key);
			return false;
		}
		if (!validate_pair(pair, desc, error))
			return false;
	}
	return true;
}

static int by_name(const void *a, const void *b)
{
	const struct option_desc *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

char *option_table_help(const struct option_desc *table, bool with_protocol)
{
	static const char *const types[] = {
		[OPTION_STRING] = "str",
		[OPTION_BOOL] = "bool (on/off)",
		[OPTION_SIZE] = "size",
		[OPTION_NUMBER] = "num",
	};
	g_autoptr(GPtrArray) sorted = g_ptr_array_new();
	GString *out = g_string_new(NULL);

	for (; table && table->name; table++)
		if (with_protocol || !table->protocol)
			g_ptr_array_add(sorted, (void *)table);
	g_ptr_array_sort(sorted, by_name);
	for (guint i = 0; i < sorted->len; i++) {
		const struct option_desc *d = g_ptr_array_index(sorted, i);
		g_autofree char *left = g_strdup_printf("%s=<%s>", d->name, types[d->type]);

		g_string_append_printf(out, "  %-22s - %s\n", left, d->help);
	}
	return g_string_free(out, FALSE);
}
