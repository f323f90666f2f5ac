// Packs strided numbers into panels of vectors, for the multiply-add unit.
#pragma once
#include "isa/vector.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

#if FZ_W == 16
inline __m512 load16(const void* src, DType type, int64_t at, __mmask16 mask) {
    if (type == DType::f32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(src) + at);
    __m256i half = _mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(src) + at);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

inline void transpose16(__m512 r[16]) {
    __m512 t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

template <int LANES>
void pack(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
          int64_t steps) {
    for (int i0 = 0; i0 < count; i0 += 16) {
        int lanes = count - i0 < 16 ? count - i0 : 16;
        __mmask16 keep = __mmask16((1u << lanes) - 1);
        float* out = static_cast<float*>(panel) + first + i0;
        if (lane_stride == 1 || step_stride != 1) {
            if (lane_stride == 1) {
                for (int64_t p = 0; p < steps; p++)
                    _mm512_mask_storeu_ps(out + p * LANES, keep, load16(src, type, p * step_stride + i0, keep));
            } else {
                for (int64_t p = 0; p < steps; p++)
                    for (int i = 0; i < lanes; i++) {
                        int64_t at = (i0 + i) * lane_stride + p * step_stride;
                        out[p * LANES + i] = type == DType::f32 ? static_cast<const float*>(src)[at]
                                                                : widen(static_cast<const uint16_t*>(src)[at]);
                    }
            }
            continue;
        }
        for (int64_t p = 0; p < steps; p += 16) {
            int left = steps - p < 16 ? int(steps - p) : 16;
            __mmask16 part = __mmask16((1u << left) - 1);
            __m512 r[16];
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                r[i] = i < lanes ? load16(src, type, (i0 + i) * lane_stride + p, part) : _mm512_setzero_ps();
            transpose16(r);
#pragma GCC unroll 16
            for (int q = 0; q < 16; q++)
                if (q < left) _mm512_mask_storeu_ps(out + (p + q) * LANES, keep, r[q]);
        }
    }
}
#else
#if FZ_W == 8
// Rows of floats as lanes, 8 lanes by 8 steps at a time: halves of rows i and i + 4 are loaded beside each other, so that two
// rounds of shuffles are enough.
template <int LANES>
void pack_turned(float* out, const float* s, int64_t lane_stride, int count, int64_t steps) {
    constexpr int most = LANES < 8 ? LANES : 8;
    for (int i0 = 0; i0 < count; i0 += 8) {
        const float* row = s + i0 * lane_stride;
        float* to = out + i0;
        const int lanes = count - i0 < most ? count - i0 : most;
        int64_t p = 0;
        for (; lanes == most && p + 8 <= steps; p += 8) {
            __m256 low[4], high[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const float *a = row + i * lane_stride + p, *b = row + (i + 4) * lane_stride + p;
                low[i] = _mm256_castps128_ps256(_mm_loadu_ps(a));
                high[i] = _mm256_castps128_ps256(_mm_loadu_ps(a + 4));
                if (i + 4 >= most) continue;
                low[i] = _mm256_insertf128_ps(low[i], _mm_loadu_ps(b), 1);
                high[i] = _mm256_insertf128_ps(high[i], _mm_loadu_ps(b + 4), 1);
            }
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                const __m256* r = half ? high : low;
                const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
                const __m256 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
                const __m256 turned[4] = {_mm256_shuffle_ps(a, c, 0x44), _mm256_shuffle_ps(a, c, 0xee),
                                          _mm256_shuffle_ps(b, d, 0x44), _mm256_shuffle_ps(b, d, 0xee)};
#pragma GCC unroll 4
                for (int q = 0; q < 4; q++) __builtin_memcpy(to + (p + half * 4 + q) * LANES, &turned[q], most * 4);
            }
        }
        for (; p < steps; p++)
            for (int i = 0; i < lanes; i++) to[p * LANES + i] = row[i * lane_stride + p];
    }
}
#endif

template <int LANES, typename Read>
inline void pack_by(float* out, int64_t lane_stride, int64_t step_stride, int count, int64_t steps, Read read) {
    if (lane_stride == 1 && count == LANES) {  // of known size, so that a step is copied in whole vectors
        for (int64_t p = 0; p < steps; p++)
            for (int i = 0; i < LANES; i++) out[p * LANES + i] = read(p * step_stride + i);
    } else if (lane_stride == 1) {
        for (int64_t p = 0; p < steps; p++)
            for (int i = 0; i < count; i++) out[p * LANES + i] = read(p * step_stride + i);
    } else {  // in blocks of steps, so that a block of the panel stays in the first cache while its lanes are filled
        for (int64_t p0 = 0; p0 < steps; p0 += 64) {
            int64_t end = p0 + 64 < steps ? p0 + 64 : steps;
            for (int i = 0; i < count; i++)
                for (int64_t p = p0; p < end; p++) out[p * LANES + i] = read(i * lane_stride + p * step_stride);
        }
    }
}

template <int LANES>
void pack(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
          int64_t steps) {
    float* out = static_cast<float*>(panel) + first;
    if (type == DType::f32) {
        const float* s = static_cast<const float*>(src);
#if FZ_W == 8
        if (step_stride == 1 && lane_stride != 1) return pack_turned<LANES>(out, s, lane_stride, count, steps);
#endif
        pack_by<LANES>(out, lane_stride, step_stride, count, steps, [s](int64_t at) { return s[at]; });
    } else {
        const uint16_t* s = static_cast<const uint16_t*>(src);
        pack_by<LANES>(out, lane_stride, step_stride, count, steps, [s](int64_t at) { return widen(s[at]); });
    }
}
#endif

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
