/* Runs of a model's plan: stage after stage, each on the caller's thread or shared with a thread pool. */
#include <string.h>

#include "cpu.h"
#include "model_plan.h"
#include "model_store.h"
#include "parallel/region.h"
#include "run.h"

/* One pass over the vectors of a stage that is not a layer. */
typedef struct fr_pass {
    const fastrnn_model_plan *plan;
    const fr_stage *stage;
    const fr_stage_plan *stage_plan;
    fr_source source;
    fr_view output;
    bool is_last;  /* the output is the caller's y */
    fr_poll *poll; /* the caller's thread's */
    atomic_llong next_block;
} fr_pass;

/* The caller's vectors of x or y. */
static fr_view callers_view(const fastrnn_view *view, const fr_segment *segment, bool packed)
{
    return packed ? fr_segment_view(segment, view->base, view->row_stride) : fr_callers_view(view);
}

static fr_view view_of_x(const fastrnn_model_plan *plan)
{
    return callers_view(&plan->batch->x, &plan->stages[0].input, plan->batch->packed);
}

static fr_view view_of_y(const fastrnn_model_plan *plan)
{
    return callers_view(&plan->batch->y, &plan->stages[plan->model->num_stages - 1].output,
                        plan->batch->packed && !plan->model->pools);
}

/* Packed vectors of `size` elements between stages. */
static fr_view view_between(const fastrnn_model_plan *plan, const fr_segment *segment, int64_t writer, int64_t size)
{
    return fr_segment_view(segment, plan->between[writer & 1], fr_packed_stride(plan->model, size));
}

static fr_op_block buffer_of(const fr_pass *pass, int worker, int index, int64_t rows)
{
    return (fr_op_block){.rows = rows, .stride = pass->stage->row_size,
                         .values = fr_stage_plan_buffer(pass->stage_plan, pass->stage, pass->plan->scratch, worker, index)};
}

/* Rows of packed vectors from `first` on. */
static fr_op_block block_in(const fr_view *view, int64_t first, int64_t rows)
{
    return (fr_op_block){.rows = rows, .stride = view->row_stride, .values = (float *)view->base + first * view->row_stride};
}

/* What the first op of a stage reads, or the first mapping op maps. */
static fr_op_block read_block(const fr_pass *pass, int64_t first, const fr_op_block *buffer, const fr_op_block *output,
                              fr_poll *poll)
{
    const fr_op *op = fr_stage_ops(pass->plan->model, pass->stage);
    if (op->type->read) {
        const fr_op_block *to = output && !op->type->map && pass->stage->count == 1 ? output : buffer;
        op->type->read(op, &pass->source, &pass->stage_plan->output, first, to, poll);
        return *to;
    }
    if (pass->stage > pass->plan->model->stages)
        return block_in(&pass->source.view, first, buffer->rows);
    fr_read_steps(&pass->source, &pass->stage_plan->output, first, buffer, op->input_size, false, poll);
    return *buffer;
}

/* Copies a block to the caller's y. */
static void write_block(const fr_pass *pass, int64_t first, const fr_op_block *block, int64_t size)
{
    const fr_segment *segment = &pass->stage_plan->output;
    fr_position at = fr_segment_position(segment, first);
    for (int64_t row = 0; row < block->rows; row++, at = fr_segment_next(segment, at)) {
        void *y = fr_vector_at(&pass->output, pass->plan->row_indices, at.row, at.step, sizeof(float));
        fr_copy_vector(y, fr_block_row(block, row), size);
    }
}

