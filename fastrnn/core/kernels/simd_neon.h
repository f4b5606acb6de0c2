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
