/* emlearn's layers. It has no LeakyReLU, so that one is ours. */
#include <eml_net.h>

#include "network.h"

static void layer(const float *x, int inputs, const float *weight, const float *bias, EmlNetActivationFunction activation,
                  float *y, int outputs) {
    eml_net_forward(x, inputs, weight, bias, activation, y, outputs);
    if (activation == EmlNetActivationIdentity)
        for (int i = 0; i < outputs; i++) y[i] = y[i] > 0 ? y[i] : y[i] * 0.2f;
}

void draw(const float *z, float *out) {
    static float h1[32], h2[64], h3[128];
    layer(z, 100, weights.weight1[0], weights.bias1, EmlNetActivationIdentity, h1, 32);
    layer(h1, 32, weights.weight2[0], weights.bias2, EmlNetActivationIdentity, h2, 64);
    layer(h2, 64, weights.weight3[0], weights.bias3, EmlNetActivationIdentity, h3, 128);
    layer(h3, 128, weights.weight4[0], weights.bias4, EmlNetActivationTanh, out, 784);
}
