// The scan of a cortical circuit over T on a CPU, where all projections within the layer are all-to-all: forward and
// backward pass, each in one call. Where E cells project by convolutions, a call makes one step, and each position of the
// map is a sample (maps.py). The equations are those of eisnn/functional/cortex.py, whose names are used here.
//
// Arrays are [steps, batch, n], contiguous but where a stride is named. The batch is cut into parts, at least as many as
// there are threads; each goes through all steps by itself, and no number depends on the cut. Gradients of weights are
// products over all steps at once, which Python makes of `grad_y` and `grad_div`.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "../product.h"
#include "../surrogate.h"

extern "C" {

struct Cells {  // of a kind of interneuron
    int64_t n;  // 0: there are none
    double decay;  // beta
    double scale, quantum;  // of LIF neurons: of their current, which then is in units of a spike; what a spike gives
    const void *u_start, *trace_start;  // [batch, n]
    void *u, *trace;  // [steps, batch, n]: potential (of LIF neurons before the reset) and what synapses pass on
    void *u_end;  // [batch, n]
    const void *grad_u_end, *grad_trace_end;  // [batch, n]; null: 0
    void *grad_u_start, *grad_trace_start;  // [batch, n]
};

struct Circuit {
    int64_t steps, batch, n_e, n_y, delay, threads;  // n_y: cells of all kinds together, E first
    int64_t spiking, hard_reset, detach_reset, surrogate;
    double lif_decay, theta, alpha, excitatory, inhibitory;
    Cells pv, sst, vip;
    const void *currents;  // [steps, batch, n_e + n_pv], from the layer below
    int64_t current_step;  // its stride; 0 for a static input
    const void *top_down;  // [steps, batch, n_vip]; null: 0
    const void *onto_sst;  // [steps, batch, n_sst], besides what `recurrent` gives; null: 0
    const void *recurrent;  // [n_y, n_e]; null: no recurrence
    const void *weight_ep, *weight_pp, *weight_ps, *weight_es, *weight_sv, *weight_vs;  // null: no such pathway
    const void *gain_p, *gain_e, *bias, *sigma;  // sigma may be null
    const void *v_start, *history_start;  // [batch, n_e], [batch, delay, n_e]
    void *spikes, *passed_on;  // [steps, batch, n_e]: spikes, and after the filter of their synapses (null without one)
    void *h, *q, *d;  // [steps, batch, n_e]: potential before the reset, N / I_div~, I_div~
    void *v_end;  // [batch, n_e]
    const void *grad_spikes, *grad_v_end, *grad_history_end;  // null: 0
    void *grad_y;  // [steps, batch, n_y]: of the input current of each cell
    void *grad_div;  // [steps, batch, n_e]
    void *grad_v_start, *grad_history_start;
    void *grad_gain_e, *grad_bias, *grad_sigma, *grad_gain_p;  // sums over steps, of each sample
};

}  // extern "C"

