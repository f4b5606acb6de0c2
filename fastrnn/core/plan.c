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

double fr_plan_macs(const fastrnn_layer *layer, int64_t total_steps)
{
    return layer->macs * (double)total_steps;
}

#define SLICE_ROWS_MOST 256 /* more rows a step reuse no more of the weights, and push the state out of L2 */
#define SLICE_MACS_MOST 5e8 /* a step; some 10 ms, so that an interrupt is seen soon */
#define SLICE_ROWS_LEAST 16

static int64_t slice_rows_most(const fastrnn_layer *layer)
{
    const double rows = SLICE_MACS_MOST * (double)layer->num_cells / fr_plan_macs(layer, 1);
    return rows >= SLICE_ROWS_MOST ? SLICE_ROWS_MOST : fr_max(SLICE_ROWS_LEAST, (int64_t)rows);
}

/* What pays, measured on two cores of a Zen 4 with AVX-512; bench/README.md tells how, and what it gave. */
#define WORKER_CALL_MACS 3e4     /* a worker's part of a call must outweigh its beginning and end, 0.5 us */
#define WORKER_STEP_MACS 8e3     /* its part of a step must outweigh the barrier after it, 0.2 us */
/* With how many rows each, workers had better all read all the weights than meet after each step. */
#define ROW_BYTES (256 << 10) /* of weights for each row, as long as caches hold them */
#define NEAR_ROWS_MOST 8
#define FAR_BYTES (16 << 20) /* beyond, memory is read, which the workers share */
#define FAR_ROWS 32

static int64_t own_rows(int64_t cell_bytes)
{
    return cell_bytes > FAR_BYTES ? FAR_ROWS : fr_min(fr_max(cell_bytes / ROW_BYTES, 1), NEAR_ROWS_MOST);
}

static int most_workers(int workers, double macs, double macs_each)
{
    return macs < macs_each * workers ? (int)fr_max(1, (int64_t)(macs / macs_each)) : workers;
}

void fr_plan_make(const fastrnn_layer *layer, const fastrnn_batch *batch, int64_t total_steps, int workers, double threshold,
                  bool together, fr_plan *plan)
{
    plan->workers = plan->num_teams = 1;
    plan->directions_apart = false;
    plan->num_slices = batch->num_rows <= SLICE_ROWS_LEAST ? 1 : fr_ceil_div(batch->num_rows, slice_rows_most(layer));
    if (workers < 2 || layer->backend.blas || batch->num_steps == 0)
        return;
    workers = most_workers(workers, fr_plan_macs(layer, total_steps), WORKER_CALL_MACS * threshold);
    if (workers < 2)
        return;
    const int64_t rows = total_steps / batch->num_steps; /* of a step, on average */
    if (rows >= workers * own_rows((int64_t)layer->nbytes / layer->num_cells)) {
        plan->workers = plan->num_teams = workers;
        plan->num_slices = fr_round_up(plan->num_slices, workers);
    } else if (layer->num_directions == 2 && !together) {
        plan->workers = workers;
        plan->num_teams = 2;
        plan->num_slices = 1;
        plan->directions_apart = true;
    } else {
        const double step_macs = (double)rows * fr_plan_macs(layer, 1) / (double)layer->num_cells;
        plan->workers = most_workers((int)fr_min(workers, layer->cells[0].input.blocks), step_macs, WORKER_STEP_MACS * threshold);
    }
}

void fr_plan_keep(fr_plan *plan, int workers)
{
    plan->workers = workers;
    plan->num_teams = (int)fr_min(plan->num_teams, workers);
}

void fr_plan_slice(const fr_plan *plan, const fastrnn_batch *batch, int64_t slice, fr_rows *rows)
{
    const int64_t B = batch->num_rows, S = plan->num_slices;
    rows->batch = batch;
    rows->first = slice;
    rows->stride = 1;
    rows->count = B;
    if (S == 1)
        return;
    if (batch->lengths) {
        rows->stride = S;
        rows->count = slice < B ? fr_ceil_div(B - slice, S) : 0;
    } else {
        rows->first = slice * (B / S) + fr_min(slice, B % S); /* the first B % S slices have a row more */
        rows->count = B / S + (slice < B % S);
    }
}

void fr_plan_slice_bounds(const fr_plan *plan, const fastrnn_batch *batch, int64_t total_steps, int64_t *num_rows,
                          int64_t *num_steps)
{
    *num_rows = batch->num_rows;
    *num_steps = total_steps;
    if (plan->num_slices == 1)
        return;
    *num_rows = fr_ceil_div(batch->num_rows, plan->num_slices);
    /* Of cards dealt in order, the first hand exceeds the average by less than one card: the longest row. */
    *num_steps = fr_min(total_steps, fr_ceil_div(total_steps, plan->num_slices) + batch->num_steps);
}

void fr_plan_team(const fr_plan *plan, int worker, int *index, fr_team *team)
{
    *index = plan->num_teams == 1 ? 0 : worker % plan->num_teams;
    team->index = plan->num_teams == 1 ? worker : worker / plan->num_teams;
    team->size = plan->num_teams == 1 ? plan->workers : (plan->workers - *index + plan->num_teams - 1) / plan->num_teams;
}
