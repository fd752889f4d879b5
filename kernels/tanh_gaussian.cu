// The tanh-Gaussian: `TanhGaussian` of `src/nn/tanh_gaussian.rs`. A thread takes a row.

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
        const Sampled sampled = sample_of(args.distribution, raw[0], raw[args.actions], noise);
        args.action[(u64)row * args.action_step + i] = sampled.action;
        sum += sampled.log_prob;
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
