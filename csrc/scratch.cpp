#include "scratch.hpp"

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fastzsl {
namespace {

constexpr size_t huge = size_t(2) << 20;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t keep_limit = 0;  // a kept block would hide a use after free and a write past its end
#else
constexpr size_t keep_limit = size_t(96) << 20;
#endif

struct Block {
    void* data;
    size_t size;
};

struct Store {
    std::mutex lock;
    std::vector<Block> blocks;
    size_t kept = 0;
};

Store& store() {
    static Store* s = new Store;
    return *s;
}

}  // namespace

void advise_huge(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + huge - 1) / huge * huge;
    uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / huge * huge;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
    (void)data;
    (void)bytes;
#endif
}

Scratch::Scratch(size_t bytes) : size_((bytes + 63) / 64 * 64) {
    if (bytes == 0) return;
    if (keep_limit && size_ >= huge / 2) size_ = (size_ + huge - 1) / huge * huge;
    if (keep_limit) {
        Store& s = store();
        std::lock_guard<std::mutex> guard(s.lock);
        size_t best = s.blocks.size();
        for (size_t i = 0; i < s.blocks.size(); i++)
            if (s.blocks[i].size >= size_ && s.blocks[i].size <= 2 * size_ + 4096 &&
                (best == s.blocks.size() || s.blocks[i].size < s.blocks[best].size))
                best = i;
        if (best < s.blocks.size()) {
            data_ = s.blocks[best].data;
            size_ = s.blocks[best].size;
            s.kept -= size_;
            s.blocks[best] = s.blocks.back();
            s.blocks.pop_back();
            return;
        }
    }
    // Under a sanitizer nothing is kept or rounded up, so a large block need not be a multiple of a huge page.
    data_ = std::aligned_alloc(keep_limit && size_ >= huge ? huge : 64, size_);
    if (!data_) throw std::bad_alloc();
    if (size_ >= huge) advise_huge(data_, size_);
}

Scratch::~Scratch() {
    if (!data_) return;
    if (size_ <= keep_limit) {
        Store& s = store();
        std::lock_guard<std::mutex> guard(s.lock);
        while (s.kept + size_ > keep_limit && !s.blocks.empty()) {  // the oldest go first
            s.kept -= s.blocks.front().size;
            std::free(s.blocks.front().data);
            s.blocks.erase(s.blocks.begin());
        }
        s.blocks.push_back({data_, size_});
        s.kept += size_;
        return;
    }
    std::free(data_);
}

}  // namespace fastzsl
