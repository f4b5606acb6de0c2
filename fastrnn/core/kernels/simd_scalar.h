/* Vectors of one element: what the other instruction sets are tested against, and the table for double. */
#ifdef FR_FLOAT64
typedef double real;
#else
typedef float real;
#endif
typedef real vf;

#define FR_V 1
#define FR_TILE_VECTORS 12

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
