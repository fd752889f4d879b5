// Adam and Polyak averaging: `Adam::step`, `polyak` and the clamp of `Parameters::step`, a thread an element.

struct AdamStep {
    float *theta, *gradient, *m, *v;  // [networks, parameters]
    Status* status;
    u32 networks, parameters;
    u32 first;  // which of the networks of `Status` they are
    float clamp;
    u32 is_clamped;
};

// θ ← θ − lr · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε), unless something has failed; mirrors `Trainable::step`.
KERNEL(adam_step, AdamStep) {
    const u32 i = global_index();
    if (i >= args.networks * args.parameters || args.status->failure != NO_FAILURE) return;
    const u32 network = args.first + i / args.parameters;
    float g = args.gradient[i], m = args.m[i], v = args.v[i];
    if (args.is_clamped) {
        // Comparisons, unlike minimum and maximum, let NaN through.
        g = g > args.clamp ? args.clamp : g < -args.clamp ? -args.clamp : g;
        args.gradient[i] = g;
    }
    args.theta[i] -= adam_update(g, m, v, args.status->step[network], args.status->inverse_root[network]);
    args.m[i] = m;
    args.v[i] = v;
    if (i % args.parameters == 0) args.status->stepped[network] = 1;
}

struct PolyakStep {
    float* target;        // θ̄, [parameters]
    const float* online;  // θ, [parameters]
    const Status* status;
    u32 parameters;
    float tau;
};

// θ̄ ← θ̄ + τ(θ − θ̄), unless something has failed; mirrors `polyak`.
KERNEL(polyak, PolyakStep) {
    const u32 i = global_index();
    if (i >= args.parameters || args.status->failure != NO_FAILURE) return;
    args.target[i] = polyak_update(args.target[i], args.online[i], args.tau);
}
