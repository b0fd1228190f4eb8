/* Layer by layer, each over all time steps. Only what is not 0 is worked on: the work follows the spikes. */
#include "network.h"

#define LIMIT (1 << 24) /* of a current */

static uint8_t maps[2][MAP_SIZE];           /* spikes (or sums of four) of all steps, of the layer below and of this one */
static int32_t currents[CURRENT_SIZE];      /* of one step: [position][neurons + inhibitory] */
static int32_t potentials[POTENTIAL_SIZE];  /* [position][neurons] */

/* a / 2^shift rounded down, also where >> of a negative number is something else. */
static int64_t down(int64_t a, int shift)
{
    return a >= 0 ? a >> shift : ~(~a >> shift);
}

/* a / 2^shift rounded to the nearest. */
static int64_t rounded(int64_t a, int shift)
{
    if (shift < 0)
        shift = 0;
    if (shift > 61)
        shift = 61;
    return down(a + ((int64_t)1 << shift >> 1), shift);
}

/* All weighted sums of one step. */
static void project(const Stage *s, const uint8_t *x)
{
    const int32_t n = s->neurons + s->inhibitory;
    const int32_t positions = s->out_height * s->out_width;
    for (int32_t k = 0; k < positions * n; k++)
        currents[k] = 0;
    for (int32_t c = 0; c < s->channels; c++)
        for (int32_t y = 0; y < s->height; y++)
            for (int32_t column = 0; column < s->width; column++, x++) {
                if (*x == 0)
                    continue;
                for (int32_t i = 0; i < s->kernel_height; i++) {
                    const int32_t top = y + s->padding_y - i * s->dilation_y;
                    if (top < 0 || top % s->stride_y || top / s->stride_y >= s->out_height)
                        continue;
                    for (int32_t j = 0; j < s->kernel_width; j++) {
                        const int32_t left = column + s->padding_x - j * s->dilation_x;
                        if (left < 0 || left % s->stride_x || left / s->stride_x >= s->out_width)
                            continue;
                        int32_t *sum = currents + (top / s->stride_y * s->out_width + left / s->stride_x) * n;
                        const int8_t *w = s->weight + ((c * s->kernel_height + i) * s->kernel_width + j) * n;
                        for (int32_t k = 0; k < n; k++)
                            sum[k] += *x * w[k];
                    }
                }
            }
}

static int32_t divisor(const Stage *s, int32_t neuron, const int32_t *u)
{
    const int16_t *w = s->divisive + neuron * s->inhibitory;
    int32_t d = 0;
    for (int32_t k = 0; k < s->inhibitory; k++)
        d += w[k] * u[k];
    return d;
}

/* The currents of one step into the neurons, in place of the weighted sums. */
static void integrate(const Stage *s)
{
    const int32_t n = s->neurons + s->inhibitory;
    const int32_t positions = s->out_height * s->out_width;
    int32_t smallest = INT32_MAX;
    for (int32_t p = 0; p < positions && s->inhibitory; p++) {
        int32_t *u = currents + p * n + s->neurons;
        for (int32_t k = 0; k < s->inhibitory; k++)
            u[k] = (int32_t)rounded(u[k], s->shift);
        if (s->tonic)
            u[s->inhibitory - 1] = s->tonic;
        for (int32_t k = 0; k < s->neurons; k++) {
            const int32_t d = divisor(s, k, u);
            if (d > 0 && d < smallest)
                smallest = d;
        }
    }
    for (int32_t p = 0; p < positions; p++)
        for (int32_t k = 0; k < s->neurons; k++) {
            int32_t *a = currents + p * n + k;
            int64_t current = 0;
            if (!s->inhibitory)
                current = rounded((int64_t)*a * s->gain[k] * 32768, s->exponent[k]);
            else if (smallest < INT32_MAX) {
                int32_t d = divisor(s, k, currents + p * n + s->neurons);
                int e = 30;
                if (d == 0)
                    d = smallest;
                while (!(d >> e))
                    e--;
                const int32_t part = (int32_t)(((((int64_t)d << (31 - e)) - ((int64_t)1 << 31)) >> (31 - TABLE_BITS)));
                current = rounded((int64_t)*a * s->gain[k] * reciprocals[part], s->exponent[k] + e);
            }
            if (current > LIMIT)
                current = LIMIT;
            if (current < -LIMIT)
                current = -LIMIT;
            *a = (int32_t)current + s->bias[k];
        }
}

/* One step of the membranes: spikes of this step. */
static void fire(const Stage *s, uint8_t *spikes)
{
    const int32_t n = s->neurons + s->inhibitory, by = s->pooled ? 2 : 1;
    const int32_t height = s->out_height / by, width = s->out_width / by;
    for (int32_t k = 0; k < s->neurons * height * width; k++)
        spikes[k] = 0;
    for (int32_t y = 0; y < s->out_height; y++)
        for (int32_t x = 0; x < s->out_width; x++)
            for (int32_t k = 0; k < s->neurons; k++) {
                const int32_t p = y * s->out_width + x;
                int32_t *v = potentials + p * s->neurons + k;
                const int32_t h = (int32_t)down((int64_t)*v * s->decay, 15) + currents[p * n + k];
                const int fires = h >= s->theta;
                *v = !fires ? h : s->hard ? 0 : h - s->theta;
                if (fires && y / by < height && x / by < width)
                    spikes[(k * height + y / by) * width + x / by]++;
            }
}

/* The last layer: sums over steps and positions, then weights. */
static int read_out(const Stage *s, const uint8_t *x, int32_t steps, int32_t *logits)
{
    const int32_t positions = s->height * s->width;
    int best = 0;
    for (int32_t k = 0; k < CLASSES; k++)
        logits[k] = s->bias[k];
    for (int32_t t = 0; t < steps; t++)
        for (int32_t c = 0; c < s->channels; c++)
            for (int32_t p = 0; p < positions; p++, x++)
                if (*x)
                    for (int32_t k = 0; k < CLASSES; k++)
                        logits[k] += *x * (steps == 1 ? TIME_STEPS : 1) * s->weight[c * CLASSES + k];
    for (int k = 1; k < CLASSES; k++)
        if (logits[k] > logits[best])
            best = k;
    return best;
}

int classify(const uint8_t *image, int32_t *logits)
{
    const uint8_t *x = image;
    int32_t steps = 1;
    for (int k = 0; k < STAGES - 1; k++) {
        const Stage *s = stages + k;
        const int32_t by = s->pooled ? 2 : 1;
        const int32_t in = s->channels * s->height * s->width;
        const int32_t out = s->neurons * (s->out_height / by) * (s->out_width / by);
        for (int32_t p = 0; p < s->neurons * s->out_height * s->out_width; p++)
            potentials[p] = 0;
        for (int32_t t = 0; t < TIME_STEPS; t++) {
            if (t < steps) { /* an image is the same at each step, and so are its currents */
                project(s, x + t * in);
                integrate(s);
            }
            fire(s, maps[k % 2] + t * out);
        }
        x = maps[k % 2];
        steps = TIME_STEPS;
    }
    return read_out(stages + STAGES - 1, x, steps, logits);
}
