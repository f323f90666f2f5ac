// The table of leaf routines that one instruction set provides. Each set is compiled from its own source file with its
// own flags; everything above this table (scores.cpp, attention.cpp, ...) is ordinary C++ and never sees an intrinsic.
#pragma once
#include <cstdint>

namespace fastzsl {

enum class DType : int { f32 = 0, bf16 = 1 };

inline int64_t size_of(DType type) { return type == DType::f32 ? 4 : 2; }

// What `multiply` does with the memory it writes: replace, add to it, or replace past the caches (for outputs too large
// to stay there).
enum class Store : int { replace, add, stream };

// Thrown by the packing of `Kernels::split` when it meets infinity or NaN.
struct Unsplittable {};
[[noreturn]] void refuse_to_split();  // not inline: code for wide vectors must not be shared with other files

// Memory that will be read next: `count` runs of `bytes`, `stride` bytes apart, to be fetched while a product runs.
struct Ahead {
    const char* data;
    int64_t stride, count, bytes;
};

// A matrix product on packed operands: C (m, n) = A (m, k) B (k, n), in float32.
//   A is packed in panels of `mr` rows, B in panels of `nr` columns. A panel holds k rounded up to `ku` steps, each
//   element `bytes` wide, so panel p starts at p * panel_bytes; its inner order is the instruction set's own affair.
//   Long sums are cut into blocks of `block` steps: a block of both panels stays in the first cache.
struct Gemm {
    int mr, nr, ku, bytes;
    int64_t block;
    // A long product is cut along its columns: into so many tasks a thread, of at most so many panels of B. Wide tasks read A
    // seldom, many tasks wait for each other less.
    int64_t tasks, wide;

    // Put `count` rows (columns) of a strided matrix into one panel, at lanes first, first + 1, ... Element (lane i,
    // step p) is src[i * lane_stride + p * step_stride]. Lanes that nobody fills must have been cleared before.
    // One of the two strides should be 1; other strides work, slowly. May throw `Unsplittable`, see split.hpp.
    void (*pack_a)(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                   int64_t steps);
    void (*pack_b)(void* panel, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                   int64_t steps);
    // Writes exactly (m, n); no byte around it. No sum in a register runs over more than `chain` steps before it is added
    // to C: short chains round less. `ahead` may be null.
    void (*multiply)(int64_t k, const void* a, const void* b, int64_t m, int64_t n, float* c, int64_t ldc, Store store,
                     int64_t chain, const Ahead* ahead);

    int64_t steps(int64_t k) const { return (k + ku - 1) / ku * ku; }
    int64_t panel_a(int64_t k) const { return steps(k) * mr * bytes; }
    int64_t panel_b(int64_t k) const { return steps(k) * nr * bytes; }
};

struct Kernels {
    const char* name;
    int width;        // floats in a vector: rows given to the functions below are readable up to a multiple of it
    Gemm f32;         // float32 products; bfloat16 sources are widened while packing
    Gemm bf16;        // bfloat16 products with float32 sums; float32 sources are rounded while packing
    const Gemm* split;  // float32 products by parts in bfloat16, for finite numbers only; null where that is not faster

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
    // Lay `count` <= 32 strided lanes out as rows of 32 floats, one row a step; lanes beyond count are left alone.
    void (*lines)(void* rows, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
                  int64_t steps);
    // Register-only loops for the peak: multiply-adds done (float32 FMA, bfloat16 dot); 0 where there is no such unit.
    double (*spin_f32)(int64_t rounds);
    double (*spin_bf16)(int64_t rounds);
};

const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512bf16_kernels();
const Kernels* amx_kernels();

}  // namespace fastzsl
