// prepare_regions: stored feature maps to regions, in one pass over memory.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "ops/ops.hpp"
#include "runtime/layout.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {
namespace {

constexpr int64_t most_columns = 512;  // of a task, so that few images still give work to all threads
constexpr int64_t channels = 64;       // turned at a time: their runs of regions stay in the first cache

// lines[t][c] = the number of region `offsets[t]` and channel c, for `count` channels.
template <typename T>
void turn(const void* from, const int64_t* offsets, int64_t regions, int64_t stride, int64_t count, void* lines) {
    T* to = static_cast<T*>(lines);
    for (int64_t c = 0; c < count; c++) {
        const T* row = static_cast<const T*>(from) + c * stride;
        for (int64_t t = 0; t < regions; t++) to[t * channels + c] = row[offsets[t]];
    }
}

void check(const int64_t* indices, int64_t count, int64_t below, const char* message) {
    for (int64_t i = 0; indices && i < count; i++)
        if (indices[i] < 0 || indices[i] >= below) throw std::out_of_range(message);
}

}  // namespace

void prepare_regions(const Kernels& k, const Prepare& c) {
    const Regions& x = c.stored;
    check(c.images, c.B, x.B, "images has an index outside the stored features");
    check(c.kept, c.B * c.T, x.T, "kept has an index outside the regions");
    if (!c.B || !c.T || !x.d) return;
    const int64_t parts = c.B >= 2 * c.threads ? 1 : ceil_div(x.d, most_columns), width = ceil_div(x.d, parts);
    Layout layout;
    const int64_t at_offsets = layout.bytes(c.T * 8), at_lines = layout.bytes(c.T * channels * 4);
    Scratch memory(size_t(layout.size() * c.threads));
    parallel(c.threads, c.B * parts, [&](int64_t task, int worker) {
        const int64_t b = task / parts, first = task % parts * width, end = std::min(x.d, first + width);
        const int64_t image = c.images ? c.images[b] : b;
        char* base = memory.at(size_t(layout.size() * worker));
        int64_t* offsets = reinterpret_cast<int64_t*>(base + at_offsets);
        char* lines = base + at_lines;
        for (int64_t t = 0; t < c.T; t++) offsets[t] = (c.kept ? c.kept[b * c.T + t] : t) * x.stride_t;
        auto row = [&](int64_t t, int64_t column, int64_t count, const void* from) {
            const float* factor = c.factor ? c.factor + b * x.d + column : nullptr;
            k.prepare(count, from, x.type, c.root, factor, c.scale, element(c.out, c.out_type, (b * c.T + t) * x.d + column),
                      c.out_type);
        };
        if (x.stride_d == 1) {
            for (int64_t t = 0; t < c.T; t++) row(t, first, end - first, element(x.at(image, 0, first), x.type, offsets[t]));
            return;
        }
        for (int64_t column = first; column < end; column += channels) {
            const int64_t count = std::min(channels, end - column);
            const void* from = x.at(image, 0, column);
            if (x.type == DType::f32)
                turn<uint32_t>(from, offsets, c.T, x.stride_d, count, lines);
            else
                turn<uint16_t>(from, offsets, c.T, x.stride_d, count, lines);
            for (int64_t t = 0; t < c.T; t++) row(t, column, count, lines + t * channels * size_of(x.type));
        }
    });
}

}  // namespace fastzsl
