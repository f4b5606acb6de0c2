/* Layers x directions, prepared. */
#ifndef FR_LAYER_H
#define FR_LAYER_H

#include "cell.h"

/* The largest sizes of any cell. The cells run one after the other in the same memory. */
typedef struct fr_widths {
    int64_t h, c, x, pre, scratch;
    bool hidden;
} fr_widths;

struct fastrnn_layer {
    fr_backend backend;
    fastrnn_blas blas; /* what backend.blas points to */
    int64_t num_layers, num_directions, num_cells;
    bool reverse; /* the only direction is the reverse one */
    int64_t input_size, h_size; /* I and P */
    fr_widths widest;
    int64_t block_rows; /* target number of inputs (one row at one step) of a block of steps */
    int64_t most_steps; /* a sum of lengths or number of rows up to this has a workspace whose size fits in size_t */
    double macs; /* multiply-adds of one step of one row in every cell */
    size_t nbytes;
    uint64_t fingerprint;
    void *weights;
    fr_cell cells[]; /* l0, l0 reverse, l1, ... */
};

/* With these bounds no product of two sizes overflows int64_t. FR_MOST_ROWS also bounds numbers of steps. */
#define FR_MOST_UNITS ((int64_t)1 << 22)
#define FR_MOST_ROWS ((int64_t)1 << 38)
#define FR_MOST_LAYERS ((int64_t)1 << 16)

/* The sides of a matrix, up to four gates or two directions' outputs, also fit the 32-bit integers of a BLAS. */
_Static_assert(4 * FR_MOST_UNITS + FR_ALIGNMENT <= INT32_MAX, "sizes that BLAS can be given");

#endif
