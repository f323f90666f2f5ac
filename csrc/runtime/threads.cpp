#include "runtime/threads.hpp"

#include <pthread.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <new>

#include "runtime/pool.hpp"

namespace fastzsl {
namespace {

// What `#pragma omp parallel` compiles to with GCC: run work(data) on so many threads, and return when all have.
using GompParallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

std::atomic<GompParallel> gomp{nullptr};
std::mutex busy;  // held by the caller that has the threads
Pool* pool = nullptr;  // made under `busy`; never destroyed, because its threads may outlive main

// A loop whose indices are handed out one by one to whoever asks. An exception is kept for the caller, because no runtime
// carries one from thread to thread.
class Loop {
public:
    Loop(const Task& task, int64_t count) : task_(task), count_(count) {}

    static void work(void* data) { static_cast<Loop*>(data)->work(); }

    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

private:
    void work() {
        const int worker = workers_.fetch_add(1, std::memory_order_relaxed);
        for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) {
            if (failed_.load(std::memory_order_relaxed)) return;
            try {
                task_(i, worker);
            } catch (...) {
                if (!failed_.exchange(true)) error_ = std::current_exception();
            }
        }
    }

    const Task& task_;
    const int64_t count_;
    std::atomic<int64_t> next_{0};
    std::atomic<int> workers_{0};
    std::atomic<bool> failed_{false};
    std::exception_ptr error_;
};

// A forked child has none of its parent's threads: it starts with a new pool and leaves the old one alone. The lock may have
// been held by a thread that the child does not have.
void forget() {
    pool = nullptr;
    gomp.store(nullptr);
    new (&busy) std::mutex;
}

const bool registered = pthread_atfork(nullptr, nullptr, forget) == 0;

}  // namespace

void share_openmp(void* gomp_parallel) { gomp.store(reinterpret_cast<GompParallel>(gomp_parallel)); }

void parallel(int threads, int64_t count, Task task) {
    (void)registered;
    if (threads > count) threads = int(count);
    std::unique_lock<std::mutex> turn(busy, std::defer_lock);
    if (threads <= 1 || !turn.try_lock()) {
        for (int64_t i = 0; i < count; i++) task(i, 0);
        return;
    }
    Loop loop(task, count);
    if (GompParallel shared = gomp.load(std::memory_order_acquire)) {
        shared(&Loop::work, &loop, unsigned(threads), 0);
    } else {
        if (!pool) pool = new Pool;
        pool->run(threads, &Loop::work, &loop);
    }
    turn.unlock();
    loop.rethrow();
}

}  // namespace fastzsl
