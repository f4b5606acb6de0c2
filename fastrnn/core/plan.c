#include "plan.h"

#include <string.h>

#include "error.h"
#include "store.h"
#include "structs.h"
#include "unrolled.h"

_Static_assert(sizeof(fr_plan) <= sizeof(((fastrnn_plan *)NULL)->opaque), "fastrnn_plan has room for fr_plan");

static bool lengths_are_valid(const fastrnn_batch *batch, int64_t *total_steps)
{
    if (batch->num_rows == 0)
        return batch->num_steps == 0;
    if (batch->lengths[0] != batch->num_steps)
        return false;
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

/* The reason for which lengths are not valid. */
static fastrnn_status explain_lengths(const fastrnn_batch *batch)
{
    for (int64_t row = 0; row < batch->num_rows; row++) {
        const long long length = batch->lengths[row], most = row ? batch->lengths[row - 1] : batch->num_steps;
        if (length < 0)
            return fr_fail(FASTRNN_ERROR_ARGUMENT, "lengths[%lld] is %lld, wanted at least 0", (long long)row, length);
        if (length > most && row)
            return fr_fail(FASTRNN_ERROR_ARGUMENT, "lengths[%lld] is %lld, but the row before it has %lld: wanted the longest rows first",
                           (long long)row, length, most);
        if (length != most && !row)
            return fr_fail(FASTRNN_ERROR_ARGUMENT, "lengths[0] is %lld, but num_steps is %lld", length, most);
    }
    return fr_fail(FASTRNN_ERROR_ARGUMENT, "batch_sizes contradicts lengths, or num_steps is %lld without rows",
                   (long long)batch->num_steps);
}

static fastrnn_status fail_rows(const fastrnn_batch *batch)
{
    return fr_fail(FASTRNN_ERROR_SIZE, "%lld rows of up to %lld steps are more than the library can count", (long long)batch->num_rows,
                   (long long)batch->num_steps);
}

/* Sets the sum of lengths. Lengths that contradict batch_sizes would make a run leave its buffers. */
static fastrnn_status check_sizes(const fastrnn_batch *batch, int64_t *total_steps)
{
    *total_steps = 0;
    if (batch->num_rows < 0 || batch->num_steps < 0)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "num_rows is %lld and num_steps %lld, wanted at least 0", (long long)batch->num_rows,
                       (long long)batch->num_steps);
    if ((batch->lengths == NULL) != (batch->batch_sizes == NULL))
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "%s is NULL, wanted lengths and batch_sizes, or neither",
                       batch->lengths ? "batch_sizes" : "lengths");
    if (batch->num_rows > FR_MOST_ROWS || batch->num_steps > FR_MOST_ROWS)
        return fail_rows(batch);
    if (batch->lengths)
        return lengths_are_valid(batch, total_steps) ? FASTRNN_OK : explain_lengths(batch);
    if (batch->num_rows && batch->num_steps > FR_MOST_ROWS / batch->num_rows)
        return fail_rows(batch);
    *total_steps = batch->num_rows * batch->num_steps;
    return FASTRNN_OK;
}

static bool indices_are_in_range(const fastrnn_batch *batch, bool *identity)
{
    *identity = true;
    for (int64_t row = 0; batch->row_indices && row < batch->num_rows; row++) {
        if (!fr_in_range(batch->row_indices[row], 0, batch->num_rows - 1)) {
            fr_fail(FASTRNN_ERROR_ARGUMENT, "row_indices[%lld] is %lld, wanted 0 to %lld", (long long)row,
                    (long long)batch->row_indices[row], (long long)batch->num_rows - 1);
            return false;
        }
        *identity = *identity && batch->row_indices[row] == row;
    }
    return true;
}

fastrnn_status fr_batch_check(const fastrnn_batch *batch, int64_t *total_steps, const int64_t **row_indices)
{
    bool identity;
    const fastrnn_status status = check_sizes(batch, total_steps);
    if (status != FASTRNN_OK)
        return status;
    if (!indices_are_in_range(batch, &identity))
        return FASTRNN_ERROR_ARGUMENT;
    *row_indices = identity ? NULL : batch->row_indices;
    return FASTRNN_OK;
}

static double macs_of(const fastrnn_layer *layer, int64_t total_steps)
{
    return layer->macs * (double)total_steps;
}

