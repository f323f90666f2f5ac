// The vector type that every leaf routine is written in, and its few basic operations.
//
// An instruction set's source file defines FZ_SPACE (its namespace), FZ_W (floats in a vector), FZ_MR (rows of its register
// tile) and FZ_REGISTER (the constraint of a vector register in assembly) before it includes a header of this folder. What a
// header may use follows from FZ_W and not from the compiler's own macros, which CXXFLAGS can change: 16 floats mean AVX-512.
// No standard library templates in these headers: an inline function compiled with wide vectors must not be shared with the
// portable code.
#pragma once
#include <stdint.h>
#include <string.h>

#include "isa/kernels.hpp"

#ifndef FZ_SPACE  // a header that is compiled alone, by a test or an editor
#define FZ_SPACE alone
#define FZ_W 4
#define FZ_MR 6
#define FZ_REGISTER "m"
#endif
#ifdef FASTZSL_EMULATE  // the compiler has no vector registers of this width
#undef FZ_REGISTER
#define FZ_REGISTER "m"
#endif
#if FZ_W >= 8
#include <immintrin.h>
#endif

#define FZ_INLINE inline __attribute__((always_inline))

namespace fastzsl {
namespace FZ_SPACE {
namespace {

constexpr int W = FZ_W, MR = FZ_MR, NV = 2, NR = NV * W;

typedef float vf __attribute__((vector_size(FZ_W * 4)));
typedef uint32_t vu __attribute__((vector_size(FZ_W * 4)));

inline vf load(const float* p) {
    vf v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline void put(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
inline vf splat(float x) {
#if FZ_W == 16
    return vf(_mm512_set1_ps(x));
#else
    return x - vf{};
#endif
}
inline vf larger(vf a, vf b) { return a > b ? a : b; }
inline float add_lanes(vf v) {
#if FZ_W == 16
    return _mm512_reduce_add_ps(v);
#else
    float lanes[W];
    __builtin_memcpy(lanes, &v, sizeof v);
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
#endif
}

inline float widen(uint16_t h) {
    uint32_t bits = uint32_t(h) << 16;
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}
inline uint16_t narrow(float x) {  // to nearest even, NaN stays NaN
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? uint16_t((bits >> 16) | 0x40) : uint16_t(rounded);
}

inline void put_part(float* p, vf v, int count) {
    float lanes[W];
    __builtin_memcpy(lanes, &v, sizeof v);
    for (int i = 0; i < count; i++) p[i] = lanes[i];
}

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
