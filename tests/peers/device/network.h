/* The weights as the runtime holds them: each layer's weight (in, out), then its bias (out). */
extern const struct {
    float weight1[100][32], bias1[32];
    float weight2[32][64], bias2[64];
    float weight3[64][128], bias3[128];
    float weight4[128][784], bias4[784];
} weights;

/* (100,) → tanh outputs (784,) */
void draw(const float *z, float *out);
