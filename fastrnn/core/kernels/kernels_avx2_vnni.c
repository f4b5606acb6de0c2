#include "target.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define FR_ISA avx2_vnni
#define FR_INT8_ONLY
#define FR_VNNI
FR_TARGET_BEGIN("avx2,fma,f16c,avxvnni")
#include "simd_avx2.h"

#include "kernels.inc.c"
FR_TARGET_END

#endif
