//! Soft Actor-Critic on the CPU. [`CpuLearner::update`] is the algorithm; what it calls follows in the order of its steps.
//!
//! Twin critics Q₁, Q₂ with target copies Q̄₁, Q̄₂, a tanh-Gaussian policy π and a temperature α, fixed or tuned.
//! Reference: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905.

use super::{Learner, Metrics, Noise, Policy, PolicyPass, Snapshot};
use crate::config::{
    Alpha, Bootstrap, Config, FirstUpdateAlpha, GradientClamp, LossOrder, MaxGradientNorm, Precision, TemperatureLoss,
};
use crate::error::Error;
use crate::nn::threads::{for_each, join};
use crate::nn::{Adam, Aligned, Matrix, Mlp, Pass, Real, Theta, accumulate, clip_norm, init, polyak};
use crate::replay::{Batch, Replay};
use crate::rng::{Philox, Stream};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, s};
use std::ops::Range;

/// The most rows of a batch that go through a network together, by one thread: what a layer leaves of them stays in the
/// cache for the next.
const BLOCK_ROWS: usize = 128;
/// Multiplications of a pass of the policy that are worth sharing among threads, although each needs all weights then.
const WORK_TO_SHARE: usize = 1 << 21;

/// A parameter vector, the gradient of its loss, and the optimizer that brings the two together.
struct Parameters<T> {
    theta: Theta<T>,
    gradient: Aligned<T>,
    adam: Adam<T>,
    bounds: GradientBounds<T>,
}

/// What a gradient is held within before Adam sees it, if anything.
#[derive(Clone, Copy)]
struct GradientBounds<T> {
    /// Bound on each element.
    clamp: Option<T>,
    /// Bound on the norm of all of them.
    norm: Option<f64>,
}

impl<T: Real> GradientBounds<T> {
    const NONE: Self = Self { clamp: None, norm: None };

    fn new(config: &Config) -> Self {
        Self {
            clamp: match config.gradient_clamp {
                GradientClamp::Off => None,
                GradientClamp::Fixed(bound) => Some(T::of(bound)),
            },
            norm: match config.max_gradient_norm {
                MaxGradientNorm::Off => None,
                MaxGradientNorm::Fixed(bound) => Some(bound),
            },
        }
    }
}

impl<T: Real> Parameters<T> {
    fn new(theta: Theta<T>, learning_rate: f64, bounds: GradientBounds<T>) -> Self {
        Self { gradient: Aligned::zeros(theta.len()), adam: Adam::new(theta.len(), learning_rate), theta, bounds }
    }

    fn step(&mut self) {
        if let Some(bound) = self.bounds.clamp {
            // Comparisons, unlike min and max, let NaN through.
            let clamp = |g: T| {
                if g > bound {
                    bound
                } else if g < -bound {
                    -bound
                } else {
                    g
                }
            };
            self.gradient.iter_mut().for_each(|g| *g = clamp(*g));
        }
        if let Some(bound) = self.bounds.norm {
            clip_norm(&mut self.gradient, bound);
        }
        self.adam.step(self.theta.values_mut(), &self.gradient);
        self.theta.pack();
    }

    /// θ's step, and for a `target` that is to follow, θ̄ ← θ̄ + τ(θ − θ̄), at the place that `order` gives it.
    fn step_and_follow(&mut self, target: Option<&mut Theta<T>>, tau: T, order: LossOrder) {
        let follow = |theta: &[T]| {
            if let Some(target) = target {
                polyak(target.values_mut(), theta, tau);
                target.pack();
            }
        };
        if order == LossOrder::TemperatureFirst {
            follow(&self.theta);
            self.step();
        } else {
            self.step();
            follow(&self.theta);
        }
    }
}

/// One of the twins: Q(s, a), and its slowly following copy Q̄ where that is what the target takes.
struct Critic<T> {
    online: Parameters<T>,
    target: Option<Theta<T>>,
    /// For each block of rows.
    passes: Vec<CriticPass<T>>,
}

/// A pass of a critic over a block of rows, `B` here.
struct CriticPass<T> {
    /// From \[s, a] or \[s, ã] to Q, whichever was last asked for; before, from \[s′, ã′] to Q̄.
    network: Pass<T>,
    /// Q̄(s′, ã′), `[B]`.
    target_q: Array1<T>,
    /// The rows of the block in which this twin is the minimum, and ∂J_π/∂a in those rows, `[rows, A]` of `[B, A]`.
    chosen: Vec<usize>,
    d_action: Matrix<T>,
}

impl<T: Real> CriticPass<T> {
    /// Q, whichever was last asked for, or Q̄, `[B]`.
    fn q(&self) -> &[T] {
        self.network.y.column()
    }

    /// Takes the joined rows of observations and actions as inputs.
    fn set_inputs(&mut self, observation: ArrayView2<T>, action: ArrayView2<T>) {
        let x = &mut self.network.x;
        let (rows, inputs) = (observation.nrows(), observation.ncols() + action.ncols());
        assert_eq!((x.view().dim(), action.nrows()), ((rows, inputs), rows));
        let rows = observation.rows().into_iter().zip(action.rows());
        for (x, (observation, action)) in x.rows_mut().zip(rows) {
            let row = "rows are contiguous";
            let (observation, action) = (observation.to_slice().expect(row), action.to_slice().expect(row));
            let (left, right) = x.split_at_mut(observation.len());
            left.iter_mut().zip(observation).for_each(|(x, &from)| *x = from);
            right.iter_mut().zip(action).for_each(|(x, &from)| *x = from);
        }
    }
}

