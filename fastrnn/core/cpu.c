#include "cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

bool fr_cpu_has_scalar(void) { return true; }

#if defined(__x86_64__)

/* These features are those that FR_TARGET_BEGIN enables in kernels_<isa>.c.
 * The builtin reads cpuid and, for the vector registers, whether the operating system saves them (xgetbv). */
bool fr_cpu_has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool fr_cpu_has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

bool fr_cpu_has_neon(void) { return false; }

enum { MXCSR_DAZ = 1 << 6, MXCSR_FTZ = 1 << 15 };

unsigned long long fr_fp_flush(void)
{
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | MXCSR_DAZ | MXCSR_FTZ);
    return mode;
}

void fr_fp_restore(unsigned long long mode) { _mm_setcsr((unsigned)mode); }

#else

bool fr_cpu_has_avx2(void) { return false; }
bool fr_cpu_has_avx512(void) { return false; }

#if defined(__aarch64__)

bool fr_cpu_has_neon(void) { return true; } /* part of the base architecture */

unsigned long long fr_fp_flush(void)
{
    unsigned long long mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | 1ULL << 24));
    return mode;
}

void fr_fp_restore(unsigned long long mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }

#else

bool fr_cpu_has_neon(void) { return false; }
unsigned long long fr_fp_flush(void) { return 0; }
void fr_fp_restore(unsigned long long mode) { (void)mode; }

#endif
#endif