/* All ops of the stage for vectors [first, first + rows). */
static void run_block(const fr_pass *pass, int worker, int64_t first, int64_t rows, fr_poll *poll)
{
    const fr_stage *stage = pass->stage;
    const fr_op *ops = fr_stage_ops(pass->plan->model, stage), *last = &ops[stage->count - 1];
    const fr_op_block buffers[] = {buffer_of(pass, worker, 0, rows), buffer_of(pass, worker, 1, rows)};
    const fr_op_block packed = pass->is_last ? (fr_op_block){0} : block_in(&pass->output, first, rows);
    fr_op_block now = read_block(pass, first, &buffers[0], pass->is_last ? NULL : &packed, poll);
    for (const fr_op *op = ops; op <= last; op++) {
        if (!op->type->map)
            continue;
        const bool own = now.values == buffers[0].values || now.values == buffers[1].values;
        const fr_op_block *to = &buffers[now.values == buffers[0].values];
        if (op == last && !pass->is_last)
            to = &packed;
        else if (own && op->type->in_place)
            to = &now;
        op->type->map(op, &pass->plan->model->backend, &now, to, poll);
        now = *to;
        if (fr_poll_stops(poll, (double)rows * fr_op_vector_work(op)))
            return;
    }
    if (pass->is_last)
        write_block(pass, first, &now, last->output_size);
}

static void run_blocks(void *context, int worker)
{
    fr_pass *pass = context;
    const fr_stage_plan *stage_plan = pass->stage_plan;
    fr_poll own = {.batch = pass->poll->batch, .mode = pass->poll->mode, .status = pass->poll->status}, *poll = &own;
    if (worker == 0)
        poll = pass->poll;
    for (;;) {
        const int64_t block = atomic_fetch_add_explicit(&pass->next_block, 1, memory_order_relaxed);
        if (block >= stage_plan->num_blocks || fr_poll_stops(poll, 0))
            return;
        const int64_t first = block * stage_plan->block_rows;
        run_block(pass, worker, first, fr_min(stage_plan->block_rows, stage_plan->output.total_steps - first), poll);
    }
}

static void run_pass(fr_pass *pass)
{
    const fr_stage_plan *stage_plan = pass->stage_plan;
    fastrnn_pool *pool = pass->plan->batch->pool;
    const int workers = stage_plan->workers > 1 ? fr_pool_enter(pool, stage_plan->workers, stage_plan->macs, false) : 1;
    if (workers == 1) {
        run_blocks(pass, 0);
        return;
    }
    fr_region region = fr_region_make(pool, run_blocks, pass, stage_plan->macs, pass->poll->mode);
    fr_region_run(&region, workers, pass->poll, false);
}

static void run_pass_of(const fastrnn_model_plan *plan, int64_t index, fr_poll *poll)
{
    const fastrnn_model *model = plan->model;
    const fr_stage *stage = &model->stages[index];
    const fr_stage_plan *stage_plan = &plan->stages[index];
    const fr_op *ops = fr_stage_ops(model, stage);
    fr_pass pass = {.plan = plan, .stage = stage, .stage_plan = stage_plan, .poll = poll,
                    .is_last = index == model->num_stages - 1,
                    .source = {.segment = &stage_plan->input, .row_indices = plan->row_indices}};
    pass.source.view = index ? view_between(plan, &stage_plan->input, index - 1, ops->input_size) : view_of_x(plan);
    pass.output = pass.is_last ? view_of_y(plan)
                               : view_between(plan, &stage_plan->output, index, ops[stage->count - 1].output_size);
    if (plan->batch->store && ops->tail_steps)
        pass.source.tails = fr_model_store_tails(model, plan->batch->store, stage->first, plan->batch->slots);
    run_pass(&pass);
    if (pass.source.tails.parities && *poll->status == FASTRNN_OK)
        fr_conv1d_keep_tails(ops, &pass.source);
}

static void run_layer(const fastrnn_model_plan *plan, int64_t index, fr_poll *poll)
{
    fr_stage_plan *stage_plan = &plan->stages[index];
    if (index == 0)
        stage_plan->batch.x = plan->batch->x;
    if (index == plan->model->num_stages - 1)
        stage_plan->batch.y = plan->batch->y;
    const void *store = plan->batch->store;
    const fr_states states = store ? fr_model_store_states(plan->model, store, plan->model->stages[index].first) : (fr_states){0};
    fr_plan_run(&stage_plan->plan, &states, plan->scratch, poll);
}

