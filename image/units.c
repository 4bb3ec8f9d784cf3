/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes and switches as words: what qemu-img accepts and prints. */
#include "image/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/format.h"

static const char suffixes[] = "bkmgtpe";

static bool not_a_size(const char *what, GError **error)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
		    "Invalid %s specified. You may use k, M, G, T, P or E suffixes for\n"
		    "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
		    what);
	return false;
}

static bool out_of_range(const char *what, uint64_t min, uint64_t max, GError **error)
{
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
		    "Invalid %s specified. Must be between %" G_GUINT64_FORMAT
		    " and %" G_GUINT64_FORMAT ".",
		    what, min, max);
	return false;
}

/* The power of two that a suffix means; -1 when text is no suffix that ends there. */
static int suffix_shift(const char *text)
{
	const char *found;

	if (text[0] == '\0')
		return 0;
	found = strchr(suffixes, g_ascii_tolower(text[0]));
	if (!found || text[1] != '\0')
		return -1;
	return (int)(found - suffixes) * 10;
}

/* The digits after the point as a part of 1, rounded as a double: qemu-img's 7.9E is to be ours. */
static const char *parse_fraction(const char *digits, double *fraction)
{
	size_t n = strspn(digits, "0123456789");
	g_autofree char *text = g_strdup_printf("0.%.*s", (int)MIN(n, 1000), digits);

	*fraction = g_ascii_strtod(text, NULL);
	return digits + n;
}

bool units_parse(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *bytes,
		 GError **error)
{
	const char *p = text;
	char *end;
	uint64_t whole, value;
	double fraction = 0;
	int shift;
	bool hex;

	while (g_ascii_isspace(*p))
		p++;
	if (*p == '+')
		p++;
	if (!g_ascii_isdigit(*p))
		return not_a_size(what, error);
	hex = p[0] == '0' && (p[1] == 'x' || p[1] == 'X') && g_ascii_isxdigit(p[2]);
	errno = 0;
	/* Without 0x a leading zero is just a zero: sizes are never octal. */
	whole = g_ascii_strtoull(p, &end, hex ? 16 : 10);
	if (errno == ERANGE)
		return out_of_range(what, min, max, error);
	if (!hex && *end == '.')
		end = (char *)parse_fraction(end + 1, &fraction);
	shift = suffix_shift(end);
	if (shift < 0 || (fraction != 0 && shift == 0))
		return not_a_size(what, error);
	if (whole > UINT64_MAX >> shift)
		return out_of_range(what, min, max, error);
	value = whole << shift;
	/* Less than one unit is added, so only the very last unit can overflow. */
	if (__builtin_add_overflow(value, (uint64_t)(fraction * (double)(1ULL << shift)), &value) ||
	    value < min || value > max)
		return out_of_range(what, min, max, error);
	*bytes = value;
	return true;
}

bool units_parse_parameter(const char *text, const char *key, uint64_t max, uint64_t *bytes,
			   GError **error)
{
	g_autoptr(GError) cause = NULL;

	if (units_parse(text, key, 0, max, bytes, &cause))
		return true;
	if (strstr(cause->message, "Must be between"))
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Value '%s' is out of range for parameter '%s'", text, key);
	else
		g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE,
			    "Parameter '%s' expects a non-negative number below 2^64\n"
			    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
			    "peta-\nand exabytes, respectively.",
			    key);
	return false;
}

bool units_parse_change(const char *text, struct size_change *change, GError **error)
{
	change->sign = *text == '+' || *text == '-' ? *text++ : 0;
	/* A second sign is none of a number's. */
	return units_parse_parameter(*text == '+' ? "" : text, "size", UINT64_MAX, &change->bytes,
				     error);
}

bool units_apply_change(const struct size_change *change, uint64_t old, uint64_t *size,
			GError **error)
{
	bool wrong = false;

	if (change->sign == '+')
		wrong = __builtin_add_overflow(old, change->bytes, size);
	else if (change->sign == '-')
		wrong = __builtin_sub_overflow(old, change->bytes, size);
	else
		*size = change->bytes;
	if (!wrong && *size > 0 && *size <= INT64_MAX)
		return true;
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "New image size must be positive");
	return false;
}

char *units_format(uint64_t bytes)
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	/* The step is at 1000, not at 1024, so that there are never four digits. */
	while (value >= 1000 && unit + 1 < G_N_ELEMENTS(names)) {
		value /= 1024;
		unit++;
	}
	return g_strdup_printf("%0.3g %s", value, names[unit]);
}

static bool is_word(const char *text, const char *const *words)
{
	return g_strv_contains(words, text);
}

bool units_parse_bool(const char *text, const char *what, bool *value, GError **error)
{
	static const char *const yes[] = {"on", "yes", "true", "y", NULL};
	static const char *const no[] = {"off", "no", "false", "n", NULL};

	if (is_word(text, yes)) {
		*value = true;
		return true;
	}
	if (is_word(text, no)) {
		*value = false;
		return true;
	}
	g_set_error(error, IMAGE_ERROR, IMAGE_ERROR_USAGE, "Parameter '%s' expects 'on' or 'off'",
		    what);
	return false;
}
