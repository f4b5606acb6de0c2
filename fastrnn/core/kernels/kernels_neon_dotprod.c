#include "target.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define FR_ISA neon_dotprod
#define FR_INT8_ONLY
#define FR_DOTPROD
FR_TARGET_BEGIN("arch=armv8.2-a+dotprod")
#include "simd_neon.h"

#include "kernels.inc.c"
FR_TARGET_END

#endif
