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
use ndarray::{Array1, ArrayView1};
use std::ops::Range;

pub(super) struct TwinQ<T> {
    twins: [Scalar<T>; 2],
    /// Q̄₁(s′, ã′) and Q̄₂(s′, ã′), `[B]`.
    target_q: [Array1<T>; 2],
    /// y, `[B]`.
    pub(super) y: Array1<T>,
    /// minᵢ Qᵢ(s, ã), `[B]`, and whether it is Q₁'s.
    q: Vec<T>,
    is_first: Vec<bool>,
}

impl<T: Real> TwinQ<T> {
    pub(super) fn new(specs: [&NetworkSpec; 2], config: &Config, blocks: &[Range<usize>], actions: usize) -> Self {
        let batch_size = config.batch_size;
        Self {
            twins: specs.map(|spec| Scalar {
                shape: spec.shape[0].clone(),
                parameters: Trainable::new(spec, config),
                pass: spec.shape[0].pass_to_inputs(blocks, actions),
            }),
            target_q: [Array1::zeros(batch_size), Array1::zeros(batch_size)],
            y: Array1::zeros(batch_size),
            q: vec![T::zero(); batch_size],
            is_first: vec![false; batch_size],
        }
    }
}

impl<T: Real> Critics<T> for TwinQ<T> {
    /// y = r + γ(1 − d)·(minᵢ Q̄ᵢ(s′, ã′) − α log π(ã′|s′))
    fn target(&mut self, batch: &Batch<T>, next: &PolicyPass<T>, alpha: T) {
        for_both(&mut self.twins, |_, Scalar { shape, parameters, pass }| {
            let target = parameters.target.as_ref().expect("it has a target network");
            shape.forward(target.weights(0), &[&batch.next_observation, next], pass);
        });
        for (target_q, twin) in self.target_q.iter_mut().zip(&self.twins) {
            target_q.iter_mut().zip(twin.pass.column()).for_each(|(to, q)| *to = q);
        }
        let [q1, q2] = &self.target_q;
        for (row, (y, log_prob)) in self.y.iter_mut().zip(next.log_prob()).enumerate() {
            let next_value = min(q1[row], q2[row]) - alpha * log_prob;
            *y = batch.reward[row] + batch.discount[row] * next_value;
        }
    }

    /// J_Q = Σᵢ mean (Qᵢ(s, a) − y)²
    fn loss(&mut self, batch: &Batch<T>) -> T {
        for_both(&mut self.twins, |_, Scalar { shape, parameters, pass }| {
            shape.forward(parameters.theta.weights(0), &[&batch.observation, &batch.action], pass);
        });
        let batch_size = T::of(self.y.len() as f64);
        let mut loss = T::zero();
        let [q1, q2] = self.twins.each_mut().map(|twin| twin.pass.column_and_gradient());
        for ((&y, q1), q2) in self.y.iter().zip(q1).zip(q2) {
            for (q, d_q) in [q1, q2] {
                let error = q - y;
                loss += error * error;
                *d_q = T::of(2.0) * error / batch_size;
            }
        }
        for_both(&mut self.twins, |_, Scalar { shape, parameters, pass }| {
            shape.backward(parameters.theta.weights(0), pass);
            shape.gradient(pass.blocks(), &mut parameters.gradient);
        });
        loss / batch_size
    }

    fn mean_q(&self) -> T {
        mean(self.twins.iter().flat_map(|twin| twin.pass.column()), 2 * self.y.len())
    }

    fn step(&mut self, follow: bool) {
        for_both(&mut self.twins, |_, twin| twin.parameters.step(follow));
    }

    /// minᵢ Qᵢ(s, ã)
    fn evaluate(&mut self, batch: &Batch<T>, current: &PolicyPass<T>) {
        for_both(&mut self.twins, |_, Scalar { shape, parameters, pass }| {
            shape.forward(parameters.theta.weights(0), &[&batch.observation, current], pass);
        });
        let [q1, q2] = self.twins.each_ref().map(|twin| twin.pass.column());
        for ((q, is_first), (q1, q2)) in self.q.iter_mut().zip(&mut self.is_first).zip(q1.zip(q2)) {
            (*q, *is_first) = (min(q1, q2), q1 <= q2);
        }
    }

    fn q(&self) -> &[T] {
        &self.q
    }

    /// Only the critic that is the minimum passes a gradient on, −1/B.
    fn action_gradient(&mut self, current: &mut PolicyPass<T>) {
        let (slope, is_first) = (-T::of(self.q.len() as f64).recip(), &self.is_first);
        for_both(&mut self.twins, |i, Scalar { shape, parameters, pass }| {
            pass.column_and_gradient().for_each(|(_, d_q)| *d_q = slope);
            shape.backward_to_inputs(parameters.theta.weights(0), |row| is_first[row] == (i == 0), pass);
        });
        current.set_action_gradient(&self.twins.each_ref().map(|twin| &twin.pass));
    }

    fn networks(&mut self) -> Vec<&mut Trainable<T>> {
        self.twins.iter_mut().map(|twin| &mut twin.parameters).collect()
    }

    fn targets(&self) -> ArrayView1<'_, T> {
        self.y.view()
    }

    fn intermediates(&self) -> Intermediates<'_, T> {
        let passes = self.twins.iter().map(|twin| &twin.pass).collect();
        let target_q = self.target_q.iter().flatten().copied().collect();
        let vectors = vec![("target_q", target_q), ("target", self.y.to_vec())];
        Intermediates { passes: vec![("critic", passes)], vectors }
    }
}

/// Does the same with both critics and their indices, at the same time.
fn for_both<T: Real>(twins: &mut [Scalar<T>; 2], work: impl Fn(usize, &mut Scalar<T>) + Sync) {
    let [q1, q2] = twins;
    join(|| work(0, q1), || work(1, q2));
}
