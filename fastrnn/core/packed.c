#include "packed.h"

/* Steps [first, last), of `rows` rows together. */
static bool run_block(const fr_sequence *sequence, const fr_team *team, int64_t first, int64_t last, int64_t rows)
{
    const fr_cell *cell = sequence->cell;
    const size_t e = sequence->backend->kernels->real_size;
    int64_t stride;
    const void *x = fr_sequence_input(sequence, first, last, &stride);
    char *pre = NULL;
    if (fr_projects_ahead(cell, rows, last - first)) {
        pre = sequence->buffers.pre;
        fr_sequence_project(sequence, team, rows, x, stride);
    }
    for (int64_t step = first, done = 0; step < last; step++) {
        const int64_t alive = fr_batch_size(&sequence->rows, step);
        if (!fr_sequence_step(sequence, team, step, alive, fr_at(x, done * stride, e), stride,
                              pre ? fr_at(pre, done * cell->gates.row, e) : NULL))
            return false;
        done += alive;
    }
    return true;
}

#define TEAM_BLOCK_ROWS 64 /* enough to reuse W; short, as a team can give way between blocks only */

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
    fr_team_wait(team); /* those who skipped the last block must not run ahead of it, and learn here if it was stopped */
    return fr_poll_goes_on(sequence->poll);
}
