/* Every instruction set for which this architecture has kernel tables, the fastest first: X(name), or Y(name) if only int8
 * weights gain by it. Options of a build: FASTRNN_ONLY_ISA, the name of the one that it has, and FASTRNN_ONLY_FLOAT32, without
 * the tables of smaller types of weights. */
#ifndef FR_ISA_LIST_H
#define FR_ISA_LIST_H

#if defined(FASTRNN_ONLY_ISA)
#define FR_FOR_ONE_ISA(X, isa) X(isa) /* an argument of X is expanded here, so that X may join it with other names */
#define FR_FOR_EACH_ISA(X, Y) FR_FOR_ONE_ISA(X, FASTRNN_ONLY_ISA)
#elif defined(FASTRNN_ONLY_FLOAT32) && defined(__x86_64__)
#define FR_FOR_EACH_ISA(X, Y) X(avx512) X(avx2) X(scalar)
#elif defined(FASTRNN_ONLY_FLOAT32) && defined(__aarch64__)
#define FR_FOR_EACH_ISA(X, Y) X(neon) X(scalar)
#elif defined(__x86_64__)
#define FR_FOR_EACH_ISA(X, Y) Y(avx512_vnni) X(avx512) Y(avx2_vnni) X(avx2) X(scalar)
#elif defined(__aarch64__)
#define FR_FOR_EACH_ISA(X, Y) Y(neon_dotprod) X(neon) X(scalar)
#else
#define FR_FOR_EACH_ISA(X, Y) X(scalar)
#endif

#endif
