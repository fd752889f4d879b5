// A step of training on Pendulum-v1 with the environment on the device: `Trainer::act`, `Pendulum` of `src/env/pendulum.rs`, what
// `Lanes` and `Replay` keep of it, and what the update after it draws from. One block; z of the grid is the agent's index, as in
// `kernels/fused.cu`, whose configurations these are. An agent that has come to the end of its stretch rests, and so does its
// update where none is due.

// The widest hidden layer.
#define WIDEST 1024
// Steps of an episode.
#define STEP_LIMIT 200
// Parts of an update, in which they are counted; mirrors `PARTS_OF_UPDATE` of `src/config.rs`.
#define PARTS 1000000ull

// Where a run stands between two steps.
struct PendulumState {
    double angle, velocity;  // from upright
    double total_reward;     // of the episode so far
    double last_return;      // of the episode before it
    u64 steps, end;          // of the run, and how many there are to be before the host looks again
    u64 pushed;              // transitions that the memory has ever got
    u64 updates;             // made so far, or begun
    u64 episode;             // its number
    u64 length;              // its steps so far
    float observation[3];    // to act upon
    float unused;
    float rewards[STEP_LIMIT];  // of the steps of the episode, and of those that are left of the one before it
};

struct PendulumStep {
    Fused fused;
    PendulumState* pendulum;  // [agents]
    u64 random_steps, random_hold, capacity, first_update;
    u32 parts;  // updates to a step, in parts of one
    float reward_scale;
};

// Whether an update follows the step that makes so many; mirrors `Config::updates_after`.
__device__ static bool learns(const PendulumStep& args, u64 steps) {
    if (steps < args.first_update) return false;
    // After so many steps the parts are whole again.
    const u64 before = (steps - args.first_update) % PARTS * args.parts;
    return (before + args.parts + PARTS - 1) / PARTS > (before + PARTS - 1) / PARTS;
}

// Uniform in [0, 1), of a word or of two; as `rand` makes them.
__device__ static float uniform(u32 word) {
    return (float)(word >> 9) * 0x1p-23f;
}

__device__ static double uniform(u32 low, u32 high) {
    return (double)(((u64)high << 32 | low) >> 12) * 0x1p-52;
}

#define PI 3.141592653589793

// What is seen of it. cos and sin are those of half turns, because those of radians keep numbers in slow memory.
__device__ static void observe(PendulumState& p) {
    const double half_turns = p.angle * 0.3183098861837907;
    p.observation[0] = (float)cospi(half_turns);
    p.observation[1] = (float)sinpi(half_turns);
    p.observation[2] = (float)p.velocity;
}

// Begins the episode of this number.
__device__ static void begin_episode(PendulumState& p, u64 seed, u64 number) {
    const Words of_episode = philox(seed, 0, number, ENVIRONMENT_STREAM);
    const Words random = philox((u64)of_episode.word[1] << 32 | of_episode.word[0], 0, 0, ENVIRONMENT_STREAM);
    p.angle = uniform(random.word[0], random.word[1]) * (2.0 * PI) - PI;
    p.velocity = uniform(random.word[2], random.word[3]) * 2.0 - 1.0;
    p.total_reward = 0.0;
    p.episode = number;
    p.length = 0;
    observe(p);
}

// A step of the pendulum with an action in [−1, 1]; its reward.
__device__ static double swing(PendulumState& p, float action) {
    const float scaled = -2.0f + 2.0f * (action + 1.0f);
    const double torque = scaled < -2.0f ? -2.0f : scaled > 2.0f ? 2.0f : scaled;
    const double wrapped = p.angle - 2.0 * PI * floor((p.angle + PI) * (0.5 / PI));
    const double cost = wrapped * wrapped + 0.1 * (p.velocity * p.velocity) + 0.001 * (torque * torque);
    const double velocity = p.velocity + (15.0 * sinpi(p.angle * 0.3183098861837907) + 3.0 * torque) * 0.05;
    p.velocity = velocity < -8.0 ? -8.0 : velocity > 8.0 ? 8.0 : velocity;
    p.angle += p.velocity * 0.05;
    observe(p);
    return -cost;
}

// The policy's raw μ and log σ for an observation; thread 0 gets them.
__device__ static void raw_outputs(
    const FusedNetwork& n, const float* observation, float* h1, float* shared, float& raw_mean, float& raw_log_std
) {
    const float* theta = n.theta;
    for (u32 j = threadIdx.x; j < n.h1_width; j += THREADS) {
        float sum = theta[n.inputs * n.h1_width + j];
        for (u32 i = 0; i < n.inputs; i++) sum += observation[i] * theta[i * n.h1_width + j];
        h1[j] = relu(sum);
    }
    __syncthreads();
    const float *second = theta + second_layer(n), *last = theta + last_layer(n);
    float mean = 0.0f, log_std = 0.0f;
    for (u32 j = threadIdx.x; j < n.h2_width; j += THREADS) {
        float sum = theta[second_bias(n) + j];
#pragma unroll 16
        for (u32 i = 0; i < n.h1_width; i++) sum += h1[i] * second[i * n.h2_width + j];
        const float h2 = relu(sum);
        mean += h2 * last[2 * j];
        log_std += h2 * last[2 * j + 1];
    }
    raw_mean = block_sum(shared, mean) + theta[last_bias(n)];
    raw_log_std = block_sum(shared, log_std) + theta[last_bias(n) + 1];
}

// One step: the action, uniformly at random at first and then the policy's, what comes of it, and what the update after it is
// to draw from. Nothing is done once something has failed, or the end is reached.
KERNEL(pendulum_step, PendulumStep) {
    __shared__ float h1[WIDEST];
    __shared__ float shared[THREADS];
    const Fused f = of_agent(args.fused);
    PendulumState& p = args.pendulum[blockIdx.z];
    const u64 step = p.steps, seed = f.draws->seed;
    const bool is_random = step < args.random_steps, rests = step == p.end || f.status->failure != NO_FAILURE;
    // All have read before any writes.
    __syncthreads();
    if (threadIdx.x == 0) f.draws->stored = 0;
    if (rests) return;
    float raw_mean = 0.0f, raw_log_std = 0.0f;
    if (!is_random) raw_outputs(f.policy, p.observation, h1, shared, raw_mean, raw_log_std);
    if (threadIdx.x > 0) return;
    const Words random = philox(seed, 0, is_random ? step - step % args.random_hold : step, ACTION_STREAM);
    const float action = is_random ? uniform(random.word[0]) * 2.0f - 1.0f
                                   : sample_of(f.distribution, raw_mean, raw_log_std, normal(random, 0)).action;
    if (!finite(f.status, ACTION, action)) return;

    float* transition = f.memory + p.pushed % args.capacity * 9;
    for (u32 i = 0; i < 3; i++) transition[i] = p.observation[i];
    const double reward = swing(p, action);
    transition[3] = action;
    transition[4] = args.reward_scale * (float)reward;
    transition[5] = 1.0f;
    for (u32 i = 0; i < 3; i++) transition[6 + i] = p.observation[i];
    p.rewards[p.length] = (float)reward;
    p.total_reward += reward;
    p.length += 1;
    p.steps += 1;
    p.pushed += 1;
    if (p.length == STEP_LIMIT) {
        p.last_return = p.total_reward;
        begin_episode(p, seed, p.episode + 1);
    }
    if (!learns(args, p.steps)) return;
    f.draws->update = p.updates;
    f.draws->stored = p.pushed < args.capacity ? p.pushed : args.capacity;
    p.updates += 1;
}
