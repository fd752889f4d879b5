//! Soft Actor-Critic on a GPU: the functions of [`super::cpu`], by the same names and in the same order, each as the launches
//! of kernels that compute it.
//!
//! Where [`Support`] says so, an update is eight launches instead, which compute the same and leave it in the same buffers.
//!
//! Nothing is decided on the device but whether a loss is finite: a whole update is a list of launches, which the GPU
//! records once and repeats. Both critics, and their targets, go through every launch together; so do s and s′ through the
//! policy. The kernels are in `kernels/`, and each names the function that it mirrors.

mod agents;
pub mod fused;
mod intermediates;
mod many;
mod memory;
mod pendulum;
mod support;

pub use agents::UpdateRequest;
pub use many::AgentLearner;
pub use memory::Status;
pub use pendulum::{PendulumState, Rollout};
pub use support::Support;

use agents::{Acting, Agent, WAITING_ROUNDS, Waiting};
use memory::{
    Allocate, Buffers, DRAWS_WORDS, FusedBuffers, LOG_ALPHA, POLICY, Parameters, Q1, STATUS_WORDS, VALUE, passes,
};

use super::{CpuLearner, Learner, Metrics, Noise, Policy, Runner, Snapshot};
use crate::config::{Alpha, Config, FirstUpdateAlpha, GradientClamp, LossOrder, TemperatureLoss};
use crate::env::DeviceEnv;
use crate::error::Error;
use crate::gpu::kernels::{self, Arguments, Launch, NETWORKS, narrow};
use crate::gpu::mlp::{DeviceWorkspace, Matrix};
use crate::gpu::{Buffer, Gpu, Graph, with_buffers, words};
use crate::nn::{LogStd, Mean, Network, assert_shape};
use crate::replay::{Batch, Replay};
use ndarray::{ArrayView2, ArrayViewMut2, s};
use std::collections::HashMap;

/// What tells the launches of one update from those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// Whether the policy takes a step.
    pub policy_is_due: bool,
    /// Whether it is the first update of all.
    pub first: bool,
    /// Whether there are agents that take no part.
    pub some_rest: bool,
}

impl Form {
    /// An update of all agents that is not their first, with a step of the policy.
    pub const USUAL: Self = Self { policy_is_due: true, first: false, some_rest: false };
}

/// The learner that trains on a GPU, in `f32`: one agent, or several that differ in their seeds alone and take their updates in
/// the same launches. As a [`Learner`] it is the first of them.
pub struct CudaLearner {
    gpu: Box<dyn Gpu>,
    /// But for the seed.
    config: Config,
    policy: Policy,
    critic: Network,
    value: Option<Network>,
    target_entropy: f32,
    agents: Vec<Agent>,

    buffers: Buffers,
    /// Words from a buffer of one agent to that of the next.
    agent_step: usize,
    /// Of all agents.
    status: Buffer,
    draws: Buffer,

    /// Transitions that each replay memory has room for.
    capacity: usize,
    staging: Vec<f32>,
    waiting: Waiting,

    /// By the number of observations.
    acting: HashMap<usize, Acting>,
    /// Whole updates.
    graphs: HashMap<Form, Graph>,
    /// Where whole runs are on the device.
    pendulum: Option<pendulum::OnDevice>,
}

impl CudaLearner {
    /// A learner before its first update, as [`CpuLearner::new`] makes it, on `gpu`.
    ///
    /// # Errors
    /// [`Error::Device`] if [`Support`] refuses the configuration, or if the GPU fails or has too little memory for the networks and the replay memory.
    ///
    /// # Panics
    /// If `gpu` has kernels of another precision than the configuration's.
    pub fn new(config: &Config, observation_size: usize, half_range: &[f32], gpu: Box<dyn Gpu>) -> Result<Self, Error> {
        Self::of_seeds(config, &[config.seed], observation_size, half_range, gpu)
    }

