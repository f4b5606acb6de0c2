/* An activation function of each element. */
#include "op.h"

static bool is_valid(const fastrnn_op *given)
{
    return fr_in_range(given->activation.name, FASTRNN_DEFAULT + 1, FASTRNN_NUM_ACTIVATIONS);
}

static void hash(const fastrnn_op *given, uint64_t *hash)
{
    fr_hash_add(hash, (uint64_t)given->activation.name);
    fr_hash_add_double(hash, given->activation.alpha);
    fr_hash_add_double(hash, given->activation.beta);
}

static void map(const fr_op *op, const fr_backend *backend, const fr_op_block *from, const fr_op_block *to, fr_poll *poll)
{
    (void)poll;
    const int64_t count = fr_round_up(op->input_size, backend->kernels->vector_length);
    for (int64_t row = 0; row < to->rows; row++)
        backend->kernels->activate(op->options.activation, count, fr_block_row(from, row), fr_block_row(to, row));
}

const fr_op_type fr_op_activation = {.is_valid = is_valid, .hash = hash, .map = map, .in_place = true,
                                     .element_work = FR_EXP_WORK};
