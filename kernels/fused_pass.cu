// A network's pass over a tile of rows, forward to the partial sums of its outputs, and what puts an output together.

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
