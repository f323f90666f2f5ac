// The softmax over the regions, forward and backward.
#pragma once
#include "isa/rows.hpp"
#include "isa/vector.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

// exp for x <= 0 (or NaN, which comes out as NaN): 2^n times a polynomial on [-ln2/2, ln2/2]; zero below -87.3, where
// float32 has only subnormal results.
inline vf exp_below_zero(vf x) {
    const float shifter = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    vf t = x * 1.44269504088896341f + shifter;
    vf n = t - shifter;
    vf r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.f;
    vu exponent = (reinterpret_cast<vu>(t) << 23) + (127u << 23);  // nonsense where the result is zero or NaN anyway
    vf result = p * reinterpret_cast<vf>(exponent);
    return x < -87.3f ? vf{} : result;
}

template <bool VALUES>
void softmax_of(int64_t t, int64_t classes, float* logits, int64_t ld, float scale, const float* values, float* out,
                bool keep) {
    // The largest logit is subtracted before scaling. The other way round, a fused multiply-add would subtract the rounded
    // largest product from an exact one, and the difference may be far above zero for large logits. The sign is exact.
    const float sign = scale < 0 ? -1.f : 1.f, magnitude = scale < 0 ? -scale : scale;
    for (int64_t c = 0; c < classes; c += W) {
        float* s = logits + c;
        const float* u = values + c;
        vf top = load(s) * sign;
        for (int64_t i = 1; i < t; i++) top = larger(top, load(s + i * ld) * sign);
        // Four partial sums each: shorter chains, and a smaller error than one long sum.
        vf sums[4] = {}, products[4] = {};
        for (int64_t i = 0; i < t; i++) {
            vf e = exp_below_zero((load(s + i * ld) * sign - top) * magnitude);
            sums[i & 3] += e;
            if (VALUES) products[i & 3] += e * load(u + i * ld);
            if (!VALUES || keep) put(s + i * ld, e);
        }
        vf sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        vf dot = (products[0] + products[1]) + (products[2] + products[3]);
        vf share = 1.f / sum;
        if (!VALUES || keep)
            for (int64_t i = 0; i < t; i++) put(s + i * ld, load(s + i * ld) * share);
        if (VALUES) {
            vf result = dot * share;
            if (classes - c >= W)
                put(out + c, result);
            else
                put_part(out + c, result, int(classes - c));
        }
    }
}

void softmax(int64_t t, int64_t classes, float* logits, int64_t ld, float scale, const float* values, float* out, bool keep) {
    if (values)
        softmax_of<true>(t, classes, logits, ld, scale, values, out, keep);
    else
        softmax_of<false>(t, classes, logits, ld, scale, logits, out, true);
}

void softmax_grad(int64_t t, const float* a, const float* grad, float scale, float* out) {
    // The mean is taken twice: the first takes away what all of grad has in common, the second what the rounding of the
    // first, and of a's sum to one, has left. Otherwise out would not sum to zero, and regions have a large common part.
    float mean, rest, unused;
    dots(t, grad, a, &mean, &unused);
    int64_t i = 0;
    for (; i + W <= t; i += W) put(out + i, load(grad + i) - mean);
    for (; i < t; i++) out[i] = grad[i] - mean;
    dots(t, out, a, &rest, &unused);
    for (i = 0; i + W <= t; i += W) put(out + i, load(a + i) * scale * (load(out + i) - rest));
    for (; i < t; i++) out[i] = a[i] * scale * (out[i] - rest);
}

void pooled_grad(int64_t t, const float* a, const float* u, float g, float scale, float* d_logits, float* d_values) {
    int64_t i = 0;
    for (; i + W <= t; i += W) {
        put(d_logits + i, load(u + i) * g);
        put(d_values + i, load(a + i) * g);
    }
    for (; i < t; i++) d_logits[i] = u[i] * g, d_values[i] = a[i] * g;
    softmax_grad(t, a, d_logits, scale, d_logits);
}

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
