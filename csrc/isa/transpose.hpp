// Transposes (T, classes), which the products give, to (classes, T), which is kept for the backward pass.
#pragma once
#include "isa/packing.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

#if FZ_W == 16
inline void put_some(float* to, __mmask16 keep, __m512 x) { _mm512_mask_storeu_ps(to, keep, x); }
inline void put_some(uint16_t* to, __mmask16 keep, __m512 x) {  // as `narrow`
    const __m512i bits = _mm512_castps_si512(x), upper = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff)), 16);
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), upper, _mm512_set1_epi32(0x40));
    _mm256_mask_storeu_epi16(to, keep, _mm512_cvtepi32_epi16(rounded));
}

template <typename Out>
void transpose_to(int64_t rows, int64_t cols, const float* src, int64_t ss, Out* dst, int64_t ds) {
    for (int64_t j = 0; j < cols; j += 16) {
        int width = cols - j < 16 ? int(cols - j) : 16;
        for (int64_t i = 0; i < rows; i += 16) {
            int height = rows - i < 16 ? int(rows - i) : 16;
            __mmask16 across = __mmask16((1u << width) - 1), down = __mmask16((1u << height) - 1);
            __m512 r[16];
#pragma GCC unroll 16
            for (int q = 0; q < 16; q++)
                r[q] = q < height ? _mm512_maskz_loadu_ps(across, src + (i + q) * ss + j) : _mm512_setzero_ps();
            transpose16(r);
#pragma GCC unroll 16
            for (int q = 0; q < 16; q++)
                if (q < width) put_some(dst + (j + q) * ds + i, down, r[q]);
        }
    }
}
#else
inline void put_one(float* to, float x) { *to = x; }
inline void put_one(uint16_t* to, float x) { *to = narrow(x); }

template <typename Out>
void transpose_to(int64_t rows, int64_t cols, const float* src, int64_t ss, Out* dst, int64_t ds) {
    for (int64_t j0 = 0; j0 < cols; j0 += 16) {
        int64_t end = j0 + 16 < cols ? j0 + 16 : cols;
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = j0; j < end; j++) put_one(dst + j * ds + i, src[i * ss + j]);
    }
}
#endif

void transpose(int64_t rows, int64_t cols, const float* src, int64_t ss, void* dst, DType type, int64_t ds) {
    if (type == DType::f32)
        transpose_to(rows, cols, src, ss, static_cast<float*>(dst), ds);
    else
        transpose_to(rows, cols, src, ss, static_cast<uint16_t*>(dst), ds);
}

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
