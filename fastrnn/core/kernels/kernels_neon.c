#include "target.h"

#if defined(__aarch64__) /* whose base architecture has NEON */

#include <arm_neon.h>

#define FR_ISA neon
#include "simd_neon.h"

#include "kernels.inc.c"

#endif
