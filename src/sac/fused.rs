//! The update in eight kernels, those of `kernels/fused.cu`: which configurations it covers, and its launches.

use crate::config::{Bootstrap, Config, GradientClamp, Heads, LossOrder, MaxGradientNorm};
use crate::gpu::kernels::{
    Arguments, Fused, FusedActionGradient, FusedCriticLoss, FusedCriticStep, FusedEvaluate, FusedForward, FusedNetwork,
    FusedPolicyLoss, FusedPolicyStep, FusedTarget, Launch, THREADS, TILE,
};
use crate::nn::Activation;

/// The most actions, `MOST_ACTIONS` of `kernels/fused.cu`, and the widest layer.
const MOST_ACTIONS: usize = 32;
const WIDEST: usize = 1024;
/// Rows of `Fused::sums`, `SUMS` of `kernels/fused.cu`.
pub const SUMS: usize = 6;

/// Whether updates of this configuration, with so many action dimensions, are made by the fused kernels; all others are made
/// layer by layer.
pub fn covers(config: &Config, actions: usize) -> bool {
    let fits = |hidden: &[usize]| {
        hidden.len() == 2 && hidden.iter().all(|&width| width.is_multiple_of(TILE) && (1..=WIDEST).contains(&width))
    };
    config.bootstrap == Bootstrap::TargetQ
        && config.loss_order == LossOrder::Sequential
        && config.policy_delay == 1
        && config.policy_heads == Heads::Shared
        && config.gradient_clamp == GradientClamp::Off
        && config.max_gradient_norm == MaxGradientNorm::Off
        && config.activation == Activation::Relu
        && fits(&config.policy_hidden)
        && fits(&config.critic_hidden)
        && actions <= MOST_ACTIONS
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_covered_and_nothing_that_the_kernels_cannot_do() {
        let covered = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            covers(&config, 6)
        };
        assert!(covered(|_| ()) && covered(|config| config.critic_hidden = vec![32, 1024]));
        assert!(covers(&Config::default(), MOST_ACTIONS) && !covers(&Config::default(), MOST_ACTIONS + 1));
        let others: [fn(&mut Config); 13] = [
            |config| config.bootstrap = Bootstrap::ValueNetwork,
            |config| config.loss_order = LossOrder::Simultaneous,
            |config| config.loss_order = LossOrder::TemperatureFirst,
            |config| config.policy_delay = 2,
            |config| config.policy_heads = Heads::Separate,
            |config| config.gradient_clamp = GradientClamp::Fixed(1.0),
            |config| config.max_gradient_norm = MaxGradientNorm::Fixed(1.0),
            |config| config.activation = Activation::Tanh,
            |config| config.policy_hidden = vec![256],
            |config| config.critic_hidden = vec![256; 3],
            |config| config.policy_hidden = vec![256, 40],
            |config| config.critic_hidden = vec![48, 256],
            |config| config.critic_hidden = vec![256, 1056],
        ];
        for (i, change) in others.into_iter().enumerate() {
            assert!(!covered(change), "the choice {i}");
        }
    }
}
