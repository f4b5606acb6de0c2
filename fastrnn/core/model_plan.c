#include "model_plan.h"

#include <string.h>

#include "error.h"
#include "model_store.h"
#include "structs.h"

/* Memory that is first counted, with base NULL, and then taken. */
typedef struct fr_memory {
    char *base;
    size_t used;
    bool overflows;
} fr_memory;

static void *take(fr_memory *memory, int64_t count, size_t size)
{
    const size_t at = memory->used;
    memory->overflows = memory->overflows || !fr_add_bytes(&memory->used, (size_t)count, size);
    return memory->base ? memory->base + at : NULL;
}

/* The sum of lengths after the first `num_ops` ops. False if it is too large. */
static bool count_steps(const fastrnn_model *model, const fastrnn_batch *batch, int64_t num_ops, fr_segment *segment)
{
    segment->num_rows = batch->num_rows;
    segment->num_steps = fr_model_steps(model, num_ops, batch->num_steps);
    segment->total_steps = 0;
    if (segment->num_steps > FR_MOST_ROWS)
        return false;
    for (int64_t row = 0; batch->lengths && row < batch->num_rows && segment->total_steps <= FR_MOST_ROWS; row++)
        segment->total_steps += fr_model_steps(model, num_ops, batch->lengths[row]);
    if (!batch->lengths && batch->num_rows && segment->num_steps > FR_MOST_ROWS / batch->num_rows)
        return false;
    if (!batch->lengths)
        segment->total_steps = batch->num_rows * segment->num_steps;
    return segment->total_steps <= FR_MOST_ROWS;
}

/* The arrays of rows with different lengths. While memory is counted, the batch's take their place; nobody reads their contents. */
static void make_lengths(const fastrnn_model *model, const fastrnn_batch *batch, int64_t num_ops, fr_memory *memory,
                         fr_segment *segment)
{
    int64_t *lengths = take(memory, segment->num_rows, sizeof *lengths);
    int64_t *batch_sizes = take(memory, segment->num_steps, sizeof *batch_sizes);
    segment->lengths = batch->lengths;
    segment->batch_sizes = batch->batch_sizes;
    if (!memory->base)
        return;
    for (int64_t row = 0; row < segment->num_rows; row++)
        lengths[row] = fr_model_steps(model, num_ops, batch->lengths[row]);
    fr_count_rows(lengths, segment->num_rows, segment->num_steps, batch_sizes);
    segment->lengths = lengths;
    segment->batch_sizes = batch_sizes;
}

static void make_offsets(fr_memory *memory, fr_segment *segment)
{
    int64_t *offsets = take(memory, segment->num_steps, sizeof *offsets);
    if (memory->base)
        fr_count_offsets(segment->batch_sizes, segment->num_steps, offsets);
    segment->step_offsets = offsets;
}

static fr_segment make_input(const fastrnn_batch *batch, int64_t total_steps, fr_memory *memory)
{
    fr_segment segment = {.num_rows = batch->num_rows, .num_steps = batch->num_steps, .total_steps = total_steps,
                          .lengths = batch->lengths, .batch_sizes = batch->batch_sizes};
    if (segment.lengths)
        make_offsets(memory, &segment);
    return segment;
}

/* Only the first op of a stage changes lengths. */
static bool make_output(const fastrnn_model *model, const fastrnn_batch *batch, const fr_stage *stage, fr_memory *memory,
                        fr_stage_plan *made)
{
    const fr_op *op = fr_stage_ops(model, stage);
    made->output = made->input;
    if (!op->type->pools && op->options.kind != FASTRNN_OP_CONV1D)
        return true;
    made->output.lengths = made->output.batch_sizes = made->output.step_offsets = NULL;
    if (!count_steps(model, batch, stage->first + 1, &made->output))
        return false;
    if (!op->type->pools && made->input.lengths) {
        make_lengths(model, batch, stage->first + 1, memory, &made->output);
        make_offsets(memory, &made->output);
    }
    return true;
}

static bool is_last(const fastrnn_model *model, int64_t index) { return index == model->num_stages - 1; }

