// Tiles of 32 × 32 of a block of the fused kernels: pieces of matrices on their way from global to shared memory, and AᵀB of
// two tiles in shared memory, in f32 or with SAC_TF32 on tensor cores.

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
