/* Writes to stdout, in f32 and then in integers: each class in the handwriting of seed 7, then the images of as many seeds, row by
 * row. Then it writes the classes' names and the SHA-256 of the weights. */
#include "runtime.h"

#if __STDC_HOSTED__
#include <stdio.h>
static void put_bytes(const void *bytes, size_t n) { fwrite(bytes, 1, n, stdout); }
#else
void put_bytes(const void *bytes, size_t n); /* the board defines it */
#endif

static void put_row(void *context, const uint8_t *pixels) {
    (void)context;
    put_bytes(pixels, MNIST_GAN_SIDE);
}

int main(void) {
    static uint8_t pixels[MNIST_GAN_PIXELS];
    const uint32_t n = mnist_gan_classes();
    for (uint32_t i = 0; i < n; i++) {
        if (mnist_gan_generate_class(7, i, pixels) != MNIST_GAN_OK) return 1;
        put_bytes(pixels, sizeof pixels);
    }
    for (uint64_t seed = 0; seed < n; seed++) mnist_gan_generate_rows(seed, put_row, 0);
    for (uint32_t i = 0; i < n; i++) {
        if (mnist_gan_generate_class_int8(7, i, pixels) != MNIST_GAN_OK) return 1;
        put_bytes(pixels, sizeof pixels);
    }
    for (uint64_t seed = 0; seed < n; seed++) mnist_gan_generate_rows_int8(seed, put_row, 0);
    for (uint32_t i = 0; i < n; i++) {
        for (const char *name = mnist_gan_class_name(i); *name; name++) put_bytes(name, 1);
    }
    for (const char *digit = mnist_gan_weights_sha256(); *digit; digit++) put_bytes(digit, 1);
    if (mnist_gan_class_name(n) || mnist_gan_generate_class(7, n, pixels) != MNIST_GAN_NO_CLASS) return 2;
    if (mnist_gan_generate_digit(7, 3, pixels) != MNIST_GAN_NO_DIGIT || !mnist_gan_conditional()) return 3;
    return mnist_gan_generate_class_int8(7, 0, 0) != MNIST_GAN_NULL;
}