    /// [`Self::new`] that makes updates layer by layer, whatever the configuration.
    ///
    /// # Errors
    /// As there.
    pub fn layer_by_layer(
        config: &Config,
        observation_size: usize,
        half_range: &[f32],
        gpu: Box<dyn Gpu>,
    ) -> Result<Self, Error> {
        Support::of(config, half_range.len()).is_fused()?;
        Self::with(config, &[config.seed], observation_size, half_range, gpu, false)
    }

    /// A learner of several agents, each the one that [`Self::new`] makes of `config` with its seed.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// If there are several and their updates are not [`Support::Fused`].
    pub fn of_seeds(
        config: &Config,
        seeds: &[u64],
        observation_size: usize,
        half_range: &[f32],
        gpu: Box<dyn Gpu>,
    ) -> Result<Self, Error> {
        let is_fused = Support::of(config, half_range.len()).is_fused()?;
        Self::with(config, seeds, observation_size, half_range, gpu, is_fused)
    }

    fn with(
        config: &Config,
        seeds: &[u64],
        observation_size: usize,
        half_range: &[f32],
        mut gpu: Box<dyn Gpu>,
        is_fused: bool,
    ) -> Result<Self, Error> {
        assert_eq!(gpu.precision(), config.precision, "the kernels are of another precision");
        assert!(is_fused || seeds.len() == 1, "agents learn together by fused updates alone");
        let new = |seed| CpuLearner::<f32>::new(&Config { seed, ..config.clone() }, observation_size, half_range);
        let cpu = new(seeds[0]);
        let (policy, critic, value) = (cpu.policy().clone(), cpu.critic().clone(), cpu.value().cloned());
        let (b, o, a) = (config.batch_size, observation_size, half_range.len());
        let (capacity, width) = (config.replay_rows(), 2 * o + a + 2);
        let make = |allocate: Allocate| Buffers {
            theta: Parameters::new(allocate, policy.parameters(), 1, POLICY, false),
            critics: Parameters::new(allocate, critic.parameters(), 2, Q1, value.is_none()),
            value_parameters: value.as_ref().map(|value| Parameters::new(allocate, value.parameters(), 1, VALUE, true)),
            log_alpha: Parameters::new(allocate, 1, 1, LOG_ALPHA, false),
            policy_passes: passes(allocate, &policy, [1, 2 * b], [1, b]),
            critic_pass: DeviceWorkspace::new(allocate, &critic, [4, b], [2, b]),
            value_pass: value.as_ref().map(|value| DeviceWorkspace::new(allocate, value, [1, b], [1, b])),
            inputs: allocate(3 * b * (o + a)),
            reward: allocate(b),
            discount: allocate(b),
            noise: allocate(2 * b * a),
            raw: allocate(2 * b * 2 * a),
            log_prob: allocate(2 * b),
            q: allocate(4 * b),
            v: allocate(b),
            target: allocate(b),
            d_q: allocate(2 * b),
            d_v: allocate(b),
            d_action: allocate(2 * b * a),
            d_raw: allocate(b * 2 * a),
            fused: is_fused.then(|| FusedBuffers::new(allocate, b, &policy.networks[0], &critic, a)),
            memory: allocate(capacity.saturating_mul(width)),
            rows: allocate(b),
        };
        let agents = seeds.len();
        let (buffers, agent_step) = with_buffers(&mut *gpu, agents, make).map_err(|error| match error {
            Error::Device(problem) if agents == 1 => Error::Device(format!(
                "the networks and a replay memory of {capacity} transitions do not fit there ({problem}); lower \
                 replay_capacity (--replay)"
            )),
            Error::Device(problem) => Error::Device(format!(
                "{agents} agents with replay memories of {capacity} transitions do not fit there ({problem}); train \
                 fewer at a time (--seeds), or lower replay_capacity (--replay)"
            )),
            error => error,
        })?;
        let mut waiting = Waiting::default();
        if agents > 1 {
            let rows = agents * WAITING_ROUNDS * config.envs * config.n_step;
            waiting.device = Some(gpu.allocate(rows * (2 + width))?);
        }
        let mut learner = Self {
            config: config.clone(),
            target_entropy: config.target_entropy(half_range.iter().map(|&half| f64::from(half))) as f32,
            agents: seeds.iter().map(|&seed| Agent { seed, updates: 0, mirrored: 0, waits: false }).collect(),
            buffers,
            agent_step,
            status: gpu.allocate(agents * STATUS_WORDS)?,
            draws: gpu.allocate(agents * DRAWS_WORDS)?,
            capacity,
            staging: Vec::new(),
            waiting,
            acting: HashMap::new(),
            graphs: HashMap::new(),
            pendulum: None,
            policy,
            critic,
            value,
            gpu,
        };
        for (agent, &seed) in seeds.iter().enumerate() {
            learner.restore_of(agent, &new(seed).snapshot())?;
        }
        Ok(learner)
    }

