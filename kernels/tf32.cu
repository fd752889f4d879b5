// What tensor cores do, for `kernels/tile.cu` where it is compiled with SAC_TF32, which takes compute capability 8.0 or
// later.
// `tests/host/shim.cpp` has both functions once more, as NVIDIA's description of PTX has them.

#ifdef SAC_TF32

// The nearest number with 10 bits of mantissa; of two that are as near, the one further from zero.
__device__ static u32 to_tf32(float x) {
    u32 y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

// C ← C + A·B by a warp, for A [16, 8], B [8, 8] and C [16, 8]. Of them the thread 4g + t of the warp has
//   a  A[g][t], A[g + 8][t], A[g][t + 4], A[g + 8][t + 4]
//   b  B[t][g], B[t + 4][g]
//   c  C[g][2t], C[g][2t + 1], C[g + 8][2t], C[g + 8][2t + 1]
__device__ static void mma(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