/// Passes of the policy over the same block of rows.
struct PolicyPasses<T> {
    /// ã ~ π(·|s).
    current: PolicyPass<T>,
    /// ã′ ~ π(·|s′).
    next: PolicyPass<T>,
}

/// V(s), and its slowly following copy V̄.
struct Value<T> {
    network: Mlp,
    online: Parameters<T>,
    target: Theta<T>,
    /// For each block of rows: from s to V(s) or from s′ to V̄(s′), whichever was last asked for.
    passes: Vec<Pass<T>>,
}

/// The learner that the proofs are about; `f32` to train, `f64` to prove.
pub struct CpuLearner<T = f32> {
    policy: Policy,
    critic: Mlp,
    tau: T,
    target_entropy: T,
    fixed_alpha: Option<T>,
    first_update_alpha: Option<T>,
    temperature_loss: TemperatureLoss,
    loss_order: LossOrder,
    policy_delay: u64,

    theta: Parameters<T>,
    critics: [Critic<T>; 2],
    /// Where the critics' target takes V̄ for the value of s′.
    value: Option<Value<T>>,
    /// log α, one element; it stays as it is if α is fixed.
    log_alpha: Parameters<T>,

    /// Passes of the policy for each block of rows, and over what is acted upon.
    policy_passes: Vec<PolicyPasses<T>>,
    acting: PolicyPass<T>,
    /// The policy's gradient over the second half of the blocks, if there are two or more.
    second_gradient: Aligned<T>,
    /// y, `[B]`.
    target: Array1<T>,

    /// What [`Learner::learn`] draws.
    seed: u64,
    reward_scale: T,
    gamma: T,
    n_step: usize,
    rows: Vec<usize>,
    batch: Batch<T>,
    noise: Noise<T>,

    metrics: Metrics,
}

impl<T: Real> CpuLearner<T> {
    /// Refuses what only a GPU does.
    ///
    /// # Errors
    /// [`Error::Config`] names it.
    pub fn check(config: &Config) -> Result<(), Error> {
        let problem = "precision is tf32, which the CPU does not have; say --device cuda, or --precision f32";
        if config.precision == Precision::F32 { Ok(()) } else { Err(Error::Config(problem.into())) }
    }

    /// A learner before its first update, initialised from the seed of `config`, which must be valid.
    ///
    /// `half_range` is ½(high − low) of each action dimension in the environment, `[A]`; it matters only for a target
    /// entropy in the environment's units.
    pub fn new(config: &Config, observation_size: usize, half_range: &[f32]) -> Self {
        let (batch_size, action_size) = (config.batch_size, half_range.len());
        let policy = Policy::new(config, observation_size, action_size);
        let critic = Mlp::new(observation_size + action_size, &config.critic_hidden, 1, config.activation);
        let rng = |index| Philox::new(config.seed, Stream::Init, index);
        let initial =
            |network: &Mlp, index| init::network(network, 1, config.hidden_init, config.output_init, &mut rng(index));
        let bounds = GradientBounds::new(config);
        let blocks = blocks(batch_size, &policy.networks[0]);
        let critics = [1, 2].map(|index| {
            let values = initial(&critic, index);
            let pass = |rows: Range<usize>| CriticPass {
                network: critic.pass(rows.len()),
                target_q: Array1::zeros(rows.len()),
                chosen: Vec::with_capacity(rows.len()),
                d_action: Matrix::zeros(rows.len(), action_size),
            };
            Critic {
                target: (config.bootstrap == Bootstrap::TargetQ).then(|| Theta::new(&values, [&critic], false)),
                online: Parameters::new(Theta::new(&values, [&critic], true), config.critic_learning_rate, bounds),
                passes: blocks.clone().map(pass).collect(),
            }
        });
        let value = (config.bootstrap == Bootstrap::ValueNetwork).then(|| {
            let network = Mlp::new(observation_size, &config.critic_hidden, 1, config.activation);
            let values = initial(&network, 3);
            Value {
                target: Theta::new(&values, [&network], false),
                online: Parameters::new(Theta::new(&values, [&network], true), config.value_learning_rate, bounds),
                passes: blocks.clone().map(|rows| network.pass(rows.len())).collect(),
                network,
            }
        });
        let theta = policy.theta(&policy.initial(config, &mut rng(0)), true);
        let log_alpha = vec![T::of(config.initial_alpha.ln())];
        Self {
            tau: T::of(config.tau),
            target_entropy: T::of(config.target_entropy(half_range.iter().map(|&half| f64::from(half)))),
            fixed_alpha: match config.alpha {
                Alpha::Auto => None,
                Alpha::Fixed(alpha) => Some(T::of(alpha)),
            },
            first_update_alpha: match config.first_update_alpha {
                FirstUpdateAlpha::Initial => None,
                FirstUpdateAlpha::Fixed(alpha) => Some(T::of(alpha)),
            },
            temperature_loss: config.temperature_loss,
            loss_order: config.loss_order,
            policy_delay: config.policy_delay,
            theta: Parameters::new(theta, config.policy_learning_rate, bounds),
            critics,
            value,
            log_alpha: Parameters::new(
                Theta::new(&log_alpha, [], false),
                config.temperature_learning_rate,
                GradientBounds::NONE,
            ),
            second_gradient: Aligned::zeros(if blocks.clone().count() > 1 { policy.parameters() } else { 0 }),
            policy_passes: blocks
                .map(|rows| PolicyPasses { current: policy.pass(rows.clone()), next: policy.pass(rows) })
                .collect(),
            acting: policy.pass(0..1),
            target: Array1::zeros(batch_size),
            seed: config.seed,
            reward_scale: T::of(config.reward_scale),
            gamma: T::of(config.gamma),
            n_step: config.n_step,
            rows: vec![0; batch_size],
            batch: Batch::zeros(batch_size, observation_size, action_size),
            noise: Noise::zeros(batch_size, action_size),
            metrics: Metrics::default(),
            policy,
            critic,
        }
    }

