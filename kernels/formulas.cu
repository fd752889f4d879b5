// The formulas of an update, each in one place: the kernels that go layer by layer and the fused ones call them. They know of
// numbers alone; which rows, and where they lie, is the kernels' own.

// ── Activations ────────────────────────────────────────────────────────────────────────────────────────────────────────────

enum { NO_ACTIVATION, RELU, TANH };

// relu x; a comparison, unlike a maximum, lets NaN through.
__device__ static float relu(float x) {
    return x < 0.0f ? 0.0f : x;
}

// ∂L/∂x from ∂L/∂h, where h = relu x.
__device__ static float relu_backward(float d_h, float h) {
    return h > 0.0f ? d_h : 0.0f;
}

// φ(x)
__device__ static float activate(u32 activation, float x) {
    if (activation == RELU) x = relu(x);
    if (activation == TANH) x = tanhf(x);
    return x;
}

// ∂L/∂x from ∂L/∂h, where h = φ(x).
__device__ static float activate_backward(u32 activation, float d_h, float h) {
    if (activation == RELU) d_h = relu_backward(d_h, h);
    if (activation == TANH) d_h *= 1.0f - h * h;
    return d_h;
}

// ── Losses ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// The smaller one; NaN if either is; mirrors `min`.
__device__ static float smaller(float a, float b) {
    return a < b || isnan(a) ? a : b;
}

// minᵢ Qᵢ(s, ã) − α log π(ã|s), what a state is worth.
__device__ static float soft_value(float q1, float q2, float alpha, float log_prob) {
    return smaller(q1, q2) - alpha * log_prob;
}

// y = r + γ(1 − d)·V(s′)
__device__ static float target_of(float reward, float discount, float next_value) {
    return reward + discount * next_value;
}

// ∂L/∂x of L = mean (x − y)², from a row's error x − y.
__device__ static float mean_square_slope(float error, u32 rows) {
    return 2.0f * error / (float)rows;
}

// What a row adds to J_π = mean (α log π(ã|s) − minᵢ Qᵢ(s, ã)).
__device__ static float policy_loss_of(float q1, float q2, float alpha, float log_prob) {
    return alpha * log_prob - smaller(q1, q2);
}

// ∂J_π/∂Q of critic 0 or 1: only the one that is the minimum passes a gradient on.
__device__ static float policy_loss_slope(u32 critic, float q1, float q2, u32 rows) {
    return (q1 <= q2) == (critic == 0) ? -1.0f / (float)rows : 0.0f;
}

// ── The tanh-Gaussian, whose formulas stand in the head of `src/nn/tanh_gaussian.rs` ───────────────────────────────────────

enum { RAW_MEAN, TANH_MEAN };
enum { CLAMPED_LOG_STD, TANH_LOG_STD };

struct Distribution {
    u32 mean, log_std;
    float log_std_min, log_std_max;
};

// log(1 + eˣ), without overflow for any x; mirrors `softplus`.
__device__ static float softplus(float x) {
    return log1pf(expf(-fabsf(x))) + (x < 0.0f ? 0.0f : x);
}

// 1 − tanh²u, to full precision where tanh u rounds to ±1; mirrors `one_minus_tanh_squared`.
__device__ static float one_minus_tanh_squared(float u) {
    const float z = expf(-2.0f * fabsf(u)), one_plus_z = 1.0f + z;
    return 4.0f * z / (one_plus_z * one_plus_z);
}

// μ and log σ of raw outputs, and their slopes; mirror `Mean` and `LogStd`.
__device__ static float mean_of(const Distribution& d, float raw) {
    return d.mean == TANH_MEAN ? tanhf(raw) : raw;
}

__device__ static float mean_slope(const Distribution& d, float raw) {
    return d.mean == TANH_MEAN ? one_minus_tanh_squared(raw) : 1.0f;
}

__device__ static float log_std_of(const Distribution& d, float raw) {
    if (d.log_std == TANH_LOG_STD) {
        return d.log_std_min + 0.5f * (d.log_std_max - d.log_std_min) * (tanhf(raw) + 1.0f);
    }
    return raw < d.log_std_min ? d.log_std_min : raw > d.log_std_max ? d.log_std_max : raw;
}

__device__ static float log_std_slope(const Distribution& d, float raw) {
    if (d.log_std == TANH_LOG_STD) return 0.5f * (d.log_std_max - d.log_std_min) * one_minus_tanh_squared(raw);
    return raw < d.log_std_min || raw > d.log_std_max ? 0.0f : 1.0f;
}

// What a dimension adds to log π(tanh u), where u = μ + σε.
__device__ static float log_prob_of(float noise, float log_std, float u) {
    const float gaussian = -0.5f * noise * noise - log_std - 0.918938533204672742f;         // ½ log 2π
    return gaussian - 2.0f * (0.693147180559945309f - u - softplus(-2.0f * u));  // log 2
}

// a = tanh u of a dimension, and what it adds to log π(a).
struct Sampled {
    float action, log_prob;
};

// They follow from ε, where u = μ + σε; mirrors `TanhGaussian::sample`.
__device__ static Sampled sample_of(const Distribution& d, float raw_mean, float raw_log_std, float noise) {
    const float log_std = log_std_of(d, raw_log_std);
    const float u = mean_of(d, raw_mean) + expf(log_std) * noise;
    const Sampled sampled = {tanhf(u), log_prob_of(noise, log_std, u)};
    return sampled;
}

// ∂L/∂(raw μ) and ∂L/∂(raw log σ) of a dimension.
struct Slopes {
    float mean, log_std;
};

// They follow from ∂L/∂a and ∂L/∂log π; mirrors `TanhGaussian::sample_backward`.
__device__ static Slopes slopes_of(
    const Distribution& d, float raw_mean, float raw_log_std, float noise, float d_action, float d_log_prob
) {
    const float scaled_noise = expf(log_std_of(d, raw_log_std)) * noise;
    const float u = mean_of(d, raw_mean) + scaled_noise;
    const float d_u = d_action * one_minus_tanh_squared(u) + d_log_prob * 2.0f * tanhf(u);
    const Slopes slopes = {
        d_u * mean_slope(d, raw_mean), (d_u * scaled_noise - d_log_prob) * log_std_slope(d, raw_log_std)
    };
    return slopes;
}

// ── Steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// mₜ and vₜ, and what θ loses; mirrors `step_chunk`, which rounds less often, and multiplies by a reciprocal where this
// divides.
__device__ static float adam_update(float g, float& m, float& v, float step, float inverse_root) {
    // So small a moment moves no parameter, and is let go as on the CPU: f32's smallest normal number over its epsilon.
    const float smallest = 1.17549435e-38f / 1.1920929e-7f;
    const float m_new = m + (1.0f - 0.9f) * (g - m);
    const float v_new = 0.999f * v + (1.0f - 0.999f) * (g * g);
    m = fabsf(m_new) < smallest ? 0.0f : m_new;
    v = v_new < smallest ? 0.0f : v_new;
    return step * m / (sqrtf(v) * inverse_root + 1e-8f);
}

// θ̄ + τ(θ − θ̄)
__device__ static float polyak_update(float target, float online, float tau) {
    return target + tau * (online - target);
}
