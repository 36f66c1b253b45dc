/* Draws handwritten digits: 28 x 28 grey levels, row by row from the top, from 0 (black, the paper) to 255 (white, the ink).
 *
 * - A seed names one image: it has the same 784 bytes on every CPU, alone or in a batch. A library with another generator draws
 *   another image, see mnist_gan_weights_sha256().
 * - The caller provides all memory. The library allocates nothing and keeps no state. The weights are constants.
 * - Every function may be called from any thread or interrupt at any time, unless two calls write to the same memory.
 * - If a pointer is null, a function returns MNIST_GAN_NULL and writes nothing.
 * - A pointer needs no alignment. The input and the output of a function may share memory, unless it says otherwise.
 * - A size that is larger than any memory, such as (size_t)-1, makes a function return MNIST_GAN_TOO_LARGE and write nothing.
 * - No function calls exit or abort, and none throws an exception.
 * - Names that end with _int8 use the same network in integers: a quarter of the flash, no FPU needed, and images that differ
 *   from f32's by 1.7 grey levels in the mean. A program links the weights of only those precisions that it calls.
 */
#ifndef MNIST_GAN_RUNTIME_H
#define MNIST_GAN_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MNIST_GAN_SIDE = 28,     /* pixels of a row, and rows of an image */
    MNIST_GAN_PIXELS = 784,  /* bytes of an image */
    MNIST_GAN_LATENT = 100,  /* numbers of a latent vector z */
    MNIST_GAN_PNG_MOST = 880 /* bytes of the longest PNG file */
};

/* Return codes. */
enum {
    MNIST_GAN_OK = 0,
    MNIST_GAN_NULL = -1,          /* a pointer is null */
    MNIST_GAN_UNCONDITIONAL = -2, /* the generator is not class-conditional, so it cannot draw a chosen class */
    MNIST_GAN_NO_DIGIT = -3,      /* the digit is above 9, or the generator has no class of this name */
    MNIST_GAN_TOO_SMALL = -4,     /* the buffer is too small; *size is the size that it needs */
    MNIST_GAN_TOO_LARGE = -5,     /* n images or capacity bytes are more than PTRDIFF_MAX bytes */
    MNIST_GAN_OVERLAP = -6,       /* seeds and pixels share memory */
    MNIST_GAN_NO_CLASS = -7       /* the generator has no class of this number */
};

/* Writes the image of a seed, MNIST_GAN_PIXELS bytes. */
int32_t mnist_gan_generate(uint64_t seed, uint8_t *pixels);
int32_t mnist_gan_generate_int8(uint64_t seed, uint8_t *pixels);

/* Writes the image of a class in the handwriting of a seed. `index` is the number of the class, 0 to mnist_gan_classes() - 1.
 * Needs a class-conditional generator. */
int32_t mnist_gan_generate_class(uint64_t seed, uint32_t index, uint8_t *pixels);
int32_t mnist_gan_generate_class_int8(uint64_t seed, uint32_t index, uint8_t *pixels);

/* Writes the image of the class whose name is a digit, 0 to 9, in the handwriting of a seed. Needs a class-conditional
 * generator that draws digits. */
int32_t mnist_gan_generate_digit(uint64_t seed, uint8_t digit, uint8_t *pixels);
int32_t mnist_gan_generate_digit_int8(uint64_t seed, uint8_t digit, uint8_t *pixels);

/* Writes the images of n seeds, n * MNIST_GAN_PIXELS bytes: the same bytes as one by one, in less time. If the memory
 * of seeds and pixels overlaps, returns MNIST_GAN_OVERLAP and writes nothing. */
int32_t mnist_gan_generate_batch(const uint64_t *seeds, size_t n, uint8_t *pixels);
int32_t mnist_gan_generate_batch_int8(const uint64_t *seeds, size_t n, uint8_t *pixels);

/* Calls row(context, pixels) for each of the 28 rows of the image of a seed, from top to bottom. The MNIST_GAN_SIDE bytes at
 * `pixels` are valid until row returns. This function needs the least memory: about 1 KB of stack, less in int8 (see
 * runtime/CERTIFICATE.md). The context may be null.
 *
 * `row` may call any function of this library. It may end the drawing with longjmp, which leaks nothing (not on Windows, where
 * longjmp unwinds). A C++ exception must not leave `row`: catch it there, because beyond it the behaviour is undefined. */
int32_t mnist_gan_generate_rows(uint64_t seed, void (*row)(void *context, const uint8_t *pixels), void *context);
int32_t mnist_gan_generate_rows_int8(uint64_t seed, void (*row)(void *context, const uint8_t *pixels), void *context);

/* Writes the z of a seed, MNIST_GAN_LATENT numbers in [-1, 1]. For a class-conditional generator the first ones, one per class,
 * are the class as one-hot. */
int32_t mnist_gan_latent(uint64_t seed, float *z);

/* Writes the image of any z, clamped to [-1, 1] first: for walks from one z to another. */
int32_t mnist_gan_draw(const float *z, uint8_t *pixels);
int32_t mnist_gan_draw_int8(const float *z, uint8_t *pixels);

/* Writes an image as a PNG file into `capacity` bytes, of which MNIST_GAN_PNG_MOST are always enough. *size becomes the size of
 * the file. */
int32_t mnist_gan_png(const uint8_t *pixels, uint8_t *file, size_t capacity, size_t *size);

/* Returns 1 if the generator is class-conditional, else 0. */
int32_t mnist_gan_conditional(void);

/* Returns the number of classes, 2 to 64; 0 if the generator is not class-conditional. */
uint32_t mnist_gan_classes(void);

/* Returns the name of a class in UTF-8, such as "7"; a null pointer if the generator has no class of this number. */
const char *mnist_gan_class_name(uint32_t index);

/* Returns the SHA-256 of the generator's f32 weights, 64 hexadecimal digits. It names the generator in either precision: libraries
 * with the same one draw the same image of a seed. `runtime inspect` prints that of a file. */
const char *mnist_gan_weights_sha256(void);

/* Returns the library's version, such as "0.1.0". */
const char *mnist_gan_version(void);

#ifdef __cplusplus
}
#endif

#endif
