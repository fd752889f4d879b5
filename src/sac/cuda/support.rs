//! What a GPU supports: the one place that decides how it makes the updates of a configuration, or why it does not.
//!
//! A new field of [`Config`] that kernels do not know is refused by a line in [`refusal`]; one that the fused kernels alone do
//! not know, by a line in [`not_fused`].

use crate::config::{Bootstrap, Config, FirstUpdateAlpha, GradientClamp, Heads, LossOrder, MaxGradientNorm, Precision};
use crate::env::DeviceEnv;
use crate::error::Error;
use crate::gpu::kernels::TILE;
use crate::nn::Activation;

/// The most actions, `MOST_ACTIONS` of the fused kernels, and the widest layer.
const MOST_ACTIONS: usize = 32;
const WIDEST: usize = 1024;

/// How a GPU makes the updates of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// In eight kernels, those of [`super::fused`].
    Fused,
    /// In a kernel for each step of a layer.
    LayerByLayer,
    /// Not at all; says why, and what to do instead.
    Refused(String),
}

impl Support {
    /// That of updates of `config` in an environment of so many action dimensions.
    pub fn of(config: &Config, actions: usize) -> Self {
        if let Some(field) = refusal(config) {
            return Self::Refused(format!("{field} is for the CPU alone; say --device cpu"));
        }
        match not_fused(config, actions) {
            None => Self::Fused,
            Some(what) if config.precision == Precision::Tf32 => Self::Refused(format!(
                "precision is tf32, which only fused updates have, and with this {what} updates are made layer by layer; \
                 say --precision f32, or see docs/cuda.md for what is fused"
            )),
            Some(_) => Self::LayerByLayer,
        }
    }

    /// Whether updates are fused.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason if they are refused.
    pub fn is_fused(self) -> Result<bool, Error> {
        match self {
            Self::Fused => Ok(true),
            Self::LayerByLayer => Ok(false),
            Self::Refused(reason) => Err(Error::Device(reason)),
        }
    }
}

/// The first field whose value no kernel knows.
fn refusal(config: &Config) -> Option<&'static str> {
    first(&[
        (config.max_gradient_norm != MaxGradientNorm::Off, "max_gradient_norm"),
        (config.normalize_observations, "normalize_observations"),
    ])
}

/// The first field whose value the fused kernels do not know; of the environment, its actions.
fn not_fused(config: &Config, actions: usize) -> Option<&'static str> {
    let fits = |hidden: &[usize]| {
        hidden.len() == 2 && hidden.iter().all(|&width| width.is_multiple_of(TILE) && (1..=WIDEST).contains(&width))
    };
    first(&[
        (config.bootstrap != Bootstrap::TargetQ, "bootstrap"),
        (config.loss_order != LossOrder::Sequential, "loss_order"),
        (config.policy_delay != 1, "policy_delay"),
        (config.policy_heads != Heads::Shared, "policy_heads"),
        (config.gradient_clamp != GradientClamp::Off, "gradient_clamp"),
        (config.activation != Activation::Relu, "activation"),
        (!fits(&config.policy_hidden), "policy_hidden"),
        (!fits(&config.critic_hidden), "critic_hidden"),
        (actions > MOST_ACTIONS, "actions"),
    ])
}

/// The name of the first that applies.
fn first(reasons: &[(bool, &'static str)]) -> Option<&'static str> {
    reasons.iter().find(|(applies, _)| *applies).map(|&(_, name)| name)
}

/// Whether the device also takes the steps of this environment, between updates that are fused.
pub(super) fn steps_environment(config: &Config, env: DeviceEnv) -> bool {
    let DeviceEnv::Pendulum = env;
    // The recorded steps contain updates of one kind: the first update must not have an α of its own.
    let alike = config.first_update_alpha == FirstUpdateAlpha::Initial;
    config.envs == 1 && config.n_step == 1 && config.utd <= 1.0 && alike
}

#[cfg(test)]
mod tests {
    use super::*;

    fn support(change: fn(&mut Config), actions: usize) -> Support {
        let mut config = Config::default();
        change(&mut config);
        Support::of(&config, actions)
    }

    #[test]
    fn the_defaults_are_fused_and_nothing_that_the_fused_kernels_cannot_do() {
        assert_eq!(support(|_| (), 6), Support::Fused);
        assert_eq!(support(|config| config.critic_hidden = vec![32, 1024], 6), Support::Fused);
        assert_eq!(support(|_| (), MOST_ACTIONS), Support::Fused);
        assert_eq!(support(|_| (), MOST_ACTIONS + 1), Support::LayerByLayer);
        let others: [fn(&mut Config); 12] = [
            |config| config.bootstrap = Bootstrap::ValueNetwork,
            |config| config.loss_order = LossOrder::Simultaneous,
            |config| config.loss_order = LossOrder::TemperatureFirst,
            |config| config.policy_delay = 2,
            |config| config.policy_heads = Heads::Separate,
            |config| config.gradient_clamp = GradientClamp::Fixed(1.0),
            |config| config.activation = Activation::Tanh,
            |config| config.policy_hidden = vec![256],
            |config| config.critic_hidden = vec![256; 3],
            |config| config.policy_hidden = vec![256, 40],
            |config| config.critic_hidden = vec![48, 256],
            |config| config.critic_hidden = vec![256, 1056],
        ];
        for (i, change) in others.into_iter().enumerate() {
            assert_eq!(support(change, 6), Support::LayerByLayer, "the choice {i}");
        }
    }

    #[test]
    fn what_no_kernel_knows_is_refused_by_its_name() {
        type Change = fn(&mut Config);
        let refused: [(Change, &str); 3] = [
            (|config| config.max_gradient_norm = MaxGradientNorm::Fixed(1.0), "max_gradient_norm"),
            (|config| config.normalize_observations = true, "normalize_observations"),
            (|config| (config.precision, config.policy_delay) = (Precision::Tf32, 2), "precision"),
        ];
        for (change, field) in refused {
            let Support::Refused(reason) = support(change, 6) else { panic!("{field} is supported") };
            assert!(reason.starts_with(field), "{reason}");
        }
    }
}
