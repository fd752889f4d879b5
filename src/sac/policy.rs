//! π(a|s): a network whose outputs are μ and the raw log σ of a tanh-Gaussian.

use crate::config::Config;
use crate::nn::{Mlp, Real, TanhGaussian, Workspace};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis};

/// The shape of a policy; its parameters are one flat vector.
#[derive(Clone, Debug)]
pub struct Policy {
    /// From observations `[B, O]` to the heads `[B, 2A]`: first μ, then the raw log σ.
    pub network: Mlp,
    /// What the heads mean.
    pub distribution: TanhGaussian,
}

/// What a pass over `B` observations leaves behind.
#[derive(Clone, Debug)]
pub struct PolicyWorkspace<T> {
    network: Workspace<T>,
    heads: Array2<T>,
    d_heads: Array2<T>,
    /// a, `[B, A]`.
    pub action: Array2<T>,
    /// log π(a|s), `[B]`.
    pub log_prob: Array1<T>,
}

impl Policy {
    /// The policy that `config` describes.
    pub fn new(config: &Config, observation_size: usize, action_size: usize) -> Self {
        Self {
            network: Mlp::new(observation_size, &config.policy_hidden, 2 * action_size, config.activation),
            distribution: TanhGaussian { log_std: config.log_std() },
        }
    }

    /// Number of action dimensions, A.
    pub fn action_size(&self) -> usize {
        self.network.outputs() / 2
    }

    /// Room for passes over `rows` observations.
    pub fn workspace<T: Real>(&self, rows: usize) -> PolicyWorkspace<T> {
        let heads = Array2::zeros((rows, self.network.outputs()));
        PolicyWorkspace {
            network: self.network.workspace(rows),
            d_heads: heads.clone(),
            heads,
            action: Array2::zeros((rows, self.action_size())),
            log_prob: Array1::zeros(rows),
        }
    }

    /// ã = tanh(μ(s) + σ(s)·ε) and log π(ã|s), left in `workspace`.
    ///
    /// `observation` is `[B, O]`, `noise` (ε) is `[B, A]`.
    pub fn sample<T: Real>(
        &self,
        theta: &[T],
        observation: ArrayView2<T>,
        noise: ArrayView2<T>,
        workspace: &mut PolicyWorkspace<T>,
    ) {
        let PolicyWorkspace { network, heads, action, log_prob, .. } = workspace;
        self.network.forward(theta, observation, network, heads.view_mut());
        let (mean, raw_log_std) = heads.view().split_at(Axis(1), self.action_size());
        self.distribution.sample(mean, raw_log_std, noise, action.view_mut(), log_prob.view_mut());
    }

    /// The backward pass of [`Self::sample`]: from ∂L/∂ã as `d_action` `[B, A]` and ∂L/∂log π as `d_log_prob` `[B]` to
    /// ∂L/∂θ, which overwrites `d_theta`.
    #[allow(clippy::too_many_arguments)]
    pub fn sample_backward<T: Real>(
        &self,
        theta: &[T],
        observation: ArrayView2<T>,
        noise: ArrayView2<T>,
        d_action: ArrayView2<T>,
        d_log_prob: ArrayView1<T>,
        workspace: &mut PolicyWorkspace<T>,
        d_theta: &mut [T],
    ) {
        let PolicyWorkspace { network, heads, d_heads, .. } = workspace;
        let (mean, raw_log_std) = heads.view().split_at(Axis(1), self.action_size());
        let (d_mean, d_raw_log_std) = d_heads.view_mut().split_at(Axis(1), self.action_size());
        self.distribution.sample_backward(mean, raw_log_std, noise, d_action, d_log_prob, d_mean, d_raw_log_std);
        self.network.backward(theta, observation, d_heads.view(), network, Some(d_theta), None);
    }

    /// Writes the action to take: sampled if there is `noise` `[B, A]`, else the deterministic tanh(μ(s)).
    pub fn act<T: Real>(
        &self,
        theta: &[T],
        observation: ArrayView2<T>,
        noise: Option<ArrayView2<T>>,
        workspace: &mut PolicyWorkspace<T>,
        mut action: ArrayViewMut2<T>,
    ) {
        if let Some(noise) = noise {
            self.sample(theta, observation, noise, workspace);
            action.assign(&workspace.action);
        } else {
            let PolicyWorkspace { network, heads, .. } = workspace;
            self.network.forward(theta, observation, network, heads.view_mut());
            self.distribution.mode(heads.view().split_at(Axis(1), self.action_size()).0, action);
        }
    }
}
