// Products of 32 x 32 sums in the tile registers of AMX: the loop over the register tiles of a product, with prefetching and the
// copying of finished sums between the tile products.
#pragma once
#include "isa/leaves.hpp"

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

// Copies the sums of the previous register tile to C, a few rows at a time, between the tile products of the present one. It is
// passed by value, so that its fields stay in registers.
struct Writeback {
    const float* sums = nullptr;
    float* c = nullptr;
    int64_t ld = 0, left = 0;
    __mmask16 keep[2] = {}, read[2] = {};  // columns of C that are written, and of these the ones added to

    Writeback() = default;
    Writeback(const float* sums, float* c, int64_t ld, int64_t rows, int64_t columns, bool add)
        : sums(sums), c(c), ld(ld), left(rows < side ? rows : side) {
        for (int half = 0; half < 2; half++) {
            keep[half] = first_of(columns < side ? int(columns) - half * 16 : 16);
            read[half] = add ? keep[half] : __mmask16(0);
        }
    }
    template <int ROWS>
    FZ_INLINE void rows() {
        if (left >= ROWS) {
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) row(r);
            sums += ROWS * side, c += ROWS * ld, left -= ROWS;
        }
    }
    FZ_INLINE void finish() {
        for (; left > 0; left--) {
            row(0);
            sums += side, c += ld;
        }
    }

private:
    FZ_INLINE void row(int r) const {
        for (int half = 0; half < 2; half++) {
            __m512 sum = _mm512_load_ps(sums + r * side + half * 16);
            sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(read[half], c + r * ld + half * 16));
            _mm512_mask_storeu_ps(c + r * ld + half * 16, keep[half], sum);
        }
    }
};

// The products of one register tile, 32 x 32 sums in tiles 0 to 3, operands in 4, 5 (A) and 6, 7 (B). TALL, WIDE: more
// than 16 rows, columns. Each step loads the next operand as soon as the last product that reads the old one has started.
template <bool TALL, bool WIDE, int ROWS>
struct Tile32 {
    static void load_a(const uint32_t* a) {
        _tile_loadd(4, a, 64);
        if (TALL) _tile_loadd(5, a + tile_elements, 64);
    }
    static void load_b(const uint32_t* b) {
        _tile_loadd(6, b, 64);
        if (WIDE) _tile_loadd(7, b + tile_elements, 64);
    }
    static void then_a(const uint32_t* a, Writeback& writeback, Prefetcher& prefetcher) {
        _tile_dpbf16ps(0, 4, 6);
        if (WIDE) _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(4, a, 64);
        writeback.rows<ROWS>(), prefetcher.step();
        if (!TALL) return;
        _tile_dpbf16ps(2, 5, 6);
        if (WIDE) _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(5, a + tile_elements, 64);
    }
    static void then_b(const uint32_t* b, Writeback& writeback, Prefetcher& prefetcher) {
        _tile_dpbf16ps(0, 4, 6);
        if (TALL) _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(6, b, 64);
        writeback.rows<ROWS>(), prefetcher.step();
        if (!WIDE) return;
        _tile_dpbf16ps(1, 4, 7);
        if (TALL) _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(7, b + tile_elements, 64);
    }
    static void then_both(const uint32_t* a, const uint32_t* b, Writeback& writeback, Prefetcher& prefetcher) {
        _tile_dpbf16ps(0, 4, 6);
        if (WIDE) _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(4, a, 64);
        writeback.rows<ROWS>(), prefetcher.step();
        if (TALL) _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(6, b, 64);
        if (TALL && WIDE) _tile_dpbf16ps(3, 5, 7);
        if (TALL) _tile_loadd(5, a + tile_elements, 64);
        if (WIDE) _tile_loadd(7, b + tile_elements, 64);
    }
};

// C (m, n) = A B over k blocks of 32 steps. `Product<TALL, WIDE>::run(blocks, a, b, writeback, prefetcher)` leaves the sums of one register
// tile in tiles 0 to 3 and the writeback empty; `elements` are the 32-bit elements of 32 lanes x 32 steps. No sum runs over more
// than `chain` blocks. Fetched meanwhile: `ahead`, or the next panel of A where there is one.
template <template <bool, bool> typename Product>
void multiply_in_tiles(int64_t blocks, int elements, const void* pa, const void* pb, int64_t m, int64_t n, float* c, int64_t ldc,
                       Store store, int64_t chain, const Prefetch* next) {
    static const Shape shape;
    const uint32_t *a = static_cast<const uint32_t*>(pa), *b = static_cast<const uint32_t*>(pb);
    const int64_t panel = blocks * elements, turns = (n + side - 1) / side * blocks * Product<true, true>::turns;
    alignas(64) float sums[side * side];
    Writeback writeback;
    Prefetcher prefetcher(next, (m + side - 1) / side * turns);
    _tile_loadconfig(&shape);
    for (int64_t i = 0; i < m; i += side, a += panel) {
        if (!next && i + side < m) {
            Prefetch panel_of_a{reinterpret_cast<const char*>(a + panel), 0, 1, panel * 4};
            prefetcher = Prefetcher(&panel_of_a, turns);
        }
        for (int64_t j = 0; j < n; j += side) {
            float* to = c + i * ldc + j;
            for (int64_t p = 0; p < blocks; p += chain) {
                const uint32_t *ap = a + p * elements, *bp = b + j / side * panel + p * elements;
                int64_t count = blocks - p < chain ? blocks - p : chain;
                clear();
                if (m - i > 16 && n - j > 16)
                    Product<true, true>::run(count, ap, bp, writeback, prefetcher);
                else if (m - i > 16)
                    Product<true, false>::run(count, ap, bp, writeback, prefetcher);
                else if (n - j > 16)
                    Product<false, true>::run(count, ap, bp, writeback, prefetcher);
                else
                    Product<false, false>::run(count, ap, bp, writeback, prefetcher);
                if (!p && store != Store::add && m - i >= side && n - j >= side) {
                    write(to, ldc);
                    writeback = Writeback();
                } else {
                    write(sums, side);
                    writeback = Writeback(sums, to, ldc, m - i, n - j, p || store == Store::add);
                }
            }
        }
    }
    _tile_release();
    writeback.finish();
}

}  // namespace
}  // namespace amx
}  // namespace fastzsl
