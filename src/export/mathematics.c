
/* e to the power of x. What is not a number stays so, here and below; it must not become an int. */
static float sac_exp(float x) {
    float r, power, two = 2.0f, scale = 1.0f;
    int n;
    if (x != x) return x;
    if (x > 88.0f) x = 88.0f;
    if (x < -87.0f) x = -87.0f;
    n = (int)(x * 1.44269504f + (x < 0.0f ? -0.5f : 0.5f));
    r = x - (float)n * 0.693359375f + (float)n * 2.12194440e-4f;
    power = 1.0f + r * (1.0f + r * (0.5f + r * (1.66666667e-1f + r * (4.16666667e-2f + r * (8.33333333e-3f + r * 1.38888889e-3f)))));
    if (n < 0) {
        two = 0.5f;
        n = -n;
    }
    for (; n > 0; n /= 2) {
        if (n % 2) scale *= two;
        two *= two;
    }
    return power * scale;
}

static float sac_tanh(float x) {
    float magnitude = x < 0.0f ? -x : x, t;
    if (magnitude > 9.1f) t = 1.0f;
    else t = 1.0f - 2.0f / (sac_exp(2.0f * magnitude) + 1.0f);
    return x < 0.0f ? -t : t;
}

static inline float sac_relu(float x) {
    return x < 0.0f ? 0.0f : x;
}

static float sac_clamp(float x, float low, float high) {
    return x < low ? low : x > high ? high : x;
}

/* y = W x + b with W [outputs][inputs]. */
static void sac_layer(const float *weight, const float *bias, const float *x, int inputs, float *y, int outputs) {
    int i, j;
    for (i = 0; i < outputs; i++) {
        float sum = 0.0f;
        for (j = 0; j < inputs; j++) sum += weight[i * inputs + j] * x[j];
        y[i] = sum + bias[i];
    }
}
