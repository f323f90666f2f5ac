#include "pool.hpp"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

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

class Pool {
public:
    void run(int threads, int64_t count, const Task& task) {
        if (threads > max_threads) threads = max_threads;
        if (threads > count) threads = int(count);
        std::unique_lock<std::mutex> turn(busy_, std::defer_lock);
        if (threads <= 1 || !turn.try_lock() || !grow(threads - 1)) {
            for (int64_t i = 0; i < count; i++) task(i, 0);
            return;
        }
        task_ = &task;
        count_ = count;
        next_.store(0, std::memory_order_relaxed);
        round_++;
        gate_.store(round_ << 17, std::memory_order_release);
        state_.store(round_ << 16 | uint64_t(threads - 1));
        if (sleeping_.load() > 0) state_.notify_all();
        work(0);
        // Nothing is left to take: close the gate and wait for those inside. On a busy machine a worker may not even have
        // been given a processor yet, and is not waited for.
        gate_.fetch_or(closed);
        for (int i = 0; gate_.load(std::memory_order_acquire) & inside; i++)
            if (i < spins)
                pause();
            else
                std::this_thread::yield();
    }

private:
    void work(int worker) {
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) (*task_)(i, worker);
    }

    // Only while the gate of this round is open may the fields of the job be read: they do not change before those inside
    // have left.
    bool enter(uint64_t round) {
        uint64_t gate = gate_.load(std::memory_order_acquire);
        while (gate >> 17 == round && !(gate & closed))
            if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) return true;
        return false;
    }

    bool grow(int workers) {
        while (started_ < workers) {
            try {
                std::thread(&Pool::live, this, started_ + 1, state_.load()).detach();
            } catch (...) {
                return false;  // no more threads to be had: the caller works alone
            }
            started_++;
        }
        return true;
    }

    void live(int worker, uint64_t seen) {
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
            work(worker);
            gate_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::mutex busy_;
    int started_ = 0;
    uint64_t round_ = 0;
    const Task* task_ = nullptr;
    int64_t count_ = 0;
    // state_: the job's number and how many workers it wants. gate_: its number, whether it is closed, who is inside.
    static constexpr uint64_t closed = 1 << 16, inside = closed - 1;
    std::atomic<uint64_t> state_{0}, gate_{closed};
    std::atomic<int64_t> next_{0};
    std::atomic<int> sleeping_{0};
};

std::atomic<Pool*> pool{nullptr};
std::mutex creation;

// What `#pragma omp parallel` compiles to with GCC: run fn(data) on so many threads, and return when all have.
using GompParallel = void (*)(void (*fn)(void*), void* data, unsigned threads, unsigned flags);

std::atomic<GompParallel> gomp{nullptr};
std::mutex team;  // one team at a time: a second caller works alone, as with the pool

// A task whose exception is kept for the caller: no runtime carries one from thread to thread. What follows is skipped.
class Guarded {
public:
    explicit Guarded(const Task& task) : task_(task) {}
    void operator()(int64_t index, int worker) const {
        if (failed_.load(std::memory_order_relaxed)) return;
        try {
            task_(index, worker);
        } catch (...) {
            if (!failed_.exchange(true)) error_ = std::current_exception();
        }
    }
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

private:
    const Task& task_;
    mutable std::atomic<bool> failed_{false};
    mutable std::exception_ptr error_;
};

struct Loop {
    const Guarded& task;
    int64_t count;
    std::atomic<int64_t> next{0};
    std::atomic<int> workers{0};

    static void member(void* data) {
        Loop& loop = *static_cast<Loop*>(data);
        int worker = loop.workers.fetch_add(1, std::memory_order_relaxed);
        for (int64_t i; (i = loop.next.fetch_add(1, std::memory_order_relaxed)) < loop.count;) loop.task(i, worker);
    }
};

// A forked child has none of the threads: it starts with a new pool, and the old one is left as it lies.
void forget() {
    pool.store(nullptr);
    gomp.store(nullptr);
    new (&creation) std::mutex;
    new (&team) std::mutex;
}

void forget_in_children() {
    static bool registered = pthread_atfork(nullptr, nullptr, forget) == 0;
    (void)registered;
}

Pool& current() {
    Pool* p = pool.load(std::memory_order_acquire);
    if (p) return *p;
    std::lock_guard<std::mutex> lock(creation);
    p = pool.load();
    if (!p) {
        forget_in_children();
        p = new Pool;  // never destroyed: its threads may outlive main
        pool.store(p, std::memory_order_release);
    }
    return *p;
}

}  // namespace

void share_openmp(void* gomp_parallel) {
    forget_in_children();
    gomp.store(reinterpret_cast<GompParallel>(gomp_parallel));
}

void parallel(int threads, int64_t count, Task task) {
    if (threads > count) threads = int(count);
    GompParallel shared = gomp.load(std::memory_order_acquire);
    std::unique_lock<std::mutex> turn(team, std::defer_lock);
    if (threads <= 1 || (shared && !turn.try_lock())) {
        for (int64_t i = 0; i < count; i++) task(i, 0);
    } else {
        Guarded guarded(task);
        if (shared) {
            Loop loop{guarded, count};
            shared(&Loop::member, &loop, unsigned(threads), 0);
        } else {
            current().run(threads, count, guarded);
        }
        guarded.rethrow();
    }
}

}  // namespace fastzsl
