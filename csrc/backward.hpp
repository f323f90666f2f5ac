// What both backward passes share.
#pragma once
#include <vector>

#include "panels.hpp"
#include "widened.hpp"

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

// One worker's memory, laid out before it is allocated.
class Layout {
public:
    int64_t bytes(int64_t count) {
        int64_t at = size_;
        size_ += round_up(count + 64, 64);
        return at;
    }
    int64_t floats(int64_t count) { return bytes(count * 4); }
    int64_t size() const { return size_; }

private:
    int64_t size_ = 0;
};

}  // namespace fastzsl
