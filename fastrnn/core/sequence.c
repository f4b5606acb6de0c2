#include "sequence.h"

#include <string.h>
#include <time.h>

#include "cpu.h"

#define POLL_SECONDS 0.02
#define POLL_WORK 1e7 /* multiply-adds between looks at the clock: under 10 ms even without vectors */

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

fr_poll fr_poll_start(const fastrnn_batch *batch, unsigned long long mode)
{
    return (fr_poll){.batch = batch, .due = 0, .mode = mode};
}

bool fr_poll_stops(fr_poll *poll, const fr_cell *cell, int64_t rows)
{
    if (!poll->batch->interrupted)
        return false;
    poll->work += (double)rows * (double)(cell->input_size + cell->output_size) * (double)cell->gates.row;
    if (poll->work < POLL_WORK)
        return false;
    poll->work = 0;
    double time = now();
    if (poll->due == 0)
        poll->due = time + POLL_SECONDS;
    if (time < poll->due && time > poll->due - 2 * POLL_SECONDS) /* a clock set back must not silence it */
        return false;
    poll->due = time + POLL_SECONDS;
    fr_fp_restore(poll->mode);
    bool stop = poll->batch->interrupted(poll->batch->interrupted_context) != 0;
    fr_fp_flush();
    return stop;
}

#define BLOCK_BYTES (256 << 10) /* of projected gates: they stay in L2 beside the weights' stream */
#define BLOCK_ROWS_LEAST 16
#define BLOCK_ROWS_MOST 256

int64_t fr_block_capacity(const fr_cell *cell, const fr_backend *backend, int64_t num_rows, int64_t total_steps)
{
    int64_t rows = BLOCK_BYTES / (cell->gates.row * (int64_t)backend->kernels->element_size);
    rows = fr_min(fr_max(rows, BLOCK_ROWS_LEAST), BLOCK_ROWS_MOST);
    return fr_max(num_rows, fr_min(rows, total_steps));
}

#define AHEAD_BELOW_ROWS 8 /* from here on, a step's rows alone amortise the reading of W */

bool fr_projects_ahead(const fr_cell *cell, int64_t rows, int64_t steps)
{
    return !cell->standard || (steps > 1 && rows < AHEAD_BELOW_ROWS * steps);
}

static int64_t time_of(const fr_sequence *sequence, int64_t row, int64_t step)
{
    return sequence->reverse ? fr_length(sequence->batch, row) - 1 - step : step;
}

static char *view_at(const fastrnn_view *view, int64_t row, int64_t time, size_t element_size)
{
    char *start = view->rows ? view->rows[row] : fr_at(view->base, row * view->row_stride, element_size);
    return fr_at(start, (view->step_offsets ? view->step_offsets[time] : time) * view->step_stride, element_size);
}

/* Whether the rows alive at steps [first, last) stand one after the other, if each step's own do. */
static bool steps_adjoin(const fr_sequence *sequence, int64_t first, int64_t last)
{
    const fastrnn_view *in = &sequence->in;
    for (int64_t step = first; step + 1 < last; step++) {
        const int64_t apart = in->step_offsets ? in->step_offsets[step + 1] - in->step_offsets[step] : 1;
        if (apart * in->step_stride != fr_batch_size(sequence->batch, step) * sequence->cell->input_size)
            return false;
    }
    return true;
}

const void *fr_sequence_input(const fr_sequence *sequence, int64_t first, int64_t last, int64_t *stride)
{
    const fastrnn_view *in = &sequence->in;
    const fastrnn_batch *batch = sequence->batch;
    const size_t e = sequence->backend->kernels->element_size;
    const int64_t width = sequence->cell->input_size;
    const int64_t rows = last > first ? fr_batch_size(batch, first) : 0;
    *stride = width;
    if (!sequence->reverse && !in->rows && rows && width) { /* without inputs, their base may be NULL */
        if ((in->row_stride == width || rows == 1) && steps_adjoin(sequence, first, last))
            return view_at(in, 0, first, e);
        if (rows == 1 && !in->step_offsets) {
            *stride = in->step_stride;
            return view_at(in, 0, first, e);
        }
    }
    char *to = sequence->buffers.x;
    for (int64_t step = first; step < last; step++) {
        const int64_t count = fr_batch_size(batch, step);
        for (int64_t row = 0; row < count && width; row++, to += (size_t)width * e)
            memcpy(to, view_at(in, row, time_of(sequence, row, step), e), (size_t)width * e);
    }
    return sequence->buffers.x;
}

