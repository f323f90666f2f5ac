// Which instruction sets this build has and this machine can run; the choice among them.
#pragma once
#include <string>
#include <vector>

#include "kernels.hpp"

namespace fastzsl {

std::vector<std::string> isas();          // built in and runnable here, weakest first
const Kernels& kernels();                 // the chosen one: FASTZSL_ISA, or else the strongest
void set_isa(const std::string& name);    // throws std::invalid_argument for one that is not in isas()

}  // namespace fastzsl
