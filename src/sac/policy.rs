//! The tanh-Gaussian policy: observations through a network to raw μ and raw log σ, and those to actions.

use crate::config::{Config, Heads};
use crate::nn::threads::{for_each, join};
use crate::nn::{Block, Matrix, Network, Pass, Real, Rows, TanhGaussian, Theta, accumulate, assert_shape};
use ndarray::{Array1, ArrayView2, ArrayViewMut2, Axis};
use rand::Rng;
use std::ops::Range;

/// The shape of a policy; its parameters are one flat vector, network after network.
#[derive(Clone, Debug)]
pub struct Policy {
    /// One network from observations `[B, O]` to both heads `[B, 2A]`, first μ, then log σ; or one to each, `[B, A]`.
    pub networks: Vec<Network>,
    /// What the heads mean.
    pub distribution: TanhGaussian,
}

/// A pass over `B` observations.
#[derive(Clone, Debug)]
pub struct PolicyPass<T> {
    /// Through each network.
    networks: Vec<Pass<T>>,
    /// For each block of rows.
    samples: Vec<Samples<T>>,
    /// log π(ã|s), `[B]`.
    log_prob: Vec<T>,
}

/// The actions of some neighbouring rows of a batch.
#[derive(Clone, Debug)]
pub struct Samples<T> {
    /// Which rows they are.
    rows: Range<usize>,
    /// ã, `[rows, A]`.
    pub action: Matrix<T>,
    /// ∂L/∂ã, `[rows, A]`.
    pub d_action: Matrix<T>,
    /// log π(ã|s), `[rows]`.
    log_prob: Array1<T>,
    /// ∂L/∂log π, `[rows]`.
    d_log_prob: Array1<T>,
}

/// The actions.
impl<T: Real> Rows<T> for PolicyPass<T> {
    fn block(&self, rows: &Range<usize>) -> ArrayView2<'_, T> {
        let block = self.samples.iter().find(|block| block.rows == *rows);
        block.expect("a batch is divided in one way").action.view()
    }
}

impl<T: Real> PolicyPass<T> {
    /// The pass through network `i`.
    pub fn network(&self, i: usize) -> &Pass<T> {
        &self.networks[i]
    }

    /// The actions, in the order of their rows.
    pub fn samples(&self) -> &[Samples<T>] {
        &self.samples
    }

    /// log π(ã|s), `[B]`.
    pub fn log_prob(&self) -> &[T] {
        &self.log_prob
    }

    /// Makes ∂L/∂ã the sum of what [`Network::backward_to_inputs`] has left in passes of the critics.
    pub fn set_action_gradient(&mut self, critics: &[&Pass<T>]) {
        for_each(&mut self.samples[..], &|i, Samples { d_action, .. }| {
            // From −0, the first term of a sum keeps its sign.
            let mut to = d_action.view_mut();
            to.fill(-T::zero());
            for pass in critics {
                let (rows, gradient) = pass.blocks()[i].input_gradient();
                for (&row, from) in rows.iter().zip(gradient.rows()) {
                    to.row_mut(row).iter_mut().zip(from).for_each(|(to, &from)| *to += from);
                }
            }
        });
    }

    fn batch_size(&self) -> usize {
        self.log_prob.len()
    }
}

impl Policy {
    /// The policy that `config` describes.
    pub fn new(config: &Config, observation_size: usize, action_size: usize) -> Self {
        let network = |outputs| Network::new(observation_size, &config.policy_hidden, outputs, config.activation);
        let networks = match config.policy_heads {
            Heads::Shared => vec![network(2 * action_size)],
            Heads::Separate => vec![network(action_size), network(action_size)],
        };
        Self { networks, distribution: config.distribution() }
    }

    /// Initial parameters, by the rules of `config`.
    pub fn initial<T: Real>(&self, config: &Config, rng: &mut impl Rng) -> Vec<T> {
        let heads = 2 / self.networks.len();
        let initial = |network: &Network| network.initial(heads, config.hidden_init, config.output_init, &mut *rng);
        self.networks.iter().flat_map(initial).collect()
    }

    /// Number of observation dimensions, O.
    pub fn observation_size(&self) -> usize {
        self.networks[0].inputs()
    }

    /// Number of action dimensions, A.
    pub fn action_size(&self) -> usize {
        self.networks.iter().map(Network::outputs).sum::<usize>() / 2
    }

    /// Length of the flat parameter vector.
    pub fn parameters(&self) -> usize {
        self.networks.iter().map(Network::parameters).sum()
    }

    /// Room for passes over a batch divided into `blocks`.
    pub fn pass<T: Real>(&self, blocks: &[Range<usize>]) -> PolicyPass<T> {
        let samples = |rows: &Range<usize>| Samples {
            rows: rows.clone(),
            action: Matrix::zeros(rows.len(), self.action_size()),
            d_action: Matrix::zeros(rows.len(), self.action_size()),
            log_prob: Array1::zeros(rows.len()),
            d_log_prob: Array1::zeros(rows.len()),
        };
        PolicyPass {
            networks: self.networks.iter().map(|network| network.pass(blocks)).collect(),
            samples: blocks.iter().map(samples).collect(),
            log_prob: vec![T::zero(); blocks.last().map_or(0, |rows| rows.end)],
        }
    }

    /// `values` as parameters of the networks, for passes forward and, if `back`, backward.
    pub fn theta<T: Real>(&self, values: &[T], back: bool) -> Theta<T> {
        Theta::new(values, &self.networks, back)
    }

