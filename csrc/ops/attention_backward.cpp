// dense_attention, backward. With D = dL/dX~: dA = D X^T (+ what comes in through the attention itself),
// dS = scale A (dA - rowsum(A dA)), dX = A^T D + dS^T H, dH = sum_b dS_b X_b.
#include "ops/ops.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "gemm/choose.hpp"
#include "gemm/packed.hpp"
#include "gemm/product.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "ops/gradient.hpp"
#include "ops/pooling.hpp"
#include "runtime/layout.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {
namespace {

// The classes of an image are walked in chunks whose gradient D stays in the second cache: it is read from memory once, for
// D X^T, and again from the cache for A^T D.
constexpr int64_t chunk_bytes = 256 << 10;
constexpr int64_t columns_at_once = 512;

class Call {
public:
    Call(const Kernels& kernels, const Gemm& products, const AttendGrad& call)
        : k(kernels), gemm(products), c(call), x(call.regions), type(call.regions.type), rows(x.B * x.T),
          d_regions(kernels, call.d_regions, type, rows, x.d) {}

    void run() {
        plan();
        for (int64_t from = 0; from < c.C; from += per_block) {
            int64_t n = std::min(per_block, c.C - from);
            parallel(c.threads, x.B, [&](int64_t image, int worker) { one_image(image, from, n, memory_of(worker), packed[size_t(worker)]); });
            if (c.d_regions)  // dS^T H
                product(gemm, c.threads, rows, x.d, n, View{d_logits.as(), DType::f32, 1, rows},
                        View{element(c.queries, type, from * x.d), type, 1, x.d}, d_regions.rows(), x.d, Store::add);
            if (c.d_queries) {
                Result d_queries(k, element(c.d_queries, type, from * x.d), type, n, x.d);
                product(k, gemm, c.threads, n, View{d_logits.as(), DType::f32, rows, 1}, x, d_queries.rows(), x.d);
                d_queries.finish(c.threads);
            }
        }
        d_regions.finish(c.threads);
    }

private:
    void plan() {
        int64_t most = std::clamp<int64_t>((1 << 24) / rows, 16, 512);  // dS of a block: at most 64 MiB
        per_block = ceil_div(c.C, ceil_div(c.C, most));
        chunk = std::clamp<int64_t>(chunk_bytes / (x.d * size_of(type)), 32, per_block);
        chunk = ceil_div(per_block, ceil_div(per_block, chunk));
        if (chunk < per_block) chunk = std::min(round_up(chunk, 32), per_block);
        d_logits = Scratch(size_t(per_block * rows) * 4);
        at_grad = layout.floats(chunk * x.T);
        at_attention = layout.floats(x.T);
        at_panel = layout.bytes(gemm.panel_a(std::min(x.d, gemm.block)));
        at_values = layout.bytes(packed_values_bytes(gemm, columns_at_once, chunk));
        at_weights = layout.bytes(packed_attention_bytes(gemm, x.T, chunk));
        memory = Scratch(size_t(layout.size() * c.threads));
        for (int i = 0; i < c.threads; i++) packed.emplace_back(gemm, x.T, x.d);
    }
    char* memory_of(int worker) const { return memory.at(size_t(layout.size() * worker)); }

    void one_image(int64_t image, int64_t from, int64_t n, char* base, const Packed& regions) const {
        View of_image{x.at(image, 0, 0), type, x.stride_t, x.stride_d};
        for (int64_t panel = 0; panel < regions.panels(); panel++) {
            if (regions.ragged(panel)) regions.clear(panel);
            regions.fill(panel, of_image, 0, x.T);
        }
        for (int64_t first = 0; first < n; first += chunk) {
            int64_t count = std::min(chunk, n - first), at = image * c.C + from + first;
            View grad{element(c.grad_attended, type, at * x.d), type, x.d, 1};
            times_regions(grad, count, regions, base);
            through_softmax(image, at, first, count, base);
            if (c.d_regions) times_attention(image, at, grad, count, from + first ? Store::add : Store::replace, base);
        }
    }

