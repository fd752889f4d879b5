//! Soft Actor-Critic on the CPU. [`CpuLearner::update`] is the algorithm; what it calls follows in the order of its steps.
//!
//! Twin critics Q₁, Q₂ with target copies Q̄₁, Q̄₂, a tanh-Gaussian policy π and a temperature α, fixed or tuned.
//! Reference: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905.

use super::{Learner, Metrics, Noise, Policy, PolicyWorkspace, Snapshot};
use crate::config::{Alpha, Bootstrap, Config, FirstUpdateAlpha, GradientClamp, LossOrder, TemperatureLoss};
use crate::error::Error;
use crate::nn::{Adam, Mlp, Real, Workspace, init, polyak};
use crate::replay::{Batch, Replay};
use crate::rng::{Philox, Stream};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut2, Axis, s};

/// A parameter vector, the gradient of its loss, and the optimizer that brings the two together.
struct Parameters<T> {
    values: Vec<T>,
    gradient: Vec<T>,
    adam: Adam<T>,
    /// Bound on each element of the gradient.
    clamp: Option<T>,
}

impl<T: Real> Parameters<T> {
    fn new(values: Vec<T>, learning_rate: f64, clamp: Option<T>) -> Self {
        Self { gradient: vec![T::zero(); values.len()], adam: Adam::new(values.len(), learning_rate), values, clamp }
    }

    fn step(&mut self) {
        if let Some(bound) = self.clamp {
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
        self.adam.step(&mut self.values, &self.gradient);
    }

    /// θ's step, and for a `target` that is to follow, θ̄ ← θ̄ + τ(θ − θ̄), at the place that `order` gives it.
    fn step_and_follow(&mut self, target: Option<&mut Vec<T>>, tau: T, order: LossOrder) {
        let follow = |values: &[T]| {
            if let Some(target) = target {
                polyak(target, values, tau);
            }
        };
        if order == LossOrder::TemperatureFirst {
            follow(&self.values);
            self.step();
        } else {
            self.step();
            follow(&self.values);
        }
    }
}

/// One of the twins: Q(s, a), and its slowly following copy Q̄ where that is what the target takes.
struct Critic<T> {
    online: Parameters<T>,
    target: Option<Vec<T>>,
    workspace: Workspace<T>,
    /// Q(s, a) or Q(s, ã), whichever was last asked for, and Q̄(s′, ã′), `[B, 1]`.
    q: Array2<T>,
    target_q: Array2<T>,
    /// ∂L/∂Q, `[B, 1]`.
    d_q: Array2<T>,
    /// The rows of the batch in which this twin is the minimum, and ∂J_π/∂a in those rows, `[rows, A]` of `[B, A]`.
    rows: Vec<usize>,
    d_action: Array2<T>,
}

/// V(s), and its slowly following copy V̄.
struct Value<T> {
    network: Mlp,
    online: Parameters<T>,
    target: Vec<T>,
    workspace: Workspace<T>,
    /// V̄(s′) or V(s), whichever was last asked for, `[B, 1]`.
    v: Array2<T>,
    /// ∂L/∂V, `[B, 1]`.
    d_v: Array2<T>,
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

    /// Passes of the policy over s, over s′, and over what is acted upon.
    current: PolicyWorkspace<T>,
    next: PolicyWorkspace<T>,
    acting: PolicyWorkspace<T>,
    /// \[s, a] or \[s, ã], and \[s′, ã′], `[B, O + A]`.
    critic_input: Array2<T>,
    target_input: Array2<T>,
    /// y, `[B]`.
    target: Array1<T>,
    /// ∂J_π/∂ã, `[B, A]`, and ∂J_π/∂log π, `[B]`.
    d_action: Array2<T>,
    d_log_prob: Array1<T>,

    /// What [`Learner::learn`] draws.
    seed: u64,
    gamma: T,
    rows: Vec<usize>,
    batch: Batch<T>,
    noise: Noise<T>,

