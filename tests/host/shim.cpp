// Runs the kernels of `kernels/` on the CPU: each thread of a block is a fiber, which gives way at `__syncthreads()`.
//
// Blocks come in random order, and so do the threads of a block, anew after every barrier, so that whatever relies on an
// order that a GPU does not promise goes wrong here. Shared memory holds NaN when a block begins.

// It takes a jump from one fiber to another for a mistake.
#undef _FORTIFY_SOURCE

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cmath>
#include <ucontext.h>

using std::isfinite;
using std::isnan;

struct Index {
    unsigned x, y, z;
};

static Index threadIdx, blockIdx, gridDim;

#define __global__
#define __device__
#define __align__(bytes) __attribute__((aligned(bytes)))
// All shared memory lies in one section, which is filled anew for every block.
#define __shared__ static __attribute__((section("shared_memory")))
#define KERNEL(name, Arguments)                                                                      \
    static void name(const Arguments args);                                                          \
    static void run_##name(const void* args) { name(*static_cast<const Arguments*>(args)); }         \
    static const Registration registration_##name(#name, run_##name, sizeof(Arguments));             \
    static void name(const Arguments args)

// The kernels, each with the bytes of its arguments.
struct Registration {
    const char* name;
    void (*run)(const void*);
    size_t size;
    const Registration* next;
    Registration(const char* name, void (*run)(const void*), size_t size);
};

static const Registration* registrations;

Registration::Registration(const char* name, void (*run)(const void*), size_t size)
    : name(name), run(run), size(size), next(registrations) {
    registrations = this;
}

static void __syncthreads();

// sin πx and cos πx, which C++ does not have.
static float sinpif(float x) { return static_cast<float>(std::sin(M_PI * x)); }
static float cospif(float x) { return static_cast<float>(std::cos(M_PI * x)); }
static double sinpi(double x) { return std::sin(M_PI * x); }
static double cospi(double x) { return std::cos(M_PI * x); }

#include "../../kernels/prelude.cu"

#ifdef SAC_TF32
// `kernels/tf32.cu`: here the fibers of a warp exchange what each of them holds.

static u32 to_tf32(float x) {
    u32 bits;
    memcpy(&bits, &x, sizeof(bits));
    // What is no number stays so.
    return isnan(x) ? 0x7fffe000 : (bits + 0x1000) & ~0x1fffu;
}

