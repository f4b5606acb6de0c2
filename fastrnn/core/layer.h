/* A prepared layer: all its cells, one for each level and direction. */
#ifndef FR_LAYER_H
#define FR_LAYER_H

#include "cell.h"

/* Largest widths of the cells, which run one after the other in the same memory. */
typedef struct fr_widths {
    int64_t h, c, x, pre;
    int64_t scratch, scratch_row; /* besides the rows, and for each row of a product */
    bool hidden;
} fr_widths;

struct fastrnn_layer {
    fr_backend backend;
    fastrnn_blas blas; /* what backend.blas points to */
    int64_t num_layers, num_directions, num_cells;
    bool reverse; /* the only direction runs backwards */
    int64_t input_size, h_size; /* I and P */
    fr_widths widest;
    int64_t block_rows; /* of inputs that are multiplied, or gathered, ahead of the recurrence */
    int64_t most_steps; /* largest sum of lengths, and number of rows, for which the size of a workspace fits size_t */
    double macs; /* multiply-adds of one step of one row in every cell */
    size_t nbytes;
    uint64_t fingerprint;
    void *weights;
    fr_cell cells[]; /* l0, l0 reverse, l1, ... */
};

/* Copies a caller's config. False if it is not valid. */
bool fr_config_read(fastrnn_config *config, const fastrnn_config *given);

/* With these limits every product of two sizes fits int64_t. */
#define FR_MOST_UNITS ((int64_t)1 << 22)
#define FR_MOST_ROWS ((int64_t)1 << 38)
#define FR_MOST_LAYERS ((int64_t)1 << 16)

/* The sides of a matrix, up to four gates or two directions' outputs, also fit the 32-bit integers of a BLAS. */
_Static_assert(4 * FR_MOST_UNITS + FR_ALIGNMENT <= INT32_MAX, "sizes that BLAS can be given");

#endif
