#include "packed.h"

fastrnn_status fr_packed_run(const fr_sequence *sequence, fr_poll *poll)
{
    const fastrnn_batch *batch = sequence->batch;
    const fr_cell *cell = sequence->cell;
    const fr_buffers *buffers = &sequence->buffers;
    const size_t e = sequence->backend->kernels->element_size;
    for (int64_t first = 0, last; first < batch->num_steps; first = last) {
        int64_t rows = fr_batch_size(batch, first);
        for (last = first + 1; last < batch->num_steps && rows + fr_batch_size(batch, last) <= buffers->capacity; last++)
            rows += fr_batch_size(batch, last);
        int64_t stride;
        const void *x = fr_sequence_input(sequence, first, last, &stride);
        char *pre = NULL;
        if (fr_projects_ahead(cell, rows, last - first)) {
            pre = buffers->pre;
            fr_cell_project(cell, sequence->backend, rows, x, stride, pre, buffers->scratch);
        }
        for (int64_t step = first, done = 0; step < last; step++) {
            const int64_t alive = fr_batch_size(batch, step);
            fr_sequence_step(sequence, step, alive, fr_at(x, done * stride, e), stride,
                             pre ? fr_at(pre, done * cell->gates.row, e) : NULL);
            done += alive;
            if (fr_poll_stops(poll, cell, alive))
                return FASTRNN_ERROR_INTERRUPTED;
        }
    }
    return FASTRNN_OK;
}
