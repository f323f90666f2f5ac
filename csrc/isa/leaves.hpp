// All leaf routines in the compiler's own vector types, written once; see isa/vector.hpp for what an instruction set's source
// file defines before it includes this.
#pragma once
#include "isa/multiply.hpp"
#include "isa/packing.hpp"
#include "isa/prepare.hpp"
#include "isa/rows.hpp"
#include "isa/softmax.hpp"
#include "isa/transpose.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

const Gemm gemm_f32 = {MR, NR, 1, 4, 256, 2, 8, W < 16 ? 8 : 1, pack<MR>, pack<NR>, multiply<MultiplyAdd, 1>};

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
