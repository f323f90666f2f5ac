#include "runtime/scratch.hpp"

#include <pthread.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
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

// Freed blocks that are kept for the next call, the oldest first. A fixed table: giving a block back allocates nothing and so
// cannot fail.
constexpr int most_blocks = 64;

struct Kept {
    std::mutex lock;
    Block blocks[most_blocks];
    int count = 0;
    size_t bytes = 0;

    Block remove(int index) {
        Block block = blocks[index];
        std::move(blocks + index + 1, blocks + count, blocks + index);
        count--;
        bytes -= block.size;
        return block;
    }
};

// Never destroyed: blocks may be given back while the process ends. A fork waits for the lock, so that the child finds the
// table whole and the lock free.
Kept& kept() {
    static Kept* k = [] {
        auto lock = [] { kept().lock.lock(); };
        auto unlock = [] { kept().lock.unlock(); };
        auto* made = new Kept;
        pthread_atfork(lock, unlock, unlock);
        return made;
    }();
    return *k;
}

// Made when the library is loaded: after a fork in the middle of the first call the child would wait for ever for a thread that
// it does not have.
[[maybe_unused]] const bool made_early = (kept(), true);

// Huge pages, for freshly allocated memory that has not been touched yet.
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

}  // namespace

Scratch::Scratch(size_t bytes) : size_((bytes + 63) / 64 * 64) {
    if (bytes == 0) return;
    if (keep_limit && size_ >= huge / 2) size_ = (size_ + huge - 1) / huge * huge;
    if (keep_limit) {
        Kept& k = kept();
        std::lock_guard<std::mutex> guard(k.lock);
        int best = -1;
        for (int i = 0; i < k.count; i++)
            if (k.blocks[i].size >= size_ && k.blocks[i].size <= 2 * size_ + 4096 &&
                (best < 0 || k.blocks[i].size < k.blocks[best].size))
                best = i;
        if (best >= 0) {
            Block block = k.remove(best);
            data_ = block.data;
            size_ = block.size;
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
    if (size_ > keep_limit) {
        std::free(data_);
        return;
    }
    Kept& k = kept();
    std::lock_guard<std::mutex> guard(k.lock);
    while (k.count && (k.count == most_blocks || k.bytes + size_ > keep_limit)) std::free(k.remove(0).data);
    k.blocks[k.count++] = {data_, size_};
    k.bytes += size_;
}

}  // namespace fastzsl
