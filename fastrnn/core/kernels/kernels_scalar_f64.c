#define FR_ISA scalar_f64
#define FR_FLOAT64
#include <stdint.h>

#include "simd_scalar.h"

#include "kernels.inc.c"
