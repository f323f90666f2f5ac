// Portable: four floats in a vector, which every 64-bit ARM and x86 processor has; elsewhere the compiler splits it.
#define FZ_SPACE portable
#define FZ_W 4
#define FZ_MR 6
#if defined(__x86_64__)
#define FZ_REGISTER "x"
#elif defined(__aarch64__)
#define FZ_REGISTER "w"
#else
#define FZ_REGISTER "m"
#endif
#include "isa/leaves.hpp"

namespace fastzsl {
const Kernels* portable_kernels() {
    using namespace portable;
    static const Kernels table = {"portable", W, gemm_f32, gemm_f32, nullptr, softmax, softmax_grad, pooled_grad, dots, transpose,
                                  convert, lines, prepare, spin_f32, nullptr};
    return &table;
}
}  // namespace fastzsl
