// attended_scores, backward. Each order makes dS, the gradient of the logits, as (classes, B * T) and the gradient of what
// was pooled; dX, dH and dW are then large matrix products whose sums run in one fixed order.
#include "ops/ops.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "gemm/choose.hpp"
#include "gemm/product.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "ops/cancelling.hpp"
#include "ops/gradient.hpp"
#include "ops/norms.hpp"
#include "ops/pooling.hpp"
#include "ops/widened.hpp"
#include "runtime/layout.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {
namespace {

class Call {
public:
    Call(const Kernels& kernels, const Gemm& products, const ScoresGrad& call)
        : k(kernels), c(call), x(call.regions), type(call.regions.type), gemm(products), rows(x.B * x.T),
          grad(kernels, call.grad, type, x.B * call.C), classes(kernels, call.classes, type, call.C * call.m),
          bias(kernels, call.bias, type, call.m),
          direct(kernels, products, x, call.weight, bias.rows(), call.m, call.threads),
          d_regions(kernels, inner(call.d_regions), type, rows, x.d),
          d_queries(kernels, inner(call.d_queries), type, call.C, x.d), d_weight(kernels, call.d_weight, type, call.m, x.d),
          d_bias(kernels, call.d_bias, type, 1, call.m), d_classes(kernels, call.d_classes, type, call.C, call.m) {}

    void run() {
        if (c.order == Order::prototype)
            prototype();
        else if (c.order == Order::project)
            project();
        else
            attend();
        d_regions.finish(c.threads);
        d_queries.finish(c.threads);
        d_weight.finish(c.threads);
        d_bias.finish(c.threads);
        d_classes.finish(c.threads);
    }

private:
    // In order "attend" these two are left to attention_backward.
    void* inner(void* gradient) const { return c.order == Order::attend ? nullptr : gradient; }
    View matrix(const void* data, int64_t columns, bool transposed = false) const {
        return transposed ? View{data, type, 1, columns} : View{data, type, columns, 1};
    }
    static View floats(const float* data, int64_t columns, bool transposed = false) {
        return transposed ? View{data, DType::f32, 1, columns} : View{data, DType::f32, columns, 1};
    }
    int64_t block_of_classes(int64_t numbers) const {  // so many classes that a block's gradients take at most 64 MiB
        int64_t most = std::max<int64_t>(16, (1 << 24) / std::max<int64_t>(1, numbers));
        return ceil_div(c.C, ceil_div(c.C, most));
    }

    // T numbers of a saved (B, C, T) tensor as float32.
    const float* row(const void* saved, int64_t index, float* line) const {
        return widened(k, element(saved, type, index * x.T), type, x.T, line);
    }

    // u = p_c . x_bt + q_c, s = sum_t A u: dU = A g, dS = scale A (g u - sum_t A g u), where q_c falls out.
    void prototype() {
        int64_t per_block = block_of_classes(2 * rows);
        // [dS; dU] of a block, (2 classes, B * T), and its product with X: [dH; dP]. One product for both: X is packed once.
        Scratch both(size_t(2 * per_block * rows) * 4), sums(size_t(2 * per_block * x.d) * 4);
        Scratch p(c.d_regions ? size_t(per_block * x.d) * 4 : 0), lines(size_t(c.threads) * size_t(2 * x.T + 32) * 4);
        const bool for_h = c.d_queries, for_p = c.d_weight || c.d_classes;
        for (int64_t from = 0; from < c.C; from += per_block) {
            int64_t n = std::min(per_block, c.C - from);
            Store store = from ? Store::add : Store::replace;
            float *logits = both.as<float>(), *values = logits + n * rows;
            parallel(c.threads, n, [&](int64_t j, int worker) {
                float *a = lines.as<float>() + worker * (2 * x.T + 32), *u = a + x.T;
                for (int64_t b = 0; b < x.B; b++) {
                    int64_t at = b * c.C + from + j, to = j * rows + b * x.T;
                    k.pooled_grad(x.T, row(c.attention, at, a), row(c.values, at, u), grad.rows()[at], c.scale, logits + to,
                                  values + to);
                }
            });
            const float* k_rows = classes.rows() + from * c.m;
            if (c.d_regions) {
                product(gemm, c.threads, n, x.d, c.m, floats(k_rows, c.m), matrix(c.weight, x.d, true), p.as<float>(), x.d);
                from_logits(logits, rows, from, n, store);
                product(gemm, c.threads, rows, x.d, n, floats(values, rows, true), floats(p.as<float>(), x.d, true),
                        d_regions.rows(), x.d, Store::add);
            }
            float *dh = sums.as<float>(), *dp = dh + n * x.d;
            if (for_h && for_p)
                product(k, gemm, c.threads, 2 * n, floats(logits, rows), x, dh, x.d);
            else if (for_h)
                product(k, gemm, c.threads, n, floats(logits, rows), x, dh, x.d);
            else if (for_p)
                product(k, gemm, c.threads, n, floats(values, rows), x, dp, x.d);
            if (for_h)
                parallel(c.threads, n, [&](int64_t j, int) {
                    std::memcpy(d_queries.rows() + (from + j) * x.d, dh + j * x.d, size_t(x.d) * 4);
                });
            if (c.d_weight)
                product(gemm, c.threads, c.m, x.d, n, floats(k_rows, c.m, true), floats(dp, x.d, true), d_weight.rows(), x.d,
                        store);
            if (c.d_classes)
                product(gemm, c.threads, n, c.m, x.d, floats(dp, x.d), matrix(c.weight, x.d), d_classes.rows() + from * c.m,
                        c.m);
        }
        through_offsets();
    }

