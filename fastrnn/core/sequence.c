#include "sequence.h"

#include <string.h>

/* The cost of work other than matrix products, as reported to polls: in scalar multiply-adds, which take about 1 ns each. */
#define STEP_WORK 1000  /* a step, whatever its size */
#define UNIT_WORK 32    /* a gate's activation */
#define VECTOR_WORK 100 /* computing the address of a vector; copying it costs 1 for each byte */

#define AHEAD_BELOW_ROWS 24 /* with more rows in each step, reading W once a step costs little */

/* Whether W x is computed for a whole block before its steps, or within each step. */
static bool projects_ahead(const fr_cell *cell, int64_t rows, int64_t steps)
{
    return !cell->standard || (steps > 1 && rows < AHEAD_BELOW_ROWS * steps);
}

#define PIECE_WORK (1 << 20) /* between polls */

/* Call this after copying a vector of `bytes` bytes. *work: work since the last poll. Returns true if the call must stop. */
static bool stops_after(fr_poll *poll, int64_t *work, size_t bytes)
{
    *work += (int64_t)bytes + VECTOR_WORK;
    if (*work < PIECE_WORK)
        return false;
    const double counted = (double)*work;
    *work = 0;
    return fr_poll_stops(poll, counted);
}

static void count_work(fr_poll *poll, int64_t work) { fr_poll_stops(poll, (double)work); }

static int64_t time_of(const fr_sequence *sequence, int64_t row, int64_t step)
{
    return sequence->reverse ? fr_length(&sequence->rows, row) - 1 - step : step;
}

/* The address of the vector of row `row` of the sequence's rows at a time. */
static char *vector_at(const fr_sequence *sequence, const fr_view *view, int64_t row, int64_t time)
{
    const fr_rows *rows = &sequence->rows;
    return fr_vector_at(view, rows->indices, fr_row_of_batch(rows, row), time, sequence->backend->kernels->real_size);
}

/* Whether the vectors of steps [first, last) are contiguous, given that those of each single step are. */
static bool steps_adjoin(const fr_sequence *sequence, int64_t first, int64_t last)
{
    const fr_view *in = &sequence->in;
    for (int64_t step = first; step + 1 < last; step++) {
        const int64_t distance = in->step_offsets ? in->step_offsets[step + 1] - in->step_offsets[step] : 1;
        if (distance * in->step_stride != fr_batch_size(&sequence->rows, step) * sequence->cell->input_size)
            return false;
    }
    return true;
}

/* The inputs of steps [first, last) as rows, one after the other: in place if they already have this layout, else copied to
 * buffers.x. Sets *stride, in elements. */
static void *gather_input(const fr_sequence *sequence, int64_t first, int64_t last, int64_t *stride)
{
    const fr_view *in = &sequence->in;
    const size_t e = sequence->backend->kernels->real_size;
    const int64_t width = sequence->cell->input_size;
    const int64_t rows = last > first ? fr_batch_size(&sequence->rows, first) : 0;
    *stride = width;
    const bool ordered = in->in_run_order || !sequence->rows.indices;
    if (!sequence->reverse && !in->rows && (ordered || rows == 1) && rows && width) { /* the base may be NULL if there are no inputs */
        if ((in->row_stride * sequence->rows.stride == width || rows == 1) && steps_adjoin(sequence, first, last))
            return vector_at(sequence, in, 0, first);
        if (rows == 1 && !in->step_offsets) {
            *stride = in->step_stride;
            return vector_at(sequence, in, 0, first);
        }
    }
    const size_t bytes = (size_t)width * e;
    char *to = sequence->buffers.x;
    int64_t work = 0;
    bool stops = false;
    for (int64_t step = first; step < last && !stops; step++) {
        const int64_t count = fr_batch_size(&sequence->rows, step);
        for (int64_t row = 0; row < count && width && !stops; row++, to += bytes) {
            memcpy(to, vector_at(sequence, in, row, time_of(sequence, row, step)), bytes);
            stops = stops_after(sequence->poll, &work, bytes);
        }
    }
    return sequence->buffers.x;
}

#define PROJECT_WORK 5e7 /* some ms */
#define PROJECT_ROWS_LEAST 16

/* Computes bias + W x of `rows` inputs into buffers.pre, for the units of this member of the team. */
static void project(const fr_sequence *sequence, const fr_team *team, int64_t rows, const void *x, int64_t x_stride)
{
    const fr_cell *cell = sequence->cell;
    const size_t e = sequence->backend->kernels->real_size;
    const double row_work = (double)(cell->input_size + 1) * (double)cell->gates.row;
    int64_t piece = rows;
    if (rows > PROJECT_ROWS_LEAST && (double)rows * row_work > PROJECT_WORK)
        piece = fr_round_up((int64_t)(PROJECT_WORK / row_work) + 1, PROJECT_ROWS_LEAST);
    for (int64_t row = 0; row < rows; row += piece) {
        fr_cell_project(cell, sequence->backend, team, fr_min(piece, rows - row), fr_at(x, row * x_stride, e), x_stride,
                        fr_at(sequence->buffers.pre, row * cell->gates.row, e), sequence->buffers.scratch);
        if (piece < rows && fr_poll_stops(sequence->poll, (double)piece * row_work))
            return;
    }
}

