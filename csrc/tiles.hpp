// 32 x 32 sums in the tile registers of AMX: the loop over the register tiles of a product, and what the other units do
// meanwhile. Included after body.hpp.
#pragma once

namespace fastzsl {
namespace amx {
namespace {

constexpr int side = 32;            // rows and columns of the register tile
constexpr int tile_elements = 256;  // 32-bit elements of one hardware tile: 16 rows x 64 bytes

struct alignas(64) Shape {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
    Shape() {
        for (int i = 0; i < 8; i++) bytes[i] = 64, rows[i] = 16;
    }
};

inline void clear() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}
inline void write(float* c, int64_t ld) {
    _tile_stored(0, c, size_t(ld * 4));
    _tile_stored(1, c + 16, size_t(ld * 4));
    _tile_stored(2, c + 16 * ld, size_t(ld * 4));
    _tile_stored(3, c + 16 * ld + 16, size_t(ld * 4));
}

inline __mmask16 first_of(int n) { return n >= 16 ? __mmask16(0xffff) : n <= 0 ? __mmask16(0) : __mmask16((1u << n) - 1); }

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
    FZ_INLINE void some() {
        if (left_) row();
        if (left_) row();
        fetch_.some();
        panel_.some();
    }
    void rest() {
        while (left_) row();
    }

private:
    FZ_INLINE void row() {
        half(first_, 0);
        half(second_, 16);
        part_ += side, c_ += ld_, left_--;
    }
    FZ_INLINE void half(__mmask16 keep, int at) {
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

// The products of one register tile, 32 x 32 sums in tiles 0 to 3, operands in 4, 5 (A) and 6, 7 (B). TALL, WIDE: more
// than 16 rows, columns. Each step replaces operands as soon as their last product is under way.
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
};

// C (m, n) = A B over k blocks of 32 steps. `Product<TALL, WIDE>::run(blocks, a, b, meanwhile)` leaves the sums of one register
// tile in tiles 0 to 3; `elements` are the 32-bit elements of 32 lanes x 32 steps. No sum runs over more than `chain` blocks.
template <template <bool, bool> typename Product>
void multiply_in_tiles(int64_t blocks, int elements, const void* pa, const void* pb, int64_t m, int64_t n, float* c, int64_t ldc,
                       Store store, int64_t chain, const Ahead* ahead) {
    static const Shape shape;
    const uint32_t *a = static_cast<const uint32_t*>(pa), *b = static_cast<const uint32_t*>(pb);
    const int64_t panel = blocks * elements, turns = (n + side - 1) / side * blocks * Product<true, true>::turns;
    alignas(64) float part[side * side];
    Meanwhile meanwhile(Fetch(ahead, (m + side - 1) / side * turns));
    _tile_loadconfig(&shape);
    for (int64_t i = 0; i < m; i += side) {
        if (i + side < m) {
            Ahead next{reinterpret_cast<const char*>(a + (i / side + 1) * panel), 0, 1, panel * 4};
            meanwhile.fetch_next(Fetch(&next, turns));
        }
        for (int64_t j = 0; j < n; j += side) {
            float* to = c + i * ldc + j;
            for (int64_t p = 0; p < blocks; p += chain) {
                const uint32_t *ap = a + i / side * panel + p * elements, *bp = b + j / side * panel + p * elements;
                int64_t count = blocks - p < chain ? blocks - p : chain;
                clear();
                if (m - i > 16 && n - j > 16)
                    Product<true, true>::run(count, ap, bp, meanwhile);
                else if (m - i > 16)
                    Product<true, false>::run(count, ap, bp, meanwhile);
                else if (n - j > 16)
                    Product<false, true>::run(count, ap, bp, meanwhile);
                else
                    Product<false, false>::run(count, ap, bp, meanwhile);
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

}  // namespace
}  // namespace amx
}  // namespace fastzsl
