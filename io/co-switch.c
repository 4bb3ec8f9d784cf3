/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * swapcontext costs over a microsecond, because it makes a system call for the
 * signal mask. Here a switch saves only what the ABI lets a called function
 * expect to be kept.
 */
#include <config.h>

/* The checked longjmp of fortified builds takes a jump to another stack for an
 * attack. */
#undef _FORTIFY_SOURCE

#include "io/co-switch.h"

#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

#ifdef CO_SWITCH_X86_64

/*
 * System V ABI 3.2.1: rbx, rbp, r12 to r15, and the control bits of mxcsr and of
 * the x87 word belong to the caller. Both stacks have the same layout at the
 * moment of the exchange, so one set of unwind notes describes both.
 */
void imgfs_switch_stack(void **save_sp, void *load_sp);
__asm__(".text\n"
	".p2align 4\n"
	".globl imgfs_switch_stack\n"
	".hidden imgfs_switch_stack\n"
	".type imgfs_switch_stack, @function\n"
	"imgfs_switch_stack:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	pushq %rbp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %rbp, 0\n"
	"	pushq %rbx\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %rbx, 0\n"
	"	pushq %r12\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %r12, 0\n"
	"	pushq %r13\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %r13, 0\n"
	"	pushq %r14\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %r14, 0\n"
	"	pushq %r15\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_rel_offset %r15, 0\n"
	"	subq $8, %rsp\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	stmxcsr (%rsp)\n"
	"	fnstcw 4(%rsp)\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	ldmxcsr (%rsp)\n"
	"	fldcw 4(%rsp)\n"
	"	addq $8, %rsp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	popq %r15\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	popq %r14\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	popq %r13\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	popq %r12\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	popq %rbx\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	popq %rbp\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size imgfs_switch_stack, . - imgfs_switch_stack\n");

/* What imgfs_switch_stack pops from a new stack, from the lowest address on. */
struct first_frame {
	uint32_t mxcsr;
	uint16_t x87_control, unused;
	uint64_t r15, r14, r13, r12, rbx, rbp;
	void (*entry)(void);
	/* The "return address" of entry: ends a backtrace, and puts the stack where
	 * the ABI wants it at a function's start (16-byte aligned, plus 8). */
	uint64_t no_return;
};

void co_context_make(struct co_context *c, void *stack, size_t size, void (*entry)(void))
{
	uintptr_t top = ((uintptr_t)stack + size) & ~(uintptr_t)15;
	struct first_frame *frame = (struct first_frame *)(top - sizeof(*frame));

	_Static_assert(sizeof(struct first_frame) == 72, "the frame must match the pops");
	*frame = (struct first_frame){.entry = entry};
	__asm__ volatile("stmxcsr %0" : "=m"(frame->mxcsr));
	__asm__ volatile("fnstcw %0" : "=m"(frame->x87_control));
	c->sp = frame;
}

void co_context_switch(struct co_context *from, struct co_context *to)
{
	imgfs_switch_stack(&from->sp, to->sp);
}

const char *co_switch_name(void)
{
	return "x86-64";
}

#elif defined(BUILT_WITH_TSAN)

void co_context_make(struct co_context *c, void *stack, size_t size, void (*entry)(void))
{
	if (getcontext(&c->slow) != 0)
		abort();
	c->slow.uc_link = NULL;
	c->slow.uc_stack.ss_sp = stack;
	c->slow.uc_stack.ss_size = size;
	makecontext(&c->slow, entry, 0);
}

void co_context_switch(struct co_context *from, struct co_context *to)
{
	swapcontext(&from->slow, &to->slow);
}

const char *co_switch_name(void)
{
	return "swapcontext";
}

#else

/* makecontext hands only ints to the function that it starts. */
struct start {
	struct co_context *context;
	void (*entry)(void);
	ucontext_t maker;
};
static __thread struct start *starting;

static void first_entry(void)
{
	struct start *start = starting;
	void (*entry)(void) = start->entry;

	if (sigsetjmp(start->context->env, 0) == 0)
		setcontext(&start->maker);
	/* `start` is gone by now: its maker returned long ago. */
	entry();
	abort();
}

void co_context_make(struct co_context *c, void *stack, size_t size, void (*entry)(void))
{
	struct start start = {.context = c, .entry = entry};
	ucontext_t begin;

	if (getcontext(&begin) != 0)
		abort();
	begin.uc_link = NULL;
	begin.uc_stack.ss_sp = stack;
	begin.uc_stack.ss_size = size;
	begin.uc_stack.ss_flags = 0;
	makecontext(&begin, first_entry, 0);
	starting = &start;
	if (swapcontext(&start.maker, &begin) != 0)
		abort();
}

void co_context_switch(struct co_context *from, struct co_context *to)
{
	if (sigsetjmp(from->env, 0) == 0)
		siglongjmp(to->env, 1);
}

const char *co_switch_name(void)
{
	return "sigsetjmp";
}

#endif
