//! π(a|s): the network, or the two networks, whose outputs are the raw μ and the raw log σ of a tanh-Gaussian.

use crate::config::{Config, Heads};
use crate::nn::{Mlp, Real, TanhGaussian, Workspace, init};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis};
use rand::Rng;

/// The shape of a policy; its parameters are one flat vector, network after network.
#[derive(Clone, Debug)]
pub struct Policy {
    /// One network from observations `[B, O]` to both heads `[B, 2A]`, first μ, then log σ; or one to each, `[B, A]`.
    pub networks: Vec<Mlp>,
    /// What the heads mean.
    pub distribution: TanhGaussian,
}

/// What a pass over `B` observations leaves behind.
#[derive(Clone, Debug)]
pub struct PolicyWorkspace<T> {
    /// For each network.
    passes: Vec<Pass<T>>,
    /// a, `[B, A]`.
    pub action: Array2<T>,
    /// log π(a|s), `[B]`.
    pub log_prob: Array1<T>,
}

/// What a pass through one network leaves: its output, and ∂L/∂output.
#[derive(Clone, Debug)]
struct Pass<T> {
    network: Workspace<T>,
    output: Array2<T>,
    d_output: Array2<T>,
}

impl<T> PolicyWorkspace<T> {
    /// What each network leaves for its backward pass.
    pub fn networks(&self) -> impl Iterator<Item = &Workspace<T>> {
        self.passes.iter().map(|pass| &pass.network)
    }

    /// The output of each network.
    pub fn outputs(&self) -> impl Iterator<Item = &Array2<T>> {
        self.passes.iter().map(|pass| &pass.output)
    }

    /// ∂L/∂output of each network.
    pub fn d_outputs(&self) -> impl Iterator<Item = &Array2<T>> {
        self.passes.iter().map(|pass| &pass.d_output)
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

    /// Room for passes over `rows` observations.
    pub fn workspace<T: Real>(&self, rows: usize) -> PolicyWorkspace<T> {
        let pass = |network: &Mlp| {
            let output = Array2::zeros((rows, network.outputs()));
            Pass { network: network.workspace(rows), d_output: output.clone(), output }
        };
        PolicyWorkspace {
            passes: self.networks.iter().map(pass).collect(),
            action: Array2::zeros((rows, self.action_size())),
            log_prob: Array1::zeros(rows),
        }
    }

    /// Runs the networks over `observation` `[B, O]`.
    fn forward<T: Real>(&self, theta: &[T], observation: ArrayView2<T>, passes: &mut [Pass<T>]) {
        let mut rest = theta;
        for (network, Pass { network: workspace, output, .. }) in self.networks.iter().zip(passes) {
            let theta = rest.split_off(..network.parameters()).expect("θ has as many parameters as the networks");
            network.forward(theta, observation, workspace, output.view_mut());
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
        let PolicyWorkspace { passes, action, log_prob } = workspace;
        self.forward(theta, observation, passes);
        let (mean, log_std) = heads(passes);
        self.distribution.sample(mean, log_std, noise, action.view_mut(), log_prob.view_mut());
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
        let passes = &mut workspace.passes;
        let (mean, log_std, d_mean, d_log_std) = heads_and_gradients(passes);
        self.distribution.sample_backward(mean, log_std, noise, d_action, d_log_prob, d_mean, d_log_std);
        let (mut rest, mut d_rest) = (theta, d_theta);
        for (network, Pass { network: workspace, d_output, .. }) in self.networks.iter().zip(passes) {
            let theta = rest.split_off(..network.parameters()).expect("θ has as many parameters as the networks");
            let d_theta = d_rest.split_off_mut(..network.parameters()).expect("∂L/∂θ is as long as θ");
            network.backward(theta, observation, d_output.view(), workspace, Some(d_theta), None);
        }
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
            self.forward(theta, observation, &mut workspace.passes);
            self.distribution.mode(heads(&workspace.passes).0, action);
        }
    }
}

/// The raw μ and the raw log σ, `[B, A]`.
fn heads<T: Real>(passes: &[Pass<T>]) -> (ArrayView2<'_, T>, ArrayView2<'_, T>) {
    match passes {
        [both] => both.output.view().split_at(Axis(1), both.output.ncols() / 2),
        [mean, log_std] => (mean.output.view(), log_std.output.view()),
        _ => unreachable!("a policy has one network or two"),
    }
}

/// [`heads`], and room for the gradients over them.
#[allow(clippy::type_complexity)]
fn heads_and_gradients<T: Real>(
    passes: &mut [Pass<T>],
) -> (ArrayView2<'_, T>, ArrayView2<'_, T>, ArrayViewMut2<'_, T>, ArrayViewMut2<'_, T>) {
    match passes {
        [Pass { output, d_output, .. }] => {
            let actions = output.ncols() / 2;
            let (mean, log_std) = output.view().split_at(Axis(1), actions);
            let (d_mean, d_log_std) = d_output.view_mut().split_at(Axis(1), actions);
            (mean, log_std, d_mean, d_log_std)
        }
        [mean, log_std] => {
            (mean.output.view(), log_std.output.view(), mean.d_output.view_mut(), log_std.d_output.view_mut())
        }
        _ => unreachable!("a policy has one network or two"),
    }
}
