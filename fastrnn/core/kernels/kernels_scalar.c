#include "target.h"

#define FR_ISA scalar
#include "simd_scalar.h"

#include "kernels.inc.c"
