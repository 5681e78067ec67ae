// Registers of floats and work for threads: what the C++ of mgsym has in common. The compiler
// includes it before each file (mgsym.utils.compilation).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

typedef int64_t Index;

const int LANES = 8;  // numbers in one register

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float Half __attribute__((vector_size(2 * LANES)));

static inline Vec load(const float *x) { return *reinterpret_cast<const Vec *>(x); }
static inline void store(float *x, Vec v) { *reinterpret_cast<Vec *>(x) = v; }
static inline void add(float *x, Vec v) { store(x, load(x) + v); }

static inline float sum(Vec v) {
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    Half s = halves[0] + halves[1];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

// eˣ to rounding for x ≤ 0; below −87 as at −87 (1.6e−38).
static inline Vec exponential(Vec x) {
    x = x < -87.0f ? Vec{} - 87.0f : x;
    const Vec shifted = x * 1.44269504f + 12582912.0f;  // 1.5 · 2²³: rounds to a whole number
    const Vec whole = shifted - 12582912.0f;
    const Vec f = x - whole * 0.693359375f + whole * 2.12194440e-4f;  // log 2 in two parts
    Vec p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    const Ints power = (__builtin_convertvector(whole, Ints) + 127) << 23;
    Vec scale;
    std::memcpy(&scale, &power, sizeof scale);
    return p * scale;
}

// Call work(thread, first, last) for as many ranges of whole blocks as there are threads.
template <class Work>
static void share_out(Index count, Index threads, Index block, Work work) {
    const Index blocks = (count + block - 1) / block;
    auto bound = [=](Index t) { return std::min(count, blocks * t / threads * block); };
    std::vector<std::thread> others;
    for (Index t = 1; t < threads; ++t)
        others.emplace_back([=] { work(t, bound(t), bound(t + 1)); });
    work(0, bound(0), bound(1));
    for (std::thread &other : others) other.join();
}
