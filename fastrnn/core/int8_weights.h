/* Rows of weights as int8: a weight is about scale * q, q an integer from -127 to 127, with one scale for a row of k weights.
 *
 * A scale has 17 significant bits, so that scale * q is exact in float: the row of these products has the same scale and the
 * same q. It is never subnormal, as kernels take subnormal numbers for zero; in a row of zeros q is 0. */
#ifndef FR_INT8_WEIGHTS_H
#define FR_INT8_WEIGHTS_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/kernels.h"

#define FR_INT8_MOST_COLUMNS (INT32_MAX / (FR_INT8_MOST * FR_INT8_MOST)) /* of which the sum of products fits 32 bits */

/* row: finite. */
static inline float fr_int8_scale(const float *row, int64_t k)
{
    float largest = 0;
    for (int64_t i = 0; i < k; i++)
        largest = fmaxf(largest, fabsf(row[i]));
    float scale = largest / FR_INT8_MOST;
    uint32_t bits;
    memcpy(&bits, &scale, sizeof bits);
    bits = (bits + 0x3F + (bits >> 7 & 1)) & ~UINT32_C(0x7F); /* to nearest, ties to even; 24 - 7 bits are left */
    memcpy(&scale, &bits, sizeof scale);
    return scale > FLT_MIN ? scale : FLT_MIN;
}

static inline int8_t fr_int8_of(float weight, float scale) { return (int8_t)lrintf(weight / scale); }

#endif
