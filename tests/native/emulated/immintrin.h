// The AVX-512, bfloat16 and AMX intrinsics that csrc/isa uses, in plain C++: what they compute, what memory they touch, what they
// refuse. For tests on machines without these units (CMake option FASTZSL_EMULATE); written from Intel's intrinsics guide.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef float __m512 __attribute__((vector_size(64)));
typedef long long __m512i __attribute__((vector_size(64)));
typedef short __m512bh __attribute__((vector_size(64)));
typedef long long __m256i __attribute__((vector_size(32)));
typedef uint16_t __mmask16;
typedef uint32_t __mmask32;
enum { _CMP_UNORD_Q = 3 };

// Calls, so that the compiler meets few of the loops below: the kernels unroll theirs.
#define EMULATED __attribute__((noinline)) inline

namespace emulated {

inline void refuse(const char* what) {
    fprintf(stderr, "emulated processor: %s\n", what);
    abort();
}

template <typename To, typename From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <typename T, int N>
struct Lanes {
    T at[N];
};
using Floats = Lanes<float, 16>;
using Ints = Lanes<uint32_t, 16>;
using Halves = Lanes<uint16_t, 32>;
using Halves16 = Lanes<uint16_t, 16>;

template <typename F>
inline __m512 floats(F f) {
    Floats r;
    for (int i = 0; i < 16; i++) r.at[i] = f(i);
    return bits<__m512>(r);
}
template <typename F>
inline __m512i ints(F f) {
    Ints r;
    for (int i = 0; i < 16; i++) r.at[i] = f(i);
    return bits<__m512i>(r);
}
template <typename F>
inline __m512i halves(F f) {
    Halves r;
    for (int i = 0; i < 32; i++) r.at[i] = f(i);
    return bits<__m512i>(r);
}

inline const void* aligned(const void* p) {
    if (reinterpret_cast<uintptr_t>(p) % 64) refuse("an aligned load or store of an address that is not");
    return p;
}

template <typename T>
inline T load(const void* p, int i) {
    T x;
    memcpy(&x, static_cast<const char*>(p) + i * sizeof x, sizeof x);
    return x;
}
template <typename T>
inline void store(void* p, int i, T x) {
    memcpy(static_cast<char*>(p) + i * sizeof x, &x, sizeof x);
}

// The bfloat16 units treat subnormal numbers as zero, both ways.
inline float flushed(float x) {
    uint32_t b = bits<uint32_t>(x);
    return b & 0x7f800000 ? x : bits<float>(b & 0x80000000);
}
inline float widened(uint16_t h) { return flushed(bits<float>(uint32_t(h) << 16)); }
inline uint16_t rounded(float x) {
    uint32_t b = bits<uint32_t>(flushed(x));
    if ((b & 0x7fffffff) > 0x7f800000) return uint16_t(b >> 16 | 0x40);
    return uint16_t((b + 0x7fff + (b >> 16 & 1)) >> 16);
}
inline float plus_product(float sum, uint16_t a, uint16_t b) { return flushed(flushed(sum) + widened(a) * widened(b)); }

}  // namespace emulated

EMULATED __m512 _mm512_set1_ps(float x) {
    return emulated::floats([=](int) { return x; });
}
EMULATED __m512 _mm512_setzero_ps() { return _mm512_set1_ps(0); }
EMULATED __m512i _mm512_set1_epi32(int x) {
    return emulated::ints([=](int) { return uint32_t(x); });
}
EMULATED __m512i _mm512_setzero_si512() { return _mm512_set1_epi32(0); }
EMULATED __m512i _mm512_set_epi32(int p, int o, int n, int m, int l, int k, int j, int i, int h, int g, int f, int e, int d, int c, int b,
                                int a) {
    int from[16] = {a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p};
    return emulated::ints([&](int i) { return uint32_t(from[i]); });
}
EMULATED __m512i _mm512_castps_si512(__m512 x) { return emulated::bits<__m512i>(x); }
EMULATED __m512 _mm512_castsi512_ps(__m512i x) { return emulated::bits<__m512>(x); }