/* Sets the views of a layer's batch; addresses of x and y of the whole call are set by each run. */
static void make_batch(const fastrnn_model_plan *plan, int64_t index, fr_stage_plan *made)
{
    const fastrnn_model *model = plan->model;
    const fastrnn_batch *batch = plan->batch;
    const fr_op *op = fr_stage_ops(model, &model->stages[index]);
    const fr_segment *segment = &made->input;
    const bool last = is_last(model, index);
    made->batch = (fastrnn_batch){.struct_size = sizeof made->batch, .num_rows = segment->num_rows, .num_steps = segment->num_steps,
                                  .lengths = segment->lengths, .batch_sizes = segment->batch_sizes,
                                  .row_indices = plan->row_indices, .packed = !last || (batch->packed && !model->pools),
                                  .slots = batch->slots, .pool = batch->pool};
    made->batch.x = (fastrnn_view){.base = plan->between[!(index & 1)], .row_stride = fr_packed_stride(model, op->input_size)};
    made->batch.y = (fastrnn_view){.base = plan->between[index & 1], .row_stride = fr_packed_stride(model, op->output_size)};
    if (last) {
        made->batch.past_end = batch->past_end;
        made->batch.padded_steps = batch->padded_steps;
    }
}

#define BLOCK_BYTES (128 << 10) /* of a block's rows: both blocks stay in L2 */
#define BLOCK_ROWS_LEAST 12     /* two tiles */
#define BLOCK_ROWS_MOST 256
#define BLOCKS_EACH 4 /* for each worker, so that no worker waits long for another */

static void make_blocks(const fastrnn_model *model, const fastrnn_batch *batch, const fr_stage *stage, fr_stage_plan *made)
{
    const int64_t vectors = made->output.total_steps;
    for (int64_t i = 0; i < stage->count; i++)
        made->macs += fr_op_work(&fr_stage_ops(model, stage)[i], i ? &made->output : &made->input, &made->output);
    made->block_rows = BLOCK_BYTES / (stage->row_size * (int64_t)sizeof(float));
    made->block_rows = fr_min(fr_max(made->block_rows, BLOCK_ROWS_LEAST), BLOCK_ROWS_MOST);
    made->workers = (int)fr_max(1, fr_min(fr_plan_workers(batch->pool, made->macs), vectors));
    const int64_t blocks_each = vectors >= made->workers * BLOCKS_EACH * BLOCK_ROWS_LEAST ? BLOCKS_EACH : 1;
    if (made->workers > 1)
        made->block_rows = fr_min(made->block_rows, fr_ceil_div(vectors, made->workers * blocks_each));
    made->num_blocks = fr_ceil_div(vectors, made->block_rows);
}

/* The largest needs of the stages, which run one after the other in the same memory. */
typedef struct fr_needs {
    size_t scratch, between[2]; /* bytes */
} fr_needs;

static void raise(size_t *most, size_t bytes) { *most = bytes > *most ? bytes : *most; }

static fastrnn_status make_stage(const fastrnn_model_plan *plan, int64_t index, fr_memory *memory, fr_stage_plan *made,
                                 fr_needs *needs)
{
    const fastrnn_model *model = plan->model;
    const fr_stage *stage = &model->stages[index];
    const fr_op *ops = fr_stage_ops(model, stage);
    size_t scratch = 0, between = 0;
    if (!make_output(model, plan->batch, stage, memory, made))
        return FASTRNN_ERROR_SIZE;
    if (ops->options.kind == FASTRNN_OP_LAYER) {
        make_batch(plan, index, made);
        const fastrnn_status status = fr_plan_make(ops->layer, &made->batch, made->input.total_steps, plan->row_indices,
                                                   index > 0 || plan->batch->packed, &made->plan);
        if (status != FASTRNN_OK)
            return status;
        scratch = fr_plan_workspace_size(&made->plan);
    } else {
        make_blocks(model, plan->batch, stage, made);
        if (!fr_add_bytes(&scratch, (size_t)(2 * made->workers * made->block_rows), (size_t)stage->row_size * sizeof(float)))
            return FASTRNN_ERROR_SIZE;
    }
    const int64_t stride = fr_packed_stride(model, ops[stage->count - 1].output_size);
    if (!is_last(model, index) && !fr_add_bytes(&between, (size_t)made->output.total_steps, (size_t)stride * sizeof(float)))
        return FASTRNN_ERROR_SIZE;
    raise(&needs->scratch, scratch);
    raise(&needs->between[index & 1], between);
    return FASTRNN_OK;
}

