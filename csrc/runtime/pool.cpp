#include "runtime/pool.hpp"

#include <algorithm>
#include <thread>

namespace fastzsl {
namespace {

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

constexpr int spins = 4000;  // some 50 microseconds: longer than the gap between two phases of one call
constexpr int max_threads = 1 << 10;

}  // namespace

void Pool::run(int threads, void (*work)(void*), void* data) {
    int workers = grow(std::min(threads, max_threads) - 1);
    work_ = work;
    data_ = data;
    round_++;
    gate_.store(round_ << 17, std::memory_order_release);
    state_.store(round_ << 16 | uint64_t(workers));
    if (sleeping_.load() > 0) state_.notify_all();
    work(data);
    // Nothing is left to take: close the gate and wait for those inside.
    gate_.fetch_or(closed);
    for (int i = 0; gate_.load(std::memory_order_acquire) & inside; i++)
        if (i < spins)
            pause();
        else
            std::this_thread::yield();
}

// Only while the gate of this round is open may the fields of the job be read: they do not change before those inside
// have left.
bool Pool::enter(uint64_t round) {
    uint64_t gate = gate_.load(std::memory_order_acquire);
    while (gate >> 17 == round && !(gate & closed))
        if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) return true;
    return false;
}

int Pool::grow(int workers) {
    while (started_ < workers) {
        try {
            std::thread(&Pool::live, this, started_ + 1, state_.load()).detach();
        } catch (...) {
            return started_;  // the system gives no more threads: go on with those there are
        }
        started_++;
    }
    return workers;
}

void Pool::live(int worker, uint64_t seen) {
    for (;;) {
        uint64_t now;
        for (int i = 0; (now = state_.load(std::memory_order_acquire)) == seen && i < spins; i++) pause();
        if (now == seen) {
            sleeping_.fetch_add(1);
            state_.wait(seen);
            sleeping_.fetch_sub(1);
            continue;
        }
        seen = now;
        if (uint64_t(worker) > (now & 0xffff) || !enter(now >> 16)) continue;
        work_(data_);
        gate_.fetch_sub(1, std::memory_order_release);
    }
}

}  // namespace fastzsl
