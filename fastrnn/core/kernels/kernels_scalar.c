#define FR_ISA scalar
#include <stdint.h>

#include "simd_scalar.h"

#include "kernels.inc.c"
