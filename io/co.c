/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines of one thread: stacks, the ready list, and who goes back to whom.
 *
 * A coroutine is entered by the loop, or, the first time, by the one that spawns
 * it; when it yields, it goes back to whoever entered it. So the stack of
 * entering ones always ends at the thread's own stack.
 */
#include <config.h>

#include "io/co-internal.h"
#include "io/co-switch.h"
#include "io/sanitizers.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef BUILT_WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef BUILT_WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#endif

/* Address space only: a page costs memory when first touched. Instrumented
 * frames are several times larger. */
#if defined(BUILT_WITH_ASAN) || defined(BUILT_WITH_TSAN)
#define STACK_SIZE (1024 * 1024)
#else
#define STACK_SIZE (256 * 1024)
#endif

/* Stacks kept for the next coroutines of a thread. None under ASan: a stack that
 * is unmapped at its end shows the pointers that outlive it. */
#ifdef BUILT_WITH_ASAN
static const unsigned spare_stacks = 0;
#else
static const unsigned spare_stacks = 64;
#endif

enum co_state { CO_RUNNING, CO_SUSPENDED, CO_READY, CO_ENDED };

struct co {
	struct co_context context;
	enum co_state state;
	struct co *enterer; /* who goes on when this one yields */
	struct co *next;    /* in the ready list, or among the spare ones */
	struct co_thread *thread;
	co_fn *fn;
	void *arg;

	/* The mapping: a guard page, then the stack, with this structure at its top. */
	void *mapping;
	size_t mapping_size;
	void *stack;
	size_t stack_size;

	void *fake_stack; /* ASan's, while switched away */
	void *fiber;	  /* TSan's */
	unsigned valgrind_id;
};

struct co_thread {
	struct co own; /* the thread's own stack */
	struct co *current;
	struct co *left; /* was current before */
	struct co *ready, **ready_tail;
	struct co *spare;
	unsigned spare_count;
	unsigned alive;
};
static __thread struct co_thread this_thread;

static struct co_thread *thread_self(void)
{
	struct co_thread *t = &this_thread;

	if (G_UNLIKELY(!t->current)) {
		t->current = &t->own;
		t->own.thread = t;
		t->ready_tail = &t->ready;
#ifdef BUILT_WITH_TSAN
		t->own.fiber = __tsan_get_current_fiber();
#endif
	}
	return t;
}

struct co *co_self(void)
{
	struct co_thread *t = &this_thread;

	return t->current == &t->own ? NULL : t->current;
}

/* Tells ASan that self goes on here. */
static void arrived(struct co *self)
{
#ifdef BUILT_WITH_ASAN
	/* Not the one that self once switched to, which may be gone by now. */
	struct co *came_from = self->thread->left;
	const void *bottom;
	size_t size;

	__sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &size);
	/* Only here can the extent of the thread's own stack be learnt. */
	if (!came_from->mapping) {
		came_from->stack = (void *)bottom;
		came_from->stack_size = size;
	}
#endif
}

static void switch_to(struct co *from, struct co *to)
{
	struct co_thread *t = from->thread;

	t->current = to;
	t->left = from;
#ifdef BUILT_WITH_ASAN
	/* NULL says that the stack left behind is never used again. */
	__sanitizer_start_switch_fiber(
		from->state == CO_ENDED && spare_stacks == 0 ? NULL : &from->fake_stack, to->stack,
		to->stack_size);
#endif
#ifdef BUILT_WITH_TSAN
	__tsan_switch_to_fiber(to->fiber, 0);
#endif
	co_context_switch(&from->context, &to->context);
	arrived(from);
}

static void entry(void)
{
	struct co *self = this_thread.current;

	arrived(self);
	for (;;) {
		self->fn(self->arg);
		self->state = CO_ENDED;
		/* Comes back with another fn when this stack is used again. */
		switch_to(self, self->enterer);
	}
}

