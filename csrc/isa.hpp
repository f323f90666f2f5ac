// Which instruction sets this build has and this machine can run; the choice among them.
#pragma once
#include <string>
#include <vector>

#include "kernels.hpp"

namespace fastzsl {

std::vector<std::string> isas();          // built in and runnable here, weakest first
const Kernels& kernels();                 // the chosen one: FASTZSL_ISA, or else the strongest
void set_isa(const std::string& name);    // throws std::invalid_argument for one that is not in isas()

// How many regions a call must have for split products (split.hpp): fewer share too little of the packing of the other
// operand, which takes longer for them. Tests lower it.
int64_t split_from();
void set_split_from(int64_t regions);

}  // namespace fastzsl
