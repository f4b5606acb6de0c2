/* The interface of the kernels. There is one table, struct fr_kernels, for each instruction set and type of weights, and one for
 * double. All are compiled from kernels.inc.c. Kernels make no decisions and cannot fail. `real` is the table's element type of
 * inputs, states, gates, biases and outputs; struct fr_weights states the element type of a matrix.
 *
 * V is the table's vector length. Hidden units are padded to whole blocks of V with zero weights. A prepacked matrix of G
 * gates and K columns has the shape [block][k][gate][V], so that one block gives every gate of the same V units. Each output
 * element is one chain of multiply-adds in the order bias, x[0], x[1], ..., h[0], h[1], ..., for any number of rows.
 * Therefore the bits of a row do not depend on the other rows.
 *
 * Rows of hidden vectors have whole blocks (stride >= blocks*V) and are aligned to V elements. Inputs of which single
 * elements are broadcast (x) may have any stride and alignment. Buffers do not overlap unless a comment says so.
 * Every NaN in a new state (h_out, c) has the same bits.
 */
#ifndef FR_KERNELS_H
#define FR_KERNELS_H

#include "../common.h"
#include "isa_list.h"

typedef enum fr_weight_type { FR_WEIGHT_FLOAT32, FR_WEIGHT_FLOAT64, FR_WEIGHT_FLOAT16, FR_WEIGHT_INT8 } fr_weight_type;

/* Bytes of an element. */
static inline int64_t fr_weight_size(fr_weight_type type)
{
    switch (type) {
    case FR_WEIGHT_FLOAT32: return sizeof(float);
    case FR_WEIGHT_FLOAT64: return sizeof(double);
    case FR_WEIGHT_FLOAT16: return sizeof(uint16_t);
    case FR_WEIGHT_INT8: return sizeof(int8_t);
    }
    return 0;
}

#define FR_INT8_MOST 127 /* the largest magnitude of a weight and of a quantised input */

/* Rows of k reals as int8: their values, each row aligned, then for each row a scale and a sum. */
static inline int64_t fr_quantized_stride(int64_t k) { return fr_round_up(k, FR_ALIGNMENT); }
static inline int64_t fr_quantized_bytes(int64_t rows, int64_t k)
{
    return rows * fr_quantized_stride(k) + fr_round_up(rows * (int64_t)(sizeof(float) + sizeof(int32_t)), FR_ALIGNMENT);
}

/* A prepacked matrix, from the first of the blocks that a kernel computes. */
typedef struct fr_weights {
    fr_weight_type type;  /* of its elements */
    const void *panels;   /* [blocks][k][gates][V] */
    int64_t panel_stride; /* bytes from a block's [k][gates][V] to that of the next */
    const void *scales;   /* reals [blocks][gates][V] that belong to the elements, or NULL: the element is the weight */
} fr_weights;

/* out[row][block][gate] = bias + in . weights, or += in . weights if bias is NULL */
typedef struct fr_product_args {
    int64_t rows, k, blocks;
    int gates;
    const void *in; /* (rows, k) */
    int64_t in_stride;
    fr_weights weights;
    const void *bias; /* [blocks][gates][V]; NULL: the values in out */
    void *out;
    int64_t out_row_stride, out_block_stride, out_gate_stride; /* elements */
    void *scratch; /* int8: fr_int8_scratch(rows, 0, k), aligned */
} fr_product_args;

/* One step of a standard cell for `rows` rows: products, gates and new state in registers. */
typedef struct fr_step_args {
    int64_t rows, blocks;
    bool backwards; /* from the last block to the first; set every other step, which then begins with what is still cached */
    const void *x; /* (rows, input_size), or NULL: pre already contains bias + x . W */
    int64_t x_stride, input_size;
    const void *pre; /* [rows][blocks][G][V] */
    int64_t pre_stride;
    fr_weights weight_ih; /* input_size columns, G gates */
    fr_weights weight_hh; /* h_size columns, G gates */
    const void *bias;     /* [blocks][G][V]; GRU: [blocks][4][V], r z n_input n_hidden */
    /* (rows) addresses of vectors: the previous output (h_size), which is read whole; for an LSTM the previous c; the new h and c,
     * of which these blocks are written, from element `unit` on. c_out[r] may be c_in[r]. */
    void *const *h_in, *const *c_in, *const *h_out, *const *c_out;
    int64_t h_size, unit;
    fastrnn_activation_name activation; /* RNN: tanh or relu */
    void *scratch; /* int8: fr_int8_scratch(rows, x ? input_size : 0, h_size), aligned */
} fr_step_args;

#define FR_INT8_TILE_BLOCKS 8 /* at most */

