// The leaf routines in the compiler's own vector types, written once. An instruction set's source file defines FZ_SPACE
// (its namespace), FZ_W (floats in a vector) and FZ_MR (rows in the register tile) and includes this file. No standard
// library templates here: an inline function compiled with wide vectors must not be shared with the portable code.
#include <stdint.h>
#include <string.h>

#include "kernels.hpp"
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define FZ_INLINE inline __attribute__((always_inline))

namespace fastzsl {
namespace FZ_SPACE {
namespace {

constexpr int W = FZ_W, MR = FZ_MR, NV = 2, NR = NV * W;

typedef float vf __attribute__((vector_size(FZ_W * 4)));
typedef uint32_t vu __attribute__((vector_size(FZ_W * 4)));

inline vf load(const float* p) {
    vf v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline void put(float* p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
inline vf splat(float x) {
#ifdef __AVX512F__
    return vf(_mm512_set1_ps(x));
#else
    return x - vf{};
#endif
}
inline vf larger(vf a, vf b) { return a > b ? a : b; }
inline float add_lanes(vf v) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps(v);
#else
    float parts[W];
    __builtin_memcpy(parts, &v, sizeof v);
    for (int half = W / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) parts[i] += parts[i + half];
    return parts[0];
#endif
}

inline float widen(uint16_t h) {
    uint32_t bits = uint32_t(h) << 16;
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
}
inline uint16_t narrow(float x) {  // to nearest even, NaN stays NaN
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? uint16_t((bits >> 16) | 0x40) : uint16_t(rounded);
}

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
#include "packing.hpp"
#include "transposing.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

// ---------------------------------------------------------------------------------------------------- the product

inline void put_part(float* p, vf v, int count) {
    float lanes[W];
    __builtin_memcpy(lanes, &v, sizeof v);
    for (int i = 0; i < count; i++) p[i] = lanes[i];
}

inline vf load_part(const float* p, int count) {
    float lanes[W] = {};
    for (int i = 0; i < count; i++) lanes[i] = p[i];
    return load(lanes);
}

// Spreads the fetching of `ahead` over `turns` calls during a product: all at once would crowd out its own loads.
class Fetch {
public:
    Fetch(const Ahead* ahead, int64_t turns) {
        if (!ahead || ahead->count <= 0 || ahead->bytes <= 0) return;
        lines_ = line_ = (ahead->bytes + 63) / 64;
        at_ = ahead->data, step_ = ahead->stride - lines_ * 64, runs_ = ahead->count;
        each_ = int((runs_ * lines_ + turns - 1) / turns);
    }
    FZ_INLINE void some() {
        for (int i = 0; i < each_ && runs_; i++) {
            __builtin_prefetch(at_, 0, 2);
            at_ += 64;
            if (--line_) continue;
            line_ = lines_, at_ += step_, runs_--;
        }
    }

private:
    const char* at_ = nullptr;
    int64_t lines_ = 0, line_ = 0, runs_ = 0, step_ = 0;
    int each_ = 0;
};

struct MultiplyAdd {
    static vf step(vf sum, vf a, vf b) { return sum + a * b; }
};

// One register tile: R rows by V vectors, all k steps of one packed panel of A and one of B.
template <typename Op, int R, int V>
void tile(int64_t k, const float* a, const float* b, float* c, int64_t ldc, int64_t columns, Store store) {
    vf acc[R][V];
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
        __builtin_prefetch(c + i * ldc, 1);
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) acc[i][j] = vf{};
    }
#pragma GCC unroll 1
    for (int64_t p = 0; p < k; p++) {
        vf bv[V];
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) {
            bv[j] = load(b + j * W);
            __builtin_prefetch(b + 8 * NR + j * W);
        }
#pragma GCC unroll 16
        for (int i = 0; i < R; i++) {
            vf av = splat(a[i]);
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) acc[i][j] = Op::step(acc[i][j], av, bv[j]);
        }
        a += MR;
        b += NR;
    }
    if (columns != V * W) {
        float part[R * V * W];
#pragma GCC unroll 16
        for (int i = 0; i < R; i++)
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) put(part + (i * V + j) * W, acc[i][j]);
        for (int i = 0; i < R; i++)
            for (int64_t j = 0; j < columns; j++)
                c[i * ldc + j] = part[i * V * W + j] + (store == Store::add ? c[i * ldc + j] : 0.f);
        return;
    }
    if (store == Store::add) {
#pragma GCC unroll 16
        for (int i = 0; i < R; i++)
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) put(c + i * ldc + j * W, load(c + i * ldc + j * W) + acc[i][j]);
        return;
    }
