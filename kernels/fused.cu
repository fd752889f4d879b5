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
// three functions. z of the grid tells the agent; all of an agent's memory lies `agent_bytes`,
// a multiple of 16, after that of the one before it, but for `draws` and `status`, of which there is an array of all agents.

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

// ── Tiles ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// Four floats that are loaded and stored as one; their address is a multiple of 16.
struct __align__(16) Four {
    float x, y, z, w;
};

__device__ static void load4(const float* from, float (&to)[4]) {
    const Four four = *(const Four*)from;
    to[0] = four.x;
    to[1] = four.y;
    to[2] = four.z;
    to[3] = four.w;
}

__device__ static void store4(float* to, const float (&from)[4]) {
    const Four four = {from[0], from[1], from[2], from[3]};
    *(Four*)to = four;
}

// Where a tile in shared memory has the element of row k and column c. Groups of four columns are exchanged, by another
// pattern in every fourth row, so that neither a row nor a column meets itself in a bank.
__device__ static u32 place(u32 k, u32 c) {
    return k * TILE + (c ^ (k & 28));
}

// A thread's part of a tile: four columns from threadIdx.x % 8 · 4 on, of row threadIdx.x / 8 and of that 16 further on.
struct Piece {
    float v[2][4];
};

__device__ static u32 piece_row(u32 e) {
    return threadIdx.x / 8 + 16 * e;
}

__device__ static u32 piece_column() {
    return threadIdx.x % 8 * 4;
}

// The piece of the tile at that row and column of a matrix, 0 in the rows from `rows` on.
__device__ static Piece fetch(const float* matrix, u32 width, u32 row, u32 rows, u32 column) {
    Piece piece;
#pragma unroll
    for (u32 e = 0; e < 2; e++) {
        const u32 i = row + piece_row(e);
#pragma unroll
        for (u32 c = 0; c < 4; c++) piece.v[e][c] = 0.0f;
        if (i < rows) load4(matrix + (u64)i * width + column + piece_column(), piece.v[e]);
    }
    return piece;
}

__device__ static void put(float* tile, const Piece& piece) {
#pragma unroll
    for (u32 e = 0; e < 2; e++) store4(tile + place(piece_row(e), piece_column()), piece.v[e]);
}

__device__ static void put_transposed(float* tile, const Piece& piece) {
#pragma unroll
    for (u32 e = 0; e < 2; e++) {
#pragma unroll
        for (u32 c = 0; c < 4; c++) tile[place(piece_column() + c, piece_row(e))] = piece.v[e][c];
    }
}

// A whole tile, to be read by rows and by columns.
typedef float Whole[TILE][TILE + 1];

#ifdef SAC_TF32

// The part of a tile C that a thread adds up: a warp takes a quarter of 16 × 16, and goes through it by two products of 16 × 8,
// of which a thread has four elements each, as `mma` says.
struct Accumulator {
    float sum[2][4];
};

__device__ static void clear(Accumulator& c) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) c.sum[i][j] = 0.0f;
    }
}

// The first row and the first column of C of this thread's warp.
__device__ static u32 warp_row() {
    return threadIdx.x / 64 * 16;
}

__device__ static u32 warp_column() {
    return threadIdx.x / 32 % 2 * 16;
}

// C ← C + AᵀB for tiles A [k, rows of C] and B [k, columns of C], their elements rounded to tf32. A product takes eight of k, in
// any order that is the same for A and B: as t and t + 4 of step s it gets 8t + 2s and 8t + 2s + 1. The threads of a warp then
// read rows whose groups of columns `place` has exchanged by different patterns, and they meet in no bank.
__device__ static void multiply(const float* a, const float* b, Accumulator& c) {
    const u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, row = warp_row() + g, column = warp_column() + g;
#pragma unroll
    for (u32 s = 0; s < 4; s++) {
        const u32 k = 8 * t + 2 * s;
        const u32 x[4] = {
            to_tf32(a[place(k, row)]), to_tf32(a[place(k, row + 8)]), to_tf32(a[place(k + 1, row)]),
            to_tf32(a[place(k + 1, row + 8)]),
        };
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
            const u32 y[2] = {to_tf32(b[place(k, column + 8 * i)]), to_tf32(b[place(k + 1, column + 8 * i)])};
            mma(c.sum[i], x, y);
        }
    }
}

