//! The policy as it is trained: ã ~ π(·|s), ã′ ~ π(·|s′), and J_π.

use super::mean;
use super::trainable::Trainable;
use crate::config::Config;
use crate::nn::threads::join;
use crate::nn::{Aligned, Real};
use crate::replay::Batch;
use crate::sac::{NetworkSpec, Noise, Policy, PolicyPass};
use std::ops::Range;

pub(super) struct Actor<T> {
    pub(super) policy: Policy,
    pub(super) parameters: Trainable<T>,
    /// Over s.
    pub(super) current: PolicyPass<T>,
    /// Over s′.
    pub(super) next: PolicyPass<T>,
    scratch: Aligned<T>,
    batch_size: usize,
}

impl<T: Real> Actor<T> {
    pub(super) fn new(policy: Policy, spec: &NetworkSpec, config: &Config, blocks: &[Range<usize>]) -> Self {
        Self {
            parameters: Trainable::new(spec, config),
            current: policy.pass(blocks),
            next: policy.pass(blocks),
            scratch: Aligned::zeros(if blocks.len() > 1 { policy.parameters() } else { 0 }),
            batch_size: config.batch_size,
            policy,
        }
    }

    /// ã ~ π(·|s) and, if the critics' target needs it, ã′ ~ π(·|s′), with their log-probabilities.
    pub(super) fn sample(&mut self, batch: &Batch<T>, noise: &Noise<T>, with_next: bool) {
        let Self { policy, parameters: Trainable { theta, .. }, current, next, .. } = self;
        join(
            || policy.sample(theta, &batch.observation, &noise.current, current),
            || with_next.then(|| policy.sample(theta, &batch.next_observation, &noise.next, next)),
        );
    }

    /// J_π = mean (α log π(ã|s) − Q(s, ã)), and its gradient; ∂J_π/∂ã has been set in `current`.
    pub(super) fn loss(&mut self, alpha: T, q: &[T], noise: &Noise<T>) -> T {
        let batch_size = T::of(self.batch_size as f64);
        let mut loss = T::zero();
        for (&log_prob, &q) in self.current.log_prob().iter().zip(q) {
            loss += alpha * log_prob - q;
        }
        let Self { policy, parameters: Trainable { theta, gradient, .. }, current, scratch, .. } = self;
        policy.sample_backward(theta, &noise.current, alpha / batch_size, current, gradient, scratch);
        loss / batch_size
    }

    /// mean log π(ã|s)
    pub(super) fn mean_log_prob(&self) -> T {
        mean(self.current.log_prob().iter().copied(), self.batch_size)
    }
}
