#include "gemm/product.hpp"

#include <algorithm>
#include <cstring>

#include "gemm/packed.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {
namespace {

constexpr int64_t steps_packed = 32;
constexpr int64_t few_sums = 64 << 10, part_steps = 512;
constexpr int64_t rows_at_once = 392;  // with the steps: the part of A that stays in the second cache

// `pack_b(panel, lane, step, lanes, steps)` packs one panel of B. Each task owns some columns of C and walks the steps in order:
// the order of every sum is the same for any number of threads.
template <typename PackB>
void run(const Gemm& gemm, int threads, int64_t m, int64_t n, int64_t k, const View& a, const PackB& pack_b, float* c,
         int64_t ldc, Store store, int64_t chain) {
    if (m == 0 || n == 0) return;
    if (k == 0) {
        if (store == Store::replace)
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
    int64_t width = std::clamp<int64_t>(columns / gemm.tasks / threads, 1, gemm.widest), tasks = ceil_div(columns, width);
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
                              block ? Store::add : store, chain, nullptr);
        }
    });
}

auto packed_from(const Gemm& gemm, const View& b) {
    return [&](void* panel, int64_t lane, int64_t step, int lanes, int64_t steps) {
        gemm.pack_b(panel, 0, b.at(lane, step), b.type, b.lane_stride, b.step_stride, lanes, steps);
    };
}

// Few sums of many steps: a task makes them over some of the steps, so that no thread reads what another has packed. How the
// steps are cut does not depend on the number of threads, and the parts are added in order. Threads to spare share the columns.
void in_parts(const Gemm& gemm, int threads, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t ldc,
              Store store) {
    const int64_t parts = ceil_div(k, part_steps), ld = row_stride(n);
    const int64_t groups = std::clamp<int64_t>(threads / parts, 1, ceil_div(n, gemm.nr));
    const int64_t width = round_up(ceil_div(n, groups), gemm.nr);
    Scratch sums(size_t(parts * m * ld) * 4);
    parallel(threads, parts * groups, [&](int64_t task, int) {
        const int64_t part = task % parts, first = part * part_steps, steps = std::min(part_steps, k - first);
        const int64_t column = task / parts * width, count = std::clamp<int64_t>(n - column, 0, width);
        const View rows{a.at(0, first), a.type, a.lane_stride, a.step_stride};
        const View columns{b.at(column, first), b.type, b.lane_stride, b.step_stride};
        run(gemm, 1, m, count, steps, rows, packed_from(gemm, columns), sums.as<float>() + part * m * ld + column, ld,
            Store::replace, chain_of(k));
    });
    parallel(threads, ceil_div(m, 16), [&](int64_t task, int) {
        for (int64_t i = task * 16; i < std::min(m, (task + 1) * 16); i++)
            for (int64_t part = 0; part < parts; part++) {
                const float* from = sums.as<float>() + (part * m + i) * ld;
                if (!part && store == Store::replace)
                    std::memcpy(c + i * ldc, from, size_t(n) * sizeof(float));
                else
                    for (int64_t j = 0; j < n; j++) c[i * ldc + j] += from[j];
            }
    });
}

}  // namespace

void product(const Gemm& gemm, int threads, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t ldc,
             Store store) {
    if (m * n <= few_sums && k >= 2 * part_steps) {
        in_parts(gemm, threads, m, n, k, a, b, c, ldc, store);
        return;
    }
    run(gemm, threads, m, n, k, a, packed_from(gemm, b), c, ldc, store, chain_of(k));
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
    run(gemm, threads, m, x.d, x.B * x.T, a, pack, c, ldc, store, chain_of(x.B * x.T));
}

}  // namespace fastzsl
