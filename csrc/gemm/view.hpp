// Matrices and regions as they lie in the caller's memory, with any strides.
#pragma once
#include <cstdint>

#include "isa/kernels.hpp"

namespace fastzsl {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// A row stride for n floats that is no multiple of 1 KiB: rows a power of two apart fall on the same cache sets.
inline int64_t row_stride(int64_t n) {
    int64_t ld = round_up(n, 32);
    return ld % 256 ? ld : ld + 32;
}

// `lanes` x `steps` numbers of a strided matrix: lanes are rows of A or columns of B, steps are summed over.
struct View {
    const void* data;
    DType type;
    int64_t lane_stride, step_stride;

    const void* at(int64_t lane, int64_t step) const {
        return static_cast<const char*>(data) + (lane * lane_stride + step * step_stride) * size_of(type);
    }
};

// (B, T, d) with any strides, in elements.
struct Regions {
    const void* data;
    DType type;
    int64_t B, T, d;
    int64_t stride_b, stride_t, stride_d;

    const void* at(int64_t b, int64_t t, int64_t k) const {
        return static_cast<const char*>(data) + (b * stride_b + t * stride_t + k * stride_d) * size_of(type);
    }
};

}  // namespace fastzsl
