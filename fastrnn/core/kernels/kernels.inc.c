/* The source of every kernel table. kernels_<isa>.c defines FR_ISA, and includes target.h and simd_<isa>.h before it. */
#include "probe.h"

#define FR_PASTE(a, b) a##b
#define FR_TABLE(isa) FR_PASTE(fr_kernels_, isa)
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
    .probe_fma = probe_fma,
    .probe_read = probe_read,
    .probe_gate = probe_gate,
};
