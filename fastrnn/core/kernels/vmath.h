/* exp, tanh, sigmoid and the other activations, in terms of the vector operations.
 *
 * With y = n ln2 + r, |r| <= ln2/2: exp(y) = 2^n (1 + p), p = r + r^2 q(r). q is a polynomial near
 * (e^r - 1 - r)/r^2, fitted at Chebyshev nodes; tests/test_coefficients.py fits it again.
 * A NaN input gives NaN: it is the second operand of every min and max, which they return if one is NaN.
 */
#ifndef FR_VMATH_H
#define FR_VMATH_H

#define FR_INLINE static inline __attribute__((always_inline))

/* For a loop whose count is a constant, at most 32, after inlining. It is unrolled completely, so that arrays of vectors stay
 * in registers. clang 14 ignores gcc's pragma. */
#if defined(__clang__)
#define FR_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FR_UNROLL _Pragma("GCC unroll 32")
#endif

#ifdef FR_FLOAT64

FR_INLINE vf v_exp_nonpositive(vf y) { return exp(y); }
FR_INLINE vf v_expm1_nonpositive(vf y) { return expm1(y); }
FR_INLINE vf v_tanh(vf x) { return tanh(x); }
FR_INLINE vf v_sigmoid(vf x) { return 1 / (1 + exp(-x)); }
FR_INLINE vf v_sigmoid_under(vf x) { return 1 + exp(-x); }
FR_INLINE vf v_tanh_over(vf y, vf under) { return tanh(y) / under; }
FR_INLINE vf v_sigmoid_tanh(vf x, vf y) { return v_sigmoid(x) * tanh(y); }
FR_INLINE vf v_log1p_unit(vf e) { return log1p(e); }
FR_INLINE vf v_next_above(double a) { return nextafter(a, INFINITY); }

#else

FR_INLINE void v_exp_parts(vf y, vf *scale, vf *p)
{
    const vf rounder = v_set1(12583039.0); /* 1.5 * 2^23 + 127: adding it rounds to an integer and adds the exponent's bias */
    vf shifted = v_fma(y, v_set1(1.44269504088896341), rounder);
    vf n = v_sub(shifted, rounder);
    vf r = v_fma(n, v_set1(-0.693145751953125), y); /* ln2 in two parts; the first has 15 bits, so that n times it is exact */
    r = v_fma(n, v_set1(-1.4286068202862268e-06), r);
    /* Powers of r rather than Horner's scheme: a step with few units waits for the latency of a chain. */
    static const double q[] = {0.5, 0.166665733, 0.0416664556, 0.00836377684, 0.0013934545};
    const vf r2 = v_mul(r, r);
    const vf low = v_fma(v_set1(q[1]), r, v_set1(q[0]));
    const vf high = v_fma(v_set1(q[4]), r2, v_fma(v_set1(q[3]), r, v_set1(q[2])));
    *p = v_fma(r2, v_fma(high, r2, low), r);
    *scale = v_pow2(shifted);
}

/* exp(y) for y <= 0; 0 where the result would be subnormal. */
FR_INLINE vf v_exp_nonpositive(vf y)
{
    vf scale, p;
    v_exp_parts(v_max(v_set1(-88.0), y), &scale, &p);
    return v_fma(scale, p, scale);
}

FR_INLINE vf v_expm1(vf y, vf low, vf high)
{
    vf scale, p;
    v_exp_parts(v_min(high, v_max(low, y)), &scale, &p);
    return v_fma(scale, p, v_sub(scale, v_set1(1.0)));
}

FR_INLINE vf v_expm1_nonpositive(vf y) { return v_expm1(y, v_set1(-88.0), v_set1(0.0)); }

/* tanh(x) = (e^2x - 1) / (e^2x + 1). Beyond +-10 it is +-1 in float. */
FR_INLINE void v_tanh_parts(vf x, vf *over, vf *under)
{
    *over = v_expm1(v_add(x, x), v_set1(-20.0), v_set1(20.0));
    *under = v_add(*over, v_set1(2.0));
}

