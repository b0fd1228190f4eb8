// The row operations of exact balance (torch.py) on a CPU: the weights of one neuron, which the
// first-level cache holds, at a time, and so one pass over memory each where torch takes ten.
//
// A row is looked at as [taps, channels], whichever of the two lies inside. Results do not depend on the number of
// threads.

#include <cmath>
#include <cstdint>
#include <vector>

extern "C" {

struct Rows {
    int64_t neurons, taps, channels, channels_inside, threads;
    double least, smallest;  // part of its share that a sum counts as at least; least norm
    const void *weight;  // [neurons, taps channels], as all that follow unless it is said otherwise
    const void *total;  // a scalar; null: 1
    void *sums;  // [neurons, taps]
    void *shared;
    const void *row_norm;  // a scalar
    void *folded, *norms;  // norms [neurons]
    void *grad;
};

}  // extern "C"

namespace {

template <class C> C share_of(const Rows &r) { return (r.total ? *static_cast<const C *>(r.total) : C(1)) / C(r.taps); }

// f(tap, element) for all elements of a row, in the order in which they lie in memory.
template <class F> inline void each(const Rows &r, F f) {
    if (r.channels_inside) {
        for (int64_t t = 0; t < r.taps; ++t) {
#pragma omp simd
            for (int64_t c = 0; c < r.channels; ++c) f(t, t * r.channels + c);
        }
    } else {
        for (int64_t c = 0; c < r.channels; ++c)
            for (int64_t t = 0; t < r.taps; ++t) f(t, c * r.taps + t);
    }
}

// Sums of f(element) over the channels of each tap.
template <class C, class F> inline void sums_of(const Rows &r, C *sums, F f) {
    if (r.channels_inside) {
        for (int64_t t = 0; t < r.taps; ++t) {
            C sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < r.channels; ++c) sum += f(t * r.channels + c);
            sums[t] = sum;
        }
    } else {
        for (int64_t t = 0; t < r.taps; ++t) sums[t] = 0;
        for (int64_t c = 0; c < r.channels; ++c)
            for (int64_t t = 0; t < r.taps; ++t) sums[t] += f(c * r.taps + t);
    }
}

// Sum of f(element) over a row.
template <class C, class F> inline C sum_of(int64_t size, F f) {
    C sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; ++i) sum += f(i);
    return sum;
}

// Sums of the taps, at least `least` of the share, and the factors that bring each to its share.
template <class C> void factors_of(const Rows &r, const C *weight, C *sums, C *factors) {
    const C share = share_of<C>(r), least = C(r.least) * share;
    sums_of<C>(r, sums, [=](int64_t i) { return weight[i]; });
    for (int64_t t = 0; t < r.taps; ++t) {
        sums[t] = sums[t] < least ? least : sums[t];  // NaN stays
        factors[t] = share / sums[t];
    }
}

template <class C, class F> void for_rows(const Rows &r, F f) {
#pragma omp parallel num_threads(r.threads)
    {
        std::vector<C> scratch(r.taps);
#pragma omp for schedule(static)
        for (int64_t n = 0; n < r.neurons; ++n) f(n, n * r.taps * r.channels, scratch.data());
    }
}

template <class C> void share(const Rows &r) {
    for_rows<C>(r, [&](int64_t n, int64_t row, C *factors) {
        const C *weight = static_cast<const C *>(r.weight) + row;
        C *shared = static_cast<C *>(r.shared) + row;
        factors_of(r, weight, static_cast<C *>(r.sums) + n * r.taps, factors);
        each(r, [=](int64_t t, int64_t i) { shared[i] = weight[i] * factors[t]; });
    });
}

template <class C> void fold(const Rows &r) {
    const int64_t size = r.taps * r.channels;
    for_rows<C>(r, [&](int64_t n, int64_t row, C *factors) {
        const C *weight = static_cast<const C *>(r.weight) + row;
        C *folded = static_cast<C *>(r.folded) + row;
        factors_of(r, weight, static_cast<C *>(r.sums) + n * r.taps, factors);
        each(r, [=](int64_t t, int64_t i) { folded[i] = weight[i] * factors[t] - folded[i]; });
        const C length = std::sqrt(sum_of<C>(size, [=](int64_t i) { return folded[i] * folded[i]; }));
        const C norm = length < C(r.smallest) ? C(r.smallest) : length;
        const C factor = *static_cast<const C *>(r.row_norm) / norm;
        static_cast<C *>(r.norms)[n] = norm;
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) folded[i] *= factor;
    });
}

template <class C> void through_fold(const Rows &r) {
    const int64_t size = r.taps * r.channels;
    const C row_norm = *static_cast<const C *>(r.row_norm);
    for_rows<C>(r, [&](int64_t n, int64_t row, C *) {
        const C *folded = static_cast<const C *>(r.folded) + row;
        C *grad = static_cast<C *>(r.grad) + row;
        const C along = sum_of<C>(size, [=](int64_t i) { return grad[i] * folded[i]; }) / row_norm / row_norm;
        const C factor = row_norm / static_cast<const C *>(r.norms)[n];
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) grad[i] = (grad[i] - folded[i] * along) * factor;
    });
}

template <class C> void through_share(const Rows &r) {
    const C share = share_of<C>(r), least = C(r.least) * share;
    for_rows<C>(r, [&](int64_t n, int64_t row, C *along) {
        const C *weight = static_cast<const C *>(r.weight) + row;
        const C *sums = static_cast<const C *>(r.sums) + n * r.taps;
        C *grad = static_cast<C *>(r.grad) + row;
        sums_of<C>(r, along, [=](int64_t i) { return grad[i] * weight[i]; });
        for (int64_t t = 0; t < r.taps; ++t) along[t] = sums[t] > least ? along[t] / sums[t] : C(0);
        each(r, [=](int64_t t, int64_t i) { grad[i] = (grad[i] - along[t]) * (share / sums[t]); });
    });
}

}  // namespace

extern "C" {
void rows_share_float32(const Rows *r) { share<float>(*r); }
void rows_share_float64(const Rows *r) { share<double>(*r); }
void rows_fold_float32(const Rows *r) { fold<float>(*r); }
void rows_fold_float64(const Rows *r) { fold<double>(*r); }
void rows_through_fold_float32(const Rows *r) { through_fold<float>(*r); }
void rows_through_fold_float64(const Rows *r) { through_fold<double>(*r); }
void rows_through_share_float32(const Rows *r) { through_share<float>(*r); }
void rows_through_share_float64(const Rows *r) { through_share<double>(*r); }
}