fr_block fr_block_open(const fr_sequence *sequence, const fr_team *team, int64_t first, int64_t last, int64_t rows)
{
    fr_block block = {0};
    block.x = gather_input(sequence, first, last, &block.x_stride);
    if (projects_ahead(sequence->cell, rows, last - first)) {
        block.pre = sequence->buffers.pre;
        project(sequence, team, rows, block.x, block.x_stride);
    }
    return block;
}

bool fr_block_step(const fr_sequence *sequence, const fr_team *team, int64_t step, int64_t rows, fr_block *block)
{
    const fr_cell *cell = sequence->cell;
    const size_t e = sequence->backend->kernels->real_size;
    const fr_state *state = &sequence->state;
    const fr_step args = {
        .rows = rows, .x = block->x, .x_stride = block->x_stride, .pre = block->pre,
        .h_in = step > 0 ? state->h[!(step & 1)] : state->first_h, .c_in = step > 0 ? state->c : state->first_c,
        .h_out = state->h[step & 1], .c_out = state->c, .hidden = state->hidden, .scratch = sequence->buffers.scratch,
    };
    fr_cell_step(cell, sequence->backend, team, &args);
    const fr_range units = fr_cell_outputs(cell, sequence->backend, team);
    for (int64_t row = 0; row < rows && units.begin < units.end; row++)
        memcpy(fr_at(vector_at(sequence, &sequence->out, row, time_of(sequence, row, step)), sequence->out_offset + units.begin, e),
               fr_at(args.h_out[row], units.begin, e), (size_t)(units.end - units.begin) * e);
    block->x = fr_at(block->x, rows * block->x_stride, e);
    if (block->pre)
        block->pre = fr_at(block->pre, rows * cell->gates.row, e);
    /* It does not overflow, as slices have few rows. */
    const int64_t work = STEP_WORK + rows * (cell->input_size + cell->h_size + UNIT_WORK) * cell->gates.row;
    return fr_poll_settle(sequence->poll, team, (double)work);
}

static const void *final_h(const fr_sequence *sequence, int64_t row)
{
    const int64_t length = fr_length(&sequence->rows, row);
    return length > 0 ? sequence->state.h[!(length & 1)][row] : sequence->state.first_h[row];
}

void fr_sequence_fill(const fr_sequence *sequence, const fr_team *team)
{
    const fastrnn_batch *batch = sequence->rows.batch;
    const size_t e = sequence->backend->kernels->real_size, bytes = (size_t)sequence->cell->h_size * e;
    if (batch->past_end == FASTRNN_PAST_END_NOTHING || batch->packed) /* packed output has no such steps */
        return;
    const fr_range mine = fr_team_share(team, sequence->rows.count);
    const bool adjoins = sequence->out.step_stride == sequence->cell->h_size;
    const int64_t steps_at_once = batch->past_end == FASTRNN_PAST_END_ZERO && adjoins ? PIECE_WORK / (int64_t)bytes + 1 : 1;
    int64_t work = 0;
    bool stops = false;
    for (int64_t row = mine.begin; row < mine.end && !stops; row++) {
        for (int64_t step = fr_length(&sequence->rows, row), steps; step < batch->padded_steps && !stops; step += steps) {
            steps = fr_min(steps_at_once, batch->padded_steps - step);
            char *to = fr_at(vector_at(sequence, &sequence->out, row, step), sequence->out_offset, e);
            if (batch->past_end == FASTRNN_PAST_END_ZERO)
                memset(to, 0, (size_t)steps * bytes);
            else
                memcpy(to, final_h(sequence, row), bytes);
            stops = stops_after(sequence->poll, &work, (size_t)steps * bytes);
        }
    }
    count_work(sequence->poll, work);
}

/* The address of a row's vector in part `index` of one of the batch's state arrays, (L*D, B, width). */
static void *state_row(const void *array, const fr_rows *rows, int64_t index, int64_t row, int64_t width, size_t e)
{
    return fr_at(array, (index * rows->batch->num_rows + fr_row_of_arrays(rows, row)) * width, e);
}

void fr_load_row(void *to, const void *from, int64_t width, int64_t stride, size_t element_size)
{
    memset(to, 0, (size_t)stride * element_size);
    if (from)
        memcpy(to, from, (size_t)width * element_size);
}

static bool runs_in_slots(const fr_sequence *sequence)
{
    return sequence->slots.parities && fr_cell_takes_addresses(sequence->cell);
}

