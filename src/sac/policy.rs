//! π(a|s): the network, or the two networks, whose outputs are the raw μ and the raw log σ of a tanh-Gaussian.

use crate::config::{Config, Heads};
use crate::nn::{Matrix, Mlp, Pass, Real, TanhGaussian, Theta, assert_shape, init};
use ndarray::{Array1, ArrayView2, ArrayViewMut2, Axis};
use rand::Rng;
use std::ops::Range;

/// The shape of a policy; its parameters are one flat vector, network after network.
#[derive(Clone, Debug)]
pub struct Policy {
    /// One network from observations `[B, O]` to both heads `[B, 2A]`, first μ, then log σ; or one to each, `[B, A]`.
    pub networks: Vec<Mlp>,
    /// What the heads mean.
    pub distribution: TanhGaussian,
}

/// A pass over `B` observations.
#[derive(Clone, Debug)]
pub struct PolicyPass<T> {
    /// Which rows of the batch they are.
    pub rows: Range<usize>,
    /// Through each network; their x are the observations.
    passes: Vec<Pass<T>>,
    /// a, `[B, A]`.
    pub action: Matrix<T>,
    /// ∂L/∂a, `[B, A]`.
    pub d_action: Matrix<T>,
    /// log π(a|s), `[B]`.
    pub log_prob: Array1<T>,
    /// ∂L/∂log π, `[B]`.
    pub d_log_prob: Array1<T>,
}

impl<T> PolicyPass<T> {
    /// The pass through network `i`.
    pub fn network(&self, i: usize) -> &Pass<T> {
        &self.passes[i]
    }
}

impl Policy {
    /// The policy that `config` describes.
    pub fn new(config: &Config, observation_size: usize, action_size: usize) -> Self {
        let network = |outputs| Mlp::new(observation_size, &config.policy_hidden, outputs, config.activation);
        let networks = match config.policy_heads {
            Heads::Shared => vec![network(2 * action_size)],
            Heads::Separate => vec![network(action_size), network(action_size)],
        };
        Self { networks, distribution: config.distribution() }
    }

    /// Parameters to begin with, as `config` says.
    pub fn initial<T: Real>(&self, config: &Config, rng: &mut impl Rng) -> Vec<T> {
        let heads = 2 / self.networks.len();
        let initial = |network| init::network(network, heads, config.hidden_init, config.output_init, &mut *rng);
        self.networks.iter().flat_map(initial).collect()
    }

    /// Number of observation dimensions, O.
    pub fn observation_size(&self) -> usize {
        self.networks[0].inputs()
    }

    /// Number of action dimensions, A.
    pub fn action_size(&self) -> usize {
        self.networks.iter().map(Mlp::outputs).sum::<usize>() / 2
    }

    /// Length of the flat parameter vector.
    pub fn parameters(&self) -> usize {
        self.networks.iter().map(Mlp::parameters).sum()
    }

    /// Room for a pass over those `rows` of a batch.
    pub fn pass<T: Real>(&self, rows: Range<usize>) -> PolicyPass<T> {
        let (count, actions) = (rows.len(), self.action_size());
        PolicyPass {
            rows,
            passes: self.networks.iter().map(|network| network.pass(count)).collect(),
            action: Matrix::zeros(count, actions),
            d_action: Matrix::zeros(count, actions),
            log_prob: Array1::zeros(count),
            d_log_prob: Array1::zeros(count),
        }
    }

    /// `values` as parameters of the networks, on the way forward and, if there is one, the way `back`.
    pub fn theta<T: Real>(&self, values: &[T], back: bool) -> Theta<T> {
        Theta::new(values, &self.networks, back)
    }

    /// Runs the networks over `observation` `[B, O]`.
    fn forward<T: Real>(&self, theta: &Theta<T>, observation: ArrayView2<T>, passes: &mut [Pass<T>]) {
        assert_shape("the observation", observation.shape(), passes[0].x.view().shape());
        for (i, (network, pass)) in self.networks.iter().zip(passes).enumerate() {
            pass.x.view_mut().assign(&observation);
            network.forward(theta.weights(i), pass);
        }
    }

