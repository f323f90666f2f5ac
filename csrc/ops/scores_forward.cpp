// attended_scores, forward. A task takes some images and a block of classes; its logits and values stay in the second-level
// cache from the product through the softmax to the scores.
#include "ops/ops.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "gemm/choose.hpp"
#include "gemm/packed.hpp"
#include "gemm/product.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "ops/cancelling.hpp"
#include "ops/norms.hpp"
#include "ops/pooling.hpp"
#include "ops/widened.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {
namespace {

constexpr int64_t working_floats = 160 << 10;  // logits and values of a task: 640 KiB

struct Worker {            // one thread's working memory
    float* product;        // (rows, columns): logits, then values
    char* panel;           // one A panel
    char* attention;       // attention of an image's classes, packed as A
    char* values;          // values or regions of an image, packed as B
    float *pooled, *mapped;  // pooled values of a register tile's classes; or a block's attended regions, and W of them
    float* row;            // scores of a block of classes
    float *squares, *own;  // cosine, order "project": see ops/cancelling.hpp
    int index;
};

class Call {
public:
    Call(const Kernels& kernels, const Gemm& products, const Scores& call)
        : k(kernels), c(call), x(call.regions), gemm(products),
          bias(kernels, call.bias, x.type, call.m), classes(kernels, call.classes, x.type, call.C * call.m),
          direct(kernels, products, x, call.weight, bias.rows(), call.m, call.threads) {}

    void run() {
        if (c.order == Order::attend) weight = packed_weight(gemm, c.weight, x.type, c.m, x.d, c.threads);
        plan();
        constants_of_classes();
        for (int64_t first = 0; first < blocks; first += at_once) {
            int64_t count = std::min(at_once, blocks - first);
            pack(first, count);
            parallel(c.threads, groups * count, [&](int64_t task, int worker) {
                one_task(task % groups * images, first + task / groups, first, worker_of(worker));
            });
        }
    }

private:
    int64_t begin(int64_t block) const { return std::min(block * per_block, c.C); }
    int64_t size(int64_t block) const { return begin(block + 1) - begin(block); }
    // Columns of the stacked operand beside the block's queries: its prototypes, or (once) the rows of the decoder.
    int64_t extra(int64_t block) const {
        if (c.order == Order::prototype) return size(block);
        return c.order == Order::project && block == 0 ? c.m : 0;
    }

    void plan() {
        const bool pairs = c.order == Order::prototype;
        int64_t most = pairs ? 256 : 512;
        while (most > 32 && x.T * most * (pairs ? 2 : 1) > 2 * working_floats) most /= 2;
        int64_t wanted = c.threads > x.B ? ceil_div(c.threads, x.B) : 1;  // few images: split the classes instead
        per_block = ceil_div(c.C, ceil_div(c.C, most));
        per_block = std::min(per_block, std::max<int64_t>(32, ceil_div(c.C, wanted)));
        if (per_block < c.C) per_block = round_up(per_block, k.width);
        blocks = ceil_div(c.C, per_block);
        at_once = std::min(blocks, wanted);
        if (c.order == Order::project && (blocks > 1 || c.values)) {
            stored = Scratch(size_t(x.B * x.T * c.m) * 4);
            if (blocks > 1) at_once = 1;  // the first block's task makes the values that the others read
        }
        int64_t columns = 0;
        for (int64_t b = 0; b < blocks; b++) columns = std::max(columns, size(b) + extra(b));
        ld = row_stride(columns + k.width);
        images = images_per_task(gemm, x.B, x.T, c.threads, working_floats / ld);
        groups = ceil_div(x.B, images);
        lay_out();
    }

    void lay_out() {
        auto part = [&](int64_t bytes) {
            int64_t at = worker_bytes;
            worker_bytes += round_up(bytes, 64) + 64;
            return at;
        };
        at_product = part(images * x.T * ld * 4);
        at_panel = part(regions_panel_bytes(gemm, x.d));
        at_row = part(round_up(per_block, k.width) * 4);
        if (c.order != Order::prototype) {
            const bool attend = c.order == Order::attend;
            pooled_ld = row_stride(attend ? x.d : c.m);
            mapped_ld = row_stride(c.m);
            at_attention = part(packed_attention_bytes(gemm, per_block, x.T) + 1024);
            at_values = part(packed_values_bytes(gemm, attend ? pooled_columns(gemm, x.T, x.d) : c.m, x.T) + 1024);
            at_pooled = part((attend ? per_block : gemm.mr) * pooled_ld * 4);
            at_mapped = part(attend ? gemm.mr * mapped_ld * 4 : 0);
            at_squares = part(x.T * 4);
            at_own = part(per_block * 4);
        }
        memory = Scratch(size_t(worker_bytes * c.threads));
    }

