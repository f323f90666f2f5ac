// Brings the memory that is needed next into the cache while a product runs.
#pragma once
#include "isa/vector.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

// Spreads a prefetch over `turns` calls of `step`: all at once would compete with the loads of the product itself.
class Prefetcher {
public:
    Prefetcher(const Prefetch* next, int64_t turns) {
        if (!next || next->count <= 0 || next->bytes <= 0) return;
        lines_ = line_ = (next->bytes + 63) / 64;
        at_ = next->data, gap_ = next->stride - lines_ * 64, runs_ = next->count;
        each_ = int((runs_ * lines_ + turns - 1) / turns);
    }
    FZ_INLINE void step() {
        for (int i = 0; i < each_ && runs_; i++) {
            __builtin_prefetch(at_, 0, 2);
            at_ += 64;
            if (--line_) continue;
            line_ = lines_, at_ += gap_, runs_--;
        }
    }

private:
    const char* at_ = nullptr;
    int64_t lines_ = 0, line_ = 0, runs_ = 0, gap_ = 0;
    int each_ = 0;
};

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
