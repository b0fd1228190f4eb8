// The population operation on a CPU: divisive inhibition, stabilise, divide, gain, bias and LIF over T, in one pass
// over memory, image by image. The divisive current M u is formed here from the currents of the I neurons: of many for
// some rows at a time, which stay in the cache, of few (one pooled current and a constant) where it divides. Or it is
// given as a map (i_div). With neither it is the LIF neuron alone, and balanced its input.
//
// A map is [steps, batch, rows, inner] with inner contiguous: rows are positions and inner the neurons (channels last,
// dense layers), or rows are neurons and inner the positions. The arithmetic and its order are those of the readable
// reference (no contraction to fused multiply-add, but for the sums of products), so that in the forward pass both give
// the same bits.
//
// Sums of gradients are kept for every image, those of M for every group of images; Python adds them up. So results do
// not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "../product.h"
#include "../surrogate.h"

extern "C" {

struct Map {
    void *data;  // null: absent
    int64_t step, image, row;  // strides, in elements
};

struct Problem {
    int64_t steps_in, steps, batch, rows, inner;  // steps_in is 1 for a static input
    int64_t neurons_inside;  // 1: inner runs over neurons, 0: rows do
    double decay, theta, alpha;
    int64_t hard_reset, detach_reset, surrogate, threads;
    Map balanced, i_div, i_ie, spikes;  // steps_in, steps_in, steps_in, steps
    Map grad_spikes, grad_balanced, grad_i_div;
    Map v, v_last, grad_v_last, grad_v;  // step stride unused
    Map grad_i_ie;  // steps_in
    int64_t tonic;  // 1: I_div is positive, so that nothing is replaced and smallest not written
    int64_t n_i, groups;  // I neurons, of i_ie; images are worked through in so many groups
    const void *weight;  // M [neurons, n_i]
    void *grad_weight;  // [groups, neurons, n_i padded to whole vectors]
    void *smallest;  // [steps_in, batch]
    const void *gain, *bias;  // [neurons]
    void *grad_gain, *grad_bias;  // [batch, neurons]
};

}  // extern "C"