    /// Its agents.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Whether updates are fused, and not made layer by layer.
    pub fn is_fused(&self) -> bool {
        self.buffers.fused.is_some()
    }

    /// Makes the update of [`CpuLearner::update`], for a learner of one agent.
    ///
    /// # Errors
    /// [`Error::Device`] if the GPU fails.
    ///
    /// # Panics
    /// If `batch` or `noise` is of other shapes than those of the configuration and the environment, or if there are several
    /// agents.
    pub fn update(&mut self, batch: &Batch<f32>, noise: &Noise<f32>) -> Result<(), Error> {
        assert_eq!(self.agents(), 1, "a batch is for one agent");
        self.load(batch, noise)?;
        let form = self.next_update(0);
        let launches = self.launches(false, form);
        // SAFETY: they are this learner's own.
        unsafe { self.run(&launches) }
    }

    /// The launches of one update of all agents, and those that draw its batches if it `draws`.
    pub fn launches(&self, draws: bool, form: Form) -> Vec<Launch> {
        if let Some(arguments) = self.fused_arguments(draws, form) {
            return fused::launches(arguments, self.agents());
        }
        let mut launches = if draws { self.draw() } else { Vec::new() };
        launches.extend(self.update_launches(form.policy_is_due, form.first));
        launches
    }

    /// What the fused kernels take, if updates are fused.
    fn fused_arguments(&self, draws: bool, form: Form) -> Option<kernels::Fused> {
        let buffers = self.buffers.fused.as_ref()?;
        let (b, o, a) = self.sizes();
        let network = |mlp: &Network, parameters: &Parameters, pass: &DeviceWorkspace, partial_sums, d_first| {
            let layers = mlp.layers();
            kernels::FusedNetwork {
                theta: parameters.values,
                gradient: parameters.gradient,
                m: parameters.first_moment,
                v: parameters.second_moment,
                h1: pass.hidden[0],
                h2: pass.hidden[1],
                partial_sums,
                d_first,
                inputs: narrow(layers[0].inputs),
                h1_width: narrow(layers[0].outputs),
                h2_width: narrow(layers[1].outputs),
                outputs: narrow(layers[2].outputs),
                step: narrow(parameters.step()),
                parameters: narrow(parameters.mlp_parameters),
            }
        };
        let FusedBuffers { policy_partial_sums, critic_partial_sums, d_policy_first, d_critics_first, .. } = *buffers;
        let policy = network(
            &self.policy.networks[0],
            &self.buffers.theta,
            &self.buffers.policy_passes[0],
            policy_partial_sums,
            d_policy_first,
        );
        Some(kernels::Fused {
            policy,
            critics: network(
                &self.critic,
                &self.buffers.critics,
                &self.buffers.critic_pass,
                critic_partial_sums,
                d_critics_first,
            ),
            memory: self.buffers.memory,
            draws: self.draws,
            rows: self.buffers.rows,
            noise: self.buffers.noise,
            inputs: self.buffers.inputs,
            reward: self.buffers.reward,
            discount: self.buffers.discount,
            raw: self.buffers.raw,
            log_prob: self.buffers.log_prob,
            q: self.buffers.q,
            target: self.buffers.target,
            d_q: self.buffers.d_q,
            d_action: self.buffers.d_action,
            d_raw: self.buffers.d_raw,
            d_action_partial_sums: buffers.d_action_partial_sums,
            sums: buffers.sums,
            alpha: self.alpha(form.first),
            log_alpha: self.buffers.log_alpha.values,
            log_alpha_gradient: self.buffers.log_alpha.gradient,
            log_alpha_m: self.buffers.log_alpha.first_moment,
            log_alpha_v: self.buffers.log_alpha.second_moment,
            status: self.status,
            agent_bytes: 4 * self.agent_step as u64,
            distribution: self.distribution(),
            batch: narrow(b),
            observations: narrow(o),
            actions: narrow(a),
            from_memory: draws.into(),
            gamma: self.config.gamma as f32,
            tau: self.config.tau as f32,
            target_entropy: self.target_entropy,
            is_tuned: (self.config.alpha == Alpha::Auto).into(),
            over_alpha: (self.config.temperature_loss == TemperatureLoss::Alpha).into(),
            some_rest: form.some_rest.into(),
        })
    }