#define SLICE_ROWS_MOST 256 /* with more rows in a step, weights are not reused better, and the state does not fit in L2 */
#define SLICE_MACS_MOST 5e8 /* in a step: about 10 ms, so that an interrupt is noticed soon */
#define SLICE_ROWS_LEAST 16

static int64_t slice_rows_most(const fastrnn_layer *layer)
{
    const double rows = SLICE_MACS_MOST * (double)layer->num_cells / macs_of(layer, 1);
    return rows >= SLICE_ROWS_MOST ? SLICE_ROWS_MOST : fr_max(SLICE_ROWS_LEAST, (int64_t)rows);
}

/* Thresholds measured on two cores of a Zen 4 with AVX-512; bench/README.md says how, and what it gave. */
#define WORKER_CALL_MACS 3e4 /* for each worker: less work in a call does not pay for starting and joining it, 0.5 us */
#define WORKER_STEP_MACS 8e3 /* for each worker: less work in a step does not pay for the barrier after it, 0.2 us */
/* With at least own_rows() rows for each worker, the rows are divided: that each worker reads all weights then costs less than a
 * barrier after every step. */
#define ROW_BYTES (256 << 10) /* of weights: one more row is needed for each so many bytes, while caches hold the weights */
#define NEAR_ROWS_MOST 8
#define FAR_BYTES (16 << 20) /* of weights: larger ones come from memory, whose bandwidth the workers share */
#define FAR_ROWS 32

static int64_t own_rows(int64_t cell_bytes)
{
    return cell_bytes > FAR_BYTES ? FAR_ROWS : fr_min(fr_max(cell_bytes / ROW_BYTES, 1), NEAR_ROWS_MOST);
}

static int most_workers(int workers, double macs, double macs_each)
{
    return macs < macs_each * workers ? (int)fr_max(1, (int64_t)(macs / macs_each)) : workers;
}

int fr_plan_workers(const fastrnn_pool *pool, double macs)
{
    return most_workers(fr_pool_num_threads(pool), macs, WORKER_CALL_MACS * fr_pool_threshold(pool));
}

fr_partition fr_partition_make(const fr_plan *plan, int workers, double threshold)
{
    const fastrnn_layer *layer = plan->layer;
    const fastrnn_batch *batch = plan->batch;
    fr_partition partition = {.workers = 1, .num_teams = 1, .num_slices = 1};
    if (batch->num_rows > SLICE_ROWS_LEAST)
        partition.num_slices = fr_ceil_div(batch->num_rows, slice_rows_most(layer));
    if (workers < 2 || layer->backend.blas || batch->num_steps == 0)
        return partition;
    workers = most_workers(workers, plan->macs, WORKER_CALL_MACS * threshold);
    if (workers < 2)
        return partition;
    const int64_t rows = plan->total_steps / batch->num_steps; /* of a step, on average */
    if (rows >= workers * own_rows((int64_t)layer->nbytes / layer->num_cells)) {
        partition.workers = partition.num_teams = workers;
        partition.num_slices = fr_round_up(partition.num_slices, workers);
    } else if (layer->num_directions == 2 && !batch->unrolled) { /* unrolled: all workers run the nodes in the same order */
        partition = (fr_partition){.workers = workers, .num_teams = 2, .num_slices = 1, .directions_apart = true};
    } else {
        const double step_macs = (double)rows * macs_of(layer, 1) / (double)layer->num_cells;
        partition.workers = most_workers((int)fr_min(workers, layer->cells[0].input.blocks), step_macs, WORKER_STEP_MACS * threshold);
    }
    return partition;
}

void fr_partition_keep(fr_partition *partition, int workers)
{
    partition->workers = workers;
    partition->num_teams = (int)fr_min(partition->num_teams, workers);
}

/* The number of rows in the slices before this one. */
static int64_t rows_before(const fr_partition *partition, const fr_plan *plan, int64_t slice)
{
    const int64_t B = plan->batch->num_rows, S = partition->num_slices;
    return slice * (B / S) + fr_min(slice, B % S); /* the first B % S slices have one row more */
}

void fr_partition_slice(const fr_partition *partition, const fr_plan *plan, int64_t slice, fr_rows *rows)
{
    const int64_t B = plan->batch->num_rows, S = partition->num_slices;
    const bool strided = plan->batch->lengths != NULL;
    *rows = (fr_rows){.batch = plan->batch, .indices = plan->row_indices, .stride = strided ? S : 1,
                      .first = strided ? slice : rows_before(partition, plan, slice),
                      .count = B / S + (slice < B % S)};
}

