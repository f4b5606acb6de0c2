#if !defined(__AVX2__) || !defined(__FMA__)
#error "compile this file with the flags that ISA_FLAGS in setup.py names for it"
#endif
#define FR_ISA avx2
#include "simd_avx2.h"

#include "kernels.inc.c"
