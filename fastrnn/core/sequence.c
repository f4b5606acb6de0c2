#include "sequence.h"

#include <limits.h>
#include <string.h>

#include "clock.h"
#include "cpu.h"

#define POLL_SECONDS 0.02
#define POLL_WORK 1e7 /* between looks at the clock: under 10 ms even without vectors */

/* The cost of other work, in scalar multiply-adds, which take about a ns each. */
#define STEP_WORK 1000  /* beginning and end of a step */
#define UNIT_WORK 32    /* a gate's activation */
#define VECTOR_WORK 100 /* finding where one stands; its bytes count besides, as one each */

bool fr_poll_stops(fr_poll *poll, double work)
{
    if (atomic_load_explicit(poll->status, memory_order_relaxed) != FASTRNN_OK)
        return true;
    if (!poll->asks)
        return false;
    poll->work += work;
    if (!poll->batch->interrupted || poll->work < POLL_WORK)
        return false;
    poll->work = 0;
    const double now = fr_seconds();
    if (poll->due == 0)
        poll->due = now + POLL_SECONDS;
    if (now < poll->due)
        return false;
    poll->due = now + POLL_SECONDS;
    const unsigned forks = fr_forks();
    fastrnn_status status = FASTRNN_OK;
    fr_fp_restore(poll->mode);
    if (poll->batch->interrupted(poll->batch->interrupted_context) != 0)
        status = FASTRNN_ERROR_INTERRUPTED;
    else if (poll->monitor && fr_forks() != forks)
        status = FASTRNN_ERROR_FORKED;
    fr_fp_flush();
    if (status != FASTRNN_OK)
        atomic_store_explicit(poll->status, status, memory_order_relaxed);
    return status != FASTRNN_OK;
}

#define WAITED_MAX 0.55     /* of the time: a member with one unit block may wait half of it for one with two */
#define UNSCHEDULED_MAX 0.2  /* of the time, without a processor */
#define LONG_MACS 5e6        /* calls that are worth looks at the thread's own clock: some 100 us */
#define SHORT_MACS_SECOND 1e9 /* what a shorter call gets done at the very least, and a while more to begin with */
#define SHORT_SECONDS 200e-6

fr_monitor fr_monitor_start(double macs)
{
    fr_monitor monitor = {.begin = fr_seconds(), .checked = SHORT_SECONDS};
    if (macs >= LONG_MACS)
        monitor.begin_on_processor = fr_thread_seconds();
    else
        monitor.checked += macs / SHORT_MACS_SECOND;
    return monitor;
}

double fr_monitor_unscheduled(const fr_monitor *monitor)
{
    if (monitor->begin_on_processor == 0)
        return 0;
    return fr_seconds() - monitor->begin - (fr_thread_seconds() - monitor->begin_on_processor);
}

void fr_monitor_check(fr_monitor *monitor, fastrnn_pool *pool, double others)
{
    const double passed = fr_seconds() - monitor->begin;
    if (passed < monitor->checked)
        return;
    monitor->checked = passed + SHORT_SECONDS;
    const bool is_long = monitor->begin_on_processor > 0;
    const double own = is_long ? fr_monitor_unscheduled(monitor) : passed, unscheduled = own > others ? own : others;
    if (monitor->waited > WAITED_MAX * passed || unscheduled > UNSCHEDULED_MAX * passed)
        fr_pool_set_oversubscribed(pool, monitor->waited > unscheduled ? monitor->waited : unscheduled);
}

bool fr_poll_goes_on(const fr_poll *poll)
{
    return atomic_load_explicit(&poll->sync->last_step, memory_order_relaxed) > poll->steps;
}

/* A member is at most one step ahead of another, so the step that is written here is not yet over for any. Where
 * the first member runs the block alone, the others must not wait for a next one; where all run it, some may yet have
 * to see it begin. */
static inline bool settle(fr_poll *poll, const fr_team *team, double work)
{
    poll->steps++;
    const bool stops = team->index == 0 && fr_poll_stops(poll, work);
    if (stops && poll->sync) {
        atomic_store_explicit(&poll->sync->last_step, poll->steps, memory_order_relaxed);
        if (team->size == 1)
            atomic_store_explicit(&poll->sync->block, LLONG_MAX, memory_order_release);
    }
    if (team->size == 1)
        return !stops;
    const double waited = fr_team_wait(team);
    if (waited > 0 && poll->monitor)
        poll->monitor->waited += waited;
    return fr_poll_goes_on(poll);
}