    /// One update: critics, value network, policy, temperature, and the targets with the networks they follow.
    ///
    /// In sequence, each loss is evaluated with what the step before it has left. Otherwise the critics wait with their
    /// step, so that all losses are evaluated at the same parameters.
    ///
    /// # Panics
    /// If `batch` or `noise` is of other shapes than those of the configuration and the environment.
    pub fn update(&mut self, batch: &Batch<T>, noise: &Noise<T>) {
        if self.metrics.failure.is_some() {
            return;
        }
        let policy_is_due = (self.metrics.updates + 1).is_multiple_of(self.policy_delay);

        // ã ~ π(·|s),  ã′ ~ π(·|s′)
        self.sample_actions(batch, noise);

        if self.loss_order == LossOrder::TemperatureFirst && !self.temperature_step() {
            return;
        }
        let alpha = self.alpha();

        // J_Q = Σᵢ mean (Qᵢ(s, a) − y)²,  y = r + γ(1 − d)·(minᵢ Q̄ᵢ(s′, ã′) − α log π(ã′|s′))  or  r + γ(1 − d)·V̄(s′)
        let critic_loss = self.critic_loss(alpha, batch);
        if !self.finite("critic loss", critic_loss) {
            return;
        }
        let q = self.critics.iter().flat_map(|critic| &critic.passes).flat_map(|pass| pass.q());
        let q = mean(q.copied(), 2 * batch.reward.len());
        if self.loss_order == LossOrder::Sequential {
            self.critic_step(policy_is_due);
        }

        // minᵢ Qᵢ(s, ã)
        if policy_is_due || self.value.is_some() {
            self.evaluate_actions(batch);
        }

        // J_V = mean (V(s) − (minᵢ Qᵢ(s, ã) − α log π(ã|s)))²
        if self.value.is_some() {
            let value_loss = self.value_loss(alpha, batch);
            if !self.finite("value loss", value_loss) {
                return;
            }
            self.value_step(policy_is_due);
            self.metrics.value_loss += value_loss.as_f64();
        }

        // J_π = mean (α log π(ã|s) − minᵢ Qᵢ(s, ã))
        if policy_is_due {
            let policy_loss = self.policy_loss(alpha, batch, noise);
            if !self.finite("policy loss", policy_loss) {
                return;
            }
            self.theta.step();
            self.metrics.policy_updates += 1;
            self.metrics.policy_loss += policy_loss.as_f64();
        }

        if self.loss_order != LossOrder::Sequential {
            self.critic_step(policy_is_due);
        }
        if self.loss_order != LossOrder::TemperatureFirst && !self.temperature_step() {
            return;
        }

        self.metrics.updates += 1;
        self.metrics.critic_loss += critic_loss.as_f64();
        self.metrics.q += q.as_f64();
        self.metrics.entropy -= self.mean_log_prob().as_f64();
    }

    /// B, O and A.
    fn sizes(&self) -> [usize; 3] {
        [self.target.len(), self.policy.observation_size(), self.policy.action_size()]
    }

    /// α
    pub fn alpha(&self) -> T {
        let first = self.first_update_alpha.filter(|_| self.metrics.updates == 0);
        self.fixed_alpha.or(first).unwrap_or_else(|| self.log_alpha.theta[0].exp())
    }

    /// ã ~ π(·|s) and, for a target that needs it, ã′ ~ π(·|s′), with their log-probabilities.
    ///
    /// # Panics
    /// If `batch` or `noise` is of other shapes.
    pub fn sample_actions(&mut self, batch: &Batch<T>, noise: &Noise<T>) {
        let [b, o, a] = self.sizes();
        batch.assert_shapes([b, o, a]);
        noise.assert_shapes([b, a]);
        let (policy, theta, with_next) = (&self.policy, &self.theta.theta, self.value.is_none());
        let sample = |observation: &Array2<T>, noise: &Array2<T>, pass: &mut PolicyPass<T>| {
            let rows = s![pass.rows.clone(), ..];
            policy.sample(theta, observation.slice(rows), noise.slice(rows), pass);
        };
        for_each(&mut self.policy_passes, &|_, PolicyPasses { current, next }| {
            join(
                || sample(&batch.observation, &noise.current, current),
                || with_next.then(|| sample(&batch.next_observation, &noise.next, next)),
            );
        });
    }