static void place_in_slot(fr_sequence *sequence, int64_t row)
{
    const fr_cell *cell = sequence->cell;
    const fr_slots *slots = &sequence->slots;
    const size_t e = sequence->backend->kernels->real_size;
    const int64_t slot = fr_slot(&sequence->rows, row), h = slot * cell->h_stride, c = slot * cell->c_stride;
    const int now = slots->parities[slot];
    const int64_t last = !(fr_length(&sequence->rows, row) & 1); /* of h, for the row's last step */
    fr_state *state = &sequence->state;
    state->first_h[row] = fr_at(slots->h[now], h, e);
    state->h[last][row] = fr_at(slots->h[!now], h, e);
    state->h[!last][row] = fr_at(state->own_h[0], row * cell->h_stride, e);
    if (cell->kind == FASTRNN_LSTM) {
        state->first_c[row] = fr_at(slots->c[now], c, e);
        state->c[row] = fr_at(slots->c[!now], c, e);
    }
}

static void place_in_own(fr_sequence *sequence, int64_t row)
{
    const fr_cell *cell = sequence->cell;
    const size_t e = sequence->backend->kernels->real_size;
    fr_state *state = &sequence->state;
    state->h[0][row] = fr_at(state->own_h[0], row * cell->h_stride, e);
    state->first_h[row] = state->h[1][row] = fr_at(state->own_h[1], row * cell->h_stride, e);
    state->first_c[row] = state->c[row] = fr_at(state->own_c, row * cell->c_stride, e);
    if (fr_cell_needs_hidden(cell))
        state->hidden[row] = fr_at(state->own_hidden, row * cell->c_stride, e);
}

/* Where a row's state is copied from or to: its slot, or an array of the batch, which may be NULL. */
static void *outside(const fr_sequence *sequence, void *const *buffers, bool written, const void *array, int64_t index, int64_t row,
                     int64_t width, int64_t stride)
{
    const size_t e = sequence->backend->kernels->real_size;
    if (sequence->slots.parities) {
        const int64_t slot = fr_slot(&sequence->rows, row);
        return fr_at(buffers[sequence->slots.parities[slot] ^ written], slot * stride, e);
    }
    return array ? state_row(array, &sequence->rows, index, row, width, e) : NULL;
}

void fr_state_load(fr_sequence *sequence, const fr_team *team, int64_t index)
{
    const fr_cell *cell = sequence->cell;
    const fastrnn_batch *batch = sequence->rows.batch;
    const size_t e = sequence->backend->kernels->real_size;
    const int64_t P = cell->h_size, H = cell->hidden_size;
    const fr_range mine = fr_team_share(team, sequence->rows.count);
    const size_t bytes = (size_t)(cell->h_stride + cell->c_stride) * e;
    fr_state *state = &sequence->state;
    int64_t work = 0;
    if (runs_in_slots(sequence)) {
        for (int64_t row = mine.begin; row < mine.end; row++)
            place_in_slot(sequence, row);
        return;
    }
    for (int64_t row = mine.begin; row < mine.end && !stops_after(sequence->poll, &work, bytes); row++) {
        place_in_own(sequence, row);
        fr_load_row(state->first_h[row], outside(sequence, sequence->slots.h, false, batch->h0, index, row, P, cell->h_stride), P,
                    cell->h_stride, e);
        if (cell->kind == FASTRNN_LSTM)
            fr_load_row(state->first_c[row], outside(sequence, sequence->slots.c, false, batch->c0, index, row, H, cell->c_stride), H,
                        cell->c_stride, e);
    }
    count_work(sequence->poll, work);
}

static void save_row(void *to, const void *from, size_t bytes)
{
    if (to)
        memcpy(to, from, bytes);
}

void fr_state_save(const fr_sequence *sequence, const fr_team *team, int64_t index)
{
    const fr_cell *cell = sequence->cell;
    const fastrnn_batch *batch = sequence->rows.batch;
    const size_t e = sequence->backend->kernels->real_size;
    const int64_t P = cell->h_size, H = cell->hidden_size;
    const fr_range mine = fr_team_share(team, sequence->rows.count);
    int64_t work = 0;
    if (runs_in_slots(sequence))
        return;
    for (int64_t row = mine.begin; row < mine.end && !stops_after(sequence->poll, &work, (size_t)(P + H) * e); row++) {
        save_row(outside(sequence, sequence->slots.h, true, batch->hn, index, row, P, cell->h_stride), final_h(sequence, row),
                 (size_t)P * e);
        if (cell->kind == FASTRNN_LSTM)
            save_row(outside(sequence, sequence->slots.c, true, batch->cn, index, row, H, cell->c_stride), sequence->state.c[row],
                     (size_t)H * e);
    }
    count_work(sequence->poll, work);
}