    Worker worker_of(int index) const {
        char* base = memory.at(size_t(worker_bytes * index));
        auto floats = [&](int64_t at) { return reinterpret_cast<float*>(base + at); };
        return {floats(at_product), base + at_panel, base + at_attention, base + at_values,
                floats(at_pooled), floats(at_mapped), floats(at_row), floats(at_squares), floats(at_own), index};
    }

    // Cosine: 1 / |k_c|. Prototypes: q_c = k_c . b. Prototypes are of k_c itself: what a score is divided by comes last.
    void constants_of_classes() {
        const bool cosine = c.similarity == Similarity::cosine, pairs = c.order == Order::prototype;
        if (cosine) inverses = Scratch(size_t(c.C) * 4);
        if (pairs) offsets = Scratch(size_t(c.C) * 4);
        parallel(c.threads, cosine || pairs ? ceil_div(c.C, 256) : 0, [&](int64_t part, int) {
            for (int64_t i = part * 256; i < std::min(c.C, (part + 1) * 256); i++) {
                const float* row = classes.rows() + i * c.m;
                float product = 0, square = 0;
                if (cosine || c.bias) k.dots(c.m, row, c.bias ? bias.rows() : row, &product, &square);
                if (cosine) inverses.as<float>()[i] = 1.f / clamped_norm(square);
                if (pairs) offsets.as<float>()[i] = c.bias ? product : 0.f;
            }
        });
    }

    // The stacked operand of `count` blocks from `first`: [H; P] or [H; W], as columns.
    void pack(int64_t first, int64_t count) {
        int64_t from = begin(first), total = begin(first + count) - from, ldp = row_stride(x.d);
        if (c.order == Order::prototype) {
            if (!prototypes.as()) prototypes = Scratch(size_t(total * ldp) * 4);
            product(gemm, c.threads, total, x.d, c.m, View{element(c.classes, x.type, from * c.m), x.type, c.m, 1},
                    View{c.weight, x.type, 1, x.d}, prototypes.as<float>(), ldp);
        }
        stacked.clear();
        int64_t panels = 0;
        for (int64_t b = first; b < first + count; b++) {
            stacked.emplace_back(gemm, size(b) + extra(b), x.d);
            panels = std::max(panels, stacked.back().panels());
        }
        parallel(c.threads, count * panels, [&](int64_t task, int) {
            const Packed& to = stacked[size_t(task / panels)];
            int64_t b = first + task / panels, panel = task % panels;
            if (panel >= to.panels()) return;
            if (to.ragged(panel)) to.clear(panel);
            to.fill(panel, View{element(c.queries, x.type, begin(b) * x.d), x.type, x.d, 1}, 0, size(b));
            if (c.order == Order::prototype)
                to.fill(panel, View{prototypes.as<float>() + (begin(b) - from) * ldp, DType::f32, ldp, 1}, size(b), size(b));
            else if (extra(b))
                to.fill(panel, View{c.weight, x.type, x.d, 1}, size(b), c.m);
        });
    }

    void one_task(int64_t image, int64_t block, int64_t first, const Worker& w) {
        int64_t last = std::min(image + images, x.B), n = size(block);
        regions_times(gemm, x, image * x.T, (last - image) * x.T, stacked[size_t(block - first)], w.product, ld, w.panel);
        for (int64_t i = image; i < last; i++) {
            float* logits = w.product + (i - image) * x.T * ld;
            if (c.order == Order::prototype)
                by_prototypes(i, block, logits, w);
            else if (c.order == Order::project)
                by_projection(i, block, logits, w);
            else
                by_attention(i, block, logits, w);
            k.convert(n, w.row, DType::f32, element(c.scores, x.type, i * c.C + begin(block)), x.type);
        }
    }

    void by_prototypes(int64_t i, int64_t block, float* logits, const Worker& w) {
        int64_t n = size(block);
        const float* q = offsets.as<float>() + begin(block);
        // Saved first: the softmax touches whole vectors of columns, and with them the first values. Saved without q_c:
        // no gradient needs what all regions have in common, and it would cost precision.
        if (c.values) save(c.values, i, block, logits + n, c.C);
        k.softmax(x.T, n, logits, ld, c.scale, logits + n, w.row, c.attention);
        for (int64_t j = 0; j < n; j++) w.row[j] += q[j];
        if (c.attention) save(c.attention, i, block, logits, c.C);
    }

