/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What co.c offers to the loop only. */
#ifndef IMGFS_IO_CO_INTERNAL_H
#define IMGFS_IO_CO_INTERNAL_H

#include "io/co.h"

/* Runs each coroutine that is ready at the time of the call, once, in order. Those
 * that become ready meanwhile are left for the next call. Never in a coroutine. */
void co_run_ready(void);
/* Is any coroutine of this thread ready? */
bool co_any_ready(void);
/* How many coroutines of this thread have begun and not ended. */
unsigned co_alive(void);
/* Unmaps this thread's unused stacks. */
void co_free_stacks(void);

#endif
