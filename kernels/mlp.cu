// Layers of multilayer perceptrons: `Network::forward` and `Network::backward` of `src/nn/network.rs`, a kernel for each step of
// a layer.
//
// Several networks of the same shape go through a launch together, one in each z of the grid; each pointer comes with its
// distance from one network to the next. A block makes a tile of C = A·B, 32 × 32, its rows told by x and its columns by y of
// the grid, and goes through k in pieces of 32.

// The pieces of A (its rows as columns) and of B that a block multiplies. Rows are longer than TILE so that neighbours in
// a column lie in different banks.
struct Tiles {
    __align__(16) float a[TILE][TILE + 2];
    __align__(16) float b[TILE][TILE + 4];
};

// The elements of C of this thread: two rows and four columns.
__device__ static u32 first_row() {
    return blockIdx.x * TILE + threadIdx.x / 8 * 2;
}

__device__ static u32 first_column() {
    return blockIdx.y * TILE + threadIdx.x % 8 * 4;
}

// An element of A [m, k] or B [k, n], 0 beyond them. A matrix that is transposed is stored by columns.
__device__ static float element(const float* matrix, u32 step, bool transposed, u32 i, u32 j, u32 rows, u32 columns) {
    if (i >= rows || j >= columns) return 0.0f;
    return transposed ? matrix[(u64)j * step + i] : matrix[(u64)i * step + j];
}

// sums ← the elements of A·B of this thread; returns the sum of those elements of B that it has loaded, which all lie in
// column threadIdx.x % TILE of the tile if B is not transposed.
template <bool A_TRANSPOSED, bool B_TRANSPOSED>
__device__ static float product(
    Tiles& tiles, const float* a, u32 a_step, const float* b, u32 b_step, u32 m, u32 k, u32 n, float (&sums)[2][4]
) {
    const u32 EACH = TILE * TILE / THREADS;
    const u32 lane = threadIdx.x % TILE, group = threadIdx.x / TILE;
    const u32 row = threadIdx.x / 8 * 2, column = threadIdx.x % 8 * 4;
    float next_a[EACH], next_b[EACH], column_sum = 0.0f;
    for (u32 i = 0; i < 2; i++) {
        for (u32 j = 0; j < 4; j++) sums[i][j] = 0.0f;
    }
    for (u32 first = 0; first < k + TILE; first += TILE) {
        if (first > 0) {
            __syncthreads();
            // Neighbouring threads hold what is neighbouring in memory.
            for (u32 e = 0; e < EACH; e++) {
                const u32 other = group + e * (THREADS / TILE);
                (A_TRANSPOSED ? tiles.a[other][lane] : tiles.a[lane][other]) = next_a[e];
                (B_TRANSPOSED ? tiles.b[lane][other] : tiles.b[other][lane]) = next_b[e];
                column_sum += next_b[e];
            }
            __syncthreads();
        }
        // The next pieces are on their way while these are multiplied.
        if (first < k) {
            for (u32 e = 0; e < EACH; e++) {
                const u32 other = group + e * (THREADS / TILE);
                const u32 i = blockIdx.x * TILE + (A_TRANSPOSED ? lane : other);
                const u32 j = blockIdx.y * TILE + (B_TRANSPOSED ? other : lane);
                next_a[e] = element(a, a_step, A_TRANSPOSED, i, first + (A_TRANSPOSED ? other : lane), m, k);
                next_b[e] = element(b, b_step, B_TRANSPOSED, first + (B_TRANSPOSED ? lane : other), j, k, n);
            }
        }
        if (first > 0) {
#pragma unroll 8
            for (u32 p = 0; p < TILE; p++) {
                for (u32 i = 0; i < 2; i++) {
                    for (u32 j = 0; j < 4; j++) sums[i][j] += tiles.a[p][row + i] * tiles.b[p][column + j];
                }
            }
        }
    }
    return column_sum;
}

struct ForwardLayer {
    const float* x;      // [rows, inputs], a row every x_step
    const float* theta;  // W [inputs, outputs], then b [outputs]
    float* y;            // [rows, outputs], a row every y_step
    u64 x_network, theta_network, y_network;
    u32 x_sharing;  // so many networks after one another take the same x
    u32 rows, inputs, outputs, x_step, y_step, activation;
};

