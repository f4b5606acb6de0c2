/* Functions between FR_TARGET_BEGIN("features") and FR_TARGET_END are compiled for an instruction set that the compiler's
 * flags do not enable. The features are those that fr_cpu_has_<isa> in cpu.c checks.
 *
 * Headers that are not part of the kernels are included here, before such a region, so that their functions are compiled for
 * the base architecture. They can still be inlined into the kernels.
 */
#ifndef FR_TARGET_H
#define FR_TARGET_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "../float16.h"
#include "kernels.h"

#define FR_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define FR_TARGET_BEGIN(features)                                                                                      \
    FR_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define FR_TARGET_END FR_PRAGMA(clang attribute pop)
#else
#define FR_TARGET_BEGIN(features) FR_PRAGMA(GCC push_options) FR_PRAGMA(GCC target(features))
#define FR_TARGET_END FR_PRAGMA(GCC pop_options)
#endif

#endif
