//! Soft Actor-Critic on a GPU: the functions of [`super::cpu`], by the same names and in the same order, each as the launches
//! of kernels that compute it.
//!
//! Where [`fused::covers`] says so, an update is eight launches instead, which compute the same and leave it in the same buffers.
//!
//! Nothing is decided on the device but whether a loss is finite: a whole update is a list of launches, which the GPU
//! records once and repeats. Both critics, and their targets, go through every launch together; so do s and s′ through the
//! policy. The kernels are in `kernels/`, and each names the function that it mirrors.

use super::{CpuLearner, Learner, Metrics, Noise, Policy, Snapshot, fused};
use crate::config::{
    Alpha, Config, FirstUpdateAlpha, GradientClamp, LossOrder, MaxGradientNorm, Precision, TemperatureLoss,
};
use crate::error::Error;
use crate::gpu::kernels::{self, Arguments, Launch, NETWORKS, TILE, narrow};
use crate::gpu::mlp::{DeviceWorkspace, Matrix, parameters_step};
use crate::gpu::{Buffer, Gpu, Recording, words, words_mut};
use crate::nn::{LogStd, Mean, Mlp};
use crate::replay::{Batch, Replay};
use ndarray::{ArrayView2, ArrayViewMut2, s};
use std::collections::HashMap;

/// What an update can fail by, in the order of `kernels/prelude.cu`.
const QUANTITIES: [&str; 4] = ["critic loss", "value loss", "policy loss", "temperature loss"];

/// The places in [`Status`] of the networks that take steps, as in `kernels/prelude.cu`.
const POLICY: usize = 0;
const Q1: usize = 1;
const VALUE: usize = 3;
const LOG_ALPHA: usize = 4;

/// What the device remembers besides vectors; `Status` of `kernels/prelude.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    updates: u64,
    policy_updates: u64,
    failure: u64,
    failure_update: u64,
    critic_loss: f64,
    value_loss: f64,
    policy_loss: f64,
    temperature_loss: f64,
    q: f64,
    entropy: f64,
    this_update: [f64; 3],
    steps: [u64; NETWORKS],
    stepped: [u64; NETWORKS],
    is_halted: u64,
    log_alpha: f64,
    learning_rate: [f64; NETWORKS],
    step: [f32; NETWORKS],
    inverse_root: [f32; NETWORKS],
}

impl Status {
    /// Without α.
    fn metrics(&self) -> Metrics {
        let quantity = |code: u64| QUANTITIES[code as usize - 1];
        Metrics {
            updates: self.updates,
            critic_loss: self.critic_loss,
            value_loss: self.value_loss,
            policy_updates: self.policy_updates,
            policy_loss: self.policy_loss,
            temperature_loss: self.temperature_loss,
            q: self.q,
            entropy: self.entropy,
            alpha: 0.0,
            failure: (self.failure > 0).then(|| (self.failure_update, quantity(self.failure))),
        }
    }
}

const STATUS_WORDS: usize = size_of::<Status>() / 4;

/// Networks of one shape whose parameters follow each other by [`parameters_step`], their targets after them; and what their
/// steps need.
struct Parameters {
    mlp_parameters: usize,
    networks: usize,
    /// The first one's place in [`Status`].
    first: usize,
    /// θ of all, then θ̄ of all if there are targets.
    values: Buffer,
    gradient: Buffer,
    first_moment: Buffer,
    second_moment: Buffer,
    has_target: bool,
}

impl Parameters {
    fn new(
        gpu: &mut dyn Gpu,
        parameters: usize,
        networks: usize,
        first: usize,
        has_target: bool,
    ) -> Result<Self, Error> {
        let all = networks * parameters_step(parameters);
        Ok(Self {
            mlp_parameters: parameters,
            networks,
            first,
            values: gpu.allocate(all * if has_target { 2 } else { 1 })?,
            gradient: gpu.allocate(all)?,
            first_moment: gpu.allocate(all)?,
            second_moment: gpu.allocate(all)?,
            has_target,
        })
    }

    /// From one network to the next.
    fn step(&self) -> usize {
        parameters_step(self.mlp_parameters)
    }

    /// Of all networks.
    fn length(&self) -> usize {
        self.networks * self.step()
    }

    fn targets(&self) -> Buffer {
        self.values.at(self.length())
    }
}

/// What the fused kernels need besides the buffers of the others.
struct FusedBuffers {
    policy_shares: Buffer,
    critic_shares: Buffer,
    d_action_shares: Buffer,
    d_policy_first: Buffer,
    d_critics_first: Buffer,
    sums: Buffer,
}