// Puts the quarters together. All threads may read the tile afterwards.
__device__ static void collect(const Accumulator& c, Whole& whole) {
    const u32 row = warp_row() + threadIdx.x % 32 / 4, column = warp_column() + threadIdx.x % 4 * 2;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) whole[row + j / 2 * 8][column + 8 * i + j % 2] = c.sum[i][j];
    }
    __syncthreads();
}

#else

// The part of a tile C that a thread adds up: each half of the block takes half of k, and a thread in it four rows and four
// columns.
struct Accumulator {
    float sum[4][4];
};

__device__ static void clear(Accumulator& c) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) c.sum[i][j] = 0.0f;
    }
}

// C ← C + AᵀB for tiles A [k, rows of C] and B [k, columns of C].
__device__ static void multiply(const float* a, const float* b, Accumulator& c) {
    const u32 half = threadIdx.x / (THREADS / 2), row = threadIdx.x % (THREADS / 2) / 8 * 4, column = threadIdx.x % 8 * 4;
#pragma unroll 8
    for (u32 i = 0; i < TILE / 2; i++) {
        const u32 k = half * (TILE / 2) + i;
        float x[4], y[4];
        load4(a + place(k, row), x);
        load4(b + place(k, column), y);
#pragma unroll
        for (u32 p = 0; p < 4; p++) {
#pragma unroll
            for (u32 q = 0; q < 4; q++) c.sum[p][q] += x[p] * y[q];
        }
    }
}

// Puts the halves together. All threads may read the tile afterwards.
__device__ static void collect(const Accumulator& c, Whole& whole) {
    const u32 row = threadIdx.x % (THREADS / 2) / 8 * 4, column = threadIdx.x % 8 * 4;
    if (threadIdx.x >= THREADS / 2) {
#pragma unroll
        for (u32 p = 0; p < 4; p++) {
#pragma unroll
            for (u32 q = 0; q < 4; q++) whole[row + p][column + q] = c.sum[p][q];
        }
    }
    __syncthreads();
    if (threadIdx.x < THREADS / 2) {
#pragma unroll
        for (u32 p = 0; p < 4; p++) {
#pragma unroll
            for (u32 q = 0; q < 4; q++) whole[row + p][column + q] += c.sum[p][q];
        }
    }
    __syncthreads();
}

#endif

// ── Forward ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

struct ForwardShared {
    __align__(16) float a[TILE * TILE];
    __align__(16) float b[2][TILE * TILE];
    __align__(16) float w[TILE * TILE];
    float x[TILE * TILE];
    Whole c;
    u64 origin[TILE];                        // where each row of inputs begins
    float action[MOST_ACTIONS][TILE + 1];    // of each row, where a block makes them itself
};

// Inputs of the rows of a tile: `count` rows of `from`, whose origins are in shared memory.
struct Rows {
    const float* from;
    u32 count;
    u32 own_actions;  // from which column on they are in shared memory
};

// The inputs from column i on, and 1 behind the last, which meets b₁ behind W₁.
__device__ static void load_inputs(ForwardShared& shared, const Rows& rows, u32 inputs, u32 i) {
    const u32 lane = threadIdx.x % TILE, column = i + lane;
#pragma unroll
    for (u32 e = 0; e < TILE * TILE / THREADS; e++) {
        const u32 row = threadIdx.x / TILE + e * (THREADS / TILE);
        float value = column == inputs ? 1.0f : 0.0f;
        if (row < rows.count && column < inputs) {
            value = column < rows.own_actions ? rows.from[shared.origin[row] + column]
                                              : shared.action[column - rows.own_actions][row];
        }
        shared.x[place(lane, row)] = value;
    }
}

