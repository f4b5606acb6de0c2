/* Models from files: arrays that are not aligned floats are converted, for as long as the model is made. */
#include <string.h>

#include "../allocator.h"
#include "../error.h"
#include "../float16.h"
#include "../int8_weights.h"
#include "../os/os.h"
#include "model_file.h"

static bool is_in_place(const fr_array *array)
{
    return array->type == FR_ARRAY_FLOAT32 && (uintptr_t)array->data % _Alignof(float) == 0 &&
           __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
}

static uint64_t bits_at(const fr_array *array, int64_t index, int64_t size)
{
    const unsigned char *bytes = (const unsigned char *)array->data + index * size;
    uint64_t bits = 0;
    for (int64_t i = size - 1; i >= 0; i--)
        bits = bits << 8 | bytes[i];
    return bits;
}

static float element(const fr_array *array, int64_t index)
{
    uint64_t bits;
    uint32_t low;
    double wide;
    float value;
    switch (array->type) {
    case FR_ARRAY_FLOAT64:
        bits = bits_at(array, index, sizeof wide);
        memcpy(&wide, &bits, sizeof wide);
        return (float)wide;
    case FR_ARRAY_FLOAT16: return fr_float16_to_float((uint16_t)bits_at(array, index, sizeof(uint16_t)));
    case FR_ARRAY_INT8: return ((const signed char *)array->data)[index];
    default:
        low = (uint32_t)bits_at(array, index, sizeof value);
        memcpy(&value, &low, sizeof value);
        return value;
    }
}

/* The floats of an array, or NULL; those of int8 are multiplied by the scale of their row. If `memory` is NULL, the bytes that it
 * needs are added to *total. */
static const void *floats_of(const fr_array *array, const fr_array *scale, fr_arena *memory, size_t *total)
{
    if (!array || is_in_place(array))
        return array ? array->data : NULL;
    if (!memory) {
        fr_add_bytes(total, (size_t)array->count, sizeof(float));
        return NULL;
    }
    float *floats = fr_take(memory, (size_t)array->count, sizeof(float));
    const int64_t columns = scale && array->count ? array->count / array->shape[0] : 1;
    for (int64_t i = 0; i < array->count; i++)
        floats[i] = scale ? element(array, i) * element(scale, i / columns) : element(array, i);
    return floats;
}

/* What a model of the file is made of, in memory, or only the bytes that it takes. */
static fastrnn_op *describe(const fr_file *file, fr_arena *memory, size_t *total)
{
    fastrnn_op *ops = memory ? fr_take(memory, (size_t)file->num_ops, sizeof *ops) : NULL;
    fastrnn_cell *cells = memory ? fr_take(memory, (size_t)file->num_cells, sizeof *cells) : NULL;
    fr_add_bytes(total, (size_t)file->num_ops, sizeof *ops);
    fr_add_bytes(total, (size_t)file->num_cells, sizeof *cells);
    for (int64_t i = 0; i < file->num_cells; i++) {
        const fr_file_cell *from = &file->cells[i];
        const void *parts[FR_NUM_PARTS];
        for (int part = 0; part < FR_NUM_PARTS; part++)
            parts[part] = floats_of(from->parts[part], part < FR_NUM_WEIGHTS ? from->scales[part] : NULL, memory, total);
        if (cells)
            cells[i] = (fastrnn_cell){.struct_size = sizeof *cells, .weight_ih = parts[FR_WEIGHT_IH], .weight_hh = parts[FR_WEIGHT_HH],
                                      .bias_ih = parts[FR_BIAS_IH], .bias_hh = parts[FR_BIAS_HH], .weight_hr = parts[FR_WEIGHT_HR],
                                      .peephole = parts[FR_PEEPHOLE], .options = from->options};
    }
    for (int64_t i = 0; i < file->num_ops; i++) {
        const fr_file_op *from = &file->ops[i];
        const void *weight = floats_of(from->weight, NULL, memory, total), *bias = floats_of(from->bias, NULL, memory, total);
        if (!ops)
            continue;
        ops[i] = from->op;
        ops[i].weight = weight;
        ops[i].bias = bias;
        if (from->op.kind == FASTRNN_OP_LAYER) {
            ops[i].config = &from->config;
            ops[i].cells = &cells[from->first_cell];
        }
    }
    return ops;
}

