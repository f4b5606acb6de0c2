/* The gates and new states of standard cells, from the results of their products, which are saved in memory. */
#ifndef FR_GATES_H
#define FR_GATES_H

#include "pointwise.h"

#define FR_SAVED(GATES) ((GATES) == 3 ? 4 : (GATES)) /* vectors of a row of a block: its gates; of a GRU r, z, n_hidden, n_input */

/* Rows of one block; saved [rows][FR_SAVED(gates)]. Each operation of an LSTM's cell depends on the one before; two
 * passes over many cells give a processor independent ones. The bits are those of lstm_cell. */
static __attribute__((noinline)) void lstm_gates(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved)
{
    real *c = (real *)a->c + row0 * a->c_stride + block * FR_V;
    for (int64_t row = 0; row < rows; row++, c += a->c_stride) {
        vf *g = &saved[row * FR_SAVED(4)];
        const vf new_c = v_fma(v_sigmoid(g[1]), v_load(c), v_sigmoid_tanh(g[0], g[2]));
        store_state(c, new_c);
        g[0] = new_c;
        g[1] = v_sigmoid_under(g[3]);
    }
    real *h = (real *)a->h_out + row0 * a->h_out_stride + block * FR_V;
    for (int64_t row = 0; row < rows; row++, h += a->h_out_stride)
        store_state(h, v_tanh_over(saved[row * FR_SAVED(4)], saved[row * FR_SAVED(4) + 1]));
}

static __attribute__((noinline)) void gru_gates(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved)
{
    const real *h_old = (const real *)a->h_old + row0 * a->h_in_stride + block * FR_V;
    real *h = (real *)a->h_out + row0 * a->h_out_stride + block * FR_V;
    for (int64_t row = 0; row < rows; row++, h += a->h_out_stride, h_old += a->h_in_stride) {
        const vf *g = &saved[row * FR_SAVED(3)];
        store_state(h, gru_cell(v_sigmoid(g[0]), v_sigmoid(g[1]), g[3], g[2], v_load(h_old), NULL));
    }
}

static __attribute__((noinline)) void rnn_gates(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved)
{
    real *h = (real *)a->h_out + row0 * a->h_out_stride + block * FR_V;
    for (int64_t row = 0; row < rows; row++, h += a->h_out_stride) {
        const vf g = saved[row * FR_SAVED(1)];
        store_state(h, a->activation == FASTRNN_RELU ? v_relu(g) : v_tanh(g));
    }
}

FR_INLINE void finish(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved, const fastrnn_kind kind)
{
    switch (kind) {
    case FASTRNN_LSTM: lstm_gates(a, row0, block, rows, saved); break;
    case FASTRNN_GRU: gru_gates(a, row0, block, rows, saved); break;
    case FASTRNN_RNN: rnn_gates(a, row0, block, rows, saved); break;
    }
}

#endif
