/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/imgtool.h"

#define main imgtool_main
#include "tools/main.c"
