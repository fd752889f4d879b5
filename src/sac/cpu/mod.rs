//! Soft Actor-Critic on the CPU. [`CpuLearner::update`] is the algorithm; its losses are in the files of this directory.
//!
//! Critics Q with target networks Q̄, a tanh-Gaussian policy π and a temperature α, fixed or tuned.
//! Reference: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905.

mod actor;
mod critics;
mod temperature;
mod trainable;
mod twin_q;
mod value;

use super::{Learner, Metric, Metrics, NetworkSpec, Noise, Policy, PolicyPass, Snapshot, networks};
use crate::config::{Config, LossOrder, Precision};
use crate::error::Error;
use crate::nn::threads::join;
use crate::nn::{Matrix, Network, Pass, Real, undivided};
use crate::replay::{Batch, Replay};
use crate::rng::{Philox, Stream};
use actor::Actor;
use critics::{Critics, Intermediates};
use ndarray::{ArrayView2, ArrayViewMut2};
use temperature::Temperature;
use trainable::Trainable;
use twin_q::TwinQ;
use value::TwinQWithValue;

/// The learner that the proofs are about; `f32` to train, `f64` to prove.
pub struct CpuLearner<T = f32> {
    specs: Vec<NetworkSpec>,
    actor: Actor<T>,
    critics: Box<dyn Critics<T>>,
    temperature: Temperature<T>,
    loss_order: LossOrder,
    policy_delay: u64,