    // db = the sum of dV (m, B * T) over its columns: long sums of few numbers, so in double.
    void sum_columns(const float* dv, int64_t ld) const {
        parallel(c.threads, c.m, [&](int64_t i, int) {
            double sums[8] = {};
            for (int64_t r = 0; r < rows; r++) sums[r % 8] += double(dv[i * ld + r]);
            for (int j = 1; j < 8; j++) sums[0] += sums[j];
            d_bias.rows()[i] = float(sums[0]);
        });
    }

    // [dW; dH] = [dV; dS] X, for `first` <= row < `first + count` of the stacked gradients: X is packed once for both.
    void from_stacked(const float* stacked, int64_t ld, int64_t first, int64_t count, int64_t from) {
        if (!count) return;
        auto place = [&](int64_t row) {
            return row < c.m ? d_weight.rows() + row * x.d : d_queries.rows() + (from + row - c.m) * x.d;
        };
        if (first >= c.m || first + count <= c.m) {
            product(k, gemm, c.threads, count, floats(stacked + first * ld, ld), x, place(first), x.d);
            return;
        }
        Scratch both(size_t(count * x.d) * 4);
        product(k, gemm, c.threads, count, floats(stacked + first * ld, ld), x, both.as<float>(), x.d);
        parallel(c.threads, ceil_div(count, 16), [&](int64_t task, int) {
            for (int64_t i = task * 16; i < std::min(count, (task + 1) * 16); i++)
                std::memcpy(place(first + i), both.as<float>() + i * x.d, size_t(x.d) * 4);
        });
    }

    // q = K b, dq = sum_b g (rows of A sum to 1): db = K^T dq, dK += dq b^T.
    void through_offsets() {
        std::vector<double> dq(static_cast<size_t>(c.C));
        parallel(c.threads, c.C, [&](int64_t j, int) {
            for (int64_t b = 0; b < x.B; b++) dq[size_t(j)] += double(grad.rows()[b * c.C + j]);
            for (int64_t i = 0; i < c.m && c.d_classes && c.bias; i++)
                d_classes.rows()[j * c.m + i] += float(dq[size_t(j)]) * bias.rows()[i];
        });
        if (c.d_bias) sum_rows(classes.rows(), c.C, d_bias.rows(), dq.data());
    }

    // dX (+)= dS^T H
    void from_logits(const float* logits, int64_t ld, int64_t from, int64_t n, Store store) {
        product(gemm, c.threads, rows, x.d, n, floats(logits, ld, true), matrix(element(c.queries, type, from * x.d), x.d, true),
                d_regions.rows(), x.d, store);
    }

    // Gradient of the score in e, given g: into de; returns what g counts for in the sum of e's that is dL/dk (before
    // `through_class_norms`).
    float compared(float g, const float* e, int64_t j, float* de) const {
        const float* key = classes.rows() + j * c.m;
        if (c.similarity == Similarity::dot) {
            for (int64_t i = 0; i < c.m; i++) de[i] = g * key[i];
            return g;
        }
        float dot, square;
        k.dots(c.m, e, key, &dot, &square);
        const bool clamped = std::sqrt(square) < least_norm;
        const float norm = clamped_norm(square), inverse = inverse_norm(j);
        float direct = g * inverse / norm, back = clamped ? 0.f : g * inverse * dot / norm / square;
        for (int64_t i = 0; i < c.m; i++) de[i] = direct * key[i] - back * e[i];
        return g / norm;
    }

