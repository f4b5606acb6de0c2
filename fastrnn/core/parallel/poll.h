/* Polling: a running call asks its caller from time to time whether it must stop. */
#ifndef FR_POLL_H
#define FR_POLL_H

#include "monitor.h"

/* One worker's part in it. */
typedef struct fr_poll {
    const fastrnn_batch *batch;
    bool asks;                 /* this worker is the caller's thread */
    unsigned long long mode;   /* the caller's floating-point mode, in which the callback runs */
    double work;               /* since the clock was last read: multiply-adds, or other work in units of their time */
    double due;                /* seconds: when `interrupted` is called next; 0: not yet set */
    fr_monitor *monitor;       /* of the caller's thread in a shared call, else NULL */
    int64_t steps, blocks;     /* that this worker's team has done */
    struct fr_team_sync *sync; /* the team's; NULL if it has one member */
    atomic_int *status;        /* the call's: FASTRNN_OK, or why it must stop */
} fr_poll;

#define FR_POLL_WORK 1e7 /* between readings of the clock: less than 10 ms even without vector instructions */

/* Reads the clock, and calls `interrupted` if it is due. Returns true if the call must stop. */
bool fr_poll_look(fr_poll *poll);

/* Call this after `work` (unit: as in fr_poll). Calls `interrupted` if it is due; true if the call must stop. The other members
 * of a team learn this in fr_poll_settle only: before that, a member may skip its own work, but not a barrier. */
static inline bool fr_poll_stops(fr_poll *poll, double work)
{
    if (atomic_load_explicit(poll->status, memory_order_relaxed) != FASTRNN_OK)
        return true;
    if (!poll->asks)
        return false;
    poll->work += work;
    if (!poll->batch->interrupted || poll->work < FR_POLL_WORK)
        return false;
    return fr_poll_look(poll);
}

#endif
