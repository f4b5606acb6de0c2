/* The gates and new states of standard cells, from the results of their products, which are saved in memory. */
#ifndef FR_GATES_H
#define FR_GATES_H

#include "pointwise.h"

#define FR_SAVED(GATES) ((GATES) == 3 ? 4 : (GATES)) /* vectors of a row of a block: its gates; of a GRU r, z, n_hidden, n_input */

/* Rows of one block; saved [rows][FR_SAVED(gates)]. Each operation of an LSTM's cell depends on the one before; two
 * passes over many cells give a processor independent ones. The bits are those of lstm_cell. */
static __attribute__((noinline)) void lstm_gates(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved)
{
    void *const *c_in = a->c_in + row0, *const *c_out = a->c_out + row0, *const *h_out = a->h_out + row0;
    const int64_t unit = a->unit + block * FR_V;
    for (int64_t row = 0; row < rows; row++) {
        vf *g = &saved[row * FR_SAVED(4)];
        const vf new_c = v_fma(v_sigmoid(g[1]), v_load((const real *)c_in[row] + unit), v_sigmoid_tanh(g[0], g[2]));
        store_state((real *)c_out[row] + unit, new_c);
        g[0] = new_c;
        g[1] = v_sigmoid_under(g[3]);
    }
    for (int64_t row = 0; row < rows; row++)
        store_state((real *)h_out[row] + unit, v_tanh_over(saved[row * FR_SAVED(4)], saved[row * FR_SAVED(4) + 1]));
}

static __attribute__((noinline)) void gru_gates(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved)
{
    void *const *h_in = a->h_in + row0, *const *h_out = a->h_out + row0;
    const int64_t unit = a->unit + block * FR_V;
    for (int64_t row = 0; row < rows; row++) {
        const vf *g = &saved[row * FR_SAVED(3)];
        const vf old_h = v_load((const real *)h_in[row] + unit);
        store_state((real *)h_out[row] + unit, gru_cell(v_sigmoid(g[0]), v_sigmoid(g[1]), g[3], g[2], old_h, NULL));
    }
}

static __attribute__((noinline)) void rnn_gates(const fr_step_args *a, int64_t row0, int64_t block, int64_t rows, vf *saved)
{
    void *const *h_out = a->h_out + row0;
    const int64_t unit = a->unit + block * FR_V;
    for (int64_t row = 0; row < rows; row++) {
        const vf g = saved[row * FR_SAVED(1)];
        store_state((real *)h_out[row] + unit, a->activation == FASTRNN_RELU ? v_relu(g) : v_tanh(g));
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