    metrics: Metrics,
}

impl<T: Real> CpuLearner<T> {
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
        let clamp = match config.gradient_clamp {
            GradientClamp::Off => None,
            GradientClamp::Fixed(bound) => Some(T::of(bound)),
        };
        let critics = [1, 2].map(|index| {
            let values = initial(&critic, index);
            Critic {
                target: (config.bootstrap == Bootstrap::TargetQ).then(|| values.clone()),
                online: Parameters::new(values, config.critic_learning_rate, clamp),
                workspace: critic.workspace(batch_size),
                q: Array2::zeros((batch_size, 1)),
                target_q: Array2::zeros((batch_size, 1)),
                d_q: Array2::zeros((batch_size, 1)),
                rows: Vec::with_capacity(batch_size),
                d_action: Array2::zeros((batch_size, action_size)),
            }
        });
        let value = (config.bootstrap == Bootstrap::ValueNetwork).then(|| {
            let network = Mlp::new(observation_size, &config.critic_hidden, 1, config.activation);
            let values = initial(&network, 3);
            Value {
                target: values.clone(),
                online: Parameters::new(values, config.value_learning_rate, clamp),
                workspace: network.workspace(batch_size),
                v: Array2::zeros((batch_size, 1)),
                d_v: Array2::zeros((batch_size, 1)),
                network,
            }
        });
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
            theta: Parameters::new(policy.initial(config, &mut rng(0)), config.policy_learning_rate, clamp),
            critics,
            value,
            log_alpha: Parameters::new(log_alpha, config.temperature_learning_rate, None),
            current: policy.workspace(batch_size),
            next: policy.workspace(batch_size),
            acting: policy.workspace(1),
            critic_input: Array2::zeros((batch_size, observation_size + action_size)),
            target_input: Array2::zeros((batch_size, observation_size + action_size)),
            target: Array1::zeros(batch_size),
            d_action: Array2::zeros((batch_size, action_size)),
            d_log_prob: Array1::zeros(batch_size),
            seed: config.seed,
            gamma: T::of(config.gamma),
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
        let q = self.critics.iter().map(|critic| mean(critic.q.column(0))).sum::<T>() / T::of(2.0);
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
        self.metrics.entropy -= mean(self.current.log_prob.view()).as_f64();
    }

    /// α
    pub fn alpha(&self) -> T {
        let first = self.first_update_alpha.filter(|_| self.metrics.updates == 0);
        self.fixed_alpha.or(first).unwrap_or_else(|| self.log_alpha.values[0].exp())
    }

    /// ã ~ π(·|s) and, for a target that needs it, ã′ ~ π(·|s′), with their log-probabilities: passes of the same policy,
    /// at the same time.
    pub fn sample_actions(&mut self, batch: &Batch<T>, noise: &Noise<T>) {
        let (policy, theta) = (&self.policy, &self.theta.values);
        let (current, next) = (&mut self.current, &mut self.next);
        let with_next = self.value.is_none();
        rayon::join(
            || policy.sample(theta, batch.observation.view(), noise.current.view(), current),
            || with_next.then(|| policy.sample(theta, batch.next_observation.view(), noise.next.view(), next)),
        );
    }

