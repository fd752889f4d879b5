// Drawing and gathering a batch from the replay memory that the device mirrors: what `CpuLearner::learn` does with
// `Replay::sample`, `Replay::gather` and `Noise::fill`.

// Streams of random numbers; mirrors `Stream` of `src/rng.rs`.
enum { ENVIRONMENT_STREAM = 1, ACTION_STREAM, REPLAY_STREAM, UPDATE_STREAM };

struct Words {
    u32 word[4];
};

// Ten rounds of Philox; mirrors `philox4x32_10`.
__device__ static Words philox(u64 seed, u32 block, u64 step, u32 stream) {
    Words c = {{block, (u32)step, (u32)(step >> 32), stream}};
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
    for (u32 round = 0; round < 10; round++) {
        const u64 p0 = (u64)c.word[0] * 0xD2511F53u, p1 = (u64)c.word[2] * 0xCD9E8D57u;
        const Words next = {{(u32)(p1 >> 32) ^ c.word[1] ^ k0, (u32)p1, (u32)(p0 >> 32) ^ c.word[3] ^ k1, (u32)p0}};
        c = next;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// Of so many rows, the one that a word draws.
__device__ static u32 drawn_row(u32 word, u64 stored) {
    return (u32)((u64)word * stored >> 32);
}

// The standard normal number i of the four that four words make, by Box and Muller.
__device__ static float normal(const Words& random, u32 i) {
    // Two uniform numbers within (0, 1] make two normal ones.
    const float u = ((float)(random.word[i / 2 * 2] >> 8) + 0.5f) * 0x1p-24f;
    const float v = ((float)(random.word[i / 2 * 2 + 1] >> 8) + 0.5f) * 0x1p-24f;
    return sqrtf(-2.0f * logf(u)) * (i % 2 ? sinpif(2.0f * v) : cospif(2.0f * v));
}

// Four of `count` standard normal numbers.
__device__ static void draw_noise(float* noise, u64 seed, u32 block, u64 update, u32 count) {
    if (block * 4 >= count) return;
    const Words random = philox(seed, block, update, UPDATE_STREAM);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        if (block * 4 + i < count) noise[block * 4 + i] = normal(random, i);
    }
}

// What changes from one draw to the next.
struct Draws {
    u64 update;
    u64 stored;  // transitions in the memory
    u64 seed;
};

struct Draw {
    const Draws* draws;
    u32* rows;     // [batch]
    float* noise;  // ε, [count]
    u32 batch, count;
};

// Rows of the memory, uniform with replacement, and standard normal noise. A thread takes four of each.
KERNEL(draw, Draw) {
    const Draws draws = *args.draws;
    const u32 block = global_index();
    if (block * 4 < args.batch) {
        const Words random = philox(draws.seed, block, draws.update, REPLAY_STREAM);
        for (u32 i = 0; i < 4 && block * 4 + i < args.batch; i++) {
            args.rows[block * 4 + i] = drawn_row(random.word[i], draws.stored);
        }
    }
    draw_noise(args.noise, draws.seed, block, draws.update, args.count);
}

struct Gather {
    const float* memory;  // s, a, r, 1 − d, s′ in a row, [capacity, 2·observations + actions + 2]
    const u32* rows;      // [batch]
    float* inputs;        // [s, a], [s′, ã′] and [s, ã], [3, batch, observations + actions]; ã and ã′ are left alone
    float *reward, *discount;  // r and γ(1 − d), [batch]
    u32 batch, observations, actions;
    float gamma;
};

// The transitions of a batch; mirrors `Replay::gather`. A thread takes an element of a row.
KERNEL(gather, Gather) {
    const u32 o = args.observations, a = args.actions, width = 2 * o + a + 2;
    const u32 i = global_index() / width, column = global_index() % width;
    if (i >= args.batch) return;
    const float value = args.memory[(u64)args.rows[i] * width + column];
    const u64 plane = (u64)args.batch * (o + a), at = (u64)i * (o + a);
    if (column < o + a) args.inputs[at + column] = value;
    if (column < o) args.inputs[2 * plane + at + column] = value;
    if (column == o + a) args.reward[i] = value;
    if (column == o + a + 1) args.discount[i] = args.gamma * value;
    if (column >= o + a + 2) args.inputs[plane + at + (column - o - a - 2)] = value;
}

struct Store {
    float* memory;        // the first one of several
    const u64* places;    // where in it each row goes, counted in elements, [rows]
    const float* values;  // [rows, width]
    u32 rows, width;
};

// Puts new transitions of several agents into the memory of each. A thread takes an element of a row.
KERNEL(store, Store) {
    const u32 i = global_index() / args.width, column = global_index() % args.width;
    if (i < args.rows) args.memory[args.places[i] + column] = args.values[(u64)i * args.width + column];
}