    /// Runs the networks over `observation` `[B, O]`.
    fn forward<T: Real>(&self, theta: &Theta<T>, observation: &dyn Rows<T>, passes: &mut [Pass<T>]) {
        for (i, (network, pass)) in self.networks.iter().zip(passes).enumerate() {
            network.forward(theta.weights(i), &[observation], pass);
        }
    }

    /// ã = tanh(μ(s) + σ(s)·ε) and log π(ã|s), left in `pass`.
    ///
    /// `observation` is `[B, O]`, `noise` (ε) is `[B, A]`.
    pub fn sample<T: Real>(
        &self,
        theta: &Theta<T>,
        observation: &dyn Rows<T>,
        noise: &dyn Rows<T>,
        pass: &mut PolicyPass<T>,
    ) {
        self.forward(theta, observation, &mut pass.networks);
        let networks = &pass.networks;
        for_each(&mut pass.samples[..], &|i, Samples { rows, action, log_prob, .. }| {
            let (mean, log_std) = heads(networks, i);
            self.distribution.sample(mean, log_std, noise.block(rows), action.view_mut(), log_prob.view_mut());
        });
        for Samples { rows, log_prob, .. } in &pass.samples {
            pass.log_prob[rows.clone()].copy_from_slice(log_prob.as_slice().expect("it is a vector"));
        }
    }

    /// The backward pass of [`Self::sample`] from ∂L/∂ã, which [`PolicyPass::set_action_gradient`] has set, and from
    /// ∂L/∂log π, the same in every row: ∂L/∂θ overwrites `d_theta`. `scratch` is as long, if a batch has several blocks.
    pub fn sample_backward<T: Real>(
        &self,
        theta: &Theta<T>,
        noise: &dyn Rows<T>,
        d_log_prob: T,
        pass: &mut PolicyPass<T>,
        d_theta: &mut [T],
        scratch: &mut [T],
    ) {
        let back = |samples: &mut Samples<T>, mean: ArrayView2<T>, log_std: ArrayView2<T>, d_mean, d_log_std| {
            let noise = noise.block(&samples.rows);
            samples.d_log_prob.fill(d_log_prob);
            let (d_action, d_log_prob) = (samples.d_action.view(), samples.d_log_prob.view());
            self.distribution.sample_backward(mean, log_std, noise, d_action, d_log_prob, d_mean, d_log_std);
        };
        let PolicyPass { networks, samples, .. } = pass;
        match &mut networks[..] {
            [both] => for_each((&mut samples[..], both.blocks_mut()), &|_, (samples, Block { y, d_y, .. })| {
                let actions = y.view().ncols() / 2;
                let (mean, log_std) = y.view().split_at(Axis(1), actions);
                let (d_mean, d_log_std) = d_y.view_mut().split_at(Axis(1), actions);
                back(samples, mean, log_std, d_mean, d_log_std);
            }),
            [mean, log_std] => {
                let blocks = (&mut samples[..], (mean.blocks_mut(), log_std.blocks_mut()));
                for_each(blocks, &|_, (samples, (mean, log_std))| {
                    back(samples, mean.y.view(), log_std.y.view(), mean.d_y.view_mut(), log_std.d_y.view_mut());
                });
            }
            _ => unreachable!("a policy has one network or two"),
        }
        for (i, (network, pass)) in self.networks.iter().zip(networks.iter_mut()).enumerate() {
            network.backward(theta.weights(i), pass);
        }
        // Each half of the rows by the thread that has them in its cache.
        let half = samples.len().div_ceil(2);
        if half == samples.len() {
            self.gradient(networks, 0..half, d_theta);
        } else {
            join(
                || self.gradient(networks, 0..half, d_theta),
                || self.gradient(networks, half..samples.len(), scratch),
            );
            accumulate(d_theta, scratch);
        }
    }

    /// ∂L/∂θ over the rows of some blocks.
    fn gradient<T: Real>(&self, passes: &[Pass<T>], blocks: Range<usize>, d_theta: &mut [T]) {
        let mut rest = d_theta;
        for (network, pass) in self.networks.iter().zip(passes) {
            let d_theta = rest.split_off_mut(..network.parameters()).expect("∂L/∂θ is as long as θ");
            network.gradient(&pass.blocks()[blocks.clone()], d_theta);
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
        let shape = [pass.batch_size(), self.action_size()];
        assert_shape("the observation", observation.shape(), &[shape[0], self.observation_size()]);
        noise.inspect(|noise| assert_shape("the noise", noise.shape(), &shape));
        assert_shape("the action", action.shape(), &shape);
        if let Some(noise) = noise {
            self.sample(theta, &observation, &noise, pass);
        } else {
            self.forward(theta, &observation, &mut pass.networks);
        }
        for (i, samples) in pass.samples.iter().enumerate() {
            let mut action = action.slice_mut(ndarray::s![samples.rows.clone(), ..]);
            match noise {
                Some(_) => action.assign(&samples.action.view()),
                None => self.distribution.mode(heads(&pass.networks, i).0, action),
            }
        }
    }
}

/// The raw μ and the raw log σ of a block, `[rows, A]`.
fn heads<T: Real>(passes: &[Pass<T>], block: usize) -> (ArrayView2<'_, T>, ArrayView2<'_, T>) {
    match passes {
        [both] => {
            let y = both.blocks()[block].y.view();
            y.split_at(Axis(1), y.ncols() / 2)
        }
        [mean, log_std] => (mean.blocks()[block].y.view(), log_std.blocks()[block].y.view()),
        _ => unreachable!("a policy has one network or two"),
    }
}