// A tile of h₂ and its partial sums of the outputs. `h1` and `h2` are where the tile's rows are to be kept, null for nowhere;
// rows of h₁ are kept by the blocks of the first column. `partial_sums` has the first row's output, and `partial_rows` is from
// one output to the next.
__device__ static void forward_tile(
    ForwardShared& shared, const Rows& rows, const FusedNetwork& n, const float* theta, u32 column, float* h1, float* h2,
    float* partial_sums, u32 partial_rows
) {
    const u32 lane = threadIdx.x % TILE, group = threadIdx.x / TILE;
    const float* second = theta + second_layer(n);
    Accumulator sums;
    clear(sums);
    Piece next_b = fetch(second, n.h2_width, 0, n.h1_width, column), next_w = fetch(theta, n.h1_width, 0, n.inputs + 1, 0);
    for (u32 k = 0, p = 0; k < n.h1_width; k += TILE, p ^= 1) {
        put(shared.b[p], next_b);
        float h[8];
#pragma unroll
        for (u32 e = 0; e < 8; e++) h[e] = 0.0f;
        for (u32 i = 0; i <= n.inputs; i += TILE) {
            if (i > 0) {
                __syncthreads();
                next_w = fetch(theta, n.h1_width, i, n.inputs + 1, k);
            }
            put(shared.w, next_w);
            // Inputs that fit into one tile stay there.
            if (k == 0 || n.inputs >= TILE) load_inputs(shared, rows, n.inputs, i);
            __syncthreads();
            const u32 many = n.inputs + 1 - i < TILE ? n.inputs + 1 - i : TILE;
            for (u32 q = 0; q < many; q++) {
                const float x = shared.x[place(q, lane)];
                float w[4];
#pragma unroll
                for (u32 g = 0; g < 2; g++) {
                    load4(shared.w + place(q, group * 8 + g * 4), w);
#pragma unroll
                    for (u32 e = 0; e < 4; e++) h[g * 4 + e] += x * w[e];
                }
            }
        }
        if (k + TILE < n.h1_width) {
            next_b = fetch(second, n.h2_width, k + TILE, n.h1_width, column);
            next_w = fetch(theta, n.h1_width, 0, n.inputs + 1, k + TILE);
        }
#pragma unroll
        for (u32 e = 0; e < 8; e++) shared.a[place(group * 8 + e, lane)] = relu(h[e]);
        __syncthreads();
        if (h1 && column == 0) {
            for (u32 row = group; row < rows.count; row += THREADS / TILE) {
                h1[(u64)row * n.h1_width + k + lane] = shared.a[place(lane, row)];
            }
        }
        multiply(shared.a, shared.b[p], sums);
    }
    collect(sums, shared.c);
    const float bias = theta[second_bias(n) + column + lane];
    for (u32 row = group; row < TILE; row += THREADS / TILE) {
        const float h = relu(shared.c[row][lane] + bias);
        shared.c[row][lane] = h;
        if (h2 && row < rows.count) h2[(u64)row * n.h2_width + column + lane] = h;
    }
    __syncthreads();
    const float* last = theta + last_layer(n) + column * n.outputs;
    for (u32 e = threadIdx.x; e < TILE * n.outputs; e += THREADS) {
        const u32 row = e % TILE, output = e / TILE;
        float sum = 0.0f;
#pragma unroll 8
        for (u32 j = 0; j < TILE; j++) sum += shared.c[row][j] * last[j * n.outputs + output];
        if (row < rows.count) partial_sums[(u64)output * partial_rows + row] = sum;
    }
}

// An output of a row, put together from its partial sums: `partial_sums` has the first of them, `bias` its b₃.
__device__ static float output_of(const float* partial_sums, u64 step, u32 many, float bias) {
    float sum = bias;
#pragma unroll 4
    for (u32 i = 0; i < many; i++) sum += partial_sums[i * step];
    return sum;
}

