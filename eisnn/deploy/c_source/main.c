/* Classify images:
 *
 *     ./classify image.ppm ...     binary PPM or PGM (P6, P5) of the network's size
 *     ./classify - < images        planes of bytes, one image after the other; prints all logits
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "network.h"

static uint8_t image[CHANNELS * HEIGHT * WIDTH];
static int32_t logits[CLASSES];

static int number(FILE *file)
{
    int c = getc(file), found = 0;
    while (c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '#') {
        if (c == '#')
            while (c != '\n' && c != EOF)
                c = getc(file);
        c = getc(file);
    }
    for (; c >= '0' && c <= '9' && found < 100000; c = getc(file))
        found = 10 * found + (c - '0');
    return found;
}

static const char *read_image(const char *name)
{
    FILE *file = fopen(name, "rb");
    const char *error = NULL;
    if (!file)
        return "cannot be opened";
    if (getc(file) != 'P' || getc(file) != (CHANNELS == 3 ? '6' : '5'))
        error = CHANNELS == 3 ? "is no binary PPM (P6)" : "is no binary PGM (P5)";
    else if (number(file) != WIDTH || number(file) != HEIGHT || number(file) != 255)
        error = "has another size than the network's images, or another largest value than 255";
    for (int p = 0; !error && p < HEIGHT * WIDTH; p++)
        for (int c = 0; c < CHANNELS; c++) {
            const int value = getc(file);
            if (value == EOF)
                error = "ends too early";
            image[c * HEIGHT * WIDTH + p] = (uint8_t)value;
        }
    fclose(file);
    return error;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s image.ppm ... | -   (%d x %d pixels, %d channels)\n", argv[0], WIDTH, HEIGHT, CHANNELS);
        return 2;
    }
    if (!strcmp(argv[1], "-")) {
        while (fread(image, sizeof image, 1, stdin) == 1) {
            classify(image, logits);
            for (int k = 0; k < CLASSES; k++)
                printf("%" PRId32 "%c", logits[k], k + 1 < CLASSES ? ' ' : '\n');
        }
        return 0;
    }
    for (int k = 1; k < argc; k++) {
        const char *error = read_image(argv[k]);
        if (error) {
            fprintf(stderr, "%s %s\n", argv[k], error);
            return 2;
        }
        printf("%s: %s\n", argv[k], class_names[classify(image, logits)]);
    }
    return 0;
}