    /// J_Q = Σᵢ mean (Qᵢ(s, a) − y)², and its gradient over the parameters of both critics, with
    /// y = r + γ(1 − d)·(minᵢ Q̄ᵢ(s′, ã′) − α log π(ã′|s′)) or y = r + γ(1 − d)·V̄(s′); ã′ is that of the last
    /// [`Self::sample_actions`].
    ///
    /// # Panics
    /// If `batch` is of other shapes.
    pub fn critic_loss(&mut self, alpha: T, batch: &Batch<T>) -> T {
        batch.assert_shapes(self.sizes());
        let (network, policy_passes) = (&self.critic, &self.policy_passes);
        for_both(&mut self.critics, |Critic { online, target, passes }| {
            for_each(passes, &|i, pass| {
                let PolicyPass { rows, action: next_action, .. } = &policy_passes[i].next;
                let rows = s![rows.clone(), ..];
                if let Some(target) = &target {
                    pass.set_inputs(batch.next_observation.slice(rows), next_action.view());
                    network.forward(target.weights(0), &mut pass.network);
                    pass.target_q.assign(&pass.network.y.view().column(0));
                }
                pass.set_inputs(batch.observation.slice(rows), batch.action.slice(rows));
                network.forward(online.theta.weights(0), &mut pass.network);
            });
        });
        if let Some(Value { network, target, passes, .. }) = &mut self.value {
            for_each(passes, &|i, pass| {
                pass.x.view_mut().assign(&batch.next_observation.slice(s![policy_passes[i].next.rows.clone(), ..]));
                network.forward(target.weights(0), pass);
            });
        }

        let batch_size = T::of(self.target.len() as f64);
        let mut loss = T::zero();
        let [q1, q2] = &mut self.critics;
        for (i, PolicyPasses { next: PolicyPass { rows, log_prob, .. }, .. }) in policy_passes.iter().enumerate() {
            let (q1, q2) = (&mut q1.passes[i], &mut q2.passes[i]);
            for (at, row) in rows.clone().enumerate() {
                let next_value = match &self.value {
                    Some(Value { passes, .. }) => passes[i].y.column()[at],
                    None => min(q1.target_q[at], q2.target_q[at]) - alpha * log_prob[at],
                };
                let y = batch.reward[row] + batch.discount[row] * next_value;
                self.target[row] = y;
                for Pass { y: q, d_y: d_q, .. } in [&mut q1.network, &mut q2.network] {
                    let error = q.column()[at] - y;
                    loss += error * error;
                    d_q.column_mut()[at] = T::of(2.0) * error / batch_size;
                }
            }
        }
        for_both(&mut self.critics, |Critic { online, passes, .. }| {
            for_each(passes, &|_, pass| network.backward(online.theta.weights(0), &mut pass.network));
            network.gradient(passes.iter().map(|pass| &pass.network), &mut online.gradient);
        });
        loss / batch_size
    }

