// Surrogate derivatives of the spike, for gradients only, where the bits of the reference are not asked for.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast")

inline double exponential(double x) { return std::exp(x); }

// exp by x = n ln 2 + r, |r| <= ln(2) / 2, and the Taylor polynomial of r: 1e-7 relative; compilers vectorise it.
inline float exponential(float x) {
    x = x < -80.0f ? -80.0f : x > 80.0f ? 80.0f : x;
    const float n = std::nearbyint(x * 1.44269504f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const uint32_t bits = uint32_t(int32_t(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}

inline double reciprocal(double x) { return 1 / x; }

// 1 / x of 1 <= x < 1e37 (what `exponential` gives, plus 1), by Newton's iteration from a guess of the exponent's bits: 1e-7 relative, in a fifth of the
// time of a division.
inline float reciprocal(float x) {
    int32_t bits;
    std::memcpy(&bits, &x, 4);
    bits = 0x7ef311c3 - bits;
    float y;
    std::memcpy(&y, &bits, 4);
    y = y * (2 - x * y);
    y = y * (2 - x * y);
    return y * (2 - x * y);
}

// Derivatives of the spike at x = H - theta, as in eisnn/functional/surrogate.py.
template <class C>
void slopes(int64_t surrogate, C theta, C alpha, const C *h, C *slope, int64_t n) {
    switch (surrogate) {
    case 0:  // sigmoid
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            const C s = reciprocal(C(1) + exponential((theta - h[i]) * alpha));
            slope[i] = (s - s * s) * alpha;
        }
        break;
    case 1:  // atan
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            const C x = (h[i] - theta) * (C(1.5707963267948966) * alpha);
            slope[i] = (alpha / 2) / (1 + x * x);
        }
        break;
    case 2:  // fast_sigmoid
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            const C x = 1 + std::abs(h[i] - theta) * alpha;
            slope[i] = 1 / (x * x);
        }
        break;
    case 3:  // triangle
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            const C x = 1 - std::abs(h[i] - theta) * alpha;
            slope[i] = x > 0 ? x * alpha : C(0);
        }
        break;
    case 4:  // rectangle
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) slope[i] = std::abs(h[i] - theta) < C(0.5) / alpha ? alpha : C(0);
        break;
    default:  // leaky_relu
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) slope[i] = h[i] - theta >= 0 ? C(1) : alpha;
    }
}
#pragma GCC pop_options

}  // namespace