#ifdef __AVX512F__
    if (store == Store::stream) {
#pragma GCC unroll 16
        for (int i = 0; i < R; i++)
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) _mm512_stream_ps(c + i * ldc + j * W, acc[i][j]);
        return;
    }
#endif
#pragma GCC unroll 16
    for (int i = 0; i < R; i++)
#pragma GCC unroll 4
        for (int j = 0; j < V; j++) put(c + i * ldc + j * W, acc[i][j]);
}

typedef void (*Tile)(int64_t, const float*, const float*, float*, int64_t, int64_t, Store);

template <typename Op, int R>
struct Tiles {
    static void fill(Tile table[][NV]) {
        table[R - 1][0] = tile<Op, R, 1>;
        table[R - 1][1] = tile<Op, R, 2>;
        Tiles<Op, R - 1>::fill(table);
    }
};
template <typename Op>
struct Tiles<Op, 0> {
    static void fill(Tile[][NV]) {}
};
template <typename Op>
struct Table {
    Tile at[MR][NV];
    Table() { Tiles<Op, MR>::fill(at); }
};

// STEPS: how many of k's steps one element of a panel holds.
template <typename Op, int STEPS>
void multiply(int64_t k, const void* pa, const void* pb, int64_t m, int64_t n, float* c, int64_t ldc, Store store,
              int64_t chain, const Ahead* ahead) {
    static const Table<Op> tiles;
    Fetch fetch(ahead, (m + MR - 1) / MR * ((n + NR - 1) / NR));
    const float *a = static_cast<const float*>(pa), *b = static_cast<const float*>(pb);
    k = (k + STEPS - 1) / STEPS;
    chain /= STEPS;
    if (store == Store::stream && k > chain) store = Store::replace;
    if (store == Store::stream && ((reinterpret_cast<uintptr_t>(c) | uintptr_t(ldc * 4)) & (W * 4 - 1))) store = Store::replace;
    for (int64_t i = 0; i < m; i += MR) {
        int rows = m - i < MR ? int(m - i) : MR;
        for (int64_t j = 0; j < n; j += NR) {
            int64_t columns = n - j < NR ? n - j : NR;
            fetch.some();
            for (int64_t p = 0; p < k; p += chain)
                tiles.at[rows - 1][columns > W](k - p < chain ? k - p : chain, a + i * k + p * MR, b + j * k + p * NR,
                                                c + i * ldc + j, ldc, columns, p ? Store::add : store);
        }
    }
}

// ---------------------------------------------------------------------------------------------------- softmax

// exp for x <= 0 (or NaN, which comes out as NaN): 2^n times a polynomial on [-ln2/2, ln2/2]; zero below -87.3, where
// float32 has only subnormal results.
inline vf exp_below_zero(vf x) {
    const float shifter = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    vf t = x * 1.44269504088896341f + shifter;
    vf n = t - shifter;
    vf r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.f;
    vu exponent = (reinterpret_cast<vu>(t) << 23) + (127u << 23);  // nonsense where the result is zero or NaN anyway
    vf result = p * reinterpret_cast<vf>(exponent);
    return x < -87.3f ? vf{} : result;
}

