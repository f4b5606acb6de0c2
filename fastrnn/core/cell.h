/* One layer in one direction: its prepared weights, the product of its inputs, and one step for a batch. */
#ifndef FR_CELL_H
#define FR_CELL_H

#include "hash.h"
#include "matrix.h"
#include "parallel/team.h"

typedef struct fr_cell {
    fastrnn_kind kind;
    int64_t input_size, hidden_size, h_size; /* I, H, P */
    int64_t h_stride, c_stride; /* padded P and H: row strides of the state */
    int columns;                /* gates in a row of pre-activations; 4 for a GRU, whose candidate gate has two columns */
    bool standard;              /* a fused step kernel computes it */
    bool projected;
    fr_gate_layout gates;
    fr_matrix input;     /* W, every gate */
    fr_matrix recurrent; /* R, of a GRU that is not standard only the gates r and z */
    fr_matrix candidate; /* the gate n of R of such a GRU, else gates == 0 */
    fr_matrix projection;
    void *bias;      /* one row of gates */
    void *zero_bias; /* one row of P */
    void *peephole;  /* [3][c_stride], rows i f o, or NULL */
    fastrnn_cell_options options; /* without FASTRNN_DEFAULT */
} fr_cell;

/* Adds the bytes of the prepared weights to *total; false if that overflows. */
bool fr_cell_add_bytes(size_t *total, const fr_backend *backend, const fastrnn_config *config, int64_t input_size,
                       const fastrnn_cell *source);
/* Whether the layer's type of weights can represent the cell's. */
bool fr_cell_fits(const fr_backend *backend, const fastrnn_config *config, int64_t input_size, const fastrnn_cell *source);
fr_cell fr_cell_place(fr_arena *arena, const fr_backend *backend, const fastrnn_config *config, int64_t input_size,
                      const fastrnn_cell *source);

/* Writes what the cell was prepared from, with the sum of biases where the cell adds them. Does not set struct_size. */
void fr_cell_unpack(const fr_cell *cell, const fr_backend *backend, const fastrnn_cell_arrays *arrays, fastrnn_cell *source);

/* Adds the cell's options and weights to *hash. source: what the cell was prepared from; its pointers must be valid. */
void fr_cell_hash(const fr_cell *cell, const fr_backend *backend, const fastrnn_cell *source, uint64_t *hash);

/* Multiply-adds of one step of one row. */
int64_t fr_cell_macs(const fr_cell *cell);

/* The number of elements of scratch memory that each worker needs for products of so many rows. */
int64_t fr_cell_scratch(const fr_cell *cell, const fr_backend *backend, int64_t rows);

/* Whether steps need a buffer of hidden vectors (rows, c_stride), shared by the team. */
bool fr_cell_needs_hidden(const fr_cell *cell);

/* The elements of an output vector that this member of the team computes. */
fr_range fr_cell_outputs(const fr_cell *cell, const fr_backend *backend, const fr_team *team);

/* pre (rows, gates) = bias + x . W, for the units of this member of the team. */
void fr_cell_project(const fr_cell *cell, const fr_backend *backend, const fr_team *team, int64_t rows, const void *x,
                     int64_t x_stride, void *pre, void *scratch);

/* Whether the vectors of the rows may be anywhere in memory. Those of other cells are one after the other, at h_stride and
 * c_stride, and c_out is c_in, as their products and options read and write matrices. */
static inline bool fr_cell_takes_addresses(const fr_cell *cell) { return cell->standard && !cell->projected; }

#define FR_STATE_ADDRESSES 6 /* of each row, that a run of steps keeps: fr_state in sequence.h */

/* Computes h_out (P) and c_out (H) from h_in and c_in for each row. The input is pre, which is overwritten, or x, if pre is NULL
 * and the cell is standard. Each member of the team computes its own units, and returns without waiting for the others. */
typedef struct fr_step {
    int64_t rows;
    const void *x;
    int64_t x_stride;
    void *const *h_in, *const *c_in, *const *h_out, *const *c_out; /* (rows) addresses */
    void *const *hidden; /* (rows) addresses of vectors at c_stride, shared by the team, if fr_cell_needs_hidden */
    void *pre;           /* each worker has its own pre and scratch */
    void *scratch;
} fr_step;
void fr_cell_step(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_step *step);

#endif
