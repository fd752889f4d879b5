//! The temperature α, fixed or tuned towards a target entropy.

use super::trainable::Trainable;
use crate::config::{Alpha, Config, FirstUpdateAlpha, TemperatureLoss};
use crate::nn::Real;

pub(super) struct Temperature<T> {
    /// log α, one element; it stays as it is if α is fixed.
    pub(super) log_alpha: Trainable<T>,
    fixed: Option<T>,
    /// α of the first update, if it is another.
    first: Option<T>,
    pub(super) loss: TemperatureLoss,
    /// H̄
    pub(super) target_entropy: T,
}

impl<T: Real> Temperature<T> {
    /// `half_range` is ½(high − low) of each action dimension, `[A]`.
    pub(super) fn new(config: &Config, half_range: &[f32]) -> Self {
        let log_alpha = T::of(config.initial_alpha.ln());
        Self {
            log_alpha: Trainable::scalar("log_alpha", log_alpha, config.temperature_learning_rate),
            fixed: match config.alpha {
                Alpha::Auto => None,
                Alpha::Fixed(alpha) => Some(T::of(alpha)),
            },
            first: match config.first_update_alpha {
                FirstUpdateAlpha::Initial => None,
                FirstUpdateAlpha::Fixed(alpha) => Some(T::of(alpha)),
            },
            loss: config.temperature_loss,
            target_entropy: T::of(config.target_entropy(half_range.iter().map(|&half| f64::from(half)))),
        }
    }

    pub(super) fn is_tuned(&self) -> bool {
        self.fixed.is_none()
    }

    /// α, after so many updates.
    pub(super) fn alpha(&self, updates: u64) -> T {
        let first = self.first.filter(|_| updates == 0);
        self.fixed.or(first).unwrap_or_else(|| self.log_alpha.theta[0].exp())
    }

    /// J_α = −log α · mean (log π(ã|s) + H̄), or −α · mean (log π(ã|s) + H̄), and its gradient over log α.
    pub(super) fn loss(&mut self, mean_log_prob: T) -> T {
        let gap = mean_log_prob + self.target_entropy;
        let log_alpha = self.log_alpha.theta[0];
        let (factor, slope) = match self.loss {
            TemperatureLoss::LogAlpha => (log_alpha, T::one()),
            TemperatureLoss::Alpha => (log_alpha.exp(), log_alpha.exp()),
        };
        self.log_alpha.gradient[0] = -slope * gap;
        -factor * gap
    }
}
