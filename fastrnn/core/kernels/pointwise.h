/* The cells' equations, for one vector of units. With options == NULL they are those of the standard cell. NULL is a
 * constant wherever a fused kernel inlines them, so that the compiler removes the code for options. */
#ifndef FR_POINTWISE_H
#define FR_POINTWISE_H

#include "kernels.h"
#include "vmath.h"

/* Which of two NaNs an operation returns depends on the order of its operands, which compilers choose separately for each
 * tile. A step therefore replaces every NaN by the same one, so that the bits of a row do not depend on its tile. */
FR_INLINE void store_state(real *to, vf value) { v_store(to, v_one_nan(value)); }

FR_INLINE vf gate(vf x, const fastrnn_cell_options *options, int index, fastrnn_activation_name standard)
{
    if (!options)
        return v_activate((fastrnn_activation){standard, 0, 0}, x);
    if (options->gate_clip > 0)
        x = v_clip(x, options->gate_clip);
    return v_activate(options->activations[index], x);
}

/* Hochreiter and Schmidhuber 1997, Gers et al. 2000. peephole: the units' weights for i;
 * those for f and o follow at multiples of peephole_stride. The o gate depends on the new cell state. Returns h. */
FR_INLINE vf lstm_cell(const vf *gates, const real *c_in, real *c_out, const fastrnn_cell_options *options, const real *peephole,
                       int64_t peephole_stride)
{
    const vf old_c = v_load(c_in);
    vf gi = gates[0], gf = gates[1], go = gates[3];
    if (!options) {
        const vf new_c = v_fma(v_sigmoid(gf), old_c, v_sigmoid_tanh(gi, gates[2]));
        store_state(c_out, new_c);
        return v_sigmoid_tanh(go, new_c);
    }
    if (peephole) {
        gi = v_fma(v_load(peephole), old_c, gi);
        gf = v_fma(v_load(peephole + peephole_stride), old_c, gf);
    }
    vf i = gate(gi, options, 0, FASTRNN_SIGMOID);
    vf f = options->coupled ? v_sub(v_set1(1.0), i) : gate(gf, options, 1, FASTRNN_SIGMOID);
    vf g = gate(gates[2], options, 2, FASTRNN_TANH);
    vf new_c = v_fma(f, old_c, v_mul(i, g));
    if (options->cell_clip > 0)
        new_c = v_clip(new_c, options->cell_clip);
    if (peephole)
        go = v_fma(v_load(peephole + 2 * peephole_stride), new_c, go);
    vf o = gate(go, options, 3, FASTRNN_SIGMOID);
    store_state(c_out, new_c);
    return v_mul(o, v_activate(options->activations[4], new_c));
}

/* Cho et al. 2014; n_hidden is R h + b, or R (r*h) + b with reset_before. */
FR_INLINE vf gru_cell(vf r, vf z, vf n_input, vf n_hidden, vf h, const fastrnn_cell_options *options)
{
    vf reset = options && options->reset_before ? v_add(n_input, n_hidden) : v_fma(r, n_hidden, n_input);
    vf n = gate(reset, options, 2, FASTRNN_TANH);
    return v_fma(z, v_sub(h, n), n); /* (1 - z) n + z h */
}

static void lstm_pointwise(const fr_pointwise_args *a)
{
    for (int64_t row = 0; row < a->rows; row++)
        for (int64_t block = 0; block < a->blocks; block++) {
            const real *g = (const real *)a->gates + row * a->row_stride + block * a->block_stride;
            real *c = (real *)a->c + row * a->c_stride + block * FR_V;
            const real *peephole = a->peephole;
            if (peephole)
                peephole += block * FR_V;
            vf gates[4];
            for (int j = 0; j < 4; j++)
                gates[j] = v_load(g + j * a->gate_stride);
            vf h = lstm_cell(gates, c, c, a->options, peephole, a->peephole_stride);
            store_state((real *)a->h_out + row * a->h_out_stride + block * FR_V, h);
        }
}

static void gru_reset(const fr_pointwise_args *a)
{
    for (int64_t row = 0; row < a->rows; row++)
        for (int64_t block = 0; block < a->blocks; block++) {
            real *g = (real *)a->gates + row * a->row_stride + block * a->block_stride;
            vf r = gate(v_load(g), a->options, 0, FASTRNN_SIGMOID);
            v_store(g, r);
            v_store(g + a->gate_stride, gate(v_load(g + a->gate_stride), a->options, 1, FASTRNN_SIGMOID));
            if (a->options->reset_before) {
                const real *h = (const real *)a->h_old + row * a->h_old_stride + block * FR_V;
                v_store((real *)a->h_out + row * a->h_out_stride + block * FR_V, v_mul(r, v_load(h)));
            }
        }
}

static void gru_pointwise(const fr_pointwise_args *a)
{
    for (int64_t row = 0; row < a->rows; row++)
        for (int64_t block = 0; block < a->blocks; block++) {
            const real *g = (const real *)a->gates + row * a->row_stride + block * a->block_stride;
            const real *h = (const real *)a->h_old + row * a->h_old_stride + block * FR_V;
            vf new_h = gru_cell(v_load(g), v_load(g + a->gate_stride), v_load(g + 2 * a->gate_stride),
                                v_load(g + 3 * a->gate_stride), v_load(h), a->options);
            store_state((real *)a->h_out + row * a->h_out_stride + block * FR_V, new_h);
        }
}

static void rnn_pointwise(const fr_pointwise_args *a)
{
    for (int64_t row = 0; row < a->rows; row++)
        for (int64_t block = 0; block < a->blocks; block++) {
            const real *g = (const real *)a->gates + row * a->row_stride + block * a->block_stride;
            store_state((real *)a->h_out + row * a->h_out_stride + block * FR_V, gate(v_load(g), a->options, 0, FASTRNN_TANH));
        }
}

static void clip(double bound, int64_t rows, int64_t count, void *values, int64_t stride)
{
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < count; i += FR_V) {
            real *at = (real *)values + row * stride + i;
            store_state(at, v_clip(v_load(at), bound));
        }
}

#endif
