/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * On-disk numbers as types of their own: a field can only be used through its
 * getter, so no value is ever used on the wrong side of the swap. Alignment 1.
 */
#ifndef IMGFS_IMAGE_BYTES_H
#define IMGFS_IMAGE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define IMGFS_DISK_TYPE(name, type, from, to)                                                      \
	typedef struct {                                                                           \
		uint8_t bytes[sizeof(type)];                                                       \
	} name##_t;                                                                                \
	static inline type name##_get(name##_t v)                                                  \
	{                                                                                          \
		type x;                                                                            \
		memcpy(&x, v.bytes, sizeof(x));                                                    \
		return from(x);                                                                    \
	}                                                                                          \
	static inline name##_t name##_make(type x)                                                 \
	{                                                                                          \
		name##_t v;                                                                        \
		x = to(x);                                                                         \
		memcpy(v.bytes, &x, sizeof(x));                                                    \
		return v;                                                                          \
	}

IMGFS_DISK_TYPE(be16, uint16_t, be16toh, htobe16)
IMGFS_DISK_TYPE(be32, uint32_t, be32toh, htobe32)
IMGFS_DISK_TYPE(be64, uint64_t, be64toh, htobe64)
IMGFS_DISK_TYPE(le16, uint16_t, le16toh, htole16)
IMGFS_DISK_TYPE(le32, uint32_t, le32toh, htole32)
IMGFS_DISK_TYPE(le64, uint64_t, le64toh, htole64)

#endif
