#include "target.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define FR_ISA avx512
FR_TARGET_BEGIN("avx512f,avx512dq,avx512bw,avx512vl,fma")
#include "simd_avx512.h"

#include "kernels.inc.c"
FR_TARGET_END

#endif
