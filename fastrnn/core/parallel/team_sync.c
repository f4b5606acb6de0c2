#include "team_sync.h"

#include <limits.h>

#include "spin.h"

/* Members are at most one step apart, so none of them is past the step that is stored here. If the first member runs the block
 * alone, the others wait for the next block, and LLONG_MAX releases them. If all members run it, `block` must not change, since
 * some of them may not have read it yet. */
void fr_team_stop(const fr_poll *poll, const fr_team *team)
{
    atomic_store_explicit(&poll->sync->last_step, poll->steps, memory_order_relaxed);
    if (team->size == 1)
        atomic_store_explicit(&poll->sync->block, LLONG_MAX, memory_order_release);
}

bool fr_block_begins(fr_poll *poll, fr_team *team)
{
    const int64_t number = poll->blocks++;
    if (team->size == 1)
        return true;
    if (team->index == 0) {
        if (poll->monitor && number > 0)
            fr_monitor_check(poll->monitor, poll->batch->pool, 0);
        const bool alone = number > 0 && fr_pool_is_oversubscribed(poll->batch->pool);
        atomic_store_explicit(&poll->sync->block, 2 * number + alone, memory_order_release);
        if (alone)
            *team = (fr_team){.size = 1};
        return true;
    }
    int64_t block;
    fr_spin spin = {0};
    while ((block = atomic_load_explicit(&poll->sync->block, memory_order_acquire)) < 2 * number)
        fr_spin_pause(&spin);
    return block == 2 * number; /* the first member starts a later block early only if it ran this one alone */
}

bool fr_block_skipped(fr_poll *poll, int64_t num_steps)
{
    poll->steps += num_steps;
    return fr_poll_goes_on(poll);
}
