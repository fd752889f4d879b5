// The fused kernels of the steps: Adam, the targets, the temperature, and the end of an update.

// The sum of a row of `Fused::sums`, for all threads.
__device__ static float sum_of(const Fused& f, u32 which, float (&shared)[THREADS]) {
    const u32 tiles = tiles_of(f.batch);
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < tiles; i += THREADS) sum += f.sums[which * tiles + i];
    block_sum(shared, sum);
    __syncthreads();
    return shared[0];
}

// A parameter's gradient; that of the first layer is put together from its partial sums, and kept.
__device__ static float gradient_of(const FusedNetwork& n, u32 network, u32 i, u32 tiles) {
    const u64 at = (u64)network * n.step + i;
    const u32 first = second_layer(n);
    if (i >= first) return n.gradient[at];
    const float g = output_of(n.d_first + (u64)network * tiles * first + i, first, tiles, 0.0f);
    n.gradient[at] = g;
    return g;
}

// The critics' steps, and θ̄ ← θ̄ + τ(θ − θ̄), unless something has failed; y of the grid is the critic's index.
KERNEL(fused_critic_step, Fused) {
    __shared__ float shared[THREADS];
    const Fused f = of_agent(args);
    if (rests(f)) return;
    const FusedNetwork& n = f.critics;
    const float loss = (sum_of(f, ERROR_SUMS, shared) + sum_of(f, ERROR_SUMS + 1, shared)) / (float)f.batch;
    Status* status = f.status;
    const bool takes_step = !status->is_halted && isfinite(loss);
    if (blockIdx.x == 0 && blockIdx.y == 0) {
        const float q = sum_of(f, Q_SUMS, shared) + sum_of(f, Q_SUMS + 1, shared);
        const float log_prob = sum_of(f, LOG_PROB_SUMS, shared);
        if (threadIdx.x == 0 && !status->is_halted) keep_critic_loss(status, loss, q, log_prob, f.batch);
    }
    const u32 i = global_index(), critic = blockIdx.y;
    if (i >= n.parameters) return;
    const u64 at = (u64)critic * n.step + i;
    const float g = gradient_of(n, critic, i, tiles_of(f.batch));
    if (!takes_step) return;
    float m = n.m[at], v = n.v[at];
    const float theta = n.theta[at] - adam_update(g, m, v, status->step[Q1 + critic], status->inverse_root[Q1 + critic]);
    n.theta[at] = theta;
    n.m[at] = m;
    n.v[at] = v;
    float& target = n.theta[2ull * n.step + at];
    target = polyak_update(target, theta, f.tau);
    if (i == 0) status->stepped[Q1 + critic] = 1;
}

// What is left to one thread at the end of an update: the temperature's step, counts and sums.
__device__ static void finish(const Fused& f, float policy_loss, float mean_log_prob) {
    Status* status = f.status;
    if (!status->is_halted && keep_policy_loss(status, policy_loss)) {
        status->stepped[POLICY] = 1;
        if (f.is_tuned) {
            step_temperature(
                status, mean_log_prob + f.target_entropy, f.over_alpha, f.log_alpha, f.log_alpha_gradient, f.log_alpha_m,
                f.log_alpha_v
            );
        }
    }
    for (u32 i = 0; i < NETWORKS; i++) {
        if (status->stepped[i]) status->steps[i] += 1;
        status->stepped[i] = 0;
    }
    count_update(status, f.log_alpha);
}

// The policy's step, unless something has failed; then, by one block more, all that ends an update.
KERNEL(fused_policy_step, Fused) {
    __shared__ float shared[THREADS];
    const Fused f = of_agent(args);
    if (rests(f)) return;
    const FusedNetwork& n = f.policy;
    const float loss = sum_of(f, POLICY_SUMS, shared) / (float)f.batch;
    if (blockIdx.x == gridDim.x - 1) {
        const float log_prob = sum_of(f, LOG_PROB_SUMS, shared) / (float)f.batch;
        if (threadIdx.x == 0) finish(f, loss, log_prob);
        return;
    }
    const u32 i = global_index();
    if (i >= n.parameters) return;
    const float g = gradient_of(n, 0, i, tiles_of(f.batch));
    if (f.status->is_halted || !isfinite(loss)) return;
    float m = n.m[i], v = n.v[i];
    n.theta[i] -= adam_update(g, m, v, f.status->step[POLICY], f.status->inverse_root[POLICY]);
    n.m[i] = m;
    n.v[i] = v;
}
