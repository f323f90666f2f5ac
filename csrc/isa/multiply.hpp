// The product of packed operands on the multiply-add unit: register tiles of MR rows and two vectors of columns.
#pragma once
#include "isa/prefetch.hpp"
#include "isa/vector.hpp"

namespace fastzsl {
namespace FZ_SPACE {
namespace {

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
            if (W == 16 || j == 0) __builtin_prefetch(b + 8 * NR + j * W);  // of each cache line once
        }
        if (W < 16) __builtin_prefetch(a + 16 * MR);
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
        float whole[R * V * W];
#pragma GCC unroll 16
        for (int i = 0; i < R; i++)
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) put(whole + (i * V + j) * W, acc[i][j]);
        for (int i = 0; i < R; i++)
            for (int64_t j = 0; j < columns; j++)
                c[i * ldc + j] = whole[i * V * W + j] + (store == Store::add ? c[i * ldc + j] : 0.f);
        return;
    }
    if (store == Store::add) {
#pragma GCC unroll 16
        for (int i = 0; i < R; i++)
#pragma GCC unroll 4
            for (int j = 0; j < V; j++) put(c + i * ldc + j * W, load(c + i * ldc + j * W) + acc[i][j]);
        return;
    }
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

// STEPS: the number of steps that one element of a panel holds.
template <typename Op, int STEPS>
void multiply(int64_t k, const void* pa, const void* pb, int64_t m, int64_t n, float* c, int64_t ldc, Store store,
              int64_t chain, const Prefetch* next) {
    static const Table<Op> tiles;
    Prefetcher prefetcher(next, (m + MR - 1) / MR * ((n + NR - 1) / NR));
    const float *a = static_cast<const float*>(pa), *b = static_cast<const float*>(pb);
    k = (k + STEPS - 1) / STEPS;
    chain /= STEPS;
    // The wider panel stays in the first cache while the narrower ones pass: with 6 rows by 16 columns that of B. A tile of 14 by
    // 32 reads so little for its work that B may pass, and C is then written row by row.
    constexpr bool by_columns = W < 16;
    const int64_t outer_end = by_columns ? n : m, inner_end = by_columns ? m : n;
    for (int64_t outer = 0; outer < outer_end; outer += by_columns ? NR : MR) {
        for (int64_t inner = 0; inner < inner_end; inner += by_columns ? MR : NR) {
            const int64_t i = by_columns ? inner : outer, j = by_columns ? outer : inner;
            const int rows = m - i < MR ? int(m - i) : MR;
            const int64_t columns = n - j < NR ? n - j : NR;
            prefetcher.step();
            for (int64_t p = 0; p < k; p += chain)
                tiles.at[rows - 1][columns > W](k - p < chain ? k - p : chain, a + i * k + p * MR, b + j * k + p * NR,
                                                c + i * ldc + j, ldc, columns, p ? Store::add : store);
        }
    }
}

}  // namespace
}  // namespace FZ_SPACE
}  // namespace fastzsl
