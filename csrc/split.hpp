// float32 products on the bfloat16 tiles of AMX. A float32 is the exact sum of three bfloat16 numbers of 8 bits each, high,
// middle and low, so a product of two is six products of parts and a rest below 2^-24 of it:
//     (h + m + l)(h' + m' + l') = hh' + (hm' + mh' + mm' + hl' + lh') + rest
// Six products in tiles take .38 of the time of one on the multiply-add unit. The five small ones are summed first: added to
// sums 2^8 smaller than the result, they round nothing that is seen. Numbers below 2^-110 lose digits, because the tiles
// know no subnormals. Infinity and NaN have no such parts: packing throws `Unsplittable`.
// Included after the tiles of kernels_amx.cpp.
#pragma once

namespace fastzsl {
namespace amx {
namespace {

constexpr int parts = 3;
constexpr int part_elements = 2 * tile_elements;          // 32 lanes x 32 steps of one part: two tiles
constexpr int step_elements = parts * part_elements;      // of all parts: h0 h1 m0 m1 l0 l1

struct Split {
    __m512i part[parts];  // bfloat16 in the upper halves of 16 elements
};

inline __m512 upper_half(__m512 x) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(int(0xffff0000))));
}

// The middle part is rounded, so that the low one has either sign and what is left out of a product is no bias. `bad` turns NaN
// in the lanes whose parts are not numbers: those of infinity and NaN.
inline Split split(__m512 x, __m512& bad) {
    __m512 high = upper_half(x), rest = _mm512_sub_ps(x, high);
    __m512 middle = upper_half(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(rest), _mm512_set1_epi32(0x8000))));
    __m512 low = _mm512_sub_ps(rest, middle);
    bad = _mm512_fmadd_ps(low, _mm512_setzero_ps(), bad);
    return {{_mm512_castps_si512(high), _mm512_castps_si512(middle), _mm512_castps_si512(low)}};
}

// Two steps of 16 lanes as pairs. The low part of a number near the subnormals has more bits than its upper half, so these
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

inline __mmask16 first_of(int n) { return n >= 16 ? __mmask16(0xffff) : n <= 0 ? __mmask16(0) : __mmask16((1u << n) - 1); }

// One step of 16 lanes that no stride of 1 joins.
inline __m512 gathered(const void* src, DType type, int64_t at, int64_t stride, int n) {
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
                                : gathered(src, type, at + step * step_stride, lane_stride, lanes);
    }
};

// Lanes as rows, steps neighbours in memory: rows are cut as they are.
inline void rows_to_rows(const Block& from, uint32_t* out, __m512& bad) {
    for (int i = 0; i < from.lanes; i++, out += 16) {
        Split x = split(from.steps_of(i, 0), bad), y = split(from.steps_of(i, 16), bad);
#pragma GCC unroll 3
        for (int part = 0; part < parts; part++)
            _mm512_store_si512(out + part * part_elements, in_order(x.part[part], y.part[part]));
    }
}

// Pairs of steps as rows, lanes neighbours in memory.
inline void columns_to_columns(const Block& from, uint32_t* out, __mmask16 keep, __m512& bad) {
    for (int p = 0; p < 16; p++, out += 16) {
        Split x = split(from.lanes_of(2 * p), bad), y = split(from.lanes_of(2 * p + 1), bad);
#pragma GCC unroll 3
        for (int part = 0; part < parts; part++)
            _mm512_mask_storeu_epi32(out + part * part_elements, keep, paired(x.part[part], y.part[part]));
    }
}

template <bool BY_LANE>
void transposed(const Block& from, uint32_t* out, __mmask16 keep, __m512& bad) {
    alignas(64) __m512 block[parts][16];
    for (int i = 0; i < 16; i++) {
        __m512 first = _mm512_setzero_ps(), second = first;
        if (BY_LANE)
            first = from.lanes_of(2 * i), second = from.lanes_of(2 * i + 1);
        else if (i < from.lanes)
            first = from.steps_of(i, 0), second = from.steps_of(i, 16);
        Split x = split(first, bad), y = split(second, bad);
#pragma GCC unroll 3
        for (int part = 0; part < parts; part++)
            block[part][i] = _mm512_castsi512_ps(BY_LANE ? paired(x.part[part], y.part[part]) : in_order(x.part[part], y.part[part]));
    }
    for (int part = 0; part < parts; part++, out += part_elements) {
        transpose16(block[part]);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            if (!BY_LANE)
                _mm512_mask_storeu_ps(out + i * 16, keep, block[part][i]);
            else if (i < from.lanes)
                _mm512_store_ps(out + i * 16, block[part][i]);
    }
}

// BY_LANE: rows of A, 32 steps each. Otherwise B: rows of 16 columns, pairs of steps.
template <bool BY_LANE>
void pack_split(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
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
    if (_mm512_cmp_ps_mask(bad, bad, _CMP_UNORD_Q)) refuse_to_split();
}

// What the other units do between the products: the sums of the last register tile go from `part` to C, a few rows at a time,
// and memory that will be needed is fetched.
class Meanwhile {
public:
    explicit Meanwhile(const Fetch& fetch) : fetch_(fetch) {}
    void fetch_next(const Fetch& panel) { panel_ = panel; }
    void start(const float* part, float* c, int64_t ld, int64_t rows, int64_t columns, bool add) {
        part_ = part, c_ = c, ld_ = ld, left_ = int(rows < side ? rows : side), add_ = add;
        first_ = first_of(columns < 16 ? int(columns) : 16), second_ = first_of(columns < side ? int(columns) - 16 : 16);
    }
    void some() {
        if (left_) row();
        if (left_) row();
        fetch_.some();
        panel_.some();
    }
    void rest() {
        while (left_) row();
    }

private:
    void row() {
        half(first_, 0);
        half(second_, 16);
        part_ += side, c_ += ld_, left_--;
    }
    void half(__mmask16 keep, int at) {
        __m512 sum = _mm512_load_ps(part_ + at);
        if (add_) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(keep, c_ + at));
        _mm512_mask_storeu_ps(c_ + at, keep, sum);
    }

    Fetch fetch_, panel_{nullptr, 1};
    const float* part_ = nullptr;
    float* c_ = nullptr;
    int64_t ld_ = 0;
    int left_ = 0;
    bool add_ = false;
    __mmask16 first_ = 0, second_ = 0;
};