// The number, or NaN if it has more bits than tensor cores take.
static float from_tf32(u32 bits) {
    if (bits & 0x1fff) bits = 0x7fffe000;
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static void mma(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    static float held_a[THREADS][4], held_b[THREADS][2];
    for (u32 i = 0; i < 4; i++) held_a[threadIdx.x][i] = from_tf32(a[i]);
    for (u32 i = 0; i < 2; i++) held_b[threadIdx.x][i] = from_tf32(b[i]);
    __syncthreads();
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x - lane;
    for (u32 i = 0; i < 4; i++) {
        const u32 row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        float sum = 0.0f;
        for (u32 k = 0; k < 8; k++) {
            sum += held_a[warp + row % 8 * 4 + k % 4][row / 8 + k / 4 * 2] * held_b[warp + column * 4 + k % 4][k / 4];
        }
        c[i] += sum;
    }
    __syncthreads();
}
#endif

#include "../../kernels/formulas.cu"
#include "../../kernels/mlp.cu"
#include "../../kernels/tanh_gaussian.cu"
#include "../../kernels/adam.cu"
#include "../../kernels/loss.cu"
#include "../../kernels/replay.cu"
#include "../../kernels/tile.cu"
#include "../../kernels/fused.cu"
#include "../../kernels/fused_pass.cu"
#include "../../kernels/fused_forward.cu"
#include "../../kernels/fused_gradient.cu"
#include "../../kernels/fused_loss.cu"
#include "../../kernels/fused_step.cu"
#include "../../kernels/pendulum.cu"

// AᵀB for some tiles of each, one below the other, by the functions that all kernels use for it.
struct ProductOfTiles {
    const float *a, *b;  // [tiles, TILE, TILE]
    float* c;            // [TILE, TILE]
    u32 tiles;
};

KERNEL(product_of_tiles, ProductOfTiles) {
    __shared__ ForwardShared shared;
    Accumulator sums;
    clear(sums);
    for (u32 i = 0; i < args.tiles; i++) {
        __syncthreads();
        for (u32 e = threadIdx.x; e < TILE * TILE; e += THREADS) {
            shared.a[place(e / TILE, e % TILE)] = args.a[i * TILE * TILE + e];
            shared.w[place(e / TILE, e % TILE)] = args.b[i * TILE * TILE + e];
        }
        __syncthreads();
        multiply(shared.a, shared.w, sums);
    }
    collect(sums, shared.c);
    for (u32 e = threadIdx.x; e < TILE * TILE; e += THREADS) args.c[e] = shared.c[e / TILE][e % TILE];
}

// The kernel of that name, null if there is none.
extern "C" const Registration* find_kernel(const char* name) {
    const Registration* found = registrations;
    while (found && strcmp(found->name, name) != 0) found = found->next;
    return found;
}

extern "C" size_t size_of_status() { return sizeof(Status); }

extern "C" size_t size_of_pendulum() { return sizeof(PendulumState); }

extern char __start_shared_memory[], __stop_shared_memory[];

enum State { READY, AT_BARRIER, DONE };

struct Fiber {
    ucontext_t context;
    jmp_buf resume;
    State state;
    bool started;
};

static Fiber fibers[THREADS];
static unsigned running;
static jmp_buf scheduler;
static ucontext_t main_context;
static void (*kernel)(const void*);
static const void* arguments;
static uint64_t random_state;

// A small generator of Steele, Lea and Flood (SplitMix64); only orders are drawn from it.
static uint64_t random_word() {
    uint64_t z = random_state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static void shuffle(unsigned* order, unsigned count) {
    for (unsigned i = count; i > 1; i--) {
        const unsigned j = random_word() % i;
        const unsigned kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

// Gives way to the scheduler until it comes back to this fiber.
static void give_way() {
    if (_setjmp(fibers[running].resume) == 0) _longjmp(scheduler, 1);
}

static void __syncthreads() {
    const Index mine = threadIdx;
    fibers[running].state = AT_BARRIER;
    give_way();
    threadIdx = mine;
}

// A fiber does one thread of a block after another and never ends.
static void fiber() {
    for (;;) {
        kernel(arguments);
        fibers[running].state = DONE;
        give_way();
    }
}

static void run_fiber(unsigned i) {
    running = i;
    threadIdx = {i, 0, 0};
    Fiber& f = fibers[i];
    if (_setjmp(scheduler)) return;
    if (f.started) _longjmp(f.resume, 1);
    f.started = true;
    const size_t stack = 1 << 16;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = malloc(stack);
    f.context.uc_stack.ss_size = stack;
    f.context.uc_link = nullptr;
    makecontext(&f.context, fiber, 0);
    swapcontext(&main_context, &f.context);
}

// Runs all blocks of a kernel; says whether all threads of each block met at the same barriers.
extern "C" bool run_kernel(void (*which)(const void*), const void* args, const unsigned* grid, uint64_t seed) {
    kernel = which;
    arguments = args;
    random_state = seed;
    gridDim = {grid[0], grid[1], grid[2]};
    const unsigned blocks = grid[0] * grid[1] * grid[2];
    unsigned* block_order = static_cast<unsigned*>(malloc(blocks * sizeof(unsigned)));
    for (unsigned i = 0; i < blocks; i++) block_order[i] = i;
    shuffle(block_order, blocks);
    bool well = true;
    for (unsigned b = 0; b < blocks && well; b++) {
        blockIdx = {block_order[b] % grid[0], block_order[b] / grid[0] % grid[1], block_order[b] / grid[0] / grid[1]};
        memset(__start_shared_memory, 0xFF, __stop_shared_memory - __start_shared_memory);
        unsigned order[THREADS];
        for (unsigned i = 0; i < THREADS; i++) {
            order[i] = i;
            fibers[i].state = READY;
        }
        for (unsigned done = 0; done == 0;) {
            shuffle(order, THREADS);
            for (unsigned i = 0; i < THREADS; i++) run_fiber(order[i]);
            for (unsigned i = 0; i < THREADS; i++) done += fibers[i].state == DONE;
            if (done > 0 && done < THREADS) {
                well = false;
                // The others are let go on to their end, so that they can be used again.
                for (bool left = true; left;) {
                    left = false;
                    for (unsigned i = 0; i < THREADS; i++) {
                        if (fibers[i].state != DONE) {
                            run_fiber(i);
                            left = true;
                        }
                    }
                }
            }
        }
    }
    free(block_order);
    return well;
}