    /// J_Q = Σᵢ mean (Qᵢ(s, a) − y)², and its gradient over the parameters of both critics, with
    /// y = r + γ(1 − d)·(minᵢ Q̄ᵢ(s′, ã′) − α log π(ã′|s′)) or y = r + γ(1 − d)·V̄(s′); ã′ is that of the last
    /// [`Self::sample_actions`].
    pub fn critic_loss(&mut self, alpha: T, batch: &Batch<T>) -> T {
        let PolicyWorkspace { action, log_prob, .. } = &self.next;
        let next_observation = batch.next_observation.view();
        join_columns(&mut self.critic_input, batch.observation.view(), batch.action.view());
        join_columns(&mut self.target_input, next_observation, action.view());
        let (network, input, target_input) = (&self.critic, self.critic_input.view(), self.target_input.view());
        for_both(&mut self.critics, |Critic { online, target, workspace, q, target_q, .. }| {
            if let Some(target) = target {
                network.forward(target, target_input, workspace, target_q.view_mut());
            }
            network.forward(&online.values, input, workspace, q.view_mut());
        });
        if let Some(Value { network, target, workspace, v, .. }) = &mut self.value {
            network.forward(target, next_observation, workspace, v.view_mut());
        }

        let rows = T::of(self.target.len() as f64);
        let mut loss = T::zero();
        let [q1, q2] = &mut self.critics;
        for (row, y) in self.target.iter_mut().enumerate() {
            let at = [row, 0];
            let next_value = match &self.value {
                Some(Value { v, .. }) => v[at],
                None => min(q1.target_q[at], q2.target_q[at]) - alpha * log_prob[row],
            };
            *y = batch.reward[row] + batch.discount[row] * next_value;
            for Critic { q, d_q, .. } in [&mut *q1, &mut *q2] {
                let error = q[at] - *y;
                loss += error * error;
                d_q[at] = T::of(2.0) * error / rows;
            }
        }
        for_both(&mut self.critics, |Critic { online, workspace, d_q, .. }| {
            network.backward(&online.values, input, d_q.view(), workspace, Some(&mut online.gradient), None);
        });
        loss / rows
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
    pub fn evaluate_actions(&mut self, batch: &Batch<T>) {
        join_columns(&mut self.critic_input, batch.observation.view(), self.current.action.view());
        let (network, input) = (&self.critic, self.critic_input.view());
        for_both(&mut self.critics, |Critic { online, workspace, q, .. }| {
            network.forward(&online.values, input, workspace, q.view_mut());
        });
    }

    /// J_V = mean (V(s) − (minᵢ Qᵢ(s, ã) − α log π(ã|s)))², and its gradient over the parameters of V, if there is one;
    /// Qᵢ(s, ã) is that of the last [`Self::evaluate_actions`].
    pub fn value_loss(&mut self, alpha: T, batch: &Batch<T>) -> T {
        let Some(Value { network, online, workspace, v, d_v, .. }) = &mut self.value else { return T::zero() };
        let observation = batch.observation.view();
        network.forward(&online.values, observation, workspace, v.view_mut());
        let rows = T::of(batch.reward.len() as f64);
        let [q1, q2] = &self.critics;
        let mut loss = T::zero();
        for (row, &log_prob) in self.current.log_prob.iter().enumerate() {
            let at = [row, 0];
            let error = v[at] - (min(q1.q[at], q2.q[at]) - alpha * log_prob);
            loss += error * error;
            d_v[at] = T::of(2.0) * error / rows;
        }
        network.backward(&online.values, observation, d_v.view(), workspace, Some(&mut online.gradient), None);
        loss / rows
    }

    /// The step of V, if there is one, and V̄ ← V̄ + τ(V − V̄) if the target is to follow.
    fn value_step(&mut self, follow: bool) {
        if let Some(Value { online, target, .. }) = &mut self.value {
            online.step_and_follow(Some(target).filter(|_| follow), self.tau, self.loss_order);
        }
    }

    /// J_π = mean (α log π(ã|s) − minᵢ Qᵢ(s, ã)), and its gradient over the policy's parameters; Qᵢ(s, ã) is that of the
    /// last [`Self::evaluate_actions`], with the same batch and noise.
    pub fn policy_loss(&mut self, alpha: T, batch: &Batch<T>, noise: &Noise<T>) -> T {
        let (observation, noise) = (batch.observation.view(), noise.current.view());
        let batch_size = T::of(batch.reward.len() as f64);
        let (network, log_prob) = (&self.critic, &self.current.log_prob);

        // Only the critic that is the minimum passes a gradient on, ∂J_π/∂Q = −1/B.
        let [q1, q2] = &mut self.critics;
        q1.rows.clear();
        q2.rows.clear();
        let mut loss = T::zero();
        for (row, &log_prob) in log_prob.iter().enumerate() {
            let at = [row, 0];
            loss += alpha * log_prob - min(q1.q[at], q2.q[at]);
            if q1.q[at] <= q2.q[at] { q1.rows.push(row) } else { q2.rows.push(row) }
        }
        for_both(&mut self.critics, |Critic { online, workspace, rows, d_q, d_action, .. }| {
            let selected = s![..rows.len(), ..];
            d_q.fill(-batch_size.recip());
            network.backward_rows(&online.values, rows, d_q.slice(selected), workspace, d_action.slice_mut(selected));
        });
        for Critic { rows, d_action, .. } in &self.critics {
            for (&row, d_action) in rows.iter().zip(d_action.rows()) {
                self.d_action.row_mut(row).assign(&d_action);
            }
        }
        self.d_log_prob.fill(alpha / batch_size);
        let Parameters { values, gradient, .. } = &mut self.theta;
        let (d_action, d_log_prob) = (self.d_action.view(), self.d_log_prob.view());
        self.policy.sample_backward(values, observation, noise, d_action, d_log_prob, &mut self.current, gradient);
        loss / batch_size
    }

    /// J_α = −log α · mean (log π(ã|s) + H̄), or −α · mean (log π(ã|s) + H̄), and its gradient over log α; log π is that of
    /// the last [`Self::sample_actions`].
    pub fn temperature_loss(&mut self) -> T {
        let gap = mean(self.current.log_prob.view()) + self.target_entropy;
        let log_alpha = self.log_alpha.values[0];
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

    /// The gradients that the losses last left, by the names of [`Learner::snapshot`].
    pub fn gradients(&self) -> Vec<(&'static str, &[T])> {
        let [q1, q2] = &self.critics;
        let mut gradients: Vec<(_, &[T])> = vec![
            ("policy", &self.theta.gradient),
            ("q1", &q1.online.gradient),
            ("q2", &q2.online.gradient),
            ("log_alpha", &self.log_alpha.gradient),
        ];
        gradients.extend(self.value.iter().map(|value| ("value", value.online.gradient.as_slice())));
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
        let flat = |arrays: &[&Array2<T>]| arrays.iter().flat_map(|array| array.iter().copied()).collect::<Vec<_>>();
        let (next, current) = (&self.next, &self.current);
        let mut list = vec![
            ("action".to_string(), flat(&[&next.action, &current.action])),
            ("log_prob".into(), next.log_prob.iter().chain(&current.log_prob).copied().collect()),
            ("q".into(), flat(&[&q1.q, &q2.q])),
            ("target_q".into(), flat(&[&q1.target_q, &q2.target_q])),
            ("target".into(), self.target.to_vec()),
            ("d_q".into(), flat(&[&q1.d_q, &q2.d_q])),
            ("d_action".into(), flat(&[&self.d_action])),
        ];
        let (outputs, d_outputs) = (next.outputs().zip(current.outputs()), current.d_outputs());
        list.extend(outputs.zip(d_outputs).enumerate().flat_map(|(i, ((next, current), d))| {
            [(format!("policy{i}.output"), flat(&[next, current])), (format!("policy{i}.d_output"), flat(&[d]))]
        }));
        let mut hidden = |name: &str, forward: &[&Workspace<T>], backward: &[&Workspace<T>]| {
            for l in 0..forward[0].hidden.len() {
                let of = |workspaces: &[&Workspace<T>], pick: fn(&Workspace<T>) -> &[Array2<T>]| {
                    workspaces.iter().flat_map(|workspace| pick(workspace)[l].iter().copied()).collect()
                };
                list.push((format!("{name}.hidden{l}"), of(forward, |workspace| &workspace.hidden)));
                list.push((format!("{name}.d_hidden{l}"), of(backward, |workspace| &workspace.d_hidden)));
            }
        };
        for (i, (next, current)) in next.networks().zip(current.networks()).enumerate() {
            hidden(&format!("policy{i}"), &[next, current], &[current]);
        }
        let twins = [&q1.workspace, &q2.workspace];
        hidden("critic", &twins, &twins);
        if let Some(Value { workspace, v, d_v, .. }) = &self.value {
            hidden("value", &[workspace], &[workspace]);
            list.extend([("v".into(), flat(&[v])), ("d_v".into(), flat(&[d_v]))]);
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
        for (name, Parameters { values, adam, .. }, target) in networks {
            vectors.push((name.to_string(), values.as_mut_slice()));
            vectors.extend(target.map(|target| (format!("target_{name}"), target.as_mut_slice())));
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
        if self.acting.log_prob.len() != rows {
            self.acting = self.policy.workspace(rows);
        }
        self.policy.act(&self.theta.values, observation, noise, &mut self.acting, action);
        Ok(())
    }

    fn update(&mut self, batch: &Batch<T>, noise: &Noise<T>) -> Result<(), Error> {
        Self::update(self, batch, noise);
        Ok(())
    }

    fn learn(&mut self, replay: &Replay, update: u64) -> Result<(), Error> {
        // They leave the learner for as long as it looks at them; nothing is allocated for it.
        let (mut batch, mut noise) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.noise));
        rayon::join(
            || {
                replay.sample(&mut Philox::new(self.seed, Stream::Replay, update), &mut self.rows);
                replay.gather(&self.rows, self.gamma, &mut batch);
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
        // A failure is behind it.
        self.metrics = Metrics::of(snapshot);
        Ok(())
    }
}

/// Does the same with both critics, at the same time.
fn for_both<T: Real>(critics: &mut [Critic<T>; 2], work: impl Fn(&mut Critic<T>) + Sync) {
    let [q1, q2] = critics;
    rayon::join(|| work(q1), || work(q2));
}

/// \[s, a]: `[B, O]` and `[B, A]` side by side into `[B, O + A]`.
fn join_columns<T: Real>(joined: &mut Array2<T>, observation: ArrayView2<T>, action: ArrayView2<T>) {
    let (left, right) = joined.view_mut().split_at(Axis(1), observation.ncols());
    observation.assign_to(left);
    action.assign_to(right);
}

/// The smaller one; NaN if either is.
fn min<T: Real>(a: T, b: T) -> T {
    if a < b || a.is_nan() { a } else { b }
}

fn mean<T: Real>(values: ArrayView1<T>) -> T {
    values.sum() / T::of(values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learner_and_batch() -> (CpuLearner, Batch<f32>, Noise<f32>) {
        let config = Config { batch_size: 4, policy_hidden: vec![5], critic_hidden: vec![5], ..Config::default() };
        let (mut batch, mut noise) = (Batch::zeros(4, 3, 1), Noise::zeros(4, 1));
        batch.observation.fill(0.3);
        noise.fill(&mut Philox::new(0, Stream::Update, 0));
        (CpuLearner::new(&config, 3, &[1.0]), batch, noise)
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
        learner.log_alpha.values[0] = 20.0;
        learner.update(&batch, &noise);
        assert_eq!(learner.metrics().failure, Some((1, "temperature loss")));
        assert_eq!(learner.log_alpha.values[0], 20.0);
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
