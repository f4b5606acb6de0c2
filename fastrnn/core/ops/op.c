#include "op.h"

#include <string.h>

#include "../error.h"
#include "../structs.h"

static const fr_op_type *const types[] = {
    [FASTRNN_OP_LAYER] = &fr_op_recurrent,       [FASTRNN_OP_EMBEDDING] = &fr_op_embedding,
    [FASTRNN_OP_LINEAR] = &fr_op_linear,         [FASTRNN_OP_CONV1D] = &fr_op_conv1d,
    [FASTRNN_OP_LAYER_NORM] = &fr_op_layer_norm, [FASTRNN_OP_SCALE] = &fr_op_scale,
    [FASTRNN_OP_ACTIVATION] = &fr_op_activation, [FASTRNN_OP_SOFTMAX] = &fr_op_softmax,
    [FASTRNN_OP_LOG_SOFTMAX] = &fr_op_softmax,   [FASTRNN_OP_LAST] = &fr_op_last,
    [FASTRNN_OP_FIRST] = &fr_op_first,           [FASTRNN_OP_MEAN] = &fr_op_mean,
    [FASTRNN_OP_MAX] = &fr_op_max,               [FASTRNN_OP_FINAL] = &fr_op_final,
    [FASTRNN_OP_REVERSE] = &fr_op_reverse,
};

bool fr_op_read(fastrnn_op *op, const fastrnn_op *given, int64_t index)
{
    const char *at = (const char *)given + (size_t)index * given->struct_size;
    if (!fr_struct_read(op, sizeof *op, FR_SIZE_UP_TO(fastrnn_op, cells), at) || op->struct_size != given->struct_size)
        return false;
    op->stride = op->stride ? op->stride : 1;
    op->dilation = op->dilation ? op->dilation : 1;
    return true;
}

static bool has_output_size(fastrnn_op_kind kind)
{
    return kind == FASTRNN_OP_EMBEDDING || kind == FASTRNN_OP_LINEAR || kind == FASTRNN_OP_CONV1D;
}

/* With these limits products of two sizes fit int64_t. */
static bool size_is_valid(const char *name, int64_t index, int64_t size, bool has_size, int64_t most)
{
    const int64_t least = has_size ? 1 : 0;
    if (fr_in_range(size, least, has_size ? most : 0))
        return true;
    fr_fail(FASTRNN_ERROR_ARGUMENT, "ops[%lld].%s is %lld, wanted %lld to %lld", (long long)index, name, (long long)size,
            (long long)least, (long long)(has_size ? most : 0));
    return false;
}

bool fr_op_is_valid(const fastrnn_op *op, int64_t index)
{
    if (!fr_in_range(op->kind, 0, sizeof types / sizeof *types - 1)) {
        fr_fail(FASTRNN_ERROR_ARGUMENT, "ops[%lld].kind is %lld, which is unknown", (long long)index, (long long)op->kind);
        return false;
    }
    const int64_t most = op->kind == FASTRNN_OP_EMBEDDING ? FR_MOST_ROWS : FR_MOST_UNITS;
    if (!size_is_valid("input_size", index, op->input_size, op->kind != FASTRNN_OP_LAYER, most) ||
        !size_is_valid("output_size", index, op->output_size, has_output_size(op->kind), FR_MOST_UNITS))
        return false;
    fr_clear_faults();
    const bool valid = !types[op->kind]->is_valid || types[op->kind]->is_valid(op);
    if (!valid && op->kind != FASTRNN_OP_LAYER) /* of a layer the text says more */
        fr_fail(FASTRNN_ERROR_ARGUMENT, "ops[%lld] has a weight that is NULL, or a member that is out of range", (long long)index);
    return valid;
}

static int64_t input_size_of(const fastrnn_op *op)
{
    const fr_op_type *type = types[op->kind];
    return type->input_size ? type->input_size(op) : op->input_size;
}

static int64_t output_size_of(const fastrnn_op *op)
{
    const fr_op_type *type = types[op->kind];
    return type->output_size ? type->output_size(op) : has_output_size(op->kind) ? op->output_size : op->input_size;
}

bool fr_op_follows(const fastrnn_op *op, const fastrnn_op *before, int64_t index)
{
    if (op->kind == FASTRNN_OP_EMBEDDING && before) {
        fr_fail(FASTRNN_ERROR_ARGUMENT, "ops[%lld] is an embedding, which can only be the first op", (long long)index);
        return false;
    }
    if (op->kind == FASTRNN_OP_FINAL && !(before && before->kind == FASTRNN_OP_LAYER)) {
        fr_fail(FASTRNN_ERROR_ARGUMENT, "ops[%lld] is FASTRNN_OP_FINAL, wanted FASTRNN_OP_LAYER before it", (long long)index);
        return false;
    }
    if (!before || input_size_of(op) == output_size_of(before))
        return true;
    fr_fail(FASTRNN_ERROR_ARGUMENT, "ops[%lld] takes vectors of %lld elements, but the op before it gives %lld", (long long)index,
            (long long)input_size_of(op), (long long)output_size_of(before));
    return false;
}

