// Which products an operation runs on.
#pragma once
#include "isa.hpp"
#include "ops.hpp"

namespace fastzsl {

// Runs `call(gemm)` on the fastest products for these regions. Split products are tried first and given up at the first
// infinity or NaN: the call then starts again on the multiply-add unit, so it must write all of its output again.
template <typename Call>
void with_products(const Kernels& kernels, const Regions& x, const Call& call) {
    if (x.type == DType::bf16) return call(kernels.bf16);
    if (kernels.split && x.B * x.T >= split_from()) {
        try {
            return call(*kernels.split);
        } catch (const Unsplittable&) {
        }
    }
    call(kernels.f32);
}

}  // namespace fastzsl
