// Packing for the bfloat16 units, which multiply pairs of neighbouring steps: a 32-bit element holds steps 2p and 2p + 1 of
// one lane.
#pragma once
#include "isa/leaves.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

inline __m256i round16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

// `n` <= 32 steps of one lane, neighbours in memory: 16 pairs, zero beyond n.
inline __m512i steps_of_lane(const void* src, DType type, int64_t at, int n) {
    __mmask32 keep = n >= 32 ? ~__mmask32(0) : (__mmask32(1) << n) - 1;
    if (type == DType::bf16) return _mm512_maskz_loadu_epi16(keep, static_cast<const uint16_t*>(src) + at);
    const float* p = static_cast<const float*>(src) + at;
    __m512 low = _mm512_maskz_loadu_ps(__mmask16(keep), p), high = _mm512_maskz_loadu_ps(__mmask16(keep >> 16), p + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// One step of `n` <= 16 lanes, `stride` apart, in the low halves of 16 elements.
inline __m512i lanes_of_step(const void* src, DType type, int64_t at, int64_t stride, int n) {
    __mmask16 keep = __mmask16((1u << n) - 1);
    if (stride == 1) {
        if (type == DType::bf16)
            return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(keep, static_cast<const uint16_t*>(src) + at));
        return _mm512_cvtepu16_epi32(round16(_mm512_maskz_loadu_ps(keep, static_cast<const float*>(src) + at)));
    }
    alignas(64) uint32_t lanes[16] = {};
    for (int i = 0; i < n; i++)
        lanes[i] = type == DType::bf16 ? static_cast<const uint16_t*>(src)[at + i * stride]
                                       : narrow(static_cast<const float*>(src)[at + i * stride]);
    return _mm512_load_si512(lanes);
}

// A block of 16 lanes x 32 steps. Of these, `lanes` and `steps` are read and the others are zero.
// by_lane: r[i] holds the 16 pairs of lane i; otherwise r[p] holds pair p of the 16 lanes.
inline void load_block(__m512i r[16], bool by_lane, const void* src, DType type, int64_t at, int64_t lane_stride,
                       int64_t step_stride, int lanes, int steps) {
    const bool have_by_lane = step_stride == 1 && lane_stride != 1;
    __m512 t[16];
    if (have_by_lane) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            t[i] = _mm512_castsi512_ps(i < lanes ? steps_of_lane(src, type, at + i * lane_stride, steps) : _mm512_setzero_si512());
    } else {
#pragma GCC unroll 16
        for (int p = 0; p < 16; p++) {
            __m512i pair = _mm512_setzero_si512();
            if (2 * p < steps) pair = lanes_of_step(src, type, at + 2 * p * step_stride, lane_stride, lanes);
            if (2 * p + 1 < steps)
                pair = _mm512_or_si512(
                    pair, _mm512_slli_epi32(lanes_of_step(src, type, at + (2 * p + 1) * step_stride, lane_stride, lanes), 16));
            t[p] = _mm512_castsi512_ps(pair);
        }
    }
    if (have_by_lane != by_lane) transpose16(t);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = _mm512_castps_si512(t[i]);
}

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
