#include "target.h"

#define FR_ISA scalar_f64
#define FR_FLOAT64
#include "simd_scalar.h"

#include "kernels.inc.c"