void fr_partition_bounds(const fr_partition *partition, const fr_plan *plan, int64_t *num_rows, int64_t *num_steps)
{
    const fastrnn_batch *batch = plan->batch;
    *num_rows = fr_ceil_div(batch->num_rows, partition->num_slices);
    *num_steps = plan->total_steps;
    /* Slice 0 takes rows 0, S, 2S, ... of rows that never get longer: its sum exceeds the average of all slices by less than
     * its first row. */
    if (partition->num_slices > 1)
        *num_steps = fr_min(plan->total_steps, fr_ceil_div(plan->total_steps, partition->num_slices) + batch->num_steps);
}

void fr_partition_team(const fr_partition *partition, int worker, int *index, fr_team *team)
{
    const int num_teams = partition->num_teams;
    *index = num_teams == 1 ? 0 : worker % num_teams;
    team->index = num_teams == 1 ? worker : worker / num_teams;
    team->size = num_teams == 1 ? partition->workers : (partition->workers - *index + num_teams - 1) / num_teams;
}

/* Reserves a piece of memory and returns its offset. */
static size_t reserve(size_t *size, int64_t count, int64_t width, size_t element_size)
{
    const size_t offset = *size;
    *size += (size_t)fr_round_up(count * width * (int64_t)element_size, FR_ALIGNMENT);
    return offset;
}

static void *piece(char *memory, size_t offset) { return memory ? memory + offset : NULL; }

/* Sets the pointers of one team's state, which begins at `memory`, and returns its size in bytes; memory may be NULL. */
static size_t place_state(const fastrnn_layer *layer, int64_t rows, char *memory, fr_state *state)
{
    const fr_widths *most = &layer->widest;
    const size_t e = layer->backend.kernels->real_size;
    size_t size = 0;
    state->own_h[0] = piece(memory, reserve(&size, rows, most->h, e));
    state->own_h[1] = piece(memory, reserve(&size, rows, most->h, e));
    state->own_c = piece(memory, reserve(&size, rows, most->c, e));
    state->own_hidden = piece(memory, reserve(&size, most->hidden ? rows : 0, most->c, e));
    void **addresses = piece(memory, reserve(&size, rows, FR_STATE_ADDRESSES, sizeof(void *)));
    if (memory) {
        state->first_h = addresses;
        state->first_c = addresses + rows;
        state->h[0] = addresses + 2 * rows;
        state->h[1] = addresses + 3 * rows;
        state->c = addresses + 4 * rows;
        state->hidden = addresses + 5 * rows;
    }
    return size;
}

static size_t place_buffers(const fastrnn_layer *layer, int64_t capacity, char *memory, fr_buffers *buffers)
{
    const fr_widths *most = &layer->widest;
    const size_t e = layer->backend.kernels->real_size;
    size_t size = 0;
    buffers->capacity = capacity;
    buffers->x = piece(memory, reserve(&size, capacity, most->x, e));
    buffers->pre = piece(memory, reserve(&size, capacity, most->pre, e));
    buffers->scratch = piece(memory, reserve(&size, most->scratch + capacity * most->scratch_row, 1, e));
    return size;
}

void fr_layout_state(const fr_layout *layout, const fastrnn_layer *layer, char *memory, int team, fr_state *state)
{
    place_state(layer, layout->state_rows, memory + layout->states + (size_t)team * layout->state_bytes, state);
}

void fr_layout_buffers(const fr_layout *layout, const fastrnn_layer *layer, char *memory, int worker, fr_buffers *buffers)
{
    place_buffers(layer, layout->capacity, memory + layout->buffers + (size_t)worker * layout->buffers_bytes, buffers);
}

