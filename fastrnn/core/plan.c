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

/* Rows that are worth one reading of the weights each step. */
static int64_t slice_rows_most(const fastrnn_model *model)
{
    const double macs = fr_plan_macs(model, 1) / (double)model->num_cells;
    return fr_max(SLICE_ROWS_LEAST, (int64_t)(macs * SLICE_ROWS_MOST < SLICE_MACS_MOST ? SLICE_ROWS_MOST : SLICE_MACS_MOST / macs));
}

#define WORKER_STEP_MACS 4e3 /* a worker's part of a step must outweigh the meeting after it */
#define WORKER_CALL_MACS 1e5
#define OWN_ROWS_LEAST 8     /* with as many, each worker reads all the weights and needs no meeting */

static int most_workers(int workers, double macs, double macs_each)
{
    return macs < macs_each * workers ? (int)fr_max(1, (int64_t)(macs / macs_each)) : workers;
}

fr_plan fr_plan_of(const fastrnn_model *model, const fastrnn_batch *batch, int64_t total_steps, int workers, double threshold,
                   bool together)
{
    const double macs = fr_plan_macs(model, total_steps);
    const int64_t least_slices = fr_ceil_div(batch->num_rows, slice_rows_most(model));
    if (model->backend.blas || batch->num_steps == 0)
        workers = 1;
    workers = most_workers(workers, macs, WORKER_CALL_MACS * threshold);
    if (workers < 2)
        return (fr_plan){.workers = 1, .num_teams = 1, .num_slices = fr_max(1, least_slices)};
    const double rows = (double)total_steps / (double)batch->num_steps; /* on average, of a step */
    const double step_macs = rows * fr_plan_macs(model, 1) / (double)model->num_cells;
    static int forced = -2;
    if (forced == -2) { extern char *getenv(const char *); extern int atoi(const char *); const char *t = getenv("FR_PLAN"); forced = t ? atoi(t) : -1; }
    if (forced == 0 || (forced != 1 && rows >= OWN_ROWS_LEAST * (double)workers))
        return (fr_plan){.workers = workers, .num_teams = workers, .num_slices = fr_round_up(fr_max(workers, least_slices), workers)};
    if (model->num_directions == 2 && workers >= 2 && !together)
        return (fr_plan){.workers = workers, .num_teams = 2, .num_slices = 1, .directions_apart = true};
    workers = most_workers((int)fr_min(workers, model->cells[0].input.blocks), step_macs, WORKER_STEP_MACS * threshold);
    return (fr_plan){.workers = workers, .num_teams = 1, .num_slices = fr_max(1, least_slices)};
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