bool fr_poll_settle(fr_poll *poll, const fr_team *team, double work) { return settle(poll, team, work); }

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
    return block == 2 * number; /* a later block can begin only if this one needed no others */
}

bool fr_block_skipped(fr_poll *poll, int64_t num_steps)
{
    poll->steps += num_steps;
    return fr_poll_goes_on(poll);
}

#define AHEAD_BELOW_ROWS 8 /* from here on, a step's rows alone amortise the reading of W */

bool fr_projects_ahead(const fr_cell *cell, int64_t rows, int64_t steps)
{
    return !cell->standard || (steps > 1 && rows < AHEAD_BELOW_ROWS * steps);
}

#define PIECE_WORK (1 << 20) /* below it, the caller need not be asked in between */

/* After a vector of so many bytes was moved; *work is what is not yet counted. True if the call shall stop. */
static bool stops_after(fr_poll *poll, int64_t *work, size_t bytes)
{
    *work += (int64_t)bytes + VECTOR_WORK;
    if (*work < PIECE_WORK)
        return false;
    const double counted = (double)*work;
    *work = 0;
    return poll && fr_poll_stops(poll, counted);
}

static void count_work(fr_poll *poll, int64_t work)
{
    if (poll)
        fr_poll_stops(poll, (double)work);
}

static int64_t time_of(const fr_sequence *sequence, int64_t row, int64_t step)
{
    return sequence->reverse ? fr_length(&sequence->rows, row) - 1 - step : step;
}

/* Where the vector of row `row` of the sequence's rows stands at a time. */
static char *vector_at(const fr_sequence *sequence, const fastrnn_view *view, int64_t row, int64_t time)
{
    const size_t element_size = sequence->backend->kernels->real_size;
    row = fr_row_of_batch(&sequence->rows, row);
    char *start = view->rows ? view->rows[row] : fr_at(view->base, row * view->row_stride, element_size);
    return fr_at(start, (view->step_offsets ? view->step_offsets[time] : time) * view->step_stride, element_size);
}

/* Whether the rows alive at steps [first, last) stand one after the other, if each step's own do. */
static bool steps_adjoin(const fr_sequence *sequence, int64_t first, int64_t last)
{
    const fastrnn_view *in = &sequence->in;
    for (int64_t step = first; step + 1 < last; step++) {
        const int64_t distance = in->step_offsets ? in->step_offsets[step + 1] - in->step_offsets[step] : 1;
        if (distance * in->step_stride != fr_batch_size(&sequence->rows, step) * sequence->cell->input_size)
            return false;
    }
    return true;
}

