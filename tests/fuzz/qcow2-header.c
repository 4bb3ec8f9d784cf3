/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The functions of qcow2 that decode a buffer, each on all of the input. */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "formats/qcow2.h"

#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x))                                                                          \
			abort();                                                                   \
	} while (0)

/* A sentence is there exactly when the answer is no. */
static bool told(bool ok, GError **error)
{
	CHECK(ok == !*error);
	CHECK(ok || *(*error)->message);
	g_clear_error(error);
	return ok;
}

static void header(const uint8_t *data, size_t size)
{
	struct qcow2_header h;
	GError *error = NULL;

	if (!told(qcow2_header_decode(data, size, &h, &error), &error))
		return;
	CHECK(h.cluster_bits >= 9 && h.cluster_bits <= 21 && h.refcount_order <= 6);
	size_t cluster_size = (size_t)1 << h.cluster_bits;
	uint8_t *cluster = calloc(1, cluster_size);

	CHECK(cluster);
	memcpy(cluster, data, MIN(size, cluster_size));
	if (told(qcow2_extensions_decode(cluster, &h, &error), &error)) {
		CHECK(!h.backing_name || strlen(h.backing_name) <= QCOW2_MAX_BACKING_NAME);
		for (int check = 0; check < 2; check++) {
			told(qcow2_header_check_tables(&h, size, check, &error), &error);
			told(qcow2_header_check_tables(&h, 1ull << 40, check, &error), &error);
			told(qcow2_header_check_tables(&h, INT64_MAX, check, &error), &error);
		}
	}
	free(cluster);
	qcow2_header_clear(&h);
}

static void entries(const uint8_t *data, size_t size)
{
	for (size_t at = 0; at + 17 <= size && at < 17 * 64; at += 17) {
		struct qcow2_l2_rules rules = {
			.cluster_bits = 9 + data[at] % 13,
			.version = 2 + (data[at] >> 4 & 1),
			.extended = data[at] >> 5 & 1,
			.external = data[at] >> 6 & 1,
		};
		struct qcow2_cluster c;
		uint64_t word[2];

		memcpy(word, data + at + 1, sizeof(word));
		qcow2_l2_decode(&rules, word[0], word[1], &c);
		CHECK((c.kind == QCOW2_CLUSTER_INVALID) == (c.wrong != NULL));
		if (c.kind == QCOW2_CLUSTER_CODED)
			CHECK(c.coded_len && c.coded_len <= 2u << rules.cluster_bits);
		if (c.kind == QCOW2_CLUSTER_DATA)
			CHECK(!(c.host & ((1ull << rules.cluster_bits) - 1)));
		if (!qcow2_l1_wrong(rules.cluster_bits, word[0]))
			CHECK(!(word[0] & QCOW2_L1_RESERVED));
	}
}

static void records(const uint8_t *data, size_t size)
{
	struct qcow2_snapshot s;
	struct qcow2_bitmap b;

	if (qcow2_snapshot_decode(data, size, &s))
		CHECK(s.total % 8 == 0 && s.total >= sizeof(struct qcow2_snapshot_disk) &&
		      s.total >= (uint64_t)s.extra_length + s.id_length + s.name_length);
	if (size >= sizeof(struct qcow2_bitmap_disk) && qcow2_bitmap_decode(data, &b))
		CHECK(b.total % 8 == 0 && b.total >= (uint64_t)b.extra_length + b.name_length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	header(data, size);
	entries(data, size);
	records(data, size);
	return 0;
}
