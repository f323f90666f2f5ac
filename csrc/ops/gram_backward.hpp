// Order "prototype" of the cosine, backward, through n = k . e and L = |e| without e. With g = dL/ds and s = n / (|k| L):
//     dn = g / (|k| L)       dA = dn U + w A G,  w = -dn n / L^2,  0 where L is clamped       dU = dn A
//     dV = S V,  S = sum_c w_c a_c a_c^T, which is twice the gradient of G.
// dU is of U made with k itself, not with k / |k|, as the dot product has it: prototypes, queries and decoder go on from there.
#pragma once
#include <algorithm>
#include <cmath>

#include "gemm/packed.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "ops/gradient.hpp"
#include "ops/gram_forward.hpp"
#include "ops/norms.hpp"
#include "ops/ops.hpp"
#include "ops/pooling.hpp"
#include "ops/widened.hpp"
#include "runtime/layout.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {

class GramBackward {
public:
    GramBackward(const Kernels& kernels, const Gemm& gemm, const ScoresGrad& call, const float* grad, const float* classes,
                    const float* bias)
        : k(kernels), gemm(gemm), c(call), x(call.regions), type(x.type), saved{c.C, c.m, x.T}, grad(grad),
          for_logits(c.d_regions || c.d_queries), for_prototypes(c.d_regions || c.d_weight || c.d_classes),
          for_values(c.d_regions || c.d_weight || c.d_bias),
          chunk(std::min(c.C, std::clamp<int64_t>(chunk_floats / x.T / 32 * 32, 32, most_classes))),
          columns(pooled_columns(gemm, x.T, c.m)), inverses(size_t(c.C) * 4), offsets(size_t(c.C) * 4), shared(size_t(x.B * c.C) * 4),
          sums(for_values ? size_t(x.B * x.T * x.T) * 4 : 0) {
        parallel(c.threads, c.C, [&](int64_t j, int) {
            const float* key = classes + j * c.m;
            float offset, square;
            k.dots(c.m, key, c.bias ? bias : key, &offset, &square);
            inverses.as<float>()[j] = 1.f / clamped_norm(square);
            offsets.as<float>()[j] = c.bias ? offset : 0.f;
        });
        at_a = layout.floats(chunk * x.T);
        at_u = layout.floats(chunk * x.T);
        at_mixed = layout.floats(chunk * x.T);
        at_gram = layout.bytes(packed_values_bytes(gemm, x.T, x.T) + 1024);
        at_left = layout.bytes(std::max(packed_attention_bytes(gemm, chunk, x.T),
                                        packed_attention_bytes(gemm, x.T, std::max(chunk, x.T))) + 1024);
        at_right = layout.bytes(std::max(packed_values_bytes(gemm, x.T, chunk), packed_values_bytes(gemm, columns, x.T)) + 1024);
        memory = Scratch(size_t(layout.size() * c.threads));
    }

    // Classes [from, from + n): their dS and dU, (n, B * T) each, and their part of S. Blocks come in order.
    void block(int64_t from, int64_t n, float* d_logits, float* d_values) const {
        parallel(c.threads, x.B, [&](int64_t image, int worker) {
            char* base = memory.at(size_t(layout.size() * worker));
            View gram{element(c.values, type, saved.gram(image)), type, x.T, 1};
            pack_values(gemm, gram, 0, x.T, x.T, base + at_gram);
            for (int64_t first = 0; first < n; first += chunk) {
                const int64_t to = first * x.B * x.T + image * x.T;
                one_chunk(image, from + first, std::min(chunk, n - first), d_logits + to, d_values + to, base);
            }
        });
    }

    const float* of_products() const { return shared.as<float>(); }  // dn (B, C)

