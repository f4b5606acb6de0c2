/* A row of the weight for each id. The executor has checked the ids. */
#include <string.h>

#include "op.h"

static bool is_valid(const fastrnn_op *given) { return given->weight != NULL; }

static bool add_bytes(size_t *total, size_t *scratch, const fr_backend *backend, const fastrnn_op *given)
{
    (void)scratch, (void)backend;
    return fr_add_bytes(total, (size_t)given->input_size, (size_t)given->output_size * sizeof(float));
}

static void place(fr_op *op, fr_arena *arena, const fr_backend *backend, const fastrnn_op *given, void *scratch)
{
    (void)backend, (void)scratch;
    const size_t row = (size_t)op->output_size * sizeof(float);
    op->weight = memcpy(fr_take(arena, (size_t)op->input_size, row), given->weight, (size_t)op->input_size * row);
}

static void hash(const fastrnn_op *given, uint64_t *hash)
{
    fr_hash_vector(given->weight, given->input_size * given->output_size, hash);
}

static void read(const fr_op *op, const fr_source *source, const fr_segment *output, int64_t first, const fr_op_block *to,
                 fr_poll *poll)
{
    const double work = (double)(FR_VECTOR_WORK + op->output_size * FR_COPY_WORK);
    fr_position at = fr_segment_position(output, first);
    for (int64_t row = 0; row < to->rows && !fr_poll_stops(poll, work); row++, at = fr_segment_next(output, at)) {
        const void *id = fr_vector_at(&source->view, source->row_indices, at.row, at.step, sizeof(int64_t));
        fr_copy_vector(fr_block_row(to, row), op->weight + *(const int64_t *)id * op->output_size, op->output_size);
    }
}

const fr_op_type fr_op_embedding = {.is_valid = is_valid, .add_bytes = add_bytes, .place = place, .hash = hash, .read = read,
                                    .element_work = FR_COPY_WORK};
