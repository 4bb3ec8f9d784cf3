/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leaving one stack for another: hand-written for x86-64, sigsetjmp elsewhere
 * (or where CO_SWITCH_PORTABLE is defined). Internal to io/.
 */
#ifndef IMGFS_IO_CO_SWITCH_H
#define IMGFS_IO_CO_SWITCH_H

#include "io/sanitizers.h"

#include <setjmp.h>
#include <stddef.h>
#ifdef BUILT_WITH_TSAN
#include <ucontext.h>
#endif

#if defined(__x86_64__) && !defined(__ILP32__) && !defined(CO_SWITCH_PORTABLE)
#define CO_SWITCH_X86_64 1
#endif

/* Where a stack was left. Big enough for both ways, so that an object built for
 * one can be linked with the rest (the unit tests do). */
struct co_context {
	void *sp;
	sigjmp_buf env;
#ifdef BUILT_WITH_TSAN
	ucontext_t slow; /* TSan lets no longjmp leave the stack that it knows */
#endif
};

/* Prepares a context that begins with entry() on the given stack; entry never
 * returns. */
void co_context_make(struct co_context *c, void *stack, size_t size, void (*entry)(void));

/* Saves the caller in *from and goes on in *to; returns when somebody switches
 * back to *from. */
void co_context_switch(struct co_context *from, struct co_context *to);

/* "x86-64" or "sigsetjmp". */
const char *co_switch_name(void);

#endif