namespace {

constexpr int64_t CHUNK = 256;  // elements whose T steps stay in the first-level cache
constexpr int64_t FEW = 2;  // I neurons whose divisive current is made where it divides

struct bf16 {
    uint16_t bits;
};

template <class C> inline C widen(C x) { return x; }
inline float widen(bf16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

template <class S, class C> inline S narrow(C x) { return S(x); }
template <> inline bf16 narrow<bf16, float>(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
    return {uint16_t(x != x ? 0x7fc0 : rounded)};
}

template <class T> inline T *at(const Map &m, int64_t step, int64_t image, int64_t row) {
    return static_cast<T *>(m.data) + step * m.step + image * m.image + row * m.row;
}

// Gain and bias of the neurons of one chunk, as arrays: the parameters themselves, or copies of those of one neuron.
template <class C> struct Neurons {
    const C *gain, *bias;
    void set(const Problem &p, int64_t row, int64_t start, int64_t n) {
        const C *g = static_cast<const C *>(p.gain), *b = static_cast<const C *>(p.bias);
        gain = g && p.neurons_inside ? g + start : fill(own_gain, g ? g[row] : C(1), n);
        bias = b && p.neurons_inside ? b + start : fill(own_bias, b ? b[row] : C(0), n);
    }

  private:
    C own_gain[CHUNK], own_bias[CHUNK];
    static const C *fill(C *own, C value, int64_t n) {
        for (int64_t i = 0; i < n; ++i) own[i] = value;
        return own;
    }
};

// M and its transpose in panels, of which the forward pass needs the transpose alone; of few I neurons M by columns.
template <class C> struct Weight {
    int64_t n_e, n_i;
    bool few, many;
    Packed<C> to_e, to_i;
    int64_t width_e, width_i;
    std::vector<C> columns;  // [FEW, n_e], zeros for the neurons that there are not

    Weight(const Problem &p, bool backward)
        : n_e(p.inner), n_i(p.n_i), few(p.i_ie.data && n_i <= FEW), many(p.i_ie.data && !few),
          to_e(Packed<C>::transposed(many ? p.weight : nullptr, n_e, n_i)),
          to_i(Packed<C>::plain(many && backward ? p.weight : nullptr, n_e, n_i)), width_e(to_e.width),
          width_i(padded(n_i, LANES<C>)), columns(few ? FEW * n_e : 0) {
        const C *weight = static_cast<const C *>(p.weight);
        for (int64_t i = 0; few && i < n_e; ++i)
            for (int64_t k = 0; k < n_i; ++k) columns[k * n_e + i] = weight[i * n_i + k];
    }
};

// Of few I neurons: I_div of n neurons at one step.
template <class S, class C>
void few_divide(const Problem &p, const Weight<C> &w, int64_t t, int64_t b, int64_t row, int64_t start, int64_t n,
                C *i_div) {
    const S *u = at<S>(p.i_ie, t, b, row);
    const C x = widen(u[0]), y = w.n_i == FEW ? widen(u[1]) : C(0);
    const C *m = w.columns.data() + start, *other = m + w.n_e;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) i_div[i] = std::fma(y, other[i], x * m[i]);
}

// Of few I neurons, with dL/dI_div of n neurons at one step: adds to dL/du [FEW] and to dL/dM [FEW, n_e].
template <class S, class C>
void few_backward(const Problem &p, const Weight<C> &w, int64_t t, int64_t b, int64_t row, int64_t start, int64_t n,
                  const C *to_i_div, C *grad_u, C *grad_weight) {
    const S *u = at<S>(p.i_ie, t, b, row);
    for (int64_t k = 0; k < w.n_i; ++k) {
        const C x = widen(u[k]), *m = w.columns.data() + k * w.n_e + start;
        C *grad_m = grad_weight + k * w.n_e + start, sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; ++i) {
            sum += to_i_div[i] * m[i];
            grad_m[i] += to_i_div[i] * x;
        }
        grad_u[k] += sum;
    }
}

// The currents of the I neurons of some rows of an image, and what is made of them; their own rows are (step, row).
template <class C> struct Lateral {
    int64_t first, count;  // of the rows of the image
    std::vector<C> u, i_div, grad_u;  // [steps_in count, width_i], [steps_in count, width_e], [steps_in count, width_i]

    // I_div of `n` rows from `start`.
    template <class S> void load(const Problem &p, const Weight<C> &w, int64_t b, int64_t start, int64_t n) {
        first = start;
        count = n;
        grow(i_div, p.steps_in * count * w.width_e);
        if (!in_place<S>(w)) grow(u, p.steps_in * count * w.width_i);
        for (int64_t t = 0; t < p.steps_in; ++t) {
            const Panels<C> at_t = currents<S>(p, w, b, t);
            if (!in_place<S>(w))
                for (int64_t row = 0; row < count; ++row) {
                    const S *from = at<S>(p.i_ie, t, b, first + row);
                    C *to = u.data() + (t * count + row) * w.width_i;
                    for (int64_t k = 0; k < w.n_i; ++k) to[k] = widen(from[k]);
                    for (int64_t k = w.n_i; k < w.width_i; ++k) to[k] = C(0);
                }
            product<C>(count, w.n_i, at_t.data, at_t.row, 1, w.to_e, of_row(w, t, first), w.width_e, false);
        }
    }

    // Where I_div, or later its gradient, of one row lies.
    C *of_row(const Weight<C> &w, int64_t t, int64_t row) {
        return i_div.data() + (t * count + row - first) * w.width_e;
    }

    // Whether the currents of the I neurons are whole vectors of the right type where they lie.
    template <class S> static bool in_place(const Weight<C> &w) {
        return std::is_same<S, C>::value && w.n_i == w.width_i;
    }

    // Those of one step, where they lie or as `load` copied them.
    template <class S> Panels<C> currents(const Problem &p, const Weight<C> &w, int64_t b, int64_t t) {
        const void *there = at<S>(p.i_ie, t, b, first);
        if (in_place<S>(w)) return {static_cast<const C *>(there), w.width_i, p.i_ie.row, VECTORS * LANES<C>};
        return {u.data() + t * count * w.width_i, w.width_i, w.width_i, VECTORS * LANES<C>};
    }

    // With dL/dI_div in place of I_div: dL/du = M^T dL/dI_div, and dL/dM = (or +=) dL/dI_div u^T.
    template <class S> void backward(const Problem &p, const Weight<C> &w, int64_t b, C *grad_weight, bool add) {
        grow(grad_u, p.steps_in * count * w.width_i);
        product<C>(p.steps_in * count, w.n_e, i_div.data(), w.width_e, 1, w.to_i, grad_u.data(), w.width_i, false);
        for (int64_t t = 0; t < p.steps_in; ++t)
            for (int64_t row = 0; row < count; ++row) {
                const C *from = grad_u.data() + (t * count + row) * w.width_i;
                S *to = at<S>(p.grad_i_ie, t, b, first + row);
                for (int64_t k = 0; k < w.n_i; ++k) to[k] = narrow<S, C>(from[k]);
            }
        for (int64_t t = 0; t < p.steps_in; ++t)
            product<C>(w.n_e, count, of_row(w, t, first), 1, w.width_e, currents<S>(p, w, b, t), grad_weight, w.width_i,
                       add || t > 0);
    }

    static void grow(std::vector<C> &buffer, size_t n) {
        if (buffer.size() < n) buffer.resize(n);
    }
};

