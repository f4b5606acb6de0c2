#include "matrix.h"

#include <string.h>

#include "float16.h"
#include "int8_weights.h"

fr_gate_layout fr_gates_of(const fr_backend *backend, int64_t blocks, int columns)
{
    const int64_t V = backend->kernels->vector_length;
    if (backend->blas)
        return (fr_gate_layout){.row = columns * blocks * V, .block = V, .gate = blocks * V};
    return (fr_gate_layout){.row = columns * blocks * V, .block = columns * V, .gate = V};
}

/* The columns of a panel: int8 weights are read four at a time. */
static int64_t panel_columns(const fr_kernels *kernels, int64_t k)
{
    return kernels->weight_type == FR_WEIGHT_INT8 ? fr_round_up(k, 4) : k;
}

static size_t panels_bytes(const fr_kernels *kernels, int gates, int64_t blocks)
{
    return (size_t)(gates * blocks * kernels->vector_length * fr_weight_size(kernels->weight_type));
}

/* The number of scales: of int8 weights, one for each gate's unit. */
static size_t num_scales(const fr_kernels *kernels, int gates, int64_t blocks)
{
    return kernels->weight_type == FR_WEIGHT_INT8 ? (size_t)(gates * blocks * kernels->vector_length) : 0;
}

bool fr_matrix_add_bytes(size_t *total, const fr_backend *backend, int gates, int64_t k, int64_t blocks)
{
    const fr_kernels *kernels = backend->kernels;
    return fr_add_bytes(total, (size_t)panel_columns(kernels, k), panels_bytes(kernels, gates, blocks)) &&
           fr_add_bytes(total, num_scales(kernels, gates, blocks), sizeof(float));
}

/* Between a caller's weight, which is a real, and an element of a matrix. scale: of int8 weights. */
static void put_weight(const fr_kernels *kernels, void *element, const void *given, float scale)
{
    float real;
    switch (kernels->weight_type) {
    case FR_WEIGHT_FLOAT32: memcpy(element, given, sizeof(float)); break;
    case FR_WEIGHT_FLOAT64: memcpy(element, given, sizeof(double)); break;
    case FR_WEIGHT_FLOAT16:
        memcpy(&real, given, sizeof real);
        *(uint16_t *)element = fr_float16_of(real);
        break;
    case FR_WEIGHT_INT8:
        memcpy(&real, given, sizeof real);
        *(uint8_t *)element = (uint8_t)(fr_int8_of(real, scale) + kernels->weight_offset);
        break;
    }
}

static void get_weight(const fr_kernels *kernels, void *given, const void *element, float scale)
{
    float real;
    switch (kernels->weight_type) {
    case FR_WEIGHT_FLOAT32: memcpy(given, element, sizeof(float)); break;
    case FR_WEIGHT_FLOAT64: memcpy(given, element, sizeof(double)); break;
    case FR_WEIGHT_FLOAT16:
        real = fr_float16_to_float(*(const uint16_t *)element);
        memcpy(given, &real, sizeof real);
        break;
    case FR_WEIGHT_INT8:
        real = scale * (float)(int8_t)(uint8_t)(*(const uint8_t *)element - kernels->weight_offset);
        memcpy(given, &real, sizeof real);
        break;
    }
}

bool fr_weights_fit(const fr_backend *backend, const void *given, int64_t rows, int64_t k)
{
    const float *weight = given;
    switch (backend->kernels->weight_type) {
    case FR_WEIGHT_FLOAT32: return true;
    case FR_WEIGHT_FLOAT64: return true;
    case FR_WEIGHT_FLOAT16:
        for (int64_t i = 0; i < rows * k; i++)
            if (!fr_float16_fits(weight[i]))
                return false;
        return true;
    case FR_WEIGHT_INT8:
        if (k > FR_INT8_MOST_COLUMNS)
            return false;
        for (int64_t i = 0; i < rows * k; i++)
            if (!isfinite(weight[i]))
                return false;
        return true;
    }
    return false;
}

/* The address of the weight of input i of a gate's unit. In the layout for BLAS the weights of a unit are contiguous. */
static void *element_of(const fr_backend *backend, const fr_matrix *matrix, int gate, int64_t unit, int64_t i)
{
    const int64_t V = backend->kernels->vector_length, k = matrix->k;
    const fr_weights *weights = &matrix->weights;
    const size_t e = (size_t)fr_weight_size(weights->type);
    if (backend->blas)
        return fr_at(weights->panels, (gate * matrix->blocks * V + unit) * k + i, e);
    const char *panel = fr_at(weights->panels, unit / V * weights->panel_stride, 1);
    if (weights->type == FR_WEIGHT_INT8)
        return fr_at(panel, ((i / 4 * matrix->gates + gate) * V + unit % V) * 4 + i % 4, e);
    return fr_at(panel, (i * matrix->gates + gate) * V + unit % V, e);
}