/* Makes the plan in memory, or counts its bytes. `needs` are known when memory is taken. */
static fastrnn_status make_plan(const fastrnn_model_plan *given, int64_t total_steps, fr_memory *memory, fr_needs *needs,
                                fastrnn_model_plan **plan)
{
    const fastrnn_model *model = given->model;
    fastrnn_model_plan made = *given;
    fastrnn_model_plan *to = take(memory, 1, sizeof made);
    made.stages = take(memory, model->num_stages, sizeof *made.stages);
    if (memory->base) {
        made.between[0] = take(memory, 1, needs->between[0]);
        made.between[1] = take(memory, 1, needs->between[1]);
        made.scratch = take(memory, 1, needs->scratch);
    }
    fr_segment segment = make_input(made.batch, total_steps, memory);
    for (int64_t i = 0; i < model->num_stages; i++) {
        fr_stage_plan counted, *stage_plan = memory->base ? &made.stages[i] : &counted;
        *stage_plan = (fr_stage_plan){.input = segment};
        const fastrnn_status status = make_stage(&made, i, memory, stage_plan, needs);
        if (status != FASTRNN_OK)
            return status;
        segment = stage_plan->output;
    }
    if (!memory->base) {
        take(memory, 1, needs->between[0]);
        take(memory, 1, needs->between[1]);
        take(memory, 1, needs->scratch);
    }
    if (memory->overflows)
        return fr_fail_size("the plan");
    if (memory->base) {
        *to = made;
        *plan = to;
    }
    return FASTRNN_OK;
}

static bool lengths_are_streamed(const fastrnn_batch *batch, int64_t stride)
{
    bool all = batch->num_steps % stride == 0;
    for (int64_t row = 0; batch->lengths && row < batch->num_rows; row++)
        all = all && batch->lengths[row] % stride == 0;
    return all;
}

static fastrnn_status check_state(const fastrnn_model *model, const fastrnn_batch *batch)
{
    if (batch->h0 || batch->c0 || batch->hn || batch->cn || batch->unrolled)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "h0, c0, hn, cn or unrolled is given, wanted NULL: the state of a model is in a store");
    if (batch->slots && !batch->store)
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "slots is given, but store is NULL");
    if (!batch->store)
        return FASTRNN_OK;
    const fastrnn_status status = fr_model_store_check(model, batch->store, batch->num_rows, batch->slots);
    if (status == FASTRNN_OK && !lengths_are_streamed(batch, model->stride))
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "num_steps or one of lengths is no multiple of the model's stride of %lld",
                       (long long)model->stride);
    return status;
}

static fastrnn_status check(const fastrnn_model *model, const fastrnn_batch *batch, fastrnn_model_plan *plan, int64_t *total_steps)
{
    if (!model)
        return fr_fail_null("model");
    if (!batch || !fr_struct_is_known(batch, sizeof *batch, sizeof *batch))
        return fr_fail_struct("batch");
    if (!fr_in_range(batch->past_end, FASTRNN_PAST_END_NOTHING, FASTRNN_PAST_END_ZERO))
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "past_end is %d, wanted FASTRNN_PAST_END_NOTHING or FASTRNN_PAST_END_ZERO",
                       (int)batch->past_end);
    *plan = (fastrnn_model_plan){.model = model, .batch = batch};
    const fastrnn_status status = fr_batch_check(batch, total_steps, &plan->row_indices);
    return status == FASTRNN_OK ? check_state(model, batch) : status;
}

/* The needs, and the bytes of a plan in memory of any alignment. */
static fastrnn_status count(const fastrnn_model_plan *plan, int64_t total_steps, fr_needs *needs, size_t *size)
{
    fr_memory counted = {0};
    *needs = (fr_needs){0};
    const fastrnn_status status = make_plan(plan, total_steps, &counted, needs, NULL);
    *size = counted.used + FR_ALIGNMENT;
    return status;
}

fastrnn_status fastrnn_model_plan_size(const fastrnn_model *model, const fastrnn_batch *batch, size_t *size)
{
    fastrnn_model_plan plan;
    fr_needs needs;
    int64_t total_steps;
    size_t counted = 0;
    fastrnn_status status = size ? check(model, batch, &plan, &total_steps) : fr_fail_null("size");
    if (status == FASTRNN_OK)
        status = count(&plan, total_steps, &needs, &counted);
    if (status == FASTRNN_OK)
        *size = counted;
    return status;
}

fastrnn_status fastrnn_model_plan_make(const fastrnn_model *model, const fastrnn_batch *batch, void *memory, size_t size,
                                       fastrnn_model_plan **plan)
{
    fastrnn_model_plan made;
    fr_needs needs;
    int64_t total_steps;
    size_t wanted = 0;
    if (!memory || !plan)
        return fr_fail_null(memory ? "plan" : "memory");
    fastrnn_status status = check(model, batch, &made, &total_steps);
    if (status == FASTRNN_OK)
        status = count(&made, total_steps, &needs, &wanted);
    if (status != FASTRNN_OK)
        return status;
    if (size < wanted) /* also if the thread pool's threshold has changed since fastrnn_model_plan_size */
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "size is %zu, wanted at least %zu", size, wanted);
    fr_memory taken = {.base = fr_arena_of(memory).next};
    return make_plan(&made, total_steps, &taken, &needs, plan);
}