namespace {

// Rows of whole vectors, at first 0.
template <class C> struct Block {
    int64_t width;
    std::vector<C> data;
    Block(int64_t rows, int64_t n) : width(padded(n, LANES<C>)), data(rows * width) {}
    C *operator[](int64_t row) { return data.data() + row * width; }
};

template <class C> struct Matrices {
    Packed<C> recurrent, ep, pp, ps, es, sv, vs;

    Matrices(const Circuit &c, Packed<C> (*pack)(const void *, int64_t, int64_t)) {
        recurrent = pack(c.recurrent, c.n_y, c.n_e);
        ep = pack(c.weight_ep, c.n_e, c.pv.n);
        pp = pack(c.weight_pp, c.pv.n, c.pv.n);
        ps = pack(c.weight_ps, c.pv.n, c.sst.n);
        es = pack(c.weight_es, c.n_e, c.sst.n);
        sv = pack(c.weight_sv, c.sst.n, c.vip.n);
        vs = pack(c.weight_vs, c.vip.n, c.sst.n);
    }
};

// out (+)= a w, and whether there is such a w.
template <class C>
bool apply(const Packed<C> &w, int64_t rows, const C *a, int64_t a_row, C *out, int64_t out_row, bool add = false) {
    if (w.data.empty()) return false;
    product<C>(rows, w.depth, a, a_row, 1, w, out, out_row, add);
    return true;
}

// The same where most of `a` is 0.
template <class C>
void gather(const Packed<C> &w, int64_t rows, const C *a, int64_t a_row, C *out, int64_t out_row,
            std::vector<int32_t> &sources) {
    typedef C Vector __attribute__((vector_size(64), aligned(alignof(C)), may_alias));
    sources.resize(rows * (w.depth + 1));
    for (int64_t b = 0; b < rows; ++b) {
        int32_t *list = sources.data() + b * (w.depth + 1);
        const C *row = a + b * a_row;
        int32_t n = 0;
        for (int64_t j = 0; j < w.depth; ++j) {
            list[n + 1] = int32_t(j);
            n += row[j] != 0;
        }
        list[0] = n;
    }
    for (int64_t start = 0; start < w.width; start += Packed<C>::PANEL) {
        const C *panel = w.data.data() + start * w.depth;
        const int64_t vectors = std::min((w.width - start) / LANES<C>, VECTORS);
        for (int64_t b = 0; b < rows; ++b) {
            const int32_t *list = sources.data() + b * (w.depth + 1);
            const C *row = a + b * a_row;
            Vector sum[VECTORS] = {};
            for (int32_t k = 1; k <= list[0]; ++k) {
                const Vector *from = reinterpret_cast<const Vector *>(panel + list[k] * Packed<C>::PANEL);
                const C value = row[list[k]];
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; ++v) sum[v] += value * from[v];
            }
            Vector *to = reinterpret_cast<Vector *>(out + b * out_row + start);
            for (int64_t v = 0; v < vectors; ++v) to[v] = sum[v];
        }
    }
}

template <class C> const C *from(const void *array, int64_t offset = 0) {
    return static_cast<const C *>(array) + offset;
}
template <class C> C *into(void *array, int64_t offset = 0) { return static_cast<C *>(array) + offset; }

