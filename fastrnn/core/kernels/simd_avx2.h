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

typedef __m256i vi;

#define FR_IN_ORDER(v) __asm__ volatile("" : "+x"(v)) /* with 16 registers, compilers that move loads forward spill sums */
#define FR_INT8_TILE_VECTORS 12
#define FR_INT8_CHAINS 6

static inline vf v_load_unaligned(const real *p) { return _mm256_loadu_ps(p); }
static inline vf v_to_real(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vi v_round(vf a) { return _mm256_cvtps_epi32(a); }
static inline vi v_magnitude(vf a) { return _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(INT32_MAX)); }
static inline vi vi_set1(int32_t a) { return _mm256_set1_epi32(a); }
static inline vi vi_load(const void *p) { return _mm256_load_si256(p); }
static inline vi vi_broadcast(const void *p)
{
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm256_set1_epi32(quad);
}
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
static inline int32_t vi_largest(vi a)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xB1)));
}
static inline int32_t vi_sum(vi a)
{
    __m128i m = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_add_epi32(m, _mm_shuffle_epi32(m, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(m, _mm_shuffle_epi32(m, 0xB1)));
}
static inline void vi_store_int8(int8_t *to, vi a)
{
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((__m128i *)(void *)to, _mm_packs_epi16(words, words));
}
#if defined(FR_VNNI)
#define FR_INT8_GROUPS 4
#define FR_WEIGHT_OFFSET 128
static inline vi vi_dot4(vi sum, vi weights, vi in) { return _mm256_dpbusd_avx_epi32(sum, weights, in); }
#else
#define FR_INT8_GROUPS 1
#define FR_WEIGHT_OFFSET 0
/* The instruction multiplies unsigned bytes with signed ones: |in| with the weight that has the sign of the product. The sum of
 * two such products is at most 2 * 127 * 127, which does not saturate. */
static inline vi vi_dot4(vi sum, vi weights, vi in)
{
    const vi pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(in), _mm256_sign_epi8(weights, in));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif
