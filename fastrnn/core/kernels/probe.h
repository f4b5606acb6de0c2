/* The highest rates that these vector operations reach, with which measured times are compared.
 *
 * There are as many independent chains of operations as a tile has accumulators, enough to hide the latency of one.
 */
#ifndef FR_PROBE_H
#define FR_PROBE_H

#include "pointwise.h"

static double lanes_sum(const vf *vectors, int count)
{
    _Alignas(FR_ALIGNMENT) real lanes[FR_V];
    double sum = 0;
    for (int i = 0; i < count; i++) {
        v_store(lanes, vectors[i]);
        for (int lane = 0; lane < FR_V; lane++)
            sum += (double)lanes[lane];
    }
    return sum;
}

/* Every lane computes v = v/2 + 1 `rounds` times, which converges to 2. Returns the sum of all lanes. */
static double probe_fma(int64_t rounds, int64_t *multiply_adds)
{
    const vf half = v_set1(0.5), one = v_set1(1);
    vf chains[FR_TILE_VECTORS];
    FR_UNROLL
    for (int i = 0; i < FR_TILE_VECTORS; i++)
        chains[i] = v_set1(i); /* the compiler would merge equal chains */
    for (int64_t round = 0; round < rounds; round++)
        FR_UNROLL
        for (int i = 0; i < FR_TILE_VECTORS; i++)
            chains[i] = v_fma(chains[i], half, one);
    *multiply_adds = rounds * FR_TILE_VECTORS * FR_V;
    return lanes_sum(chains, FR_TILE_VECTORS);
}

#define FR_PROBE_SUMS 8 /* FR_PROBE_BLOCK is a multiple of this times V */

/* Reads `count` values `times` times, from first to last, and returns the sum of all that was read. */
static double probe_read(int64_t times, int64_t count, const void *values)
{
    vf sums[FR_PROBE_SUMS];
    FR_UNROLL
    for (int i = 0; i < FR_PROBE_SUMS; i++)
        sums[i] = v_set1(0);
    for (; times > 0; times--)
        for (const real *at = values, *end = at + count; at < end; at += FR_PROBE_SUMS * FR_V)
            FR_UNROLL
            for (int i = 0; i < FR_PROBE_SUMS; i++)
                sums[i] = v_add(sums[i], v_load(at + i * FR_V));
    return lanes_sum(sums, FR_PROBE_SUMS);
}

/* `which` is a constant. Each vector's function is one short chain that depends on no other, so that the processor
 * works on many at once: a whole cell, which is one long chain, stays below this rate. */
FR_INLINE double gates_sum(fr_gate which, int64_t times, int64_t count, const void *values)
{
    vf sum = v_set1(0);
    for (; times > 0; times--)
        for (const real *at = values, *end = at + count; at < end; at += FR_V) {
            const vf x = v_load(at);
            const vf y = which == FR_GATE_SIGMOID ? v_sigmoid(x) : which == FR_GATE_TANH ? v_tanh(x) : v_sigmoid_tanh(x, x);
            sum = v_add(sum, y);
        }
    return lanes_sum(&sum, 1);
}

/* Computes a gate's function of `count` values `times` times, and returns the sum of all results. */
static double probe_gate(fr_gate which, int64_t times, int64_t count, const void *values)
{
    switch (which) {
    case FR_GATE_SIGMOID: return gates_sum(FR_GATE_SIGMOID, times, count, values);
    case FR_GATE_TANH: return gates_sum(FR_GATE_TANH, times, count, values);
    default: return gates_sum(FR_GATE_SIGMOID_TANH, times, count, values);
    }
}

#endif