// Some samples of the batch, through all steps.
template <class C> struct Part {
    const Circuit &c;
    int64_t first, count;

    int64_t at(int64_t t, int64_t b) const { return t * c.batch + first + b; }

    // What the synapses of E cells passed on `delay` steps before t: where it begins, and its stride.
    const C *delayed(int64_t t, int64_t &stride) const {
        if (t < c.delay) {
            stride = c.delay * c.n_e;
            return from<C>(c.history_start, (first * c.delay + t) * c.n_e);
        }
        stride = c.n_e;
        return from<C>(c.passed_on ? c.passed_on : c.spikes, at(t - c.delay, 0) * c.n_e);
    }

    void start(const Cells &cells, Block<C> &u, Block<C> &trace) const {
        for (int64_t b = 0; b < count && cells.n; ++b) {
            std::copy_n(from<C>(cells.u_start, (first + b) * cells.n), cells.n, u[b]);
            std::copy_n(from<C>(cells.trace_start, (first + b) * cells.n), cells.n, trace[b]);
        }
    }

    // One step of a kind of interneuron of one sample: `u` and `trace` from before to after it.
    void respond(const Cells &cells, int64_t t, int64_t b, const C *current, C *u, C *trace) const {
        const C beta = C(cells.decay), gather = C(1 - cells.decay), scale = C(cells.scale), quantum = C(cells.quantum);
        const C keep = C(c.inhibitory), add = C(1 - c.inhibitory);
        C *kept = into<C>(cells.u, at(t, b) * cells.n), *passed = into<C>(cells.trace, at(t, b) * cells.n);
        for (int64_t i = 0; i < cells.n; ++i) {
            C s;
            if (c.spiking) {
                const C h = beta * u[i] + scale * current[i];
                const C spike = h >= 1 ? C(1) : h < 1 ? C(0) : h;  // NaN does not vanish
                kept[i] = h;
                u[i] = h - spike;
                s = quantum * spike;
            } else {
                kept[i] = u[i] = beta * u[i] + gather * current[i];
                s = u[i] < 0 ? C(0) : u[i];
            }
            passed[i] = trace[i] = keep * trace[i] + add * s;
        }
    }

    void forward(const Matrices<C> &m) const {
        const int64_t n_e = c.n_e, n_pv = c.pv.n, n_sst = c.sst.n, n_vip = c.vip.n;
        Block<C> y(count, c.n_y), on_pv(count, n_pv), on_sst(count, n_sst), on_vip(count, n_vip), by_sst(count, n_e);
        Block<C> u_pv(count, n_pv), pv(2 * count, n_pv), inhibition(2 * count, n_e), v(count, n_e);
        Block<C> u_sst(count, n_sst), sst(count, n_sst), u_vip(count, n_vip), vip(count, n_vip);
        Block<C> current(1, c.n_y);
        std::vector<int32_t> sources;
        start(c.pv, u_pv, pv);
        start(c.sst, u_sst, sst);
        start(c.vip, u_vip, vip);
        for (int64_t b = 0; b < count; ++b) std::copy_n(from<C>(c.v_start, (first + b) * n_e), n_e, v[b]);
        for (int64_t t = 0; t < c.steps; ++t) {
            if (c.recurrent) {
                int64_t stride;
                const C *e = delayed(t, stride);
                if (c.passed_on)
                    apply(m.recurrent, count, e, stride, y[0], y.width);
                else
                    gather(m.recurrent, count, e, stride, y[0], y.width, sources);
            }
            const bool by_pv = apply(m.pp, count, pv[0], pv.width, on_pv[0], on_pv.width);
            apply(m.ps, count, sst[0], sst.width, on_pv[0], on_pv.width, by_pv);
            apply(m.sv, count, vip[0], vip.width, on_sst[0], on_sst.width);
            apply(m.vs, count, sst[0], sst.width, on_vip[0], on_vip.width);
            apply(m.es, count, sst[0], sst.width, by_sst[0], by_sst.width);
            for (int64_t b = 0; b < count; ++b) {
                const C *below = from<C>(c.currents, t * c.current_step + (first + b) * (n_e + n_pv)) + n_e;
                const C *recurrent = y[b] + n_e, *gain = from<C>(c.gain_p);
                for (int64_t i = 0; i < n_pv; ++i) current[0][i] = below[i] + recurrent[i] - on_pv[b][i];
                respond(c.pv, t, b, current[0], u_pv[b], pv[b]);
                for (int64_t i = 0; i < n_pv; ++i) pv[count + b][i] = gain[i] * pv[b][i];
                recurrent += n_pv;
                const C *driven = c.onto_sst ? from<C>(c.onto_sst, at(t, b) * n_sst) : nullptr;
                for (int64_t i = 0; i < n_sst; ++i)
                    current[0][i] = recurrent[i] - on_sst[b][i] + (driven ? driven[i] : C(0));
                respond(c.sst, t, b, current[0], u_sst[b], sst[b]);
                recurrent += n_sst;
                const C *given = c.top_down ? from<C>(c.top_down, at(t, b) * n_vip) : nullptr;
                for (int64_t i = 0; i < n_vip; ++i)
                    current[0][i] = recurrent[i] - on_vip[b][i] + (given ? given[i] : C(0));
                respond(c.vip, t, b, current[0], u_vip[b], vip[b]);
            }
            apply(m.ep, 2 * count, pv[0], pv.width, inhibition[0], inhibition.width);
            for (int64_t b = 0; b < count; ++b)
                fire(t, b, y[b], by_sst[b], inhibition[b], inhibition[count + b], v[b]);
        }
        for (int64_t b = 0; b < count; ++b) {
            std::copy_n(v[b], n_e, into<C>(c.v_end, (first + b) * n_e));
            for (auto [cells, u] : {std::pair{&c.pv, &u_pv}, {&c.sst, &u_sst}, {&c.vip, &u_vip}})
                std::copy_n((*u)[b], cells->n, into<C>(cells->u_end, (first + b) * cells->n));
        }
    }

    // The E cells of one sample at one step.
    void fire(int64_t t, int64_t b, const C *y, const C *by_sst, const C *subtracted, C *divisor, C *v) const {
        const int64_t n = c.n_e, offset = at(t, b) * n;
        const C *below = from<C>(c.currents, t * c.current_step + (first + b) * (n + c.pv.n));
        const C *gain = from<C>(c.gain_e), *bias = from<C>(c.bias), *sigma = from<C>(c.sigma);
        C smallest = std::numeric_limits<C>::infinity();
        if (sigma)
            for (int64_t i = 0; i < n; ++i) divisor[i] += sigma[i];
#pragma omp simd reduction(min : smallest)
        for (int64_t i = 0; i < n; ++i) {
            const C x = divisor[i] <= 0 ? std::numeric_limits<C>::infinity() : divisor[i];
            smallest = x < smallest ? x : smallest;
        }
        const C decay = C(c.lif_decay), theta = C(c.theta);
        C *h = into<C>(c.h, offset), *q = into<C>(c.q, offset), *d = into<C>(c.d, offset);
        C *s = into<C>(c.spikes, offset);
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            const C balanced = (below[i] + y[i]) - (subtracted[i] + by_sst[i]);
            d[i] = divisor[i] <= 0 ? smallest : divisor[i];  // NaN stays
            q[i] = balanced / d[i];
            h[i] = decay * v[i] + (gain[i] * q[i] + bias[i]);
            s[i] = h[i] >= theta ? C(1) : h[i] < theta ? C(0) : h[i];
            v[i] = c.hard_reset ? (h[i] >= theta ? C(0) : h[i]) : h[i] - theta * s[i];
        }
        if (!c.passed_on) return;
        const C *before = t ? into<C>(c.passed_on, at(t - 1, b) * n)
                            : from<C>(c.history_start, ((first + b) * c.delay + c.delay - 1) * n);
        C *now = into<C>(c.passed_on, offset);
        const C keep = C(c.excitatory), add = C(1 - c.excitatory);
        for (int64_t i = 0; i < n; ++i) now[i] = keep * before[i] + add * s[i];
    }

    // Gradients of a kind of interneuron of one sample at one step: of its current, from those of its trace; `trace` and
    // `u` from after the step to before it, where the synapses of the step itself are still to be counted.
    void respond_back(const Cells &cells, int64_t t, int64_t b, C *u, C *trace, C *slope, C *current) const {
        const C beta = C(cells.decay), add = C(1 - cells.decay), scale = C(cells.scale), quantum = C(cells.quantum);
        const C keep = C(c.inhibitory), passed = C(1 - c.inhibitory);
        const C *kept = from<C>(cells.u, at(t, b) * cells.n);
        if (c.spiking) slopes<C>(c.surrogate, C(1), C(c.alpha), kept, slope, cells.n);
        for (int64_t i = 0; i < cells.n; ++i) {
            const C s = passed * trace[i];
            const C g = u[i] + (c.spiking ? quantum * s * slope[i] : kept[i] < 0 ? C(0) : s);
            current[i] = g * (c.spiking ? scale : add);
            u[i] = beta * g;
            trace[i] *= keep;
        }
    }

    void end(const Cells &cells, Block<C> &u, Block<C> &trace) const {
        for (int64_t b = 0; b < count && cells.n; ++b) {
            if (cells.grad_u_end) std::copy_n(from<C>(cells.grad_u_end, (first + b) * cells.n), cells.n, u[b]);
            if (cells.grad_trace_end)
                std::copy_n(from<C>(cells.grad_trace_end, (first + b) * cells.n), cells.n, trace[b]);
        }
    }

    void finish(const Cells &cells, Block<C> &u, Block<C> &trace) const {
        for (int64_t b = 0; b < count; ++b) {
            std::copy_n(u[b], cells.n, into<C>(cells.grad_u_start, (first + b) * cells.n));
            std::copy_n(trace[b], cells.n, into<C>(cells.grad_trace_start, (first + b) * cells.n));
        }
    }

    void backward(const Matrices<C> &m) const {
        const int64_t n_e = c.n_e, n_pv = c.pv.n, n_sst = c.sst.n, n_vip = c.vip.n, n_y = c.n_y;
        Block<C> u_pv(count, n_pv), pv(count, n_pv), u_sst(count, n_sst), sst(count, n_sst), u_vip(count, n_vip);
        Block<C> vip(count, n_vip), v(count, n_e), filtered(count, n_e), by_div(count, n_pv), to_pv(count, n_pv);
        Block<C> to_sst(count, n_sst), to_vip(count, n_vip), slope(1, std::max(n_e, n_pv));
        // Of what the synapses of E cells pass on, for the steps t to t + delay: a ring.
        const int64_t slots = c.delay + 1;
        Block<C> ring(slots * count, n_e);
        const auto of = [&](int64_t step, int64_t b) { return ring[step % slots * count + b]; };
        end(c.pv, u_pv, pv);
        end(c.sst, u_sst, sst);
        end(c.vip, u_vip, vip);
        for (int64_t b = 0; b < count; ++b) {
            if (c.grad_v_end) std::copy_n(from<C>(c.grad_v_end, (first + b) * n_e), n_e, v[b]);
            for (int64_t k = 0; k < c.delay && c.recurrent && c.grad_history_end; ++k)
                std::copy_n(from<C>(c.grad_history_end, ((first + b) * c.delay + k) * n_e), n_e, of(c.steps + k, b));
            for (void *sum : {c.grad_gain_e, c.grad_bias, c.grad_sigma})
                if (sum) std::fill_n(into<C>(sum, (first + b) * n_e), n_e, C(0));
            std::fill_n(into<C>(c.grad_gain_p, (first + b) * n_pv), n_pv, C(0));
        }
        for (int64_t t = c.steps - 1; t >= 0; --t) {
            for (int64_t b = 0; b < count; ++b) fire_back(t, b, of(t + c.delay, b), filtered[b], v[b], slope[0]);
            C *y = into<C>(c.grad_y, at(t, 0) * n_y);
            const C *div = from<C>(c.grad_div, at(t, 0) * n_e);
            apply(m.ep, count, y, n_y, to_pv[0], to_pv.width);
            apply(m.ep, count, div, n_e, by_div[0], by_div.width);
            for (int64_t b = 0; b < count; ++b) {
                const C *gain = from<C>(c.gain_p), *trace = from<C>(c.pv.trace, at(t, b) * n_pv);
                C *sum = into<C>(c.grad_gain_p, (first + b) * n_pv);
                for (int64_t i = 0; i < n_pv; ++i) {
                    pv[b][i] += gain[i] * by_div[b][i] - to_pv[b][i];
                    sum[i] += trace[i] * by_div[b][i];
                }
                C *current = y + b * n_y + n_e;
                respond_back(c.pv, t, b, u_pv[b], pv[b], slope[0], current);
                respond_back(c.sst, t, b, u_sst[b], sst[b], slope[0], current + n_pv);
                respond_back(c.vip, t, b, u_vip[b], vip[b], slope[0], current + n_pv + n_sst);
            }
            const C *onto_pv = y + n_e, *onto_sst = onto_pv + n_pv, *onto_vip = onto_sst + n_sst;
            if (apply(m.pp, count, onto_pv, n_y, to_pv[0], to_pv.width)) subtract(pv, to_pv);
            if (apply(m.es, count, y, n_y, to_sst[0], to_sst.width)) subtract(sst, to_sst);
            if (apply(m.ps, count, onto_pv, n_y, to_sst[0], to_sst.width)) subtract(sst, to_sst);
            if (apply(m.vs, count, onto_vip, n_y, to_sst[0], to_sst.width)) subtract(sst, to_sst);
            if (apply(m.sv, count, onto_sst, n_y, to_vip[0], to_vip.width)) subtract(vip, to_vip);
            apply(m.recurrent, count, y, n_y, of(t, 0), ring.width);
        }
        finish(c.pv, u_pv, pv);
        finish(c.sst, u_sst, sst);
        finish(c.vip, u_vip, vip);
        for (int64_t b = 0; b < count; ++b) {
            std::copy_n(v[b], n_e, into<C>(c.grad_v_start, (first + b) * n_e));
            for (int64_t k = 0; k < c.delay && c.recurrent; ++k) {
                C *to = into<C>(c.grad_history_start, ((first + b) * c.delay + k) * n_e);
                std::copy_n(of(k, b), n_e, to);
                for (int64_t i = 0; i < n_e && k == c.delay - 1; ++i) to[i] += filtered[b][i];
            }
        }
    }

    void subtract(Block<C> &from_, Block<C> &what) const {
        for (int64_t i = 0; i < count * what.width; ++i) from_.data[i] -= what.data[i];
    }

    // Of the E cells: `passed` is the gradient of what their synapses pass on, `filtered` what of it reaches the step
    // before.
    void fire_back(int64_t t, int64_t b, const C *passed, C *filtered, C *v, C *slope) const {
        const int64_t n = c.n_e, offset = at(t, b) * n;
        const C *h = from<C>(c.h, offset), *q = from<C>(c.q, offset), *d = from<C>(c.d, offset);
        const C *gain = from<C>(c.gain_e), *given = c.grad_spikes ? from<C>(c.grad_spikes, offset) : nullptr;
        const C keep = C(c.excitatory), add = C(1 - c.excitatory), decay = C(c.lif_decay), theta = C(c.theta);
        const int64_t sums = (first + b) * n;
        C *gains = into<C>(c.grad_gain_e, sums), *biases = into<C>(c.grad_bias, sums);
        C *y = into<C>(c.grad_y, at(t, b) * c.n_y), *div = into<C>(c.grad_div, offset);
        slopes<C>(c.surrogate, theta, C(c.alpha), h, slope, n);
#pragma omp simd
        for (int64_t i = 0; i < n; ++i) {
            const C trace = filtered[i] + (c.recurrent ? passed[i] : C(0));
            const C upstream = (given ? given[i] : C(0)) + add * trace;
            filtered[i] = keep * trace;
            const C through = c.hard_reset && h[i] >= theta ? C(0) : v[i];
            const C reset = c.detach_reset ? C(0) : v[i] * (c.hard_reset ? h[i] : theta) * slope[i];
            const C g = upstream * slope[i] + (through - reset);
            v[i] = g * decay;
            biases[i] += g;
            gains[i] += g * q[i];
            y[i] = g * gain[i] / d[i];
            div[i] = -(y[i] * q[i]);
        }
        if (!c.grad_sigma) return;
        C *sigmas = into<C>(c.grad_sigma, sums);
        for (int64_t i = 0; i < n; ++i) sigmas[i] += div[i];
    }
};

constexpr int64_t MOST = 128;  // samples of a part, whose work stays in the second-level cache

template <class C, class Each> void in_parts(const Circuit &c, Each each) {
    const int64_t threads = std::max(int64_t(1), std::min(c.threads, c.batch));
    const int64_t parts = std::max(threads, (c.batch + MOST - 1) / MOST);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < parts; ++k) {
        const int64_t first = k * c.batch / parts;
        each(Part<C>{c, first, (k + 1) * c.batch / parts - first});
    }
}

template <class C> void forward(const Circuit &c) {
    const Matrices<C> m(c, Packed<C>::transposed);
    in_parts<C>(c, [&](const Part<C> &part) { part.forward(m); });
}

template <class C> void backward(const Circuit &c) {
    const Matrices<C> m(c, Packed<C>::plain);
    in_parts<C>(c, [&](const Part<C> &part) { part.backward(m); });
}

}  // namespace

extern "C" {
void cortex_forward_float32(const Circuit *c) { forward<float>(*c); }
void cortex_forward_float64(const Circuit *c) { forward<double>(*c); }
void cortex_backward_float32(const Circuit *c) { backward<float>(*c); }
void cortex_backward_float64(const Circuit *c) { backward<double>(*c); }
}
