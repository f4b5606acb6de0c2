#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512BW__) || !defined(__AVX512VL__)
#error "compile this file with the flags that ISA_FLAGS in setup.py names for it"
#endif
#define FR_ISA avx512
#include "simd_avx512.h"

#include "kernels.inc.c"