    /// y of the last [`Self::critic_loss`], `[B]`.
    pub fn target(&self) -> ArrayView1<'_, T> {
        self.target.view()
    }

    /// The critics' step, and Q̄ᵢ ← Q̄ᵢ + τ(Qᵢ − Q̄ᵢ) if the targets are to follow.
    fn critic_step(&mut self, follow: bool) {
        let (tau, order) = (self.tau, self.loss_order);
        for_both(&mut self.critics, |Critic { online, target, .. }| {
            online.step_and_follow(target.as_mut().filter(|_| follow), tau, order);
        });
    }

    /// Qᵢ(s, ã), for the losses of V and of the policy; ã is that of the last [`Self::sample_actions`].
    ///
    /// # Panics
    /// If `batch` is of other shapes.
    pub fn evaluate_actions(&mut self, batch: &Batch<T>) {
        batch.assert_shapes(self.sizes());
        let (network, policy_passes) = (&self.critic, &self.policy_passes);
        for_both(&mut self.critics, |Critic { online, passes, .. }| {
            for_each(passes, &|i, pass| {
                let PolicyPass { rows, action, .. } = &policy_passes[i].current;
                pass.set_inputs(batch.observation.slice(s![rows.clone(), ..]), action.view());
                network.forward(online.theta.weights(0), &mut pass.network);
            });
        });
    }

    /// J_V = mean (V(s) − (minᵢ Qᵢ(s, ã) − α log π(ã|s)))², and its gradient over the parameters of V, if there is one;
    /// Qᵢ(s, ã) is that of the last [`Self::evaluate_actions`].
    ///
    /// # Panics
    /// If `batch` is of other shapes.
    pub fn value_loss(&mut self, alpha: T, batch: &Batch<T>) -> T {
        batch.assert_shapes(self.sizes());
        let Some(Value { network, online, passes, .. }) = &mut self.value else { return T::zero() };
        let ([q1, q2], policy_passes) = (&self.critics, &self.policy_passes);
        for_each(passes, &|i, pass| {
            pass.x.view_mut().assign(&batch.observation.slice(s![policy_passes[i].current.rows.clone(), ..]));
            network.forward(online.theta.weights(0), pass);
        });
        let batch_size = T::of(batch.reward.len() as f64);
        let mut loss = T::zero();
        for (i, Pass { y: v, d_y: d_v, .. }) in passes.iter_mut().enumerate() {
            let (q1, q2, log_prob) = (q1.passes[i].q(), q2.passes[i].q(), &policy_passes[i].current.log_prob);
            for (at, d_v) in d_v.column_mut().iter_mut().enumerate() {
                let error = v.column()[at] - (min(q1[at], q2[at]) - alpha * log_prob[at]);
                loss += error * error;
                *d_v = T::of(2.0) * error / batch_size;
            }
        }
        for_each(passes, &|_, pass| network.backward(online.theta.weights(0), pass));
        network.gradient(passes.iter(), &mut online.gradient);
        loss / batch_size
    }

    /// The step of V, if there is one, and V̄ ← V̄ + τ(V − V̄) if the target is to follow.
    fn value_step(&mut self, follow: bool) {
        if let Some(Value { online, target, .. }) = &mut self.value {
            online.step_and_follow(Some(target).filter(|_| follow), self.tau, self.loss_order);
        }
    }

    /// J_π = mean (α log π(ã|s) − minᵢ Qᵢ(s, ã)), and its gradient over the policy's parameters; Qᵢ(s, ã) is that of the
    /// last [`Self::evaluate_actions`], with the same batch and noise.
    ///
    /// # Panics
    /// If `batch` or `noise` is of other shapes.
    pub fn policy_loss(&mut self, alpha: T, batch: &Batch<T>, noise: &Noise<T>) -> T {
        let [b, o, a] = self.sizes();
        batch.assert_shapes([b, o, a]);
        noise.assert_shapes([b, a]);
        let batch_size = T::of(batch.reward.len() as f64);
        let [q1, q2] = &mut self.critics;

        // Only the critic that is the minimum passes a gradient on, ∂J_π/∂Q = −1/B.
        let mut loss = T::zero();
        for (i, PolicyPasses { current: PolicyPass { log_prob, .. }, .. }) in self.policy_passes.iter().enumerate() {
            let (q1, q2) = (&mut q1.passes[i], &mut q2.passes[i]);
            q1.chosen.clear();
            q2.chosen.clear();
            for (at, &log_prob) in log_prob.iter().enumerate() {
                let q = [q1.q()[at], q2.q()[at]];
                loss += alpha * log_prob - min(q[0], q[1]);
                if q[0] <= q[1] { q1.chosen.push(at) } else { q2.chosen.push(at) }
            }
        }
        let critic = &self.critic;
        for_both(&mut self.critics, |Critic { online: Parameters { theta, .. }, passes, .. }| {
            for_each(passes, &|_, CriticPass { network, chosen, d_action, .. }| {
                network.d_y.column_mut().fill(-batch_size.recip());
                critic.backward_rows(theta.weights(0), chosen, network);
                critic.last_inputs_backward(theta, network, d_action.view_mut().slice_move(s![..chosen.len(), ..]));
            });
        });
        let (policy, theta, critics) = (&self.policy, &self.theta.theta, &self.critics);
        for_each(&mut self.policy_passes, &|i, PolicyPasses { current: pass, .. }| {
            let mut to = pass.d_action.view_mut();
            for CriticPass { chosen, d_action, .. } in critics.iter().map(|critic| &critic.passes[i]) {
                for (&row, d_action) in chosen.iter().zip(d_action.view().rows()) {
                    to.row_mut(row).assign(&d_action);
                }
            }
            pass.d_log_prob.fill(alpha / batch_size);
            policy.sample_backward(theta, noise.current.slice(s![pass.rows.clone(), ..]), pass);
        });
        // Each half of the rows by the thread that has them in its cache.
        let (first, second) = self.policy_passes.split_at(self.policy_passes.len().div_ceil(2));
        let (gradient, second_gradient) = (&mut self.theta.gradient, &mut self.second_gradient);
        if second.is_empty() {
            policy.gradient(current(first), gradient);
        } else {
            join(|| policy.gradient(current(first), gradient), || policy.gradient(current(second), second_gradient));
            accumulate(gradient, second_gradient);
        }
        loss / batch_size
    }

    /// J_α = −log α · mean (log π(ã|s) + H̄), or −α · mean (log π(ã|s) + H̄), and its gradient over log α; log π is that of
    /// the last [`Self::sample_actions`].
    pub fn temperature_loss(&mut self) -> T {
        let gap = self.mean_log_prob() + self.target_entropy;
        let log_alpha = self.log_alpha.theta[0];
        let (factor, slope) = match self.temperature_loss {
            TemperatureLoss::LogAlpha => (log_alpha, T::one()),
            TemperatureLoss::Alpha => (log_alpha.exp(), log_alpha.exp()),
        };
        self.log_alpha.gradient[0] = -slope * gap;
        -factor * gap
    }

    /// The step of a temperature that is tuned, unless its loss is not finite; says whether all is well.
    fn temperature_step(&mut self) -> bool {
        if self.fixed_alpha.is_none() {
            let loss = self.temperature_loss();
            if !self.finite("temperature loss", loss) {
                return false;
            }
            self.log_alpha.step();
            self.metrics.temperature_loss += loss.as_f64();
        }
        true
    }

    /// mean log π(ã|s), of the last [`Self::sample_actions`].
    fn mean_log_prob(&self) -> T {
        mean(current(&self.policy_passes).flat_map(|pass| &pass.log_prob).copied(), self.target.len())
    }

    /// The gradients that the losses last left, by the names of [`Learner::snapshot`].
    pub fn gradients(&self) -> Vec<(&'static str, &[T])> {
        let [q1, q2] = &self.critics;
        let mut gradients: Vec<(_, &[T])> = vec![
            ("policy", &self.theta.gradient),
            ("q1", &q1.online.gradient),
            ("q2", &q2.online.gradient),
            ("log_alpha", &self.log_alpha.gradient),
        ];
        gradients.extend(self.value.iter().map(|value| ("value", &*value.online.gradient)));
        gradients
    }

    /// The shape of the policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The shape of each critic.
    pub fn critic(&self) -> &Mlp {
        &self.critic
    }

    /// The shape of V, where there is one.
    pub fn value(&self) -> Option<&Mlp> {
        self.value.as_ref().map(|value| &value.network)
    }

    /// [`Learner::metrics`], which never fails here.
    pub fn metrics(&mut self) -> Metrics {
        Metrics { alpha: self.alpha().as_f64(), ..self.metrics }
    }

    /// [`Learner::snapshot`], which never fails here.
    pub fn snapshot(&mut self) -> Snapshot<T> {
        let sums = self.metrics.sums().map(|(name, sum)| (name.to_string(), sum)).into();
        let (vectors, counts) = self.state();
        Snapshot {
            sums,
            vectors: vectors.into_iter().map(|(name, values)| (name, values.to_vec())).collect(),
            counts: counts.into_iter().map(|(name, count)| (name, *count)).collect(),
        }
    }

    /// What the functions called last have left besides gradients over parameters, by name and in row-major order; of the
    /// twins, one after the other, and of the policy over s′ and over s, likewise.
    pub fn intermediates(&self) -> Vec<(String, Vec<T>)> {
        let [q1, q2] = &self.critics;
        let flat = |matrices: &mut dyn Iterator<Item = &Matrix<T>>| -> Vec<T> {
            matrices.flat_map(|matrix| matrix.view().into_iter()).copied().collect()
        };
        let current = || current(&self.policy_passes);
        let next = || self.policy_passes.iter().map(|passes| &passes.next);
        let both = || next().chain(current());
        let critics = |pick: fn(&CriticPass<T>) -> &[T]| -> Vec<T> {
            q1.passes.iter().chain(&q2.passes).flat_map(pick).copied().collect()
        };
        let mut list = vec![
            ("action".to_string(), flat(&mut both().map(|pass| &pass.action))),
            ("log_prob".into(), both().flat_map(|pass| &pass.log_prob).copied().collect()),
            ("q".into(), critics(CriticPass::q)),
            ("target_q".into(), critics(|pass| pass.target_q.as_slice().expect("it is a vector"))),
            ("target".into(), self.target.to_vec()),
            ("d_q".into(), critics(|pass| pass.network.d_y.column())),
            ("d_action".into(), flat(&mut current().map(|pass| &pass.d_action))),
        ];
        let mut hidden = |name: &str, forward: &[&Pass<T>], backward: &[&Pass<T>]| {
            for l in 0..forward[0].hidden.len() {
                list.push((format!("{name}.hidden{l}"), flat(&mut forward.iter().map(|pass| &pass.hidden[l]))));
                list.push((format!("{name}.d_hidden{l}"), flat(&mut backward.iter().map(|pass| &pass.d_hidden[l]))));
            }
        };
        for i in 0..self.policy.networks.len() {
            let forward: Vec<_> = both().map(|pass| pass.network(i)).collect();
            let backward: Vec<_> = current().map(|pass| pass.network(i)).collect();
            hidden(&format!("policy{i}"), &forward, &backward);
        }
        let twins: Vec<_> = q1.passes.iter().chain(&q2.passes).map(|pass| &pass.network).collect();
        hidden("critic", &twins, &twins);
        if let Some(Value { passes, .. }) = &self.value {
            let passes: Vec<_> = passes.iter().collect();
            hidden("value", &passes, &passes);
            list.push(("v".into(), flat(&mut passes.iter().map(|pass| &pass.y))));
            list.push(("d_v".into(), flat(&mut passes.iter().map(|pass| &pass.d_y))));
        }
        for i in 0..self.policy.networks.len() {
            list.push((format!("policy{i}.output"), flat(&mut both().map(|pass| &pass.network(i).y))));
            list.push((format!("policy{i}.d_output"), flat(&mut current().map(|pass| &pass.network(i).d_y))));
        }
        list
    }

    /// Says whether `value` is finite, and remembers the first that is not.
    fn finite(&mut self, quantity: &'static str, value: T) -> bool {
        if !value.is_finite() {
            self.metrics.failure = Some((self.metrics.updates + 1, quantity));
        }
        value.is_finite()
    }

    /// Takes over parameters that have been changed by way of [`Self::state`].
    fn pack(&mut self) {
        let Self { theta, critics, value, .. } = self;
        theta.theta.pack();
        let critics = critics.iter_mut().map(|Critic { online, target, .. }| (online, target.as_mut()));
        for (online, target) in critics.chain(value.as_mut().map(|value| (&mut value.online, Some(&mut value.target))))
        {
            online.theta.pack();
            target.into_iter().for_each(Theta::pack);
        }
    }

    /// Everything that updates depend on, by name: vectors, and counts.
    #[allow(clippy::type_complexity)]
    fn state(&mut self) -> (Vec<(String, &mut [T])>, Vec<(String, &mut u64)>) {
        let [q1, q2] = &mut self.critics;
        let mut networks = vec![
            ("policy", &mut self.theta, None),
            ("q1", &mut q1.online, q1.target.as_mut()),
            ("q2", &mut q2.online, q2.target.as_mut()),
            ("log_alpha", &mut self.log_alpha, None),
        ];
        networks.extend(self.value.as_mut().map(|value| ("value", &mut value.online, Some(&mut value.target))));
        let mut vectors = Vec::new();
        let Metrics { updates, policy_updates, .. } = &mut self.metrics;
        let mut counts = vec![("updates".to_string(), updates), ("policy_updates".to_string(), policy_updates)];
        for (name, Parameters { theta, adam, .. }, target) in networks {
            vectors.push((name.to_string(), theta.values_mut()));
            vectors.extend(target.map(|target| (format!("target_{name}"), target.values_mut())));
            vectors.push((format!("{name}.adam_first_moment"), &mut adam.first_moment));
            vectors.push((format!("{name}.adam_second_moment"), &mut adam.second_moment));
            counts.push((format!("{name}.adam_steps"), &mut adam.steps));
        }
        (vectors, counts)
    }
}

