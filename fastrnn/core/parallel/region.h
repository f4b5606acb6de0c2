/* A parallel region: the workers of a pool and the caller's thread run one task together. */
#ifndef FR_REGION_H
#define FR_REGION_H

#include "poll.h"

typedef struct fr_region {
    fastrnn_pool *pool;
    fr_task *task;
    void *context;           /* of the task */
    double macs;             /* about so many multiply-adds in all */
    unsigned long long mode; /* the caller's floating-point mode */
    unsigned forks;          /* fr_forks() at the start */
    fr_monitor monitor;      /* the caller's thread's */
    atomic_llong unscheduled; /* nanoseconds in which one of the other workers was not scheduled */
} fr_region;

/* After fr_pool_enter. Starts the clock of the region's monitor. */
fr_region fr_region_make(fastrnn_pool *pool, fr_task *task, void *context, double macs, unsigned long long mode);

/* Runs the task on `workers` threads, at least two, and leaves the pool. `poll` is the caller's thread's, for the time in which it
 * waits. If the process was forked meanwhile, the child's poll gets FASTRNN_ERROR_FORKED. tolerates_oversubscription: as given to
 * fr_pool_enter. */
void fr_region_run(fr_region *region, int workers, fr_poll *poll, bool tolerates_oversubscription);

#endif
