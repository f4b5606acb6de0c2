/* The source of every kernel table, one for each type of weights. kernels_<isa>.c defines FR_ISA, and includes target.h and
 * simd_<isa>.h before it; FR_INT8_ONLY leaves out the other types. */
#include "pointwise.h"
#ifndef FR_INT8_ONLY
#include "ops.h"
#include "probe.h"
#endif
#ifndef FR_FLOAT64
#include "gates.h"
#include "weights.h"
#ifndef FASTRNN_ONLY_FLOAT32
#include "int8.h"
#endif
#ifndef FR_INT8_ONLY
#include "recurrent.h"
#endif
#endif

#define FR_TABLE(isa, weights) FR_TABLE_OF(isa, weights)
#define FR_TABLE_OF(isa, weights) fr_kernels_##isa##weights
#define FR_TEXT(isa) FR_TEXT_OF(isa)
#define FR_TEXT_OF(isa) #isa

/* The members that all types of weights share. */
#ifdef FR_INT8_ONLY
#define FR_OP_MEMBERS
#else
#define FR_OP_MEMBERS                                                                                                 \
    , .activate = activate, .scale = scale, .layer_norm = layer_norm, .softmax = softmax, .probe_fma = probe_fma,     \
        .probe_read = probe_read, .probe_gate = probe_gate
#endif
#define FR_COMMON_MEMBERS                                                                                             \
    .isa = FR_TEXT(FR_ISA), .vector_length = FR_V, .real_size = sizeof(real), .lstm_pointwise = lstm_pointwise,       \
    .gru_reset = gru_reset, .gru_pointwise = gru_pointwise, .rnn_pointwise = rnn_pointwise, .clip = clip FR_OP_MEMBERS

#ifdef FR_FLOAT64
const fr_kernels FR_TABLE(FR_ISA, ) = {FR_COMMON_MEMBERS, .weight_type = FR_WEIGHT_FLOAT64};
#else
#define FR_KERNELS(name, TYPE, ...)                                                                                        \
    {                                                                                                                 \
        FR_COMMON_MEMBERS, .weight_type = TYPE, .product = product_##name, .lstm_step = lstm_step_##name,             \
        .gru_step = gru_step_##name, .rnn_step = rnn_step_##name, __VA_ARGS__                                                    \
    }
#ifndef FASTRNN_ONLY_FLOAT32
const fr_kernels FR_TABLE(FR_ISA, _int8) = FR_KERNELS(int8, FR_WEIGHT_INT8, .weight_offset = FR_WEIGHT_OFFSET);
#endif
#ifndef FR_INT8_ONLY
const fr_kernels FR_TABLE(FR_ISA, ) = FR_KERNELS(float32, FR_WEIGHT_FLOAT32, );
#ifndef FASTRNN_ONLY_FLOAT32
const fr_kernels FR_TABLE(FR_ISA, _float16) = FR_KERNELS(float16, FR_WEIGHT_FLOAT16, );
#endif
#endif
#endif
