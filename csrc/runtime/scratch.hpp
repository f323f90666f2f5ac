// Working memory: aligned to a cache line, in huge pages where it is large. When freed it is kept for the next call, up to a
// limit.
#pragma once
#include <cstddef>
#include <utility>

namespace fastzsl {

class Scratch {
public:
    Scratch() = default;
    explicit Scratch(size_t bytes);
    ~Scratch();
    Scratch(Scratch&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
    Scratch& operator=(Scratch&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    template <typename T = char>
    T* as() const {
        return static_cast<T*>(data_);
    }
    char* at(size_t offset) const { return static_cast<char*>(data_) + offset; }

private:
    void* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace fastzsl
