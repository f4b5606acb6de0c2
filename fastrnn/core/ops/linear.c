/* weight x + bias. A convolution's map is the same with its windows as x. */
#include <math.h>

#include "op.h"

/* The outputs of a large matrix are computed in pieces, between which the caller can interrupt. */
#define PIECE_MACS 2e7
#define PIECE_BLOCKS 8 /* a multiple of every tile's */

bool fr_product_add_bytes(size_t *total, const fr_backend *backend, int64_t columns, int64_t outputs)
{
    return fr_matrix_add_bytes(total, backend, 1, columns, fr_ceil_div(outputs, backend->kernels->vector_length)) &&
           fr_add_vector_bytes(total, backend, outputs);
}

void fr_product_place(fr_op *op, fr_arena *arena, const fr_backend *backend, const void *weight, const void *bias)
{
    op->matrix = fr_matrix_place(arena, backend, weight, 0, 1, op->output_size, op->read_size);
    op->bias = fr_place_vector(arena, backend, bias, op->output_size, 0);
}

void fr_product_map(const fr_op *op, const fr_backend *backend, const fr_op_block *from, const fr_op_block *to, fr_poll *poll)
{
    const fr_matrix *matrix = &op->matrix;
    const int64_t V = backend->kernels->vector_length;
    const fr_gate_layout layout = {.row = to->stride, .block = V};
    const double block_macs = (double)to->rows * (double)matrix->macs / (double)matrix->blocks;
    const int64_t piece = fr_round_up(fr_max(1, (int64_t)(PIECE_MACS / block_macs)), PIECE_BLOCKS);
    for (int64_t block = 0; block < matrix->blocks; block += piece) {
        const fr_range blocks = {block, fr_min(block + piece, matrix->blocks)};
        fr_matrix_product(backend, matrix, blocks, to->rows, from->values, from->stride, op->bias, to->values, layout, NULL);
        /* Every NaN gets the same bits: those of a product may depend on the shape of the tile. */
        backend->kernels->clip(INFINITY, to->rows, (blocks.end - block) * V, to->values + block * V, to->stride);
        if (piece < matrix->blocks && fr_poll_stops(poll, block_macs * (double)(blocks.end - block)))
            return;
    }
}

static bool is_valid(const fastrnn_op *given) { return given->weight != NULL; }

static bool add_bytes(size_t *total, size_t *scratch, const fr_backend *backend, const fastrnn_op *given)
{
    (void)scratch;
    return fr_product_add_bytes(total, backend, given->input_size, given->output_size);
}

static void place(fr_op *op, fr_arena *arena, const fr_backend *backend, const fastrnn_op *given, void *scratch)
{
    (void)scratch;
    op->read_size = op->input_size;
    fr_product_place(op, arena, backend, given->weight, given->bias);
}

static void hash(const fastrnn_op *given, uint64_t *hash)
{
    fr_hash_vector(given->weight, given->output_size * given->input_size, hash);
    fr_hash_vector(given->bias, given->output_size, hash);
}

const fr_op_type fr_op_linear = {.is_valid = is_valid, .add_bytes = add_bytes, .place = place, .hash = hash,
                                 .map = fr_product_map, .element_work = FR_COPY_WORK};