/* Bytes of scratch memory for the products of rows of x and h: both quantised, and the gates of a tile's blocks, of which there is
 * one if there are more rows than a few. */
static inline int64_t fr_int8_scratch(int64_t rows, int64_t x_size, int64_t h_size)
{
    return fr_quantized_bytes(rows, x_size) + fr_quantized_bytes(rows, h_size) + (rows + FR_INT8_TILE_BLOCKS) * 4 * FR_ALIGNMENT;
}

/* The gate arithmetic of any cell with any option, after the products have filled `gates`. */
typedef struct fr_pointwise_args {
    int64_t rows, blocks;
    void *gates; /* [row][block][gate] with the three strides; a GRU has 4 gates: r z n_input n_hidden */
    int64_t row_stride, block_stride, gate_stride;
    const fastrnn_cell_options *options; /* without FASTRNN_DEFAULT */
    const void *peephole;                /* LSTM: these units' weights for i, f and o, at peephole_stride; or NULL */
    int64_t peephole_stride;
    const void *h_old; /* GRU: (rows, blocks*V) */
    int64_t h_old_stride;
    void *h_out; /* (rows, blocks*V) */
    int64_t h_out_stride;
    void *c; /* LSTM */
    int64_t c_stride;
} fr_pointwise_args;

/* Rows of y, each computed from the same row of x. Rows are aligned to V elements and have whole blocks. The padding of x may
 * hold anything; that of y is written. y may be x. */
typedef struct fr_op_args {
    int64_t rows, count; /* count: elements of a row */
    const void *x;
    int64_t x_stride;
    void *y;
    int64_t y_stride;
    const void *weight, *bias; /* scale, layer_norm: (count), aligned and padded as a row */
    double eps;                /* layer_norm */
    bool log;                  /* softmax: its logarithm */
} fr_op_args;

#define FR_PROBE_BLOCK 256 /* floats; probe_read and probe_gate read whole blocks */

/* The functions that the standard cells' gates consist of. */
typedef enum fr_gate { FR_GATE_SIGMOID, FR_GATE_TANH, FR_GATE_SIGMOID_TANH, FR_NUM_GATES } fr_gate;

typedef struct fr_kernels {
    const char *isa;
    int vector_length; /* V */
    size_t real_size; /* of inputs, states, gates, biases and outputs */
    fr_weight_type weight_type; /* of every fr_weights */
    int weight_offset; /* is added to every int8 weight: 128 for kernels that want unsigned bytes */
    /* The four that read weights. The table for double does not have them, as BLAS computes its products. */
    void (*product)(const fr_product_args *);
    void (*lstm_step)(const fr_step_args *); /* sigmoid sigmoid tanh sigmoid tanh, no options */
    void (*gru_step)(const fr_step_args *);  /* sigmoid sigmoid tanh, reset after the matmul */
    void (*rnn_step)(const fr_step_args *);
    void (*lstm_pointwise)(const fr_pointwise_args *);
    void (*gru_reset)(const fr_pointwise_args *);     /* gates r and z in place; with reset_before h_out = r * h_old */
    void (*gru_pointwise)(const fr_pointwise_args *); /* after gru_reset: the new h */
    void (*rnn_pointwise)(const fr_pointwise_args *);
    void (*clip)(double bound, int64_t rows, int64_t count, void *values, int64_t stride); /* of states; bound may be infinite */
    /* Of models, not of layers. Instruction sets that only int8 weights have do not have these. */
    void (*activate)(fastrnn_activation, int64_t count, const void *x, void *y); /* any alignment; y may be x */
    void (*scale)(const fr_op_args *);      /* weight * x + bias */
    void (*layer_norm)(const fr_op_args *); /* (x - mean) / sqrt(variance + eps) * weight + bias */
    void (*softmax)(const fr_op_args *);
    double (*probe_fma)(int64_t rounds, int64_t *multiply_adds);            /* returns the sum of all lanes, near 2 each */
    double (*probe_read)(int64_t times, int64_t count, const void *values); /* count is a multiple of FR_PROBE_BLOCK */
    double (*probe_gate)(fr_gate, int64_t times, int64_t count, const void *values); /* the same; see fr_probe_gate */
} fr_kernels;

#define FR_DECLARE_INT8(isa) extern const fr_kernels fr_kernels_##isa##_int8;
#define FR_DECLARE(isa) extern const fr_kernels fr_kernels_##isa, fr_kernels_##isa##_float16; FR_DECLARE_INT8(isa)
FR_FOR_EACH_ISA(FR_DECLARE, FR_DECLARE_INT8)
#undef FR_DECLARE
#undef FR_DECLARE_INT8
extern const fr_kernels fr_kernels_scalar_f64;

#endif