/* The scale of a gate's unit, or NULL if the weights have none. */
static float *scale_of(const fr_backend *backend, const fr_matrix *matrix, int gate, int64_t unit)
{
    const int64_t V = backend->kernels->vector_length;
    const void *scales = matrix->weights.scales;
    return scales ? fr_at(scales, (unit / V * matrix->gates + gate) * V + unit % V, sizeof(float)) : NULL;
}

fr_matrix fr_matrix_place(fr_arena *arena, const fr_backend *backend, const void *weight, int first_gate, int gates,
                          int64_t units, int64_t k)
{
    const fr_kernels *kernels = backend->kernels;
    const int64_t V = kernels->vector_length, blocks = fr_ceil_div(units, V), columns = panel_columns(kernels, k);
    const fr_weight_type type = kernels->weight_type;
    const size_t real_size = kernels->real_size, scales = num_scales(kernels, gates, blocks);
    void *panels = fr_take(arena, (size_t)columns, panels_bytes(kernels, gates, blocks));
    memset(panels, kernels->weight_offset, (size_t)columns * panels_bytes(kernels, gates, blocks));
    fr_matrix matrix = {.gates = gates, .k = k, .blocks = blocks, .macs = k * gates * blocks * V,
                        .weights = {.type = type, .panels = panels,
                                    .panel_stride = backend->blas ? 0 : columns * gates * V * fr_weight_size(type)}};
    if (scales) {
        void *memory = fr_take(arena, scales, sizeof(float));
        memset(memory, 0, scales * sizeof(float));
        matrix.weights.scales = memory;
    }
    for (int gate = 0; gate < gates; gate++)
        for (int64_t unit = 0; unit < units; unit++) {
            const char *from = fr_at(weight, ((first_gate + gate) * units + unit) * k, real_size);
            if (backend->blas) { /* which multiplies reals: a row is in one piece */
                if (k)
                    memcpy(element_of(backend, &matrix, gate, unit, 0), from, (size_t)k * real_size);
                continue;
            }
            float *scale = scale_of(backend, &matrix, gate, unit);
            if (scale)
                *scale = fr_int8_scale((const float *)(const void *)from, k);
            for (int64_t i = 0; i < k; i++)
                put_weight(kernels, element_of(backend, &matrix, gate, unit, i), fr_at(from, i, real_size), scale ? *scale : 1);
        }
    return matrix;
}

void fr_matrix_get(const fr_backend *backend, const fr_matrix *matrix, int gate, int64_t unit, int64_t i, void *weight)
{
    const float *scale = scale_of(backend, matrix, gate, unit);
    get_weight(backend->kernels, weight, element_of(backend, matrix, gate, unit, i), scale ? *scale : 1);
}

void fr_matrix_unpack(const fr_backend *backend, const fr_matrix *matrix, int first_gate, int64_t units, void *weight)
{
    const size_t real_size = backend->kernels->real_size;
    for (int gate = 0; weight && gate < matrix->gates; gate++)
        for (int64_t unit = 0; unit < units; unit++) {
            char *to = fr_at(weight, ((first_gate + gate) * units + unit) * matrix->k, real_size);
            for (int64_t i = 0; i < matrix->k; i++)
                fr_matrix_get(backend, matrix, gate, unit, i, fr_at(to, i, real_size));
        }
}

void fr_matrix_hash(const fr_backend *backend, const fr_matrix *matrix, int64_t units, uint64_t *hash)
{
    double real;
    for (int gate = 0; gate < matrix->gates; gate++)
        for (int64_t unit = 0; unit < units; unit++)
            for (int64_t i = 0; i < matrix->k; i++) {
                fr_matrix_get(backend, matrix, gate, unit, i, &real);
                fr_hash_add_reals(hash, &real, 1, backend->kernels->real_size);
            }
}

int64_t fr_gates_element(const fr_backend *backend, fr_gate_layout layout, int gate, int64_t unit)
{
    const int64_t V = backend->kernels->vector_length;
    return unit / V * layout.block + gate * layout.gate + unit % V;
}

void fr_gates_add(const fr_backend *backend, fr_gate_layout layout, const void *vector, int first_gate, int gates,
                  int64_t units, void *out)
{
    for (int gate = 0; vector && gate < gates; gate++)
        for (int64_t unit = 0; unit < units; unit++) {
            const int64_t from = (first_gate + gate) * units + unit;
            const int64_t to = fr_gates_element(backend, layout, gate, unit);
            if (backend->kernels->real_size == sizeof(double))
                ((double *)out)[to] += ((const double *)vector)[from];
            else
                ((float *)out)[to] += ((const float *)vector)[from];
        }
}

