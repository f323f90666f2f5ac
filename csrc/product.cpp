// The general matrix product on the same micro-kernels: prototypes P = K W, and the large sums of the backward pass.
#include "panels.hpp"

namespace fastzsl {
namespace {

constexpr int64_t steps_packed = 32;
constexpr int64_t bytes_at_once = 640 << 10;
constexpr int64_t rows_at_once = 392;

// `pack_b(panel, lane, step, lanes, steps)` packs one panel of B, `ahead_of` tells where so many of B's numbers lie. Each task owns some columns of C and walks the steps in order:
// the order of every sum is the same for any number of threads.
template <typename PackB, typename AheadOf>
void run(const Gemm& gemm, int threads, int64_t m, int64_t n, int64_t k, const View& a, const PackB& pack_b,
         const AheadOf& ahead_of, float* c, int64_t ldc, Store store) {
    if (m == 0 || n == 0) return;
    if (k == 0) {
        if (store != Store::add)
            for (int64_t i = 0; i < m; i++) std::memset(c + i * ldc, 0, size_t(n) * sizeof(float));
        return;
    }
    const int64_t steps_at_once = gemm.block;
    int64_t blocks = ceil_div(k, steps_at_once), rows = ceil_div(m, gemm.mr), columns = ceil_div(n, gemm.nr);
    auto size = [&](int64_t block) { return std::min(steps_at_once, k - block * steps_at_once); };
    auto start = [&](int64_t block) { return block * rows * gemm.panel_a(steps_at_once); };
    Scratch packed(size_t(start(blocks - 1) + rows * gemm.panel_a(size(blocks - 1))) + 1024);
    parallel(threads, rows, [&](int64_t r, int) {
        int count = int(std::min<int64_t>(gemm.mr, m - r * gemm.mr));
        for (int64_t block = 0; block < blocks; block++)
            pack_rows(gemm, packed.at(size_t(start(block) + r * gemm.panel_a(size(block)))), a, r * gemm.mr, block * steps_at_once,
                      count, size(block));
    });
    int64_t width = std::clamp<int64_t>(columns / (2 * threads), 1, 8), tasks = ceil_div(columns, width);
    // A task's part of C is read and written once for all blocks of B that are packed together: as many as the second cache
    // holds, unless that part of C stays there itself.
    int64_t bytes_of_block = width * gemm.panel_b(steps_at_once);
    int64_t together = m * width * gemm.nr * 4 <= bytes_at_once ? 1 : std::clamp<int64_t>(bytes_at_once / bytes_of_block, 1, blocks);
    int64_t at_once = together == 1 ? std::max<int64_t>(1, rows_at_once / gemm.mr) : 1;
    int64_t bytes = round_up(together * bytes_of_block, 64) + 1024;
    Scratch panels{size_t(bytes * threads)};
    parallel(threads, tasks, [&](int64_t task, int worker) {
        char* base = panels.at(size_t(bytes * worker));
        int64_t first = task * width * gemm.nr, count = std::min(n - first, width * gemm.nr);
        for (int64_t start_block = 0; start_block < blocks; start_block += together) {
            int64_t end_block = std::min(start_block + together, blocks);
            for (int64_t block = start_block; block < end_block; block++) {
                char* panel = base + (block - start_block) * bytes_of_block;
                int64_t steps = size(block);
                // A few steps of all panels at a time: a row of B is read as one run, not a panel's width per page.
                for (int64_t j = 0; j < count; j += gemm.nr)
                    if (count - j < gemm.nr || steps % gemm.ku)
                        std::memset(panel + j / gemm.nr * gemm.panel_b(steps), 0, size_t(gemm.panel_b(steps)));
                for (int64_t s = 0; s < steps; s += steps_packed)
                    for (int64_t j = 0; j < count; j += gemm.nr)
                        pack_b(panel + j / gemm.nr * gemm.panel_b(steps) + gemm.panel_b(s), first + j, block * steps_at_once + s,
                               int(std::min<int64_t>(gemm.nr, count - j)), std::min(steps_packed, steps - s));
            }
            // What will be packed next is fetched during the products, an equal share with each product.
            int64_t next = end_block * steps_at_once;
            int64_t share = ceil_div(std::min(k - next, together * steps_at_once), ceil_div(rows, at_once));
            for (int64_t r = 0; r < rows; r += at_once) {
                int64_t from = next + r / at_once * share;
                Ahead ahead = ahead_of(first, from, count, std::min(k - from, share));
                for (int64_t block = start_block; block < end_block; block++)
                    gemm.multiply(size(block), packed.at(size_t(start(block) + r * gemm.panel_a(size(block)))),
                                  base + (block - start_block) * bytes_of_block, std::min(m - r * gemm.mr, at_once * gemm.mr), count,
                                  c + r * gemm.mr * ldc + first, ldc, block ? Store::add : store, chain_of(k),
                                  block == start_block ? &ahead : nullptr);
            }
        }
    });
}

}  // namespace

void product(const Gemm& gemm, int threads, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t ldc,
             Store store) {
    auto pack = [&](void* panel, int64_t lane, int64_t step, int lanes, int64_t steps) {
        gemm.pack_b(panel, 0, b.at(lane, step), b.type, b.lane_stride, b.step_stride, lanes, steps);
    };
    auto ahead = [&](int64_t lane, int64_t step, int64_t lanes, int64_t steps) {
        const char* data = static_cast<const char*>(b.at(lane, step));
        int64_t size = size_of(b.type);
        return b.lane_stride == 1 ? Ahead{data, b.step_stride * size, steps, lanes * size}
                                  : Ahead{data, b.lane_stride * size, lanes, steps * size};
    };
    run(gemm, threads, m, n, k, a, pack, ahead, c, ldc, store);
}

void product(const Kernels& kernels, const Gemm& gemm, int threads, int64_t m, const View& a, const Regions& x, float* c,
             int64_t ldc, Store store) {
    if (x.B <= 1 || x.stride_b == x.T * x.stride_t) {
        product(gemm, threads, m, x.d, x.B * x.T, a, View{x.data, x.type, x.stride_d, x.stride_t}, c, ldc, store);
        return;
    }
    // The steps of two images do not lie one stride apart: lay a few of them out in rows first.
    auto pack = [&](void* panel, int64_t lane, int64_t step, int lanes, int64_t steps) {
        float rows[steps_packed * 32];
        for (int64_t p = 0; p < steps;) {
            int64_t b = (step + p) / x.T, t = (step + p) % x.T, run = std::min(steps - p, x.T - t);
            kernels.lines(rows + p * 32, 0, x.at(b, t, lane), x.type, x.stride_d, x.stride_t, lanes, run);  // nr <= 32
            p += run;
        }
        gemm.pack_b(panel, 0, rows, DType::f32, 1, 32, lanes, steps);
    };
    auto nothing = [](int64_t, int64_t, int64_t, int64_t) { return Ahead{nullptr, 0, 0, 0}; };
    run(gemm, threads, m, x.d, x.B * x.T, a, pack, nothing, c, ldc, store);
}

}  // namespace fastzsl