impl<T: Real> Learner<T> for CpuLearner<T> {
    fn act(
        &mut self,
        observation: ArrayView2<T>,
        noise: Option<ArrayView2<T>>,
        action: ArrayViewMut2<T>,
    ) -> Result<(), Error> {
        let rows = observation.nrows();
        if self.acting.rows.len() != rows {
            self.acting = self.policy.pass(0..rows);
        }
        self.policy.act(&self.theta.theta, observation, noise, &mut self.acting, action);
        Ok(())
    }

    fn update(&mut self, batch: &Batch<T>, noise: &Noise<T>) -> Result<(), Error> {
        Self::update(self, batch, noise);
        Ok(())
    }

    fn learn(&mut self, replay: &Replay, update: u64) -> Result<(), Error> {
        // They leave the learner for as long as it looks at them; nothing is allocated for it.
        let (mut batch, mut noise) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.noise));
        join(
            || {
                replay.sample(&mut Philox::new(self.seed, Stream::Replay, update), &mut self.rows);
                replay.gather(&self.rows, self.gamma, self.n_step, &mut batch);
                batch.reward *= self.reward_scale;
            },
            || noise.fill(&mut Philox::new(self.seed, Stream::Update, update)),
        );
        Self::update(self, &batch, &noise);
        (self.batch, self.noise) = (batch, noise);
        Ok(())
    }

    fn metrics(&mut self) -> Result<Metrics, Error> {
        Ok(Self::metrics(self))
    }

    fn snapshot(&mut self) -> Result<Snapshot<T>, Error> {
        Ok(Self::snapshot(self))
    }

    fn restore(&mut self, snapshot: &Snapshot<T>) -> Result<(), Error> {
        let (vectors, counts) = self.state();
        let lengths = vectors.iter().map(|(name, values)| (name.as_str(), values.len()));
        snapshot.check(lengths, counts.iter().map(|(name, _)| name.as_str()))?;
        for (name, values) in vectors {
            values.copy_from_slice(snapshot.get(&name).expect("its length has been checked"));
        }
        for (name, count) in counts {
            *count = snapshot.count(&name).expect("it has been looked up");
        }
        self.pack();
        // A failure is behind it.
        self.metrics = Metrics::of(snapshot);
        Ok(())
    }
}

