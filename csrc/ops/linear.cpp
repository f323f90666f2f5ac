// A linear layer of the class side: few rows, large weights. PyTorch's own product library does not use all vector units of
// every processor; see bench/NOTES.md.
#include <cstring>

#include "gemm/product.hpp"
#include "isa/kernels.hpp"
#include "ops/ops.hpp"

namespace fastzsl {

void linear_layer(const Kernels& kernels, const Linear& call) {
    if (call.bias)
        for (int64_t i = 0; i < call.m; i++) std::memcpy(call.out + i * call.n, call.bias, size_t(call.n) * sizeof(float));
    product(kernels.f32, call.threads, call.m, call.n, call.k, call.a, call.b, call.out, call.n,
            call.bias ? Store::add : Store::replace);
}

}  // namespace fastzsl
