// float32 products on the bfloat16 tiles of AMX, the technique called bf16x3. A float32 is the exact sum of three bfloat16
// numbers of 8 bits each, high, middle and low. A product of two is then six products of bfloat16 numbers and a remainder of
// either sign, which is left out; it is 2^-25.4 of the product (root mean square over normal numbers; 2^-22 at most):
//     (h + m + l)(h' + m' + l') = hh' + (hm' + mh' + mm' + hl' + lh') + remainder
// Six products in tiles take .38 of the time of one on the multiply-add unit. The five small products are summed first: the
// rounding of their sum, which is 2^8 smaller than the result, does not show. Numbers below 2^-110 lose digits, because the
// tiles treat subnormals as zero. Infinity and NaN are no such sums: packing throws `NotFinite`.
#pragma once
#include "isa/amx_tiles.hpp"

namespace fastzsl {
namespace amx {
namespace {

constexpr int terms = 3;
constexpr int term_elements = 2 * tile_elements;      // 32 lanes x 32 steps of one term: two tiles
constexpr int step_elements = terms * term_elements;  // of all terms: h0 h1 m0 m1 l0 l1

struct Terms {
    __m512i term[terms];  // bfloat16 in the upper halves of 16 elements
};

inline __m512 upper_half(__m512 x) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(int(0xffff0000))));
}

// The middle term is rounded, so that the low one has either sign and the remainder that a product leaves out has no bias. `bad`
// becomes NaN in the lanes of infinity and NaN.
inline Terms terms_of(__m512 x, __m512& bad) {
    __m512 high = upper_half(x), rest = _mm512_sub_ps(x, high);
    __m512 middle = upper_half(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(rest), _mm512_set1_epi32(0x8000))));
    __m512 low = _mm512_sub_ps(rest, middle);
    bad = _mm512_fmadd_ps(low, _mm512_setzero_ps(), bad);
    return {{_mm512_castps_si512(high), _mm512_castps_si512(middle), _mm512_castps_si512(low)}};
}

// Two steps of 16 lanes as pairs. The low term of a number near the subnormals has more bits than its upper half, so these
// are taken and not just joined.
inline __m512i paired(__m512i first, __m512i second) {
    return _mm512_mask_mov_epi16(_mm512_srli_epi32(first, 16), 0xaaaaaaaa, second);
}

// 32 neighbouring steps of one lane in order.
inline __m512i in_order(__m512i first, __m512i second) {
    const __m512i upper = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                                              _mm512_set1_epi32(0x00040004)),
                                           _mm512_set1_epi32(0x00030001));  // 1, 3, 5, ...: the odd 16-bit elements
    return _mm512_permutex2var_epi16(first, upper, second);
}

// One step of 16 lanes that no stride of 1 joins.
inline __m512 strided_lanes(const void* src, DType type, int64_t at, int64_t stride, int n) {
    alignas(64) float lanes[16] = {};
    for (int i = 0; i < n; i++)
        lanes[i] = type == DType::f32 ? static_cast<const float*>(src)[at + i * stride]
                                      : widen(static_cast<const uint16_t*>(src)[at + i * stride]);
    return _mm512_load_ps(lanes);
}

// Where a block of 16 lanes x 32 steps lies: `lanes` and `steps` of them are there, the others count as zero.
struct Block {
    const void* src;
    DType type;
    int64_t at, lane_stride, step_stride;
    int lanes, steps;

    __m512 steps_of(int lane, int first) const {
        return load16(src, type, at + lane * lane_stride + first, first_of(steps - first));
    }
    __m512 lanes_of(int step) const {
        if (step >= steps) return _mm512_setzero_ps();
        return lane_stride == 1 ? load16(src, type, at + step * step_stride, first_of(lanes))
                                : strided_lanes(src, type, at + step * step_stride, lane_stride, lanes);
    }
};

// Lanes as rows, steps neighbours in memory: rows are cut as they are.
inline void rows_to_rows(const Block& from, uint32_t* out, __m512& bad) {
    for (int i = 0; i < from.lanes; i++, out += 16) {
        Terms x = terms_of(from.steps_of(i, 0), bad), y = terms_of(from.steps_of(i, 16), bad);
#pragma GCC unroll 3
        for (int term = 0; term < terms; term++)
            _mm512_store_si512(out + term * term_elements, in_order(x.term[term], y.term[term]));
    }
}

// Pairs of steps as rows, lanes neighbours in memory.
inline void columns_to_columns(const Block& from, uint32_t* out, __mmask16 keep, __m512& bad) {
    for (int p = 0; p < 16; p++, out += 16) {
        Terms x = terms_of(from.lanes_of(2 * p), bad), y = terms_of(from.lanes_of(2 * p + 1), bad);
#pragma GCC unroll 3
        for (int term = 0; term < terms; term++)
            _mm512_mask_storeu_epi32(out + term * term_elements, keep, paired(x.term[term], y.term[term]));
    }
}

