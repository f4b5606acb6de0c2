/* How kernels read weights. `type` is a constant wherever these functions are inlined. */
#ifndef FR_WEIGHTS_H
#define FR_WEIGHTS_H

#include "kernels.h"
#include "vmath.h"

FR_INLINE const char *w_panel(const fr_weights *weights, int64_t block)
{
    return (const char *)weights->panels + block * weights->panel_stride;
}

/* Vector n of V adjacent weights, as reals. widened: NULL, or where they are written to at the same n. */
FR_INLINE vf w_load(const fr_weight_type type, const char *at, const int n, char *widened)
{
    if (type == FR_WEIGHT_FLOAT32)
        return v_load((const real *)at + n * FR_V);
    const vf weights = v_load_float16((const uint16_t *)at + n * FR_V);
    if (widened)
        v_store((real *)widened + n * FR_V, weights);
    return weights;
}

#endif
