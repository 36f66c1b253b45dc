/* Writes to stdout: the images of seeds 0 to 15 in both precisions, a 7 in the handwriting of seed 42, and that 7 as a PNG file.
 *
 *   cargo rustc --release -p runtime --lib --no-default-features --features capi,std --crate-type staticlib
 *   cc -I runtime/include runtime/examples/digit.c target/release/libruntime.a -lm -lpthread -ldl -o digit
 */
#include "runtime.h"

#if __STDC_HOSTED__
#include <stdio.h>
static void put_bytes(const void *bytes, size_t n) { fwrite(bytes, 1, n, stdout); }
#else
void put_bytes(const void *bytes, size_t n); /* the board defines it */
#endif

int main(void) {
    static uint8_t pixels[MNIST_GAN_PIXELS], png[MNIST_GAN_PNG_MOST];
    size_t size;
    for (uint64_t seed = 0; seed < 16; seed++) {
        if (mnist_gan_generate(seed, pixels) != MNIST_GAN_OK) return 1;
        put_bytes(pixels, sizeof pixels);
        if (mnist_gan_generate_int8(seed, pixels) != MNIST_GAN_OK) return 1;
        put_bytes(pixels, sizeof pixels);
    }
    if (mnist_gan_generate_digit(42, 7, pixels) != MNIST_GAN_OK) return 1;
    put_bytes(pixels, sizeof pixels);
    if (mnist_gan_png(pixels, png, sizeof png, &size) != MNIST_GAN_OK) return 1;
    put_bytes(png, size);
    return 0;
}