    float inverse_norm(int64_t j) const {
        float dot, square;
        k.dots(c.m, classes.rows() + j * c.m, classes.rows() + j * c.m, &dot, &square);
        return 1.f / clamped_norm(square);
    }

    // Cosine: from the gradient of k / |k| to that of k, in place.
    void through_class_norms() {
        if (c.similarity == Similarity::dot) return;
        parallel(c.threads, c.C, [&](int64_t j, int) {
            const float* key = classes.rows() + j * c.m;
            float *d = d_classes.rows() + j * c.m, along, square, unused;
            k.dots(c.m, d, key, &along, &unused);
            k.dots(c.m, key, key, &unused, &square);
            float inverse = inverse_norm(j), back = std::sqrt(square) < least_norm ? 0.f : along * inverse * inverse;
            for (int64_t i = 0; i < c.m; i++) d[i] = inverse * (d[i] - back * key[i]);
        });
    }

    // e = sum_t A v, v = W x + b: dA = dE V^T, dV = A^T dE.
    void project() {
        int64_t per_block = std::min<int64_t>(block_of_classes(2 * rows), 512), ldm = row_stride(c.m), ld = row_stride(rows);
        Scratch stacked(size_t((c.m + per_block) * ld) * 4), shares(size_t(per_block * x.B) * 4);
        float *dv = stacked.as<float>(), *logits = dv + c.m * ld;  // (m, B * T) and (classes of a block, B * T)
        Widened v(k, c.values, type, rows * c.m);
        std::vector<char> cancelled_pairs(size_t(per_block * x.B));
        Apart apart(c.d_weight ? x.B : 0);
        Layout layout;
        int64_t at_e = layout.floats(per_block * ldm), at_de = layout.floats(per_block * ldm), at_a = layout.floats(per_block * x.T),
                at_da = layout.floats(per_block * x.T), at_squares = layout.floats(2 * x.T),
                at_left = layout.bytes(std::max(packed_attention_bytes(gemm, per_block, std::max(x.T, c.m)),
                                                packed_attention_bytes(gemm, c.m, per_block))),
                at_right = layout.bytes(std::max(packed_values_bytes(gemm, c.m, x.T),
                                                 packed_values_bytes(gemm, x.T, std::max(c.m, per_block))));
        Scratch memory(size_t(layout.size() * c.threads));
        for (int64_t from = 0; from < c.C; from += per_block) {
            int64_t n = std::min(per_block, c.C - from);
            auto one_image = [&](int64_t b, int worker) {
                char* base = memory.at(size_t(layout.size() * worker));
                auto at = [&](int64_t offset) { return reinterpret_cast<float*>(base + offset); };
                float *e = at(at_e), *de = at(at_de), *a = at(at_a), *da = at(at_da);
                char *left = base + at_left, *right = base + at_right;
                k.convert(n * x.T, element(c.attention, type, (b * c.C + from) * x.T), type, a, DType::f32);
                const float* vb = v.rows() + b * x.T * c.m;
                small_product(gemm, n, c.m, x.T, floats(a, x.T), floats(vb, c.m, true), e, ldm, Store::replace, left, right);
                char* pairs = cancelled_pairs.data() + b * n;
                const bool some = make_again(worker, b, n, a, e, ldm, vb, at(at_squares), pairs, apart.attended(b));
                for (int64_t j = 0; j < n; j++)
                    shares.as<float>()[b * n + j] =
                        compared(grad.rows()[b * c.C + from + j], e + j * ldm, from + j, de + j * ldm);
                small_product(gemm, n, x.T, c.m, floats(de, ldm), floats(vb, c.m), da, x.T, Store::replace, left, right);
                for (int64_t j = 0; j < n; j++)
                    k.softmax_grad(x.T, a + j * x.T, da + j * x.T, c.scale, logits + j * ld + b * x.T);
                if (some && c.d_weight) {
                    float* moved = e;  // no longer needed
                    apart.move(b, n, c.m, pairs, de, moved, ldm);
                    small_product(gemm, c.m, x.T, n, floats(moved, ldm, true), floats(a, x.T, true),
                                  apart.dv(c.m * ld) + b * x.T, ld, Store::add, left, right);
                }
                small_product(gemm, c.m, x.T, n, floats(de, ldm, true), floats(a, x.T, true), dv + b * x.T, ld,
                              from ? Store::add : Store::replace, left, right);
            };
            const int64_t at_once = Apart::images_at_once(c.threads, n, x.d);
            for (int64_t first = 0; first < x.B; first += at_once) {
                parallel(c.threads, std::min(at_once, x.B - first), [&](int64_t i, int worker) { one_image(first + i, worker); });
                apart.add_weights(gemm, c.threads, c.m, x.d);
            }
            if (c.d_regions) from_logits(logits, ld, from, n, from ? Store::add : Store::replace);
            const bool last = from + n == c.C;  // dV is complete
            const int64_t first = last && c.d_weight ? 0 : c.m, end = c.d_queries ? c.m + n : c.m;
            from_stacked(stacked.as<float>(), ld, first, end - first, from);
            if (c.d_classes)
                sum_pooled(from, n, shares.as<float>(), cancelled_pairs.data(), v.rows(), memory, layout.size(), at_e, at_a,
                           at_left, at_right);
        }
        apart.finish(c.threads, d_weight.rows(), c.m * x.d, dv, c.m, rows, ld);
        if (c.d_regions)
            product(gemm, c.threads, rows, x.d, c.m, floats(dv, ld, true), matrix(c.weight, x.d, true), d_regions.rows(), x.d,
                    Store::add);
        if (c.d_bias) sum_columns(dv, ld);
        if (c.d_classes) through_class_norms();
    }

