#include "isa/dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#if defined(FASTZSL_HAS_AMX) && !defined(FASTZSL_EMULATE)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastzsl {
namespace {

// The compiler's __builtin_cpu_supports knows what the processor has and whether the operating system saves the registers.
// AMX is kept by hand: clang has no name for it, and Linux grants the tile registers to a process only on request.
#if defined(FASTZSL_HAS_AMX) && !defined(FASTZSL_EMULATE)
bool has_amx() {
    constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & amx_tile) || !(d & amx_bf16)) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

std::vector<const Kernels*> find() {
    std::vector<const Kernels*> found{portable_kernels()};
#if defined(FASTZSL_EMULATE)  // for tests: every processor has these units
    found.insert(found.end(), {avx512_kernels(), avx512bf16_kernels(), amx_kernels()});
    return found;
#else
#if defined(FASTZSL_HAS_AVX2)
    __builtin_cpu_init();
    bool runs = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (runs) found.push_back(avx2_kernels());
#endif
#if defined(FASTZSL_HAS_AVX512)
    runs = runs && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (runs) found.push_back(avx512_kernels());
#endif
#if defined(FASTZSL_HAS_AVX512BF16)
    runs = runs && __builtin_cpu_supports("avx512bf16");
    if (runs) found.push_back(avx512bf16_kernels());
#endif
#if defined(FASTZSL_HAS_AMX)
    if (runs && has_amx()) found.push_back(amx_kernels());
#endif
    return found;
#endif
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
std::atomic<int64_t> bf16x3_regions{128};

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

int64_t bf16x3_from() { return bf16x3_regions.load(std::memory_order_relaxed); }
void set_bf16x3_from(int64_t regions) { bf16x3_regions.store(regions, std::memory_order_relaxed); }

void throw_not_finite() { throw NotFinite{}; }

void set_isa(const std::string& name) { chosen.store(by_name(name), std::memory_order_release); }

}  // namespace fastzsl
