#include "packed.h"

#define TEAM_BLOCK_ROWS 64 /* enough to reuse W; not more, because a team can stop sharing the work only between blocks */

/* Steps [first, last), with `rows` rows in all. */
static bool run_block(const fr_sequence *sequence, const fr_team *team, int64_t first, int64_t last, int64_t rows)
{
    fr_block block = fr_block_open(sequence, team, first, last, rows);
    for (int64_t step = first; step < last; step++)
        if (!fr_block_step(sequence, team, step, fr_batch_size(&sequence->rows, step), &block))
            return false;
    return true;
}

bool fr_packed_run(const fr_sequence *sequence, const fr_team *team)
{
    const fr_rows *all = &sequence->rows;
    const int64_t num_steps = fr_num_steps(all), most_rows = team->size > 1 ? TEAM_BLOCK_ROWS : INT64_MAX,
                  capacity = fr_min(sequence->buffers.capacity, most_rows);
    bool together = true, goes_on = true;
    for (int64_t first = 0, last; goes_on && first < num_steps; first = last) {
        int64_t rows = fr_batch_size(all, first);
        for (last = first + 1; last < num_steps && rows + fr_batch_size(all, last) <= capacity; last++)
            rows += fr_batch_size(all, last);
        fr_team now = *team;
        const bool mine = fr_block_begins(sequence->poll, &now);
        together = mine && now.size == team->size;
        goes_on = mine ? run_block(sequence, &now, first, last, rows) : fr_block_skipped(sequence->poll, last - first);
    }
    if (together)
        return goes_on;
    fr_team_wait(team); /* the members that skipped the last block wait for the one that ran it, and learn whether it stopped */
    return fr_poll_goes_on(sequence->poll);
}
