// Packed operands: matrices cut into the panels that a register tile reads, block of steps by block of steps.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {

// The longest sum in registers for products of `steps` steps: as long as a block where the arithmetic must be fast; short
// where there is little of it, because there PyTorch's own small products round less than one long chain does.
inline int64_t chain_of(int64_t steps) { return steps > 1024 ? 256 : 64; }

// B packed whole: for each block of steps all its panels, so that a block is one run of memory.
class Packed {
public:
    Packed() = default;
    Packed(const Gemm& gemm, int64_t lanes, int64_t steps)
        : gemm_(&gemm), lanes_(lanes), steps_(steps), panels_(ceil_div(lanes, gemm.nr)),
          memory_(size_t(panels_ * gemm.panel_b(steps)) + 1024) {}

    int64_t blocks() const { return ceil_div(steps_, gemm_->block); }
    int64_t panels() const { return panels_; }
    int64_t lanes() const { return lanes_; }
    int64_t block_size(int64_t block) const { return std::min(gemm_->block, steps_ - block * gemm_->block); }
    char* block(int64_t block) const { return memory_.at(size_t(block * panels_ * gemm_->panel_b(gemm_->block))); }
    char* panel(int64_t b, int64_t panel) const { return block(b) + panel * gemm_->panel_b(block_size(b)); }

    // Fill the lanes of one panel that lie in [first, first + count), from a matrix whose lane 0 is lane `first` here.
    void fill(int64_t panel_index, const View& source, int64_t first, int64_t count) const {
        int64_t begin = std::max(panel_index * gemm_->nr, first);
        int64_t end = std::min((panel_index + 1) * gemm_->nr, first + count);
        if (begin >= end) return;
        for (int64_t b = 0; b < blocks(); b++)
            gemm_->pack_b(panel(b, panel_index), int(begin - panel_index * gemm_->nr), source.at(begin - first, b * gemm_->block),
                          source.type, source.lane_stride, source.step_stride, int(end - begin), block_size(b));
    }
    void clear(int64_t panel_index) const {
        for (int64_t b = 0; b < blocks(); b++) std::memset(panel(b, panel_index), 0, size_t(gemm_->panel_b(block_size(b))));
    }
    // Lanes that no source fills (the last panel's tail), and the padding of the last steps, must read as zero.
    bool ragged(int64_t panel_index) const {
        return (panel_index + 1) * gemm_->nr > lanes_ || steps_ % gemm_->ku != 0;
    }

private:
    const Gemm* gemm_ = nullptr;
    int64_t lanes_ = 0, steps_ = 0, panels_ = 0;
    Scratch memory_;
};

// The rows of a contiguous matrix W (m, d) as the columns of B, packed by all threads.
inline Packed packed_weight(const Gemm& gemm, const void* weight, DType type, int64_t m, int64_t d, int threads) {
    Packed packed(gemm, m, d);
    parallel(threads, packed.panels(), [&](int64_t panel, int) {
        if (packed.ragged(panel)) packed.clear(panel);
        packed.fill(panel, View{weight, type, d, 1}, 0, m);
    });
    return packed;
}

// Pack `count` rows of a matrix as one A panel.
inline void pack_rows(const Gemm& gemm, void* panel, const View& source, int64_t lane, int64_t step, int count, int64_t steps) {
    if (count < gemm.mr || steps % gemm.ku) std::memset(panel, 0, size_t(gemm.panel_a(steps)));
    gemm.pack_a(panel, 0, source.at(lane, step), source.type, source.lane_stride, source.step_stride, count, steps);
}

// The same for rows of regions, counted through all images: row = image * T + t.
inline void pack_regions(const Gemm& gemm, void* panel, const Regions& x, int64_t row, int64_t step, int count, int64_t steps) {
    if (count < gemm.mr || steps % gemm.ku) std::memset(panel, 0, size_t(gemm.panel_a(steps)));
    for (int lane = 0; lane < count;) {
        int64_t b = (row + lane) / x.T, t = (row + lane) % x.T;
        int run = int(std::min<int64_t>(count - lane, x.T - t));
        gemm.pack_a(panel, lane, x.at(b, t, step), x.type, x.stride_t, x.stride_d, run, steps);
        lane += run;
    }
}

// The regions that `pack_regions` will read, as far as they lie in one image or the images follow each other.
inline Prefetch prefetch_of(const Regions& x, int64_t row, int64_t step, int count, int64_t steps) {
    int64_t b = row / x.T, t = row % x.T, size = size_of(x.type);
    if (b >= x.B || step >= x.d) return {nullptr, 0, 0, 0};
    int64_t lanes = x.stride_b == x.T * x.stride_t ? std::min<int64_t>(count, x.B * x.T - row) : std::min<int64_t>(count, x.T - t);
    steps = std::min(steps, x.d - step);
    const char* data = static_cast<const char*>(x.at(b, t, step));
    if (x.stride_d == 1) return {data, x.stride_t * size, lanes, steps * size};
    return {data, x.stride_d * size, steps, lanes * size};
}

// Bytes of the panels that `regions_times` packs at a time.
inline int64_t regions_panel_bytes(const Gemm& gemm, int64_t d) { return gemm.high * gemm.panel_a(std::min(d, gemm.block)) + 1024; }

// Rows [row, row + rows) of the regions times a packed B, into c (rows, lanes of B). `panel` holds `regions_panel_bytes`.
inline void regions_times(const Gemm& gemm, const Regions& x, int64_t row, int64_t rows, const Packed& b, float* c, int64_t ldc,
                          void* panel) {
    const int64_t high = gemm.high * gemm.mr;
    for (int64_t block = 0; block < b.blocks(); block++)
        for (int64_t r = 0; r < rows; r += high) {
            const int64_t count = std::min(high, rows - r), bytes = gemm.panel_a(b.block_size(block));
            for (int64_t i = 0; i < count; i += gemm.mr)
                pack_regions(gemm, static_cast<char*>(panel) + i / gemm.mr * bytes, x, row + r + i, block * gemm.block,
                             int(std::min<int64_t>(gemm.mr, count - i)), b.block_size(block));
            const bool last = r + high >= rows;
            Prefetch next = prefetch_of(x, row + (last ? 0 : r + high), (block + last) * gemm.block, int(high), b.block_size(block));
            gemm.multiply(b.block_size(block), panel, b.block(block), count, b.lanes(), c + r * ldc, ldc,
                          block ? Store::add : Store::replace, chain_of(x.d), &next);
        }
}

// How many images a task takes: as many as fit a working set of `rows` rows, but so that the tasks come out even over the
// threads and the rows fill whole register tiles.
inline int64_t images_per_task(const Gemm& gemm, int64_t B, int64_t T, int threads, int64_t rows) {
    int64_t most = std::clamp<int64_t>(rows / std::max<int64_t>(T, 1), 1, std::max<int64_t>(B, 1)), best = 1, best_cost = INT64_MAX;
    for (int64_t g = 1; g <= most; g++) {
        int64_t cost = ceil_div(ceil_div(B, g), threads) * ceil_div(g * T, gemm.mr);
        if (cost <= best_cost) best = g, best_cost = cost;
    }
    return best;
}

}  // namespace fastzsl