    // Cosine: the e of n classes of an image that their decoded regions do not give exactly enough (ops/cancelling.hpp), and which
    // classes these are. Their x~ are added to `kept`, unless it is null. Returns whether there are any.
    bool make_again(int worker, int64_t image, int64_t n, const float* a, float* e, int64_t ld, const float* v, float* squares,
                    char* pairs, std::vector<float>* kept) {
        std::memset(pairs, 0, size_t(n));
        if (c.similarity != Similarity::cosine) return false;
        squares_of(k, v, c.m, x.T, c.m, squares);
        float *weighted = squares + x.T, own, square, unused;
        for (int64_t j = 0; j < n; j++) {
            for (int64_t t = 0; t < x.T; t++) weighted[t] = a[j * x.T + t] * squares[t];
            k.dots(x.T, a + j * x.T, weighted, &own, &unused);
            k.dots(c.m, e + j * ld, e + j * ld, &unused, &square);
            pairs[j] = cancelled(square, own);
        }
        bool some = false;
        decode_again(worker, image, n, pairs, a, [&](int64_t j, const float* exact, const float* attended) {
            some = true;
            std::memcpy(e + j * ld, exact, size_t(c.m) * 4);
            if (kept) kept->insert(kept->end(), attended, attended + x.d);
        });
        return some;
    }

    template <typename Use>
    void decode_again(int worker, int64_t image, int64_t n, const char* pairs, const float* a, const Use& use) {
        std::vector<int64_t> which;
        for (int64_t j = 0; j < n; j++)
            if (pairs[j]) which.push_back(j);
        direct.decode(
            worker, image, int64_t(which.size()),
            [&](int64_t i, float* row) { std::memcpy(row, a + which[size_t(i)] * x.T, size_t(x.T) * 4); },
            [&](int64_t i, const float* e, const float* attended) { use(which[size_t(i)], e, attended); });
    }

    // dL/dk_c (before `through_class_norms`) = sum_b share_bc e_bc. The pooled values e are made again rather than kept:
    // they would be B C m numbers. A task owns some classes, so that their sums over b run in order.
    void sum_pooled(int64_t from, int64_t n, const float* shares, const char* pairs, const float* v, const Scratch& memory,
                    int64_t bytes, int64_t at_e, int64_t at_a, int64_t at_left, int64_t at_right) {
        constexpr int64_t chunk = 56;
        const int64_t ldm = row_stride(c.m);
        parallel(c.threads, ceil_div(n, chunk), [&](int64_t task, int worker) {
            char* base = memory.at(size_t(bytes * worker));
            float *e = reinterpret_cast<float*>(base + at_e), *a = reinterpret_cast<float*>(base + at_a);
            int64_t first = task * chunk, count = std::min(chunk, n - first);
            float* d = d_classes.rows() + (from + first) * c.m;
            std::memset(d, 0, size_t(count * c.m) * 4);
            for (int64_t b = 0; b < x.B; b++) {
                k.convert(count * x.T, element(c.attention, type, (b * c.C + from + first) * x.T), type, a, DType::f32);
                small_product(gemm, count, c.m, x.T, floats(a, x.T), floats(v + b * x.T * c.m, c.m, true), e, ldm,
                              Store::replace, base + at_left, base + at_right);
                decode_again(worker, b, count, pairs + b * n + first, a, [&](int64_t j, const float* exact, const float*) {
                    std::memcpy(e + j * ldm, exact, size_t(c.m) * 4);
                });
                for (int64_t j = 0; j < count; j++) {
                    float share = shares[b * n + first + j];
                    for (int64_t i = 0; i < c.m; i++) d[j * c.m + i] += share * e[j * ldm + i];
                }
            }
        });
    }

