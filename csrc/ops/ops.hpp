// The fused operations on raw pointers. Shapes and types were validated by the caller; everything not said to be strided
// is contiguous. B images, T regions of size d, C classes of m numbers; letters as in the Python documentation.
#pragma once
#include <cstdint>

#include "gemm/view.hpp"
#include "isa/kernels.hpp"

namespace fastzsl {

enum class Order : int { attend = 0, project = 1, prototype = 2 };
enum class Similarity : int { dot = 0, cosine = 1 };

// scores (B, C) of `type`; attention (B, C, T) and values are written where not null.
// values: prototype (dot only): p_c . x_bt (B, C, T), which is u without its constant q_c; project: v (B, T, m); attend: the
// attended regions (B, C, d). The cosine has no order "prototype": its norms would come from the Gram matrix of the decoded
// regions, which loses all digits of them and of their gradients where the regions cancel.
struct Scores {
    Regions regions;
    const void* queries;  // (C, d), as everything below of the regions' type
    const void* weight;   // (m, d)
    const void* bias;     // (m) or null
    const void* classes;  // (C, m)
    int64_t C, m;
    float scale;
    Similarity similarity;
    Order order;
    void *scores, *attention, *values;
    int threads;
};
void scores_forward(const Kernels& kernels, const Scores& call);

// attended (B, C, d); attention (B, C, T) or null.
struct Attend {
    Regions regions;
    const void* queries;
    int64_t C;
    float scale;
    void *attended, *attention;
    int threads;
};
void attention_forward(const Kernels& kernels, const Attend& call);

// Gradients, in the regions' type; null where not wanted. d_regions has strides of its own.
struct ScoresGrad {
    Regions regions;
    const void *queries, *weight, *bias, *classes;
    int64_t C, m;
    float scale;
    Similarity similarity;
    Order order;
    const void *grad;  // (B, C)
    const void *attention, *values;
    void *d_regions, *d_queries, *d_weight, *d_bias, *d_classes;
    int threads;
};
void scores_backward(const Kernels& kernels, const ScoresGrad& call);

struct AttendGrad {
    Regions regions;
    const void* queries;
    int64_t C;
    float scale;
    const void* grad_attended;   // (B, C, d)
    const void* grad_attention;  // (B, C, T) or null
    const void* attention;       // (B, C, T)
    void *d_regions, *d_queries;
    int threads;
};
void attention_backward(const Kernels& kernels, const AttendGrad& call);

// Stored features to regions: out (B, T, d) = factor · r(x), in `out_type`, contiguous; r as in `Kernels::prepare`.
// Throws std::out_of_range for an index that the stored features do not have.
struct Prepare {
    Regions stored;
    const int64_t* images;  // (B) of the stored images, or null: all in order
    const int64_t* kept;    // (B, T) regions of each image, or null: all in order
    int64_t B, T;
    bool root;
    const float* factor;  // (B, d), or null: `scale`
    float scale;
    void* out;
    DType out_type;
    int threads;
};
void prepare_regions(const Kernels& kernels, const Prepare& call);

// out (m, n) = A B + bias, float32: A's lanes are the rows of the result, B's lanes its columns, `k` steps are summed.
struct Linear {
    View a, b;
    int64_t m, n, k;
    const float* bias;  // (n) or null
    float* out;
    int threads;
};
void linear_layer(const Kernels& kernels, const Linear& call);

}  // namespace fastzsl
