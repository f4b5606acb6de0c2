/* Vectors of one element: what the other instruction sets are tested against, and the table for double. */
#ifdef FR_FLOAT64
typedef double real;
#else
typedef float real;
#endif
typedef real vf;

#define FR_V 1
#define FR_TILE_VECTORS 8 /* with more, the tables would be twice as large */

static inline vf v_load(const real *p) { return *p; }
static inline vf v_load_float16(const uint16_t *p) { return (real)fr_float16_to_float(*p); }
static inline void v_store(real *p, vf a) { *p = a; }
static inline vf v_set1(double a) { return (real)a; }
static inline vf v_broadcast(const real *p) { return *p; }
static inline vf v_add(vf a, vf b) { return a + b; }
static inline vf v_sub(vf a, vf b) { return a - b; }
static inline vf v_mul(vf a, vf b) { return a * b; }
static inline vf v_div(vf a, vf b) { return a / b; }
/* Rounds twice: fma() is a slow library function on processors without the instruction. */
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
/* If one operand is NaN, the second one is returned, as by the x86 instructions. */
static inline vf v_min(vf a, vf b) { return a < b ? a : b; }
static inline vf v_max(vf a, vf b) { return a > b ? a : b; }
static inline vf v_neg(vf a) { return -a; }
#ifdef FR_FLOAT64
static inline vf v_neg_abs(vf a) { return -fabs(a); }
#else
static inline vf v_neg_abs(vf a) { return -fabsf(a); }
/* 2^n from n + 127 + 1.5 * 2^23, the lowest bits of which are the exponent; n = -127 gives 0, n = 128 infinity. */
static inline vf v_pow2(vf shifted)
{
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits <<= 23;
    memcpy(&shifted, &bits, sizeof bits);
    return shifted;
}
#endif
/* x < bound ? a : b in each lane; b if x is NaN. */
static inline vf v_select_less(vf x, vf bound, vf a, vf b) { return x < bound ? a : b; }
/* a, every NaN replaced by the same one. */
static inline vf v_one_nan(vf a) { return a == a ? a : (real)NAN; }

#ifndef FR_FLOAT64
typedef int32_t vi; /* V integers, or V times four bytes */

#define FR_IN_ORDER(v) (void)0
#define FR_INT8_TILE_VECTORS 4
#define FR_INT8_CHAINS 4
#define FR_INT8_GROUPS 1
#define FR_WEIGHT_OFFSET 0

static inline vf v_load_unaligned(const real *p) { return *p; }
static inline vf v_to_real(vi a) { return (real)a; }
/* To nearest, ties to even, |a| < 2^22. */
static inline vi v_round(vf a)
{
    const float zero = 12582912.0F, shifted = a + zero; /* 1.5 * 2^23 */
    int32_t bits, zero_bits;
    memcpy(&bits, &shifted, sizeof bits);
    memcpy(&zero_bits, &zero, sizeof zero_bits);
    return bits - zero_bits;
}
/* |a|, as the integer that has the same bits; such integers have the order of the reals. */
static inline vi v_magnitude(vf a)
{
    int32_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits & INT32_MAX;
}
static inline vi vi_set1(int32_t a) { return a; }
static inline vi vi_load(const void *p)
{
    vi a;
    memcpy(&a, p, sizeof a);
    return a;
}
static inline vi vi_broadcast(const void *p) { return vi_load(p); } /* four bytes, of any alignment */
static inline vi vi_add(vi a, vi b) { return a + b; }
static inline vi vi_max(vi a, vi b) { return a > b ? a : b; }
static inline int32_t vi_largest(vi a) { return a; }
static inline int32_t vi_sum(vi a) { return a; }
static inline void vi_store_int8(int8_t *to, vi a) { *to = (int8_t)a; } /* from -128 to 127 */
/* sum + the products of each lane's four weights and four inputs. The weights are unsigned if FR_WEIGHT_OFFSET is 128. */
static inline vi vi_dot4(vi sum, vi weights, vi in)
{
    int8_t w[4], x[4];
    memcpy(w, &weights, 4);
    memcpy(x, &in, 4);
    return sum + w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3];
}
#endif
