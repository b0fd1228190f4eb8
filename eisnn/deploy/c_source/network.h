/* A spiking network in integers: no floating point, no allocation, no library. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stdint.h>

#include "sizes.h" /* CHANNELS, HEIGHT, WIDTH, CLASSES, TIME_STEPS and the sizes of the state */

/* Class names, in the order of the logits. */
extern const char *const class_names[CLASSES];

/* Logits of one image: CHANNELS planes of HEIGHT rows of WIDTH pixels, 0 to 255. Returns the class with the largest. */
int classify(const uint8_t *image, int32_t *logits);

/* Of layers, for network.c. */
typedef struct {
    int32_t channels, height, width;         /* of the input */
    int32_t neurons, inhibitory;             /* E, and I, whose currents divide those of E */
    int32_t out_height, out_width;           /* of the map of neurons */
    int32_t kernel_height, kernel_width, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
    int32_t shift, tonic, decay, theta, hard, pooled;
    const int8_t *weight;                    /* [channels][kernel_height][kernel_width][neurons + inhibitory] */
    const int16_t *divisive;                 /* [neurons][inhibitory] */
    const int32_t *gain, *exponent, *bias;   /* [neurons] */
} Stage;

extern const Stage stages[STAGES];
extern const uint16_t reciprocals[1 << TABLE_BITS];

#endif
