// The fused kernels of the losses, J_Q and J_π, and their heads; `kernels/loss.cu` has the same losses layer by layer.

// The sum over the rows of a tile of what each thread of the first TILE has put into `values`; thread 0 keeps it.
__device__ static void keep_sum(const float* values, u32 count, float* to) {
    __syncthreads();
    if (threadIdx.x > 0) return;
    float sum = 0.0f;
    for (u32 i = 0; i < count; i++) sum += values[i];
    *to = sum;
}

// Q of a network of `critics` (or of their targets) in a row of the batch, from its partial sums.
__device__ static float critic_output(const Fused& f, u32 network, u32 row) {
    const FusedNetwork& n = f.critics;
    const u32 many = n.h2_width / TILE;
    const float bias = n.theta[(u64)network * n.step + last_bias(n)];
    return output_of(n.partial_sums + (u64)network * many * f.batch + row, f.batch, many, bias);
}

// ∂J_Q/∂Qᵢ(s, a) of a tile of rows; as `critic_loss` has it.
struct CriticHead {
    const Fused& f;
    u32 critic;

    __device__ void operator()(BackwardShared& shared, u32 first, bool keep) const {
        const u32 lane = threadIdx.x % TILE, group = threadIdx.x / TILE, count = rows_left(f, first);
        if (group < 3) {
            shared.c[group][lane] = lane < count ? critic_output(f, group == 0 ? critic : group + 1, first + lane) : 0.0f;
        }
        __syncthreads();
        if (threadIdx.x < TILE) {
            const u32 row = first + lane, b = f.batch;
            float d = 0.0f;
            if (lane < count) {
                const float q = shared.c[0][lane], target1 = shared.c[1][lane], target2 = shared.c[2][lane];
                const float next_value = soft_value(target1, target2, alpha_of(f.alpha), f.log_prob[row]);
                const float y = target_of(f.reward[row], f.discount[row], next_value), error = q - y;
                d = mean_square_slope(error, b);
                if (keep) {
                    f.q[critic * b + row] = q;
                    f.q[(2 + critic) * b + row] = shared.c[1 + critic][lane];
                    f.d_q[critic * b + row] = d;
                    if (critic == 0) f.target[row] = y;
                    shared.c[3][lane] = error * error;
                }
            }
            shared.d_output[0][lane] = d;
        }
        if (!keep) return;
        const u32 tiles = tiles_of(f.batch);
        keep_sum(shared.c[3], count, f.sums + (ERROR_SUMS + critic) * tiles + first / TILE);
        keep_sum(shared.c[0], count, f.sums + (Q_SUMS + critic) * tiles + first / TILE);
    }
};

// J_Q's gradient over both critics, those of the second after those of the first.
KERNEL(fused_critic_loss, Fused) {
    __shared__ BackwardShared shared;
    const Fused f = of_agent(args);
    if (rests(f)) return;
    const FusedNetwork& n = f.critics;
    const u32 critic = blockIdx.y, inputs = n.inputs;
    const u64 rows = (u64)critic * f.batch;
    const BackwardPass pass = {
        n, n.theta + (u64)critic * n.step, n.h1 + rows * n.h1_width, n.h2 + rows * n.h2_width, f.inputs, inputs,
        n.gradient + (u64)critic * n.step, n.d_first + (u64)critic * tiles_of(f.batch) * second_layer(n),
    };
    const CriticHead head = {f, critic};
    network_gradient(shared, f, pass, head, blockIdx.x);
}

// ∂J_π/∂Qᵢ(s, ã) of a tile of rows; as `policy_loss` has it.
struct ActionHead {
    const Fused& f;
    u32 critic;

    __device__ void operator()(BackwardShared& shared, u32 first, bool keep) const {
        const u32 lane = threadIdx.x % TILE, group = threadIdx.x / TILE, count = rows_left(f, first);
        if (group < 2) shared.c[group][lane] = lane < count ? critic_output(f, group, first + lane) : 0.0f;
        __syncthreads();
        if (threadIdx.x < TILE) {
            const u32 row = first + lane, b = f.batch;
            const float q1 = shared.c[0][lane], q2 = shared.c[1][lane];
            const float d = lane < count ? policy_loss_slope(critic, q1, q2, b) : 0.0f;
            shared.d_output[0][lane] = d;
            if (keep && lane < count) {
                f.q[critic * b + row] = critic == 0 ? q1 : q2;
                f.d_q[critic * b + row] = d;
                shared.c[2][lane] = policy_loss_of(q1, q2, alpha_of(f.alpha), f.log_prob[b + row]);
            }
        }
        if (keep && critic == 0) keep_sum(shared.c[2], count, f.sums + POLICY_SUMS * tiles_of(f.batch) + first / TILE);
    }
};