impl FusedBuffers {
    fn new(gpu: &mut dyn Gpu, batch: usize, policy: &Mlp, critic: &Mlp, actions: usize) -> Result<Self, Error> {
        let (tiles, columns) = (batch.div_ceil(TILE), |mlp: &Mlp, l: usize| mlp.layers()[l].outputs.div_ceil(TILE));
        let first = |mlp: &Mlp| mlp.layers()[0].bias.end;
        Ok(Self {
            policy_shares: gpu.allocate(columns(policy, 1) * policy.outputs() * 2 * batch)?,
            critic_shares: gpu.allocate(4 * columns(critic, 1) * batch)?,
            d_action_shares: gpu.allocate(2 * columns(critic, 0) * actions * batch)?,
            d_policy_first: gpu.allocate(tiles * first(policy))?,
            d_critics_first: gpu.allocate(2 * tiles * first(critic))?,
            sums: gpu.allocate(fused::SUMS * tiles)?,
        })
    }
}

/// The buffers that acting on some number of observations needs.
#[derive(Clone, Copy)]
struct Acting {
    observation: Buffer,
    noise: Buffer,
    action: Buffer,
    sampled: Recording,
    deterministic: Recording,
}

/// The learner that trains on a GPU, in `f32`.
pub struct CudaLearner {
    gpu: Box<dyn Gpu>,
    config: Config,
    policy: Policy,
    critic: Mlp,
    value: Option<Mlp>,
    target_entropy: f32,
    /// Updates asked for; those made, unless one has failed.
    updates: u64,

    theta: Parameters,
    critics: Parameters,
    value_parameters: Option<Parameters>,
    log_alpha: Parameters,
    status: Buffer,

    policy_passes: Vec<DeviceWorkspace>,
    critic_pass: DeviceWorkspace,
    value_pass: Option<DeviceWorkspace>,
    /// \[s, a], \[s′, ã′] and \[s, ã], `[3, B, O + A]`; the policy looks at the last two as 2B rows.
    inputs: Buffer,
    reward: Buffer,
    discount: Buffer,
    /// Of 2B rows: ε, raw μ and log σ, log π.
    noise: Buffer,
    raw: Buffer,
    log_prob: Buffer,
    /// Q₁, Q₂ and Q̄₁, Q̄₂, `[4, B]`; V̄(s′) or V(s), `[B]`; y, `[B]`.
    q: Buffer,
    v: Buffer,
    target: Buffer,
    /// Gradients over Q `[2, B]`, V `[B]`, ã through each critic `[2, B, A]`, and raw μ and log σ `[B, 2A]`.
    d_q: Buffer,
    d_v: Buffer,
    d_action: Buffer,
    d_raw: Buffer,
    /// Where updates are fused.
    fused: Option<FusedBuffers>,

    /// The replay memory, `[capacity, 2O + A + 2]`, the transitions of it that are mirrored, and what is drawn from it.
    memory: Buffer,
    capacity: usize,
    mirrored: usize,
    draws: Buffer,
    rows: Buffer,
    staging: Vec<f32>,

    /// By the number of observations.
    acting: HashMap<usize, Acting>,
    /// Whole updates, by whether the policy is due and whether it is the first.
    recordings: HashMap<(bool, bool), Recording>,
}

impl CudaLearner {
    /// Refuses what only the CPU's learner does, and products in tf32 where updates with so many `actions` are not fused.
    ///
    /// # Errors
    /// [`Error::Device`] names it.
    pub fn check(config: &Config, actions: usize) -> Result<(), Error> {
        let refuse = |name: &str| Err(Error::Device(format!("{name} is for the CPU alone; say --device cpu")));
        if config.max_gradient_norm != MaxGradientNorm::Off {
            return refuse("max_gradient_norm");
        }
        if config.normalize_observations {
            return refuse("normalize_observations");
        }
        if config.precision == Precision::Tf32 && !fused::covers(config, actions) {
            return Err(Error::Device(
                "precision is tf32, which only fused updates have, and this configuration's are made layer by layer; say \
                 --precision f32, or see docs/cuda.md for what is fused"
                    .into(),
            ));
        }
        Ok(())
    }

    /// A learner before its first update, as [`CpuLearner::new`] makes it, on `gpu`.
    ///
    /// # Errors
    /// As from [`Self::check`]; if the GPU fails, or has too little memory for the networks and the replay memory.
    ///
    /// # Panics
    /// If `gpu` has kernels of another precision than the configuration's.
    pub fn new(config: &Config, observation_size: usize, half_range: &[f32], gpu: Box<dyn Gpu>) -> Result<Self, Error> {
        Self::with(config, observation_size, half_range, gpu, fused::covers(config, half_range.len()))
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
        Self::with(config, observation_size, half_range, gpu, false)
    }

