// A run of numbers as float32, converted only if it is not float32 already.
#pragma once
#include "isa/kernels.hpp"
#include "runtime/scratch.hpp"

namespace fastzsl {

class Widened {
public:
    Widened(const Kernels& kernels, const void* data, DType type, int64_t n) : rows_(static_cast<const float*>(data)) {
        if (type == DType::f32 || !data) return;
        memory_ = Scratch(size_t(n) * 4);
        kernels.convert(n, data, type, memory_.as(), DType::f32);
        rows_ = memory_.as<float>();
    }
    const float* rows() const { return rows_; }

private:
    const float* rows_;
    Scratch memory_;
};

// The same in `room` (n numbers) that the caller has.
inline const float* widened(const Kernels& kernels, const void* data, DType type, int64_t n, float* room) {
    if (type == DType::f32) return static_cast<const float*>(data);
    kernels.convert(n, data, type, room, DType::f32);
    return room;
}

}  // namespace fastzsl
