// Python bindings: addresses, shapes and strides come in as integers; fastzsl/ops/native.py has checked them.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/ops.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

namespace py = pybind11;
using namespace fastzsl;

namespace {

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

// (address, dtype code, B, T, d, stride_b, stride_t, stride_d)
using RegionsTuple = std::tuple<uintptr_t, int, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;

Regions regions_of(const RegionsTuple& r) {
    return {pointer(std::get<0>(r)), DType(std::get<1>(r)), std::get<2>(r), std::get<3>(r),
            std::get<4>(r),          std::get<5>(r),        std::get<6>(r), std::get<7>(r)};
}

// The cosine has no order "prototype"; see ops/ops.hpp.
void check_order(int similarity, int order) {
    if (Similarity(similarity) == Similarity::cosine && Order(order) == Order::prototype)
        throw std::invalid_argument("order \"prototype\" is for the dot product; wanted \"project\" or \"attend\"");
}

void scores(const RegionsTuple& x, uintptr_t queries, uintptr_t weight, uintptr_t bias, uintptr_t classes, int64_t C, int64_t m,
            float scale, int similarity, int order, uintptr_t out, uintptr_t attention, uintptr_t values, int threads) {
    check_order(similarity, order);
    Scores call{regions_of(x), pointer(queries), pointer(weight), pointer(bias), pointer(classes), C, m, scale,
                Similarity(similarity), Order(order), pointer(out), pointer(attention), pointer(values), threads};
    const Kernels& k = kernels();
    py::gil_scoped_release release;
    scores_forward(k, call);
}

void attend(const RegionsTuple& x, uintptr_t queries, int64_t C, float scale, uintptr_t attended, uintptr_t attention,
            int threads) {
    Attend call{regions_of(x), pointer(queries), C, scale, pointer(attended), pointer(attention), threads};
    const Kernels& k = kernels();
    py::gil_scoped_release release;
    attention_forward(k, call);
}

void scores_grad(const RegionsTuple& x, uintptr_t queries, uintptr_t weight, uintptr_t bias, uintptr_t classes, int64_t C,
                 int64_t m, float scale, int similarity, int order, uintptr_t grad, uintptr_t attention,
                 uintptr_t values, uintptr_t d_regions, uintptr_t d_queries, uintptr_t d_weight, uintptr_t d_bias,
                 uintptr_t d_classes, int threads) {
    check_order(similarity, order);
    ScoresGrad call{regions_of(x), pointer(queries), pointer(weight), pointer(bias), pointer(classes), C, m, scale,
                    Similarity(similarity), Order(order), pointer(grad), pointer(attention), pointer(values),
                    pointer(d_regions), pointer(d_queries), pointer(d_weight), pointer(d_bias), pointer(d_classes), threads};
    const Kernels& k = kernels();
    py::gil_scoped_release release;
    scores_backward(k, call);
}

void attend_grad(const RegionsTuple& x, uintptr_t queries, int64_t C, float scale, uintptr_t grad_attended,
                 uintptr_t grad_attention, uintptr_t attention, uintptr_t d_regions, uintptr_t d_queries, int threads) {
    AttendGrad call{regions_of(x), pointer(queries), C, scale, pointer(grad_attended), pointer(grad_attention),
                    pointer(attention), pointer(d_regions), pointer(d_queries), threads};
    const Kernels& k = kernels();
    py::gil_scoped_release release;
    attention_backward(k, call);
}

void prepare(const RegionsTuple& stored, uintptr_t images, uintptr_t kept, int64_t B, int64_t T, bool root, uintptr_t factor,
             float scale, uintptr_t out, int out_type, int threads) {
    Prepare call{regions_of(stored), static_cast<const int64_t*>(pointer(images)), static_cast<const int64_t*>(pointer(kept)),
                 B, T, root, static_cast<const float*>(pointer(factor)), scale, pointer(out), DType(out_type), threads};
    const Kernels& k = kernels();
    py::gil_scoped_release release;
    prepare_regions(k, call);
}

// (address, lane stride, step stride) of a float32 matrix
using OperandTuple = std::tuple<uintptr_t, int64_t, int64_t>;

View view_of(const OperandTuple& a) { return {pointer(std::get<0>(a)), DType::f32, std::get<1>(a), std::get<2>(a)}; }

void linear(const OperandTuple& a, const OperandTuple& b, int64_t m, int64_t n, int64_t k, uintptr_t bias, uintptr_t out,
            int threads) {
    Linear call{view_of(a), view_of(b), m, n, k, static_cast<const float*>(pointer(bias)), static_cast<float*>(pointer(out)), threads};
    const Kernels& chosen = kernels();
    py::gil_scoped_release release;
    linear_layer(chosen, call);
}

// Memory for a large result, in huge pages, that goes back to be used again when the last view of it is gone: fresh pages
// from the operating system cost more than computing what is written there.
class Memory {
public:
    explicit Memory(size_t bytes) : bytes_(bytes), memory_(bytes) {}
    py::buffer_info info() { return py::buffer_info(memory_.as(), 1, "B", py::ssize_t(bytes_)); }

private:
    size_t bytes_;
    Scratch memory_;
};

// Multiply-adds a second of a register-only loop on `threads` threads.
double peak(double (*spin)(int64_t), double seconds, int threads) {
    if (!spin) return 0;
    using clock = std::chrono::steady_clock;
    auto elapsed = [](clock::time_point from) { return std::chrono::duration<double>(clock::now() - from).count(); };
    std::vector<double> rates(size_t(threads) * 8);
    parallel(threads, threads, [&](int64_t index, int) {
        auto start = clock::now();
        double done = 0;
        while (elapsed(start) < seconds) done += spin(20000);
        rates[size_t(index) * 8] = done / elapsed(start);
    });
    double sum = 0;
    for (double rate : rates) sum += rate;
    return sum;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.attr("interface") = 2;  // the number in fastzsl/ops/native.py: raise both when the arguments below change
    module.doc() = "Native CPU kernels of fastzsl; see fastzsl/ops/native.py for the functions to call.";
    module.def("isas", &isas, "Instruction sets built in and runnable here, weakest first.");
    module.def("isa", [] { return std::string(kernels().name); }, "The instruction set in use.");
    module.def(
        "share_openmp", [](uintptr_t address) { share_openmp(reinterpret_cast<void*>(address)); }, py::arg("gomp_parallel"),
        "Run on the threads of the OpenMP runtime whose GOMP_parallel lies at this address; 0: on threads of our own.");
    module.def("set_isa", &set_isa, py::arg("name"), "Use another instruction set, for tests; ValueError if not in isas().");
    module.def("bf16x3_from", &bf16x3_from, "The smallest number of regions for which float32 products run as bf16x3; see csrc/isa/dispatch.hpp.");
    module.def("set_bf16x3_from", &set_bf16x3_from, py::arg("regions"), "Another number of regions, for tests.");
    py::class_<Memory>(module, "Memory", py::buffer_protocol(), "Bytes for a large result; see csrc/module.cpp.")
        .def(py::init<size_t>())
        .def_buffer(&Memory::info);
    module.def("scores", &scores);
    module.def("attend", &attend);
    module.def("scores_grad", &scores_grad);
    module.def("attend_grad", &attend_grad);
    module.def("prepare", &prepare);
    module.def("linear", &linear);
    module.def(
        "peak_f32",
        [](double seconds, int threads) {
            const Kernels& k = kernels();
            py::gil_scoped_release release;
            return peak(k.spin_f32, seconds, threads);
        },
        py::arg("seconds"), py::arg("threads"), "float32 multiply-adds a second from registers alone.");
    module.def(
        "peak_bf16",
        [](double seconds, int threads) {
            const Kernels& k = kernels();
            py::gil_scoped_release release;
            return peak(k.spin_bf16, seconds, threads);
        },
        py::arg("seconds"), py::arg("threads"), "bfloat16 multiply-adds a second from registers alone; 0 without such a unit.");
}
