#include "target.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define FR_ISA neon_dotprod
#define FR_INT8_ONLY
/* clang before version 16 declares vdotq_s32 only if every file may use it. Without it, this table computes as that of neon. */
#if !defined(__clang__) || __clang_major__ >= 16
#define FR_DOTPROD
FR_TARGET_BEGIN("arch=armv8.2-a+dotprod")
#elif defined(__ARM_FEATURE_DOTPROD)
#define FR_DOTPROD
#endif
#include "simd_neon.h"

#include "kernels.inc.c"
#if !defined(__clang__) || __clang_major__ >= 16
FR_TARGET_END
#endif

#endif
