/* IEEE 754 half precision (binary16): a sign bit, 5 exponent bits (bias 15) and 10 fraction bits. binary32 has 8 (bias 127) and 23.
 * The conversions give the same results in a floating-point mode that flushes subnormal numbers to zero. */
#ifndef FR_FLOAT16_H
#define FR_FLOAT16_H

#include <string.h>

#include "common.h"

#define FR_FLOAT16_INFINITY 0x7C00 /* the bits */

/* Exact. Every NaN becomes a quiet one. */
static inline float fr_float16_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, magnitude = (uint32_t)(half & 0x7FFF) << 13;
    uint32_t bits = magnitude + ((UINT32_C(127) - 15) << 23);
    float value;
    if (magnitude < UINT32_C(1) << 23) { /* zero or subnormal, in units of 2^-24: the fraction of 2^-14 + value, less 2^-14 */
        const uint32_t least_normal = (UINT32_C(127) - 14) << 23;
        float sum, least;
        bits = least_normal + magnitude;
        memcpy(&sum, &bits, sizeof sum);
        memcpy(&least, &least_normal, sizeof least);
        value = sum - least;
        memcpy(&bits, &value, sizeof bits);
    } else if (magnitude >= UINT32_C(31) << 23) {
        bits = UINT32_C(0xFF) << 23 | (magnitude & 0x7FFFFF);
        bits |= magnitude & 0x7FFFFF ? UINT32_C(1) << 22 : 0;
    }
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Rounds to nearest, ties to even. Beyond the range, from 65520 on, the result is infinity; a NaN stays one, quiet. */
static inline uint16_t fr_float16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF, exponent = magnitude >> 23;
    uint32_t fraction = (magnitude & 0x7FFFFF) | UINT32_C(1) << 23, half, below, lost = 13;
    if (exponent == 0xFF)
        return (uint16_t)(sign | FR_FLOAT16_INFINITY | (magnitude & 0x7FFFFF ? 0x200 | (magnitude >> 13 & 0x3FF) : 0));
    if (exponent < 127 - 14 - 11) /* less than half of 2^-24 */
        return (uint16_t)sign;
    if (exponent < 127 - 14) { /* subnormal */
        lost += 127 - 14 - exponent;
        half = fraction >> lost;
    } else {
        half = (exponent - (127 - 15)) << 10 | (fraction >> 13 & 0x3FF);
    }
    below = (fraction << (32 - lost)) >> 1; /* the bits that are lost; their half is 2^30 */
    half += below > UINT32_C(1) << 30 || (below == UINT32_C(1) << 30 && half & 1);
    return (uint16_t)(sign | (half < FR_FLOAT16_INFINITY ? half : FR_FLOAT16_INFINITY));
}

/* Whether a number is not rounded to infinity. */
static inline bool fr_float16_fits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (fr_float16_of(value) & 0x7FFF) != FR_FLOAT16_INFINITY || (bits & 0x7FFFFFFF) == UINT32_C(0xFF) << 23;
}

#endif