    /// The pass over what is acted upon, and its rows.
    acting: (PolicyPass<T>, usize),

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
        let blocks = policy.networks[0].divide(batch_size);
        let specs = networks(config, observation_size, action_size);
        let (actor, critics) = match &specs[..] {
            [actor, q1, q2, rest @ ..] => {
                let twins = TwinQ::new([q1, q2], config, &blocks, action_size);
                let critics: Box<dyn Critics<T>> = match rest.first() {
                    None => Box::new(twins),
                    Some(value) => Box::new(TwinQWithValue::new(twins, value, config, &blocks)),
                };
                (actor, critics)
            }
            _ => unreachable!("there are a policy and two critics"),
        };
        Self {
            acting: (policy.pass(&undivided(1)), 1),
            actor: Actor::new(policy, actor, config, &blocks),
            critics,
            temperature: Temperature::new(config, half_range),
            loss_order: config.loss_order,
            policy_delay: config.policy_delay,
            seed: config.seed,
            reward_scale: T::of(config.reward_scale),
            gamma: T::of(config.gamma),
            n_step: config.n_step,
            rows: vec![0; batch_size],
            batch: Batch::zeros(batch_size, observation_size, action_size),
            noise: Noise::zeros(batch_size, action_size),
            metrics: Metrics::default(),
            specs,
        }
    }

    /// One update: critics, value network, policy, temperature, and the targets with the networks they follow.
    ///
    /// In sequence, each loss is evaluated with what the step before it has left. Otherwise the critics wait with their
    /// step, so that all losses are evaluated at the same parameters.
    ///
    /// After a loss that is not finite nothing changes any more; [`Metrics::failure`] names it.
    ///
    /// # Panics
    /// If `batch` or `noise` is of other shapes than those of the configuration and the environment.
    pub fn update(&mut self, batch: &Batch<T>, noise: &Noise<T>) {
        if self.metrics.failure.is_none()
            && let Err(NonFinite(quantity)) = self.try_update(batch, noise)
        {
            self.metrics.failure = Some((self.metrics.updates + 1, quantity));
        }
    }

    fn try_update(&mut self, batch: &Batch<T>, noise: &Noise<T>) -> Result<(), NonFinite> {
        let policy_is_due = (self.metrics.updates + 1).is_multiple_of(self.policy_delay);

        // ã ~ π(·|s),  ã′ ~ π(·|s′)
        self.sample_actions(batch, noise);

        if self.loss_order == LossOrder::TemperatureFirst {
            self.temperature_step()?;
        }
        let alpha = self.alpha();

        // J_Q = Σᵢ mean (Qᵢ(s, a) − y)²,  y = r + γ(1 − d)·(minᵢ Q̄ᵢ(s′, ã′) − α log π(ã′|s′))  or  r + γ(1 − d)·V̄(s′)
        let critic_loss = finite("critic loss", self.critic_loss(alpha, batch))?;
        let q = self.critics.mean_q();
        if self.loss_order == LossOrder::Sequential {
            self.critics.step(policy_is_due);
        }

        // minᵢ Qᵢ(s, ã)
        if policy_is_due || self.value().is_some() {
            self.evaluate_actions(batch);
        }

        // J_V = mean (V(s) − (minᵢ Qᵢ(s, ã) − α log π(ã|s)))²
        if let Some(value_loss) = self.value_loss(alpha, batch) {
            self.metrics[Metric::ValueLoss] += finite("value loss", value_loss)?;
            self.critics.value_step(policy_is_due);
        }

        // J_π = mean (α log π(ã|s) − minᵢ Qᵢ(s, ã))
        if policy_is_due {
            self.metrics[Metric::PolicyLoss] += finite("policy loss", self.policy_loss(alpha, noise))?;
            self.actor.parameters.step(false);
            self.metrics.policy_updates += 1;
        }

        if self.loss_order != LossOrder::Sequential {
            self.critics.step(policy_is_due);
        }
        if self.loss_order != LossOrder::TemperatureFirst {
            self.temperature_step()?;
        }

        self.metrics.updates += 1;
        self.metrics[Metric::CriticLoss] += critic_loss;
        self.metrics[Metric::Q] += q.as_f64();
        self.metrics[Metric::Entropy] -= self.actor.mean_log_prob().as_f64();
        Ok(())
    }

    /// B, O and A.
    fn sizes(&self) -> [usize; 3] {
        [self.rows.len(), self.policy().observation_size(), self.policy().action_size()]
    }

    /// α
    pub fn alpha(&self) -> T {
        self.temperature.alpha(self.metrics.updates)
    }

    /// ã ~ π(·|s) and, for a target that needs it, ã′ ~ π(·|s′), with their log-probabilities.
    ///
    /// # Panics
    /// If `batch` or `noise` is of other shapes; so do all that follow.
    pub fn sample_actions(&mut self, batch: &Batch<T>, noise: &Noise<T>) {
        let [b, o, a] = self.sizes();
        batch.assert_shapes([b, o, a]);
        noise.assert_shapes([b, a]);
        self.actor.sample(batch, noise, self.critics.uses_next_actions());
    }

    /// J_Q and its gradient over the parameters of the critics; ã′ is that of the last [`Self::sample_actions`].
    pub fn critic_loss(&mut self, alpha: T, batch: &Batch<T>) -> T {
        batch.assert_shapes(self.sizes());
        self.critics.loss(batch, &self.actor.next, alpha)
    }

    /// y of the last [`Self::critic_loss`], `[B]`.
    pub fn target(&self) -> &[T] {
        self.critics.targets()
    }

    /// Q(s, ã), for the losses of V and of the policy; ã is that of the last [`Self::sample_actions`].
    pub fn evaluate_actions(&mut self, batch: &Batch<T>) {
        batch.assert_shapes(self.sizes());
        self.critics.evaluate(batch, &self.actor.current);
    }

    /// J_V and its gradient over the parameters of V, if there is one; Q(s, ã) is that of the last
    /// [`Self::evaluate_actions`].
    pub fn value_loss(&mut self, alpha: T, batch: &Batch<T>) -> Option<T> {
        batch.assert_shapes(self.sizes());
        self.critics.value_loss(batch, &self.actor.current, alpha)
    }

    /// J_π and its gradient over the policy's parameters; Q(s, ã) is that of the last [`Self::evaluate_actions`], and
    /// `noise` that of the last [`Self::sample_actions`].
    pub fn policy_loss(&mut self, alpha: T, noise: &Noise<T>) -> T {
        let [b, _, a] = self.sizes();
        noise.assert_shapes([b, a]);
        self.critics.action_gradient(&mut self.actor.current);
        self.actor.loss(alpha, self.critics.q(), noise)
    }

    /// J_α and its gradient over log α; log π is that of the last [`Self::sample_actions`].
    pub fn temperature_loss(&mut self) -> T {
        self.temperature.loss(self.actor.mean_log_prob())
    }

    /// The step of a temperature that is tuned.
    fn temperature_step(&mut self) -> Result<(), NonFinite> {
        if self.temperature.is_tuned() {
            self.metrics[Metric::TemperatureLoss] += finite("temperature loss", self.temperature_loss())?;
            self.temperature.log_alpha.step(false);
        }
        Ok(())
    }

    /// Everything that is trained. Snapshots, gradients and packed weights derive from this list.
    fn networks(&mut self) -> Vec<&mut Trainable<T>> {
        let mut networks = vec![&mut self.actor.parameters];
        networks.extend(self.critics.networks());
        networks.push(&mut self.temperature.log_alpha);
        networks
    }

    /// The gradients that the losses last left, by the names of [`Learner::snapshot`].
    pub fn gradients(&mut self) -> Vec<(&'static str, &[T])> {
        self.networks().into_iter().map(|network| (network.name, &*network.gradient)).collect()
    }

    /// The shape of the policy.
    pub fn policy(&self) -> &Policy {
        &self.actor.policy
    }

    /// The shape of each critic.
    pub fn critic(&self) -> &Network {
        self.network("q1").expect("there is a critic")
    }

    /// The shape of V, where there is one.
    pub fn value(&self) -> Option<&Network> {
        self.network("value")
    }

    fn network(&self, name: &str) -> Option<&Network> {
        self.specs.iter().find(|spec| spec.name == name).map(|spec| &spec.shape[0])
    }

    /// [`Learner::metrics`], which never fails here.
    pub fn metrics(&mut self) -> Metrics {
        let mut metrics = self.metrics;
        metrics[Metric::Alpha] = self.alpha().as_f64();
        metrics
    }

    /// [`Learner::snapshot`], which never fails here.
    pub fn snapshot(&mut self) -> Snapshot<T> {
        let sums = self.metrics.sums().map(|(name, sum)| (name.to_string(), sum)).collect();
        let (vectors, counts) = self.state();
        Snapshot {
            sums,
            vectors: vectors.into_iter().map(|(name, values)| (name, values.to_vec())).collect(),
            counts: counts.into_iter().map(|(name, count)| (name, *count)).collect(),
        }
    }

    /// What the functions called last have left besides gradients over parameters, by name and in row-major order; of
    /// several networks of a name, one after the other, and of the policy over s′ and over s, likewise.
    pub fn intermediates(&self) -> Vec<(String, Vec<T>)> {
        fn flat<'a, T: Real>(matrices: impl Iterator<Item = &'a Matrix<T>>) -> Vec<T> {
            matrices.flat_map(|matrix| matrix.view().into_iter()).copied().collect()
        }
        let Actor { current, next, policy, .. } = &self.actor;
        let both = || next.samples().iter().chain(current.samples());
        let mut list = vec![
            ("action".to_string(), flat(both().map(|block| &block.action))),
            ("log_prob".into(), [next.log_prob(), current.log_prob()].concat()),
            ("d_action".into(), flat(current.samples().iter().map(|block| &block.d_action))),
        ];
        let mut add = |name: &str, [output, d_output]: [String; 2], forward: &[&Pass<T>], backward: &[&Pass<T>]| {
            let [forward, backward] = [forward, backward].map(|passes| || passes.iter().flat_map(|p| p.blocks()));
            for l in 0..forward().next().map_or(0, |block| block.hidden.len()) {
                list.push((format!("{name}.hidden{l}"), flat(forward().map(|block| &block.hidden[l]))));
                list.push((format!("{name}.d_hidden{l}"), flat(backward().map(|block| &block.d_hidden[l]))));
            }
            list.push((output, flat(forward().map(|block| &block.y))));
            list.push((d_output, flat(backward().map(|block| &block.d_y))));
        };
        for i in 0..policy.networks.len() {
            let name = format!("policy{i}");
            let outputs = [format!("{name}.output"), format!("{name}.d_output")];
            add(&name, outputs, &[next.network(i), current.network(i)], &[current.network(i)]);
        }
        let Intermediates { passes, vectors } = self.critics.intermediates();
        for (name, passes) in passes {
            let output = if name == "value" { "v" } else { "q" };
            add(name, [output.into(), format!("d_{output}")], &passes, &passes);
        }
        list.extend(vectors.into_iter().map(|(name, vector)| (name.to_string(), vector)));
        list
    }

    /// Everything that updates depend on, by name: vectors, and counts.
    #[allow(clippy::type_complexity)]
    fn state(&mut self) -> (Vec<(String, &mut [T])>, Vec<(String, &mut u64)>) {
        let Self { actor, critics, temperature, metrics: Metrics { updates, policy_updates, .. }, .. } = self;
        let mut vectors = Vec::new();
        let mut counts = vec![("updates".to_string(), updates), ("policy_updates".to_string(), policy_updates)];
        let networks = [&mut actor.parameters].into_iter().chain(critics.networks());
        for Trainable { name, theta, target, adam, .. } in networks.chain([&mut temperature.log_alpha]) {
            vectors.push((name.to_string(), theta.values_mut()));
            vectors.extend(target.as_mut().map(|target| (format!("target_{name}"), target.values_mut())));
            vectors.push((format!("{name}.adam_first_moment"), &mut *adam.first_moment));
            vectors.push((format!("{name}.adam_second_moment"), &mut *adam.second_moment));
            counts.push((format!("{name}.adam_steps"), &mut adam.steps));
        }
        (vectors, counts)
    }
}

