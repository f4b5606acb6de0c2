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
