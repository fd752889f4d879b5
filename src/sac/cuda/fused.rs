//! The launches of an update in eight kernels, those of `kernels/fused.cu`. [`Support`](super::Support) says which
//! configurations have it.

use crate::gpu::kernels::{
    Arguments, Fused, FusedActionGradient, FusedCriticLoss, FusedCriticStep, FusedEvaluate, FusedForward, FusedNetwork,
    FusedPolicyLoss, FusedPolicyStep, FusedTarget, Launch, THREADS, TILE,
};

/// Rows of `Fused::sums`, `SUMS` of `kernels/fused.cu`.
pub const SUMS: usize = 6;

/// The launches of an update of so many agents, in the order of the head of `kernels/fused.cu`. `fused` is that of the first
/// one; what each of the others has lies `agent_bytes` after that of the one before it.
pub fn launches(fused: Fused, agents: usize) -> Vec<Launch> {
    let tiles = |size: u32| (size as usize).div_ceil(TILE);
    let Fused { policy, critics, .. } = fused;
    let rows = tiles(fused.batch);
    // Two passes of rows through a network.
    let forward = |network: FusedNetwork| 2 * rows * tiles(network.h2_width);
    let noise = if fused.from_memory > 0 { (fused.batch * fused.actions).div_ceil(2) as usize } else { 0 };
    let backward = |network: FusedNetwork| {
        let (first, second) = (tiles(network.h1_width), tiles(network.h2_width));
        first * second + second * tiles(network.outputs) + rows * first
    };
    let step = |network: FusedNetwork| (network.parameters as usize).div_ceil(THREADS);
    let blocks = forward(policy) + forward(critics) + noise.div_ceil(THREADS);
    vec![
        FusedForward { fused }.launch([blocks, 1, agents]),
        // Besides the targets, the actions at s, and what the steps take.
        FusedTarget { fused }.launch([forward(critics) + rows + 1, 1, agents]),
        FusedCriticLoss { fused }.launch([backward(critics), 2, agents]),
        FusedCriticStep { fused }.launch([step(critics), 2, agents]),
        FusedEvaluate { fused }.launch([forward(critics), 1, agents]),
        FusedActionGradient { fused }.launch([rows * tiles(critics.h1_width), 2, agents]),
        FusedPolicyLoss { fused }.launch([backward(policy), 1, agents]),
        // Besides the step, the end of the update.
        FusedPolicyStep { fused }.launch([step(policy) + 1, 1, agents]),
    ]
}
