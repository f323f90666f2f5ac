// One worker's memory, laid out before it is allocated.
#pragma once
#include <cstdint>

namespace fastzsl {

class Layout {
public:
    int64_t bytes(int64_t count) {
        int64_t at = size_;
        size_ += (count + 127) / 64 * 64;  // a cache line more than asked for: kernels fetch a little ahead
        return at;
    }
    int64_t floats(int64_t count) { return bytes(count * 4); }
    int64_t size() const { return size_; }

private:
    int64_t size_ = 0;
};

}  // namespace fastzsl
