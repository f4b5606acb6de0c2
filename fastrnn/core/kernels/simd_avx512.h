/* AVX-512 F, DQ, BW, VL: 16 floats a vector, 32 registers. */
typedef float real;
typedef __m512 vf;

#define FR_V 16
#define FR_TILE_VECTORS 24

static inline vf v_load(const real *p) { return _mm512_load_ps(p); }
static inline vf v_load_float16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)p)); }
static inline void v_store(real *p, vf a) { _mm512_store_ps(p, a); }
static inline vf v_set1(double a) { return _mm512_set1_ps((float)a); }
static inline vf v_broadcast(const real *p) { return _mm512_set1_ps(*p); }
static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_neg(vf a) { return _mm512_xor_ps(_mm512_set1_ps(-0.0F), a); }
static inline vf v_neg_abs(vf a) { return _mm512_or_ps(_mm512_set1_ps(-0.0F), a); }
static inline vf v_pow2(vf shifted)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
}
static inline vf v_select_less(vf x, vf bound, vf a, vf b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, bound, _CMP_LT_OQ), b, a);
}
static inline vf v_one_nan(vf a)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a, _mm512_set1_ps(NAN));
}

typedef __m512i vi;

#define FR_IN_ORDER(v) __asm__("" : "+v"(v)) /* without it, gcc 12 copies sums from register to register */
#define FR_INT8_TILE_VECTORS 24
#define FR_INT8_CHAINS 8

static inline vf v_load_unaligned(const real *p) { return _mm512_loadu_ps(p); }
static inline vf v_to_real(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi v_round(vf a) { return _mm512_cvtps_epi32(a); }
static inline vi v_magnitude(vf a) { return _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(INT32_MAX)); }
static inline vi vi_set1(int32_t a) { return _mm512_set1_epi32(a); }
static inline vi vi_load(const void *p) { return _mm512_load_si512(p); }
static inline vi vi_broadcast(const void *p)
{
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm512_set1_epi32(quad);
}
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
static inline int32_t vi_largest(vi a) { return _mm512_reduce_max_epi32(a); }
static inline int32_t vi_sum(vi a) { return _mm512_reduce_add_epi32(a); }
static inline void vi_store_int8(int8_t *to, vi a) { _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(a)); }
#if defined(FR_VNNI)
#define FR_INT8_GROUPS 4
#define FR_WEIGHT_OFFSET 128
static inline vi vi_dot4(vi sum, vi weights, vi in) { return _mm512_dpbusd_epi32(sum, weights, in); }
#else
#define FR_INT8_GROUPS 1
#define FR_WEIGHT_OFFSET 0
/* As AVX2's, which has an instruction for the signs. */
static inline vi vi_dot4(vi sum, vi weights, vi in)
{
    const vi signs = _mm512_mask_sub_epi8(weights, _mm512_movepi8_mask(in), _mm512_setzero_si512(), weights);
    const vi pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(in), signs);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
#endif