/* Whether a layer makes the same q and scales of the products: it takes the largest magnitude of a row for 127 scale. */
static bool are_int8_weights(const fr_array *array, const fr_array *scale)
{
    const int64_t columns = array->count ? array->count / array->shape[0] : 0;
    for (int64_t row = 0; row < scale->count; row++) {
        const float factor = element(scale, row);
        float largest = 0;
        for (int64_t i = 0; i < columns; i++)
            largest = fmaxf(largest, fabsf(element(array, row * columns + i)));
        if (!(factor >= FLT_MIN && factor <= FLT_MAX / FR_INT8_MOST) || largest > FR_INT8_MOST)
            return false;
        const float product = largest * factor;
        if (largest > 0 && fr_int8_scale(&product, 1) != factor)
            return false;
        if (largest == 0 && factor != FLT_MIN)
            return false;
    }
    return true;
}

/* What Python's models do and this library does not. */
static fastrnn_status check(const fr_file *file)
{
    for (int64_t i = 0; i < file->num_cells; i++)
        for (int part = 0; part < FR_NUM_WEIGHTS; part++) {
            const fr_file_cell *cell = &file->cells[i];
            if (cell->scales[part] && !are_int8_weights(cell->parts[part], cell->scales[part]))
                return fr_fail(FASTRNN_ERROR_FILE, "an array of int8 weights or its scales hold numbers that rounding to int8 does not give");
        }
    for (int64_t i = 0; i < file->num_ops; i++) {
        const fr_file_op *op = &file->ops[i];
        if (op->config.dtype == FASTRNN_FLOAT64)
            return fr_fail(FASTRNN_ERROR_FILE, "dtype is float64, but files are loaded for float32 alone: save the layer with dtype float32");
        if (op->masks_zero)
            return fr_fail(FASTRNN_ERROR_FILE, "ops[%lld].mask_zero is true: leave out the steps with id 0, and save the model without it",
                           (long long)i);
        if (op->is_batch_norm)
            return fr_fail(FASTRNN_ERROR_FILE, "ops[%lld] is BatchNorm: load and save the model with fastrnn.Sequential, which folds it",
                           (long long)i);
    }
    return FASTRNN_OK;
}

static fastrnn_status make_model(const fr_file *file, const char *isa, fastrnn_model **model)
{
    fastrnn_status status = check(file);
    if (status != FASTRNN_OK)
        return status;
    size_t total = 0;
    describe(file, NULL, &total);
    void *block = fr_allocate(total);
    if (!block)
        return fr_fail_memory();
    fr_arena memory = fr_arena_of(block);
    status = fastrnn_model_create(describe(file, &memory, &total), file->num_ops, isa, model);
    fr_free(block);
    return status == FASTRNN_ERROR_ARGUMENT ? FASTRNN_ERROR_FILE : status;
}

fastrnn_status fastrnn_model_load_memory(const void *data, size_t size, const char *isa, fastrnn_model **model)
{
    if (!data || !model)
        return fr_fail_null(data ? "model" : "data");
    fr_file file;
    fastrnn_status status = fr_file_open(data, size, &file);
    if (status != FASTRNN_OK)
        return status;
    status = make_model(&file, isa, model);
    fr_file_close(&file);
    return status;
}

fastrnn_status fastrnn_model_load(const char *path, const char *isa, fastrnn_model **model)
{
    if (!path || !model)
        return fr_fail_null(path ? "model" : "path");
    const void *data;
    size_t size;
    const char *reason = fr_file_map(path, &data, &size);
    if (reason)
        return fr_fail(FASTRNN_ERROR_FILE, "%s %s", path, reason);
    const fastrnn_status status = fastrnn_model_load_memory(data, size, isa, model);
    fr_file_unmap(data, size);
    return status;
}