static struct co *stack_new(struct co_thread *t)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size = page + STACK_SIZE;
	char *mapping = mmap(NULL, size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
	if (mapping == MAP_FAILED || mprotect(mapping, page, PROT_NONE) != 0)
		g_error("No memory for the stack of a coroutine: %s", g_strerror(errno));

	struct co *co = (void *)(mapping + size - ((sizeof(struct co) + 63) & ~(size_t)63));
	co->thread = t;
	co->mapping = mapping;
	co->mapping_size = size;
	co->stack = mapping + page;
	co->stack_size = (size_t)((char *)co - (mapping + page));
#ifdef BUILT_WITH_TSAN
	co->fiber = __tsan_create_fiber(0);
#endif
#ifdef HAVE_VALGRIND_VALGRIND_H
	co->valgrind_id = VALGRIND_STACK_REGISTER(co->stack, (char *)co->stack + co->stack_size);
#endif
	co_context_make(&co->context, co->stack, co->stack_size, entry);
	return co;
}

static void stack_free(struct co *co)
{
#ifdef HAVE_VALGRIND_VALGRIND_H
	VALGRIND_STACK_DEREGISTER(co->valgrind_id);
#endif
#ifdef BUILT_WITH_TSAN
	__tsan_destroy_fiber(co->fiber);
#endif
#ifdef BUILT_WITH_ASAN
	/* The next mapping may come to the same place, and finds no old marks. */
	__asan_unpoison_memory_region(co->mapping, co->mapping_size);
#endif
	munmap(co->mapping, co->mapping_size);
}

static struct co *stack_get(struct co_thread *t)
{
	struct co *co = t->spare;

	if (!co)
		return stack_new(t);
	t->spare = co->next;
	t->spare_count--;
	return co;
}

static void stack_put(struct co_thread *t, struct co *co)
{
	if (t->spare_count >= spare_stacks) {
		stack_free(co);
		return;
	}
	co->next = t->spare;
	t->spare = co;
	t->spare_count++;
}

void co_free_stacks(void)
{
	struct co_thread *t = thread_self();

	while (t->spare) {
		struct co *co = t->spare;

		t->spare = co->next;
		stack_free(co);
	}
	t->spare_count = 0;
}

static void enter(struct co_thread *t, struct co *co)
{
	co->enterer = t->current;
	co->state = CO_RUNNING;
	switch_to(t->current, co);
	if (co->state == CO_ENDED) {
		t->alive--;
		stack_put(t, co);
	}
}

void co_spawn(co_fn *fn, void *arg)
{
	struct co_thread *t = thread_self();
	struct co *co = stack_get(t);

	co->fn = fn;
	co->arg = arg;
	t->alive++;
	enter(t, co);
}

static void leave(struct co *self, enum co_state state)
{
	self->state = state;
	switch_to(self, self->enterer);
}

static void make_ready(struct co *co)
{
	struct co_thread *t = co->thread;

	co->next = NULL;
	*t->ready_tail = co;
	t->ready_tail = &co->next;
}

void co_yield(void)
{
	struct co *self = co_self();

	g_assert(self);
	leave(self, CO_SUSPENDED);
}

void co_wake(struct co *co)
{
	g_assert(co->thread == &this_thread && co->state == CO_SUSPENDED);
	co->state = CO_READY;
	make_ready(co);
}

void co_relax(void)
{
	struct co *self = co_self();

	g_assert(self);
	make_ready(self);
	leave(self, CO_READY);
}

void co_run_ready(void)
{
	struct co_thread *t = thread_self();
	struct co *co = t->ready;

	g_assert(t->current == &t->own);
	t->ready = NULL;
	t->ready_tail = &t->ready;
	while (co) {
		struct co *next = co->next; /* gone once co runs */

		enter(t, co);
		co = next;
	}
}

bool co_any_ready(void)
{
	return thread_self()->ready != NULL;
}

unsigned co_alive(void)
{
	return thread_self()->alive;
}
