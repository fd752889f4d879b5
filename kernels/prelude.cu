// What all kernels share. The files are compiled as one, in the order that `src/gpu/kernels.rs` gives them, without any
// header, for a GPU by NVRTC and for tests without one by a C++ compiler (`tests/host/shim.cpp`).
//
// Every kernel takes one struct of arguments, which `src/gpu/kernels.rs` repeats field by field, and runs in blocks of
// THREADS threads. No sum is made by atomic additions: the same inputs give the same bits.

typedef unsigned int u32;
typedef unsigned long long u64;

#define THREADS 128

// Rows and columns of the tiles that a block makes of a product.
#define TILE 32

// Four blocks to a multiprocessor: no kernel needs more registers than that leaves it, and without a number compilers may put some
// aside to make room for more.
#ifndef KERNEL
#define KERNEL(name, Arguments) extern "C" __global__ void __launch_bounds__(THREADS, 4) name(const Arguments args)
#endif

// The networks that take steps, in the order of `Status::steps`.
enum { POLICY, Q1, Q2, VALUE, LOG_ALPHA, NETWORKS };

// What an update can fail by, in the order of `QUANTITIES` in `src/sac/cuda/mod.rs`.
enum { NO_FAILURE, CRITIC_LOSS, VALUE_LOSS, POLICY_LOSS, TEMPERATURE_LOSS, ACTION };

// What a learner remembers besides vectors; mirrors `Metrics` in `src/sac/mod.rs` and `Adam` in `src/nn/adam.rs`.
struct Status {
    u64 updates;
    u64 policy_updates;
    u64 failure;         // the first quantity that was not finite; nothing takes a step any more
    u64 failure_update;  // and the update, counted from 1, that met it
    // Sums over all updates.
    double critic_loss, value_loss, policy_loss, temperature_loss, q, entropy;
    // Those of this update, until it is known to be whole.
    double this_critic_loss, this_q, this_entropy;
    u64 steps[NETWORKS];    // t, the number of Adam's steps taken
    u64 stepped[NETWORKS];  // whether a step was taken in this update
    u64 is_halted;          // whether something had failed before the steps of a fused update
    double log_alpha;
    double learning_rate[NETWORKS];
    // Of the next step: lr/(1 − β₁ᵗ) and 1/√(1 − β₂ᵗ).
    float step[NETWORKS];
    float inverse_root[NETWORKS];
};

// α: exp(log α), or a fixed one.
struct Alpha {
    const float* log_alpha;
    float fixed;
    u32 is_fixed;
};

__device__ static float alpha_of(const Alpha& alpha) {
    return alpha.is_fixed ? alpha.fixed : expf(alpha.log_alpha[0]);
}

__device__ static u32 global_index() {
    return blockIdx.x * THREADS + threadIdx.x;
}

// The sum of one value from each thread of the block, in the same order every time; thread 0 gets it.
__device__ static float block_sum(float* shared, float value) {
    __syncthreads();
    shared[threadIdx.x] = value;
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    return threadIdx.x > 0 ? 0.0f : shared[0];
}
