/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What `check` found, as sentences, JSON and exit status. */
#include "image/inspect.h"

void check_result_json(const char *filename, const char *format, const struct check_result *result,
		       bool all, struct report *r)
{
	const struct {
		const char *key;
		uint64_t value;
	} counters[] = {
		{"image-end-offset", result->image_end_offset},
		{"corruptions", result->corruptions},
		{"leaks", result->leaks},
		{"corruptions-fixed", result->corruptions_fixed},
		{"leaks-fixed", result->leaks_fixed},
		{"total-clusters", result->total_clusters},
		{"allocated-clusters", result->allocated_clusters},
		{"fragmented-clusters", result->fragmented_clusters},
		{"compressed-clusters", result->compressed_clusters},
	};

	report_begin_object(r, NULL);
	report_string(r, "filename", filename);
	report_string(r, "format", format);
	report_uint(r, "check-errors", result->check_errors);
	for (unsigned i = 0; i < G_N_ELEMENTS(counters); i++)
		if (all || counters[i].value)
			report_uint(r, counters[i].key, counters[i].value);
	report_end_object(r);
}

static void append_findings(const struct check_result *c, GString *out)
{
	if (!c->corruptions && !c->leaks && !c->check_errors) {
		g_string_append(out, "No errors were found on the image.\n");
		return;
	}
	if (c->corruptions)
		g_string_append_printf(out,
				       "\n%" G_GUINT64_FORMAT " errors were found on the image.\n"
				       "Data may be corrupted, or further writes to the image "
				       "may corrupt it.\n",
				       c->corruptions);
	if (c->leaks)
		g_string_append_printf(out,
				       "\n%" G_GUINT64_FORMAT
				       " leaked clusters were found on the image.\n"
				       "This means waste of disk space, but no harm to data.\n",
				       c->leaks);
	if (c->check_errors)
		g_string_append_printf(out,
				       "\n%" G_GUINT64_FORMAT
				       " internal errors have occurred during the check.\n",
				       c->check_errors);
}

static double percent(uint64_t part, uint64_t whole)
{
	return 100.0 * (double)part / (double)whole;
}

void check_result_text(const struct check_result *c, GString *out)
{
	append_findings(c, out);
	if (c->total_clusters && c->allocated_clusters)
		g_string_append_printf(out,
				       "%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT
				       " = %0.2f%% allocated, %0.2f%% fragmented, "
				       "%0.2f%% compressed clusters\n",
				       c->allocated_clusters, c->total_clusters,
				       percent(c->allocated_clusters, c->total_clusters),
				       percent(c->fragmented_clusters, c->allocated_clusters),
				       percent(c->compressed_clusters, c->allocated_clusters));
	if (c->image_end_offset)
		g_string_append_printf(out, "Image end offset: %" G_GUINT64_FORMAT "\n",
				       c->image_end_offset);
}

int check_result_status(const struct check_result *c)
{
	if (c->corruptions)
		return 2;
	if (c->check_errors)
		return 1;
	return c->leaks ? 3 : 0;
}
