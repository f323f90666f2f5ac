// The lengths that the cosine divides by, where the decoded features e = sum_t a_t v_t are never made:
// |e|^2 = a^T G a with the Gram matrix G = V V^T (T, T) of an image's decoded regions, v = W x + b. Where the regions' v cancel in
// e, |e|^2 is a small sum of large numbers and has lost as many digits: none worth mentioning where m is large, as it is where
// this order is the cheapest.
#pragma once
#include <algorithm>
#include <cstring>

#include "gemm/packed.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "ops/ops.hpp"
#include "ops/pooling.hpp"
#include "runtime/layout.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {

// What is kept of an image for the backward pass, as rows of T numbers: U of the C classes, then V^T, then G. V and G are
// kept because making V again would cost the backward pass one more product of B T d m multiply-adds, a quarter of it, and G is
// no longer than V where this order is the cheapest.
struct GramSaved {
    int64_t C, m, T;
    int64_t all() const { return C + m + T; }
    int64_t values(int64_t image) const { return (image * all() + C) * T; }
    int64_t gram(int64_t image) const { return (image * all() + C + m) * T; }
};

// G of every image, made once and packed for the products with each block of classes. V is a task's own and gone after it, but
// for what the caller asks to keep. That the regions are packed once more than in one product with [H; P; W] is a small part of
// a product with m > d columns; in return the tasks of the classes keep rows that are short enough for many images at a time.
class GramForward {
public:
    GramForward(const Kernels& kernels, const Gemm& gemm, const Scores& call, const Packed& weight, const float* bias)
        : k(kernels), gemm(gemm), c(call), x(call.regions), weight(weight), bias(bias), ldv(row_stride(call.m)),
          bytes(round_up(packed_attention_bytes(gemm, x.T, x.T), 64)), packed(size_t(x.B * bytes) + 1024) {
        const int64_t steps = std::min(c.m, gemm.block);
        const int64_t images = images_per_task(gemm, x.B, x.T, c.threads, working_floats / ldv);
        Layout layout;
        at_values = layout.floats(images * x.T * ldv);
        at_panel = layout.bytes(gemm.panel_a(std::min(x.d, gemm.block)) + 1024);
        at_gram = layout.floats(x.T * x.T);
        at_left = layout.bytes(packed_attention_bytes(gemm, x.T, steps) + 1024);
        at_right = layout.bytes(packed_values_bytes(gemm, x.T, steps) + 1024);
        Scratch memory(size_t(layout.size() * c.threads));
        parallel(c.threads, ceil_div(x.B, images), [&](int64_t task, int worker) {
            some_images(task * images, std::min(x.B, (task + 1) * images), memory.at(size_t(layout.size() * worker)));
        });
    }

    static int64_t packed_bytes(const Gemm& gemm, int64_t classes, int64_t T) { return packed_values_bytes(gemm, classes, T) + 1024; }

    // |e|^2 of `n` classes into `squares` (2 n numbers, the latter half working memory). attention (T, n) and room for G A, `mixed`
    // (T, n), have rows `ld` apart; `room` takes packed_bytes.
    void squared_lengths(int64_t image, int64_t n, const float* attention, float* mixed, int64_t ld, char* room, float* squares) const {
        pack_values(gemm, View{attention, DType::f32, 1, ld}, 0, n, x.T, room);
        gemm.multiply(x.T, packed.at(size_t(image * bytes)), room, x.T, n, mixed, ld, Store::replace, chain_of(x.T), nullptr);
        float* part = squares + n;
        std::memset(squares, 0, size_t(n) * 4);
        for (int64_t first = 0; first < x.T; first += 32) {  // short sums, for their rounding
            std::memset(part, 0, size_t(n) * 4);
            for (int64_t t = first; t < std::min(first + 32, x.T); t++)
                for (int64_t j = 0; j < n; j++) part[j] += attention[t * ld + j] * mixed[t * ld + j];
            for (int64_t j = 0; j < n; j++) squares[j] += part[j];
        }
    }

private:
    static constexpr int64_t working_floats = 160 << 10;  // values of a task: 640 KiB

    void some_images(int64_t first, int64_t last, char* base) const {
        float* values = reinterpret_cast<float*>(base + at_values);
        regions_times(gemm, x, first * x.T, (last - first) * x.T, weight, values, ldv, base + at_panel);
        for (int64_t image = first; image < last; image++, values += x.T * ldv) {
            if (bias)
                for (int64_t t = 0; t < x.T; t++)
                    for (int64_t j = 0; j < c.m; j++) values[t * ldv + j] += bias[j];
            one_image(image, values, base);
        }
    }

    void one_image(int64_t image, const float* values, char* base) const {
        float* gram = reinterpret_cast<float*>(base + at_gram);
        for (int64_t j = 0; j < c.m; j += gemm.block) {
            int64_t steps = std::min(gemm.block, c.m - j);
            View rows{values + j, DType::f32, ldv, 1};
            for (int64_t r = 0; r < x.T; r += gemm.mr)
                pack_rows(gemm, base + at_left + r / gemm.mr * gemm.panel_a(steps), rows, r, 0, int(std::min<int64_t>(gemm.mr, x.T - r)),
                          steps);
            pack_values(gemm, rows, 0, x.T, steps, base + at_right);
            gemm.multiply(steps, base + at_left, base + at_right, x.T, x.T, gram, x.T, j ? Store::add : Store::replace,
                          chain_of(c.m), nullptr);
        }
        pack_attention(gemm, gram, x.T, x.T, x.T, packed.at(size_t(image * bytes)));  // G is symmetric
        if (!c.values) return;
        GramSaved rows{c.C, c.m, x.T};
        k.transpose(x.T, c.m, values, ldv, element(c.values, x.type, rows.values(image)), x.type, x.T);
        k.convert(x.T * x.T, gram, DType::f32, element(c.values, x.type, rows.gram(image)), x.type);
    }

    const Kernels& k;
    const Gemm& gemm;
    const Scores& c;
    const Regions& x;
    const Packed& weight;
    const float* bias;
    int64_t ldv, bytes, at_values = 0, at_panel = 0, at_gram = 0, at_left = 0, at_right = 0;
    Scratch packed;
};

}  // namespace fastzsl
