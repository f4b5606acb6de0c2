/* The ops of models that compute each vector alone: activations, scaling, normalization, softmax.
 *
 * A sum over a vector's elements is computed in an order that depends on their number and V alone: FR_SUMS sums of V lanes each,
 * then these lanes. Every NaN in a result has the same bits, as in the state of a cell.
 */
#ifndef FR_OPS_H
#define FR_OPS_H

#include "pointwise.h"

#define FR_SUMS 4 /* independent sums hide the latency of an addition, and lose less to rounding than one */

/* Vector i + j of each of `vectors`; it belongs to sum j. */
#define FR_FOR_EACH_VECTOR(vectors)                                                                                    \
    for (int64_t i = 0; i < (vectors); i += FR_SUMS)                                                                   \
        FR_UNROLL                                                                                                      \
        for (int j = 0; j < FR_SUMS; j++)                                                                              \
            if (i + j < (vectors))

/* Vector i of a row with `count` elements; `rest` in the lanes past its end. */
FR_INLINE vf load_row(const real *row, int64_t i, int64_t count, real rest)
{
    const int64_t left = count - i * FR_V;
    if (left >= FR_V)
        return v_load(row + i * FR_V);
    _Alignas(FR_ALIGNMENT) real lanes[FR_V];
    for (int lane = 0; lane < FR_V; lane++)
        lanes[lane] = lane < left ? row[i * FR_V + lane] : rest;
    return v_load(lanes);
}

static double sum_of_lanes(const vf *sums)
{
    _Alignas(FR_ALIGNMENT) real lanes[FR_V];
    double total = 0;
    v_store(lanes, v_add(v_add(sums[0], sums[1]), v_add(sums[2], sums[3])));
    for (int lane = 0; lane < FR_V; lane++)
        total += (double)lanes[lane];
    return total;
}

/* `name` is a constant. x and y may have any alignment. */
FR_INLINE void activate_all(fastrnn_activation_name name, fastrnn_activation f, int64_t count, const real *x, real *y)
{
    const fastrnn_activation constant = {name, f.alpha, f.beta};
    vf v;
    int64_t i = 0;
    for (; i + FR_V <= count; i += FR_V) {
        memcpy(&v, x + i, sizeof v);
        v = v_one_nan(v_activate(constant, v));
        memcpy(y + i, &v, sizeof v);
    }
    if (i == count)
        return;
    v = v_set1(0.0);
    memcpy(&v, x + i, (size_t)(count - i) * sizeof(real));
    v = v_one_nan(v_activate(constant, v));
    memcpy(y + i, &v, (size_t)(count - i) * sizeof(real));
}

static void activate(fastrnn_activation f, int64_t count, const void *x, void *y)
{
    switch (f.name) {
#define FR_CASE(NAME, name, alpha, beta, has_defaults)                                                                 \
    case FASTRNN_##NAME: activate_all(FASTRNN_##NAME, f, count, x, y); break;
        FASTRNN_FOR_EACH_ACTIVATION(FR_CASE)
#undef FR_CASE
    case FASTRNN_DEFAULT: break;
    }
}

static void scale(const fr_op_args *a)
{
    for (int64_t row = 0; row < a->rows; row++) {
        const real *x = (const real *)a->x + row * a->x_stride;
        real *y = (real *)a->y + row * a->y_stride;
        for (int64_t i = 0; i < a->count; i += FR_V)
            store_state(y + i, v_fma(v_load(x + i), v_load((const real *)a->weight + i), v_load((const real *)a->bias + i)));
    }
}

/* The mean of a float sum is only near the mean. The deviations d from it are small, and their own mean is what it lacks, so
 * that the result is as exact for numbers far from 0 as for others. */
static void layer_norm(const fr_op_args *a)
{
    const int64_t vectors = fr_ceil_div(a->count, FR_V);
    for (int64_t row = 0; row < a->rows; row++) {
        const real *x = (const real *)a->x + row * a->x_stride;
        real *y = (real *)a->y + row * a->y_stride;
        vf sums[FR_SUMS] = {v_set1(0.0), v_set1(0.0), v_set1(0.0), v_set1(0.0)};
        FR_FOR_EACH_VECTOR(vectors)
            sums[j] = v_add(sums[j], load_row(x, i + j, a->count, 0));
        const real near = (real)(sum_of_lanes(sums) / (double)a->count);
        vf squares[FR_SUMS];
        for (int j = 0; j < FR_SUMS; j++)
            sums[j] = squares[j] = v_set1(0.0);
        FR_FOR_EACH_VECTOR(vectors) {
            const vf d = v_sub(load_row(x, i + j, a->count, near), v_broadcast(&near));
            sums[j] = v_add(sums[j], d);
            squares[j] = v_fma(d, d, squares[j]);
        }
        const double rest = sum_of_lanes(sums) / (double)a->count;
        const double variance = sum_of_lanes(squares) / (double)a->count - rest * rest;
        const vf shift = v_set1(rest), factor = v_set1(1 / sqrt(fmax(variance, 0) + a->eps)), mean = v_broadcast(&near);
        for (int64_t i = 0; i < a->count; i += FR_V) {
            const vf d = v_sub(v_sub(v_load(x + i), mean), shift);
            store_state(y + i, v_fma(v_mul(d, factor), v_load((const real *)a->weight + i), v_load((const real *)a->bias + i)));
        }
    }
}

/* The largest element; any number if there is a NaN. */
static double largest(const real *x, int64_t count)
{
    _Alignas(FR_ALIGNMENT) real lanes[FR_V];
    vf most = v_set1(-INFINITY);
    for (int64_t i = 0; i * FR_V < count; i++)
        most = v_max(load_row(x, i, count, -(real)INFINITY), most);
    v_store(lanes, most);
    double found = (double)lanes[0];
    for (int lane = 1; lane < FR_V; lane++)
        found = (double)lanes[lane] > found ? (double)lanes[lane] : found;
    return found;
}

/* A NaN makes the sum NaN, and with it the whole row; so does an infinite largest element. */
static void softmax(const fr_op_args *a)
{
    const int64_t vectors = fr_ceil_div(a->count, FR_V);
    for (int64_t row = 0; row < a->rows; row++) {
        const real *x = (const real *)a->x + row * a->x_stride;
        real *y = (real *)a->y + row * a->y_stride;
        const vf most = v_set1(largest(x, a->count));
        vf sums[FR_SUMS] = {v_set1(0.0), v_set1(0.0), v_set1(0.0), v_set1(0.0)};
        FR_FOR_EACH_VECTOR(vectors) {
            const vf below = v_sub(load_row(x, i + j, a->count, -(real)INFINITY), most), e = v_exp_nonpositive(below);
            sums[j] = v_add(sums[j], e);
            v_store(y + (i + j) * FR_V, a->log ? below : e);
        }
        const double sum = sum_of_lanes(sums);
        const vf log_sum = v_set1(log(sum)), factor = v_set1(1 / sum);
        for (int64_t i = 0; i < a->count; i += FR_V)
            store_state(y + i, a->log ? v_sub(v_load(y + i), log_sum) : v_mul(v_load(y + i), factor));
    }
}

#endif
