/* How the members of a team agree: whether the call continues after a step, and who runs the next block of steps. The first
 * member decides for all. */
#ifndef FR_TEAM_SYNC_H
#define FR_TEAM_SYNC_H

#include "poll.h"
#include "team.h"

/* State that the members share. The first member writes a decision before a barrier; it is valid after it. */
typedef struct fr_team_sync {
    fr_barrier barrier;
    atomic_llong last_step; /* the team stops after this number of steps */
    atomic_llong block;     /* the block of steps that may begin, times 2, plus 1 if the first member runs it alone */
} fr_team_sync;

/* After a barrier of a team of several members: whether its first member decided to continue. */
static inline bool fr_poll_goes_on(const fr_poll *poll)
{
    return atomic_load_explicit(&poll->sync->last_step, memory_order_relaxed) > poll->steps;
}

/* The first member's decision that this step is the team's last. */
void fr_team_stop(const fr_poll *poll, const fr_team *team);

/* Call this after each step, with its work: a barrier at which the first member decides whether the call continues. False if it
 * must stop. Inline, as a step may take 0.1 us only. */
static inline bool fr_poll_settle(fr_poll *poll, const fr_team *team, double work)
{
    poll->steps++;
    const bool stops = team->index == 0 && fr_poll_stops(poll, work);
    if (stops && poll->sync)
        fr_team_stop(poll, team);
    if (team->size == 1)
        return !stops;
    const double waited = fr_team_wait(team);
    if (waited > 0 && poll->monitor)
        poll->monitor->waited += waited;
    return fr_poll_goes_on(poll);
}

/* Call this before each block of steps: true if this worker runs it, with *team. While other processes use the processors, the
 * first member runs the block alone, and the others skip it. */
bool fr_block_begins(fr_poll *poll, fr_team *team);

/* Call this instead of running a block; its steps count as done. Returns false if the call is already known to stop. */
bool fr_block_skipped(fr_poll *poll, int64_t num_steps);

#endif
