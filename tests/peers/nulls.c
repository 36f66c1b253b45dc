/* What runtime.h says of pointers, sizes, digits and callbacks; returns the line of what does not hold. */
#include "runtime.h"

#include <setjmp.h>
#include <string.h>

static void row(void *context, const uint8_t *pixels) {
    uint8_t **to = context;
    for (int x = 0; x < MNIST_GAN_SIDE; x++) *(*to)++ = pixels[x];
}

static jmp_buf start;
static int rows;

static void third_row_jumps(void *context, const uint8_t *pixels) {
    (void)context, (void)pixels;
    if (++rows == 3) longjmp(start, 1);
}

#define HOLDS(condition) if (!(condition)) return __LINE__

static int check(void) {
    static uint8_t pixels[2 * MNIST_GAN_PIXELS], other[2 * MNIST_GAN_PIXELS], png[MNIST_GAN_PNG_MOST];
    const uint64_t seeds[2] = {7, 8};
    float z[MNIST_GAN_LATENT];
    uint8_t *to = other;
    size_t size = 0;
    HOLDS(mnist_gan_generate(1, 0) == MNIST_GAN_NULL && mnist_gan_generate_int8(1, 0) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_generate_digit(1, 3, 0) == MNIST_GAN_NULL && mnist_gan_generate_digit_int8(1, 3, 0) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_generate_digit(1, 12, 0) == MNIST_GAN_NULL && mnist_gan_generate_digit_int8(1, 12, 0) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_generate_digit(1, 10, pixels) == MNIST_GAN_NO_DIGIT && mnist_gan_conditional() == 1);
    HOLDS(mnist_gan_generate_digit_int8(1, 10, pixels) == MNIST_GAN_NO_DIGIT && pixels[400] == 0);
    HOLDS(mnist_gan_generate_batch(0, 2, pixels) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_generate_batch_int8(seeds, 2, 0) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_generate_rows(1, 0, 0) == MNIST_GAN_NULL && mnist_gan_generate_rows_int8(1, 0, 0) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_latent(1, 0) == MNIST_GAN_NULL && mnist_gan_draw(0, pixels) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_draw_int8(z, 0) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_png(0, png, sizeof png, &size) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_png(pixels, 0, sizeof png, &size) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_png(pixels, png, sizeof png, 0) == MNIST_GAN_NULL);
    HOLDS(mnist_gan_png(pixels, png, 10, &size) == MNIST_GAN_TOO_SMALL && size > 57 && size <= sizeof png);

    HOLDS(mnist_gan_generate_batch(seeds, 2, pixels) == MNIST_GAN_OK);
    HOLDS(mnist_gan_generate_rows(7, row, &to) == MNIST_GAN_OK && mnist_gan_latent(8, z) == MNIST_GAN_OK);
    HOLDS(mnist_gan_draw(z, other + MNIST_GAN_PIXELS) == MNIST_GAN_OK);
    for (int i = 0; i < 2 * MNIST_GAN_PIXELS; i++) HOLDS(pixels[i] == other[i]);

    HOLDS(mnist_gan_generate_batch(seeds, SIZE_MAX / MNIST_GAN_PIXELS + 1, other) == MNIST_GAN_TOO_LARGE);
    HOLDS(mnist_gan_generate_batch_int8(seeds, SIZE_MAX, other) == MNIST_GAN_TOO_LARGE);
    HOLDS(mnist_gan_generate_batch(seeds, PTRDIFF_MAX / MNIST_GAN_PIXELS + 1, other) == MNIST_GAN_TOO_LARGE);
    HOLDS(mnist_gan_png(pixels, png, SIZE_MAX, &size) == MNIST_GAN_TOO_LARGE);
    HOLDS(mnist_gan_generate_batch(seeds, 0, other) == MNIST_GAN_OK && memcmp(pixels, other, sizeof pixels) == 0);

    static uint8_t memory[3 * MNIST_GAN_PIXELS];
    uint64_t *first = (void *)(memory + 1), *last = (void *)(memory + 2 * MNIST_GAN_PIXELS - 15);
    HOLDS(mnist_gan_generate_batch((void *)memory, 2, memory) == MNIST_GAN_OVERLAP && memory[MNIST_GAN_PIXELS + 400] == 0);
    HOLDS(mnist_gan_generate_batch_int8(last, 2, memory) == MNIST_GAN_OVERLAP);
    memcpy(first, seeds, sizeof seeds); /* not aligned, and side by side */
    HOLDS(mnist_gan_generate_batch(first, 2, memory + 1 + sizeof seeds) == MNIST_GAN_OK);
    HOLDS(memcmp(memory + 1 + sizeof seeds, pixels, sizeof pixels) == 0);
    HOLDS(mnist_gan_latent(8, (void *)(memory + 1)) == MNIST_GAN_OK && memcmp(memory + 1, z, sizeof z) == 0);
    HOLDS(mnist_gan_draw((void *)(memory + 1), memory) == MNIST_GAN_OK); /* in place */
    HOLDS(memcmp(memory, pixels + MNIST_GAN_PIXELS, MNIST_GAN_PIXELS) == 0);
    HOLDS(mnist_gan_png(memory, png, sizeof png, (void *)(memory + MNIST_GAN_PIXELS + 1)) == MNIST_GAN_OK);
    HOLDS(mnist_gan_png(memory, memory, sizeof memory, &size) == MNIST_GAN_OK && memcmp(memory, png, size) == 0);

    if (setjmp(start) == 0) mnist_gan_generate_rows(7, third_row_jumps, 0);
    HOLDS(rows == 3);
    to = other;
    HOLDS(mnist_gan_generate_rows(7, row, &to) == MNIST_GAN_OK && memcmp(other, pixels, MNIST_GAN_PIXELS) == 0);
    return 0;
}

int main(void) { return check() ? check() % 256 : 0; }
