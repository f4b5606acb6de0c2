#include "probe.h"

fastrnn_status fr_activate(const char *isa, fastrnn_activation activation, int64_t count, const float *x, float *y)
{
    const fr_kernels *kernels = fr_kernels_named(isa, FR_WEIGHT_FLOAT32);
    if (!kernels)
        return FASTRNN_ERROR_ISA;
    if (!fr_in_range(activation.name, FASTRNN_DEFAULT + 1, FASTRNN_NUM_ACTIVATIONS) || count < 0 || !x || !y)
        return FASTRNN_ERROR_ARGUMENT;
    kernels->activate(activation, count, x, y);
    return FASTRNN_OK;
}

#define MOST_ROUNDS ((int64_t)1 << 38) /* the number of multiply-adds fits int64_t */

fastrnn_status fr_probe_fma(const char *isa, int64_t rounds, int64_t *multiply_adds, double *sum)
{
    const fr_kernels *kernels = fr_kernels_named(isa, FR_WEIGHT_FLOAT32);
    if (!kernels)
        return FASTRNN_ERROR_ISA;
    if (!fr_in_range(rounds, 0, MOST_ROUNDS) || !multiply_adds || !sum)
        return FASTRNN_ERROR_ARGUMENT;
    *sum = kernels->probe_fma(rounds, multiply_adds);
    return FASTRNN_OK;
}

static bool is_readable(int64_t times, int64_t count, const float *values)
{
    return times >= 0 && count >= 0 && count % FR_PROBE_BLOCK == 0 && values && (uintptr_t)values % FR_ALIGNMENT == 0;
}

fastrnn_status fr_probe_read(const char *isa, int64_t times, int64_t count, const float *values, double *sum)
{
    const fr_kernels *kernels = fr_kernels_named(isa, FR_WEIGHT_FLOAT32);
    if (!kernels)
        return FASTRNN_ERROR_ISA;
    if (!is_readable(times, count, values) || !sum)
        return FASTRNN_ERROR_ARGUMENT;
    *sum = kernels->probe_read(times, count, values);
    return FASTRNN_OK;
}

fastrnn_status fr_probe_gate(const char *isa, fr_gate which, int64_t times, int64_t count, const float *values, double *sum)
{
    const fr_kernels *kernels = fr_kernels_named(isa, FR_WEIGHT_FLOAT32);
    if (!kernels)
        return FASTRNN_ERROR_ISA;
    if (!fr_in_range(which, 0, FR_NUM_GATES - 1) || !is_readable(times, count, values) || !sum)
        return FASTRNN_ERROR_ARGUMENT;
    *sum = kernels->probe_gate(which, times, count, values);
    return FASTRNN_OK;
}