    /// The launches of one update layer by layer: critics, value network, policy, temperature, and the targets with the networks they
    /// follow. `first` tells whether it is the first one of all.
    pub fn update_launches(&self, policy_is_due: bool, first: bool) -> Vec<Launch> {
        let order = self.config.loss_order;
        let alpha = self.alpha(first);
        let mut launches = Vec::new();

        // ã ~ π(·|s),  ã′ ~ π(·|s′)
        launches.extend(self.sample_actions());

        if order == LossOrder::TemperatureFirst {
            launches.extend(self.temperature_step());
        }

        // J_Q = Σᵢ mean (Qᵢ(s, a) − y)²
        launches.extend(self.critic_loss(alpha));
        if order == LossOrder::Sequential {
            launches.extend(self.critic_step(policy_is_due));
        }

        // minᵢ Qᵢ(s, ã)
        if policy_is_due || self.value.is_some() {
            launches.extend(self.evaluate_actions());
        }

        // J_V = mean (V(s) − (minᵢ Qᵢ(s, ã) − α log π(ã|s)))²
        launches.extend(self.value_loss(alpha));
        launches.extend(self.value_step(policy_is_due));

        // J_π = mean (α log π(ã|s) − minᵢ Qᵢ(s, ã))
        if policy_is_due {
            launches.extend(self.policy_loss(alpha));
            launches.push(self.step(&self.buffers.theta));
        }

        if order != LossOrder::Sequential {
            launches.extend(self.critic_step(policy_is_due));
        }
        if order != LossOrder::TemperatureFirst {
            launches.extend(self.temperature_step());
        }
        launches.push(self.finish_update());
        launches
    }

    /// α, where kernels find it.
    pub fn alpha(&self, first: bool) -> kernels::Alpha {
        let fixed = match (self.config.alpha, self.config.first_update_alpha) {
            (Alpha::Fixed(alpha), _) => Some(alpha),
            (Alpha::Auto, FirstUpdateAlpha::Fixed(alpha)) if first => Some(alpha),
            (Alpha::Auto, _) => None,
        };
        let log_alpha = self.buffers.log_alpha.values;
        kernels::Alpha { log_alpha, fixed: fixed.unwrap_or(0.0) as f32, is_fixed: fixed.is_some().into() }
    }

