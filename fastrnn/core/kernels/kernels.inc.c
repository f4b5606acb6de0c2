/* The source of every kernel table. kernels_<isa>.c defines FR_ISA, and includes target.h and simd_<isa>.h before it. */
#include "ops.h"
#include "probe.h"

#define FR_PASTE(a, b) a##b
#define FR_TABLE(isa) FR_PASTE(fr_kernels_, isa)
#define FR_TEXT(isa) FR_TEXT_OF(isa)
#define FR_TEXT_OF(isa) #isa

const fr_kernels FR_TABLE(FR_ISA) = {
    .isa = FR_TEXT(FR_ISA),
    .vector_length = FR_V,
    .real_size = sizeof(real),
    .weight_type = FR_WEIGHT_TYPE,
    .product = product,
    .lstm_step = lstm_step,
    .gru_step = gru_step,
    .rnn_step = rnn_step,
    .lstm_pointwise = lstm_pointwise,
    .gru_reset = gru_reset,
    .gru_pointwise = gru_pointwise,
    .rnn_pointwise = rnn_pointwise,
    .clip = clip,
    .activate = activate,
    .scale = scale,
    .layer_norm = layer_norm,
    .softmax = softmax,
    .probe_fma = probe_fma,
    .probe_read = probe_read,
    .probe_gate = probe_gate,
};
