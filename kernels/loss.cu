// The losses and what each leaves for the backward pass: the functions of the same names in `src/sac/cpu/mod.rs`. Each is one
// block, in which a thread takes every THREADS-th row.

// Says whether `value` is finite, and remembers the first that is not; mirrors `finite`.
__device__ static bool finite(Status* status, u64 quantity, float value) {
    if (isfinite(value)) return true;
    status->failure = quantity;
    status->failure_update = status->updates + 1;
    return false;
}

// Keeps what an update has seen of the critics, unless J_Q is not finite: J_Q, and the sums over the rows of Q₁ and Q₂ together
// and of log π(ã|s).
__device__ static void keep_critic_loss(Status* status, float loss, float q_sum, float log_prob_sum, u32 rows) {
    if (!finite(status, CRITIC_LOSS, loss)) return;
    status->this_critic_loss = loss;
    status->this_q = q_sum / (2.0f * (float)rows);
    status->this_entropy = -log_prob_sum / (float)rows;
}

// Adds J_π up and returns whether it is finite.
__device__ static bool keep_policy_loss(Status* status, float loss) {
    if (!finite(status, POLICY_LOSS, loss)) return false;
    status->policy_loss += loss;
    status->policy_updates += 1;
    return true;
}

struct CriticLoss {
    const float* q;         // Q₁(s, a), Q₂(s, a), [2, rows]
    const float* target_q;  // Q̄₁(s′, ã′), Q̄₂(s′, ã′), [2, rows]
    const float* value;     // or, instead, V̄(s′), [rows]
    const float* next_log_prob;  // log π(ã′|s′), [rows]
    const float* log_prob;       // log π(ã|s), [rows]
    const float *reward, *discount;
    Alpha alpha;
    float* target;  // y, [rows]
    float* d_q;     // ∂J_Q/∂Q, [2, rows]
    Status* status;
    u32 rows, has_value;
};

// J_Q = Σᵢ mean (Qᵢ(s, a) − y)², y = r + γ(1 − d)·(minᵢ Q̄ᵢ(s′, ã′) − α log π(ã′|s′)) or r + γ(1 − d)·V̄(s′); mirrors
// `CpuLearner::critic_loss` between its forward and its backward passes.
KERNEL(critic_loss, CriticLoss) {
    __shared__ float shared[THREADS];
    const float alpha = alpha_of(args.alpha);
    float loss = 0.0f, q_sum = 0.0f, log_prob_sum = 0.0f;
    for (u32 row = threadIdx.x; row < args.rows; row += THREADS) {
        const float next_value = args.has_value
            ? args.value[row]
            : soft_value(args.target_q[row], args.target_q[args.rows + row], alpha, args.next_log_prob[row]);
        const float y = target_of(args.reward[row], args.discount[row], next_value);
        args.target[row] = y;
        for (u32 i = 0; i < 2; i++) {
            const float q = args.q[i * args.rows + row], error = q - y;
            loss += error * error;
            q_sum += q;
            args.d_q[i * args.rows + row] = mean_square_slope(error, args.rows);
        }
        log_prob_sum += args.log_prob[row];
    }
    loss = block_sum(shared, loss);
    q_sum = block_sum(shared, q_sum);
    log_prob_sum = block_sum(shared, log_prob_sum);
    if (threadIdx.x > 0 || args.status->failure != NO_FAILURE) return;
    keep_critic_loss(args.status, loss / (float)args.rows, q_sum, log_prob_sum, args.rows);
}

struct ValueLoss {
    const float* v;         // V(s), [rows]
    const float* q;         // Q₁(s, ã), Q₂(s, ã), [2, rows]
    const float* log_prob;  // log π(ã|s), [rows]
    Alpha alpha;
    float* d_v;  // ∂J_V/∂V, [rows]
    Status* status;
    u32 rows;
};

// J_V = mean (V(s) − (minᵢ Qᵢ(s, ã) − α log π(ã|s)))²; mirrors `CpuLearner::value_loss`.
KERNEL(value_loss, ValueLoss) {
    __shared__ float shared[THREADS];
    const float alpha = alpha_of(args.alpha);
    float loss = 0.0f;
    for (u32 row = threadIdx.x; row < args.rows; row += THREADS) {
        const float error = args.v[row] - soft_value(args.q[row], args.q[args.rows + row], alpha, args.log_prob[row]);
        loss += error * error;
        args.d_v[row] = mean_square_slope(error, args.rows);
    }
    loss = block_sum(shared, loss) / (float)args.rows;
    if (threadIdx.x > 0 || args.status->failure != NO_FAILURE) return;
    if (finite(args.status, VALUE_LOSS, loss)) args.status->value_loss += loss;
}

