// A network's gradient, a tile for each block. What differs from loss to loss is its head: it leaves ∂L/∂(the outputs) of a tile
// of rows in shared memory.

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
