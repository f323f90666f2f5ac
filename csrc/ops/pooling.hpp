// Attended regions of one image: X~ = A X, on packed attention.
#pragma once
#include <algorithm>
#include <cstring>

#include "gemm/packed.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"

namespace fastzsl {

// Columns of X~ made at once: all of them if the packed regions fit the second cache. Whole rows are written twice as fast as
// short pieces of them.
inline int64_t pooled_columns(const Gemm& gemm, int64_t T, int64_t d) {
    int64_t panels = std::max<int64_t>(4, (int64_t(800) << 10) / gemm.panel_b(T));
    return std::min(round_up(d, gemm.nr), panels * gemm.nr);
}

inline int64_t packed_attention_bytes(const Gemm& gemm, int64_t classes, int64_t T) {
    return ceil_div(classes, gemm.mr) * gemm.panel_a(T);
}
inline int64_t packed_values_bytes(const Gemm& gemm, int64_t columns, int64_t T) {
    return ceil_div(columns, gemm.nr) * gemm.panel_b(T);
}

// Pack attention (T, classes), classes contiguous, as A.
inline void pack_attention(const Gemm& gemm, const float* attention, int64_t ld, int64_t classes, int64_t T, char* packed) {
    for (int64_t r = 0; r < classes; r += gemm.mr)
        pack_rows(gemm, packed + r / gemm.mr * gemm.panel_a(T), View{attention, DType::f32, 1, ld}, r, 0,
                  int(std::min<int64_t>(gemm.mr, classes - r)), T);
}

// Pack columns [first, first + count) of values (T, ...), given as a view whose lanes are the columns, as B.
inline void pack_values(const Gemm& gemm, const View& values, int64_t first, int64_t count, int64_t T, char* packed) {
    for (int64_t j = 0; j < count; j += gemm.nr) {
        char* panel = packed + j / gemm.nr * gemm.panel_b(T);
        int lanes = int(std::min<int64_t>(gemm.nr, count - j));
        if (lanes < gemm.nr || T % gemm.ku) std::memset(panel, 0, size_t(gemm.panel_b(T)));
        gemm.pack_b(panel, 0, values.at(first + j, 0), values.type, values.lane_stride, values.step_stride, lanes, T);
    }
}

// out (classes, d) of `type`, row stride ldo; `values` holds packed columns, `rows` (mr, pooled_columns) floats is used only
// where `type` is not float32.
inline void pool_regions(const Kernels& kernels, const Gemm& gemm, const Regions& x, int64_t image, const char* attention,
                         int64_t classes, void* out, DType type, int64_t ldo, Store store, char* values, float* rows) {
    View view{x.at(image, 0, 0), x.type, x.stride_d, x.stride_t};
    const int64_t most = pooled_columns(gemm, x.T, x.d);
    for (int64_t j = 0; j < x.d; j += most) {
        int64_t count = std::min(most, x.d - j);
        pack_values(gemm, view, j, count, x.T, values);
        if (type == DType::f32) {
            gemm.multiply(x.T, attention, values, classes, count, static_cast<float*>(out) + j, ldo, store, chain_of(x.T), nullptr);
            continue;
        }
        for (int64_t r = 0; r < classes; r += gemm.mr) {
            int64_t lanes = std::min<int64_t>(gemm.mr, classes - r);
            gemm.multiply(x.T, attention + r / gemm.mr * gemm.panel_a(x.T), values, lanes, count, rows, most, Store::replace,
                          chain_of(x.T), nullptr);
            for (int64_t i = 0; i < lanes; i++)
                kernels.convert(count, rows + i * most, DType::f32, static_cast<uint16_t*>(out) + (r + i) * ldo + j, type);
        }
    }
}

// e = W x~ + b of `rows` <= mr attended features (rows, d), row stride ld, into `decoded` (rows, m), row stride ld_decoded. `weight`
// holds the rows of W as columns; `panel` holds one A panel of a block; `bias` may be null.
inline void decode(const Gemm& gemm, const Packed& weight, const float* bias, const float* attended, int64_t ld, int64_t rows,
                   int64_t d, float* decoded, int64_t ld_decoded, char* panel) {
    for (int64_t b = 0; b < weight.blocks(); b++) {
        pack_rows(gemm, panel, View{attended, DType::f32, ld, 1}, 0, b * gemm.block, int(rows), weight.block_size(b));
        gemm.multiply(weight.block_size(b), panel, weight.block(b), rows, weight.lanes(), decoded, ld_decoded,
                      b ? Store::add : Store::replace, chain_of(d), nullptr);
    }
    for (int64_t r = 0; bias && r < rows; r++)
        for (int64_t j = 0; j < weight.lanes(); j++) decoded[r * ld_decoded + j] += bias[j];
}

}  // namespace fastzsl