/* The sizes do not overflow, as total_steps and the number of rows are at most layer->most_steps. */
static void lay_out(const fr_plan *plan, const fr_partition *partition, fr_layout *layout)
{
    const fastrnn_layer *layer = plan->layer;
    const fastrnn_batch *batch = plan->batch;
    const size_t e = layer->backend.kernels->real_size;
    const int64_t between = layer->num_layers > 1 ? plan->total_steps : 0, width = layer->num_directions * layer->h_size;
    int64_t slice_steps;
    fr_state state;
    fr_buffers buffers;
    *layout = (fr_layout){0};
    fr_partition_bounds(partition, plan, &layout->state_rows, &slice_steps);
    layout->capacity = fr_max(layout->state_rows, fr_min(layer->block_rows, slice_steps));
    layout->state_bytes = place_state(layer, layout->state_rows, NULL, &state);
    layout->buffers_bytes = place_buffers(layer, layout->capacity, NULL, &buffers);
    size_t *size = &layout->size;
    layout->has_step_offsets = batch->lengths && (plan->packed_x || batch->packed || layer->num_layers > 1);
    layout->step_offsets = reserve(size, layout->has_step_offsets ? batch->num_steps : 0, 1, sizeof(int64_t));
    layout->between[0] = reserve(size, between, width, e);
    layout->between[1] = reserve(size, layer->num_layers > 2 ? between : 0, width, e);
    layout->states = reserve(size, partition->num_teams, 1, layout->state_bytes);
    layout->buffers = reserve(size, partition->workers, 1, layout->buffers_bytes);
    *size += FR_ALIGNMENT; /* to align the workspace */
}

static fastrnn_status check_state(const fastrnn_layer *layer, const fastrnn_batch *batch)
{
    if (!batch->store)
        return batch->slots ? fr_fail(FASTRNN_ERROR_ARGUMENT, "slots is given, but store is NULL") : FASTRNN_OK;
    if (batch->h0 || batch->c0 || batch->hn || batch->cn || batch->unrolled)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "h0, c0, hn, cn or unrolled is given besides store, wanted NULL");
    return fr_store_check(layer, batch->store, batch->num_rows, batch->slots);
}

static bool is_unrolled_for(const fastrnn_layer *layer, const fastrnn_batch *batch)
{
    return batch->unrolled->layer == layer && !batch->lengths && batch->num_steps == batch->unrolled->num_steps;
}

fastrnn_status fr_plan_make(const fastrnn_layer *layer, const fastrnn_batch *batch, int64_t total_steps,
                            const int64_t *row_indices, bool packed_x, fr_plan *plan)
{
    if (batch->num_rows > layer->most_steps || total_steps > layer->most_steps)
        return fr_fail_size("the workspace");
    *plan = (fr_plan){.layer = layer, .batch = batch, .packed_x = packed_x, .row_indices = row_indices,
                      .total_steps = total_steps, .macs = macs_of(layer, total_steps)};
    plan->alone = fr_partition_make(plan, 1, 1);
    plan->shared = fr_partition_make(plan, fr_pool_num_threads(batch->pool), fr_pool_threshold(batch->pool));
    lay_out(plan, &plan->alone, &plan->alone_layout);
    lay_out(plan, &plan->shared, &plan->shared_layout);
    return FASTRNN_OK;
}

size_t fr_plan_workspace_size(const fr_plan *plan)
{
    const size_t alone = plan->alone_layout.size, shared = plan->shared_layout.size;
    return alone > shared ? alone : shared;
}

static fastrnn_status make(const fastrnn_layer *layer, const fastrnn_batch *batch, fr_plan *plan)
{
    int64_t total_steps;
    const int64_t *row_indices;
    fastrnn_status status = fr_batch_check(batch, &total_steps, &row_indices);
    if (status == FASTRNN_OK && batch->unrolled && !is_unrolled_for(layer, batch))
        status = fr_fail(FASTRNN_ERROR_ARGUMENT, "unrolled is of another layer or number of steps, or lengths is given besides it");
    if (status == FASTRNN_OK)
        status = check_state(layer, batch);
    return status == FASTRNN_OK ? fr_plan_make(layer, batch, total_steps, row_indices, batch->packed, plan) : status;
}

fastrnn_status fastrnn_plan_make(const fastrnn_layer *layer, const fastrnn_batch *batch, fastrnn_plan *plan)
{
    if (!layer)
        return fr_fail_null("layer");
    if (!batch || !fr_struct_is_known(batch, sizeof *batch, sizeof *batch))
        return fr_fail_struct("batch");
    if (!plan || plan->struct_size < sizeof *plan)
        return fr_fail_struct("plan");
    fr_plan made = {0};
    const fastrnn_status status = make(layer, batch, &made);
    if (status == FASTRNN_OK)
        plan->workspace_size = fr_plan_workspace_size(&made);
    else
        made.layer = NULL;
    memcpy(plan->opaque, &made, sizeof made);
    return status;
}