    /// ã ~ π(·|s) and, for a target that needs it, ã′ ~ π(·|s′), with their log-probabilities.
    pub fn sample_actions(&self) -> Vec<Launch> {
        let (b, o, a) = self.sizes();
        // The rows of s′ come first.
        let first_row = if self.value.is_some() { b } else { 0 };
        let rows = [first_row, 2 * b - first_row];
        let x = Matrix::shared(self.buffers.inputs.at((b + first_row) * (o + a)), o + a);
        let raw = Matrix::shared(self.buffers.raw.at(first_row * 2 * a), 2 * a);
        let mut launches = self.policy_forward(&self.buffers.policy_passes, 1, rows, x, raw);
        let sample = kernels::Sample {
            raw: raw.at,
            noise: self.buffers.noise.at(first_row * a),
            action: x.at.at(o),
            log_prob: self.buffers.log_prob.at(first_row),
            distribution: self.distribution(),
            rows: narrow(rows[1]),
            actions: narrow(a),
            action_step: narrow(o + a),
            unused: 0,
        };
        launches.push(sample.launch_over(rows[1]));
        launches
    }

    /// J_Q and its gradient over the parameters of both critics; ã′ is that of the last [`Self::sample_actions`].
    pub fn critic_loss(&self, alpha: kernels::Alpha) -> Vec<Launch> {
        let (b, o, a) = self.sizes();
        // The online critics take [s, a], and the targets, if there are any, [s′, ã′].
        let networks = if self.value.is_some() { 2 } else { 4 };
        let x = Matrix { at: self.buffers.inputs, step: o + a, network: b * (o + a), sharing: 2 };
        let q = Matrix::of_each(self.buffers.q, 1, b);
        let mut launches = self.buffers.critic_pass.forward(self.buffers.critics.values, networks, [0, b], x, q);
        if let (Some(pass), Some(parameters)) = (&self.buffers.value_pass, &self.buffers.value_parameters) {
            let x = Matrix::shared(self.buffers.inputs.at(b * (o + a)), o + a);
            launches.extend(pass.forward(parameters.targets(), 1, [0, b], x, Matrix::shared(self.buffers.v, 1)));
        }
        let loss = kernels::CriticLoss {
            q: self.buffers.q,
            target_q: self.buffers.q.at(2 * b),
            value: self.buffers.v,
            next_log_prob: self.buffers.log_prob,
            log_prob: self.buffers.log_prob.at(b),
            reward: self.buffers.reward,
            discount: self.buffers.discount,
            alpha,
            target: self.buffers.target,
            d_q: self.buffers.d_q,
            status: self.status,
            rows: narrow(b),
            has_value: self.value.is_some().into(),
        };
        launches.push(loss.launch([1; 3]));
        let (x, d_q) = (Matrix::shared(self.buffers.inputs, o + a), Matrix::of_each(self.buffers.d_q, 1, b));
        let gradient = Some(self.buffers.critics.gradient);
        launches.extend(self.buffers.critic_pass.backward(
            self.buffers.critics.values,
            2,
            [0, b],
            x,
            d_q,
            gradient,
            None,
        ));
        launches
    }

    /// The critics' step, and Q̄ᵢ ← Q̄ᵢ + τ(Qᵢ − Q̄ᵢ) if the targets are to follow.
    fn critic_step(&self, follow: bool) -> Vec<Launch> {
        self.step_and_follow(&self.buffers.critics, follow)
    }

    /// Qᵢ(s, ã), for the losses of V and of the policy; ã is that of the last [`Self::sample_actions`].
    pub fn evaluate_actions(&self) -> Vec<Launch> {
        let (b, ..) = self.sizes();
        let q = Matrix::of_each(self.buffers.q, 1, b);
        self.buffers.critic_pass.forward(self.buffers.critics.values, 2, [0, b], self.chosen_actions(), q)
    }

