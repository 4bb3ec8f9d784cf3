/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counted host units. */
#include "image/spacemap.h"

#include <glib.h>

#define PAGE_BITS  12
#define PAGE_UNITS (1u << PAGE_BITS)
/* 2 Gi units counted at most: more is refused as out of memory. */
#define MAX_PAGES (1u << 19)

struct spacemap {
	uint64_t units, used_pages;
	uint16_t **pages;
	/* Units with UINT16_MAX references and more: what is above. Rare. */
	GHashTable *more;
};

struct spacemap *spacemap_new(uint64_t units)
{
	struct spacemap *m;

	if (units > 1ull << 32)
		return NULL;
	m = g_new0(struct spacemap, 1);
	m->units = units;
	m->pages = g_try_new0(uint16_t *, (units >> PAGE_BITS) + 1);
	if (!m->pages) {
		g_free(m);
		return NULL;
	}
	m->more = g_hash_table_new(g_direct_hash, g_direct_equal);
	return m;
}

void spacemap_free(struct spacemap *m)
{
	if (!m)
		return;
	for (uint64_t i = 0; i <= m->units >> PAGE_BITS; i++)
		g_free(m->pages[i]);
	g_free(m->pages);
	g_hash_table_unref(m->more);
	g_free(m);
}

static bool add_one(struct spacemap *m, uint64_t unit)
{
	uint16_t **page = &m->pages[unit >> PAGE_BITS], *count;
	gpointer key = (gpointer)(uintptr_t)unit;

	if (!*page) {
		if (m->used_pages == MAX_PAGES)
			return false;
		*page = g_try_new0(uint16_t, PAGE_UNITS);
		if (!*page)
			return false;
		m->used_pages++;
	}
	count = &(*page)[unit & (PAGE_UNITS - 1)];
	if (*count < UINT16_MAX) {
		++*count;
		return true;
	}
	uintptr_t more = (uintptr_t)g_hash_table_lookup(m->more, key);

	g_hash_table_insert(m->more, key, (gpointer)(more + 1));
	return true;
}

bool spacemap_add(struct spacemap *m, uint64_t first, uint64_t n)
{
	g_assert(first <= m->units && n <= m->units - first);
	for (uint64_t i = 0; i < n; i++)
		if (!add_one(m, first + i))
			return false;
	return true;
}

uint64_t spacemap_get(const struct spacemap *m, uint64_t unit)
{
	const uint16_t *page = m->pages[unit >> PAGE_BITS];
	uint64_t count = page ? page[unit & (PAGE_UNITS - 1)] : 0;

	if (count == UINT16_MAX)
		count += (uintptr_t)g_hash_table_lookup(m->more, (gpointer)(uintptr_t)unit);
	return count;
}
