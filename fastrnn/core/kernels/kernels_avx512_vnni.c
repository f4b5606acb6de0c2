#include "target.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define FR_ISA avx512_vnni
#define FR_INT8_ONLY
#define FR_VNNI
FR_TARGET_BEGIN("avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,fma")
#include "simd_avx512.h"

#include "kernels.inc.c"
FR_TARGET_END

#endif
