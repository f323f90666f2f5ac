// Operations on single rows of numbers.
#pragma once
#include "isa/packing.hpp"
#include "isa/vector.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

void dots(int64_t n, const float* x, const float* y, float* xy, float* xx) {
    vf a = vf{}, b = vf{};
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        vf v = load(x + i);
        a += v * load(y + i);
        b += v * v;
    }
    float sum_a = add_lanes(a), sum_b = add_lanes(b);
    for (; i < n; i++) {
        sum_a += x[i] * y[i];
        sum_b += x[i] * x[i];
    }
    *xy = sum_a;
    *xx = sum_b;
}

void convert(int64_t n, const void* src, DType from, void* dst, DType to) {
    if (from == to) {
        memcpy(dst, src, size_t(n * size_of(from)));
    } else if (to == DType::bf16) {
        for (int64_t i = 0; i < n; i++) static_cast<uint16_t*>(dst)[i] = narrow(static_cast<const float*>(src)[i]);
    } else {
        for (int64_t i = 0; i < n; i++) static_cast<float*>(dst)[i] = widen(static_cast<const uint16_t*>(src)[i]);
    }
}

void lines(void* rows, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
           int64_t steps) {
    pack<32>(rows, first, src, type, lane_stride, step_stride, count, steps);
}

double spin_f32(int64_t rounds) {
    constexpr int CHAINS = W == 16 ? 24 : 12;
    vf acc[CHAINS], x = splat(0.999f), y = splat(1e-3f);
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++) acc[i] = vf{};
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = acc[i] * x + y;
            asm volatile("" : "+" FZ_REGISTER(acc[i]));  // each chain is its own: no merging of equal ones
        }
    }
    return double(rounds) * CHAINS * W;
}

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