// The transitions that the tile of rows from `first` on has drawn, as origins in the memory; the rows are kept if asked for.
__device__ static void draw_tile(const Fused& f, ForwardShared& shared, u32 first, u32 count, bool keep) {
    if (threadIdx.x < TILE / 4) {
        const Words random = philox(f.draws->seed, first / 4 + threadIdx.x, f.draws->update, REPLAY_STREAM);
        const u32 width = 2 * f.observations + f.actions + 2;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 row = threadIdx.x * 4 + i, drawn = drawn_row(random.word[i], f.draws->stored);
            if (row >= count) continue;
            shared.origin[row] = (u64)drawn * width;
            if (keep) f.rows[first + row] = drawn;
        }
    }
    __syncthreads();
}

// Puts the transitions of a tile of rows where later kernels find them: s and a, or s′; as `gather` does.
__device__ static void keep_batch(const Fused& f, const ForwardShared& shared, u32 first, u32 count, bool next) {
    const u32 o = f.observations, a = f.actions;
    const u64 plane = (u64)f.batch * (o + a);
    const u32 from = next ? o + a + 2 : 0, columns = next ? o : o + a + 2;
    for (u32 e = threadIdx.x; e < count * columns; e += THREADS) {
        const u32 i = e / columns, column = e % columns, row = first + i;
        const float value = f.memory[shared.origin[i] + from + column];
        float* input = f.inputs + (u64)row * (o + a) + column;
        if (next) {
            input[plane] = value;
            continue;
        }
        if (column < o + a) input[0] = value;
        if (column < o) input[2 * plane] = value;
        if (column == o + a) f.reward[row] = value;
        if (column == o + a + 1) f.discount[row] = f.gamma * value;
    }
}

// What a block of tiles works on: a tile of rows, a tile of columns, and which of several passes.
struct Job {
    u32 pass, row, column;
};

__device__ static Job job_of(u32 block, u32 rows, u32 columns) {
    const Job job = {block / columns / rows, block / columns % rows * TILE, block % columns * TILE};
    return job;
}

__device__ static u32 rows_left(const Fused& f, u32 row) {
    return f.batch - row < TILE ? f.batch - row : TILE;
}

// π(s′) and π(s), then Q₁(s, a) and Q₂(s, a), up to the partial sums of their outputs; then the noise. Blocks that lack a
// batch draw it.
KERNEL(fused_forward, Fused) {
    __shared__ ForwardShared shared;
    const Fused f = of_agent(args);
    if (rests(f)) return;
    const u32 o = f.observations, a = f.actions, tiles = tiles_of(f.batch);
    const u32 of_policy = 2 * tiles * (f.policy.h2_width / TILE), of_critics = 2 * tiles * (f.critics.h2_width / TILE);
    if (blockIdx.x >= of_policy + of_critics) {
        const u32 block = (blockIdx.x - of_policy - of_critics) * THREADS + threadIdx.x;
        draw_noise(f.noise, f.draws->seed, block, f.draws->update, 2 * f.batch * a);
        return;
    }
    const bool is_policy = blockIdx.x < of_policy;
    FusedNetwork n = f.critics;
    if (is_policy) n = f.policy;
    const Job job = job_of(is_policy ? blockIdx.x : blockIdx.x - of_policy, tiles, n.h2_width / TILE);
    const u32 count = rows_left(f, job.row);
    const bool next = is_policy && job.pass == 0;
    Rows rows = {f.memory + (next ? o + a + 2 : 0), count, o + a};
    if (f.from_memory) {
        const bool keep = job.column == 0 && (next || (!is_policy && job.pass == 0));
        draw_tile(f, shared, job.row, count, keep && !next);
        if (keep) keep_batch(f, shared, job.row, count, next);
    } else {
        rows.from = f.inputs + (next ? (u64)f.batch * (o + a) : 0);
        if (threadIdx.x < TILE) shared.origin[threadIdx.x] = (u64)(job.row + threadIdx.x) * (o + a);
        __syncthreads();
    }
    // The policy's passes lie one after the other as rows of one network; the critics' are networks.
    const u64 row = (u64)job.pass * f.batch + job.row;
    const u32 partial_rows = is_policy ? 2 * f.batch : f.batch;
    const u64 tile = (is_policy ? 0 : (u64)job.pass * (n.h2_width / TILE)) + job.column / TILE;
    forward_tile(
        shared, rows, n, n.theta + (is_policy ? 0 : (u64)job.pass * n.step), job.column, n.h1 + row * n.h1_width,
        n.h2 + row * n.h2_width, n.partial_sums + tile * n.outputs * partial_rows + (is_policy ? row : job.row), partial_rows
    );
}

