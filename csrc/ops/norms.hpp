// Norms of vectors as torch.nn.functional.normalize takes them.
#pragma once
#include <cmath>

namespace fastzsl {

constexpr float least_norm = 1e-12f;  // what the cosine divides by at least

inline float clamped_norm(float square) {
    float norm = std::sqrt(square);
    return norm < least_norm ? least_norm : norm;  // NaN stays NaN
}

}  // namespace fastzsl
