/* One layer in one direction: its prepared weights, the product of inputs with W, and a single step of a batch. */
#ifndef FR_CELL_H
#define FR_CELL_H

#include "hash.h"
#include "matrix.h"
#include "parallel/team.h"

typedef struct fr_cell {
    fastrnn_kind kind;
    int64_t input_size, hidden_size, h_size; /* I, H, P */
    int64_t h_stride, c_stride;                   /* padded P and H: row strides of the state */
    int columns;                                    /* gate columns of pre-activations: G; GRU: 4, two for the candidate */
    bool standard;                                /* a fused kernel computes its steps */
    bool projected;
    fr_gate_layout gates;
    fr_matrix input;     /* W of all gates */
    fr_matrix recurrent; /* R of all gates, without the candidate in a GRU that is not standard */
    fr_matrix candidate; /* R of the candidate gate, if `recurrent` lacks it */
    fr_matrix projection;
    void *bias;      /* one row of gates */
    void *zero_bias; /* one row of P */
    void *peephole;  /* [3][c_stride], rows i f o, or NULL */
    fastrnn_cell_options options; /* without FASTRNN_DEFAULT */
} fr_cell;

/* Adds the bytes of the prepared weights to *total. Returns false if that overflows. */
bool fr_cell_add_bytes(size_t *total, const fr_backend *backend, const fastrnn_config *config, int64_t input_size,
                       const fastrnn_cell *source);
fr_cell fr_cell_place(fr_arena *arena, const fr_backend *backend, const fastrnn_config *config, int64_t input_size,
                      const fastrnn_cell *source);

/* The inverse of fr_cell_place; see fastrnn_layer_unpack. It does not set source->struct_size. */
void fr_cell_unpack(const fr_cell *cell, const fr_backend *backend, const fastrnn_cell_arrays *arrays, fastrnn_cell *source);

/* Adds the cell's options and weights to *hash. source: what the cell was prepared from; its pointers must be valid. */
void fr_cell_hash(const fr_cell *cell, const fr_backend *backend, const fastrnn_cell *source, uint64_t *hash);

/* Multiply-adds of one step of one row. */
int64_t fr_cell_macs(const fr_cell *cell);

/* The number of elements of scratch memory that each worker needs. */
int64_t fr_cell_scratch(const fr_cell *cell, const fr_backend *backend);

/* Whether steps need a buffer of hidden vectors, (rows, c_stride), that the team shares. */
bool fr_cell_needs_hidden(const fr_cell *cell);

/* The elements of an output vector that this member of the team computes. */
fr_range fr_cell_outputs(const fr_cell *cell, const fr_backend *backend, const fr_team *team);

/* Computes pre (rows, gate columns) = bias + x . W for the units of this member of the team. */
void fr_cell_project(const fr_cell *cell, const fr_backend *backend, const fr_team *team, int64_t rows, const void *x,
                     int64_t x_stride, void *pre, void *scratch);

/* Computes h_out (rows, P) and the new c (rows, H) from h_in and c. The input is pre, which is overwritten; if pre is NULL,
 * which only a standard cell allows, the input is x. Each member of the team computes its own units, and returns without
 * waiting for the others. */
typedef struct fr_step {
    int64_t rows;
    const void *x;
    int64_t x_stride;
    const void *h_in;
    void *h_out;
    void *c;
    void *hidden;  /* shared, if fr_cell_needs_hidden */
    void *pre;     /* not shared by the team; nor is scratch */
    void *scratch;
} fr_step;
void fr_cell_step(const fr_cell *cell, const fr_backend *backend, const fr_team *team, const fr_step *step);

#endif