void fr_sequence_step(const fr_sequence *sequence, int64_t step, int64_t rows, const void *x, int64_t x_stride, void *pre)
{
    const fr_cell *cell = sequence->cell;
    const size_t e = sequence->backend->kernels->element_size;
    const int64_t parity = (sequence->state.first + step) & 1;
    const fr_step args = {
        .rows = rows, .x = x, .x_stride = x_stride, .pre = pre, .h_in = sequence->state.h[parity],
        .h_out = sequence->state.h[!parity], .c = sequence->state.c, .scratch = sequence->buffers.scratch,
    };
    fr_cell_step(cell, sequence->backend, &args);
    for (int64_t row = 0; row < rows; row++)
        memcpy(fr_at(view_at(&sequence->out, row, time_of(sequence, row, step), e), sequence->out_offset, e),
               fr_at(args.h_out, row * cell->h_stride, e), (size_t)cell->output_size * e);
}

/* One array of the boundary, (L*D, B, width), to or from rows of a padded buffer. */
static void *boundary_row(const void *array, const fastrnn_boundary *boundary, int64_t index, int64_t num_rows,
                          int64_t row, int64_t width, size_t e)
{
    return fr_at(array, (index * num_rows + (boundary->indices ? boundary->indices[row] : row)) * width, e);
}

void fr_state_load(const fr_cell *cell, const fr_backend *backend, fr_state *state, int64_t num_rows, int64_t index,
                   const fastrnn_boundary *boundary)
{
    const size_t e = backend->kernels->element_size;
    const size_t h_bytes = (size_t)cell->output_size * e, c_bytes = (size_t)cell->hidden_size * e;
    state->first = 0;
    /* The padded units of a row are computed along and never read out; they start as numbers. */
    memset(state->h[0], 0, (size_t)(num_rows * cell->h_stride) * e);
    if (cell->kind == FASTRNN_LSTM)
        memset(state->c, 0, (size_t)(num_rows * cell->c_stride) * e);
    for (int64_t row = 0; row < num_rows; row++) {
        if (boundary->h0)
            memcpy(fr_at(state->h[0], row * cell->h_stride, e),
                   boundary_row(boundary->h0, boundary, index, num_rows, row, cell->output_size, e), h_bytes);
        if (boundary->c0 && cell->kind == FASTRNN_LSTM)
            memcpy(fr_at(state->c, row * cell->c_stride, e),
                   boundary_row(boundary->c0, boundary, index, num_rows, row, cell->hidden_size, e), c_bytes);
    }
}

void fr_state_store(const fr_cell *cell, const fr_backend *backend, const fr_state *state, const fastrnn_batch *batch,
                    int64_t index, const fastrnn_boundary *boundary)
{
    const size_t e = backend->kernels->element_size;
    const size_t h_bytes = (size_t)cell->output_size * e, c_bytes = (size_t)cell->hidden_size * e;
    for (int64_t row = 0; row < batch->num_rows; row++) {
        const void *h = state->h[(state->first + fr_length(batch, row)) & 1];
        if (boundary->hn)
            memcpy(boundary_row(boundary->hn, boundary, index, batch->num_rows, row, cell->output_size, e),
                   fr_at(h, row * cell->h_stride, e), h_bytes);
        if (boundary->cn && cell->kind == FASTRNN_LSTM)
            memcpy(boundary_row(boundary->cn, boundary, index, batch->num_rows, row, cell->hidden_size, e),
                   fr_at(state->c, row * cell->c_stride, e), c_bytes);
    }
}
