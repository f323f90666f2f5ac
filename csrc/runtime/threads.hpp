// Loops over threads: those of PyTorch's own OpenMP runtime if Python found it, else a small pool that is kept.
//
// OpenMP's threads spin for about a millisecond after one of PyTorch's products. A pool beside them finds the cores taken: a
// call right after one of PyTorch's lost a quarter of its speed. On the same threads it loses nothing.
#pragma once
#include <cstdint>

namespace fastzsl {

// A borrowed callable; it must outlive the call it is given to.
class Task {
public:
    template <typename F>
    Task(const F& f) : object_(&f), call_([](const void* o, int64_t i, int w) { (*static_cast<const F*>(o))(i, w); }) {}
    void operator()(int64_t index, int worker) const { call_(object_, index, worker); }

private:
    const void* object_;
    void (*call_)(const void*, int64_t, int);
};

// Use this runtime from now on: the address of libgomp's GOMP_parallel, or null for the pool. A forked child, where libgomp's
// threads are gone, goes back to the pool.
void share_openmp(void* gomp_parallel);

// Calls task(index, worker) once for every index in [0, count), worker in [0, threads). Which worker takes which index is
// not fixed, so a result may depend on the index only. If a task throws, indices not yet started are left out and the first
// exception is thrown here.
//
// One loop has the threads at a time. A second caller that finds them busy runs its loop on its own thread, instead of waiting
// or adding threads to a busy machine.
void parallel(int threads, int64_t count, Task task);

}  // namespace fastzsl