/// The quantity of an update that is not finite.
struct NonFinite(&'static str);

/// `value`, if it is finite.
fn finite<T: Real>(quantity: &'static str, value: T) -> Result<f64, NonFinite> {
    if value.is_finite() { Ok(value.as_f64()) } else { Err(NonFinite(quantity)) }
}

impl<T: Real> Learner<T> for CpuLearner<T> {
    fn act(
        &mut self,
        observation: ArrayView2<T>,
        noise: Option<ArrayView2<T>>,
        action: ArrayViewMut2<T>,
    ) -> Result<(), Error> {
        let (rows, actor) = (observation.nrows(), &self.actor);
        if self.acting.1 != rows {
            self.acting = (actor.policy.pass(&undivided(rows)), rows);
        }
        actor.policy.act(&actor.parameters.theta, observation, noise, &mut self.acting.0, action);
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
        self.networks().into_iter().for_each(Trainable::pack);
        // A failure is behind it.
        self.metrics = Metrics::of(snapshot);
        Ok(())
    }
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
    use crate::config::{Bootstrap, TemperatureLoss};
    use crate::replay::Transition;
    use ndarray::Array2;

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
            assert!(learner.policy_loss(1.0, &noise).is_nan(), "{name}");
        }
    }

    /// A temperature that leaves the range of numbers is named at the update where it does.
    #[test]
    fn a_temperature_that_is_not_finite_fails_by_its_name() {
        let (mut learner, batch, noise) = learner_and_batch();
        (learner.temperature.loss, learner.temperature.target_entropy) = (TemperatureLoss::Alpha, 1e30);
        learner.temperature.log_alpha.theta.values_mut()[0] = 20.0;
        learner.update(&batch, &noise);
        assert_eq!(learner.metrics().failure, Some((1, "temperature loss")));
        assert_eq!(learner.temperature.log_alpha.theta[0], 20.0);
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
