// The tanh-Gaussian: `TanhGaussian` of `src/nn/tanh_gaussian.rs`, whose head has the formulas. A thread takes a row.

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

struct Sample {
    const float* raw;    // raw μ and raw log σ side by side, [rows, 2·actions]
    const float* noise;  // ε, [rows, actions]
    float* action;       // [rows, actions], a row every action_step
    float* log_prob;     // [rows]
    Distribution distribution;
    u32 rows, actions, action_step;
};

// a ← tanh(μ + σε) and log π(a); mirrors `TanhGaussian::sample`.
KERNEL(sample, Sample) {
    const u32 row = global_index();
    if (row >= args.rows) return;
    float sum = 0.0f;
    for (u32 i = 0; i < args.actions; i++) {
        const float* raw = args.raw + (u64)row * 2 * args.actions + i;
        const float noise = args.noise[(u64)row * args.actions + i];
        const float log_std = log_std_of(args.distribution, raw[args.actions]);
        const float u = mean_of(args.distribution, raw[0]) + expf(log_std) * noise;
        args.action[(u64)row * args.action_step + i] = tanhf(u);
        sum += log_prob_of(noise, log_std, u);
    }
    args.log_prob[row] = sum;
}

struct SampleBackward {
    const float* raw;       // as for `sample`
    const float* noise;     // as for `sample`
    const float* d_action;  // ∂L/∂a through each critic, [2, rows, actions]; their sum is what counts
    Alpha alpha;            // ∂L/∂log π is α/rows in every row
    float* d_raw;           // ∂L/∂raw, [rows, 2·actions]
    Distribution distribution;
    u32 rows, actions;
};

// ∂L/∂raw from ∂L/∂a and ∂L/∂log π.
KERNEL(sample_backward, SampleBackward) {
    const u32 row = global_index();
    if (row >= args.rows) return;
    const float d_log_prob = alpha_of(args.alpha) / (float)args.rows;
    for (u32 i = 0; i < args.actions; i++) {
        const u64 at = (u64)row * 2 * args.actions + i, action = (u64)row * args.actions + i;
        const float d_action = args.d_action[action] + args.d_action[(u64)args.rows * args.actions + action];
        const Slopes d = slopes_of(
            args.distribution, args.raw[at], args.raw[at + args.actions], args.noise[action], d_action, d_log_prob
        );
        args.d_raw[at] = d.mean;
        args.d_raw[at + args.actions] = d.log_std;
    }
}

struct Mode {
    const float* raw;  // as for `sample`
    float* action;     // [rows, actions]
    Distribution distribution;
    u32 rows, actions;
};

// a ← tanh(μ); mirrors `TanhGaussian::mode`.
KERNEL(mode, Mode) {
    const u32 row = global_index();
    if (row >= args.rows) return;
    for (u32 i = 0; i < args.actions; i++) {
        const float mean = mean_of(args.distribution, args.raw[(u64)row * 2 * args.actions + i]);
        args.action[(u64)row * args.actions + i] = tanhf(mean);
    }
}