    void by_projection(int64_t i, int64_t block, float* logits, const Worker& w) {
        int64_t n = size(block), ldv = ld;
        float* values = logits + n;
        if (block == 0 && c.bias)
            for (int64_t t = 0; t < x.T; t++)
                for (int64_t j = 0; j < c.m; j++) values[t * ld + j] += bias.rows()[j];
        if (stored.as()) {
            float* kept = stored.as<float>() + i * x.T * c.m;
            if (block == 0) {
                for (int64_t t = 0; t < x.T; t++) std::memcpy(kept + t * c.m, values + t * ld, size_t(c.m) * 4);
                if (c.values) k.convert(x.T * c.m, kept, DType::f32, element(c.values, x.type, i * x.T * c.m), x.type);
            }
            values = kept;
            ldv = c.m;
        }
        // Values first, as above.
        const bool cosine = c.similarity == Similarity::cosine;
        if (cosine) squares_of(k, values, ldv, x.T, c.m, w.squares);
        pack_values(gemm, View{values, DType::f32, 1, ldv}, 0, c.m, x.T, w.values);
        attend(i, block, logits, w);
        if (cosine) sum_own(logits, n, w);
        std::vector<int64_t> again;
        for (int64_t r = 0; r < n; r += gemm.mr) {
            int64_t rows = std::min<int64_t>(gemm.mr, n - r);
            gemm.multiply(x.T, w.attention + r / gemm.mr * gemm.panel_a(x.T), w.values, rows, c.m, w.pooled, pooled_ld,
                          Store::replace, chain_of(x.T), nullptr);
            for (int64_t q = r; q < r + rows; q++) {
                const Score found = compare(begin(block) + q, w.pooled + (q - r) * pooled_ld);
                w.row[q] = found.score;
                if (cosine && cancelled(found.square, w.own[q])) again.push_back(q);
            }
        }
        direct.decode(
            w.index, i, int64_t(again.size()),
            [&](int64_t q, float* row) {
                for (int64_t t = 0; t < x.T; t++) row[t] = logits[t * ld + again[size_t(q)]];
            },
            [&](int64_t q, const float* e, const float*) {
                const int64_t j = again[size_t(q)];
                w.row[j] = compare(begin(block) + j, e).score;
            });
    }

    // sum_t a_t^2 |v_t|^2 of each class.
    void sum_own(const float* attention, int64_t n, const Worker& w) const {
        std::memset(w.own, 0, size_t(n) * 4);
        for (int64_t t = 0; t < x.T; t++) {
            const float square = w.squares[t], *a = attention + t * ld;
            for (int64_t j = 0; j < n; j++) w.own[j] += square * a[j] * a[j];
        }
    }

    void by_attention(int64_t i, int64_t block, float* logits, const Worker& w) {
        int64_t n = size(block);
        attend(i, block, logits, w);
        pool_regions(k, gemm, x, i, w.attention, n, w.pooled, DType::f32, pooled_ld, Store::replace, w.values, nullptr);
        if (c.values)
            for (int64_t j = 0; j < n; j++)
                k.convert(x.d, w.pooled + j * pooled_ld, DType::f32,
                          element(c.values, x.type, (i * c.C + begin(block) + j) * x.d), x.type);
        for (int64_t r = 0; r < n; r += gemm.mr) {
            int64_t rows = std::min<int64_t>(gemm.mr, n - r);
            decode(gemm, weight, bias.rows(), w.pooled + r * pooled_ld, pooled_ld, rows, x.d, w.mapped, mapped_ld, w.panel);
            for (int64_t q = 0; q < rows; q++) w.row[r + q] = compare(begin(block) + r + q, w.mapped + q * mapped_ld).score;
        }
    }

    void attend(int64_t i, int64_t block, float* logits, const Worker& w) {
        k.softmax(x.T, size(block), logits, ld, c.scale, nullptr, nullptr, true);
        if (c.attention) save(c.attention, i, block, logits, c.C);
        pack_attention(gemm, logits, ld, size(block), x.T, w.attention);
    }

    struct Score {
        float score, square;  // of |e|
    };

    Score compare(int64_t j, const float* e) const {
        float product, square;
        k.dots(c.m, e, classes.rows() + j * c.m, &product, &square);
        return {c.similarity == Similarity::dot ? product : product * inverses.as<float>()[j] / clamped_norm(square), square};
    }

    // Into a tensor of `rows` rows an image.
    void save(void* to, int64_t i, int64_t block, const float* from, int64_t rows) const {
        k.transpose(x.T, size(block), from, ld, element(to, x.type, (i * rows + begin(block)) * x.T), x.type, x.T);
    }

    const Kernels& k;
    const Scores& c;
    const Regions& x;
    const Gemm& gemm;
    Widened bias, classes;
    int64_t per_block = 0, blocks = 0, at_once = 0, images = 0, groups = 0, ld = 0, pooled_ld = 0, mapped_ld = 0;
    int64_t worker_bytes = 0, at_product = 0, at_panel = 0, at_row = 0, at_attention = 0, at_values = 0, at_pooled = 0, at_mapped = 0,
            at_squares = 0, at_own = 0;
    Scratch memory, inverses, offsets, prototypes, stored;
    Packed weight;
    Direct direct;
    std::vector<Packed> stacked;
};

}  // namespace

void scores_forward(const Kernels& kernels, const Scores& call) {
    if (call.regions.B == 0 || call.C == 0) return;
    with_products(kernels, call.regions, [&](const Gemm& gemm) { Call(kernels, gemm, call).run(); });
}

}  // namespace fastzsl
