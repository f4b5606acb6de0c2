/* AVX2, FMA and F16C: 8 floats a vector, 16 registers. */
typedef float real;
typedef __m256 vf;

#define FR_V 8
#define FR_TILE_VECTORS 12

/* clang 19 and 22 move loads forward, or keep other values in registers, and then spill accumulators. */
#if defined(__clang__)
#define FR_BEFORE_NEXT_LOAD(v) __asm__ volatile("" : "+x"(v) : : "memory")
#define FR_IN_MEMORY(array) __asm__("" : "+m"(array))
#endif

static inline vf v_load(const real *p) { return _mm256_load_ps(p); }
static inline vf v_load_float16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)p)); }
static inline void v_store(real *p, vf a) { _mm256_store_ps(p, a); }
static inline vf v_set1(double a) { return _mm256_set1_ps((float)a); }
static inline vf v_broadcast(const real *p) { return _mm256_broadcast_ss(p); }
static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf v_neg(vf a) { return _mm256_xor_ps(_mm256_set1_ps(-0.0F), a); }
static inline vf v_neg_abs(vf a) { return _mm256_or_ps(_mm256_set1_ps(-0.0F), a); }
static inline vf v_pow2(vf shifted)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
}
static inline vf v_select_less(vf x, vf bound, vf a, vf b)
{
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, bound, _CMP_LT_OQ));
}
/* The NaN is the one with all bits set, which is the result of the comparison. */
static inline vf v_one_nan(vf a) { return _mm256_or_ps(a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)); }
