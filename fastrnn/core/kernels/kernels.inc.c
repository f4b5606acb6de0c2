/* The source of every kernel table, one for each type of weights. kernels_<isa>.c defines FR_ISA, and includes target.h and simd_<isa>.h before it. */
#include "probe.h"
#ifndef FR_FLOAT64
#include "recurrent.h"
#endif

#define FR_TABLE(isa, weights) FR_TABLE_OF(isa, weights)
#define FR_TABLE_OF(isa, weights) fr_kernels_##isa##weights
#define FR_TEXT(isa) FR_TEXT_OF(isa)
#define FR_TEXT_OF(isa) #isa

static void clip(double bound, int64_t rows, int64_t count, void *values, int64_t stride)
{
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < count; i += FR_V) {
            real *at = (real *)values + row * stride + i;
            store_state(at, v_clip(v_load(at), bound));
        }
}

static void activate(fastrnn_activation f, int64_t count, const void *x, void *y)
{
    _Alignas(FR_ALIGNMENT) real lanes[FR_V];
    for (int64_t i = 0; i < count; i += FR_V) {
        size_t bytes = (size_t)fr_min(FR_V, count - i) * sizeof(real);
        memset(lanes, 0, sizeof lanes);
        memcpy(lanes, (const real *)x + i, bytes);
        v_store(lanes, v_activate(f, v_load(lanes)));
        memcpy((real *)y + i, lanes, bytes);
    }
}

/* The members that all types of weights share. */
#define FR_COMMON_MEMBERS                                                                                             \
    .isa = FR_TEXT(FR_ISA), .vector_length = FR_V, .real_size = sizeof(real), .lstm_pointwise = lstm_pointwise,       \
    .gru_reset = gru_reset, .gru_pointwise = gru_pointwise, .rnn_pointwise = rnn_pointwise, .clip = clip,             \
    .activate = activate, .probe_fma = probe_fma, .probe_read = probe_read, .probe_gate = probe_gate

#ifdef FR_FLOAT64
const fr_kernels FR_TABLE(FR_ISA, ) = {FR_COMMON_MEMBERS, .weight_type = FR_WEIGHT_FLOAT64};
#else
#define FR_KERNELS(name, TYPE)                                                                                        \
    {                                                                                                                 \
        FR_COMMON_MEMBERS, .weight_type = TYPE, .product = product_##name, .lstm_step = lstm_step_##name,             \
        .gru_step = gru_step_##name, .rnn_step = rnn_step_##name                                                      \
    }
const fr_kernels FR_TABLE(FR_ISA, ) = FR_KERNELS(float32, FR_WEIGHT_FLOAT32);
const fr_kernels FR_TABLE(FR_ISA, _float16) = FR_KERNELS(float16, FR_WEIGHT_FLOAT16);
#endif
