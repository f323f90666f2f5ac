// dense_attention, forward: logits of some images and a block of classes, softmax, and pooling while the attention is in
// the cache.
#include "ops/ops.hpp"

#include <algorithm>
#include <vector>

#include "gemm/choose.hpp"
#include "gemm/packed.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "ops/pooling.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {
namespace {

constexpr int64_t working_floats = 128 << 10;

// `pooling`: the products that make the output, whose time goes into writing it.
void forward(const Kernels& k, const Gemm& gemm, const Gemm& pooling, const Attend& c) {
    const Regions& x = c.regions;
    int64_t most = 512;
    while (most > 32 && x.T * most > 2 * working_floats) most /= 2;
    int64_t wanted = c.threads > x.B ? ceil_div(c.threads, x.B) : 1;
    int64_t per_block = ceil_div(c.C, std::max(ceil_div(c.C, most), std::min(wanted, ceil_div(c.C, 32))));
    if (per_block < c.C) per_block = round_up(per_block, k.width);
    int64_t blocks = ceil_div(c.C, per_block), ld = row_stride(per_block + k.width);
    int64_t images = images_per_task(gemm, x.B, x.T, c.threads, working_floats / ld), groups = ceil_div(x.B, images);

    int64_t bytes = 0;
    auto part = [&](int64_t size) {
        int64_t at = bytes;
        bytes += round_up(size, 64) + 64;
        return at;
    };
    int64_t at_product = part(images * x.T * ld * 4), at_panel = part(regions_panel_bytes(gemm, x.d)),
            at_attention = part(packed_attention_bytes(pooling, per_block, x.T) + 1024),
            at_values = part(packed_values_bytes(pooling, pooled_columns(pooling, x.T, x.d), x.T) + 1024),
            at_rows = part(x.type == DType::f32 ? 0 : pooling.mr * pooled_columns(pooling, x.T, x.d) * 4);
    Scratch memory(size_t(bytes * c.threads));

    int64_t at_once = std::min(blocks, wanted);
    for (int64_t first = 0; first < blocks; first += at_once) {
        int64_t from = first * per_block, total = std::min(c.C, (first + at_once) * per_block) - from;
        // One operand for each block of classes, packed by all threads.
        int64_t count = ceil_div(total, per_block), panels = ceil_div(per_block, gemm.nr);
        std::vector<Packed> queries;
        for (int64_t b = 0; b < count; b++) queries.emplace_back(gemm, std::min(per_block, total - b * per_block), x.d);
        parallel(c.threads, count * panels, [&](int64_t task, int) {
            const Packed& to = queries[size_t(task / panels)];
            int64_t panel = task % panels;
            if (panel >= to.panels()) return;
            if (to.ragged(panel)) to.clear(panel);
            int64_t begin = from + task / panels * per_block;
            to.fill(panel, View{element(c.queries, x.type, begin * x.d), x.type, x.d, 1}, 0, to.lanes());
        });
        parallel(c.threads, groups * count, [&](int64_t task, int worker) {
            char* base = memory.at(size_t(bytes * worker));
            float* logits = reinterpret_cast<float*>(base + at_product);
            const Packed& b = queries[size_t(task / groups)];
            int64_t begin = from + task / groups * per_block, n = b.lanes();
            int64_t image = task % groups * images, last = std::min(image + images, x.B);
            regions_times(gemm, x, image * x.T, (last - image) * x.T, b, logits, ld, base + at_panel);
            for (int64_t i = image; i < last; i++, logits += x.T * ld) {
                k.softmax(x.T, n, logits, ld, c.scale, nullptr, nullptr, true);
                if (c.attention)
                    k.transpose(x.T, n, logits, ld, element(c.attention, x.type, (i * c.C + begin) * x.T), x.type, x.T);
                pack_attention(pooling, logits, ld, n, x.T, base + at_attention);
                pool_regions(k, pooling, x, i, base + at_attention, n, element(c.attended, x.type, (i * c.C + begin) * x.d), x.type,
                             x.d, Store::replace, base + at_values, reinterpret_cast<float*>(base + at_rows));
            }
        });
    }
}

}  // namespace

void attention_forward(const Kernels& kernels, const Attend& call) {
    if (call.regions.B == 0 || call.C == 0) return;
    with_products(kernels, call.regions, [&](const Gemm& gemm) {
        forward(kernels, gemm, call.regions.type == DType::f32 ? kernels.f32 : gemm, call);
    });
}

}  // namespace fastzsl