static void run_stages(const fastrnn_model_plan *plan, fr_poll *poll)
{
    for (int64_t i = 0; i < plan->model->num_stages && *poll->status == FASTRNN_OK; i++) {
        if (fr_stage_ops(plan->model, &plan->model->stages[i])->options.kind == FASTRNN_OP_LAYER)
            run_layer(plan, i, poll);
        else
            run_pass_of(plan, i, poll);
    }
}

/* The steps of y past the rows' ends. A layer that is the last stage has filled them. */
static void fill(const fastrnn_model_plan *plan, fr_poll *poll)
{
    const fastrnn_model *model = plan->model;
    const fastrnn_batch *batch = plan->batch;
    const fr_op *last = &model->ops[model->num_ops - 1];
    const fr_segment *segment = &plan->stages[model->num_stages - 1].output;
    if (batch->past_end == FASTRNN_PAST_END_NOTHING || (batch->packed && !model->pools) || last->options.kind == FASTRNN_OP_LAYER)
        return;
    const fr_view y = view_of_y(plan);
    const double work = (double)(FR_VECTOR_WORK + FR_COPY_WORK * last->output_size);
    for (int64_t row = 0; row < segment->num_rows; row++)
        for (int64_t step = fr_segment_length(segment, row); step < batch->padded_steps; step++) {
            memset(fr_vector_at(&y, plan->row_indices, row, step, sizeof(float)), 0, (size_t)last->output_size * sizeof(float));
            if (fr_poll_stops(poll, work))
                return;
        }
}

static bool ids_are_valid(const fastrnn_model_plan *plan, fr_poll *poll)
{
    const fr_segment *segment = &plan->stages[0].input;
    const fr_view x = view_of_x(plan);
    fr_position at = {0};
    for (int64_t i = 0; i < segment->total_steps && !fr_poll_stops(poll, FR_COPY_WORK); i++, at = fr_segment_next(segment, at)) {
        const void *id = fr_vector_at(&x, plan->row_indices, at.row, at.step, sizeof(int64_t));
        if (!fr_in_range(*(const int64_t *)id, 0, plan->model->ops[0].input_size - 1))
            return false;
    }
    return true;
}

static void run(const fastrnn_model_plan *plan, fr_poll *poll)
{
    const fastrnn_batch *batch = plan->batch;
    if (fr_takes_ids(plan->model) && !ids_are_valid(plan, poll)) {
        *poll->status = FASTRNN_ERROR_ID;
        return;
    }
    run_stages(plan, poll);
    if (*poll->status == FASTRNN_OK)
        fill(plan, poll);
    if (batch->store && *poll->status == FASTRNN_OK) {
        const fr_rows rows = {.batch = batch, .indices = plan->row_indices, .stride = 1, .count = batch->num_rows};
        fr_model_store_advance(batch->store, &rows);
    }
}

static bool view_is_valid(const fastrnn_view *view, bool has_vectors) { return view->base || view->rows || !has_vectors; }

static bool views_are_valid(const fastrnn_model_plan *plan)
{
    const fastrnn_model *model = plan->model;
    const fastrnn_batch *batch = plan->batch;
    const bool pads = batch->past_end != FASTRNN_PAST_END_NOTHING && batch->padded_steps > 0;
    return view_is_valid(&batch->x, plan->stages[0].input.total_steps > 0 && model->ops[0].input_size > 0) &&
           view_is_valid(&batch->y, plan->stages[model->num_stages - 1].output.total_steps > 0 || pads);
}

fastrnn_status fastrnn_model_plan_run(fastrnn_model_plan *plan)
{
    if (!plan)
        return FASTRNN_ERROR_ARGUMENT;
    if (plan->batch->num_rows == 0)
        return FASTRNN_OK;
    if (!views_are_valid(plan))
        return FASTRNN_ERROR_ARGUMENT;
    atomic_int status = FASTRNN_OK;
    fr_poll poll = {.batch = plan->batch, .asks = true, .mode = fr_fp_flush(), .status = &status};
    run(plan, &poll);
    fr_fp_restore(poll.mode);
    return (fastrnn_status)status;
}
