/* Layer normalization (Ba et al. 2016) over a vector's elements. */
#include "op.h"

static bool is_valid(const fastrnn_op *given) { return given->eps >= 0; }

static void hash(const fastrnn_op *given, uint64_t *hash)
{
    fr_hash_add_double(hash, given->eps);
    fr_factors_hash(given, hash);
}

static void map(const fr_op *op, const fr_backend *backend, const fr_op_block *from, const fr_op_block *to, fr_poll *poll)
{
    (void)poll;
    fr_op_args args = fr_op_args_of(op, from, to);
    args.eps = op->options.eps;
    backend->kernels->layer_norm(&args);
}

const fr_op_type fr_op_layer_norm = {.is_valid = is_valid, .add_bytes = fr_factors_add_bytes, .place = fr_factors_place,
                                     .hash = hash, .map = map, .in_place = true, .element_work = 4 * FR_COPY_WORK};
