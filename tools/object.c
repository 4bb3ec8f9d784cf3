/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* --object: what can be defined there is checked for every command alike, before it runs. */
#include <string.h>

#include "tools/tool.h"

static bool G_GNUC_PRINTF(2, 3) wrong(GError **error, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	*error = g_error_new_valist(IMAGE_ERROR, IMAGE_ERROR_FAILED, format, ap);
	va_end(ap);
	return false;
}

static bool is_identifier(const char *id)
{
	return g_ascii_isalpha(*id) &&
	       strspn(id, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "-._") == strlen(id);
}

/* qemu-img names the parameter and adds the rule of identifiers on a line of its own. */
static bool check_id(const char *id, GError **error)
{
	if (!id)
		return wrong(error, "Parameter 'id' is missing");
	if (!is_identifier(id))
		return wrong(error, "Parameter 'id' expects an identifier\nIdentifiers consist of "
				    "letters, digits, '-', '.', '_', starting with a letter.");
	return true;
}

/* A secret's value is in `data` or in `file`, as it is or in base64. */
static bool check_secret(struct options *o, GError **error)
{
	g_autofree char *data = options_take_string(o, "data");
	g_autofree char *file = options_take_string(o, "file");
	g_autofree char *format = options_take_string(o, "format");
	g_autofree char *keyid = options_take_string(o, "keyid");
	g_autofree char *iv = options_take_string(o, "iv");
	g_autoptr(GError) rest = NULL;
	struct stat st;
	int ret = file ? file_lookup(file, &st) : 0;

	if (format && strcmp(format, "raw") != 0 && strcmp(format, "base64") != 0)
		return wrong(error, "Parameter 'format' does not accept value '%s'", format);
	if (!options_refuse_rest(o, NULL, &rest)) {
		const char *name = strchr(rest->message, '\'');

		return wrong(error, "Parameter %s is unexpected", name ? name : "?");
	}
	if (data && file)
		return wrong(error, "'file' and 'data' are mutually exclusive");
	if (!data && !file)
		return wrong(error, "Either 'file' or 'data' must be provided");
	return ret == 0 || wrong(error, "Unable to read %s: %s", file, g_strerror(-ret));
}

static bool check(struct options *o, GError **error)
{
	g_autofree char *type = options_take_string(o, "qom-type");
	g_autofree char *id = options_take_string(o, "id");

	if (!type)
		return wrong(error, "Parameter 'qom-type' is missing");
	/* Other objects are credentials for storage on other machines. */
	if (strcmp(type, "secret") != 0)
		return wrong(error, "Parameter 'qom-type' does not accept value '%s'", type);
	return check_id(id, error) && check_secret(o, error);
}

bool tool_check_objects(const struct args *args)
{
	const char *text;

	for (unsigned i = 0; (text = opt_nth(args, OPT_OBJECT, i)); i++) {
		struct options *o = options_new();
		GError *error = NULL;
		bool ok = *text == '{' ? options_parse_json(o, text, &error)
				       : options_parse(o, text, "qom-type", &error);

		ok = ok && check(o, &error);
		options_free(o);
		if (ok)
			continue;
		tool_say(error, NULL);
		return false;
	}
	return true;
}
