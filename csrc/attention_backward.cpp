// dense_attention, backward. With D = dL/dX~: dA = D X^T (+ what comes in through the attention itself),
// dS = scale A (dA - rowsum(A dA)), dX = A^T D + dS^T H, dH = sum_b dS_b X_b.
#include "backward.hpp"
#include "pooling.hpp"
#include "widened.hpp"

namespace fastzsl {

void attention_backward(const Kernels& k, const AttendGrad& c) {
    const Regions& x = c.regions;
    const DType type = x.type;
    const Gemm& gemm = type == DType::f32 ? k.f32 : k.bf16;
    const int64_t rows = x.B * x.T;
    if (c.C == 0 || x.B == 0) {
        if (c.d_regions) std::memset(c.d_regions, 0, size_t(rows * x.d * size_of(type)));
        if (c.d_queries) std::memset(c.d_queries, 0, size_t(c.C * x.d * size_of(type)));
        return;
    }
    Result d_regions(k, c.d_regions, type, rows, x.d);
    int64_t most = std::clamp<int64_t>((1 << 24) / rows, 16, 512);  // dS of a block: at most 64 MiB
    int64_t per_block = ceil_div(c.C, ceil_div(c.C, most));
    int64_t ld = row_stride(per_block + k.width);
    Scratch d_logits(size_t(per_block * rows) * 4);

    Layout layout;
    int64_t at_product = layout.floats(x.T * ld), at_grad = layout.floats(per_block * x.T), at_attention = layout.floats(x.T),
            at_panel = layout.bytes(gemm.panel_a(std::max(std::min(x.d, block_steps), std::min(per_block, block_steps)))),
            at_values = layout.bytes(packed_values_bytes(gemm, pooled_columns, per_block)),
            at_weights = layout.bytes(packed_attention_bytes(gemm, x.T, per_block));
    Scratch memory(size_t(layout.size() * c.threads));
    std::vector<Packed> grads(static_cast<size_t>(c.threads));

    for (int64_t from = 0; from < c.C; from += per_block) {
        int64_t n = std::min(per_block, c.C - from);
        parallel(c.threads, x.B, [&](int64_t i, int worker) {
            char* base = memory.at(size_t(layout.size() * worker));
            auto floats = [&](int64_t at) { return reinterpret_cast<float*>(base + at); };
            View grad{element(c.grad_attended, type, (i * c.C + from) * x.d), type, x.d, 1};
            Packed& d = grads[size_t(worker)];
            if (d.lanes() != n) d = Packed(gemm, n, x.d);
            for (int64_t panel = 0; panel < d.panels(); panel++) {
                if (d.ragged(panel)) d.clear(panel);
                d.fill(panel, grad, 0, n);
            }
            regions_times(gemm, x, i * x.T, x.T, d, floats(at_product), ld, base + at_panel);
            k.transpose(x.T, n, floats(at_product), ld, floats(at_grad), DType::f32, x.T);
            for (int64_t j = 0; j < n; j++) {
                int64_t row = (i * c.C + from + j) * x.T;
                float* g = floats(at_grad) + j * x.T;
                if (c.grad_attention) {
                    k.convert(x.T, element(c.grad_attention, type, row), type, floats(at_attention), DType::f32);
                    for (int64_t t = 0; t < x.T; t++) g[t] += floats(at_attention)[t];
                }
                k.convert(x.T, element(c.attention, type, row), type, floats(at_attention), DType::f32);
                k.softmax_grad(x.T, floats(at_attention), g, c.scale, d_logits.as<float>() + j * rows + i * x.T);
            }
            if (!c.d_regions) return;
            // A^T D: lanes t, steps c.
            View weights{element(c.attention, type, (i * c.C + from) * x.T), type, 1, x.T};
            for (int64_t r = 0; r < x.T; r += gemm.mr)
                pack_rows(gemm, base + at_weights + r / gemm.mr * gemm.panel_a(n), weights, r, 0,
                          int(std::min<int64_t>(gemm.mr, x.T - r)), n);
            View values{grad.data, type, 1, x.d};
            for (int64_t j = 0; j < x.d; j += pooled_columns) {
                int64_t count = std::min(pooled_columns, x.d - j);
                pack_values(gemm, values, j, count, n, base + at_values);
                gemm.multiply(n, base + at_weights, base + at_values, x.T, count, d_regions.rows() + i * x.T * x.d + j, x.d,
                              from ? Store::add : Store::replace, chain_of(n), nullptr);
            }
        });
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

}  // namespace fastzsl
