/* Functions for tests and measurements, which call one instruction set's kernels without a layer. They are no part of
 * the public interface. isa: a name, or NULL as in fastrnn_layer_create. */
#ifndef FR_PROBE_FUNCTIONS_H
#define FR_PROBE_FUNCTIONS_H

#include "dispatch.h"

/* y[i] = activation(x[i]) */
fastrnn_status fr_activate(const char *isa, fastrnn_activation activation, int64_t count, const float *x, float *y);

/* Runs `rounds` rounds of independent multiply-adds in registers. Each lane computes v = v/2 + 1.
 * *multiply_adds: how many they were, counting every lane of every vector. *sum: the sum of all lanes at the end. */
fastrnn_status fr_probe_fma(const char *isa, int64_t rounds, int64_t *multiply_adds, double *sum);

/* Reads `count` values from first to last, `times` times; *sum is the sum of everything that was read.
 * values is aligned to 64 bytes, and count is a multiple of FR_PROBE_BLOCK. */
fastrnn_status fr_probe_read(const char *isa, int64_t times, int64_t count, const float *values, double *sum);

/* Computes a gate's function of each of `count` values, `times` times: sigmoid(x), tanh(x) or sigmoid(x)*tanh(x).
 * *sum is the sum of all results. values and count are as in fr_probe_read. */
fastrnn_status fr_probe_gate(const char *isa, fr_gate which, int64_t times, int64_t count, const float *values, double *sum);

#endif