    /// J_V and its gradient over the parameters of V, if there is one; Qᵢ(s, ã) is that of the last
    /// [`Self::evaluate_actions`].
    pub fn value_loss(&self, alpha: kernels::Alpha) -> Vec<Launch> {
        let (b, ..) = self.sizes();
        let (Some(pass), Some(parameters)) = (&self.buffers.value_pass, &self.buffers.value_parameters) else {
            return Vec::new();
        };
        let x = self.chosen_actions();
        let mut launches = pass.forward(parameters.values, 1, [0, b], x, Matrix::shared(self.buffers.v, 1));
        let log_prob = self.buffers.log_prob.at(b);
        let loss = kernels::ValueLoss {
            v: self.buffers.v,
            q: self.buffers.q,
            log_prob,
            alpha,
            d_v: self.buffers.d_v,
            status: self.status,
            rows: narrow(b),
            unused: 0,
        };
        launches.push(loss.launch([1; 3]));
        let d_v = Matrix::shared(self.buffers.d_v, 1);
        launches.extend(pass.backward(parameters.values, 1, [0, b], x, d_v, Some(parameters.gradient), None));
        launches
    }

    /// The step of V, if there is one, and V̄ ← V̄ + τ(V − V̄) if the target is to follow.
    fn value_step(&self, follow: bool) -> Vec<Launch> {
        self.buffers
            .value_parameters
            .as_ref()
            .map_or_else(Vec::new, |parameters| self.step_and_follow(parameters, follow))
    }

    /// J_π and its gradient over the policy's parameters; Qᵢ(s, ã) is that of the last [`Self::evaluate_actions`].
    pub fn policy_loss(&self, alpha: kernels::Alpha) -> Vec<Launch> {
        let (b, _, a) = self.sizes();
        let (log_prob, rows) = (self.buffers.log_prob.at(b), narrow(b));
        let loss = kernels::PolicyLoss {
            q: self.buffers.q,
            log_prob,
            alpha,
            d_q: self.buffers.d_q,
            status: self.status,
            rows,
            unused: 0,
        };
        let mut launches = vec![loss.launch([1; 3])];
        let (x, d_q) = (self.chosen_actions(), Matrix::of_each(self.buffers.d_q, 1, b));
        let d_action = Some((self.buffers.d_action, a));
        launches.extend(self.buffers.critic_pass.backward(
            self.buffers.critics.values,
            2,
            [0, b],
            x,
            d_q,
            None,
            d_action,
        ));
        let backward = kernels::SampleBackward {
            raw: self.buffers.raw.at(b * 2 * a),
            noise: self.buffers.noise.at(b * a),
            d_action: self.buffers.d_action,
            alpha,
            d_raw: self.buffers.d_raw,
            distribution: self.distribution(),
            rows,
            actions: narrow(a),
        };
        launches.push(backward.launch_over(b));
        let (mut parameter, mut column) = (0, 0);
        for (mlp, pass) in self.policy.networks.iter().zip(&self.buffers.policy_passes) {
            let (theta, gradient) =
                (self.buffers.theta.values.at(parameter), self.buffers.theta.gradient.at(parameter));
            let d_raw = Matrix::shared(self.buffers.d_raw.at(column), 2 * a);
            launches.extend(pass.backward(theta, 1, [b, b], x, d_raw, Some(gradient), None));
            parameter += mlp.parameters();
            column += mlp.outputs();
        }
        launches
    }

    /// J_α, and the step of a temperature that is tuned.
    pub fn temperature_step(&self) -> Option<Launch> {
        let (b, ..) = self.sizes();
        let step = kernels::TemperatureStep {
            log_prob: self.buffers.log_prob.at(b),
            log_alpha: self.buffers.log_alpha.values,
            gradient: self.buffers.log_alpha.gradient,
            m: self.buffers.log_alpha.first_moment,
            v: self.buffers.log_alpha.second_moment,
            status: self.status,
            rows: narrow(b),
            target_entropy: self.target_entropy,
            over_alpha: (self.config.temperature_loss == TemperatureLoss::Alpha).into(),
            unused: 0,
        };
        (self.config.alpha == Alpha::Auto).then(|| step.launch([1; 3]))
    }

