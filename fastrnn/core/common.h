/* Shared by all files of the core: requirements, alignment, checked size arithmetic, arenas. */
#ifndef FR_COMMON_H
#define FR_COMMON_H

#if !defined(__GNUC__) && !defined(__clang__) /* which clang-cl alone defines */
#error "fastrnn needs gcc or clang: it uses their builtins, their assembler syntax and the atomics of C11"
#elif defined(__FAST_MATH__)
#error "fastrnn needs exact arithmetic: compile it without -ffast-math and -Ofast"
#endif

#include "fastrnn.h" /* first: it refuses 32-bit targets, which may have no other headers */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FR_ALIGNMENT 64 /* bytes: a cache line and the widest vector */

static inline int64_t fr_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t fr_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline bool fr_in_range(int64_t value, int64_t least, int64_t most) { return value >= least && value <= most; }
static inline int64_t fr_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t fr_round_up(int64_t a, int64_t b) { return fr_ceil_div(a, b) * b; }

/* [begin, end) */
typedef struct fr_range {
    int64_t begin, end;
} fr_range;

/* *total += a * b, rounded up to a multiple of FR_ALIGNMENT. Returns false if that overflows. */
static inline bool fr_add_bytes(size_t *total, size_t a, size_t b)
{
    if (b != 0 && a > (SIZE_MAX / 4) / b)
        return false;
    size_t bytes = (a * b + FR_ALIGNMENT - 1) / FR_ALIGNMENT * FR_ALIGNMENT;
    if (*total > SIZE_MAX / 4 - bytes)
        return false;
    *total += bytes;
    return true;
}

/* A bump allocator: fr_take returns aligned pieces of a block whose size fr_add_bytes computed from the same arguments. */
typedef struct fr_arena {
    char *next;
} fr_arena;

static inline fr_arena fr_arena_of(void *block)
{
    uintptr_t address = ((uintptr_t)block + FR_ALIGNMENT - 1) / FR_ALIGNMENT * FR_ALIGNMENT;
    return (fr_arena){(char *)address};
}

static inline void *fr_take(fr_arena *arena, size_t a, size_t b)
{
    void *piece = arena->next;
    arena->next += (a * b + FR_ALIGNMENT - 1) / FR_ALIGNMENT * FR_ALIGNMENT;
    return piece;
}

static inline void *fr_at(const void *base, int64_t element, size_t element_size)
{
    return (char *)(uintptr_t)base + element * (int64_t)element_size;
}

#endif
