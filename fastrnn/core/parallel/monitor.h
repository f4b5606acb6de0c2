/* Contention monitor: measures the time that one thread of a shared call loses while other processes use the processors. */
#ifndef FR_MONITOR_H
#define FR_MONITOR_H

#include "pool.h"

/* All times in seconds. */
typedef struct fr_monitor {
    double begin, begin_on_processor; /* the latter is 0 for a short call */
    double waited;                    /* for the other members of the team */
    double next_check;                /* after `begin` */
} fr_monitor;

/* macs: multiply-adds of the call. */
fr_monitor fr_monitor_start(double macs);

/* Seconds since the start during which the thread was not scheduled; 0 for a short call. */
double fr_monitor_unscheduled(const fr_monitor *monitor);

/* Call this from time to time: it tells the pool if other processes use the processors. `others`: seconds during which another
 * worker was not scheduled. */
void fr_monitor_check(fr_monitor *monitor, fastrnn_pool *pool, double others);

#endif