    fn finish_update(&self) -> Launch {
        kernels::FinishUpdate { status: self.status, log_alpha: self.buffers.log_alpha.values }.launch([1; 3])
    }

    /// θ's step by Adam.
    fn step(&self, parameters: &Parameters) -> Launch {
        let clamp = match self.config.gradient_clamp {
            GradientClamp::Off => None,
            GradientClamp::Fixed(bound) => Some(bound as f32),
        };
        let step = kernels::AdamStep {
            theta: parameters.values,
            gradient: parameters.gradient,
            m: parameters.first_moment,
            v: parameters.second_moment,
            status: self.status,
            networks: narrow(parameters.networks),
            parameters: narrow(parameters.step()),
            first: narrow(parameters.first),
            clamp: clamp.unwrap_or(0.0),
            is_clamped: clamp.is_some().into(),
            unused: 0,
        };
        step.launch_over(parameters.length())
    }

    /// θ's step, and for a target that is to follow, θ̄ ← θ̄ + τ(θ − θ̄), at the place that the order gives it.
    fn step_and_follow(&self, parameters: &Parameters, follow: bool) -> Vec<Launch> {
        let all = parameters.length();
        let follow = (follow && parameters.has_target).then(|| {
            let polyak = kernels::PolyakStep {
                target: parameters.targets(),
                online: parameters.values,
                status: self.status,
                parameters: narrow(all),
                tau: self.config.tau as f32,
            };
            polyak.launch_over(all)
        });
        let step = Some(self.step(parameters));
        let order = if self.config.loss_order == LossOrder::TemperatureFirst { [follow, step] } else { [step, follow] };
        order.into_iter().flatten().collect()
    }

    /// The networks of so many agents' policies over the rows of `x`, to the raw outputs `raw`, `[rows, 2A]`.
    fn policy_forward(
        &self,
        passes: &[DeviceWorkspace],
        agents: usize,
        rows: [usize; 2],
        x: Matrix,
        raw: Matrix,
    ) -> Vec<Launch> {
        let mut launches = Vec::new();
        let (mut parameter, mut column) = (0, 0);
        for (mlp, pass) in self.policy.networks.iter().zip(passes) {
            let y = Matrix { at: raw.at.at(column), ..raw };
            launches.extend(pass.forward(self.buffers.theta.values.at(parameter), agents, rows, x, y));
            parameter += mlp.parameters();
            column += mlp.outputs();
        }
        launches
    }

    /// \[s, ã]
    fn chosen_actions(&self) -> Matrix {
        let (b, o, a) = self.sizes();
        Matrix::shared(self.buffers.inputs.at(2 * b * (o + a)), o + a)
    }

    fn distribution(&self) -> kernels::Distribution {
        let (log_std, (min, max)) = match self.policy.distribution.log_std {
            LogStd::Clamp { min, max } => (0, (min, max)),
            LogStd::Tanh { min, max } => (1, (min, max)),
        };
        let mean = match self.policy.distribution.mean {
            Mean::Raw => 0,
            Mean::Tanh => 1,
        };
        kernels::Distribution { mean, log_std, log_std_min: min as f32, log_std_max: max as f32 }
    }

    /// B, O and A.
    fn sizes(&self) -> (usize, usize, usize) {
        (self.config.batch_size, self.policy.observation_size(), self.policy.action_size())
    }

    fn learning_rates(&self) -> [f64; NETWORKS] {
        let config = &self.config;
        let critic = config.critic_learning_rate;
        let (policy, temperature) = (config.policy_learning_rate, config.temperature_learning_rate);
        [policy, critic, critic, config.value_learning_rate, temperature]
    }

