#include "packed.h"

bool fr_packed_run(const fr_sequence *sequence)
{
    const fr_rows *all = &sequence->rows;
    const fr_cell *cell = sequence->cell;
    const fr_buffers *buffers = &sequence->buffers;
    const size_t e = sequence->backend->kernels->element_size;
    const int64_t num_steps = fr_num_steps(all);
    for (int64_t first = 0, last; first < num_steps; first = last) {
        int64_t rows = fr_batch_size(all, first);
        for (last = first + 1; last < num_steps && rows + fr_batch_size(all, last) <= buffers->capacity; last++)
            rows += fr_batch_size(all, last);
        int64_t stride;
        const void *x = fr_sequence_input(sequence, first, last, &stride);
        char *pre = NULL;
        if (fr_projects_ahead(cell, rows, last - first)) {
            pre = buffers->pre;
            fr_cell_project(cell, sequence->backend, sequence->team, rows, x, stride, pre, buffers->scratch);
        }
        for (int64_t step = first, done = 0; step < last; step++) {
            const int64_t alive = fr_batch_size(all, step);
            if (!fr_sequence_step(sequence, step, alive, fr_at(x, done * stride, e), stride,
                                  pre ? fr_at(pre, done * cell->gates.row, e) : NULL))
                return false;
            done += alive;
        }
    }
    return true;
}