/* 1 / sigmoid(x) = 1 + e^-x. The scale of e^89 is infinite, and 1 + p is positive. */
FR_INLINE vf v_sigmoid_under(vf x)
{
    const vf one = v_set1(1.0);
    vf scale, p;
    v_exp_parts(v_min(v_set1(89.0), v_max(v_set1(-88.0), v_neg(x))), &scale, &p);
    return v_fma(scale, v_add(one, p), one);
}

FR_INLINE vf v_tanh(vf x)
{
    vf over, under;
    v_tanh_parts(x, &over, &under);
    return v_div(over, under);
}

FR_INLINE vf v_sigmoid(vf x) { return v_div(v_set1(1.0), v_sigmoid_under(x)); }

/* tanh(y) / u, with one division. */
FR_INLINE vf v_tanh_over(vf y, vf u)
{
    vf over, under;
    v_tanh_parts(y, &over, &under);
    return v_div(over, v_mul(u, under));
}

/* sigmoid(x) tanh(y) with one division, which is the slowest of these instructions; 0 where sigmoid(x) is below 1e-30. */
FR_INLINE vf v_sigmoid_tanh(vf x, vf y) { return v_tanh_over(y, v_sigmoid_under(x)); }

/* log(1 + e) = 2 artanh(s), s = e / (2 + e), for e in [0, 1]. */
FR_INLINE vf v_log1p_unit(vf e)
{
    vf s = v_div(e, v_add(e, v_set1(2.0)));
    vf z = v_mul(s, s);
    static const double q[] = {0.333333343, 0.200000048, 0.142851457, 0.111325398, 0.0873044655, 0.104006834};
    vf sum = v_set1(q[5]);
    for (int i = 4; i >= 0; i--)
        sum = v_fma(sum, z, v_set1(q[i]));
    vf twice = v_add(s, s);
    return v_fma(v_mul(twice, z), sum, twice);
}

FR_INLINE vf v_next_above(double a) { return v_set1(nextafterf((float)a, INFINITY)); }

#endif

FR_INLINE vf v_relu(vf x) { return v_max(v_set1(0.0), x); }

FR_INLINE vf v_clip(vf x, double bound) { return v_min(v_set1(bound), v_max(v_set1(-bound), x)); }

FR_INLINE vf v_activate(fastrnn_activation f, vf x)
{
    const vf zero = v_set1(0.0), one = v_set1(1.0), alpha = v_set1(f.alpha), beta = v_set1(f.beta);
    switch (f.name) {
    case FASTRNN_SIGMOID: return v_sigmoid(x);
    case FASTRNN_TANH: return v_tanh(x);
    case FASTRNN_RELU: return v_relu(x);
    case FASTRNN_HARD_SIGMOID: return v_min(one, v_max(zero, v_fma(alpha, x, beta)));
    case FASTRNN_LEAKY_RELU: return v_select_less(x, zero, v_mul(alpha, x), x);
    case FASTRNN_ELU: return v_select_less(x, zero, v_mul(alpha, v_expm1_nonpositive(x)), x);
    case FASTRNN_SOFTSIGN: return v_div(x, v_sub(one, v_neg_abs(x)));
    case FASTRNN_SOFTPLUS: return v_add(v_relu(x), v_log1p_unit(v_exp_nonpositive(v_neg_abs(x))));
    case FASTRNN_AFFINE: return v_fma(alpha, x, beta);
    case FASTRNN_SCALED_TANH: return v_mul(alpha, v_tanh(v_mul(beta, x)));
    case FASTRNN_THRESHOLDED_RELU: return v_select_less(x, v_next_above(f.alpha), zero, x);
    case FASTRNN_LINEAR:
    case FASTRNN_DEFAULT: break;
    }
    return x; /* there is no default case, so that -Wswitch reports an activation that has none */
}

#endif