    fn with(
        config: &Config,
        observation_size: usize,
        half_range: &[f32],
        mut gpu: Box<dyn Gpu>,
        is_fused: bool,
    ) -> Result<Self, Error> {
        Self::check(config, half_range.len())?;
        assert_eq!(gpu.precision(), config.precision, "the kernels are of another precision");
        let mut cpu = CpuLearner::<f32>::new(config, observation_size, half_range);
        let (policy, critic, value) = (cpu.policy().clone(), cpu.critic().clone(), cpu.value().cloned());
        let (b, o, a) = (config.batch_size, observation_size, half_range.len());
        let gpu_mut = &mut *gpu;
        let theta = Parameters::new(gpu_mut, policy.parameters(), 1, POLICY, false)?;
        let critics = Parameters::new(gpu_mut, critic.parameters(), 2, Q1, value.is_none())?;
        let value_parameters =
            value.as_ref().map(|value| Parameters::new(gpu_mut, value.parameters(), 1, VALUE, true)).transpose()?;
        let log_alpha = Parameters::new(gpu_mut, 1, 1, LOG_ALPHA, false)?;
        let policy_passes = policy.networks.iter().map(|mlp| DeviceWorkspace::new(gpu_mut, mlp, [1, 2 * b], [1, b]));
        let policy_passes = policy_passes.collect::<Result<_, _>>()?;
        let critic_pass = DeviceWorkspace::new(gpu_mut, &critic, [4, b], [2, b])?;
        let value_pass =
            value.as_ref().map(|value| DeviceWorkspace::new(gpu_mut, value, [1, b], [1, b])).transpose()?;
        let fused = is_fused.then(|| FusedBuffers::new(gpu_mut, b, &policy.networks[0], &critic, a)).transpose()?;
        let capacity = config.replay_rows();
        let memory = gpu_mut.allocate(capacity.saturating_mul(2 * o + a + 2)).map_err(|error| match error {
            Error::Device(problem) => Error::Device(format!(
                "a replay memory of {capacity} transitions does not fit there ({problem}); lower replay_capacity (--replay)"
            )),
            error => error,
        })?;
        let mut allocate = |words| gpu_mut.allocate(words);
        let mut learner = Self {
            config: config.clone(),
            target_entropy: config.target_entropy(half_range.iter().map(|&half| f64::from(half))) as f32,
            updates: 0,
            theta,
            critics,
            value_parameters,
            log_alpha,
            status: allocate(STATUS_WORDS)?,
            policy_passes,
            critic_pass,
            value_pass,
            inputs: allocate(3 * b * (o + a))?,
            reward: allocate(b)?,
            discount: allocate(b)?,
            noise: allocate(2 * b * a)?,
            raw: allocate(2 * b * 2 * a)?,
            log_prob: allocate(2 * b)?,
            q: allocate(4 * b)?,
            v: allocate(b)?,
            target: allocate(b)?,
            d_q: allocate(2 * b)?,
            d_v: allocate(b)?,
            d_action: allocate(2 * b * a)?,
            d_raw: allocate(b * 2 * a)?,
            fused,
            memory,
            capacity,
            mirrored: 0,
            draws: allocate(4)?,
            rows: allocate(b)?,
            staging: Vec::new(),
            acting: HashMap::new(),
            recordings: HashMap::new(),
            policy,
            critic,
            value,
            gpu,
        };
        learner.restore(&cpu.snapshot())?;
        Ok(learner)
    }

    /// Whether updates are fused, and not made layer by layer.
    pub fn is_fused(&self) -> bool {
        self.fused.is_some()
    }

    /// The launches of one update, and those that draw its batch if it `draws`. `policy_is_due` and `first` are as for
    /// [`Self::update_launches`].
    pub fn launches(&self, draws: bool, policy_is_due: bool, first: bool) -> Vec<Launch> {
        if let Some(arguments) = self.fused_arguments(draws, first) {
            return fused::launches(arguments, 1);
        }
        let mut launches = if draws { self.draw() } else { Vec::new() };
        launches.extend(self.update_launches(policy_is_due, first));
        launches
    }