    // D X^T: (classes, T).
    void times_regions(const View& grad, int64_t count, const Packed& regions, char* base) const {
        float* g = reinterpret_cast<float*>(base + at_grad);
        for (int64_t r = 0; r < count; r += gemm.mr) {
            int lanes = int(std::min<int64_t>(gemm.mr, count - r));
            for (int64_t b = 0; b < regions.blocks(); b++) {
                pack_rows(gemm, base + at_panel, grad, r, b * gemm.block, lanes, regions.block_size(b));
                const bool last = b + 1 == regions.blocks();
                int64_t next = r + (last ? gemm.mr : 0), size = size_of(type);
                Prefetch following{static_cast<const char*>(grad.at(next, last ? 0 : (b + 1) * gemm.block)), x.d * size,
                            std::min<int64_t>(gemm.mr, count - next), gemm.block * size};
                gemm.multiply(regions.block_size(b), base + at_panel, regions.block(b), lanes, x.T, g + r * x.T, x.T,
                              b ? Store::add : Store::replace, chain_of(x.d), following.count > 0 ? &following : nullptr);
            }
        }
    }

    void through_softmax(int64_t image, int64_t at, int64_t first, int64_t count, char* base) const {
        float *g = reinterpret_cast<float*>(base + at_grad), *line = reinterpret_cast<float*>(base + at_attention);
        for (int64_t j = 0; j < count; j++, g += x.T) {
            int64_t row = (at + j) * x.T;
            if (c.grad_attention) {
                k.convert(x.T, element(c.grad_attention, type, row), type, line, DType::f32);
                for (int64_t t = 0; t < x.T; t++) g[t] += line[t];
            }
            k.convert(x.T, element(c.attention, type, row), type, line, DType::f32);
            k.softmax_grad(x.T, line, g, c.scale, d_logits.as<float>() + (first + j) * rows + image * x.T);
        }
    }

    // A^T D: (T, d).
    void times_attention(int64_t image, int64_t at, const View& grad, int64_t count, Store store, char* base) const {
        View weights{element(c.attention, type, at * x.T), type, 1, x.T}, values{grad.data, type, 1, x.d};
        for (int64_t r = 0; r < x.T; r += gemm.mr)
            pack_rows(gemm, base + at_weights + r / gemm.mr * gemm.panel_a(count), weights, r, 0,
                      int(std::min<int64_t>(gemm.mr, x.T - r)), count);
        for (int64_t j = 0; j < x.d; j += columns_at_once) {
            int64_t width = std::min(columns_at_once, x.d - j);
            pack_values(gemm, values, j, width, count, base + at_values);
            gemm.multiply(count, base + at_weights, base + at_values, x.T, width, d_regions.rows() + image * x.T * x.d + j, x.d, store,
                          chain_of(count), nullptr);
        }
    }

    const Kernels& k;
    const Gemm& gemm;
    const AttendGrad& c;
    const Regions& x;
    const DType type;
    const int64_t rows;
    Result d_regions;
    int64_t per_block = 0, chunk = 0;
    Layout layout;
    int64_t at_grad = 0, at_attention = 0, at_panel = 0, at_values = 0, at_weights = 0;
    Scratch d_logits, memory;
    std::vector<Packed> packed;
};

}  // namespace

void attention_backward(const Kernels& kernels, const AttendGrad& call) {
    const Regions& x = call.regions;
    if (call.C > 0 && x.B > 0) {
        with_products(kernels, x, [&](const Gemm& gemm) { Call(kernels, gemm, call).run(); });
        return;
    }
    if (call.d_regions) std::memset(call.d_regions, 0, size_t(x.B * x.T * x.d * size_of(x.type)));
    if (call.d_queries) std::memset(call.d_queries, 0, size_t(call.C * x.d * size_of(x.type)));
}

}  // namespace fastzsl
