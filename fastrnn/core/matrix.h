/* A weight matrix in the layout of the backend that multiplies with it: panels for the kernels, or rows of
 * [gate][padded unit] for BLAS. */
#ifndef FR_MATRIX_H
#define FR_MATRIX_H

#include "hash.h"
#include "kernels/kernels.h"

/* The functions that compute a layer. */
typedef struct fr_backend {
    const fr_kernels *kernels;
    const fastrnn_blas *blas; /* NULL: the kernels' own products */
} fr_backend;

/* The order in which BLAS sums depends on the number of rows of the call. Therefore every call has exactly this many, padded
 * with zeros, and the bits of a row do not depend on the other rows. BLAS may use 32-bit integers: rows with a larger
 * stride are copied. */
#define FR_BLAS_ROWS 8

typedef struct fr_matrix {
    int gates;
    int64_t k, blocks;
    int64_t macs;       /* multiply-adds of a row's product, those of padding included */
    fr_weights weights; /* from block 0. For BLAS: panels has rows [gates][blocks*V][k], and panel_stride is 0 */
} fr_matrix;

/* Where the gates of a block are in a row of gates. */
typedef struct fr_gate_layout {
    int64_t row, block, gate; /* strides in elements */
} fr_gate_layout;
fr_gate_layout fr_gates_of(const fr_backend *backend, int64_t blocks, int columns);
int64_t fr_gates_element(const fr_backend *backend, fr_gate_layout layout, int gate, int64_t unit);

/* Whether the type of weights can represent all given weights (rows, k), and the sums of k products. */
bool fr_weights_fit(const fr_backend *backend, const void *weight, int64_t rows, int64_t k);

bool fr_matrix_add_bytes(size_t *total, const fr_backend *backend, int gates, int64_t k, int64_t blocks);

/* Lays out gates [first_gate, first_gate + gates) of weight (all gates * units, k) in the arena. */
fr_matrix fr_matrix_place(fr_arena *arena, const fr_backend *backend, const void *weight, int first_gate, int gates,
                          int64_t units, int64_t k);

/* Adds gates [first_gate, first_gate + gates) of a vector (all gates * units) to `out`, which has a gate layout. */
void fr_gates_add(const fr_backend *backend, fr_gate_layout layout, const void *vector, int first_gate, int gates,
                  int64_t units, void *out);

/* The inverses, which write rows [first_gate * units, ...) of weight (all gates * units, k) or of a vector. */
void fr_matrix_unpack(const fr_backend *backend, const fr_matrix *matrix, int first_gate, int64_t units, void *weight);
void fr_matrix_get(const fr_backend *backend, const fr_matrix *matrix, int gate, int64_t unit, int64_t i, void *weight); /* one */
void fr_gates_unpack(const fr_backend *backend, fr_gate_layout layout, const void *in, int first_gate, int gates,
                     int64_t units, void *vector);

/* Adds the weights, as they were rounded, to *hash. */
void fr_matrix_hash(const fr_backend *backend, const fr_matrix *matrix, int64_t units, uint64_t *hash);

/* The weights from this block on. Inline, because every step of a stream calls it. */
static inline fr_weights fr_matrix_weights(const fr_backend *backend, const fr_matrix *matrix, int64_t block)
{
    fr_weights weights = matrix->weights;
    weights.panels = (const char *)weights.panels + block * weights.panel_stride;
    if (weights.scales)
        weights.scales = fr_at(weights.scales, block * matrix->gates * backend->kernels->vector_length,
                               backend->kernels->real_size);
    return weights;
}

/* The number of elements of scratch memory that a product with this matrix needs. */
int64_t fr_matrix_scratch(const fr_backend *backend, const fr_matrix *matrix);

/* out (+)= bias + in . matrix for these blocks of units, which must be all blocks with BLAS. With bias NULL the product is
 * added to out. The pointers are those of block 0; layouts as in fr_product_args. */
void fr_matrix_product(const fr_backend *backend, const fr_matrix *matrix, fr_range blocks, int64_t rows, const void *in,
                       int64_t in_stride, const void *bias, void *out, fr_gate_layout layout, void *scratch);

#endif