// ∂J_π/∂ã through each critic, up to the partial sums of the tiles of δ₁.
KERNEL(fused_action_gradient, Fused) {
    __shared__ BackwardShared shared;
    const Fused f = of_agent(args);
    if (rests(f)) return;
    const FusedNetwork& n = f.critics;
    const u32 critic = blockIdx.y, a = f.actions, columns = n.h1_width / TILE;
    const u32 row = blockIdx.x / columns * TILE, column = blockIdx.x % columns * TILE;
    const u64 rows = (u64)critic * f.batch;
    const BackwardPass pass = {
        n, n.theta + (u64)critic * n.step, n.h1 + rows * n.h1_width, n.h2 + rows * n.h2_width, f.inputs, n.inputs, nullptr,
        nullptr,
    };
    const ActionHead head = {f, critic};
    first_delta(shared, f, pass, head, row, column, column == 0);
    const float* weight = pass.theta + (u64)f.observations * n.h1_width + column;
    float* partial_sums = f.d_action_partial_sums + ((u64)critic * columns + column / TILE) * a * f.batch;
    for (u32 e = threadIdx.x; e < TILE * a; e += THREADS) {
        const u32 i = e % TILE, action = e / TILE;
        float sum = 0.0f;
#pragma unroll 8
        for (u32 j = 0; j < TILE; j++) sum += shared.c[i][j] * weight[action * n.h1_width + j];
        if (row + i < f.batch) partial_sums[(u64)action * f.batch + row + i] = sum;
    }
}

// ∂J_π/∂(raw μ and raw log σ) of a tile of rows; as `sample_backward` has it.
struct PolicyHead {
    const Fused& f;

    __device__ void operator()(BackwardShared& shared, u32 first, bool keep) const {
        const u32 a = f.actions, b = f.batch, count = rows_left(f, first), many = f.critics.h1_width / TILE;
        const float d_log_prob = alpha_of(f.alpha) / (float)b;
        for (u32 e = threadIdx.x; e < TILE * a; e += THREADS) {
            const u32 lane = e % TILE, i = e / TILE, row = first + lane;
            Slopes d = {0.0f, 0.0f};
            if (lane < count) {
                const float* partial_sums = f.d_action_partial_sums + (u64)i * b + row;
                const float d1 = output_of(partial_sums, (u64)a * b, many, 0.0f);
                const float d2 = output_of(partial_sums + (u64)many * a * b, (u64)a * b, many, 0.0f);
                const float* raw = f.raw + ((u64)b + row) * 2 * a + i;
                d = slopes_of(f.distribution, raw[0], raw[a], f.noise[((u64)b + row) * a + i], d1 + d2, d_log_prob);
                if (keep) {
                    f.d_action[(u64)row * a + i] = d1;
                    f.d_action[(u64)(b + row) * a + i] = d2;
                    f.d_raw[(u64)row * 2 * a + i] = d.mean;
                    f.d_raw[(u64)row * 2 * a + a + i] = d.log_std;
                }
            }
            shared.d_output[i][lane] = d.mean;
            shared.d_output[a + i][lane] = d.log_std;
        }
    }
};

// J_π's gradient over the policy; and, by one thread, whether its step is to be taken.
KERNEL(fused_policy_loss, Fused) {
    __shared__ BackwardShared shared;
    const Fused f = of_agent(args);
    if (rests(f)) return;
    const FusedNetwork& n = f.policy;
    if (blockIdx.x == 0 && threadIdx.x == 0) f.status->is_halted = f.status->failure != NO_FAILURE;
    const u64 rows = f.batch;
    const BackwardPass pass = {
        n, n.theta, n.h1 + rows * n.h1_width, n.h2 + rows * n.h2_width, f.inputs, f.observations + f.actions, n.gradient,
        n.d_first,
    };
    const PolicyHead head = {f};
    network_gradient(shared, f, pass, head, blockIdx.x);
}
