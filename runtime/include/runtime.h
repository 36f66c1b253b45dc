/* Draws handwritten digits: 28 x 28 grey levels, row by row from the top, 0 black (paper) to 255 white (ink).
 *
 * - A seed names one image for ever: the same 784 bytes on every CPU, alone or in a batch.
 * - Memory is the caller's, before and after; nothing is allocated, nothing kept. The weights are constants.
 * - Threads and interrupts may call anything at any time, as long as no two write to the same memory.
 * - A null pointer is answered with MNIST_GAN_NULL, and nothing is written.
 * - Names that end in _int8 are the same network in integers: a quarter of the flash, no FPU needed, images that differ by a
 *   grey level or two. Who uses only one precision links only its weights.
 */
#ifndef MNIST_GAN_RUNTIME_H
#define MNIST_GAN_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MNIST_GAN_SIDE = 28,     /* pixels in a row, and rows */
    MNIST_GAN_PIXELS = 784,  /* bytes of an image */
    MNIST_GAN_LATENT = 100,  /* numbers of a latent z */
    MNIST_GAN_PNG_MOST = 880 /* bytes that a PNG needs at most */
};

/* What the functions return. */
enum {
    MNIST_GAN_OK = 0,
    MNIST_GAN_NULL = -1,          /* a pointer is null */
    MNIST_GAN_UNCONDITIONAL = -2, /* this generator cannot be told the digit */
    MNIST_GAN_NO_DIGIT = -3,      /* a digit from 0 to 9 expected */
    MNIST_GAN_TOO_SMALL = -4      /* the buffer is too small; the size needed is told */
};

/* The digit that a seed names, into MNIST_GAN_PIXELS bytes. */
int32_t mnist_gan_generate(uint64_t seed, uint8_t *pixels);
int32_t mnist_gan_generate_int8(uint64_t seed, uint8_t *pixels);

/* The digit asked for, 0 to 9, in the handwriting that the seed names. */
int32_t mnist_gan_generate_digit(uint64_t seed, uint8_t digit, uint8_t *pixels);
int32_t mnist_gan_generate_digit_int8(uint64_t seed, uint8_t digit, uint8_t *pixels);

/* The digits of n seeds, into n * MNIST_GAN_PIXELS bytes: the same as one by one, in less time. The memory of seeds and
 * pixels must not overlap. */
int32_t mnist_gan_generate_batch(const uint64_t *seeds, size_t n, uint8_t *pixels);
int32_t mnist_gan_generate_batch_int8(const uint64_t *seeds, size_t n, uint8_t *pixels);

/* The same digit row by row: calls row(context, pixels) 28 times, each time with MNIST_GAN_SIDE bytes that are valid until it
 * returns. This is the one for little RAM: see
 * runtime/CERTIFICATE.md. The context may be null. */
int32_t mnist_gan_generate_rows(uint64_t seed, void (*row)(void *context, const uint8_t *pixels), void *context);
int32_t mnist_gan_generate_rows_int8(uint64_t seed, void (*row)(void *context, const uint8_t *pixels), void *context);

/* The z of a seed, MNIST_GAN_LATENT numbers from -1 to 1; where the generator can be told the digit, the first ten are the
 * digit as one-hot. */
int32_t mnist_gan_latent(uint64_t seed, float *z);

/* The image of any z, brought into -1 to 1 first: for walks from one z to another. */
int32_t mnist_gan_draw(const float *z, uint8_t *pixels);
int32_t mnist_gan_draw_int8(const float *z, uint8_t *pixels);

/* An image as a PNG file, into `capacity` bytes (MNIST_GAN_PNG_MOST always suffice); its size goes to *size. */
int32_t mnist_gan_png(const uint8_t *pixels, uint8_t *file, size_t capacity, size_t *size);

/* 1 where the generator can be told the digit, else 0. */
int32_t mnist_gan_conditional(void);

/* The library's version, as "0.1.0". */
const char *mnist_gan_version(void);

#ifdef __cplusplus
}
#endif

#endif
