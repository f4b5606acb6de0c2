#include "packed.h"

/* Steps [first, last), of `rows` rows together. */
static bool run_block(const fr_sequence *sequence, int64_t first, int64_t last, int64_t rows)
{
    const fr_cell *cell = sequence->cell;
    const fr_buffers *buffers = &sequence->buffers;
    const size_t e = sequence->backend->kernels->element_size;
    int64_t stride;
    const void *x = fr_sequence_input(sequence, first, last, &stride);
    char *pre = NULL;
    if (fr_projects_ahead(cell, rows, last - first)) {
        pre = buffers->pre;
        fr_cell_project(cell, sequence->backend, sequence->team, rows, x, stride, pre, buffers->scratch);
    }
    for (int64_t step = first, done = 0; step < last; step++) {
        const int64_t alive = fr_batch_size(&sequence->rows, step);
        if (!fr_sequence_step(sequence, step, alive, fr_at(x, done * stride, e), stride,
                              pre ? fr_at(pre, done * cell->gates.row, e) : NULL))
            return false;
        done += alive;
    }
    return true;
}

bool fr_packed_run(const fr_sequence *sequence)
{
    const fr_rows *all = &sequence->rows;
    const int64_t num_steps = fr_num_steps(all), capacity = sequence->buffers.capacity;
    fr_sequence block = *sequence;
    bool goes_on = true, together = true;
    for (int64_t first = 0, last; first < num_steps && goes_on; first = last) {
        int64_t rows = fr_batch_size(all, first);
        for (last = first + 1; last < num_steps && rows + fr_batch_size(all, last) <= capacity; last++)
            rows += fr_batch_size(all, last);
        fr_team team = *sequence->team;
        const bool mine = fr_block_begins(sequence->poll, &team);
        together = mine && team.size == sequence->team->size;
        block.team = &team;
        goes_on = mine ? run_block(&block, first, last, rows) : fr_block_skipped(sequence->poll, last - first);
    }
    if (together)
        return goes_on;
    fr_team_wait(sequence->team); /* those who skipped the last block must not run ahead of it, nor miss that it stopped */
    return fr_block_skipped(sequence->poll, 0);
}
