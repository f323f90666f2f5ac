// AVX2 + FMA: 6 x 16 register tile (12 sums, 2 vectors of B, a broadcast of A: 15 of the 16 registers).
#define FZ_SPACE avx2
#define FZ_W 8
#define FZ_MR 6
#define FZ_REGISTER "x"
#include "isa/leaves.hpp"

namespace fastzsl {
const Kernels* avx2_kernels() {
    using namespace avx2;
    static const Kernels table = {"avx2", W, gemm_f32, gemm_f32, nullptr, softmax, softmax_grad, pooled_grad, dots, transpose,
                                  convert, lines, prepare, spin_f32, nullptr};
    return &table;
}
}  // namespace fastzsl
