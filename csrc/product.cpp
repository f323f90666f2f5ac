// The general matrix product on the same micro-kernels: prototypes P = K W, and the large sums of the backward pass.
#include "panels.hpp"

namespace fastzsl {
namespace {

constexpr int64_t steps_packed = 32;
constexpr int64_t rows_at_once = 392;  // with the steps: the part of A that stays in the second cache

// `pack_b(panel, lane, step, lanes, steps)` packs one panel of B. Each task owns some columns of C and walks the steps in order:
// the order of every sum is the same for any number of threads.
template <typename PackB>
void run(const Gemm& gemm, int threads, int64_t m, int64_t n, int64_t k, const View& a, const PackB& pack_b, float* c,
         int64_t ldc, Store store) {
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
    int64_t width = std::clamp<int64_t>(columns / gemm.tasks / threads, 1, gemm.wide), tasks = ceil_div(columns, width);
    int64_t bytes = round_up(width * gemm.panel_b(steps_at_once), 64) + 1024, high = ceil_div(rows_at_once, gemm.mr);
    Scratch panels{size_t(bytes * threads)};
    parallel(threads, tasks, [&](int64_t task, int worker) {
        char* panel = panels.at(size_t(bytes * worker));
        int64_t first = task * width * gemm.nr, count = std::min(n - first, width * gemm.nr);
        for (int64_t block = 0; block < blocks; block++) {
            int64_t steps = size(block);
            // A few steps of all panels at a time: a row of B is read as one run, not a panel's width per page.
            for (int64_t j = 0; j < count; j += gemm.nr)
                if (count - j < gemm.nr || steps % gemm.ku)
                    std::memset(panel + j / gemm.nr * gemm.panel_b(steps), 0, size_t(gemm.panel_b(steps)));
            for (int64_t s = 0; s < steps; s += steps_packed)
                for (int64_t j = 0; j < count; j += gemm.nr)
                    pack_b(panel + j / gemm.nr * gemm.panel_b(steps) + gemm.panel_b(s), first + j, block * steps_at_once + s,
                           int(std::min<int64_t>(gemm.nr, count - j)), std::min(steps_packed, steps - s));
            for (int64_t r = 0; r < rows; r += high)
                gemm.multiply(steps, packed.at(size_t(start(block) + r * gemm.panel_a(steps))), panel,
                              std::min(m - r * gemm.mr, high * gemm.mr), count, c + r * gemm.mr * ldc + first, ldc,
                              block ? Store::add : store, chain_of(k), nullptr);
        }
    });
}

}  // namespace

void product(const Gemm& gemm, int threads, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t ldc,
             Store store) {
    auto pack = [&](void* panel, int64_t lane, int64_t step, int lanes, int64_t steps) {
        gemm.pack_b(panel, 0, b.at(lane, step), b.type, b.lane_stride, b.step_stride, lanes, steps);
    };
    run(gemm, threads, m, n, k, a, pack, c, ldc, store);
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
    run(gemm, threads, m, x.d, x.B * x.T, a, pack, c, ldc, store);
}

}  // namespace fastzsl
