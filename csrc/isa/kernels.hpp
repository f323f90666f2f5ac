// The table of leaf routines that one instruction set provides. Each set is compiled from its own source file with its own
// flags. Everything above this table (gemm/, ops/) is ordinary C++ and contains no intrinsic.
#pragma once
#include <cstdint>

namespace fastzsl {

// float16 is read by `prepare` alone.
enum class DType : int { f32 = 0, bf16 = 1, f16 = 2 };

inline int64_t size_of(DType type) { return type == DType::f32 ? 4 : 2; }

inline const void* element(const void* data, DType type, int64_t index) {
    return static_cast<const char*>(data) + index * size_of(type);
}
inline void* element(void* data, DType type, int64_t index) { return static_cast<char*>(data) + index * size_of(type); }

// Whether `multiply` replaces the memory that it writes or adds to it.
enum class Store : int { replace, add };

// Thrown by the packing of `Kernels::bf16x3` when it meets infinity or NaN.
struct NotFinite {};
[[noreturn]] void throw_not_finite();  // not inline: code for wide vectors must not be shared with other files

// Memory that is read next: `count` runs of `bytes`, `stride` bytes apart, to be prefetched while a product runs.
struct Prefetch {
    const char* data;
    int64_t stride, count, bytes;
};

// A matrix product on packed operands: C (m, n) = A (m, k) B (k, n), in float32.
//   A is packed in panels of `mr` rows, B in panels of `nr` columns. A panel holds k steps, rounded up to a multiple of `ku`;
//   an element has `bytes` bytes. Panel p starts at p * panel_bytes. The order inside a panel is private to the set.
//   Long sums are cut into blocks of `block` steps, so that a block of both panels stays in the first-level cache.
struct Gemm {
    int mr, nr, ku, bytes;
    int64_t block;
    // How `product` divides the columns of C among the threads: about `tasks` tasks for each thread, and no task wider than
    // `widest` panels of B. Wide tasks read A less often; many small tasks balance better.
    int64_t tasks, widest;
    // Panels of A that `regions_times` packs for each reading of B.
    int high;

    // Put `count` rows (columns) of a strided matrix into one panel, at lanes first, first + 1, ... Element (lane i,
    // step p) is src[i * lane_stride + p * step_stride]. Lanes that no call fills must have been cleared before.
    // One of the two strides should be 1; other strides work, slowly. May throw `NotFinite`, see isa/amx_bf16x3.hpp.
    void (*pack_a)(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                   int64_t steps);
    void (*pack_b)(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                   int64_t steps);
    // Writes exactly (m, n) and no byte around it. A sum runs over at most `chain` steps in a register before it is added
    // to C: short chains round less. `next` may be null.
    void (*multiply)(int64_t k, const void* a, const void* b, int64_t m, int64_t n, float* c, int64_t ldc, Store store,
                     int64_t chain, const Prefetch* next);

    int64_t steps(int64_t k) const { return (k + ku - 1) / ku * ku; }
    int64_t panel_a(int64_t k) const { return steps(k) * mr * bytes; }
    int64_t panel_b(int64_t k) const { return steps(k) * nr * bytes; }
};

struct Kernels {
    const char* name;
    int width;           // floats in a vector: rows given to the functions below are readable up to a multiple of it
    Gemm f32;            // float32 products; bfloat16 sources are widened while packing
    Gemm bf16;           // bfloat16 products with float32 sums; float32 sources are rounded while packing
    const Gemm* bf16x3;  // float32 products as six bfloat16 products, finite numbers only; null where that is not faster

    // Softmax over the T rows of `logits` (T, classes), each class in its own lane; in place. Columns up to the next
    // multiple of `width` are touched. With `values` (T, classes; same stride): also out[c] = sum_t A[t, c] values[t, c].
    // Without `keep` the attention itself is not wanted and `logits` is left undefined.
    void (*softmax)(int64_t t, int64_t classes, float* logits, int64_t ld, float scale, const float* values, float* out,
                    bool keep);
    // Backward of one row of the softmax: out[t] = scale a[t] (grad[t] - sum_t a[t] grad[t]); out may be grad.
    void (*softmax_grad)(int64_t t, const float* a, const float* grad, float scale, float* out);
    // The same where the gradient is g u, of s = sum_t a[t] u[t]; and of u itself: d_values[t] = g a[t].
    void (*pooled_grad)(int64_t t, const float* a, const float* u, float g, float scale, float* d_logits, float* d_values);
    // (x . y, x . x) of two vectors of n floats
    void (*dots)(int64_t n, const float* x, const float* y, float* xy, float* xx);
    // dst[j * dst_stride + i] = src[i * src_stride + j], dst of type `type`
    void (*transpose)(int64_t rows, int64_t cols, const float* src, int64_t src_stride, void* dst, DType type,
                      int64_t dst_stride);
    void (*convert)(int64_t n, const void* src, DType from, void* dst, DType to);
    // Write `count` <= 32 strided lanes as rows of 32 floats, one row for each step; the other lanes are left as they are.
    void (*lines)(void* rows, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                  int64_t steps);
    // to[i] = factor[i] r(from[i]), or scale r(from[i]) where factor is null; r(x) = sign(x) sqrt(|x|) with `root`, else x. Stored
    // numbers of any type to float32 or bfloat16.
    void (*prepare)(int64_t n, const void* from, DType type, bool root, const float* factor, float scale, void* to,
                    DType to_type);
    // Loops on registers alone, to measure the peak. They return the number of multiply-adds done (float32 multiply-add,
    // bfloat16 dot product); spin_bf16 is null where the processor has no bfloat16 unit.
    double (*spin_f32)(int64_t rounds);
    double (*spin_bf16)(int64_t rounds);
};

const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512bf16_kernels();
const Kernels* amx_kernels();

}  // namespace fastzsl