    /// Puts a batch and its noise where [`Self::update_launches`] finds them.
    ///
    /// # Errors
    /// If the GPU fails.
    ///
    /// # Panics
    /// If the batch or the noise is of another size.
    pub fn load(&mut self, batch: &Batch<f32>, noise: &Noise<f32>) -> Result<(), Error> {
        let (b, o, a) = self.sizes();
        batch.assert_shapes([b, o, a]);
        noise.assert_shapes([b, a]);
        let mut inputs = ndarray::Array3::<f32>::zeros((3, b, o + a));
        inputs.slice_mut(s![0, .., ..o]).assign(&batch.observation);
        inputs.slice_mut(s![0, .., o..]).assign(&batch.action);
        inputs.slice_mut(s![1, .., ..o]).assign(&batch.next_observation);
        inputs.slice_mut(s![2, .., ..o]).assign(&batch.observation);
        let noise: Vec<f32> = noise.next.iter().chain(&noise.current).copied().collect();
        // SAFETY: the buffers were made for these sizes, which have just been checked.
        unsafe {
            self.gpu.upload(self.buffers.inputs, words(inputs.as_slice().expect("it is new")))?;
            self.gpu.upload(self.buffers.reward, words(batch.reward.as_slice().expect("it is contiguous")))?;
            self.gpu.upload(self.buffers.discount, words(batch.discount.as_slice().expect("it is contiguous")))?;
            self.gpu.upload(self.buffers.noise, words(&noise))
        }
    }

    /// Does launches of this learner.
    ///
    /// # Safety
    /// They must be this learner's own, unchanged.
    ///
    /// # Errors
    /// If the GPU fails.
    pub unsafe fn run(&mut self, launches: &[Launch]) -> Result<(), Error> {
        // SAFETY: a learner's own launches stay within its buffers.
        unsafe { self.gpu.run(launches) }
    }

    /// The launches that draw a batch and its noise, and gather it.
    fn draw(&self) -> Vec<Launch> {
        let (b, o, a) = self.sizes();
        let count = 2 * b * a;
        let draw = kernels::Draw {
            draws: self.draws,
            rows: self.buffers.rows,
            noise: self.buffers.noise,
            batch: narrow(b),
            count: narrow(count),
        };
        let gather = kernels::Gather {
            memory: self.buffers.memory,
            rows: self.buffers.rows,
            inputs: self.buffers.inputs,
            reward: self.buffers.reward,
            discount: self.buffers.discount,
            batch: narrow(b),
            observations: narrow(o),
            actions: narrow(a),
            gamma: self.config.gamma as f32,
        };
        vec![draw.launch_over(b.max(count).div_ceil(4)), gather.launch_over(b * (2 * o + a + 2))]
    }
}

impl Learner for CudaLearner {
    fn act(
        &mut self,
        observation: ArrayView2<f32>,
        noise: Option<ArrayView2<f32>>,
        mut action: ArrayViewMut2<f32>,
    ) -> Result<(), Error> {
        assert_shape("the action", action.shape(), &[observation.nrows(), self.policy.action_size()]);
        self.observe(0, observation, noise)?;
        let values = self.act_together(observation.nrows(), noise.is_some())?;
        action.iter_mut().zip(values).for_each(|(action, value)| *action = value);
        Ok(())
    }

    fn learn(&mut self, replay: &Replay, update: u64) -> Result<(), Error> {
        self.mirror(0, replay)?;
        self.learn_together(&[UpdateRequest { agent: 0, update, stored: replay.len() as u64 }])
    }

    fn metrics(&mut self) -> Result<Metrics, Error> {
        self.metrics_of(0)
    }

    fn snapshot(&mut self) -> Result<Snapshot<f32>, Error> {
        self.snapshot_of(0)
    }

    fn restore(&mut self, snapshot: &Snapshot<f32>) -> Result<(), Error> {
        self.restore_of(0, snapshot)
    }

    fn runner(&mut self, env: DeviceEnv) -> Option<&mut dyn Runner> {
        // As a learner this is the first of its agents, and the others would rest.
        (self.agents() == 1 && self.runs(env)).then_some(self)
    }
}
