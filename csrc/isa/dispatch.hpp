// Which instruction sets this build has and this machine can run, and the choice among them.
#pragma once
#include <string>
#include <vector>

#include "isa/kernels.hpp"

namespace fastzsl {

std::vector<std::string> isas();        // built in and runnable here, weakest first
const Kernels& kernels();               // the chosen one: FASTZSL_ISA, or else the strongest
void set_isa(const std::string& name);  // throws std::invalid_argument for one that is not in isas()

// The smallest number of regions in a call for which float32 products run as bf16x3 (isa/amx_bf16x3.hpp). With fewer, packing
// the other operand, which takes longer for bf16x3, is shared by too little work. Tests lower it.
int64_t bf16x3_from();
void set_bf16x3_from(int64_t regions);

}  // namespace fastzsl