template <bool VALUES>
void softmax_of(int64_t t, int64_t classes, float* logits, int64_t ld, float scale, const float* values, float* out,
                bool keep) {
    for (int64_t c = 0; c < classes; c += W) {
        float* s = logits + c;
        const float* u = values + c;
        vf top = load(s) * scale;
        for (int64_t i = 1; i < t; i++) top = larger(top, load(s + i * ld) * scale);
        // Four partial sums each: shorter chains, and a smaller error than one long sum.
        vf sums[4] = {}, products[4] = {};
        for (int64_t i = 0; i < t; i++) {
            vf e = exp_below_zero(load(s + i * ld) * scale - top);
            sums[i & 3] += e;
            if (VALUES) products[i & 3] += e * load(u + i * ld);
            if (!VALUES || keep) put(s + i * ld, e);
        }
        vf sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        vf dot = (products[0] + products[1]) + (products[2] + products[3]);
        vf share = 1.f / sum;
        if (!VALUES || keep)
            for (int64_t i = 0; i < t; i++) put(s + i * ld, load(s + i * ld) * share);
        if (VALUES) {
            vf result = dot * share;
            if (classes - c >= W)
                put(out + c, result);
            else
                put_part(out + c, result, int(classes - c));
        }
    }
}

void softmax(int64_t t, int64_t classes, float* logits, int64_t ld, float scale, const float* values, float* out, bool keep) {
    if (values)
        softmax_of<true>(t, classes, logits, ld, scale, values, out, keep);
    else
        softmax_of<false>(t, classes, logits, ld, scale, logits, out, true);
}

// ---------------------------------------------------------------------------------------------------- small parts

void dots(int64_t n, const float* x, const float* y, float* xy, float* xx) {
    vf a = vf{}, b = vf{};
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        vf v = load(x + i);
        a += v * load(y + i);
        b += v * v;
    }
    float sum_a = add_lanes(a), sum_b = add_lanes(b);
    for (; i < n; i++) {
        sum_a += x[i] * y[i];
        sum_b += x[i] * x[i];
    }
    *xy = sum_a;
    *xx = sum_b;
}

void softmax_grad(int64_t t, const float* a, const float* grad, float scale, float* out) {
    // The mean is taken twice: the first takes away what all of grad has in common, the second what the rounding of the
    // first, and of a's sum to one, has left. Otherwise out would not sum to zero, and regions have a large common part.
    float mean, rest, unused;
    dots(t, grad, a, &mean, &unused);
    int64_t i = 0;
    for (; i + W <= t; i += W) put(out + i, load(grad + i) - mean);
    for (; i < t; i++) out[i] = grad[i] - mean;
    dots(t, out, a, &rest, &unused);
    for (i = 0; i + W <= t; i += W) put(out + i, load(a + i) * scale * (load(out + i) - rest));
    for (; i < t; i++) out[i] = a[i] * scale * (out[i] - rest);
}

void pooled_grad(int64_t t, const float* a, const float* u, float g, float scale, float* d_logits, float* d_values) {
    int64_t i = 0;
    for (; i + W <= t; i += W) {
        put(d_logits + i, load(u + i) * g);
        put(d_values + i, load(a + i) * g);
    }
    for (; i < t; i++) d_logits[i] = u[i] * g, d_values[i] = a[i] * g;
    softmax_grad(t, a, d_logits, scale, d_logits);
}

void convert(int64_t n, const void* src, DType from, void* dst, DType to) {
    if (from == to) {
        memcpy(dst, src, size_t(n * size_of(from)));
    } else if (to == DType::bf16) {
        for (int64_t i = 0; i < n; i++) static_cast<uint16_t*>(dst)[i] = narrow(static_cast<const float*>(src)[i]);
    } else {
        for (int64_t i = 0; i < n; i++) static_cast<float*>(dst)[i] = widen(static_cast<const uint16_t*>(src)[i]);
    }
}

double spin_f32(int64_t rounds) {
    constexpr int CHAINS = W == 16 ? 24 : 12;
    vf acc[CHAINS], x = splat(0.999f), y = splat(1e-3f);
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++) acc[i] = vf{};
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = acc[i] * x + y;
            asm volatile("" : "+" FZ_REGISTER(acc[i]));  // each chain is its own: no merging of equal ones
        }
    }
    return double(rounds) * CHAINS * W;
}

void lines(void* rows, int first, const void* src, DType type, int64_t lane_stride, int64_t step_stride, int count,
           int64_t steps) {
    pack<32>(rows, first, src, type, lane_stride, step_stride, count, steps);
}

const Gemm gemm_f32 = {MR, NR, 1, 4, 256, 2, 8, pack<MR>, pack<NR>, multiply<MultiplyAdd, 1>};

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
