/* Softmax over a vector's elements, and its logarithm. */
#include "op.h"

static void map(const fr_op *op, const fr_backend *backend, const fr_op_block *from, const fr_op_block *to, fr_poll *poll)
{
    (void)poll;
    fr_op_args args = fr_op_args_of(op, from, to);
    args.log = op->options.kind == FASTRNN_OP_LOG_SOFTMAX;
    backend->kernels->softmax(&args);
}

const fr_op_type fr_op_softmax = {.map = map, .in_place = true, .element_work = FR_EXP_WORK};
