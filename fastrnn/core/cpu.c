#include "cpu.h"

#include "os/os.h"

bool fr_cpu_has_scalar(void) { return true; }

#if defined(__x86_64__)

/* For clang 14, whose builtin does not know these features; their registers are those of AVX2. */
static bool has_f16c(void)
{
    unsigned eax = 1, ebx, ecx = 0, edx;
    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return ecx >> 29 & 1;
}

static bool has_avxvnni(void)
{
    unsigned eax = 0, ebx, ecx = 0, edx;
    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (eax < 7)
        return false;
    eax = 7, ecx = 0;
    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (eax < 1)
        return false;
    eax = 7, ecx = 1;
    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    return eax >> 4 & 1;
}

/* These features are those that FR_TARGET_BEGIN enables in kernels_<isa>.c.
 * The builtin reads cpuid and, for the vector registers, whether the operating system saves them (xgetbv). */
bool fr_cpu_has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool fr_cpu_has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

bool fr_cpu_has_avx2_vnni(void) { return fr_cpu_has_avx2() && has_avxvnni(); }

bool fr_cpu_has_avx512_vnni(void) { return fr_cpu_has_avx512() && __builtin_cpu_supports("avx512vnni"); }

bool fr_cpu_has_neon(void) { return false; }
bool fr_cpu_has_neon_dotprod(void) { return false; }

#else

bool fr_cpu_has_avx2(void) { return false; }
bool fr_cpu_has_avx2_vnni(void) { return false; }
bool fr_cpu_has_avx512(void) { return false; }
bool fr_cpu_has_avx512_vnni(void) { return false; }

#if defined(__aarch64__)

bool fr_cpu_has_neon(void) { return true; } /* part of the base architecture */

#if defined(__ARM_FEATURE_DOTPROD) /* every processor that this is compiled for has it */
bool fr_cpu_has_neon_dotprod(void) { return true; }
#else
bool fr_cpu_has_neon_dotprod(void) { return fr_processor_has_dotprod(); }
#endif

#else

bool fr_cpu_has_neon(void) { return false; }
bool fr_cpu_has_neon_dotprod(void) { return false; }

#endif
#endif
