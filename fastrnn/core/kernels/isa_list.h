/* Every instruction set for which this architecture has kernel tables, the fastest first: X(name), or Y(name) if only int8 weights gain
 * by it. */
#ifndef FR_ISA_LIST_H
#define FR_ISA_LIST_H

#if defined(__x86_64__)
#define FR_FOR_EACH_ISA(X, Y) Y(avx512_vnni) X(avx512) Y(avx2_vnni) X(avx2) X(scalar)
#elif defined(__aarch64__)
#define FR_FOR_EACH_ISA(X, Y) Y(neon_dotprod) X(neon) X(scalar)
#else
#define FR_FOR_EACH_ISA(X, Y) X(scalar)
#endif

#endif