    /// What the fused kernels take, if updates are fused. `draws` tells whether they draw the batch, `first` whether it is the
    /// first update of all.
    pub fn fused_arguments(&self, draws: bool, first: bool) -> Option<kernels::Fused> {
        let buffers = self.fused.as_ref()?;
        let (b, o, a) = self.sizes();
        let network = |mlp: &Mlp, parameters: &Parameters, pass: &DeviceWorkspace, shares, d_first| {
            let layers = mlp.layers();
            kernels::FusedNetwork {
                theta: parameters.values,
                gradient: parameters.gradient,
                m: parameters.first_moment,
                v: parameters.second_moment,
                h1: pass.hidden[0],
                h2: pass.hidden[1],
                shares,
                d_first,
                inputs: narrow(layers[0].inputs),
                h1_width: narrow(layers[0].outputs),
                h2_width: narrow(layers[1].outputs),
                outputs: narrow(layers[2].outputs),
                step: narrow(parameters.step()),
                parameters: narrow(parameters.mlp_parameters),
            }
        };
        let FusedBuffers { policy_shares, critic_shares, d_policy_first, d_critics_first, .. } = *buffers;
        let policy =
            network(&self.policy.networks[0], &self.theta, &self.policy_passes[0], policy_shares, d_policy_first);
        Some(kernels::Fused {
            policy,
            critics: network(&self.critic, &self.critics, &self.critic_pass, critic_shares, d_critics_first),
            memory: self.memory,
            draws: self.draws,
            rows: self.rows,
            noise: self.noise,
            inputs: self.inputs,
            reward: self.reward,
            discount: self.discount,
            raw: self.raw,
            log_prob: self.log_prob,
            q: self.q,
            target: self.target,
            d_q: self.d_q,
            d_action: self.d_action,
            d_raw: self.d_raw,
            d_action_shares: buffers.d_action_shares,
            sums: buffers.sums,
            alpha: self.alpha(first),
            log_alpha: self.log_alpha.values,
            log_alpha_gradient: self.log_alpha.gradient,
            log_alpha_m: self.log_alpha.first_moment,
            log_alpha_v: self.log_alpha.second_moment,
            status: self.status,
            seed: self.config.seed,
            agent_bytes: 0,
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
            unused: 0,
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
            launches.push(self.step(&self.theta));
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
        let log_alpha = self.log_alpha.values;
        kernels::Alpha { log_alpha, fixed: fixed.unwrap_or(0.0) as f32, is_fixed: fixed.is_some().into() }
    }

    /// ã ~ π(·|s) and, for a target that needs it, ã′ ~ π(·|s′), with their log-probabilities.
    pub fn sample_actions(&self) -> Vec<Launch> {
        let (b, o, a) = self.sizes();
        // The rows of s′ come first.
        let first_row = if self.value.is_some() { b } else { 0 };
        let rows = [first_row, 2 * b - first_row];
        let x = Matrix::shared(self.inputs.at((b + first_row) * (o + a)), o + a);
        let mut launches = self.policy_forward(&self.policy_passes, rows, x, self.raw.at(first_row * 2 * a));
        let sample = kernels::Sample {
            raw: self.raw.at(first_row * 2 * a),
            noise: self.noise.at(first_row * a),
            action: x.at.at(o),
            log_prob: self.log_prob.at(first_row),
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
        let x = Matrix { at: self.inputs, step: o + a, network: b * (o + a), sharing: 2 };
        let q = Matrix::of_each(self.q, 1, b);
        let mut launches = self.critic_pass.forward(self.critics.values, networks, [0, b], x, q);
        if let (Some(pass), Some(parameters)) = (&self.value_pass, &self.value_parameters) {
            let x = Matrix::shared(self.inputs.at(b * (o + a)), o + a);
            launches.extend(pass.forward(parameters.targets(), 1, [0, b], x, Matrix::shared(self.v, 1)));
        }
        let loss = kernels::CriticLoss {
            q: self.q,
            target_q: self.q.at(2 * b),
            value: self.v,
            next_log_prob: self.log_prob,
            log_prob: self.log_prob.at(b),
            reward: self.reward,
            discount: self.discount,
            alpha,
            target: self.target,
            d_q: self.d_q,
            status: self.status,
            rows: narrow(b),
            has_value: self.value.is_some().into(),
        };
        launches.push(loss.launch([1; 3]));
        let (x, d_q) = (Matrix::shared(self.inputs, o + a), Matrix::of_each(self.d_q, 1, b));
        let gradient = Some(self.critics.gradient);
        launches.extend(self.critic_pass.backward(self.critics.values, 2, [0, b], x, d_q, gradient, None));
        launches
    }

    /// The critics' step, and Q̄ᵢ ← Q̄ᵢ + τ(Qᵢ − Q̄ᵢ) if the targets are to follow.
    fn critic_step(&self, follow: bool) -> Vec<Launch> {
        self.step_and_follow(&self.critics, follow)
    }

    /// Qᵢ(s, ã), for the losses of V and of the policy; ã is that of the last [`Self::sample_actions`].
    pub fn evaluate_actions(&self) -> Vec<Launch> {
        let (b, ..) = self.sizes();
        let q = Matrix::of_each(self.q, 1, b);
        self.critic_pass.forward(self.critics.values, 2, [0, b], self.chosen_actions(), q)
    }

    /// J_V and its gradient over the parameters of V, if there is one; Qᵢ(s, ã) is that of the last
    /// [`Self::evaluate_actions`].
    pub fn value_loss(&self, alpha: kernels::Alpha) -> Vec<Launch> {
        let (b, ..) = self.sizes();
        let (Some(pass), Some(parameters)) = (&self.value_pass, &self.value_parameters) else { return Vec::new() };
        let x = self.chosen_actions();
        let mut launches = pass.forward(parameters.values, 1, [0, b], x, Matrix::shared(self.v, 1));
        let log_prob = self.log_prob.at(b);
        let loss = kernels::ValueLoss {
            v: self.v,
            q: self.q,
            log_prob,
            alpha,
            d_v: self.d_v,
            status: self.status,
            rows: narrow(b),
            unused: 0,
        };
        launches.push(loss.launch([1; 3]));
        let d_v = Matrix::shared(self.d_v, 1);
        launches.extend(pass.backward(parameters.values, 1, [0, b], x, d_v, Some(parameters.gradient), None));
        launches
    }

    /// The step of V, if there is one, and V̄ ← V̄ + τ(V − V̄) if the target is to follow.
    fn value_step(&self, follow: bool) -> Vec<Launch> {
        self.value_parameters.as_ref().map_or_else(Vec::new, |parameters| self.step_and_follow(parameters, follow))
    }

    /// J_π and its gradient over the policy's parameters; Qᵢ(s, ã) is that of the last [`Self::evaluate_actions`].
    pub fn policy_loss(&self, alpha: kernels::Alpha) -> Vec<Launch> {
        let (b, _, a) = self.sizes();
        let (log_prob, rows) = (self.log_prob.at(b), narrow(b));
        let loss =
            kernels::PolicyLoss { q: self.q, log_prob, alpha, d_q: self.d_q, status: self.status, rows, unused: 0 };
        let mut launches = vec![loss.launch([1; 3])];
        let (x, d_q) = (self.chosen_actions(), Matrix::of_each(self.d_q, 1, b));
        let d_action = Some((self.d_action, a));
        launches.extend(self.critic_pass.backward(self.critics.values, 2, [0, b], x, d_q, None, d_action));
        let backward = kernels::SampleBackward {
            raw: self.raw.at(b * 2 * a),
            noise: self.noise.at(b * a),
            d_action: self.d_action,
            alpha,
            d_raw: self.d_raw,
            distribution: self.distribution(),
            rows,
            actions: narrow(a),
        };
        launches.push(backward.launch_over(b));
        let (mut parameter, mut column) = (0, 0);
        for (mlp, pass) in self.policy.networks.iter().zip(&self.policy_passes) {
            let (theta, gradient) = (self.theta.values.at(parameter), self.theta.gradient.at(parameter));
            let d_raw = Matrix::shared(self.d_raw.at(column), 2 * a);
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
            log_prob: self.log_prob.at(b),
            log_alpha: self.log_alpha.values,
            gradient: self.log_alpha.gradient,
            m: self.log_alpha.first_moment,
            v: self.log_alpha.second_moment,
            status: self.status,
            rows: narrow(b),
            target_entropy: self.target_entropy,
            over_alpha: (self.config.temperature_loss == TemperatureLoss::Alpha).into(),
            unused: 0,
        };
        (self.config.alpha == Alpha::Auto).then(|| step.launch([1; 3]))
    }

    fn finish_update(&self) -> Launch {
        kernels::FinishUpdate { status: self.status, log_alpha: self.log_alpha.values }.launch([1; 3])
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

    /// The policy's networks over the rows of `x`, to the raw outputs `[rows, 2A]`.
    fn policy_forward(&self, passes: &[DeviceWorkspace], rows: [usize; 2], x: Matrix, raw: Buffer) -> Vec<Launch> {
        let mut launches = Vec::new();
        let (mut parameter, mut column) = (0, 0);
        for (mlp, pass) in self.policy.networks.iter().zip(passes) {
            let y = Matrix::shared(raw.at(column), 2 * self.policy.action_size());
            launches.extend(pass.forward(self.theta.values.at(parameter), 1, rows, x, y));
            parameter += mlp.parameters();
            column += mlp.outputs();
        }
        launches
    }

    /// \[s, ã]
    fn chosen_actions(&self) -> Matrix {
        let (b, o, a) = self.sizes();
        Matrix::shared(self.inputs.at(2 * b * (o + a)), o + a)
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
        assert_eq!((batch.observation.dim(), batch.next_observation.dim()), ((b, o), (b, o)));
        assert_eq!((batch.action.dim(), batch.reward.len(), batch.discount.len()), ((b, a), b, b));
        assert_eq!((noise.current.dim(), noise.next.dim()), ((b, a), (b, a)));
        let mut inputs = ndarray::Array3::<f32>::zeros((3, b, o + a));
        inputs.slice_mut(s![0, .., ..o]).assign(&batch.observation);
        inputs.slice_mut(s![0, .., o..]).assign(&batch.action);
        inputs.slice_mut(s![1, .., ..o]).assign(&batch.next_observation);
        inputs.slice_mut(s![2, .., ..o]).assign(&batch.observation);
        let noise: Vec<f32> = noise.next.iter().chain(&noise.current).copied().collect();
        // SAFETY: the buffers were made for these sizes, which have just been checked.
        unsafe {
            self.gpu.upload(self.inputs, words(inputs.as_slice().expect("it is new")))?;
            self.gpu.upload(self.reward, words(batch.reward.as_slice().expect("it is contiguous")))?;
            self.gpu.upload(self.discount, words(batch.discount.as_slice().expect("it is contiguous")))?;
            self.gpu.upload(self.noise, words(&noise))
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

    /// Every intermediate of an update by name, with its length, as [`CpuLearner::intermediates`] names them; the rows of
    /// s′ stand before those of s where there are both.
    pub fn intermediates(&self) -> Vec<(String, Buffer, usize)> {
        let (b, o, a) = self.sizes();
        let mut list = vec![
            ("inputs".to_string(), self.inputs, 3 * b * (o + a)),
            ("raw".into(), self.raw, 2 * b * 2 * a),
            ("log_prob".into(), self.log_prob, 2 * b),
            ("q".into(), self.q, 2 * b),
            ("target_q".into(), self.q.at(2 * b), 2 * b),
            ("target".into(), self.target, b),
            ("d_q".into(), self.d_q, 2 * b),
            ("d_action".into(), self.d_action, 2 * b * a),
            ("d_raw".into(), self.d_raw, b * 2 * a),
            ("v".into(), self.v, b),
            ("d_v".into(), self.d_v, b),
        ];
        for (i, (mlp, pass)) in self.policy.networks.iter().zip(&self.policy_passes).enumerate() {
            list.extend(hidden(&format!("policy{i}"), mlp, pass, 2 * b, b));
        }
        list.extend(hidden("critic", &self.critic, &self.critic_pass, 2 * b, 2 * b));
        for (mlp, pass) in self.value.iter().zip(&self.value_pass) {
            list.extend(hidden("value", mlp, pass, b, b));
        }
        for (name, parameters, i) in self.all_networks() {
            list.push((
                format!("{name}.gradient"),
                parameters.gradient.at(i * parameters.step()),
                parameters.mlp_parameters,
            ));
        }
        list
    }

    /// The floats of one of the [`Self::intermediates`].
    ///
    /// # Errors
    /// If the GPU fails.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn read(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        let (buffer, length) = self.intermediate(name);
        // SAFETY: an intermediate is a buffer of that length.
        unsafe { self.read_buffer(buffer, length) }
    }

    /// Overwrites one of the [`Self::intermediates`].
    ///
    /// # Errors
    /// If the GPU fails.
    ///
    /// # Panics
    /// If there is none of that name and length.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<(), Error> {
        let (buffer, length) = self.intermediate(name);
        assert_eq!(values.len(), length, "{name}");
        // SAFETY: as for `read`.
        unsafe { self.gpu.upload(buffer, words(values)) }
    }

    fn intermediate(&self, name: &str) -> (Buffer, usize) {
        let list = self.intermediates();
        let found = list.into_iter().find(|(known, ..)| known == name);
        let (_, buffer, length) = found.unwrap_or_else(|| panic!("there is no intermediate {name}"));
        (buffer, length)
    }

    /// # Safety
    /// The buffer must be so long.
    unsafe fn read_buffer(&mut self, from: Buffer, length: usize) -> Result<Vec<f32>, Error> {
        let mut values = vec![0.0; length];
        // SAFETY: the caller promises the same.
        unsafe { self.gpu.download(from, words_mut(&mut values)) }?;
        Ok(values)
    }

    /// The rows of the replay memory and the noise, of s′ before that of s, which the last [`Learner::learn`] has drawn.
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn drawn(&mut self) -> Result<(Vec<u32>, Vec<f32>), Error> {
        let (b, _, a) = self.sizes();
        let mut rows = vec![0; b];
        // SAFETY: the buffers were made with these lengths.
        unsafe {
            self.gpu.download(self.rows, &mut rows)?;
            Ok((rows, self.read_buffer(self.noise, 2 * b * a)?))
        }
    }

    /// Every network by name, with its place among those of its shape.
    fn all_networks(&self) -> Vec<(&'static str, &Parameters, usize)> {
        let (theta, critics, log_alpha) = (&self.theta, &self.critics, &self.log_alpha);
        let mut list = vec![("policy", theta, 0), ("q1", critics, 0), ("q2", critics, 1), ("log_alpha", log_alpha, 0)];
        list.extend(self.value_parameters.iter().map(|value| ("value", value, 0)));
        list
    }

    /// Every vector that updates depend on, by the names and in the order of [`CpuLearner`]'s, and the places of its counts.
    #[allow(clippy::type_complexity)]
    fn state(&self) -> (Vec<(String, Buffer, usize)>, Vec<(String, usize)>) {
        let (mut vectors, mut counts) = (Vec::new(), Vec::new());
        for (name, parameters, i) in self.all_networks() {
            let (length, at) = (parameters.mlp_parameters, i * parameters.step());
            vectors.push((name.to_string(), parameters.values.at(at), length));
            if parameters.has_target {
                vectors.push((format!("target_{name}"), parameters.targets().at(at), length));
            }
            vectors.push((format!("{name}.adam_first_moment"), parameters.first_moment.at(at), length));
            vectors.push((format!("{name}.adam_second_moment"), parameters.second_moment.at(at), length));
            counts.push((format!("{name}.adam_steps"), parameters.first + i));
        }
        (vectors, counts)
    }

    fn download_status(&mut self) -> Result<Status, Error> {
        let mut words = [0_u32; STATUS_WORDS];
        // SAFETY: the buffer was made with this length.
        unsafe { self.gpu.download(self.status, &mut words) }?;
        // SAFETY: a `Status` is so many words of plain numbers, and every bit pattern is valid.
        Ok(unsafe { std::mem::transmute::<[u32; STATUS_WORDS], Status>(words) })
    }

    /// Copies to the device what the replay memory has got since the last time, and once more what was the newest then:
    /// returns over several steps have grown.
    fn mirror(&mut self, replay: &Replay) -> Result<(), Error> {
        let (_, o, a) = self.sizes();
        let width = 2 * o + a + 2;
        assert_eq!(replay.capacity(), self.capacity, "the memory was made for another replay");
        assert!(replay.normalizer.is_none(), "observations are normalized on the CPU alone");
        let pushed = replay.pushed();
        assert!(!replay.is_empty() && pushed >= self.mirrored, "a learner learns from one memory that grows");
        let (gamma, n_step) = (self.config.gamma as f32, self.config.n_step);
        let grown = (n_step - 1) * replay.environments();
        let mut next = self.mirrored.saturating_sub(grown).max(pushed - replay.len());
        while next < pushed {
            // As many as lie in one piece, and not more than a few megabytes.
            let row = next % self.capacity;
            let count = (pushed - next).min(self.capacity - row).min((1 << 20) / width + 1);
            self.staging.resize(count * width, 0.0);
            for (i, to) in self.staging.chunks_exact_mut(width).enumerate() {
                replay.write_n_step_transition(row + i, gamma, n_step, to);
                to[o + a] *= self.config.reward_scale as f32;
            }
            // SAFETY: `row + count` is at most the capacity that the memory was made for.
            unsafe { self.gpu.upload(self.memory.at(row * width), words(&self.staging)) }?;
            next += count;
        }
        self.mirrored = pushed;
        Ok(())
    }

    /// The launches that draw a batch and its noise, and gather it.
    fn draw(&self) -> Vec<Launch> {
        let (b, o, a) = self.sizes();
        let count = 2 * b * a;
        let draw = kernels::Draw {
            draws: self.draws,
            rows: self.rows,
            noise: self.noise,
            seed: self.config.seed,
            batch: narrow(b),
            count: narrow(count),
        };
        let gather = kernels::Gather {
            memory: self.memory,
            rows: self.rows,
            inputs: self.inputs,
            reward: self.reward,
            discount: self.discount,
            batch: narrow(b),
            observations: narrow(o),
            actions: narrow(a),
            gamma: self.config.gamma as f32,
        };
        vec![draw.launch_over(b.max(count).div_ceil(4)), gather.launch_over(b * (2 * o + a + 2))]
    }

    fn next_update(&mut self) -> (bool, bool) {
        self.updates += 1;
        (self.updates.is_multiple_of(self.config.policy_delay), self.updates == 1)
    }

    fn acting(&mut self, rows: usize) -> Result<Acting, Error> {
        let (_, o, a) = self.sizes();
        let gpu = &mut *self.gpu;
        let passes = self.policy.networks.iter().map(|mlp| DeviceWorkspace::new(gpu, mlp, [1, rows], [0, 0]));
        let passes = passes.collect::<Result<Vec<_>, _>>()?;
        let (observation, noise) = (gpu.allocate(rows * o)?, gpu.allocate(rows * a)?);
        let (raw, action, log_prob) = (gpu.allocate(rows * 2 * a)?, gpu.allocate(rows * a)?, gpu.allocate(rows)?);
        let distribution = self.distribution();
        let sample = kernels::Sample {
            raw,
            noise,
            action,
            log_prob,
            distribution,
            rows: narrow(rows),
            actions: narrow(a),
            action_step: narrow(a),
            unused: 0,
        };
        let mode = kernels::Mode { raw, action, distribution, rows: narrow(rows), actions: narrow(a) };
        let with = |last: Launch| {
            let mut launches = self.policy_forward(&passes, [0, rows], Matrix::shared(observation, o), raw);
            launches.push(last);
            launches
        };
        let (sampled, deterministic) = (with(sample.launch_over(rows)), with(mode.launch_over(rows)));
        // SAFETY: they are of the buffers that have just been made, with these sizes.
        let (sampled, deterministic) = unsafe { (self.gpu.record(sampled)?, self.gpu.record(deterministic)?) };
        Ok(Acting { observation, noise, action, sampled, deterministic })
    }
}

/// The hidden layers of a pass and their gradients, by name; so many rows of all networks together count.
fn hidden<'a>(
    name: &'a str,
    mlp: &'a Mlp,
    pass: &'a DeviceWorkspace,
    rows: usize,
    d_rows: usize,
) -> impl Iterator<Item = (String, Buffer, usize)> + 'a {
    let layers = mlp.layers().iter().zip(pass.hidden.iter().zip(&pass.d_hidden)).enumerate();
    layers.flat_map(move |(l, (layer, (&h, &d)))| {
        [
            (format!("{name}.hidden{l}"), h, rows * layer.outputs),
            (format!("{name}.d_hidden{l}"), d, d_rows * layer.outputs),
        ]
    })
}

impl Learner for CudaLearner {
    fn act(
        &mut self,
        observation: ArrayView2<f32>,
        noise: Option<ArrayView2<f32>>,
        mut action: ArrayViewMut2<f32>,
    ) -> Result<(), Error> {
        let (_, o, a) = self.sizes();
        let rows = observation.nrows();
        assert_eq!((observation.ncols(), action.dim()), (o, (rows, a)));
        let acting = match self.acting.get(&rows) {
            Some(&acting) => acting,
            None => {
                let acting = self.acting(rows)?;
                self.acting.insert(rows, acting);
                acting
            }
        };
        let row_major = |view: ArrayView2<f32>| view.iter().copied().collect::<Vec<_>>();
        // SAFETY: the buffers were made for so many rows, and the widths are checked.
        let values = unsafe {
            self.gpu.upload(acting.observation, words(&row_major(observation)))?;
            let recording = match noise {
                Some(noise) => {
                    assert_eq!(noise.dim(), (rows, a));
                    self.gpu.upload(acting.noise, words(&row_major(noise)))?;
                    acting.sampled
                }
                None => acting.deterministic,
            };
            self.gpu.replay(recording)?;
            self.read_buffer(acting.action, action.len())?
        };
        action.iter_mut().zip(values).for_each(|(action, value)| *action = value);
        Ok(())
    }

    fn update(&mut self, batch: &Batch<f32>, noise: &Noise<f32>) -> Result<(), Error> {
        self.load(batch, noise)?;
        let (policy_is_due, first) = self.next_update();
        let launches = self.launches(false, policy_is_due, first);
        // SAFETY: they are this learner's own.
        unsafe { self.run(&launches) }
    }

    fn learn(&mut self, replay: &Replay, update: u64) -> Result<(), Error> {
        self.mirror(replay)?;
        let stored = replay.len() as u64;
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        // SAFETY: the buffer was made for four words.
        unsafe { self.gpu.upload(self.draws, [halves(update), halves(stored)].as_flattened()) }?;
        let (policy_is_due, first) = self.next_update();
        let recording = match self.recordings.get(&(policy_is_due, first)) {
            Some(&recording) => recording,
            None => {
                // SAFETY: they are this learner's own.
                let recording = unsafe { self.gpu.record(self.launches(true, policy_is_due, first)) }?;
                self.recordings.insert((policy_is_due, first), recording);
                recording
            }
        };
        self.gpu.replay(recording)
    }

    fn metrics(&mut self) -> Result<Metrics, Error> {
        let status = self.download_status()?;
        let alpha = self.alpha(self.updates == 0);
        let alpha = if alpha.is_fixed > 0 { alpha.fixed } else { (status.log_alpha as f32).exp() };
        Ok(Metrics { alpha: alpha.into(), ..status.metrics() })
    }

    fn snapshot(&mut self) -> Result<Snapshot<f32>, Error> {
        let (vectors, places) = self.state();
        let status = self.download_status()?;
        let sums = status.metrics().sums().map(|(name, sum)| (name.to_string(), sum)).into();
        let mut counts =
            vec![("updates".to_string(), status.updates), ("policy_updates".to_string(), status.policy_updates)];
        counts.extend(places.into_iter().map(|(name, place)| (name, status.steps[place])));
        let vectors = vectors.into_iter().map(|(name, buffer, length)| {
            // SAFETY: the state is told by its own lengths.
            Ok((name, unsafe { self.read_buffer(buffer, length) }?))
        });
        Ok(Snapshot { vectors: vectors.collect::<Result<_, Error>>()?, counts, sums })
    }

    fn restore(&mut self, snapshot: &Snapshot<f32>) -> Result<(), Error> {
        let (vectors, places) = self.state();
        let names = places.iter().map(|(name, _)| name.as_str()).chain(["updates", "policy_updates"]);
        snapshot.check(vectors.iter().map(|(name, _, length)| (name.as_str(), *length)), names)?;
        for (name, buffer, _) in &vectors {
            // SAFETY: the vector has the length of the buffer, as has been checked.
            unsafe { self.gpu.upload(*buffer, words(snapshot.get(name).expect("it has been checked"))) }?;
        }
        // A failure is behind it.
        let metrics = Metrics::of(snapshot);
        self.updates = metrics.updates;
        let mut status = Status {
            updates: metrics.updates,
            policy_updates: metrics.policy_updates,
            critic_loss: metrics.critic_loss,
            value_loss: metrics.value_loss,
            policy_loss: metrics.policy_loss,
            temperature_loss: metrics.temperature_loss,
            q: metrics.q,
            entropy: metrics.entropy,
            learning_rate: self.learning_rates(),
            ..Status::default()
        };
        for (name, place) in places {
            status.steps[place] = snapshot.count(&name).expect("it has been checked");
        }
        // SAFETY: a `Status` is so many words of plain numbers, without padding.
        let words = unsafe { std::mem::transmute::<Status, [u32; STATUS_WORDS]>(status) };
        // The device works out what the next steps take, as it does while it trains.
        let prepare = kernels::PrepareSteps { status: self.status, log_alpha: self.log_alpha.values }.launch([1; 3]);
        // SAFETY: the buffer was made for a `Status`.
        unsafe {
            self.gpu.upload(self.status, &words)?;
            self.gpu.run(&[prepare])
        }
    }
}
