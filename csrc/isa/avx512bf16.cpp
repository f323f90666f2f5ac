// AVX-512 with the bfloat16 dot product: the register tile of AVX-512, two steps in each multiply-add.
#define FZ_SPACE avx512bf16
#define FZ_W 16
#define FZ_MR 14
#define FZ_REGISTER "v"
#include "isa/bf16_pairs.hpp"
#include "isa/leaves.hpp"

namespace fastzsl {
namespace avx512bf16 {
namespace {

struct DotAdd {
    static vf step(vf sum, vf a, vf b) { return vf(_mm512_dpbf16_ps(__m512(sum), (__m512bh)(__m512)(a), (__m512bh)(__m512)(b))); }
};

template <int LANES>
void pack_pairs(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                int64_t steps) {
    for (int i = 0; i < count; i += 16) {
        int lanes = count - i < 16 ? count - i : 16;
        __mmask16 keep = __mmask16((1u << lanes) - 1);
        uint32_t* out = static_cast<uint32_t*>(panel) + first + i;
        for (int64_t p = 0; p < steps; p += 32) {
            int some_steps = steps - p < 32 ? int(steps - p) : 32;
            __m512i r[16];
            load_block(r, false, src, type, i * lane_stride + p * step_stride, lane_stride, step_stride, lanes, some_steps);
#pragma GCC unroll 16
            for (int q = 0; q < 16; q++)
                if (2 * q < some_steps) _mm512_mask_storeu_epi32(out + (p / 2 + q) * LANES, keep, r[q]);
        }
    }
}

double spin_bf16(int64_t rounds) {
    constexpr int chains = 24;
    vf acc[chains], x = splat(0), y = splat(0);
#pragma GCC unroll 24
    for (int i = 0; i < chains; i++) acc[i] = vf{};
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 24
        for (int i = 0; i < chains; i++) {
            acc[i] = DotAdd::step(acc[i], x, y);
            asm volatile("" : "+" FZ_REGISTER(acc[i]));
        }
    }
    return double(rounds) * chains * W * 2;
}

const Gemm gemm_bf16 = {MR, NR, 2, 2, 256, 2, 8, 1, pack_pairs<MR>, pack_pairs<NR>, multiply<DotAdd, 2>};

}  // namespace
}  // namespace avx512bf16

const Kernels* avx512bf16_kernels() {
    using namespace avx512bf16;
    static const Kernels table = {"avx512bf16", W,         gemm_f32, gemm_bf16, nullptr, softmax,  softmax_grad, pooled_grad,
                                  dots,         transpose, convert,  lines,     prepare, spin_f32, spin_bf16};
    return &table;
}
}  // namespace fastzsl