// ã ~ π(·|s) or ã′ ~ π(·|s′) for the rows of a tile, into shared memory, and if asked for, to where later kernels find them;
// as `sample` does.
__device__ static void sample_tile(const Fused& f, ForwardShared& shared, bool next, u32 first, u32 count, bool keep) {
    const FusedNetwork& n = f.policy;
    const u32 o = f.observations, a = f.actions;
    const float* bias = n.theta + last_bias(n);
    for (u32 e = threadIdx.x; e < TILE * a; e += THREADS) {
        const u32 i = e / TILE, row = e % TILE;
        if (row >= count) continue;
        const u64 at = (next ? 0 : f.batch) + first + row, step = 2ull * f.batch;
        const float* partial_sums = n.partial_sums + i * step + at;
        const u32 many = n.h2_width / TILE;
        const float raw_mean = output_of(partial_sums, step * n.outputs, many, bias[i]);
        const float raw_log_std = output_of(partial_sums + a * step, step * n.outputs, many, bias[a + i]);
        const float noise = f.noise[at * a + i];
        const Sampled sampled = sample_of(f.distribution, raw_mean, raw_log_std, noise);
        shared.action[i][row] = sampled.action;
        shared.c[row][i] = sampled.log_prob;
        if (keep) {
            f.raw[at * 2 * a + i] = raw_mean;
            f.raw[at * 2 * a + a + i] = raw_log_std;
            f.inputs[((next ? 1ull : 2ull) * f.batch + first + row) * (o + a) + o + i] = sampled.action;
        }
    }
    __syncthreads();
    if (keep && threadIdx.x < count) {
        float sum = 0.0f;
        for (u32 i = 0; i < a; i++) sum += shared.c[threadIdx.x][i];
        f.log_prob[(next ? 0 : f.batch) + first + threadIdx.x] = sum;
        shared.c[threadIdx.x][TILE] = sum;
    }
    if (next || !keep) return;
    // Of s, the sum over the tile is wanted too.
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (u32 row = 0; row < count; row++) sum += shared.c[row][TILE];
        f.sums[LOG_PROB_SUMS * tiles_of(f.batch) + first / TILE] = sum;
    }
}

// Q̄₁(s′, ã′) and Q̄₂(s′, ã′), up to their partial sums; then ã for each tile of rows; then, by one block, what the steps
// take.
KERNEL(fused_target, Fused) {
    __shared__ ForwardShared shared;
    const Fused f = of_agent(args);
    if (rests(f)) return;
    const FusedNetwork& n = f.critics;
    const u32 o = f.observations, a = f.actions, tiles = tiles_of(f.batch), columns = n.h2_width / TILE;
    const u32 of_targets = 2 * tiles * columns;
    if (blockIdx.x == of_targets + tiles) {
        if (threadIdx.x < NETWORKS) prepare_step(f.status, threadIdx.x);
        if (threadIdx.x == 0) f.status->is_halted = f.status->failure != NO_FAILURE;
        return;
    }
    if (blockIdx.x >= of_targets) {
        const u32 row = (blockIdx.x - of_targets) * TILE;
        sample_tile(f, shared, false, row, rows_left(f, row), true);
        return;
    }
    const Job job = job_of(blockIdx.x, tiles, columns);
    const u32 count = rows_left(f, job.row);
    sample_tile(f, shared, true, job.row, count, job.pass == 0 && job.column == 0);
    if (threadIdx.x < TILE) shared.origin[threadIdx.x] = (u64)(f.batch + job.row + threadIdx.x) * (o + a);
    __syncthreads();
    const Rows rows = {f.inputs, count, o};
    const u64 tile = (u64)(2 + job.pass) * columns + job.column / TILE;
    forward_tile(
        shared, rows, n, n.theta + (u64)(2 + job.pass) * n.step, job.column, nullptr, nullptr,
        n.partial_sums + tile * f.batch + job.row, f.batch
    );
}

