//! Every f32 path of an update (packed weights, this crate's own products with what finishes them, blocks of rows, own eˣ,
//! tanh and softplus) against the plain f64 one: each buffer that a step of an update leaves, to [`TOLERANCE`] of its norm.
//!
//! The gradient jumps where a ReLU, a clamp or the min of the twins changes side, so an input that rounding alone puts on
//! the other side of one is drawn anew, and the redraws are counted.

use Activation::{Relu, Tanh};
use ndarray::{Array, Array1, Array2, Dimension};
use rand::Rng;
use rand_distr::StandardNormal;
use soft_actor_critic::config::{Bootstrap, Config, Heads, LogStdForm, TemperatureLoss};
use soft_actor_critic::nn::{Activation, Mean, Network, Real};
use soft_actor_critic::replay::Batch;
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::{CpuLearner, Learner, Noise, Snapshot};
use soft_actor_critic::train::with_threads;
use std::collections::BTreeMap;

/// ‖f32 − f64‖ / ‖f64‖
const TOLERANCE: f64 = 2e-6;
/// One with which nothing cancels to nearly nothing in a batch of one or two, such as q − y: what is left of a single number
/// then has an error far above its norm, however exactly it was computed.
const SEED: u64 = 500;
/// Draws of a case. Rounding seldom moves anything to another side; an error that did would do so every time.
const ATTEMPTS: u64 = 4;

/// Batch size, hidden layers of the policy and of critics and V, observations, actions.
type Shape = (usize, &'static [usize], &'static [usize], usize, usize);

/// Both sides of a block of rows, of a register and of a tile, products narrow, thin and deep, and single elements.
const SHAPES: [Shape; 29] = [
    (1, &[1], &[3], 1, 1),
    (1, &[64, 64], &[256, 31], 3, 1),
    (1, &[8, 16, 31, 64], &[67, 3, 8, 1], 23, 9),
    (1, &[256, 256], &[256, 256], 17, 6),
    (2, &[3], &[1, 1], 2, 3),
    (2, &[256, 67], &[31, 64, 16], 11, 4),
    (7, &[31, 67, 3], &[16, 8], 5, 2),
    (7, &[256], &[256], 13, 7),
    (7, &[1, 64], &[64, 1, 31, 8], 19, 5),
    (50, &[16, 16], &[16, 16], 3, 1),
    (50, &[67, 31, 8, 3], &[67], 7, 9),
    (50, &[256, 256, 256], &[64, 256], 17, 6),
    (100, &[8], &[3, 67], 1, 2),
    (100, &[64, 64], &[64, 64, 64], 4, 8),
    (100, &[256, 256], &[1], 23, 1),
    (128, &[3, 1, 256], &[8, 256, 1], 2, 5),
    (128, &[64, 31], &[31, 64], 10, 3),
    (128, &[256, 256], &[256, 256], 3, 1),
    (129, &[67], &[16, 31, 67, 64], 6, 7),
    (129, &[16, 8, 1, 3], &[1, 3, 16], 8, 4),
    (129, &[256, 64], &[256, 256], 23, 9),
    (256, &[31, 31], &[67, 67], 9, 2),
    (256, &[256, 256], &[256, 256], 17, 6),
    (256, &[1, 256, 3, 64], &[3, 64, 1, 256], 12, 3),
    (300, &[64, 256], &[8, 16], 1, 1),
    (300, &[256, 256, 256, 256], &[256, 256, 256, 256], 11, 9),
    (300, &[3, 8], &[31], 20, 8),
    (30, &[31], &[70], 2, 70),
    (100, &[600], &[31, 600], 3, 1),
];

/// The configuration of shape `i`; the shapes between them have all choices, in all combinations.
fn config(i: usize, activation: Activation) -> Config {
    let (batch_size, policy_hidden, critic_hidden, ..) = SHAPES[i];
    let choice = |bit: usize| i >> bit & 1 == 1;
    Config {
        batch_size,
        policy_hidden: policy_hidden.to_vec(),
        critic_hidden: critic_hidden.to_vec(),
        activation,
        policy_heads: if choice(0) { Heads::Separate } else { Heads::Shared },
        log_std: if choice(1) { LogStdForm::Tanh } else { LogStdForm::Clamp },
        mean: if choice(2) { Mean::Tanh } else { Mean::Raw },
        temperature_loss: if choice(2) { TemperatureLoss::Alpha } else { TemperatureLoss::LogAlpha },
        bootstrap: if choice(3) { Bootstrap::ValueNetwork } else { Bootstrap::TargetQ },
        // Within reach, and the same numbers in f32.
        log_std_min: -0.25,
        log_std_max: 0.125,
        ..Config::default()
    }
}

