// What both backward passes share.
#pragma once
#include <algorithm>

#include "gemm/packed.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "ops/pooling.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {

// A gradient as float32 rows: the caller's memory if it is float32, else working memory that `finish` rounds.
class Result {
public:
    Result(const Kernels& kernels, void* out, DType type, int64_t rows, int64_t columns)
        : kernels_(kernels), out_(out), type_(type), rows_(static_cast<float*>(out)), n_(rows), columns_(columns) {
        if (!out || type == DType::f32) return;
        memory_ = Scratch(size_t(rows * columns) * 4);
        rows_ = memory_.as<float>();
    }
    float* rows() const { return rows_; }
    void finish(int threads) const {
        if (!out_ || type_ == DType::f32) return;
        parallel(threads, n_, [&](int64_t i, int) {
            kernels_.convert(columns_, rows_ + i * columns_, DType::f32, element(out_, type_, i * columns_), type_);
        });
    }

private:
    const Kernels& kernels_;
    void* out_;
    DType type_;
    float* rows_;
    int64_t n_, columns_;
    Scratch memory_;
};

// C (m, n) = A B, small enough for one thread's caches: all steps at once. `left` and `right` take both packed.
inline void small_product(const Gemm& gemm, int64_t m, int64_t n, int64_t steps, const View& a, const View& b, float* to, int64_t ld,
                  Store store, char* left, char* right) {
    for (int64_t r = 0; r < m; r += gemm.mr)
        pack_rows(gemm, left + r / gemm.mr * gemm.panel_a(steps), a, r, 0, int(std::min<int64_t>(gemm.mr, m - r)), steps);
    pack_values(gemm, b, 0, n, steps, right);
    gemm.multiply(steps, left, right, m, n, to, ld, store, chain_of(steps), nullptr);
}

}  // namespace fastzsl