bool fr_op_add_bytes(size_t *total, size_t *scratch, const fr_backend *backend, const fastrnn_op *given)
{
    const fr_op_type *type = types[given->kind];
    return !type->add_bytes || type->add_bytes(total, scratch, backend, given);
}

fr_op fr_op_place(fr_arena *arena, const fr_backend *backend, const fastrnn_op *given, void *scratch)
{
    fr_op op = {.type = types[given->kind], .options = *given, .input_size = input_size_of(given)};
    op.output_size = op.read_size = output_size_of(given);
    if (op.type->place)
        op.type->place(&op, arena, backend, given, scratch);
    op.options.weight = op.options.bias = NULL;
    op.options.config = NULL;
    op.options.cells = NULL;
    return op;
}

void fr_op_hash(const fastrnn_op *given, uint64_t *hash)
{
    fr_hash_add(hash, (uint64_t)given->kind);
    fr_hash_add(hash, (uint64_t)given->input_size);
    fr_hash_add(hash, (uint64_t)given->output_size);
    if (types[given->kind]->hash)
        types[given->kind]->hash(given, hash);
}

int64_t fr_op_steps(const fr_op *op, int64_t steps)
{
    if (op->type->pools)
        return 1;
    return op->options.kind == FASTRNN_OP_CONV1D ? fr_conv1d_steps(&op->options, steps) : steps;
}

double fr_op_vector_work(const fr_op *op)
{
    return (double)op->matrix.macs + (double)op->read_size * op->type->element_work;
}

double fr_op_work(const fr_op *op, const fr_segment *input, const fr_segment *output)
{
    return fr_op_vector_work(op) * (double)(op->type->reads_all ? input->total_steps : output->total_steps);
}

static int64_t padded(const fr_backend *backend, int64_t size) { return fr_round_up(size, backend->kernels->vector_length); }

bool fr_add_vector_bytes(size_t *total, const fr_backend *backend, int64_t size)
{
    return fr_add_bytes(total, (size_t)padded(backend, size), sizeof(float));
}

float *fr_place_vector(fr_arena *arena, const fr_backend *backend, const float *given, int64_t size, float fill)
{
    float *vector = fr_take(arena, (size_t)padded(backend, size), sizeof(float));
    for (int64_t i = 0; i < padded(backend, size); i++)
        vector[i] = i >= size ? 0 : given ? given[i] : fill;
    return vector;
}

/* NULL does not hash as any vector. */
void fr_hash_vector(const void *given, int64_t size, uint64_t *hash)
{
    fr_hash_add(hash, given != NULL);
    if (given)
        fr_hash_add_reals(hash, given, size, sizeof(float));
}

/* Most are short: memcpy would take longer. */
void fr_copy_vector(float *to, const float *from, int64_t size)
{
    for (; size >= 16; to += 16, from += 16, size -= 16)
        memcpy(to, from, 16 * sizeof *to);
    for (; size >= 4; to += 4, from += 4, size -= 4)
        memcpy(to, from, 4 * sizeof *to);
    for (; size > 0; size--)
        *to++ = *from++;
}

void fr_read_steps(const fr_source *source, const fr_segment *output, int64_t first, const fr_op_block *to, int64_t size,
                   bool reverse, fr_poll *poll)
{
    const double work = (double)(FR_VECTOR_WORK + size * FR_COPY_WORK);
    fr_position at = fr_segment_position(output, first);
    for (int64_t row = 0; row < to->rows && !fr_poll_stops(poll, work); row++, at = fr_segment_next(output, at)) {
        const int64_t step = reverse ? fr_segment_length(source->segment, at.row) - 1 - at.step : at.step;
        fr_copy_vector(fr_block_row(to, row), fr_source_vector(source, at.row, step), size);
    }
}

bool fr_factors_add_bytes(size_t *total, size_t *scratch, const fr_backend *backend, const fastrnn_op *given)
{
    (void)scratch;
    return fr_add_vector_bytes(total, backend, given->input_size) && fr_add_vector_bytes(total, backend, given->input_size);
}

void fr_factors_place(fr_op *op, fr_arena *arena, const fr_backend *backend, const fastrnn_op *given, void *scratch)
{
    (void)scratch;
    op->weight = fr_place_vector(arena, backend, given->weight, op->input_size, 1);
    op->bias = fr_place_vector(arena, backend, given->bias, op->input_size, 0);
}

void fr_factors_hash(const fastrnn_op *given, uint64_t *hash)
{
    fr_hash_vector(given->weight, given->input_size, hash);
    fr_hash_vector(given->bias, given->input_size, hash);
}

fr_op_args fr_op_args_of(const fr_op *op, const fr_op_block *from, const fr_op_block *to)
{
    return (fr_op_args){.rows = to->rows, .count = op->input_size, .x = from->values, .x_stride = from->stride, .y = to->values,
                        .y_stride = to->stride, .weight = op->weight, .bias = op->bias};
}
