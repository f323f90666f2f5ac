// The general matrix product on all threads: prototypes P = K W, and the large sums of the backward pass.
#pragma once
#include "gemm/view.hpp"
#include "isa/kernels.hpp"

namespace fastzsl {

// C (m, n) = A B on all threads; A's lanes are the rows of C, B's lanes its columns, `k` steps. C is float32.
void product(const Gemm& gemm, int threads, int64_t m, int64_t n, int64_t k, const View& a, const View& b, float* c, int64_t ldc,
             Store store = Store::replace);
// B is the regions as a (B * T steps, d lanes) matrix.
void product(const Kernels& kernels, const Gemm& gemm, int threads, int64_t m, const View& a, const Regions& x, float* c, int64_t ldc,
             Store store = Store::replace);

}  // namespace fastzsl