    // dV (B * T, m), after all blocks.
    void of_values(float* to) const {
        parallel(c.threads, x.B, [&](int64_t image, int worker) {
            char* base = memory.at(size_t(layout.size() * worker));
            View sum{sums.as<float>() + image * x.T * x.T, DType::f32, x.T, 1};
            View values{element(c.values, type, saved.values(image)), type, x.T, 1};
            for (int64_t j = 0; j < c.m; j += columns) {
                int64_t width = std::min(columns, c.m - j);
                small_product(gemm, x.T, width, x.T, sum, View{values.at(j, 0), type, x.T, 1}, to + image * x.T * c.m + j, c.m, Store::replace,
                      base + at_left, base + at_right);
            }
        });
    }

private:
    static constexpr int64_t chunk_floats = 32 << 10;  // attention of a chunk of classes: three such arrays in the second cache
    static constexpr int64_t most_classes = 256;

    void one_chunk(int64_t image, int64_t first, int64_t count, float* d_logits, float* d_values, char* base) const {
        auto floats = [&](int64_t at) { return reinterpret_cast<float*>(base + at); };
        const int64_t numbers = count * x.T;
        const float* a = widened(k, element(c.attention, type, (image * c.C + first) * x.T), type, numbers, floats(at_a));
        const float* u = widened(k, element(c.values, type, (image * saved.all() + first) * x.T), type, numbers, floats(at_u));
        float* mixed = floats(at_mixed);  // A G, then dA, then w A
        for (int64_t r = 0; r < count; r += gemm.mr)
            pack_rows(gemm, base + at_left + r / gemm.mr * gemm.panel_a(x.T), View{a, DType::f32, x.T, 1}, r, 0,
                      int(std::min<int64_t>(gemm.mr, count - r)), x.T);
        gemm.multiply(x.T, base + at_left, base + at_gram, count, x.T, mixed, x.T, Store::replace, chain_of(x.T), nullptr);
        // Each step for all classes, so that no vector is read while the numbers in it are still on their way to the cache.
        float weights[most_classes];
        for (int64_t j = 0; j < count; j++)
            weights[j] = weigh(image, first + j, a + j * x.T, u + j * x.T, mixed + j * x.T, d_values + j * x.T * x.B);
        for (int64_t j = 0; j < count && for_logits; j++)
            k.softmax_grad(x.T, a + j * x.T, mixed + j * x.T, c.scale, d_logits + j * x.T * x.B);
        if (!for_values) return;
        for (int64_t j = 0; j < count; j++)
            for (int64_t t = j * x.T; t < (j + 1) * x.T; t++) mixed[t] = weights[j] * a[t];
        small_product(gemm, x.T, x.T, count, View{mixed, DType::f32, 1, x.T}, View{a, DType::f32, 1, x.T}, sums.as<float>() + image * x.T * x.T,
              x.T, first ? Store::add : Store::replace, base + at_left, base + at_right);
    }

    // One image and class: dU, and dA in place of `mixed`, a row of A G. Returns w.
    float weigh(int64_t image, int64_t j, const float* a, const float* u, float* mixed, float* d_values) const {
        float square, product, unused;
        k.dots(x.T, mixed, a, &square, &unused);
        k.dots(x.T, u, a, &product, &unused);
        const bool clamped = square < least_norm * least_norm;
        const float length = clamped ? least_norm : std::sqrt(square);
        const float dn = grad[image * c.C + j] * inverses.as<float>()[j] / length;
        const float w = clamped ? 0.f : -dn * (product + offsets.as<float>()[j]) / square;
        shared.as<float>()[image * c.C + j] = dn;
        for (int64_t t = 0; t < x.T && for_logits; t++) mixed[t] = dn * u[t] + w * mixed[t];
        for (int64_t t = 0; t < x.T && for_prototypes; t++) d_values[t] = dn * a[t];
        return w;
    }

    const Kernels& k;
    const Gemm& gemm;
    const ScoresGrad& c;
    const Regions& x;
    const DType type;
    const GramSaved saved;
    const float* grad;
    const bool for_logits, for_prototypes, for_values;
    const int64_t chunk, columns;
    Scratch inverses, offsets, shared, sums, memory;
    Layout layout;
    int64_t at_a = 0, at_u = 0, at_mixed = 0, at_gram = 0, at_left = 0, at_right = 0;
};

}  // namespace fastzsl
