// A pool of threads that is kept between calls. Workers spin for some tens of microseconds after a job, then sleep.
#pragma once
#include <atomic>
#include <cstdint>

namespace fastzsl {

class Pool {
public:
    // Runs work(data) on this thread and on up to `threads` - 1 others, and returns when all that began have ended. One caller
    // at a time. A worker that has not been given a processor when this thread ends its own work is not waited for.
    void run(int threads, void (*work)(void*), void* data);

private:
    bool enter(uint64_t round);
    int grow(int workers);
    void live(int worker, uint64_t seen);

    int started_ = 0;
    uint64_t round_ = 0;
    void (*work_)(void*) = nullptr;
    void* data_ = nullptr;
    // state_: the job's number and how many workers it wants. gate_: its number, whether it is closed, how many are inside.
    static constexpr uint64_t closed = 1 << 16, inside = closed - 1;
    std::atomic<uint64_t> state_{0}, gate_{closed};
    std::atomic<int> sleeping_{0};
};

}  // namespace fastzsl