template <class C> Lateral<C> &lateral_of_this_thread() {
    static thread_local Lateral<C> lateral;
    return lateral;
}

// Of each step of an image; `lateral` holds all its rows, or is null.
template <class S, class C>
void find_smallest(const Problem &p, const Weight<C> &w, Lateral<C> *lateral, int64_t b) {
    if (p.tonic || (!p.i_div.data && !p.i_ie.data)) return;
    std::vector<C> made(w.few ? w.n_e : 0);
    for (int64_t t = 0; t < p.steps_in; ++t) {
        C smallest = std::numeric_limits<C>::infinity();
        for (int64_t row = 0; row < p.rows; ++row) {
            if (w.few) few_divide<S>(p, w, t, b, row, 0, w.n_e, made.data());
            if (w.few || lateral) {
                const C *d = w.few ? made.data() : lateral->of_row(w, t, row);
#pragma omp simd reduction(min : smallest)
                for (int64_t i = 0; i < p.inner; ++i) {
                    const C y = d[i] <= 0 ? std::numeric_limits<C>::infinity() : d[i];
                    smallest = y < smallest ? y : smallest;
                }
                continue;
            }
            const S *d = at<S>(p.i_div, t, b, row);
#pragma omp simd reduction(min : smallest)
            for (int64_t i = 0; i < p.inner; ++i) {
                const C x = widen(d[i]);
                const C y = x <= 0 ? std::numeric_limits<C>::infinity() : x;
                smallest = y < smallest ? y : smallest;
            }
        }
        static_cast<C *>(p.smallest)[t * p.batch + b] = smallest;
    }
}