    /// ã = tanh(μ(s) + σ(s)·ε) and log π(ã|s), left in `pass`.
    ///
    /// `observation` is `[B, O]`, `noise` (ε) is `[B, A]`.
    ///
    /// # Panics
    /// If one of them is of another shape, where B is what `pass` has room for.
    pub fn sample<T: Real>(
        &self,
        theta: &Theta<T>,
        observation: ArrayView2<T>,
        noise: ArrayView2<T>,
        pass: &mut PolicyPass<T>,
    ) {
        let PolicyPass { passes, action, log_prob, .. } = pass;
        assert_shape("the noise", noise.shape(), action.view().shape());
        self.forward(theta, observation, passes);
        let (mean, log_std) = heads(passes);
        self.distribution.sample(mean, log_std, noise, action.view_mut(), log_prob.view_mut());
    }

    /// The backward pass of [`Self::sample`], from the pass's ∂L/∂ã and ∂L/∂log π to what [`Self::gradient`] needs.
    pub fn sample_backward<T: Real>(&self, theta: &Theta<T>, noise: ArrayView2<T>, pass: &mut PolicyPass<T>) {
        let PolicyPass { passes, d_action, d_log_prob, .. } = pass;
        let (mean, log_std, d_mean, d_log_std) = heads_and_gradients(passes);
        let d_log_prob = d_log_prob.view();
        self.distribution.sample_backward(mean, log_std, noise, d_action.view(), d_log_prob, d_mean, d_log_std);
        for (i, (network, pass)) in self.networks.iter().zip(passes).enumerate() {
            network.backward(theta.weights(i), pass);
        }
    }

    /// ∂L/∂θ over all rows of all `passes`, each of which has gone forward and backward; it overwrites `d_theta`.
    pub fn gradient<'a, T: Real>(
        &self,
        passes: impl Iterator<Item = &'a PolicyPass<T>> + Clone + Sync,
        d_theta: &mut [T],
    ) {
        let mut rest = d_theta;
        for (i, network) in self.networks.iter().enumerate() {
            let d_theta = rest.split_off_mut(..network.parameters()).expect("∂L/∂θ is as long as θ");
            network.gradient(passes.clone().map(|pass| &pass.passes[i]), d_theta);
        }
    }

    /// Writes the `action` to take, `[B, A]`, upon `observation` `[B, O]`: sampled if there is `noise` `[B, A]`, else
    /// the deterministic tanh(μ(s)).
    ///
    /// # Panics
    /// If one of them is of another shape, where B is what `pass` has room for.
    pub fn act<T: Real>(
        &self,
        theta: &Theta<T>,
        observation: ArrayView2<T>,
        noise: Option<ArrayView2<T>>,
        pass: &mut PolicyPass<T>,
        mut action: ArrayViewMut2<T>,
    ) {
        assert_shape("the action", action.shape(), pass.action.view().shape());
        if let Some(noise) = noise {
            self.sample(theta, observation, noise, pass);
            action.assign(&pass.action.view());
        } else {
            self.forward(theta, observation, &mut pass.passes);
            self.distribution.mode(heads(&pass.passes).0, action);
        }
    }
}

/// The raw μ and the raw log σ, `[B, A]`.
fn heads<T: Real>(passes: &[Pass<T>]) -> (ArrayView2<'_, T>, ArrayView2<'_, T>) {
    match passes {
        [both] => both.y.view().split_at(Axis(1), both.y.view().ncols() / 2),
        [mean, log_std] => (mean.y.view(), log_std.y.view()),
        _ => unreachable!("a policy has one network or two"),
    }
}

/// [`heads`], and room for the gradients over them.
#[allow(clippy::type_complexity)]
fn heads_and_gradients<T: Real>(
    passes: &mut [Pass<T>],
) -> (ArrayView2<'_, T>, ArrayView2<'_, T>, ArrayViewMut2<'_, T>, ArrayViewMut2<'_, T>) {
    match passes {
        [Pass { y, d_y, .. }] => {
            let actions = y.view().ncols() / 2;
            let (mean, log_std) = y.view().split_at(Axis(1), actions);
            let (d_mean, d_log_std) = d_y.view_mut().split_at(Axis(1), actions);
            (mean, log_std, d_mean, d_log_std)
        }
        [mean, log_std] => (mean.y.view(), log_std.y.view(), mean.d_y.view_mut(), log_std.d_y.view_mut()),
        _ => unreachable!("a policy has one network or two"),
    }
}
