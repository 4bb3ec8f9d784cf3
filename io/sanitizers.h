/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which sanitizer this is built with; gcc and clang say it differently. */
#ifndef IMGFS_IO_SANITIZERS_H
#define IMGFS_IO_SANITIZERS_H

#if defined(__SANITIZE_ADDRESS__)
#define BUILT_WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BUILT_WITH_ASAN 1
#endif
#endif

#if defined(__SANITIZE_THREAD__)
#define BUILT_WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BUILT_WITH_TSAN 1
#endif
#endif

#endif