const void *fr_sequence_input(const fr_sequence *sequence, int64_t first, int64_t last, int64_t *stride)
{
    const fastrnn_view *in = &sequence->in;
    const size_t e = sequence->backend->kernels->real_size;
    const int64_t width = sequence->cell->input_size;
    const int64_t rows = last > first ? fr_batch_size(&sequence->rows, first) : 0;
    *stride = width;
    if (!sequence->reverse && !in->rows && rows && width) { /* without inputs, their base may be NULL */
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

void fr_sequence_project(const fr_sequence *sequence, const fr_team *team, int64_t rows, const void *x, int64_t x_stride)
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

bool fr_sequence_step(const fr_sequence *sequence, const fr_team *team, int64_t step, int64_t rows, const void *x,
                      int64_t x_stride, void *pre)
{
    const fr_cell *cell = sequence->cell;
    const size_t e = sequence->backend->kernels->real_size;
    const int64_t parity = (sequence->state.parity + step) & 1;
    const fr_step args = {
        .rows = rows, .x = x, .x_stride = x_stride, .pre = pre, .h_in = sequence->state.h[parity],
        .h_out = sequence->state.h[!parity], .c = sequence->state.c, .hidden = sequence->state.hidden,
        .scratch = sequence->buffers.scratch,
    };
    fr_cell_step(cell, sequence->backend, team, &args);
    const fr_range units = fr_cell_outputs(cell, sequence->backend, team);
    for (int64_t row = 0; row < rows && units.begin < units.end; row++)
        memcpy(fr_at(vector_at(sequence, &sequence->out, row, time_of(sequence, row, step)), sequence->out_offset + units.begin, e),
               fr_at(args.h_out, row * cell->h_stride + units.begin, e), (size_t)(units.end - units.begin) * e);
    /* Slices have few rows: this fits. */
    const int64_t work = STEP_WORK + rows * (cell->input_size + cell->h_size + UNIT_WORK) * cell->gates.row;
    return settle(sequence->poll, team, (double)work);
}

static const void *final_h(const fr_sequence *sequence, int64_t row)
{
    const fr_state *state = &sequence->state;
    return fr_at(state->h[(state->parity + fr_length(&sequence->rows, row)) & 1], row * sequence->cell->h_stride,
                 sequence->backend->kernels->real_size);
}

void fr_sequence_fill(const fr_sequence *sequence, const fr_team *team)
{
    const fastrnn_batch *batch = sequence->rows.batch;
    const size_t e = sequence->backend->kernels->real_size, bytes = (size_t)sequence->cell->h_size * e;
    if (batch->past_end == FASTRNN_PAST_END_NOTHING || sequence->out.step_offsets) /* packed: there are no such steps */
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

/* The rows' vectors in one array of the boundary, (L*D, B, width). */
static void *boundary_row(const void *array, const fr_rows *rows, const fastrnn_boundary *boundary, int64_t index,
                          int64_t row, int64_t width, size_t e)
{
    row = fr_row_of_batch(rows, row);
    return fr_at(array, (index * rows->batch->num_rows + (boundary->indices ? boundary->indices[row] : row)) * width, e);
}

/* One vector of `width` elements in a row of `stride`; the units that pad it are computed along and never read
 * out, but they start as numbers. */
static void load_row(void *to, const void *from, int64_t width, int64_t stride, size_t e)
{
    memset(to, 0, (size_t)stride * e);
    if (from)
        memcpy(to, from, (size_t)width * e);
}

void fr_state_load(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_rows *rows,
                   const fastrnn_boundary *boundary, int64_t index, fr_state *state, fr_poll *poll)
{
    const size_t e = backend->kernels->real_size, bytes = (size_t)(cell->h_stride + cell->c_stride) * e;
    const int64_t P = cell->h_size, H = cell->hidden_size;
    const fr_range mine = fr_team_share(team, rows->count);
    int64_t work = 0;
    state->parity = 0;
    for (int64_t row = mine.begin; row < mine.end && !stops_after(poll, &work, bytes); row++) {
        load_row(fr_at(state->h[0], row * cell->h_stride, e),
                 boundary->h0 ? boundary_row(boundary->h0, rows, boundary, index, row, P, e) : NULL, P, cell->h_stride, e);
        if (cell->kind == FASTRNN_LSTM)
            load_row(fr_at(state->c, row * cell->c_stride, e),
                     boundary->c0 ? boundary_row(boundary->c0, rows, boundary, index, row, H, e) : NULL, H, cell->c_stride, e);
    }
    count_work(poll, work);
}

void fr_state_store(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_rows *rows,
                    const fastrnn_boundary *boundary, int64_t index, const fr_state *state, fr_poll *poll)
{
    const size_t e = backend->kernels->real_size;
    const size_t h_bytes = (size_t)cell->h_size * e, c_bytes = (size_t)cell->hidden_size * e;
    const fr_range mine = fr_team_share(team, rows->count);
    int64_t work = 0;
    for (int64_t row = mine.begin; row < mine.end && !stops_after(poll, &work, h_bytes + c_bytes); row++) {
        const void *h = state->h[(state->parity + fr_length(rows, row)) & 1];
        if (boundary->hn)
            memcpy(boundary_row(boundary->hn, rows, boundary, index, row, cell->h_size, e),
                   fr_at(h, row * cell->h_stride, e), h_bytes);
        if (boundary->cn && cell->kind == FASTRNN_LSTM)
            memcpy(boundary_row(boundary->cn, rows, boundary, index, row, cell->hidden_size, e),
                   fr_at(state->c, row * cell->c_stride, e), c_bytes);
    }
    count_work(poll, work);
}
