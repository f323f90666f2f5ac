// Every kernel over many shapes, with buffers of exactly the size they need, against a plain loop in double. Built by
// test_sanitizers.py with AddressSanitizer + UndefinedBehaviorSanitizer and with ThreadSanitizer ("threads"), and by
// test_compilers.py with other compilers and for emulated processors. "fork" forks while other threads work.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "isa/dispatch.hpp"
#include "ops/ops.hpp"
#include "runtime/scratch.hpp"
#include "runtime/threads.hpp"

using namespace fastzsl;

namespace {

std::mt19937 generator(20240607);

struct Buffer {  // exactly so many numbers of a type, on the heap, so that one past the end is seen
    Buffer(DType type, int64_t n, bool random = true) : type(type), n(n), bytes(new char[size_t(n * size_of(type)) + (n == 0)]) {
        std::memset(bytes.get(), 0xff, size_t(n * size_of(type)));  // NaN in both types
        std::normal_distribution<float> normal;
        for (int64_t i = 0; random && i < n; i++) set(i, normal(generator) * 0.5f);
    }
    void set(int64_t i, float x) {
        if (type == DType::f32) {
            std::memcpy(bytes.get() + 4 * i, &x, 4);
        } else {
            uint32_t bits;
            std::memcpy(&bits, &x, 4);
            uint16_t high = uint16_t(bits >> 16);
            std::memcpy(bytes.get() + 2 * i, &high, 2);
        }
    }
    double operator[](int64_t i) const {
        uint32_t bits = 0;
        if (type == DType::f32) {
            std::memcpy(&bits, bytes.get() + 4 * i, 4);
        } else {
            uint16_t high;
            std::memcpy(&high, bytes.get() + 2 * i, 2);
            bits = uint32_t(high) << 16;
        }
        float x;
        std::memcpy(&x, &bits, 4);
        return x;
    }
    void* data() const { return bytes.get(); }
    DType type;
    int64_t n;
    std::unique_ptr<char[]> bytes;
};

struct Shape {
    int64_t B, T, C, d, m;
};

void check(bool good, const std::string& what, const Kernels& k, const Shape& s) {
    if (good) return;
    std::printf("%s: %s is wrong at B=%ld T=%ld C=%ld d=%ld m=%ld\n", k.name, what.c_str(), long(s.B), long(s.T), long(s.C),
                long(s.d), long(s.m));
    std::exit(1);
}

void all_ops(const Kernels& k, const Shape& s, DType type, bool t_contiguous, Similarity similarity, int threads) {
    const auto [B, T, C, d, m] = s;
    Buffer x(type, B * T * d), h(type, C * d), w(type, m * d), b(type, m), keys(type, C * m);
    Regions regions{x.data(), type, B, T, d, T * d, t_contiguous ? 1 : d, t_contiguous ? T : 1};
    const double tolerance = type == DType::f32 ? 2e-5 : 0.15;

    // Truth.
    std::vector<double> attention(size_t(B * C * T)), attended(size_t(B * C * d)), scores(size_t(B * C));
    auto at = [&](int64_t i, int64_t t, int64_t j) { return x[i * regions.stride_b + t * regions.stride_t + j * regions.stride_d]; };
    for (int64_t i = 0; i < B; i++)
        for (int64_t c = 0; c < C; c++) {
            double* a = &attention[size_t((i * C + c) * T)];
            double top = -1e300, sum = 0;
            for (int64_t t = 0; t < T; t++) {
                a[t] = 0;
                for (int64_t j = 0; j < d; j++) a[t] += at(i, t, j) * h[c * d + j];
                top = std::max(top, a[t]);
            }
            for (int64_t t = 0; t < T; t++) sum += a[t] = std::exp(a[t] - top);
            double dot = 0, ee = 0, kk = 0;
            for (int64_t t = 0; t < T; t++) a[t] /= sum;
            for (int64_t j = 0; j < d; j++) {
                double& v = attended[size_t((i * C + c) * d + j)];
                for (int64_t t = 0; t < T; t++) v += a[t] * at(i, t, j);
            }
            for (int64_t o = 0; o < m; o++) {
                double e = b[o];
                for (int64_t j = 0; j < d; j++) e += w[o * d + j] * attended[size_t((i * C + c) * d + j)];
                dot += e * keys[c * m + o];
                ee += e * e;
                kk += keys[c * m + o] * keys[c * m + o];
            }
            scores[size_t(i * C + c)] = similarity == Similarity::dot ? dot : dot / std::sqrt(ee) / std::sqrt(kk);
        }

    auto close = [&](const Buffer& got, const std::vector<double>& want) {
        double size = 1e-3;
        for (double v : want) size = std::max(size, std::fabs(v));
        for (int64_t i = 0; i < got.n; i++)
            if (!(std::fabs(got[i] - want[size_t(i)]) <= tolerance * size)) return false;
        return true;
    };

    Buffer out(type, B * C * d, false), shares(type, B * C * T, false);
    attention_forward(k, Attend{regions, h.data(), C, 1.f, out.data(), shares.data(), threads});
    check(close(out, attended), "attended", k, s);
    check(close(shares, attention), "attention", k, s);
    Buffer grad_out(type, B * C * d), grad_shares(type, B * C * T), dx(type, B * T * d, false), dh(type, C * d, false);
    attention_backward(k, AttendGrad{regions, h.data(), C, 1.f, grad_out.data(), grad_shares.data(), shares.data(), dx.data(),
                                     dh.data(), threads});
    for (int64_t i = 0; i < dx.n; i++) check(std::isfinite(dx[i]), "dX", k, s);
    for (int64_t i = 0; i < dh.n; i++) check(std::isfinite(dh[i]), "dH", k, s);

    if (type == DType::f32) {  // H Wᵀ + b, and K W by columns
        Buffer y(type, C * m, false), z(type, C * d, false);
        std::vector<double> want(size_t(C * m)), other(size_t(C * d));
        for (int64_t c = 0; c < C; c++) {
            for (int64_t o = 0; o < m; o++) {
                double& v = want[size_t(c * m + o)] = b[o];
                for (int64_t j = 0; j < d; j++) v += h[c * d + j] * w[o * d + j];
            }
            for (int64_t j = 0; j < d; j++)
                for (int64_t o = 0; o < m; o++) other[size_t(c * d + j)] += keys[c * m + o] * w[o * d + j];
        }
        linear_layer(k, Linear{View{h.data(), type, d, 1}, View{w.data(), type, d, 1}, C, m, d,
                               static_cast<const float*>(b.data()), static_cast<float*>(y.data()), threads});
        check(close(y, want), "a linear layer", k, s);
        linear_layer(k, Linear{View{keys.data(), type, m, 1}, View{w.data(), type, 1, d}, C, d, m, nullptr,
                               static_cast<float*>(z.data()), threads});
        check(close(z, other), "a linear layer of columns", k, s);
    }

    for (Order order : {Order::attend, Order::project, Order::prototype}) {
        if (order == Order::prototype && similarity == Similarity::cosine) continue;
        int64_t n = order == Order::attend ? B * C * d : order == Order::project ? B * T * m : B * C * T;
        Buffer result(type, B * C, false), plain(type, B * C, false), a(type, B * C * T, false), values(type, n, false);
        Scores call{regions, h.data(), w.data(), b.data(), keys.data(), C, m, 1.f, similarity, order,
                    result.data(), a.data(), values.data(), threads};
        scores_forward(k, call);
        check(close(result, scores), "scores", k, s);
        check(close(a, attention), "saved attention", k, s);
        call.scores = plain.data();
        call.attention = call.values = nullptr;
        scores_forward(k, call);
        check(close(plain, scores), "scores alone", k, s);
        Buffer grad(type, B * C), gx(type, B * T * d, false), gh(type, C * d, false), gw(type, m * d, false), gb(type, m, false),
            gk(type, C * m, false);
        scores_backward(k, ScoresGrad{regions, h.data(), w.data(), b.data(), keys.data(), C, m, 1.f, similarity, order,
                                      grad.data(), a.data(), values.data(), gx.data(), gh.data(), gw.data(),
                                      gb.data(), gk.data(), threads});
        for (const Buffer* g : {&gx, &gh, &gw, &gb, &gk})
            for (int64_t i = 0; i < g->n; i++) check(std::isfinite((*g)[i]), "a gradient of the scores", k, s);
        scores_backward(k, ScoresGrad{regions, h.data(), w.data(), nullptr, keys.data(), C, m, 1.f, similarity, order,
                                      grad.data(), a.data(), values.data(), nullptr, nullptr, gw.data(), nullptr,
                                      nullptr, threads});
    }
}

// Forks while other threads take and give back working memory and start loops: the child must find every lock free.
int fork_while_busy() {
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int id = 0; id < 3; id++)
        threads.emplace_back([&stop] {
            while (!stop) {
                Scratch memory(4096);
                parallel(2, 2, [](int64_t, int) {});
            }
        });
    int failed = 0;
    for (int round = 0; round < 200 && !failed; round++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);  // a lock that nobody will ever release
            Scratch memory(4096);
            parallel(2, 2, [](int64_t, int) {});
            _exit(0);
        }
        int status = 1;
        failed = child < 0 || waitpid(child, &status, 0) != child || status != 0;
    }
    stop = true;
    for (auto& thread : threads) thread.join();
    std::printf(failed ? "a forked child hangs\n" : "fork: good\n");
    return failed;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1 && std::string(argv[1]) == "fork") return fork_while_busy();
    const bool many_threads = argc > 1 && std::string(argv[1]) == "threads";
    const std::vector<Shape> shapes = {{1, 1, 1, 1, 1},    {2, 7, 5, 16, 3},    {3, 49, 33, 40, 17}, {1, 50, 70, 33, 5},
                                       {5, 2, 17, 65, 33}, {2, 13, 31, 520, 9}, {1, 196, 15, 24, 20}};
    std::vector<std::string> names = isas();
    if (names.back() == "amx") names.push_back("amx");  // once more, with float32 always as bf16x3
    for (size_t round = 0; round < names.size(); round++) {
        const std::string& name = names[round];
        set_isa(name);
        set_bf16x3_from(round && names[round - 1] == name ? 0 : 128);
        const Kernels& k = kernels();
        for (const Shape& s : shapes) {
            if (many_threads) {  // several callers at once, each wanting several threads
                std::vector<std::thread> callers;
                for (int id = 0; id < 3; id++)
                    callers.emplace_back([&k, &s] {
                        Buffer x(DType::f32, s.B * s.T * s.d, false), h(DType::f32, s.C * s.d, false);
                        Buffer out(DType::f32, s.B * s.C * s.d, false);
                        for (int64_t i = 0; i < x.n; i++) x.set(i, float(i % 7) - 3);
                        for (int64_t i = 0; i < h.n; i++) h.set(i, float(i % 5) * 0.1f);
                        Regions r{x.data(), DType::f32, s.B, s.T, s.d, s.T * s.d, s.d, 1};
                        for (int repeat = 0; repeat < 10; repeat++)
                            attention_forward(k, Attend{r, h.data(), s.C, 1.f, out.data(), nullptr, 3});
                    });
                for (auto& caller : callers) caller.join();
                all_ops(k, s, DType::f32, false, Similarity::dot, 3);
                continue;
            }
            for (DType type : {DType::f32, DType::bf16})
                for (bool t_contiguous : {false, true})
                    for (Similarity similarity : {Similarity::dot, Similarity::cosine})
                        all_ops(k, s, type, t_contiguous, similarity, similarity == Similarity::dot ? 1 : 3);
        }
        std::printf("%s: good\n", name.c_str());
    }
    return 0;
}
