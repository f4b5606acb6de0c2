#include "model.h"

#include "allocator.h"
#include "dispatch.h"
#include "error.h"
#include "structs.h"

int64_t fr_model_steps(const fastrnn_model *model, int64_t num_ops, int64_t steps)
{
    for (int64_t i = 0; i < num_ops; i++)
        steps = fr_op_steps(&model->ops[i], steps);
    return steps;
}

int64_t fastrnn_model_output_steps(const fastrnn_model *model, int64_t steps)
{
    return model && fr_in_range(steps, 0, FR_MOST_ROWS) ? fr_model_steps(model, model->num_ops, steps) : -1;
}

fr_op_state fr_op_state_of(const fr_op *op)
{
    if (op->tail_steps)
        return (fr_op_state){.num_kinds = 1, .counts = {1}, .widths = {op->tail_steps * op->input_size}};
    if (op->options.kind != FASTRNN_OP_LAYER)
        return (fr_op_state){0};
    const fr_cell *cell = op->layer->cells;
    return (fr_op_state){.num_kinds = cell->kind == FASTRNN_LSTM ? 2 : 1,
                         .counts = {op->layer->num_layers, op->layer->num_layers},
                         .widths = {cell->h_size, cell->hidden_size}};
}

static int64_t state_size_of(const fr_op *op)
{
    const fr_op_state state = fr_op_state_of(op);
    int64_t size = 0;
    for (int64_t kind = 0; kind < state.num_kinds; kind++)
        size += state.counts[kind] * state.widths[kind];
    return size;
}

static bool streams(const fr_op *op)
{
    if (op->options.kind == FASTRNN_OP_LAYER)
        return op->layer->num_directions == 1 && !op->layer->reverse;
    if (op->options.kind == FASTRNN_OP_CONV1D)
        return fr_conv1d_is_causal(&op->options);
    return op->options.kind != FASTRNN_OP_REVERSE && !op->type->pools;
}

/* Adds an op that was placed to the model. */
static fastrnn_status add_op(fastrnn_model *model, const fastrnn_op *given, const fr_op *placed)
{
    const int64_t index = model->num_ops;
    fr_op *op = &model->ops[index];
    *op = *placed;
    fr_op_hash(given, &model->fingerprint);
    if (given->kind == FASTRNN_OP_LAYER) {
        const char *isa = model->backend.kernels->isa;
        const fastrnn_status status = fastrnn_layer_create(given->config, given->cells, isa, NULL, &op->layer);
        if (status != FASTRNN_OK)
            return status;
        fr_hash_add(&model->fingerprint, op->layer->fingerprint);
        model->nbytes += op->layer->nbytes;
    }
    model->num_ops++; /* from here on the model owns its layer */
    if (given->kind == FASTRNN_OP_FINAL)
        op->layer = op[-1].layer;
    if (given->kind == FASTRNN_OP_CONV1D)
        model->stride = fr_min(model->stride * op->options.stride, FR_MOST_ROWS);
    model->pools = model->pools || op->type->pools;
    if (model->first_not_streamed < 0 && !streams(op))
        model->first_not_streamed = index;
    model->state_size += state_size_of(op);
    return model->state_size <= FR_MOST_ROWS ? FASTRNN_OK : fr_fail_size("the state of a stream");
}

/* Elements of the longest row that the op reads or writes in a block. */
static int64_t row_size_of(const fastrnn_model *model, const fr_op *op)
{
    const int64_t most = fr_max(fr_max(op->read_size, op->output_size), op->type->read ? 0 : op->input_size);
    return fr_round_up(most, model->backend.kernels->vector_length);
}

static void make_stages(fastrnn_model *model)
{
    fr_stage *stage = NULL;
    for (int64_t i = 0; i < model->num_ops; i++) {
        const fr_op *op = &model->ops[i];
        const bool is_layer = op->options.kind == FASTRNN_OP_LAYER;
        if (!stage || is_layer || op->type->read || fr_stage_ops(model, stage)->options.kind == FASTRNN_OP_LAYER) {
            stage = &model->stages[model->num_stages++];
            *stage = (fr_stage){.first = i};
        }
        stage->count++;
        stage->row_size = fr_max(stage->row_size, row_size_of(model, op));
    }
}