/// The rows of a batch in blocks, as equal as can be; two at least if there is much to do, for two threads. Nothing but
/// sizes decides, because where a sum is divided matters to its last bits.
pub(super) fn blocks(batch_size: usize, policy: &Mlp) -> impl Iterator<Item = Range<usize>> + Clone {
    let much = batch_size * policy.parameters() >= WORK_TO_SHARE;
    let count = batch_size.div_ceil(BLOCK_ROWS).max(if much { 2 } else { 1 }).min(batch_size);
    (0..count).map(move |i| i * batch_size / count..(i + 1) * batch_size / count)
}

/// The passes over s.
fn current<T: Sync>(passes: &[PolicyPasses<T>]) -> impl Iterator<Item = &PolicyPass<T>> + Clone + Sync {
    passes.iter().map(|passes| &passes.current)
}

/// Does the same with both critics, at the same time.
fn for_both<T: Real>(critics: &mut [Critic<T>; 2], work: impl Fn(&mut Critic<T>) + Sync) {
    let [q1, q2] = critics;
    join(|| work(q1), || work(q2));
}

/// The smaller one; NaN if either is.
fn min<T: Real>(a: T, b: T) -> T {
    if a < b || a.is_nan() { a } else { b }
}

fn mean<T: Real>(values: impl Iterator<Item = T>, count: usize) -> T {
    values.sum::<T>() / T::of(count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Transition;

    fn learner_and_batch() -> (CpuLearner, Batch<f32>, Noise<f32>) {
        let config = Config { batch_size: 4, policy_hidden: vec![5], critic_hidden: vec![5], ..Config::default() };
        let (mut batch, mut noise) = (Batch::zeros(4, 3, 1), Noise::zeros(4, 1));
        batch.observation.fill(0.3);
        noise.fill(&mut Philox::new(0, Stream::Update, 0));
        (CpuLearner::new(&config, 3, &[1.0]), batch, noise)
    }

    /// What an update draws, its seed and its number say; its rewards are scaled.
    #[test]
    fn each_update_has_a_batch_and_noise_of_its_own() {
        let mut replay = Replay::new(100, 3, 1).expect("there is memory");
        for i in 0..100_u16 {
            let x = f32::from(i) / 100.0;
            let (observation, next_observation) = (&[x, 1.0, -x][..], &[x + 0.005, 1.0, 0.0][..]);
            let (terminated, truncated) = (i % 9 == 0, true);
            replay.push(Transition {
                observation,
                action: &[0.5 - x],
                reward: x,
                next_observation,
                terminated,
                truncated,
            });
        }
        let ((mut learner, mut batch, mut noise), (mut other, ..)) = (learner_and_batch(), learner_and_batch());
        learner.reward_scale = 2.5;
        let (seed, mut rows) = (Config::default().seed, [0; 4]);
        for update in [0, 1, 1 << 32] {
            learner.learn(&replay, update).expect("a CPU does not fail");
            replay.sample(&mut Philox::new(seed, Stream::Replay, update), &mut rows);
            replay.gather(&rows, 0.99, 1, &mut batch);
            batch.reward *= 2.5;
            noise.fill(&mut Philox::new(seed, Stream::Update, update));
            other.update(&batch, &noise);
            assert_eq!(learner.snapshot(), other.snapshot(), "update {update}");
        }
    }

    /// In an update without a step of the policy the targets stay where they are, those of the critics as that of V;
    /// what they follow does not.
    #[test]
    fn a_delay_of_the_policy_delays_the_targets_too() {
        let (_, batch, noise) = learner_and_batch();
        for (bootstrap, names) in [
            (Bootstrap::TargetQ, [["q1", "target_q1"], ["q2", "target_q2"]]),
            (Bootstrap::ValueNetwork, [["q1", "target_value"], ["value", "target_value"]]),
        ] {
            let hidden = || vec![5];
            let config =
                Config { batch_size: 4, policy_hidden: hidden(), critic_hidden: hidden(), ..Config::default() };
            let mut learner: CpuLearner = CpuLearner::new(&Config { policy_delay: 3, bootstrap, ..config }, 3, &[1.0]);
            for update in 1..=6 {
                let before = learner.snapshot();
                learner.update(&batch, &noise);
                let after = learner.snapshot();
                let moved = |name: &str| before.get(name).expect("there is one") != after.get(name).expect("the same");
                assert_eq!(moved("policy"), update % 3 == 0, "{update}");
                for [online, target] in names {
                    assert_eq!([moved(online), moved(target)], [true, update % 3 == 0], "{online}, {target}, {update}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "the batch's next_observation must be of shape [4, 3], not [4, 2]")]
    fn a_batch_of_another_shape_is_named() {
        let (mut learner, batch, noise) = learner_and_batch();
        learner.update(&Batch { next_observation: Array2::zeros((4, 2)), ..batch }, &noise);
    }

    #[test]
    #[should_panic(expected = "the noise's current must be of shape [4, 1], not [4, 2]")]
    fn noise_of_another_shape_is_named() {
        let (mut learner, batch, noise) = learner_and_batch();
        learner.update(&batch, &Noise { current: Array2::zeros((4, 2)), ..noise });
    }

    /// A single row would otherwise be taken for all of them.
    #[test]
    #[should_panic(expected = "the noise must be of shape [2, 1], not [1, 1]")]
    fn fewer_rows_of_noise_than_of_observations_are_named() {
        let (mut learner, ..) = learner_and_batch();
        let (observation, noise, mut action) = (Array2::zeros((2, 3)), Array2::zeros((1, 1)), Array2::zeros((2, 1)));
        let _ = learner.act(observation.view(), Some(noise.view()), action.view_mut());
    }

    /// Whichever twin has lost its numbers, the policy's loss tells, and the policy is not touched.
    #[test]
    fn a_critic_that_is_not_a_number_shows_in_the_policy_loss() {
        for name in ["q1", "q2"] {
            let (mut learner, batch, noise) = learner_and_batch();
            let mut snapshot = learner.snapshot();
            snapshot.get_mut(name).expect("every learner has it").fill(f32::NAN);
            learner.restore(&snapshot).expect("it came from this learner");
            learner.sample_actions(&batch, &noise);
            learner.evaluate_actions(&batch);
            assert!(learner.policy_loss(1.0, &batch, &noise).is_nan(), "{name}");
        }
    }

    /// A temperature that leaves the range of numbers is named at the update where it does.
    #[test]
    fn a_temperature_that_is_not_finite_fails_by_its_name() {
        let (mut learner, batch, noise) = learner_and_batch();
        (learner.temperature_loss, learner.target_entropy) = (TemperatureLoss::Alpha, 1e30);
        learner.log_alpha.theta.values_mut()[0] = 20.0;
        learner.update(&batch, &noise);
        assert_eq!(learner.metrics().failure, Some((1, "temperature loss")));
        assert_eq!(learner.log_alpha.theta[0], 20.0);
    }

    /// A learner that has failed does nothing more, until it goes back to a snapshot.
    #[test]
    fn a_failure_stays_until_the_learner_is_restored() {
        let (mut learner, mut batch, noise) = learner_and_batch();
        learner.update(&batch, &noise);
        let good = learner.snapshot();
        batch.reward[2] = f32::NAN;
        learner.update(&batch, &noise);
        assert_eq!(learner.metrics().failure, Some((2, "critic loss")));
        batch.reward[2] = 0.0;
        learner.update(&batch, &noise);
        assert_eq!((learner.snapshot(), learner.metrics().updates), (good.clone(), 1));
        learner.restore(&good).expect("it came from this learner");
        learner.update(&batch, &noise);
        assert_eq!((learner.metrics().failure, learner.metrics().updates), (None, 2));
    }
}