constexpr int high = 0, middle = part_elements, low = 2 * part_elements;

// The products of one register tile, 32 x 32 sums in tiles 0 to 3, operands in 4, 5 (A) and 6, 7 (B). TALL, WIDE: more
// than 16 rows, columns. Each step replaces one operand as soon as its last product is under way.
template <bool TALL, bool WIDE>
struct Tile32 {
    static void load_a(const uint32_t* a) {
        _tile_loadd(4, a, 64);
        if (TALL) _tile_loadd(5, a + tile_elements, 64);
    }
    static void load_b(const uint32_t* b) {
        _tile_loadd(6, b, 64);
        if (WIDE) _tile_loadd(7, b + tile_elements, 64);
    }
    static void then_a(const uint32_t* a, Meanwhile& meanwhile) {
        _tile_dpbf16ps(0, 4, 6);
        if (WIDE) _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(4, a, 64);
        meanwhile.some();
        if (!TALL) return;
        _tile_dpbf16ps(2, 5, 6);
        if (WIDE) _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(5, a + tile_elements, 64);
    }
    static void then_b(const uint32_t* b, Meanwhile& meanwhile) {
        _tile_dpbf16ps(0, 4, 6);
        if (TALL) _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(6, b, 64);
        meanwhile.some();
        if (!WIDE) return;
        _tile_dpbf16ps(1, 4, 7);
        if (TALL) _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(7, b + tile_elements, 64);
    }
    static void then_both(const uint32_t* a, const uint32_t* b, Meanwhile& meanwhile) {
        _tile_dpbf16ps(0, 4, 6);
        if (WIDE) _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(4, a, 64);
        meanwhile.some();
        if (TALL) _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(6, b, 64);
        if (TALL && WIDE) _tile_dpbf16ps(3, 5, 7);
        if (TALL) _tile_loadd(5, a + tile_elements, 64);
        if (WIDE) _tile_loadd(7, b + tile_elements, 64);
    }

    static void run(int64_t blocks, const uint32_t* a, const uint32_t* b, Meanwhile& meanwhile) {
        clear();
        load_a(a + low), load_b(b + high);
        for (int64_t p = 0; p < blocks; p++) {
            const uint32_t *at = a + p * step_elements, *bt = b + p * step_elements;
            then_a(at + middle, meanwhile);  // low high
            then_b(bt + middle, meanwhile);  // middle high
            then_a(at + high, meanwhile);    // middle middle
            then_b(bt + low, meanwhile);     // high middle
            if (p + 1 < blocks)          // high low
                then_both(at + step_elements + low, bt + step_elements + high, meanwhile);
            else
                then_both(a + high, b + high, meanwhile);
        }
        for (int64_t p = 1; p <= blocks; p++) {
            int64_t next = p < blocks ? p * step_elements : 0;
            then_both(a + next + high, b + next + high, meanwhile);
        }
    }
};

void multiply_split(int64_t k, const void* pa, const void* pb, int64_t m, int64_t n, float* c, int64_t ldc, Store store,
                    int64_t chain, const Ahead* ahead) {
    static const Shape shape;
    const uint32_t *a = static_cast<const uint32_t*>(pa), *b = static_cast<const uint32_t*>(pb);
    int64_t blocks = (k + 31) / 32, panel = blocks * step_elements;
    Meanwhile meanwhile(Fetch(ahead, (m + side - 1) / side * ((n + side - 1) / side) * blocks * 2 * parts));
    chain /= 32;
    alignas(64) float part[side * side];
    _tile_loadconfig(&shape);
    for (int64_t i = 0; i < m; i += side) {
        if (i + side < m) {
            Ahead next{reinterpret_cast<const char*>(a + (i / side + 1) * panel), 0, 1, panel * 4};
            meanwhile.fetch_next(Fetch(&next, (n + side - 1) / side * blocks * 2 * parts));
        }
        for (int64_t j = 0; j < n; j += side) {
            float* to = c + i * ldc + j;
            const bool tall = m - i > 16, wide = n - j > 16;
            for (int64_t p = 0; p < blocks; p += chain) {
                const uint32_t *ap = a + i / side * panel + p * step_elements, *bp = b + j / side * panel + p * step_elements;
                int64_t count = blocks - p < chain ? blocks - p : chain;
                if (tall && wide)
                    Tile32<true, true>::run(count, ap, bp, meanwhile);
                else if (tall)
                    Tile32<true, false>::run(count, ap, bp, meanwhile);
                else if (wide)
                    Tile32<false, true>::run(count, ap, bp, meanwhile);
                else
                    Tile32<false, false>::run(count, ap, bp, meanwhile);
                meanwhile.rest();
                if (!p && store != Store::add && m - i >= side && n - j >= side) {
                    write(to, ldc);
                } else {
                    write(part, side);
                    meanwhile.start(part, to, ldc, m - i, n - j, p || store == Store::add);
                }
            }
        }
    }
    _tile_release();
    meanwhile.rest();
}

const Gemm gemm_split = {side, side, 32, 2 * parts, 128, pack_split<true>, pack_split<false>, multiply_split};

}  // namespace
}  // namespace amx
}  // namespace fastzsl