EMULATED __m512 _mm512_add_ps(__m512 x, __m512 y) { return x + y; }
EMULATED __m512 _mm512_sub_ps(__m512 x, __m512 y) { return x - y; }
EMULATED __m512 _mm512_fmadd_ps(__m512 x, __m512 y, __m512 z) {
    return emulated::floats([&](int i) { return __builtin_fmaf(x[i], y[i], z[i]); });
}
EMULATED float _mm512_reduce_add_ps(__m512 x) {
    auto v = emulated::bits<emulated::Floats>(x);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) v.at[i] += v.at[i + half];
    return v.at[0];
}
template <typename F>
EMULATED __m512i emulated_ints(__m512i x, __m512i y, F f) {
    auto a = emulated::bits<emulated::Ints>(x), b = emulated::bits<emulated::Ints>(y);
    return emulated::ints([&](int i) { return uint32_t(f(a.at[i], b.at[i])); });
}
EMULATED __m512i _mm512_add_epi32(__m512i x, __m512i y) {
    return emulated_ints(x, y, [](uint32_t a, uint32_t b) { return a + b; });
}
EMULATED __m512i _mm512_mullo_epi32(__m512i x, __m512i y) {
    return emulated_ints(x, y, [](uint32_t a, uint32_t b) { return a * b; });
}
EMULATED __m512i _mm512_and_si512(__m512i x, __m512i y) { return x & y; }
EMULATED __m512i _mm512_or_si512(__m512i x, __m512i y) { return x | y; }
EMULATED __m512i _mm512_slli_epi32(__m512i x, unsigned n) {
    return emulated_ints(x, x, [=](uint32_t a, uint32_t) { return a << n; });
}
EMULATED __m512i _mm512_srli_epi32(__m512i x, unsigned n) {
    return emulated_ints(x, x, [=](uint32_t a, uint32_t) { return a >> n; });
}
EMULATED __m512i _mm512_mask_or_epi32(__m512i from, __mmask16 k, __m512i x, __m512i y) {
    auto f = emulated::bits<emulated::Ints>(from), o = emulated::bits<emulated::Ints>(x | y);
    return emulated::ints([&](int i) { return k >> i & 1 ? o.at[i] : f.at[i]; });
}
EMULATED __mmask16 _mm512_cmp_ps_mask(__m512 x, __m512 y, int predicate) {
    if (predicate != _CMP_UNORD_Q) emulated::refuse("a comparison that is not emulated");
    __mmask16 k = 0;
    for (int i = 0; i < 16; i++)
        if (x[i] != x[i] || y[i] != y[i]) k = __mmask16(k | 1u << i);
    return k;
}

// Masked loads and stores touch no memory that the mask leaves out.
EMULATED __m512 _mm512_maskz_loadu_ps(__mmask16 k, const void* p) {
    return emulated::floats([=](int i) { return k >> i & 1 ? emulated::load<float>(p, i) : 0.f; });
}
EMULATED void _mm512_mask_storeu_ps(void* p, __mmask16 k, __m512 x) {
    for (int i = 0; i < 16; i++)
        if (k >> i & 1) emulated::store(p, i, float(x[i]));
}
EMULATED void _mm512_mask_storeu_epi32(void* p, __mmask16 k, __m512i x) { _mm512_mask_storeu_ps(p, k, _mm512_castsi512_ps(x)); }
EMULATED __m512i _mm512_maskz_loadu_epi16(__mmask32 k, const void* p) {
    return emulated::halves([=](int i) { return k >> i & 1 ? emulated::load<uint16_t>(p, i) : uint16_t(0); });
}
EMULATED __m256i _mm256_maskz_loadu_epi16(__mmask16 k, const void* p) {
    emulated::Halves16 r;
    for (int i = 0; i < 16; i++) r.at[i] = k >> i & 1 ? emulated::load<uint16_t>(p, i) : uint16_t(0);
    return emulated::bits<__m256i>(r);
}
EMULATED void _mm256_mask_storeu_epi16(void* p, __mmask16 k, __m256i x) {
    auto v = emulated::bits<emulated::Halves16>(x);
    for (int i = 0; i < 16; i++)
        if (k >> i & 1) emulated::store(p, i, v.at[i]);
}
EMULATED __m512 _mm512_load_ps(const void* p) { return _mm512_maskz_loadu_ps(0xffff, emulated::aligned(p)); }
EMULATED __m512i _mm512_load_si512(const void* p) { return _mm512_castps_si512(_mm512_load_ps(p)); }
EMULATED void _mm512_store_ps(void* p, __m512 x) { _mm512_mask_storeu_ps(const_cast<void*>(emulated::aligned(p)), 0xffff, x); }
EMULATED void _mm512_store_si512(void* p, __m512i x) { _mm512_store_ps(p, _mm512_castsi512_ps(x)); }