// Q₁(s, ã) and Q₂(s, ã), up to their partial sums.
KERNEL(fused_evaluate, Fused) {
    __shared__ ForwardShared shared;
    const Fused f = of_agent(args);
    if (rests(f)) return;
    const FusedNetwork& n = f.critics;
    const u32 inputs = n.inputs, columns = n.h2_width / TILE;
    const Job job = job_of(blockIdx.x, tiles_of(f.batch), columns);
    if (threadIdx.x < TILE) shared.origin[threadIdx.x] = (u64)(2 * f.batch + job.row + threadIdx.x) * inputs;
    __syncthreads();
    const Rows rows = {f.inputs, rows_left(f, job.row), inputs};
    const u64 row = (u64)job.pass * f.batch + job.row, tile = (u64)job.pass * columns + job.column / TILE;
    forward_tile(
        shared, rows, n, n.theta + (u64)job.pass * n.step, job.column, n.h1 + row * n.h1_width, n.h2 + row * n.h2_width,
        n.partial_sums + tile * f.batch + job.row, f.batch
    );
}

// ── Backward ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

struct BackwardShared {
    __align__(16) float a[TILE * TILE];
    __align__(16) float b[TILE * TILE];
    __align__(16) float last[2 * MOST_ACTIONS][TILE];  // W₃ᵀ for a tile of h₂
    float d_output[2 * MOST_ACTIONS][TILE];            // ∂L/∂(the outputs) of a tile of rows
    Whole c;
};

// W₃ for the tile of h₂ from `column` on.
__device__ static void load_last(BackwardShared& shared, const FusedNetwork& n, const float* theta, u32 column) {
    const float* last = theta + last_layer(n) + column * n.outputs;
    for (u32 e = threadIdx.x; e < TILE * n.outputs; e += THREADS) shared.last[e % n.outputs][e / n.outputs] = last[e];
}

// δ₂ = (∂L/∂(the outputs)·W₃ᵀ) ⊙ φ′(h₂), for a piece of h₂.
__device__ static Piece delta_of(const BackwardShared& shared, u32 outputs, const Piece& h) {
    Piece delta;
#pragma unroll
    for (u32 e = 0; e < 2; e++) {
#pragma unroll
        for (u32 c = 0; c < 4; c++) delta.v[e][c] = 0.0f;
        for (u32 i = 0; i < outputs; i++) {
            const float d = shared.d_output[i][piece_row(e)];
            float w[4];
            load4(&shared.last[i][piece_column()], w);
#pragma unroll
            for (u32 c = 0; c < 4; c++) delta.v[e][c] += d * w[c];
        }
#pragma unroll
        for (u32 c = 0; c < 4; c++) delta.v[e][c] = relu_backward(delta.v[e][c], h.v[e][c]);
    }
    return delta;
}

// A network's pass over the batch that goes back: its parameters, its rows of h₁ and h₂, its inputs.
struct BackwardPass {
    const FusedNetwork& n;
    const float *theta, *h1, *h2, *inputs;
    u32 input_step;
    float *gradient, *d_first;
};

