/* What runtime.h says of null pointers, digits and small buffers; returns the line of what does not hold. */
#include "runtime.h"

static void row(void *context, const uint8_t *pixels) {
    uint8_t **to = context;
    for (int x = 0; x < MNIST_GAN_SIDE; x++) *(*to)++ = pixels[x];
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
    return 0;
}

int main(void) { return check() ? check() % 256 : 0; }
