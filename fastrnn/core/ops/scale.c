/* weight * x + bias, element by element: a batch normalization that could not be folded into another op. */
#include "op.h"

static bool is_valid(const fastrnn_op *given) { return given->weight != NULL; }

static void map(const fr_op *op, const fr_backend *backend, const fr_op_block *from, const fr_op_block *to, fr_poll *poll)
{
    (void)poll;
    const fr_op_args args = fr_op_args_of(op, from, to);
    backend->kernels->scale(&args);
}

const fr_op_type fr_op_scale = {.is_valid = is_valid, .add_bytes = fr_factors_add_bytes, .place = fr_factors_place,
                                .hash = fr_factors_hash, .map = map, .in_place = true, .element_work = FR_COPY_WORK};