// ∂L/∂W₂ ← h₁ᵀ·δ₂ for a tile, and by the blocks of the first rows ∂L/∂b₂. `head` leaves ∂L/∂(the outputs) of the tile of rows
// that it is called with.
template <class Head>
__device__ static void second_gradient(
    BackwardShared& shared, const Fused& f, const BackwardPass& pass, const Head& head, u32 row, u32 column
) {
    const FusedNetwork& n = pass.n;
    load_last(shared, n, pass.theta, column);
    Piece h1 = fetch(pass.h1, n.h1_width, 0, f.batch, row), h2 = fetch(pass.h2, n.h2_width, 0, f.batch, column);
    Accumulator sums;
    clear(sums);
    float column_sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (u32 first = 0; first < f.batch; first += TILE) {
        head(shared, first, false);
        __syncthreads();
        const Piece delta = delta_of(shared, n.outputs, h2);
        put(shared.a, h1);
        put(shared.b, delta);
#pragma unroll
        for (u32 c = 0; c < 4; c++) column_sums[c] += delta.v[0][c] + delta.v[1][c];
        __syncthreads();
        if (first + TILE < f.batch) {
            h1 = fetch(pass.h1, n.h1_width, first + TILE, f.batch, row);
            h2 = fetch(pass.h2, n.h2_width, first + TILE, f.batch, column);
        }
        multiply(shared.a, shared.b, sums);
    }
    collect(sums, shared.c);
    const u32 lane = threadIdx.x % TILE;
    float* gradient = pass.gradient + second_layer(n);
    for (u32 i = threadIdx.x / TILE; i < TILE; i += THREADS / TILE) {
        gradient[(u64)(row + i) * n.h2_width + column + lane] = shared.c[i][lane];
    }
    if (row > 0) return;
    // Sixteen threads have partial sums of the same columns.
#pragma unroll
    for (u32 c = 0; c < 4; c++) shared.a[threadIdx.x / 8 * TILE + piece_column() + c] = column_sums[c];
    __syncthreads();
    if (threadIdx.x >= TILE) return;
    float sum = 0.0f;
    for (u32 i = 0; i < THREADS / 8; i++) sum += shared.a[i * TILE + threadIdx.x];
    pass.gradient[second_bias(n) + column + threadIdx.x] = sum;
}

// ∂L/∂W₃ ← h₂ᵀ·∂L/∂(the outputs) for a tile, its columns being outputs, and by the blocks of the first rows ∂L/∂b₃.
template <class Head>
__device__ static void last_gradient(
    BackwardShared& shared, const Fused& f, const BackwardPass& pass, const Head& head, u32 row, u32 column
) {
    const FusedNetwork& n = pass.n;
    const u32 lane = threadIdx.x % TILE, output = column + lane;
    Piece h2 = fetch(pass.h2, n.h2_width, 0, f.batch, row);
    Accumulator sums;
    clear(sums);
    float bias = 0.0f;
    for (u32 first = 0; first < f.batch; first += TILE) {
        head(shared, first, false);
        __syncthreads();
        put(shared.a, h2);
        for (u32 k = threadIdx.x / TILE; k < TILE; k += THREADS / TILE) {
            shared.b[place(k, lane)] = output < n.outputs ? shared.d_output[output][k] : 0.0f;
        }
        if (threadIdx.x < TILE && output < n.outputs) {
            for (u32 k = 0; k < TILE; k++) bias += shared.d_output[output][k];
        }
        __syncthreads();
        if (first + TILE < f.batch) h2 = fetch(pass.h2, n.h2_width, first + TILE, f.batch, row);
        multiply(shared.a, shared.b, sums);
    }
    collect(sums, shared.c);
    if (output >= n.outputs) return;
    float* gradient = pass.gradient + last_layer(n);
    for (u32 i = threadIdx.x / TILE; i < TILE; i += THREADS / TILE) {
        gradient[(row + i) * n.outputs + output] = shared.c[i][lane];
    }
    if (row == 0 && threadIdx.x < TILE) pass.gradient[last_bias(n) + output] = bias;
}

