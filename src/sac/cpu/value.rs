//! Twin critics whose target takes a value network V̄ for s′, as in the first version of Soft Actor-Critic.
//!
//! Haarnoja et al., "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic Actor", arXiv
//! 1801.01290.

use super::critics::{Critics, Intermediates, Scalar};
use super::trainable::Trainable;
use super::twin_q::TwinQ;
use crate::config::Config;
use crate::nn::Real;
use crate::replay::Batch;
use crate::sac::{NetworkSpec, PolicyPass};
use std::ops::Range;

pub(super) struct TwinQWithValue<T> {
    critics: TwinQ<T>,
    /// V(s), and its slowly following copy V̄.
    value: Scalar<T>,
}

impl<T: Real> TwinQWithValue<T> {
    pub(super) fn new(critics: TwinQ<T>, spec: &NetworkSpec, config: &Config, blocks: &[Range<usize>]) -> Self {
        Self { critics, value: Scalar::new(spec, config, blocks, 0) }
    }
}

impl<T: Real> Critics<T> for TwinQWithValue<T> {
    fn uses_next_actions(&self) -> bool {
        false
    }

    /// J_Q = Σᵢ mean (Qᵢ(s, a) − y)², y = r + γ(1 − d)·V̄(s′)
    fn loss(&mut self, batch: &Batch<T>, _: &PolicyPass<T>, _: T) -> T {
        self.critics.forward(batch, None);
        self.value.forward_target(&[&batch.next_observation]);
        for (row, (y, &next_value)) in self.critics.y.iter_mut().zip(&self.value.y).enumerate() {
            *y = batch.reward[row] + batch.discount[row] * next_value;
        }
        self.critics.regress()
    }

    fn mean_q(&self) -> T {
        self.critics.mean_q()
    }

    fn step(&mut self, follow: bool) {
        self.critics.step(follow);
    }

    fn evaluate(&mut self, batch: &Batch<T>, current: &PolicyPass<T>) {
        self.critics.evaluate(batch, current);
    }

    fn q(&self) -> &[T] {
        self.critics.q()
    }

    /// J_V = mean (V(s) − (minᵢ Qᵢ(s, ã) − α log π(ã|s)))²
    fn value_loss(&mut self, batch: &Batch<T>, current: &PolicyPass<T>, alpha: T) -> Option<T> {
        self.value.forward(&[&batch.observation]);
        let batch_size = T::of(batch.reward.len() as f64);
        let mut loss = T::zero();
        for (row, (&q, &log_prob)) in self.critics.q().iter().zip(current.log_prob()).enumerate() {
            let error = self.value.y[row] - (q - alpha * log_prob);
            loss += error * error;
            self.value.d_y[row] = T::of(2.0) * error / batch_size;
        }
        self.value.backward();
        Some(loss / batch_size)
    }

    fn value_step(&mut self, follow: bool) {
        self.value.parameters.step(follow);
    }

    fn action_gradient(&mut self, current: &mut PolicyPass<T>) {
        self.critics.action_gradient(current);
    }

    fn networks(&mut self) -> Vec<&mut Trainable<T>> {
        let mut networks = self.critics.networks();
        networks.push(&mut self.value.parameters);
        networks
    }

    fn targets(&self) -> &[T] {
        self.critics.targets()
    }

    fn intermediates(&self) -> Intermediates<'_, T> {
        let mut intermediates = self.critics.intermediates();
        intermediates.passes.push(("value", vec![&self.value.pass]));
        intermediates
    }
}