EMULATED __m512i _mm512_cvtepu16_epi32(__m256i x) {
    auto v = emulated::bits<emulated::Halves16>(x);
    return emulated::ints([&](int i) { return uint32_t(v.at[i]); });
}
EMULATED __m256i _mm512_cvtepi32_epi16(__m512i x) {
    auto v = emulated::bits<emulated::Ints>(x);
    emulated::Halves16 r;
    for (int i = 0; i < 16; i++) r.at[i] = uint16_t(v.at[i]);
    return emulated::bits<__m256i>(r);
}
EMULATED __m512 _mm512_unpacklo_ps(__m512 x, __m512 y) {
    return emulated::floats([&](int i) { return (i & 1 ? y : x)[(i & ~3) + (i & 3) / 2]; });
}
EMULATED __m512 _mm512_unpackhi_ps(__m512 x, __m512 y) {
    return emulated::floats([&](int i) { return (i & 1 ? y : x)[(i & ~3) + (i & 3) / 2 + 2]; });
}
EMULATED __m512 _mm512_shuffle_ps(__m512 x, __m512 y, int control) {
    return emulated::floats([&](int i) { return ((i & 3) < 2 ? x : y)[(i & ~3) + (control >> (i & 3) * 2 & 3)]; });
}
EMULATED __m512 _mm512_shuffle_f32x4(__m512 x, __m512 y, int control) {
    return emulated::floats([&](int i) { return (i < 8 ? x : y)[(control >> i / 4 * 2 & 3) * 4 + (i & 3)]; });
}
EMULATED __m512i _mm512_mask_mov_epi16(__m512i from, __mmask32 k, __m512i x) {
    auto f = emulated::bits<emulated::Halves>(from), v = emulated::bits<emulated::Halves>(x);
    return emulated::halves([&](int i) { return k >> i & 1 ? v.at[i] : f.at[i]; });
}
EMULATED __m512i _mm512_permutex2var_epi16(__m512i x, __m512i index, __m512i y) {
    auto a = emulated::bits<emulated::Halves>(x), b = emulated::bits<emulated::Halves>(y), at = emulated::bits<emulated::Halves>(index);
    return emulated::halves([&](int i) { return (at.at[i] & 32 ? b : a).at[at.at[i] & 31]; });
}

EMULATED __m256i _mm512_cvtneps_pbh(__m512 x) {
    emulated::Halves16 r;
    for (int i = 0; i < 16; i++) r.at[i] = emulated::rounded(x[i]);
    return emulated::bits<__m256i>(r);
}
EMULATED __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
    return emulated::bits<__m512bh>(emulated::halves([&](int i) { return emulated::rounded(i < 16 ? low[i] : high[i - 16]); }));
}
EMULATED __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh x, __m512bh y) {
    auto a = emulated::bits<emulated::Halves>(x), b = emulated::bits<emulated::Halves>(y);
    return emulated::floats([&](int i) {
        float odd = emulated::plus_product(sum[i], a.at[2 * i + 1], b.at[2 * i + 1]);
        return emulated::plus_product(odd, a.at[2 * i], b.at[2 * i]);
    });
}

// ---- tiles

namespace emulated {

struct Tiles {
    bool configured = false;
    uint16_t bytes[8] = {};
    uint8_t rows[8] = {};
    unsigned char data[8][16][64] = {};

    void check(int tile) const {
        if (!configured) refuse("a tile instruction before _tile_loadconfig");
        if (tile < 0 || tile > 7 || !rows[tile] || !bytes[tile]) refuse("a tile that is not configured");
    }
};
inline thread_local Tiles tiles;

}  // namespace emulated

EMULATED void _tile_loadconfig(const void* config) {
    using namespace emulated;
    if (load<uint8_t>(config, 0) != 1) refuse("a palette that is not 1");
    tiles = Tiles();
    tiles.configured = true;
    for (int i = 0; i < 8; i++) {
        tiles.bytes[i] = load<uint16_t>(config, 8 + i);
        tiles.rows[i] = load<uint8_t>(config, 48 + i);
        if (tiles.bytes[i] > 64 || tiles.rows[i] > 16) refuse("a tile that is too large");
    }
}
EMULATED void _tile_release() { emulated::tiles.configured = false; }
EMULATED void _tile_zero(int tile) {
    emulated::tiles.check(tile);
    memset(emulated::tiles.data[tile], 0, sizeof emulated::tiles.data[tile]);
}
EMULATED void _tile_loadd(int tile, const void* from, size_t stride) {
    using namespace emulated;
    _tile_zero(tile);
    for (int r = 0; r < tiles.rows[tile]; r++) memcpy(tiles.data[tile][r], static_cast<const char*>(from) + r * stride, tiles.bytes[tile]);
}
EMULATED void _tile_stored(int tile, void* to, size_t stride) {
    using namespace emulated;
    tiles.check(tile);
    for (int r = 0; r < tiles.rows[tile]; r++) memcpy(static_cast<char*>(to) + r * stride, tiles.data[tile][r], tiles.bytes[tile]);
}
EMULATED void _tile_dpbf16ps(int to, int left, int right) {
    using namespace emulated;
    tiles.check(to), tiles.check(left), tiles.check(right);
    if (tiles.rows[to] != tiles.rows[left] || tiles.bytes[to] != tiles.bytes[right] || tiles.bytes[left] / 4 != tiles.rows[right])
        refuse("tiles whose shapes do not fit");
    for (int m = 0; m < tiles.rows[to]; m++)
        for (int k = 0; k < tiles.bytes[left] / 4; k++)
            for (int n = 0; n < tiles.bytes[to] / 4; n++) {
                float sum = load<float>(tiles.data[to][m], n);
                for (int half = 0; half < 2; half++)
                    sum = plus_product(sum, load<uint16_t>(tiles.data[left][m], 2 * k + half),
                                       load<uint16_t>(tiles.data[right][k], 2 * n + half));
                store(tiles.data[to][m], n, sum);
            }
}
