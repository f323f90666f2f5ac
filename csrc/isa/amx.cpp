// AMX: bfloat16 products in tile registers, 32 x 32 sums in four tiles; everything else as AVX-512.
#define FZ_SPACE amx
#define FZ_W 16
#define FZ_MR 14
#define FZ_REGISTER "v"
#include "isa/amx_bf16x3.hpp"
#include "isa/amx_tiles.hpp"
#include "isa/bf16_pairs.hpp"
#include "isa/leaves.hpp"

namespace fastzsl {
namespace amx {
namespace {

// A is packed in tiles of 16 rows by 32 steps, B in tiles of 16 pairs of steps by 16 columns. A panel has two tiles for each
// 32 steps.
template <bool BY_LANE>
void pack_tiles(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                int64_t steps) {
    for (int lane = first; lane < first + count;) {
        int half = lane / 16, offset = lane % 16;
        int lanes = first + count - lane < 16 - offset ? first + count - lane : 16 - offset;
        __mmask16 keep = __mmask16((1u << lanes) - 1);
        for (int64_t p = 0; p < steps; p += 32) {
            int some_steps = steps - p < 32 ? int(steps - p) : 32;
            uint32_t* out = static_cast<uint32_t*>(panel) + (p / 32 * 2 + half) * tile_elements;
            __m512i r[16];
            load_block(r, BY_LANE, src, type, (lane - first) * lane_stride + p * step_stride, lane_stride, step_stride, lanes,
                       some_steps);
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

template <bool TALL, bool WIDE>
struct PairProduct : Tile32<TALL, WIDE, 4> {
    using Tile = Tile32<TALL, WIDE, 4>;
    static constexpr int turns = 1;
    static constexpr int step = 2 * tile_elements;

    static void run(int64_t blocks, const uint32_t* a, const uint32_t* b, Writeback writeback, Prefetcher& prefetcher) {
        Tile::load_a(a), Tile::load_b(b);
        for (int64_t p = 1; p <= blocks; p++) {
            int64_t next = p < blocks ? p * step : 0;
            Tile::then_both(a + next, b + next, writeback, prefetcher);
        }
        writeback.finish();
    }
};

void multiply_tiles(int64_t k, const void* a, const void* b, int64_t m, int64_t n, float* c, int64_t ldc, Store store,
                    int64_t /* chain: bfloat16 products need no short ones */, const Prefetch* next) {
    multiply_in_tiles<PairProduct>((k + 31) / 32, 2 * tile_elements, a, b, m, n, c, ldc, store, (k + 31) / 32, next);
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

const Gemm gemm_bf16 = {side, side, 32, 2, 256, 1, 32, 1, pack_tiles<true>, pack_tiles<false>, multiply_tiles};

}  // namespace
}  // namespace amx

const Kernels* amx_kernels() {
    using namespace amx;
    static const Kernels table = {"amx", W,         gemm_f32, gemm_bf16, &gemm_bf16x3, softmax,  softmax_grad, pooled_grad,
                                  dots,  transpose, convert,  lines,     prepare, spin_f32, spin_bf16};
    return &table;
}
}  // namespace fastzsl
