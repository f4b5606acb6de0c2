/* How kernels read weights. `type` is a constant wherever these functions are inlined. */
#ifndef FR_WEIGHTS_H
#define FR_WEIGHTS_H

#include "kernels.h"
#include "vmath.h"

FR_INLINE const char *w_panel(const fr_weights *weights, int64_t block)
{
    return (const char *)weights->panels + block * weights->panel_stride;
}

/* V adjacent weights, as reals. */
FR_INLINE vf w_load(const fr_weight_type type, const char *at)
{
    return type == FR_WEIGHT_FLOAT16 ? v_load_float16((const uint16_t *)at) : v_load((const real *)at);
}

#endif