// δ₁ = (δ₂·W₂ᵀ) ⊙ φ′(h₁) for a tile, left in shared.c for all threads.
template <class Head>
__device__ static void first_delta(
    BackwardShared& shared, const Fused& f, const BackwardPass& pass, const Head& head, u32 row, u32 column, bool keep
) {
    const FusedNetwork& n = pass.n;
    const float* second = pass.theta + second_layer(n);
    Piece h2 = fetch(pass.h2, n.h2_width, row, f.batch, 0), w = fetch(second, n.h2_width, column, n.h1_width, 0);
    Accumulator sums;
    clear(sums);
    head(shared, row, keep);
    for (u32 k = 0; k < n.h2_width; k += TILE) {
        __syncthreads();
        load_last(shared, n, pass.theta, k);
        put_transposed(shared.b, w);
        __syncthreads();
        put_transposed(shared.a, delta_of(shared, n.outputs, h2));
        __syncthreads();
        if (k + TILE < n.h2_width) {
            h2 = fetch(pass.h2, n.h2_width, row, f.batch, k + TILE);
            w = fetch(second, n.h2_width, column, n.h1_width, k + TILE);
        }
        multiply(shared.a, shared.b, sums);
    }
    collect(sums, shared.c);
    const u32 lane = threadIdx.x % TILE, count = rows_left(f, row);
    for (u32 i = threadIdx.x / TILE; i < TILE; i += THREADS / TILE) {
        // In the rows behind the last, h₁ counts as 0.
        const float h1 = i < count ? pass.h1[(u64)(row + i) * n.h1_width + column + lane] : 0.0f;
        shared.c[i][lane] = relu_backward(shared.c[i][lane], h1);
    }
    __syncthreads();
}

// What a tile of δ₁ adds to ∂L/∂W₁ and ∂L/∂b₁: [x, 1]ᵀ·δ₁.
template <class Head>
__device__ static void first_gradient(
    BackwardShared& shared, const Fused& f, const BackwardPass& pass, const Head& head, u32 row, u32 column
) {
    const FusedNetwork& n = pass.n;
    first_delta(shared, f, pass, head, row, column, column == 0);
    const u32 lane = threadIdx.x % TILE, group = threadIdx.x / TILE, count = rows_left(f, row);
    for (u32 k = group; k < TILE; k += THREADS / TILE) shared.b[place(k, lane)] = shared.c[k][lane];
    float* to = pass.d_first + (u64)(row / TILE) * second_layer(n);
    for (u32 i = 0; i <= n.inputs; i += TILE) {
        const u32 input = i + lane;
        for (u32 k = group; k < TILE; k += THREADS / TILE) {
            float x = input == n.inputs ? 1.0f : 0.0f;
            if (k < count && input < n.inputs) x = pass.inputs[(u64)(row + k) * pass.input_step + input];
            shared.a[place(k, lane)] = x;
        }
        __syncthreads();
        Accumulator sums;
        clear(sums);
        multiply(shared.a, shared.b, sums);
        collect(sums, shared.c);
        for (u32 k = group; k < TILE && i + k <= n.inputs; k += THREADS / TILE) {
            to[(u64)(i + k) * n.h1_width + column + lane] = shared.c[k][lane];
        }
    }
}

// The gradient over all parameters of a network, a tile for each block of `blocks`.
template <class Head>
__device__ static void network_gradient(
    BackwardShared& shared, const Fused& f, const BackwardPass& pass, const Head& head, u32 block
) {
    const FusedNetwork& n = pass.n;
    const u32 first_columns = n.h1_width / TILE, second_columns = n.h2_width / TILE, last_columns = tiles_of(n.outputs);
    const u32 of_second = first_columns * second_columns, of_last = second_columns * last_columns;
    if (block < of_second) {
        second_gradient(shared, f, pass, head, block / second_columns * TILE, block % second_columns * TILE);
    } else if (block < of_second + of_last) {
        block -= of_second;
        last_gradient(shared, f, pass, head, block / last_columns * TILE, block % last_columns * TILE);
    } else {
        block -= of_second + of_last;
        first_gradient(shared, f, pass, head, block / first_columns * TILE, block % first_columns * TILE);
    }
}

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

// ── Steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

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

// The critics' steps, and θ̄ ← θ̄ + τ(θ − θ̄), unless something has failed; y of the grid tells the critic.
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
