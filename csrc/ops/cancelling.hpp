// The cosine in order "project" where the decoded regions of an image nearly cancel in e = sum_t a_t v_t.
//
// Each v_t is rounded before they cancel, so that e is then less exact than plain PyTorch's W x~ + b. The error of the sum is
// about that of one v_t times sqrt(own), own = sum_t a_t^2 |v_t|^2, and plain PyTorch's, from the rounding of a_t, is of that size
// too: e is exact enough where |e|^2 > own / 4. For the other pairs of an image and a class, e is made as plain PyTorch makes it.
// Random regions have |e|^2 of about own, so there are few such pairs, or none.
#pragma once
#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "gemm/packed.hpp"
#include "gemm/product.hpp"
#include "gemm/view.hpp"
#include "isa/kernels.hpp"
#include "ops/pooling.hpp"
#include "runtime/layout.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace fastzsl {

// Not `square <= own / 4`: NaN counts as cancelled, and stays NaN.
inline bool cancelled(float square, float own) { return !(square > own / 4); }

// |v_t|^2 of T decoded regions, rows `ld` apart.
inline void squares_of(const Kernels& kernels, const float* values, int64_t ld, int64_t T, int64_t m, float* squares) {
    float unused;
    for (int64_t t = 0; t < T; t++) kernels.dots(m, values + t * ld, values + t * ld, &unused, squares + t);
}

// e = W x~ + b of single pairs. What it needs is made when the first such pair is met.
class Direct {
public:
    Direct(const Kernels& kernels, const Gemm& products, const Regions& regions, const void* weight, const float* bias, int64_t m,
           int threads)
        : k(kernels), gemm(products), x(regions), weight_(weight), bias_(bias), m_(m), memory(size_t(threads)) {}

    // For `count` classes of an image: `attention(i, row)` writes the T numbers of the i-th, `use(i, e, attended)` gets its e (m) and
    // x~ (d). `worker` is the thread's own number.
    template <typename Attention, typename Use>
    void decode(int worker, int64_t image, int64_t count, const Attention& attention, const Use& use) {
        if (!count) return;
        std::call_once(packed, [&] {
            weight = packed_weight(gemm, weight_, x.type, m_, x.d, 1);
            lay_out();
        });
        Scratch& own = memory[size_t(worker)];
        if (!own.as()) own = Scratch(size_t(layout.size()));
        auto at = [&](int64_t offset) { return reinterpret_cast<float*>(own.at(size_t(offset))); };
        for (int64_t first = 0; first < count; first += at_once) {
            const int64_t n = std::min(at_once, count - first);
            for (int64_t i = 0; i < n; i++) attention(first + i, at(at_rows) + i * x.T);
            for (int64_t r = 0; r < n; r += gemm.mr)
                pack_rows(gemm, own.at(size_t(at_attention + r / gemm.mr * gemm.panel_a(x.T))),
                          View{at(at_rows), DType::f32, x.T, 1}, r, 0, int(std::min<int64_t>(gemm.mr, n - r)), x.T);
            pool_regions(k, gemm, x, image, own.at(size_t(at_attention)), n, at(at_pooled), DType::f32, pooled_ld, Store::replace,
                         own.at(size_t(at_values)), nullptr);
            for (int64_t r = 0; r < n; r += gemm.mr) {
                const int64_t rows = std::min<int64_t>(gemm.mr, n - r);
                const float* attended = at(at_pooled) + r * pooled_ld;
                fastzsl::decode(gemm, weight, bias_, attended, pooled_ld, rows, x.d, at(at_decoded), decoded_ld,
                                own.at(size_t(at_panel)));
                for (int64_t i = 0; i < rows; i++)
                    use(first + r + i, at(at_decoded) + i * decoded_ld, attended + i * pooled_ld);
            }
        }
    }

private:
    static constexpr int64_t at_once = 60;  // classes whose attended features stay in the second cache

