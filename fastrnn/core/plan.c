#include "plan.h"

static bool lengths_are_valid(const fastrnn_batch *batch, int64_t *total_steps)
{
    if (batch->num_rows == 0 || batch->lengths[0] != batch->num_steps)
        return batch->num_rows == 0 && batch->num_steps == 0;
    int64_t row = batch->num_rows;
    for (int64_t step = 0; step < batch->num_steps; step++) {
        for (; row > 0 && batch->lengths[row - 1] <= step; row--)
            if (batch->lengths[row - 1] < 0 || (row > 1 && batch->lengths[row - 2] < batch->lengths[row - 1]))
                return false;
        if (batch->batch_sizes[step] != row)
            return false;
        *total_steps += row;
    }
    for (; row > 0; row--)
        if (batch->lengths[row - 1] != batch->num_steps)
            return false;
    return true;
}

fastrnn_status fr_batch_check(const fastrnn_batch *batch, int64_t *total_steps)
{
    *total_steps = 0;
    if (batch->num_rows < 0 || batch->num_steps < 0 || (batch->lengths == NULL) != (batch->batch_sizes == NULL))
        return FASTRNN_ERROR_ARGUMENT;
    if (batch->num_rows > FR_MOST_ROWS || batch->num_steps > FR_MOST_ROWS)
        return FASTRNN_ERROR_SIZE;
    if (batch->lengths)
        return lengths_are_valid(batch, total_steps) ? FASTRNN_OK : FASTRNN_ERROR_ARGUMENT;
    if (batch->num_rows && batch->num_steps > FR_MOST_ROWS / batch->num_rows)
        return FASTRNN_ERROR_SIZE;
    *total_steps = batch->num_rows * batch->num_steps;
    return FASTRNN_OK;
}

/* A weight is one multiply-add a row and step; biases and padding are few. */
double fr_plan_macs(const fastrnn_model *model, int64_t total_steps)
{
    return (double)model->nbytes / (double)model->backend.kernels->element_size * (double)total_steps;
}

#define SLICE_ROWS_MOST 256 /* more rows a step reuse no more of the weights, and push the state out of L2 */
#define SLICE_MACS_MOST 5e8 /* a step; some 10 ms, so that an interrupt is seen soon */
#define SLICE_ROWS_LEAST 16

static int64_t slice_rows_most(const fastrnn_model *model)
{
    const double rows = SLICE_MACS_MOST * (double)model->num_cells / fr_plan_macs(model, 1);
    return rows >= SLICE_ROWS_MOST ? SLICE_ROWS_MOST : fr_max(SLICE_ROWS_LEAST, (int64_t)rows);
}

/* What pays, measured on two cores of a Zen 4 with AVX-512; bench/README.md tells how, and what it gave. */
#define WORKER_CALL_MACS 3e4     /* a worker's part of a call must outweigh its beginning and end, 0.5 us */
#define WORKER_STEP_MACS 8e3     /* its part of a step, the meeting after it, 0.2 us */
#define ROW_BYTES (256 << 10)    /* of weights to each row: workers that all read them must use them so often */
#define OWN_ROWS_MOST 32         /* as many rows are always worth a reading of the weights */

static int most_workers(int workers, double macs, double macs_each)
{
    return macs < macs_each * workers ? (int)fr_max(1, (int64_t)(macs / macs_each)) : workers;
}

fr_plan fr_plan_of(const fastrnn_model *model, const fastrnn_batch *batch, int64_t total_steps, int workers, double threshold,
                   bool together)
{
    const int64_t least_slices = fr_max(1, fr_ceil_div(batch->num_rows, slice_rows_most(model)));
    const fr_plan alone = {.workers = 1, .num_teams = 1, .num_slices = least_slices};
    if (workers < 2 || model->backend.blas || batch->num_steps == 0)
        return alone;
    workers = most_workers(workers, fr_plan_macs(model, total_steps), WORKER_CALL_MACS * threshold);
    if (workers < 2)
        return alone;
    const int64_t rows = total_steps / batch->num_steps; /* of a step, on average */
    const int64_t cell_bytes = (int64_t)model->nbytes / model->num_cells;
    if (rows >= workers * fr_min(fr_ceil_div(cell_bytes, ROW_BYTES), OWN_ROWS_MOST))
        return (fr_plan){.workers = workers, .num_teams = workers, .num_slices = fr_round_up(least_slices, workers)};
    if (model->num_directions == 2 && !together)
        return (fr_plan){.workers = workers, .num_teams = 2, .num_slices = 1, .directions_apart = true};
    const double step_macs = (double)rows * fr_plan_macs(model, 1) / (double)model->num_cells;
    workers = most_workers((int)fr_min(workers, model->cells[0].input.blocks), step_macs, WORKER_STEP_MACS * threshold);
    return (fr_plan){.workers = workers, .num_teams = 1, .num_slices = least_slices};
}

fr_plan fr_plan_with(fr_plan plan, int workers)
{
    plan.workers = workers;
    plan.num_teams = (int)fr_min(plan.num_teams, workers);
    return plan;
}

fr_rows fr_plan_slice(const fr_plan *plan, const fastrnn_batch *batch, int64_t slice)
{
    const int64_t B = batch->num_rows, S = plan->num_slices;
    if (batch->lengths)
        return (fr_rows){batch, slice, S, slice < B ? fr_ceil_div(B - slice, S) : 0};
    const int64_t first = B * slice / S;
    return (fr_rows){batch, first, 1, B * (slice + 1) / S - first};
}

void fr_plan_slice_bounds(const fr_plan *plan, const fastrnn_batch *batch, int64_t total_steps, int64_t *num_rows,
                          int64_t *num_steps)
{
    *num_rows = fr_ceil_div(batch->num_rows, plan->num_slices);
    /* Of cards dealt in order, the first hand exceeds the average by less than one card: the longest row. */
    *num_steps = fr_min(total_steps, fr_ceil_div(total_steps, plan->num_slices) + batch->num_steps);
}

fr_team fr_plan_team(const fr_plan *plan, int worker, int *index)
{
    *index = worker % plan->num_teams;
    return (fr_team){.size = (plan->workers - *index + plan->num_teams - 1) / plan->num_teams, .index = worker / plan->num_teams};
}
