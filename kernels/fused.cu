// One update in eight kernels, for the configurations that are `Support::Fused` in `src/sac/cuda/support.rs`: two hidden
// layers of ReLU in every network, their widths multiples of 32. What `kernels/mlp.cu` and `kernels/loss.cu` do a layer at a
// time is joined here wherever a block can make what it needs from what it already has:
//
//   fused_forward         π(s), π(s′) and Qᵢ(s, a) up to their last hidden layers, with the batch gathered on the way
//   fused_target          ã, ã′ and Q̄ᵢ(s′, ã′)
//   fused_critic_loss     y, J_Q and its gradient
//   fused_critic_step     the critics' Adam, and their targets
//   fused_evaluate        Qᵢ(s, ã)
//   fused_action_gradient J_π and ∂J_π/∂ã
//   fused_policy_loss     its gradient over the policy
//   fused_policy_step     the policy's Adam, the temperature, the counts
//
// The first layers are thin, so each block makes the rows of h₁ anew that its tile of h₂ needs. The last ones are thinner: a
// tile of h₂ leaves its partial sum of each output, and whoever wants the output adds them. What a block makes for others
// comes from the blocks of the first columns. Products of tiles are made in f32, or with SAC_TF32 on tensor cores, by the same
// three functions. z of the grid is the agent's index; all of an agent's memory lies `agent_bytes`, a multiple of 16, after that of
// the one before it, but for `draws` and `status`, of which there is an array of all agents.
//
// Here are the arguments. `tile.cu` has tiles and their products; `fused_pass.cu` a network's forward pass over a tile of rows,
// and `fused_forward.cu` the kernels that make them; `fused_gradient.cu` a network's gradient, and `fused_loss.cu` the kernels
// that take it; `fused_step.cu` the steps.

// The most actions; shared memory has room for so many.
#define MOST_ACTIONS 32

// A network, or both critics one after the other, and what its passes leave.
struct FusedNetwork {
    float *theta, *gradient, *m, *v;  // [networks, step]; the critics' targets follow in `theta`
    float *h1, *h2;     // [networks, rows, width]; of the policy, s′ before s
    float* partial_sums;  // of each output, [networks, h2_width/32, outputs, rows]; the critics' targets follow
    float* d_first;  // partial sums of ∂L/∂W₁ and ∂L/∂b₁, [networks, batch/32, inputs + 1, h1_width]
    u32 inputs, h1_width, h2_width, outputs;
    u32 step, parameters;
};

struct Fused {
    FusedNetwork policy, critics;
    float* memory;                     // as for `gather`
    Draws* draws;                      // [agents]
    u32* rows;                         // [batch]
    float *noise, *inputs, *reward, *discount;  // as `draw` and `gather` leave them
    float *raw, *log_prob;             // [2, batch, 2·actions], [2, batch]; s′ before s
    float *q, *target, *d_q;           // [4, batch], [batch], [2, batch]
    float *d_action, *d_raw;           // [2, batch, actions], [batch, 2·actions]
    float* d_action_partial_sums;      // [2, h1_width/32, actions, batch]
    float* sums;                       // over the rows of each tile, [SUMS, batch/32]
    Alpha alpha;
    float *log_alpha, *log_alpha_gradient, *log_alpha_m, *log_alpha_v;
    Status* status;                    // [agents]
    u64 agent_bytes;
    Distribution distribution;
    u32 batch, observations, actions;
    u32 from_memory;  // whether the batch and the noise are to be drawn, or are there already
    float gamma, tau, target_entropy;
    u32 is_tuned, over_alpha;
    u32 some_rest;    // whether agents of whom nothing is stored take no part
};

// The rows of `Fused::sums`: of squared errors and of Q for each critic, of log π(ã|s), of the terms of J_π.
enum { ERROR_SUMS, Q_SUMS = 2, LOG_PROB_SUMS = 4, POLICY_SUMS, SUMS };

template <class T>
__device__ static void move(T*& pointer, u64 bytes) {
    // Not by way of a number, so that compilers see that it leads to global memory.
    pointer = (T*)((char*)pointer + bytes);
}

__device__ static void move(FusedNetwork& network, u64 bytes) {
    move(network.theta, bytes);
    move(network.gradient, bytes);
    move(network.m, bytes);
    move(network.v, bytes);
    move(network.h1, bytes);
    move(network.h2, bytes);
    move(network.partial_sums, bytes);
    move(network.d_first, bytes);
}

// The arguments of the agent that this block works for.
__device__ static Fused of_agent(const Fused& args) {
    Fused f = args;
    const u64 bytes = blockIdx.z * args.agent_bytes;
    move(f.policy, bytes);
    move(f.critics, bytes);
    move(f.memory, bytes);
    move(f.rows, bytes);
    move(f.noise, bytes);
    move(f.inputs, bytes);
    move(f.reward, bytes);
    move(f.discount, bytes);
    move(f.raw, bytes);
    move(f.log_prob, bytes);
    move(f.q, bytes);
    move(f.target, bytes);
    move(f.d_q, bytes);
    move(f.d_action, bytes);
    move(f.d_raw, bytes);
    move(f.d_action_partial_sums, bytes);
    move(f.sums, bytes);
    move(f.alpha.log_alpha, bytes);
    move(f.log_alpha, bytes);
    move(f.log_alpha_gradient, bytes);
    move(f.log_alpha_m, bytes);
    move(f.log_alpha_v, bytes);
    f.draws += blockIdx.z;
    f.status += blockIdx.z;
    return f;
}

// Whether this agent takes no part: then nothing of it may change.
__device__ static bool rests(const Fused& f) {
    return f.some_rest && f.draws->stored == 0;
}

__device__ static u32 tiles_of(u32 size) {
    return (size + TILE - 1) / TILE;
}

// Where the layers begin within a network's parameters.
__device__ static u32 second_layer(const FusedNetwork& n) {
    return (n.inputs + 1) * n.h1_width;
}

__device__ static u32 second_bias(const FusedNetwork& n) {
    return second_layer(n) + n.h1_width * n.h2_width;
}

__device__ static u32 last_layer(const FusedNetwork& n) {
    return second_bias(n) + n.h2_width;
}

__device__ static u32 last_bias(const FusedNetwork& n) {
    return last_layer(n) + n.h2_width * n.outputs;
}