struct PolicyLoss {
    const float* q;         // Q₁(s, ã), Q₂(s, ã), [2, rows]
    const float* log_prob;  // log π(ã|s), [rows]
    Alpha alpha;
    float* d_q;  // ∂J_π/∂Q, [2, rows]
    Status* status;
    u32 rows;
};

// J_π and ∂J_π/∂Q; mirrors `CpuLearner::policy_loss` up to its backward passes.
KERNEL(policy_loss, PolicyLoss) {
    __shared__ float shared[THREADS];
    const float alpha = alpha_of(args.alpha);
    float loss = 0.0f;
    for (u32 row = threadIdx.x; row < args.rows; row += THREADS) {
        const float q1 = args.q[row], q2 = args.q[args.rows + row];
        loss += policy_loss_of(q1, q2, alpha, args.log_prob[row]);
        for (u32 i = 0; i < 2; i++) args.d_q[i * args.rows + row] = policy_loss_slope(i, q1, q2, args.rows);
    }
    loss = block_sum(shared, loss) / (float)args.rows;
    if (threadIdx.x > 0 || args.status->failure != NO_FAILURE) return;
    keep_policy_loss(args.status, loss);
}

// J_α and Adam's step for a mean of log π(ã|s) + H̄, unless the loss is not finite.
__device__ static void step_temperature(
    Status* status, float gap, u32 over_alpha, float* log_alpha, float* gradient, float* m, float* v
) {
    const float old = log_alpha[0];
    const float factor = over_alpha ? expf(old) : old, slope = over_alpha ? expf(old) : 1.0f;
    if (!finite(status, TEMPERATURE_LOSS, -factor * gap)) return;
    const float g = -slope * gap;
    gradient[0] = g;
    log_alpha[0] = old - adam_update(g, m[0], v[0], status->step[LOG_ALPHA], status->inverse_root[LOG_ALPHA]);
    status->stepped[LOG_ALPHA] = 1;
    status->temperature_loss += -factor * gap;
}

struct TemperatureStep {
    const float* log_prob;                      // log π(ã|s), [rows]
    float *log_alpha, *gradient, *m, *v;        // [1]
    Status* status;
    u32 rows;
    float target_entropy;
    u32 over_alpha;  // whether the loss is −α·(…) and not −log α·(…)
};

// J_α = −log α · mean (log π(ã|s) + H̄), or −α · the same, and Adam's step; mirrors `CpuLearner::temperature_step`.
KERNEL(temperature_step, TemperatureStep) {
    __shared__ float shared[THREADS];
    float sum = 0.0f;
    for (u32 row = threadIdx.x; row < args.rows; row += THREADS) sum += args.log_prob[row];
    const float gap = block_sum(shared, sum) / (float)args.rows + args.target_entropy;
    if (threadIdx.x > 0 || args.status->failure != NO_FAILURE) return;
    step_temperature(args.status, gap, args.over_alpha, args.log_alpha, args.gradient, args.m, args.v);
}

// What the next step takes; mirrors `Adam::factors`.
__device__ static void prepare_step(Status* status, u32 network) {
    const double t = (double)(status->steps[network] + 1);
    status->step[network] = (float)(status->learning_rate[network] / (1.0 - pow(0.9, t)));
    status->inverse_root[network] = (float)(1.0 / sqrt(1.0 - pow(0.999, t)));
}

struct PrepareSteps {
    Status* status;
    const float* log_alpha;
};

// Makes a status whole of which only counts and sums are known. A thread takes a network.
KERNEL(prepare_steps, PrepareSteps) {
    if (threadIdx.x < NETWORKS) prepare_step(args.status, threadIdx.x);
    if (threadIdx.x == 0) args.status->log_alpha = args.log_alpha[0];
}

// Counts an update that has not failed, and adds up what it has seen.
__device__ static void count_update(Status* status, const float* log_alpha) {
    status->log_alpha = log_alpha[0];
    if (status->failure != NO_FAILURE) return;
    status->updates += 1;
    status->critic_loss += status->this_critic_loss;
    status->q += status->this_q;
    status->entropy += status->this_entropy;
}

struct FinishUpdate {
    Status* status;
    const float* log_alpha;
};

// Counts the steps and the update, and adds up what it has seen; mirrors the end of `CpuLearner::update`. A thread takes a
// network.
KERNEL(finish_update, FinishUpdate) {
    Status* status = args.status;
    const u32 i = threadIdx.x;
    if (i < NETWORKS && status->stepped[i]) {
        status->stepped[i] = 0;
        status->steps[i] += 1;
        prepare_step(status, i);
    }
    if (i == 0) count_update(status, args.log_alpha);
}