// q = N / I_div~ and d = I_div~ of n neurons at one step; without divisive inhibition q = N and d = 1.
template <class S, class C>
void divide(const Problem &p, const Weight<C> &w, Lateral<C> *lateral, int64_t t, int64_t b, int64_t row, int64_t start,
            int64_t n, C *q, C *d) {
    const S *N = at<S>(p.balanced, t, b, row) + start;
    if (w.few) few_divide<S>(p, w, t, b, row, start, n, d);
    if (w.few || lateral) {
        const C *D = w.few ? d : lateral->of_row(w, t, row) + start;
        const C m = static_cast<const C *>(p.smallest)[t * p.batch + b];
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            d[i] = D[i] <= 0 ? m : D[i]; // NaN stays
            q[i] = widen(N[i]) / d[i];
        }
        return;
    }
    if (!p.i_div.data) {
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            q[i] = widen(N[i]);
            d[i] = C(1);
        }
        return;
    }
    const S *D = at<S>(p.i_div, t, b, row) + start;
    const C m = static_cast<const C *>(p.smallest)[t * p.batch + b];
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const C x = widen(D[i]);
        d[i] = x <= 0 ? m : x;
        q[i] = widen(N[i]) / d[i];
    }
}

template <class S, class C> void forward_image(const Problem &p, const Weight<C> &w, int64_t b) {
    Lateral<C> *lateral = w.many ? &lateral_of_this_thread<C>() : nullptr;
    if (lateral) lateral->template load<S>(p, w, b, 0, p.rows);
    find_smallest<S, C>(p, w, lateral, b);
    const C decay = C(p.decay), theta = C(p.theta);
    const bool hard = p.hard_reset;
    Neurons<C> neurons;
    C v[CHUNK], current[CHUNK], d[CHUNK];
    for (int64_t row = 0; row < p.rows; ++row)
        for (int64_t start = 0; start < p.inner; start += CHUNK) {
            const int64_t n = p.inner - start < CHUNK ? p.inner - start : CHUNK;
            neurons.set(p, row, start, n);
            for (int64_t i = 0; i < n; ++i) v[i] = p.v.data ? at<C>(p.v, 0, b, row)[start + i] : C(0);
            for (int64_t t = 0; t < p.steps; ++t) {
                if (t < p.steps_in) {
                    divide<S>(p, w, lateral, t, b, row, start, n, current, d);
                    if (p.gain)
                        for (int64_t i = 0; i < n; ++i) current[i] = current[i] * neurons.gain[i] + neurons.bias[i];
                }
                S *out = at<S>(p.spikes, t, b, row) + start;
#pragma omp simd
                for (int64_t i = 0; i < n; ++i) {
                    const C h = decay * v[i] + current[i];
                    const C s = h >= theta ? C(1) : h < theta ? C(0) : h; // NaN does not vanish
                    out[i] = narrow<S, C>(s);
                    v[i] = hard ? (h >= theta ? C(0) : h) : h - theta * s;
                }
            }
            C *last = at<C>(p.v_last, 0, b, row) + start;
            for (int64_t i = 0; i < n; ++i) last[i] = v[i];
        }
}

// How many rows of an image the backward pass works through at once: what is made of their I neurons, over all steps,
// stays in the second-level cache.
template <class C> int64_t rows_at_once(const Problem &p, const Weight<C> &w) {
    const int64_t fit = (int64_t(1) << 17) / int64_t(sizeof(C)) / (p.steps_in * w.width_e);
    return fit < 16 ? 16 : fit;
}

// One step backwards in time: `v` holds dL/dV[t] and then dL/dV[t - 1], `h` the potential and then dL/dI_E[t].
template <class S, class C, bool HARD, bool DETACHED>
void step_back(const Problem &p, const S *upstream, const C *slope, C *h, C *v, int64_t n) {
    const C decay = C(p.decay), theta = C(p.theta);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const C through = HARD && h[i] >= theta ? C(0) : v[i];
        const C reset = DETACHED ? C(0) : v[i] * (HARD ? h[i] : theta) * slope[i];
        const C g = widen(upstream[i]) * slope[i] + (through - reset);
        h[i] = g;
        v[i] = g * decay;
    }
}

template <class S, class C> auto step_back_of(const Problem &p) {
    if (p.hard_reset) return p.detach_reset ? step_back<S, C, true, true> : step_back<S, C, true, false>;
    return p.detach_reset ? step_back<S, C, false, true> : step_back<S, C, false, false>;
}