// y ← φ(x·W + b); mirrors `Dense::forward`.
KERNEL(forward_layer, ForwardLayer) {
    __shared__ Tiles tiles;
    const float* x = args.x + blockIdx.z / args.x_sharing * args.x_network;
    const float* weight = args.theta + blockIdx.z * args.theta_network;
    const float* bias = weight + (u64)args.inputs * args.outputs;
    float* y = args.y + blockIdx.z * args.y_network;
    float sums[2][4];
    product<false, false>(tiles, x, args.x_step, weight, args.outputs, args.rows, args.inputs, args.outputs, sums);
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const u32 row = first_row() + i, column = first_column() + j;
            if (row >= args.rows || column >= args.outputs) continue;
            y[(u64)row * args.y_step + column] = activate(args.activation, sums[i][j] + bias[column]);
        }
    }
}

struct BackwardParameters {
    const float* h;      // the layer's input, [rows, inputs], a row every h_step
    const float* delta;  // ∂L/∂(its output before φ), [rows, outputs], a row every delta_step
    float* d_theta;      // ∂L/∂W [inputs, outputs], then ∂L/∂b [outputs]
    u64 h_network, delta_network, d_theta_network;
    u32 rows, inputs, outputs, h_step, delta_step;
};

// ∂L/∂W ← hᵀ·δ and ∂L/∂b ← Σ over rows of δ; mirrors `Dense::gradient`.
KERNEL(backward_parameters, BackwardParameters) {
    __shared__ Tiles tiles;
    __shared__ float partial[THREADS];
    const float* h = args.h + blockIdx.z * args.h_network;
    const float* delta = args.delta + blockIdx.z * args.delta_network;
    float* d_weight = args.d_theta + blockIdx.z * args.d_theta_network;
    float* d_bias = d_weight + (u64)args.inputs * args.outputs;
    float sums[2][4];
    const float column_sum =
        product<true, false>(tiles, h, args.h_step, delta, args.delta_step, args.inputs, args.rows, args.outputs, sums);
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const u32 row = first_row() + i, column = first_column() + j;
            if (row < args.inputs && column < args.outputs) d_weight[(u64)row * args.outputs + column] = sums[i][j];
        }
    }
    // The blocks of the first rows have seen all of δ.
    if (blockIdx.x > 0) return;
    partial[threadIdx.x] = column_sum;
    __syncthreads();
    const u32 column = blockIdx.y * TILE + threadIdx.x;
    if (threadIdx.x >= TILE || column >= args.outputs) return;
    float sum = 0.0f;
    for (u32 group = 0; group < THREADS / TILE; group++) sum += partial[group * TILE + threadIdx.x];
    d_bias[column] = sum;
}

struct BackwardInput {
    const float* delta;   // [rows, outputs], a row every delta_step
    const float* weight;  // the rows of W that belong to these inputs, [inputs, outputs]
    const float* h;       // these inputs, [rows, inputs], as φ has left them, if there is an activation
    float* d_x;           // [rows, inputs]
    u64 delta_network, weight_network, h_network, d_x_network;
    u32 rows, inputs, outputs, delta_step, h_step, activation;
};

// ∂L/∂x ← (δ·Wᵀ) ⊙ φ′(h); mirrors `Dense::backward`.
KERNEL(backward_input, BackwardInput) {
    __shared__ Tiles tiles;
    const float* delta = args.delta + blockIdx.z * args.delta_network;
    const float* weight = args.weight + blockIdx.z * args.weight_network;
    const float* h = args.h + blockIdx.z * args.h_network;
    float* d_x = args.d_x + blockIdx.z * args.d_x_network;
    float sums[2][4];
    product<false, true>(tiles, delta, args.delta_step, weight, args.outputs, args.rows, args.outputs, args.inputs, sums);
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            const u32 row = first_row() + i, column = first_column() + j;
            if (row >= args.rows || column >= args.inputs) continue;
            float sum = sums[i][j];
            if (args.activation != NO_ACTIVATION) {
                sum = activate_backward(args.activation, sum, h[(u64)row * args.h_step + column]);
            }
            d_x[(u64)row * args.inputs + column] = sum;
        }
    }
}