static bool ops_are_valid(const fastrnn_op *ops, int64_t count)
{
    fastrnn_op op, before;
    for (int64_t i = 0; i < count; i++, before = op)
        if (!fr_op_read(&op, ops, i)) {
            fr_fail_struct("ops");
            return false;
        } else if (!fr_op_is_valid(&op, i) || !fr_op_follows(&op, i ? &before : NULL, i)) {
            return false;
        }
    return true;
}

static fastrnn_status fill(fastrnn_model *model, const fastrnn_op *ops, int64_t count, void *scratch)
{
    fr_arena arena = fr_arena_of(model->weights);
    fastrnn_status status = FASTRNN_OK;
    for (int64_t i = 0; i < count && status == FASTRNN_OK; i++) {
        fastrnn_op given;
        fr_op_read(&given, ops, i);
        const fr_op placed = fr_op_place(&arena, &model->backend, &given, scratch);
        status = add_op(model, &given, &placed);
    }
    if (status == FASTRNN_OK)
        make_stages(model);
    return status;
}

fastrnn_status fastrnn_model_create(const fastrnn_op *ops, int64_t count, const char *isa, fastrnn_model **model)
{
    if (!ops || !model)
        return fr_fail_null(ops ? "model" : "ops");
    if (!fr_in_range(count, 1, FR_MOST_LAYERS))
        return fr_fail(FASTRNN_ERROR_ARGUMENT, "count is %lld, wanted 1 to %lld", (long long)count, (long long)FR_MOST_LAYERS);
    if (!ops_are_valid(ops, count))
        return FASTRNN_ERROR_ARGUMENT;
    const fr_backend backend = {.kernels = fr_kernels_named(isa, FR_WEIGHT_FLOAT32)};
    if (!backend.kernels)
        return fr_fail_isa(isa);
    size_t nbytes = 0, scratch_bytes = 0;
    for (int64_t i = 0; i < count; i++) {
        fastrnn_op given;
        fr_op_read(&given, ops, i);
        if (!fr_op_add_bytes(&nbytes, &scratch_bytes, &backend, &given))
            return fr_fail_size("the weights");
    }
    fastrnn_model *made = fr_allocate(sizeof *made + (size_t)count * (sizeof *made->ops + sizeof *made->stages));
    if (!made)
        return fr_fail_memory();
    *made = (fastrnn_model){.backend = backend, .stride = 1, .first_not_streamed = -1, .nbytes = nbytes,
                            .fingerprint = FR_HASH_START, .weights = fr_allocate(nbytes),
                            .stages = (void *)&made->ops[count]};
    void *scratch = fr_allocate(scratch_bytes);
    const fastrnn_status status = made->weights && scratch ? fill(made, ops, count, scratch) : fr_fail_memory();
    fr_free(scratch);
    if (status == FASTRNN_OK)
        *model = made;
    else
        fastrnn_model_destroy(made);
    return status;
}

void fastrnn_model_destroy(fastrnn_model *model)
{
    if (!model)
        return;
    for (int64_t i = 0; i < model->num_ops; i++)
        if (model->ops[i].options.kind == FASTRNN_OP_LAYER)
            fastrnn_layer_destroy(model->ops[i].layer);
    fr_free(model->weights);
    fr_free(model);
}

const char *fastrnn_model_isa(const fastrnn_model *model) { return model ? model->backend.kernels->isa : NULL; }
size_t fastrnn_model_nbytes(const fastrnn_model *model) { return model ? model->nbytes : 0; }
uint64_t fastrnn_model_fingerprint(const fastrnn_model *model) { return model ? model->fingerprint : 0; }

fastrnn_status fastrnn_model_describe(const fastrnn_model *model, fastrnn_model_info *info)
{
    const size_t first = FR_SIZE_UP_TO(fastrnn_model_info, state_size);
    if (!model)
        return fr_fail_null("model");
    if (!info || !fr_struct_size(info, first))
        return fr_fail_struct("info");
    const bool ids = fr_takes_ids(model);
    const fastrnn_model_info found = {.num_ids = ids ? model->ops[0].input_size : 0,
                                      .input_size = ids ? 1 : model->ops[0].input_size,
                                      .output_size = model->ops[model->num_ops - 1].output_size,
                                      .pools = model->pools, .stride = model->stride,
                                      .first_not_streamed = model->first_not_streamed,
                                      .state_size = model->first_not_streamed < 0 ? model->state_size : 0};
    fr_struct_write(info, &found, sizeof found, first);
    return FASTRNN_OK;
}
