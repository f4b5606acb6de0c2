/* A reusable barrier of a fixed number of threads. */
#ifndef FR_BARRIER_H
#define FR_BARRIER_H

#include <stdatomic.h>

#include "../common.h"

/* Each counter has its own cache line: an arrival must not evict the line of the phase, which the others poll. */
typedef struct fr_barrier {
    _Alignas(FR_ALIGNMENT) atomic_int arrived;
    _Alignas(FR_ALIGNMENT) atomic_uint phase;
    unsigned forks; /* fr_forks() when the barrier was made */
} fr_barrier;

/* Waits until `size` threads have called this function; memory that they wrote before is visible afterwards. Returns at once in
 * a process that was forked after the barrier was made, as it has none of the other threads. Returns the seconds waited, or 0
 * for a short wait. */
double fr_barrier_wait(fr_barrier *barrier, int size);

#endif
