// AVX-512: 14 x 32 register tile (28 sums, 2 vectors of B, 2 broadcasts of A: all 32 registers).
#define FZ_SPACE avx512
#define FZ_W 16
#define FZ_MR 14
#define FZ_REGISTER "v"
#include "isa/leaves.hpp"

namespace fastzsl {
const Kernels* avx512_kernels() {
    using namespace avx512;
    static const Kernels table = {"avx512", W, gemm_f32, gemm_f32, nullptr, softmax, softmax_grad, pooled_grad, dots, transpose,
                                  convert, lines, prepare, spin_f32, nullptr};
    return &table;
}
}  // namespace fastzsl
