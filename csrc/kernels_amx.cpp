// AMX: bfloat16 products in tile registers, 32 x 32 sums in four tiles; everything else as AVX-512.
#define FZ_SPACE amx
#define FZ_W 16
#define FZ_MR 14
#define FZ_REGISTER "v"
#include "body.hpp"
#include "pairs.hpp"

namespace fastzsl {
namespace amx {
namespace {

constexpr int side = 32;             // rows and columns of the register tile
constexpr int tile_elements = 256;   // 32-bit elements of one hardware tile: 16 rows x 64 bytes

// A: tiles of 16 rows x 32 steps, a row after the other. B: tiles of 16 pairs of steps x 16 columns. Both: two tiles for
// each 32 steps.
template <bool BY_LANE>
void pack_tiles(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                int64_t steps) {
    for (int lane = first; lane < first + count;) {
        int half = lane / 16, offset = lane % 16;
        int lanes = first + count - lane < 16 - offset ? first + count - lane : 16 - offset;
        __mmask16 keep = __mmask16((1u << lanes) - 1);
        for (int64_t p = 0; p < steps; p += 32) {
            int some = steps - p < 32 ? int(steps - p) : 32;
            uint32_t* out = static_cast<uint32_t*>(panel) + (p / 32 * 2 + half) * tile_elements;
            __m512i r[16];
            load_block(r, BY_LANE, src, type, (lane - first) * lane_stride + p * step_stride, lane_stride, step_stride, lanes,
                       some);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (!BY_LANE)
                    _mm512_mask_storeu_epi32(out + i * 16 + offset, keep, r[i]);
                else if (i < lanes)
                    _mm512_store_si512(out + (offset + i) * 16, r[i]);
        }
        lane += lanes;
    }
}

struct alignas(64) Shape {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
    Shape() {
        for (int i = 0; i < 8; i++) bytes[i] = 64, rows[i] = 16;
    }
};

inline void product(int64_t blocks, const uint32_t* a, const uint32_t* b) {
    for (int64_t p = 0; p < blocks; p++, a += 2 * tile_elements, b += 2 * tile_elements) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + tile_elements, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, a + tile_elements, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

inline void clear() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}
inline void read(const float* c, int64_t ld) {
    _tile_loadd(0, c, size_t(ld * 4));
    _tile_loadd(1, c + 16, size_t(ld * 4));
    _tile_loadd(2, c + 16 * ld, size_t(ld * 4));
    _tile_loadd(3, c + 16 * ld + 16, size_t(ld * 4));
}
inline void write(float* c, int64_t ld) {
    _tile_stored(0, c, size_t(ld * 4));
    _tile_stored(1, c + 16, size_t(ld * 4));
    _tile_stored(2, c + 16 * ld, size_t(ld * 4));
    _tile_stored(3, c + 16 * ld + 16, size_t(ld * 4));
}

// The sums in the tiles to the (rows, columns) of C that are there.
inline void put_tiles(float* c, int64_t ld, int64_t rows, int64_t columns, bool add) {
    if (!add && rows >= side && columns >= side) return write(c, ld);
    alignas(64) float part[side * side];
    write(part, side);
    if (rows > side) rows = side;
    if (columns > side) columns = side;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t q = 0; q < columns; q += 16) {
            __mmask16 keep = columns - q >= 16 ? __mmask16(0xffff) : __mmask16((1u << (columns - q)) - 1);
            __m512 sum = _mm512_load_ps(part + r * side + q);
            if (add) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(keep, c + r * ld + q));
            _mm512_mask_storeu_ps(c + r * ld + q, keep, sum);
        }
}

void multiply_tiles(int64_t k, const void* pa, const void* pb, int64_t m, int64_t n, float* c, int64_t ldc, Store store,
                    int64_t /* chain: these sums are of bfloat16 products */, const Ahead* ahead) {
    static const Shape shape;
    Fetch fetch(ahead, (m + side - 1) / side * ((n + side - 1) / side));
    const uint32_t *a = static_cast<const uint32_t*>(pa), *b = static_cast<const uint32_t*>(pb);
    int64_t blocks = (k + 31) / 32, panel = blocks * 2 * tile_elements;
    _tile_loadconfig(&shape);
    for (int64_t i = 0; i < m; i += side) {
        for (int64_t j = 0; j < n; j += side) {
            float* to = c + i * ldc + j;
            fetch.some();
            const bool onto = store == Store::add && m - i >= side && n - j >= side;  // sums of C go on in the tiles
            if (onto)
                read(to, ldc);
            else
                clear();
            product(blocks, a + i / side * panel, b + j / side * panel);
            put_tiles(to, ldc, m - i, n - j, store == Store::add && !onto);
        }
    }
    _tile_release();
}

double spin_bf16(int64_t rounds) {
    static const Shape shape;
    _tile_loadconfig(&shape);
    clear();
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int64_t r = 0; r < rounds; r++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return double(rounds) * 4 * 16 * 16 * 32;
}

const Gemm gemm_bf16 = {side, side, 32, 2, 256, pack_tiles<true>, pack_tiles<false>, multiply_tiles};

}  // namespace
}  // namespace amx
}  // namespace fastzsl
#include "split.hpp"

namespace fastzsl {
const Kernels* amx_kernels() {
    using namespace amx;
    static const Kernels table = {"amx", W,         gemm_f32, gemm_bf16, &gemm_split, softmax,  softmax_grad,
                                  dots,  transpose, convert,  lines,     spin_f32, spin_bf16};
    return &table;
}
}  // namespace fastzsl
