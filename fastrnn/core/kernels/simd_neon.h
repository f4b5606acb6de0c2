/* NEON on AArch64: 4 floats a vector, 32 registers. */
typedef float real;
typedef float32x4_t vf;

#define FR_V 4
#define FR_TILE_VECTORS 20 /* with 24, compilers spill some */

static inline vf v_load(const real *p) { return vld1q_f32(p); }
static inline vf v_load_float16(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline void v_store(real *p, vf a) { vst1q_f32(p, a); }
static inline vf v_set1(double a) { return vdupq_n_f32((float)a); }
static inline vf v_broadcast(const real *p) { return vld1q_dup_f32(p); }
static inline vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf v_min(vf a, vf b) { return vminq_f32(a, b); }
static inline vf v_max(vf a, vf b) { return vmaxq_f32(a, b); }
static inline vf v_neg(vf a) { return vnegq_f32(a); }
static inline vf v_neg_abs(vf a) { return vnegq_f32(vabsq_f32(a)); }
static inline vf v_pow2(vf shifted)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23));
}
static inline vf v_select_less(vf x, vf bound, vf a, vf b) { return vbslq_f32(vcltq_f32(x, bound), a, b); }
static inline vf v_one_nan(vf a) { return vbslq_f32(vceqq_f32(a, a), a, vdupq_n_f32(NAN)); }

typedef int32x4_t vi;

#define FR_IN_ORDER(v) (void)0
#define FR_INT8_TILE_VECTORS 20
#define FR_INT8_CHAINS 6

static inline vf v_load_unaligned(const real *p) { return vld1q_f32(p); }
static inline vf v_to_real(vi a) { return vcvtq_f32_s32(a); }
static inline vi v_round(vf a) { return vcvtnq_s32_f32(a); }
static inline vi v_magnitude(vf a) { return vreinterpretq_s32_f32(vabsq_f32(a)); }
static inline vi vi_set1(int32_t a) { return vdupq_n_s32(a); }
static inline vi vi_load(const void *p) { return vld1q_s32(p); }
static inline vi vi_broadcast(const void *p)
{
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return vdupq_n_s32(quad);
}
static inline vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
static inline vi vi_max(vi a, vi b) { return vmaxq_s32(a, b); }
static inline int32_t vi_largest(vi a) { return vmaxvq_s32(a); }
static inline int32_t vi_sum(vi a) { return vaddvq_s32(a); }
static inline void vi_store_int8(int8_t *to, vi a)
{
    const int16x4_t words = vmovn_s32(a);
    const int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
    memcpy(to, &bytes, sizeof bytes);
}
#define FR_WEIGHT_OFFSET 0
#if defined(FR_DOTPROD)
#define FR_INT8_GROUPS 4
static inline vi vi_dot4(vi sum, vi weights, vi in)
{
    return vdotq_s32(sum, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(in));
}
#else
#define FR_INT8_GROUPS 1
/* The sum of two products is at most 2 * 127 * 127, which fits 16 bits. */
static inline vi vi_dot4(vi sum, vi weights, vi in)
{
    const int8x16_t w = vreinterpretq_s8_s32(weights), x = vreinterpretq_s8_s32(in);
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
}
#endif