/// A batch whose transitions end now and then, and noise.
fn draw(config: &Config, o: usize, a: usize, rng: &mut Philox) -> (Batch<f32>, Noise<f32>) {
    let b = config.batch_size;
    let mut matrix = |columns| Array2::from_shape_fn((b, columns), |_| rng.sample::<f32, _>(StandardNormal));
    let batch = Batch {
        observation: matrix(o),
        action: matrix(a).mapv(f32::tanh),
        reward: matrix(1).column(0).to_owned(),
        discount: Array1::from_shape_fn(b, |i| if i % 5 == 3 { 0.0 } else { 0.99 }),
        next_observation: matrix(o),
    };
    (batch, Noise { current: matrix(a), next: matrix(a) })
}

fn widened<D: Dimension>(array: &Array<f32, D>) -> Array<f64, D> {
    array.mapv(f64::from)
}

/// The same parameters in f64.
fn widened_learner(learner: &mut CpuLearner<f32>, config: &Config, o: usize, a: usize) -> CpuLearner<f64> {
    let Snapshot { vectors, counts, sums } = learner.snapshot();
    let widen = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
    let vectors = vectors.into_iter().map(|(name, values)| (name, widen(values))).collect();
    let mut wide = CpuLearner::<f64>::new(config, o, &vec![1.0; a]);
    wide.restore(&Snapshot { vectors, counts, sums }).expect("it is of the same configuration");
    wide
}

/// [`CpuLearner::intermediates`]
type Buffers<T> = Vec<(String, Vec<T>)>;

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// ‖x − y‖ / ‖y‖; where y is zero, so must x be.
fn error(x: &[f32], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    let difference = norm(x.iter().zip(y).map(|(&x, &y)| f64::from(x) - y));
    if difference == 0.0 { 0.0 } else { difference / norm(y.iter().copied()) }
}

/// The worst error of each buffer by step and name, and the case that has it.
type Worst = BTreeMap<String, (f64, String)>;

/// One case, in f32 and in f64.
struct Pair<'a> {
    name: String,
    config: Config,
    narrow: CpuLearner<f32>,
    wide: CpuLearner<f64>,
    /// What the step before has left.
    before: (Buffers<f32>, Buffers<f64>),
    /// [`Self::cancellation`] of the last step.
    cancellation: f64,
    worst: &'a mut Worst,
}