template <bool BY_LANE>
void transposed(const Block& from, uint32_t* out, __mmask16 keep, __m512& bad) {
    alignas(64) __m512 block[terms][16];
    for (int i = 0; i < 16; i++) {
        __m512 first = _mm512_setzero_ps(), second = first;
        if (BY_LANE)
            first = from.lanes_of(2 * i), second = from.lanes_of(2 * i + 1);
        else if (i < from.lanes)
            first = from.steps_of(i, 0), second = from.steps_of(i, 16);
        Terms x = terms_of(first, bad), y = terms_of(second, bad);
#pragma GCC unroll 3
        for (int term = 0; term < terms; term++)
            block[term][i] = _mm512_castsi512_ps(BY_LANE ? paired(x.term[term], y.term[term]) : in_order(x.term[term], y.term[term]));
    }
    for (int term = 0; term < terms; term++, out += term_elements) {
        transpose16(block[term]);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            if (!BY_LANE)
                _mm512_mask_storeu_ps(out + i * 16, keep, block[term][i]);
            else if (i < from.lanes)
                _mm512_store_ps(out + i * 16, block[term][i]);
    }
}

// BY_LANE: rows of A, 32 steps each. Otherwise B: rows of 16 columns, pairs of steps.
template <bool BY_LANE>
void pack_bf16x3(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                int64_t steps) {
    const bool have_by_lane = step_stride == 1 && lane_stride != 1;
    __m512 bad = _mm512_setzero_ps();
    for (int lane = first; lane < first + count;) {
        int half = lane / 16, offset = lane % 16, lanes = first + count - lane < 16 - offset ? first + count - lane : 16 - offset;
        for (int64_t p = 0; p < steps; p += 32) {
            Block from{src, type, (lane - first) * lane_stride + p * step_stride, lane_stride, step_stride, lanes,
                       steps - p < 32 ? int(steps - p) : 32};
            uint32_t* out = static_cast<uint32_t*>(panel) + p / 32 * step_elements + half * tile_elements + offset * (BY_LANE ? 16 : 1);
            if (have_by_lane != BY_LANE)
                transposed<BY_LANE>(from, out, first_of(lanes), bad);
            else if (BY_LANE)
                rows_to_rows(from, out, bad);
            else
                columns_to_columns(from, out, first_of(lanes), bad);
        }
        lane += lanes;
    }
    if (_mm512_cmp_ps_mask(bad, bad, _CMP_UNORD_Q)) throw_not_finite();
}

constexpr int high = 0, middle = term_elements, low = 2 * term_elements;

template <bool TALL, bool WIDE>
struct Bf16x3Product : Tile32<TALL, WIDE, 2> {
    using Tile = Tile32<TALL, WIDE, 2>;
    static constexpr int turns = 2 * terms;  // a block

    static void run(int64_t blocks, const uint32_t* a, const uint32_t* b, Writeback writeback, Prefetcher& prefetcher) {
        Tile::load_a(a + low), Tile::load_b(b + high);
        for (int64_t p = 0; p < blocks; p++) {
            const uint32_t *at = a + p * step_elements, *bt = b + p * step_elements;
            Tile::then_a(at + middle, writeback, prefetcher);  // low high
            Tile::then_b(bt + middle, writeback, prefetcher);  // middle high
            Tile::then_a(at + high, writeback, prefetcher);    // middle middle
            Tile::then_b(bt + low, writeback, prefetcher);     // high middle
            if (p + 1 < blocks)                    // high low
                Tile::then_both(at + step_elements + low, bt + step_elements + high, writeback, prefetcher);
            else
                Tile::then_both(a + high, b + high, writeback, prefetcher);
        }
        for (int64_t p = 1; p <= blocks; p++) {
            int64_t next = p < blocks ? p * step_elements : 0;
            Tile::then_both(a + next + high, b + next + high, writeback, prefetcher);
        }
        writeback.finish();
    }
};

void multiply_bf16x3(int64_t k, const void* a, const void* b, int64_t m, int64_t n, float* c, int64_t ldc, Store store, int64_t chain,
                    const Prefetch* next) {
    multiply_in_tiles<Bf16x3Product>((k + 31) / 32, step_elements, a, b, m, n, c, ldc, store, chain / 32, next);
}

const Gemm gemm_bf16x3 = {side, side, 32, 2 * terms, 128, 1, 32, 1, pack_bf16x3<true>, pack_bf16x3<false>, multiply_bf16x3};

}  // namespace
}  // namespace amx
}  // namespace fastzsl