    void lay_out() {
        at_rows = layout.floats(at_once * x.T);
        at_attention = layout.bytes(packed_attention_bytes(gemm, at_once, x.T) + 1024);
        at_values = layout.bytes(packed_values_bytes(gemm, pooled_columns(gemm, x.T, x.d), x.T) + 1024);
        at_pooled = layout.floats(at_once * pooled_ld);
        at_decoded = layout.floats(gemm.mr * decoded_ld);
        at_panel = layout.bytes(gemm.panel_a(std::min(x.d, gemm.block)) + 1024);
    }

    const Kernels& k;
    const Gemm& gemm;
    const Regions& x;
    const void* weight_;
    const float* bias_;
    const int64_t m_, pooled_ld = row_stride(x.d), decoded_ld = row_stride(m_);
    std::once_flag packed;
    Packed weight;
    Layout layout;
    int64_t at_rows = 0, at_attention = 0, at_values = 0, at_pooled = 0, at_decoded = 0, at_panel = 0;
    std::vector<Scratch> memory;
};

// dW of the cancelled pairs. dV = A^T dE and dW = dV^T X would round dV before the regions cancel; plain PyTorch's dE^T X~ does not.
// So the dE of these pairs are taken out of dV, for which dX and db need no such care, and put into one of their own.
class Apart {
public:
    // Images of a group after which `add_weights` is called: the x~ of all their pairs take at most 64 MiB.
    static int64_t images_at_once(int threads, int64_t classes, int64_t d) {
        return std::max<int64_t>(threads, (1 << 24) / (classes * d));
    }

    // For `images` images; 0 if dW is not wanted.
    explicit Apart(int64_t images) : of_image(size_t(images)) {}

    // Where the x~ of an image's cancelled pairs are added, or null.
    std::vector<float>* attended(int64_t image) { return of_image.empty() ? nullptr : &of_image[size_t(image)].attended; }

    // Of n rows dE, m numbers each, the cancelled ones move to `moved` and leave zeros; the others are zeros there.
    void move(int64_t image, int64_t n, int64_t m, const char* pairs, float* de, float* moved, int64_t ld) {
        std::vector<float>& kept = of_image[size_t(image)].de;
        for (int64_t j = 0; j < n; j++) {
            float *from = de + j * ld, *to = moved + j * ld;
            if (pairs[j]) {
                kept.insert(kept.end(), from, from + m);
                std::copy(from, from + m, to);
            }
            std::fill(pairs[j] ? from : to, (pairs[j] ? from : to) + m, 0.f);
        }
    }

    // dV of the cancelled pairs, `size` numbers, zero at first. Threads write to different columns.
    float* dv(int64_t size) {
        std::call_once(made, [&] {
            values = Scratch(size_t(size) * 4);
            std::memset(values.as(), 0, size_t(size) * 4);
        });
        return values.as<float>();
    }

    // dW += dE^T X~ of all pairs that were moved since the last call, one image after the other.
    void add_weights(const Gemm& gemm, int threads, int64_t m, int64_t d) {
        for (Rows& rows : of_image) {
            if (!rows.de.empty()) {
                const Store store = weights.as() ? Store::add : Store::replace;
                if (!weights.as()) weights = Scratch(size_t(m * d) * 4);
                product(gemm, threads, m, d, int64_t(rows.de.size()) / m, View{rows.de.data(), DType::f32, 1, m},
                        View{rows.attended.data(), DType::f32, 1, d}, weights.as<float>(), d, store);
            }
            rows = {};
        }
    }

    // Adds what was kept apart to dW, `size` numbers, and to dV (m, columns), whose rows are `ld` apart.
    void finish(int threads, float* d_weight, int64_t size, float* all, int64_t m, int64_t columns, int64_t ld) const {
        if (!weights.as()) return;
        const float *more = weights.as<float>(), *own = values.as<float>();
        for (int64_t i = 0; i < size; i++) d_weight[i] += more[i];
        parallel(threads, m, [&](int64_t i, int) {
            for (int64_t j = i * ld; j < i * ld + columns; j++) all[j] += own[j];
        });
    }

private:
    struct Rows {
        std::vector<float> de, attended;
    };

    std::vector<Rows> of_image;
    std::once_flag made;
    Scratch values, weights;
};

}  // namespace fastzsl
