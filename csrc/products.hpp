// Which products an operation runs on.
#pragma once
#include "kernels.hpp"

namespace fastzsl {

// Runs `call(gemm)` on the fastest products for this type. Split products are tried first and given up at the first
// infinity or NaN: the call then starts again on the multiply-add unit, so it must write all of its output again.
template <typename Call>
void with_products(const Kernels& kernels, DType type, const Call& call) {
    if (type == DType::bf16) return call(kernels.bf16);
    if (kernels.split) {
        try {
            return call(*kernels.split);
        } catch (const Unsplittable&) {
        }
    }
    call(kernels.f32);
}

}  // namespace fastzsl
