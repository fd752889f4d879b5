// The fused kernels that evaluate networks, and what their inputs are made of: the batch and sampled actions.

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
