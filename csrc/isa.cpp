#include "isa.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(FZ_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastzsl {
namespace {

#if defined(__x86_64__)
uint64_t enabled_state() {  // which registers the operating system saves
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0;
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t(high) << 32 | low;
}

struct Processor {
    bool avx2 = false, avx512 = false, avx512bf16 = false, amx = false;
    Processor() {
        unsigned a, b, c, d;
        uint64_t state = enabled_state();
        if ((state & 0x6) != 0x6 || !__get_cpuid(1, &a, &b, &c, &d)) return;
        bool fma = c & (1u << 12);
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
        unsigned leaves = a;
        avx2 = fma && (b & (1u << 5));
        const unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
        avx512 = avx2 && (state & 0xe0) == 0xe0 && (b & (f | dq | bw | vl)) == (f | dq | bw | vl);
        bool tiles = (state & 0x60000) == 0x60000 && (d & (1u << 24)) && (d & (1u << 22));
        if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) avx512bf16 = avx512 && (a & (1u << 5));
        amx = tiles && avx512bf16 && tiles_granted();
    }
    static bool tiles_granted() {
#if defined(FZ_AMX)
        return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
#else
        return false;
#endif
    }
};
#endif

std::vector<const Kernels*> find() {
    std::vector<const Kernels*> found{portable_kernels()};
#if defined(__x86_64__)
    static const Processor has;
#if defined(FZ_AVX2)
    if (has.avx2) found.push_back(avx2_kernels());
#endif
#if defined(FZ_AVX512)
    if (has.avx512) found.push_back(avx512_kernels());
#endif
#if defined(FZ_AVX512BF16)
    if (has.avx512bf16) found.push_back(avx512bf16_kernels());
#endif
#if defined(FZ_AMX)
    if (has.amx) found.push_back(amx_kernels());
#endif
#endif
    return found;
}

const std::vector<const Kernels*>& available() {
    static const std::vector<const Kernels*> list = find();
    return list;
}

const Kernels* by_name(const std::string& name) {
    std::string names;
    for (const Kernels* k : available()) {
        if (name == k->name) return k;
        names += (names.empty() ? "" : ", ") + std::string(k->name);
    }
    throw std::invalid_argument("instruction set \"" + name + "\" is not available: this build on this processor has " +
                                names);
}

std::atomic<const Kernels*> chosen{nullptr};
std::atomic<int64_t> split_regions{128};

}  // namespace

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const Kernels* k : available()) names.emplace_back(k->name);
    return names;
}

const Kernels& kernels() {
    const Kernels* k = chosen.load(std::memory_order_acquire);
    if (!k) {
        const char* forced = std::getenv("FASTZSL_ISA");
        k = forced && *forced ? by_name(forced) : available().back();
        chosen.store(k, std::memory_order_release);
    }
    return *k;
}

int64_t split_from() { return split_regions.load(std::memory_order_relaxed); }
void set_split_from(int64_t regions) { split_regions.store(regions, std::memory_order_relaxed); }

void refuse_to_split() { throw Unsplittable{}; }

void set_isa(const std::string& name) { chosen.store(by_name(name), std::memory_order_release); }

}  // namespace fastzsl
