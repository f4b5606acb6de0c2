/* How kernels read weights. Nothing else in the kernels depends on a weight's element type: another one is another
 * `weight` and w_load. */
#ifndef FR_WEIGHTS_H
#define FR_WEIGHTS_H

#include "kernels.h"
#include "vmath.h"

typedef real weight;

#ifdef FR_FLOAT64
#define FR_WEIGHT_TYPE FR_WEIGHT_FLOAT64
#else
#define FR_WEIGHT_TYPE FR_WEIGHT_FLOAT32
#endif

FR_INLINE const weight *w_panel(const fr_weights *weights, int64_t block)
{
    return (const weight *)((const char *)weights->panels + block * weights->panel_stride);
}

/* Elements from a panel to the next. */
FR_INLINE int64_t w_stride(const fr_weights *weights)
{
    return (int64_t)((size_t)weights->panel_stride / sizeof(weight));
}

/* V adjacent weights, as reals. */
FR_INLINE vf w_load(const weight *at) { return v_load(at); }

#endif
