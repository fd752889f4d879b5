//! Twin critics Q₁, Q₂ with target networks Q̄₁, Q̄₂; the smaller value counts.
//!
//! Fujimoto et al., "Addressing Function Approximation Error in Actor-Critic Methods", arXiv 1802.09477, and Haarnoja et al.,
//! arXiv 1812.05905.

use super::critics::{Critics, Intermediates, Scalar};
use super::trainable::Trainable;
use super::{mean, min};
use crate::config::Config;
use crate::nn::Real;
use crate::nn::threads::join;
use crate::replay::Batch;
use crate::sac::{NetworkSpec, PolicyPass};
use std::ops::Range;

pub(super) struct TwinQ<T> {
    twins: [Twin<T>; 2],
    /// y, `[B]`.
    pub(super) y: Vec<T>,
    /// minᵢ Qᵢ(s, ã), `[B]`, and whether it is Q₁'s.
    q: Vec<T>,
    is_first: Vec<bool>,
}

/// One of the critics.
struct Twin<T> {
    critic: Scalar<T>,
    /// Q̄(s′, ã′), `[B]`.
    target_q: Vec<T>,
}

impl<T: Real> TwinQ<T> {
    pub(super) fn new(specs: [&NetworkSpec; 2], config: &Config, blocks: &[Range<usize>], actions: usize) -> Self {
        let column = vec![T::zero(); config.batch_size];
        Self {
            twins: specs
                .map(|spec| Twin { critic: Scalar::new(spec, config, blocks, actions), target_q: column.clone() }),
            y: column.clone(),
            q: column,
            is_first: vec![false; config.batch_size],
        }
    }

    /// Qᵢ(s, a), after Q̄ᵢ(s′, ã′) if there is ã′.
    pub(super) fn forward(&mut self, batch: &Batch<T>, next: Option<&PolicyPass<T>>) {
        for_both(&mut self.twins, |_, Twin { critic, target_q }| {
            if let Some(next) = next {
                critic.forward_target(&[&batch.next_observation, next]);
                target_q.copy_from_slice(&critic.y);
            }
            critic.forward(&[&batch.observation, &batch.action]);
        });
    }

    /// Σᵢ mean (Qᵢ(s, a) − y)² after [`Self::forward`], and its gradient.
    pub(super) fn regress(&mut self) -> T {
        let batch_size = T::of(self.y.len() as f64);
        let mut loss = T::zero();
        for (row, &y) in self.y.iter().enumerate() {
            for Twin { critic, .. } in &mut self.twins {
                let error = critic.y[row] - y;
                loss += error * error;
                critic.d_y[row] = T::of(2.0) * error / batch_size;
            }
        }
        for_both(&mut self.twins, |_, twin| twin.critic.backward());
        loss / batch_size
    }
}

impl<T: Real> Critics<T> for TwinQ<T> {
    /// J_Q = Σᵢ mean (Qᵢ(s, a) − y)², y = r + γ(1 − d)·(minᵢ Q̄ᵢ(s′, ã′) − α log π(ã′|s′))
    fn loss(&mut self, batch: &Batch<T>, next: &PolicyPass<T>, alpha: T) -> T {
        self.forward(batch, Some(next));
        let [q1, q2] = self.twins.each_ref().map(|twin| &twin.target_q);
        for (row, (y, &log_prob)) in self.y.iter_mut().zip(next.log_prob()).enumerate() {
            let next_value = min(q1[row], q2[row]) - alpha * log_prob;
            *y = batch.reward[row] + batch.discount[row] * next_value;
        }
        self.regress()
    }

    fn mean_q(&self) -> T {
        mean(self.twins.iter().flat_map(|twin| &twin.critic.y).copied(), 2 * self.y.len())
    }

    fn step(&mut self, follow: bool) {
        for_both(&mut self.twins, |_, twin| twin.critic.parameters.step(follow));
    }

    /// minᵢ Qᵢ(s, ã)
    fn evaluate(&mut self, batch: &Batch<T>, current: &PolicyPass<T>) {
        for_both(&mut self.twins, |_, twin| twin.critic.forward(&[&batch.observation, current]));
        let [q1, q2] = self.twins.each_ref().map(|twin| &twin.critic.y);
        for (row, (q, is_first)) in self.q.iter_mut().zip(&mut self.is_first).enumerate() {
            (*q, *is_first) = (min(q1[row], q2[row]), q1[row] <= q2[row]);
        }
    }

    fn q(&self) -> &[T] {
        &self.q
    }

    /// Only the critic that is the minimum passes a gradient on, −1/B.
    fn action_gradient(&mut self, current: &mut PolicyPass<T>) {
        let (slope, is_first) = (-T::of(self.q.len() as f64).recip(), &self.is_first);
        for_both(&mut self.twins, |i, Twin { critic, .. }| {
            critic.d_y.fill(slope);
            critic.backward_to_inputs(|row| is_first[row] == (i == 0));
        });
        current.set_action_gradient(&self.twins.each_ref().map(|twin| &twin.critic.pass));
    }

    fn networks(&mut self) -> Vec<&mut Trainable<T>> {
        self.twins.iter_mut().map(|twin| &mut twin.critic.parameters).collect()
    }

    fn targets(&self) -> &[T] {
        &self.y
    }

    fn intermediates(&self) -> Intermediates<'_, T> {
        let passes = self.twins.iter().map(|twin| &twin.critic.pass).collect();
        let target_q = self.twins.iter().flat_map(|twin| &twin.target_q).copied().collect();
        let vectors = vec![("target_q", target_q), ("target", self.y.clone())];
        Intermediates { passes: vec![("critic", passes)], vectors }
    }
}

/// Does the same with both critics and their indices, at the same time.
fn for_both<T: Real>(twins: &mut [Twin<T>; 2], work: impl Fn(usize, &mut Twin<T>) + Sync) {
    let [q1, q2] = twins;
    join(|| work(0, q1), || work(1, q2));
}
