/* Plain loops, as onnx2c emits them for Gemm, LeakyRelu and Tanh. */
#include "network.h"

#include <math.h>
#include <stdint.h>

#define GEMM(A, B, C, K, N, Y)                                                                                         \
    for (uint32_t c = 0; c < N; c++) {                                                                                 \
        float sum = 0;                                                                                                 \
        for (uint32_t i = 0; i < K; i++) sum += A[i] * B[i][c];                                                        \
        Y[c] = sum + C[c];                                                                                             \
    }
#define LEAKY_RELU(Y, N)                                                                                               \
    for (uint32_t i = 0; i < N; i++) Y[i] = Y[i] > 0 ? Y[i] : Y[i] * 0.2f;

void draw(const float *z, float *out) {
    static float h1[32], h2[64], h3[128];
    GEMM(z, weights.weight1, weights.bias1, 100, 32, h1)
    LEAKY_RELU(h1, 32)
    GEMM(h1, weights.weight2, weights.bias2, 32, 64, h2)
    LEAKY_RELU(h2, 64)
    GEMM(h2, weights.weight3, weights.bias3, 64, 128, h3)
    LEAKY_RELU(h3, 128)
    GEMM(h3, weights.weight4, weights.bias4, 128, 784, out)
    for (uint32_t i = 0; i < 784; i++) out[i] = tanhf(out[i]);
}