impl Pair<'_> {
    /// Takes note of an error.
    fn note(&mut self, step: &str, quantity: &str, error: f64) {
        let through_one_unit = ["critic.d_hidden0", "d_action", "q1.gradient0", "q2.gradient0"].contains(&quantity);
        let tolerance = if through_one_unit { TOLERANCE * self.cancellation } else { TOLERANCE };
        assert!(error <= tolerance, "{}: {quantity} after {step} differs by {error:.1e}", self.name);
        let quantity = quantity.trim_end_matches(|c: char| c.is_ascii_digit());
        let worst = self.worst.entry(format!("{step}: {quantity}")).or_default();
        if error > worst.0 {
            *worst = (error, self.name.clone());
        }
    }

    /// Where critics begin with a single unit, δ₀ = (δ₁·W₁ᵀ) ⊙ φ′ is one sum for each row, much the same in all rows, so that
    /// it can cancel in all of them, and what is made of it has its error. Rounding is in proportion to the terms:
    /// Σ |terms| / |sum|, by the inequality of Cauchy and Schwarz at most ‖δ₁‖·‖W₁‖ / ‖δ₀‖.
    fn cancellation(&mut self, now: &Buffers<f64>) -> f64 {
        let [1, _, ..] = self.config.critic_hidden[..] else { return 1.0 };
        let weight = self.wide.critic().layers()[1].weight.clone();
        let snapshot = self.wide.snapshot();
        let weights = ["q1", "q2"].map(|name| snapshot.get(name).expect("every learner has it")[weight.clone()].iter());
        let changed = |name: &str| {
            let buffers = now.iter().zip(&self.before.1).filter(|((known, _), _)| known == name);
            let elements = buffers.flat_map(|((_, y), (_, before))| y.iter().zip(before));
            norm(elements.filter(|(y, before)| y != before).map(|(&y, _)| y))
        };
        let weight = weights.map(|weight| norm(weight.copied())).into_iter().fold(0.0, f64::max);
        let bound = changed("critic.d_hidden1") * weight / changed("critic.d_hidden0");
        // Neither where the step leaves no δ, nor where all of δ₀ is zero, and must be.
        if bound.is_finite() { bound.max(1.0) } else { 1.0 }
    }

    /// Compares all that a step has changed in either learner, but gradients only if everything is on the same side in both;
    /// says whether it is.
    fn compare(&mut self, step: &str) -> bool {
        let now = (self.narrow.intermediates(), self.wide.intermediates());
        self.cancellation = self.cancellation(&now.1);
        let before = std::mem::replace(&mut self.before, now.clone());
        let (mut same, mut changed) = (true, Vec::new());
        for (i, ((quantity, x), (_, y))) in now.0.iter().zip(&now.1).enumerate() {
            let (x_before, y_before) = (&before.0[i].1, &before.1[i].1);
            let pairs = (0..x.len()).filter(|&j| x[j] != x_before[j] || y[j] != y_before[j]).map(|j| (x[j], y[j]));
            let (x_changed, y_changed): (Vec<_>, Vec<_>) = pairs.unzip();
            if !x_changed.is_empty() {
                same &= self.sides(quantity, x) == self.sides(quantity, y);
                changed.push((quantity, error(&x_changed, &y_changed)));
            }
        }
        for (quantity, error) in changed.into_iter().filter(|(quantity, _)| same || !quantity.contains("d_")) {
            self.note(step, quantity, error);
        }
        same
    }

    /// The sides on which the elements of a buffer are.
    fn sides<T: Real>(&self, quantity: &str, values: &[T]) -> Vec<bool> {
        let Config { activation, log_std, log_std_min, log_std_max, .. } = self.config;
        if quantity == "q" {
            let (q1, q2) = values.split_at(values.len() / 2);
            q1.iter().zip(q2).map(|(q1, q2)| q1 <= q2).collect()
        } else if quantity.contains(".hidden") && activation == Relu {
            values.iter().map(|&h| h > T::zero()).collect()
        } else if quantity.ends_with(".output") && log_std == LogStdForm::Clamp {
            let bounds = [log_std_min, log_std_max].map(T::of);
            values.iter().flat_map(|&raw| [raw < bounds[0], raw > bounds[1]]).collect()
        } else {
            Vec::new()
        }
    }

    /// Compares gradients, layer by layer: that of a bias can cancel to nearly nothing, and is measured with its weight.
    fn compare_gradients(&mut self, step: &str, names: &[&str]) {
        let [policy, critic] = [self.narrow.policy().networks.clone(), vec![self.narrow.critic().clone()]];
        let value: Vec<Network> = self.narrow.value().cloned().into_iter().collect();
        let (narrow, wide) = (self.narrow.gradients(), self.wide.gradients());
        let mut errors = Vec::new();
        for ((name, x), (_, y)) in narrow.into_iter().zip(wide).filter(|((name, _), _)| names.contains(name)) {
            let networks = match name {
                "policy" => &policy,
                "value" => &value,
                _ => &critic,
            };
            if name == "log_alpha" {
                errors.push((format!("{name}.gradient"), error(x, y)));
                continue;
            }
            let mut start = 0;
            for network in networks {
                for (l, layer) in network.layers().iter().enumerate() {
                    let range = start + layer.weight.start..start + layer.bias.end;
                    errors.push((format!("{name}.gradient{l}"), error(&x[range.clone()], &y[range])));
                }
                start += network.parameters();
            }
            assert_eq!(start, x.len());
        }
        errors.into_iter().for_each(|(quantity, error)| self.note(step, &quantity, error));
    }

    /// All losses of an update, at the same α; nothing where sides differ.
    fn losses(&mut self, batch: &Batch<f32>, noise: &Noise<f32>) -> Option<()> {
        let alpha = self.narrow.alpha();
        let wide_alpha = f64::from(alpha);
        let wide_batch = Batch {
            observation: widened(&batch.observation),
            action: widened(&batch.action),
            reward: widened(&batch.reward),
            discount: widened(&batch.discount),
            next_observation: widened(&batch.next_observation),
        };
        let wide_noise = Noise { current: widened(&noise.current), next: widened(&noise.next) };

        self.narrow.sample_actions(batch, noise);
        self.wide.sample_actions(&wide_batch, &wide_noise);
        self.compare("sample_actions").then_some(())?;

        let loss = (self.narrow.critic_loss(alpha, batch), self.wide.critic_loss(wide_alpha, &wide_batch));
        self.compare("critic_loss").then_some(())?;
        self.compare_gradients("critic_loss", &["q1", "q2"]);
        self.note("critic_loss", "loss", error(&[loss.0], &[loss.1]));

        self.narrow.evaluate_actions(batch);
        self.wide.evaluate_actions(&wide_batch);
        self.compare("evaluate_actions").then_some(())?;

        if self.narrow.value().is_some() {
            let loss = (self.narrow.value_loss(alpha, batch), self.wide.value_loss(wide_alpha, &wide_batch));
            self.compare("value_loss").then_some(())?;
            self.compare_gradients("value_loss", &["value"]);
            self.note("value_loss", "loss", error(&[loss.0?], &[loss.1?]));
        }

        let loss = (self.narrow.policy_loss(alpha, noise), self.wide.policy_loss(wide_alpha, &wide_noise));
        self.compare("policy_loss");
        self.compare_gradients("policy_loss", &["policy"]);
        self.note("policy_loss", "loss", error(&[loss.0], &[loss.1]));

        let loss = (self.narrow.temperature_loss(), self.wide.temperature_loss());
        self.compare_gradients("temperature_loss", &["log_alpha"]);
        self.note("temperature_loss", "loss", error(&[loss.0], &[loss.1]));
        Some(())
    }
}