template <class S, class C>
void backward_image(const Problem &p, const Weight<C> &w, int64_t b, C *grad_weight, bool add) {
    Lateral<C> *lateral = w.many ? &lateral_of_this_thread<C>() : nullptr;
    const C decay = C(p.decay), theta = C(p.theta);
    const bool hard = p.hard_reset;
    const auto step_back_by_slope = step_back_of<S, C>(p);
    const int64_t neurons_count = p.neurons_inside ? p.inner : p.rows;
    C *grad_gain = static_cast<C *>(p.grad_gain) + b * neurons_count;
    C *grad_bias = static_cast<C *>(p.grad_bias) + b * neurons_count;
    if (p.gain)
        for (int64_t i = 0; i < neurons_count; ++i) grad_gain[i] = grad_bias[i] = 0;
    std::vector<C> memory(CHUNK * (2 * p.steps_in + p.steps));
    C *q = memory.data(), *d = q + CHUNK * p.steps_in, *h = d + CHUNK * p.steps_in;
    Neurons<C> neurons;
    C v[CHUNK], slope[CHUNK], few_to_i_div[CHUNK];
    std::vector<C> few_grad_u(w.few ? p.steps_in * FEW : 0), few_grad_weight(w.columns.size());
    const S nothing[CHUNK] = {};
    const int64_t block = lateral ? rows_at_once(p, w) : p.rows;
    for (int64_t first = 0; first < p.rows; first += block) {
        const int64_t end = p.rows - first < block ? p.rows : first + block;
        if (lateral) lateral->template load<S>(p, w, b, first, end - first);
        for (int64_t row = first; row < end; ++row) {
            std::fill(few_grad_u.begin(), few_grad_u.end(), C(0));
            for (int64_t start = 0; start < p.inner; start += CHUNK) {
                const int64_t n = p.inner - start < CHUNK ? p.inner - start : CHUNK;
                neurons.set(p, row, start, n);
                // The forward pass once more: q = N / I_div~, d = I_div~, and the trajectory h.
                for (int64_t i = 0; i < n; ++i) v[i] = p.v.data ? at<C>(p.v, 0, b, row)[start + i] : C(0);
                for (int64_t t = 0; t < p.steps; ++t) {
                    C *ht = h + t * CHUNK, *qt = q + (t < p.steps_in ? t : 0) * CHUNK, *dt = d + (qt - q);
                    if (t < p.steps_in) divide<S>(p, w, lateral, t, b, row, start, n, qt, dt);
#pragma omp simd
                    for (int64_t i = 0; i < n; ++i) {
                        ht[i] = decay * v[i] + (qt[i] * neurons.gain[i] + neurons.bias[i]);
                        const C s = ht[i] >= theta ? C(1) : ht[i] < theta ? C(0) : ht[i];
                        v[i] = hard ? (ht[i] >= theta ? C(0) : ht[i]) : ht[i] - theta * s;
                    }
                }
                // Backwards in time; v holds dL/dV[t], and h becomes dL/dI_E[t].
                const C *last = p.grad_v_last.data ? at<C>(p.grad_v_last, 0, b, row) + start : nullptr;
                for (int64_t i = 0; i < n; ++i) v[i] = last ? last[i] : C(0);
                for (int64_t t = p.steps - 1; t >= 0; --t) {
                    C *ht = h + t * CHUNK;
                    slopes<C>(p.surrogate, theta, C(p.alpha), ht, slope, n);
                    const S *from_spikes = p.grad_spikes.data ? at<S>(p.grad_spikes, t, b, row) + start : nothing;
                    step_back_by_slope(p, from_spikes, slope, ht, v, n);
                }
                if (p.grad_v.data)
                    for (int64_t i = 0; i < n; ++i) at<C>(p.grad_v, 0, b, row)[start + i] = v[i];
                if (p.steps_in != p.steps)
                    for (int64_t t = 1; t < p.steps; ++t)
                        for (int64_t i = 0; i < n; ++i) h[i] += h[t * CHUNK + i];
                for (int64_t t = 0; t < p.steps_in; ++t) {
                    const C *qt = q + t * CHUNK, *dt = d + t * CHUNK, *delta = h + t * CHUNK;
                    S *to_balanced = at<S>(p.grad_balanced, t, b, row) + start;
                    if (!p.gain) {
                        for (int64_t i = 0; i < n; ++i) to_balanced[i] = narrow<S, C>(delta[i]);
                        continue;
                    }
                    if (w.few || lateral) {
                        C *to_i_div = w.few ? few_to_i_div : lateral->of_row(w, t, row) + start;
#pragma omp simd
                        for (int64_t i = 0; i < n; ++i) {
                            const C g = delta[i] * neurons.gain[i] / dt[i];
                            to_balanced[i] = narrow<S, C>(g);
                            to_i_div[i] = -(g * qt[i]);
                        }
                        if (w.few)
                            few_backward<S>(p, w, t, b, row, start, n, to_i_div, few_grad_u.data() + t * FEW,
                                            few_grad_weight.data());
                    } else {
                        S *to_i_div = at<S>(p.grad_i_div, t, b, row) + start;
#pragma omp simd
                        for (int64_t i = 0; i < n; ++i) {
                            const C g = delta[i] * neurons.gain[i] / dt[i];
                            to_balanced[i] = narrow<S, C>(g);
                            to_i_div[i] = narrow<S, C>(-(g * qt[i]));
                        }
                    }
                    if (p.neurons_inside) {
#pragma omp simd
                        for (int64_t i = 0; i < n; ++i) {
                            grad_bias[start + i] += delta[i];
                            grad_gain[start + i] += delta[i] * qt[i];
                        }
                    } else {
                        C sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
                        for (int64_t i = 0; i < n; ++i) {
                            sum += delta[i];
                            product += delta[i] * qt[i];
                        }
                        grad_bias[row] += sum;
                        grad_gain[row] += product;
                    }
                }
            }
            for (int64_t t = 0; w.few && t < p.steps_in; ++t)
                for (int64_t k = 0; k < w.n_i; ++k)
                    at<S>(p.grad_i_ie, t, b, row)[k] = narrow<S, C>(few_grad_u[t * FEW + k]);
        }
        if (lateral) lateral->template backward<S>(p, w, b, grad_weight, add || first > 0);
    }
    for (int64_t i = 0; w.few && i < w.n_e; ++i)
        for (int64_t k = 0; k < w.n_i; ++k) {
            C &sum = grad_weight[i * w.width_i + k];
            sum = (add ? sum : C(0)) + few_grad_weight[k * w.n_e + i];
        }
}

template <class S, class C> void forward(const Problem &p) {
    const Weight<C> w(p, false);
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t b = 0; b < p.batch; ++b) forward_image<S, C>(p, w, b);
}

template <class S, class C> void backward(const Problem &p) {
    const Weight<C> w(p, true);
    const int64_t size = w.n_e * w.width_i;
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t g = 0; g < p.groups; ++g) {
        C *grad_weight = p.i_ie.data ? static_cast<C *>(p.grad_weight) + g * size : nullptr;
        const int64_t first = g * p.batch / p.groups, end = (g + 1) * p.batch / p.groups;
        for (int64_t b = first; b < end; ++b) backward_image<S, C>(p, w, b, grad_weight, b > first);
    }
}

}  // namespace

extern "C" {
void forward_float32(const Problem *p) { forward<float, float>(*p); }
void forward_float64(const Problem *p) { forward<double, double>(*p); }
void forward_bfloat16(const Problem *p) { forward<bf16, float>(*p); }
void backward_float32(const Problem *p) { backward<float, float>(*p); }
void backward_float64(const Problem *p) { backward<double, double>(*p); }
void backward_bfloat16(const Problem *p) { backward<bf16, float>(*p); }
}