void fr_gates_unpack(const fr_backend *backend, fr_gate_layout layout, const void *in, int first_gate, int gates,
                     int64_t units, void *vector)
{
    const size_t e = backend->kernels->real_size;
    for (int gate = 0; vector && gate < gates; gate++)
        for (int64_t unit = 0; unit < units; unit++)
            memcpy(fr_at(vector, (first_gate + gate) * units + unit, e),
                   fr_at(in, fr_gates_element(backend, layout, gate, unit), e), e);
}

int64_t fr_matrix_scratch(const fr_backend *backend, const fr_matrix *matrix)
{
    if (!backend->blas)
        return 0;
    return FR_BLAS_ROWS * (matrix->k + matrix->gates * matrix->blocks * backend->kernels->vector_length);
}

/* out (FR_BLAS_ROWS, n) += in (FR_BLAS_ROWS, k) . weights (n, k)^T, all row-major. Fortran reads a row-major array as its
 * transpose, so that it computes out^T += weights . in^T. */
static void blas_tile(const fr_backend *backend, const fr_matrix *matrix, int64_t n, const void *in, int64_t in_stride,
                      void *out, int64_t out_stride)
{
    const int64_t rows = FR_BLAS_ROWS;
    const void *weights = matrix->weights.panels;
    if (backend->kernels->real_size == sizeof(double)) {
        const double one = 1;
        backend->blas->dgemm("T", "N", &n, &rows, &matrix->k, &one, weights, &matrix->k, in, &in_stride, &one, out, &out_stride);
    } else {
        const float one = 1;
        backend->blas->sgemm("T", "N", &n, &rows, &matrix->k, &one, weights, &matrix->k, in, &in_stride, &one, out, &out_stride);
    }
}

static void blas_product(const fr_backend *backend, const fr_matrix *matrix, int64_t rows, const void *in,
                         int64_t in_stride, const void *bias, void *out, fr_gate_layout layout, void *scratch)
{
    const size_t e = backend->kernels->real_size;
    const int64_t n = matrix->gates * matrix->blocks * backend->kernels->vector_length, k = matrix->k;
    for (int64_t row = 0; bias && row < rows; row++)
        memcpy(fr_at(out, row * layout.row, e), bias, (size_t)n * e);
    for (int64_t row = 0; k && row < rows; row += FR_BLAS_ROWS) {
        const int64_t count = fr_min(FR_BLAS_ROWS, rows - row);
        const char *tile_in = fr_at(in, row * in_stride, e);
        char *tile_out = fr_at(out, row * layout.row, e);
        if (count == FR_BLAS_ROWS && in_stride >= k && in_stride <= INT32_MAX) {
            blas_tile(backend, matrix, n, tile_in, in_stride, tile_out, layout.row);
            continue;
        }
        char *copy_in = scratch, *copy_out = fr_at(scratch, FR_BLAS_ROWS * k, e);
        memset(scratch, 0, (size_t)(FR_BLAS_ROWS * (k + n)) * e);
        for (int64_t r = 0; r < count; r++) {
            memcpy(fr_at(copy_in, r * k, e), fr_at(tile_in, r * in_stride, e), (size_t)k * e);
            memcpy(fr_at(copy_out, r * n, e), fr_at(tile_out, r * layout.row, e), (size_t)n * e);
        }
        blas_tile(backend, matrix, n, copy_in, k, copy_out, n);
        for (int64_t r = 0; r < count; r++)
            memcpy(fr_at(tile_out, r * layout.row, e), fr_at(copy_out, r * n, e), (size_t)n * e);
    }
}

void fr_matrix_product(const fr_backend *backend, const fr_matrix *matrix, fr_range blocks, int64_t rows, const void *in,
                       int64_t in_stride, const void *bias, void *out, fr_gate_layout layout, void *scratch)
{
    if (backend->blas) {
        blas_product(backend, matrix, rows, in, in_stride, bias, out, layout, scratch);
        return;
    }
    const size_t e = backend->kernels->real_size;
    const fr_product_args args = {
        .rows = rows, .k = matrix->k, .blocks = blocks.end - blocks.begin, .gates = matrix->gates,
        .in = in, .in_stride = in_stride, .weights = fr_matrix_weights(backend, matrix, blocks.begin),
        .bias = bias ? fr_at(bias, blocks.begin * layout.block, e) : NULL, .out = fr_at(out, blocks.begin * layout.block, e),
        .out_row_stride = layout.row, .out_block_stride = layout.block, .out_gate_stride = layout.gate, .scratch = scratch,
    };
    backend->kernels->product(&args);
}