/// Compares a case on the threads there are; returns the number of redraws.
fn check(i: usize, activation: Activation, threads: usize, worst: &mut Worst) -> u64 {
    let config = config(i, activation);
    let (.., o, a) = SHAPES[i];
    (0..ATTEMPTS)
        .find(|&attempt| {
            let mut rng = Philox::new(SEED + i as u64, Stream::Evaluation, attempt);
            let mut narrow = CpuLearner::<f32>::new(&config, o, &vec![1.0; a]);
            // Weights packed by a step, and targets that are not what they follow.
            let (batch, noise) = draw(&config, o, a, &mut rng);
            narrow.update(&batch, &noise);
            let (batch, noise) = draw(&config, o, a, &mut rng);
            let wide = widened_learner(&mut narrow, &config, o, a);
            let name = format!("{:?} {activation:?}, {threads} threads", SHAPES[i]);
            let before = (narrow.intermediates(), wide.intermediates());
            Pair { name, config: config.clone(), narrow, wide, before, cancellation: 1.0, worst }
                .losses(&batch, &noise)
                .is_some()
        })
        .expect("rounding seldom moves anything to another side")
}

#[test]
fn an_update_in_f32_is_that_in_f64_but_for_rounding() {
    let (mut worst, mut redraws) = (Worst::new(), 0);
    for threads in [1, 2] {
        let work = || {
            for (i, activation) in (0..SHAPES.len()).flat_map(|i| [(i, Relu), (i, Tanh)]) {
                redraws += check(i, activation, threads, &mut worst);
            }
        };
        with_threads(threads, work).expect("there are threads");
    }
    for (quantity, (error, name)) in &worst {
        println!("{quantity}: {error:.1e}, {name}");
    }
    println!("{redraws} redraws");
    assert_eq!(worst.len(), 36, "buffers, gradients and losses, by the step that leaves them");
}
