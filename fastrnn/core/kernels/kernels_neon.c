#if !defined(__ARM_NEON)
#error "compile this file with the flags that ISA_FLAGS in setup.py names for it"
#endif
#define FR_ISA neon
#include "simd_neon.h"

#include "kernels.inc.c"