    // The sum of `count` rows of m numbers, each as often as `weights` says: long sums of few numbers, so in double, which costs
    // little.
    void sum_rows(const float* from, int64_t count, float* to, const double* weights = nullptr) const {
        constexpr int64_t columns = 64;
        parallel(c.threads, ceil_div(c.m, columns), [&](int64_t part, int) {
            const int64_t first = part * columns, n = std::min(columns, c.m - first);
            double sums[columns] = {};
            for (int64_t r = 0; r < count; r++)
                for (int64_t i = 0; i < n; i++) sums[i] += double(from[r * c.m + first + i]) * (weights ? weights[r] : 1.);
            for (int64_t i = 0; i < n; i++) to[first + i] = float(sums[i]);
        });
    }

    // e = W x~ + b: dX~ = dE W, and on as the backward pass of dense_attention.
    void attend() {
        int64_t pairs = x.B * c.C;
        Scratch e(size_t(pairs * c.m) * 4), de(size_t(pairs * c.m) * 4), d_attended(size_t(pairs * x.d) * size_t(size_of(type)));
        product(gemm, c.threads, pairs, c.m, x.d, matrix(c.values, x.d), matrix(c.weight, x.d), e.as<float>(), c.m);
        Scratch shares(size_t(pairs) * 4);
        parallel(c.threads, c.C, [&](int64_t j, int) {
            for (int64_t b = 0; b < x.B; b++) {
                float* row = e.as<float>() + (b * c.C + j) * c.m;
                if (c.bias)
                    for (int64_t i = 0; i < c.m; i++) row[i] += bias.rows()[i];
                shares.as<float>()[b * c.C + j] =
                    compared(grad.rows()[b * c.C + j], row, j, de.as<float>() + (b * c.C + j) * c.m);
            }
            if (!c.d_classes) return;
            float* d = d_classes.rows() + j * c.m;
            std::memset(d, 0, size_t(c.m) * 4);
            for (int64_t b = 0; b < x.B; b++)
                for (int64_t i = 0; i < c.m; i++)
                    d[i] += shares.as<float>()[b * c.C + j] * e.as<float>()[(b * c.C + j) * c.m + i];
        });
        if (c.d_classes) through_class_norms();
        if (c.d_bias) sum_rows(de.as<float>(), pairs, d_bias.rows());
        if (c.d_weight)
            product(gemm, c.threads, c.m, x.d, pairs, floats(de.as<float>(), c.m, true), matrix(c.values, x.d, true),
                    d_weight.rows(), x.d);
        if (!c.d_regions && !c.d_queries) return;
        Result attended(k, d_attended.as(), type, pairs, x.d);
        product(gemm, c.threads, pairs, x.d, c.m, floats(de.as<float>(), c.m), matrix(c.weight, x.d, true), attended.rows(), x.d);
        attended.finish(c.threads);
        attention_backward(k, AttendGrad{x, c.queries, c.C, c.scale, d_attended.as(), nullptr, c.attention, c.d_regions,
                                         c.d_queries, c.threads});
    }

    const Kernels& k;
    const ScoresGrad& c;
    const Regions& x;
    const DType type;
    const Gemm& gemm;
    const int64_t rows;
    Widened grad, classes, bias;
    Direct direct;
    Result d_regions, d_queries, d_weight, d_bias, d_classes;
};

}  // namespace

void scores_backward(const Kernels& kernels, const ScoresGrad& call) {
    const Regions& x = call.regions;
    if (x.B > 0 && call.C > 0) {
        with_products(kernels, x, [&](const Gemm& gemm) { Call(kernels, gemm, call).run(); });
        return;
    }
    auto clear = [&](void* to, int64_t n) {
        if (to) std::memset(to, 0, size_t(n * size_of(x.type)));
    };
    clear(call.d_regions, x.B * x.T * x.d);
    clear(call.d_queries, call.C * x.d);
    clear(call.d_weight, call.m * x.d);
    clear(call.d_bias, call.m);
    clear(call.d_classes, call.C * call.m);
}

}  // namespace fastzsl
