/* What the tests of threads and of models share: functions that the linker substitutes with -Wl,--wrap (the allocator,
 * pthread_create, the core's clock), and processes. */
#ifndef FASTRNN_WRAPPED_H
#define FASTRNN_WRAPPED_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/wait.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
double __real_fr_seconds(void);

static bool counts_memory; /* only while one thread runs */
static long allocations_left, live_blocks;

static bool next_allocation_fails(void) { return counts_memory && allocations_left-- == 0; }

static void *counted(void *memory)
{
    if (counts_memory && memory)
        live_blocks++;
    return memory;
}

void *__wrap_malloc(size_t size) { return next_allocation_fails() ? NULL : counted(__real_malloc(size)); }
void *__wrap_calloc(size_t count, size_t size)
{
    return next_allocation_fails() ? NULL : counted(__real_calloc(count, size));
}
void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return next_allocation_fails() ? NULL : counted(__real_aligned_alloc(alignment, size));
}
void __wrap_free(void *memory)
{
    if (counts_memory && memory)
        live_blocks--;
    __real_free(memory);
}

static atomic_int threads_left = -1; /* threads that can be created before one is refused; -1: no limit */
static int threads_refused;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    if (threads_left == 0) {
        threads_refused++;
        return EAGAIN;
    }
    if (threads_left > 0)
        threads_left--;
    return __real_pthread_create(thread, attributes, start, argument);
}

/* The clock advances by 0.1 s each time it is read, so that the callback is called as often as possible. */
static atomic_bool clock_runs_fast;
static atomic_int clock_looks;

double __wrap_fr_seconds(void)
{
    return clock_runs_fast ? 0.1 * (1 + atomic_fetch_add(&clock_looks, 1)) : __real_fr_seconds();
}

static inline int exit_code_of(pid_t child)
{
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

#endif
