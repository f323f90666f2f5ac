// Which products an operation runs on.
#pragma once
#include "gemm/view.hpp"
#include "isa/dispatch.hpp"
#include "isa/kernels.hpp"

namespace fastzsl {

// Runs `call(gemm)` on the fastest products for these regions. bf16x3 is tried first, and given up at the first infinity or NaN:
// the call then starts again on the multiply-add unit, so it must write all of its output again.
template <typename Call>
void with_products(const Kernels& kernels, const Regions& x, const Call& call) {
    if (x.type == DType::bf16) return call(kernels.bf16);
    if (kernels.bf16x3 && x.B * x.T >= bf16x3_from()) {
        try {
            return call(*kernels.bf16x3);
        } catch (const NotFinite&) {
        }
    }
    call(kernels.f32);
}

}  // namespace fastzsl
