// Stored features to the numbers that the products read: widened, compressed and scaled.
#pragma once
#include "isa/vector.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

typedef uint16_t vh __attribute__((vector_size(FZ_W * 2)));
typedef int32_t vi __attribute__((vector_size(FZ_W * 4)));

// float16 to float32 by integer arithmetic, so that no instruction set needs units for it. Numbers below the smallest normal
// float16 come from a subtraction of normal numbers: a processor that flushes subnormal ones to zero keeps them.
FZ_INLINE vf widen_half(vh h) {
    const vi bits = __builtin_convertvector(h, vi), magnitude = (bits & 0x7fff) << 13;
    const vi least = vi{} + (113 << 23), special = (magnitude >= 0x7c00 << 13) & (112 << 23);
    const vi normal = magnitude + (112 << 23) + special, tiny = vi(vf(magnitude + least) - vf(least));
    const vi is_tiny = magnitude < 0x0400 << 13;
    return vf((tiny & is_tiny) | (normal & ~is_tiny) | vi(vu(bits & 0x8000) << 16));
}

struct FromFloat {
    typedef float Type;
    static FZ_INLINE float of(float x) { return x; }
};
struct FromBf16 {
    typedef uint16_t Type;
    static FZ_INLINE float of(uint16_t x) { return widen(x); }
};
struct ToFloat {
    typedef float Type;
    static FZ_INLINE float of(float x) { return x; }
};
struct ToBf16 {
    typedef uint16_t Type;
    static FZ_INLINE uint16_t of(float x) { return narrow(x); }
};

// Plain loops, which the compiler turns into vectors (with -fno-math-errno the root too).
template <typename From, typename To, bool ROOT>
void prepare_run(int64_t n, const void* source, const float* __restrict factor, float scale, void* target) {
    const typename From::Type* __restrict from = static_cast<const typename From::Type*>(source);
    typename To::Type* __restrict to = static_cast<typename To::Type*>(target);
    if (factor) {
        for (int64_t i = 0; i < n; i++) {
            float x = From::of(from[i]);
            if (ROOT) x = __builtin_copysignf(__builtin_sqrtf(__builtin_fabsf(x)), x);
            to[i] = To::of(x * factor[i]);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float x = From::of(from[i]);
        if (ROOT) x = __builtin_copysignf(__builtin_sqrtf(__builtin_fabsf(x)), x);
        to[i] = To::of(x * scale);
    }
}

template <typename From>
void prepare_from(int64_t n, const void* from, bool root, const float* factor, float scale, void* to, DType type) {
    if (type == DType::f32)
        (root ? prepare_run<From, ToFloat, true> : prepare_run<From, ToFloat, false>)(n, from, factor, scale, to);
    else
        (root ? prepare_run<From, ToBf16, true> : prepare_run<From, ToBf16, false>)(n, from, factor, scale, to);
}

void prepare_halves(int64_t n, const void* source, bool root, const float* factor, float scale, void* target, DType type) {
    constexpr int64_t chunk = 256;  // floats that stay in the first cache
    float wide[chunk];
    for (int64_t at = 0; at < n; at += chunk) {
        const uint16_t* from = static_cast<const uint16_t*>(source) + at;
        const int64_t count = n - at < chunk ? n - at : chunk;
        for (int64_t i = 0; i < count; i += W) {
            vh h = vh{};
            if (count - i >= W)
                __builtin_memcpy(&h, from + i, sizeof h);
            else
                __builtin_memcpy(&h, from + i, size_t(count - i) * 2);
            put(wide + i, widen_half(h));
        }
        void* to = static_cast<char*>(target) + at * (type == DType::f32 ? 4 : 2);
        prepare_from<FromFloat>(count, wide, root, factor ? factor + at : factor, scale, to, type);
    }
}

void prepare(int64_t n, const void* from, DType type, bool root, const float* factor, float scale, void* to, DType to_type) {
    if (type == DType::f32)
        prepare_from<FromFloat>(n, from, root, factor, scale, to, to_type);
    else if (type == DType::bf16)
        prepare_from<FromBf16>(n, from, root, factor, scale, to, to_type);
    else
        prepare_halves(n, from, root, factor, scale, to, to_type);
}

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
