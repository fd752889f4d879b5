//! Comparisons of [`CudaLearner`] on any [`Gpu`] with [`CpuLearner`].

use ndarray::{Array1, Array2, s};
use rand::{Rng, RngCore};
use rand_distr::StandardNormal;
use soft_actor_critic::config::{Alpha, Config, FirstUpdateAlpha, Heads, LogStdForm, Precision, TemperatureLoss};
use soft_actor_critic::env::{Env, Pendulum};
use soft_actor_critic::error::Error;
use soft_actor_critic::gpu::Gpu;
use soft_actor_critic::gpu::kernels::Launch;
use soft_actor_critic::nn::{Activation, Mean, Network};
use soft_actor_critic::presets::PRESETS;
use soft_actor_critic::replay::{Batch, Replay, Transition};
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::run::config_file;
use soft_actor_critic::sac::cuda::UpdateRequest;
use soft_actor_critic::sac::{CpuLearner, CudaLearner, Learner, Noise, Snapshot, Support};
use soft_actor_critic::train::{Trainer, TrainerState};
use std::collections::BTreeMap;

/// [`CudaLearner::new`], or [`CudaLearner::layer_by_layer`].
pub type Make = fn(&Config, usize, &[f32], Box<dyn Gpu>) -> Result<CudaLearner, Error>;

/// A configuration, and what it is to learn from.
pub struct Case {
    pub name: String,
    pub config: Config,
    pub observation_size: usize,
    pub half_range: Vec<f32>,
}

/// Every preset, with networks of odd widths and of depths from 0 to 3, of both activations and with a bound on gradients.
pub fn cases(batch_size: usize) -> Vec<Case> {
    let shapes: [(&[usize], usize, usize); 6] =
        [(&[37, 33], 3, 1), (&[], 5, 2), (&[1], 1, 3), (&[64, 7, 40], 17, 6), (&[31, 65], 2, 1), (&[16, 16], 33, 4)];
    let preset = |(i, (name, text)): (usize, &(&str, &str))| {
        let (hidden, observation_size, actions) = shapes[i % shapes.len()];
        let config = config_file::parse(text, "pendulum").expect("presets are valid");
        let config = Config {
            batch_size,
            policy_hidden: hidden.to_vec(),
            critic_hidden: hidden.iter().rev().copied().collect(),
            steps: 1000,
            ..config
        };
        let half_range = (0..actions).map(|i| 0.5 + i as f32).collect();
        Case { name: format!("{name}, batch {batch_size}"), config, observation_size, half_range }
    };
    let mut cases: Vec<_> = PRESETS.iter().enumerate().map(preset).collect();
    let other = |name: &str, change: &dyn Fn(&mut Config)| {
        let mut config = Config {
            batch_size,
            policy_hidden: vec![19, 40],
            critic_hidden: vec![40, 19],
            steps: 1000,
            ..Config::default()
        };
        change(&mut config);
        Case { name: format!("{name}, batch {batch_size}"), config, observation_size: 4, half_range: vec![1.0, 2.0] }
    };
    cases.push(other("tanh", &|config| config.activation = Activation::Tanh));
    cases.push(other("delay", &|config| {
        config.policy_delay = 2;
        config.alpha = Alpha::Fixed(0.3);
    }));
    cases
}

/// Every preset as it was published, on Pendulum's sizes.
pub fn published() -> Vec<Case> {
    let case = |(name, text): &(&str, &str)| {
        let config = config_file::parse(text, "pendulum").expect("presets are valid");
        Case { name: (*name).into(), config, observation_size: 3, half_range: vec![2.0] }
    };
    PRESETS.iter().map(case).collect()
}

/// Configurations that fused kernels cover: inputs that fit into a tile with their bias and that just do not, one action and
/// the most there may be, one tile of each layer and several, and every choice that touches those kernels.
pub fn fused_cases(batch_size: usize) -> Vec<Case> {
    type Change = fn(&mut Config);
    let shapes: [([usize; 2], usize, usize, Change); 5] = [
        ([32, 32], 3, 1, |_| ()),
        ([96, 64], 25, 6, |config| config.alpha = Alpha::Fixed(0.3)),
        ([64, 96], 30, 2, |config| {
            config.temperature_loss = TemperatureLoss::Alpha;
            config.first_update_alpha = FirstUpdateAlpha::Fixed(0.5);
        }),
        ([32, 128], 70, 17, |config| config.mean = Mean::Tanh),
        ([64, 64], 1, 32, |config| {
            config.log_std = LogStdForm::Tanh;
            config.log_std_min = -5.0;
        }),
    ];
    let case = |([h1, h2], observation_size, actions, change): ([usize; 2], usize, usize, Change)| {
        let mut config = Config {
            batch_size,
            policy_hidden: vec![h1, h2],
            critic_hidden: vec![h2, h1],
            steps: 1000,
            ..Config::default()
        };
        change(&mut config);
        assert_eq!(Support::of(&config, actions), Support::Fused);
        let half_range = (0..actions).map(|i| 0.5 + i as f32).collect();
        Case { name: format!("fused {h1}, {h2}, batch {batch_size}"), config, observation_size, half_range }
    };
    shapes.into_iter().map(case).collect()
}

/// A batch whose transitions end now and then, and noise.
pub fn batch_and_noise(config: &Config, o: usize, a: usize, number: u64) -> (Batch<f32>, Noise<f32>) {
    let mut rng = Philox::new(11, Stream::Evaluation, number);
    let b = config.batch_size;
    let mut matrix = |rows, columns| Array2::from_shape_fn((rows, columns), |_| rng.sample::<f32, _>(StandardNormal));
    let batch = Batch {
        observation: matrix(b, o),
        action: matrix(b, a).mapv(f32::tanh),
        reward: matrix(b, 1).column(0).to_owned(),
        discount: Array1::from_shape_fn(b, |i| if i % 5 == 3 { 0.0 } else { config.gamma as f32 }),
        next_observation: matrix(b, o),
    };
    (batch, Noise { current: matrix(b, a), next: matrix(b, a) })
}

/// Does launches that `cuda` has given.
fn run(cuda: &mut CudaLearner, launches: &[Launch]) {
    // SAFETY: they are its own, unchanged.
    unsafe { cuda.run(launches) }.expect("it works");
}

/// ‖x − y‖ / ‖y‖; NaN if either has one.
fn error(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let difference = squares(&mut x.iter().zip(y).map(|(&x, &y)| f64::from(x) - f64::from(y)));
    let norm = squares(&mut y.iter().map(|&y| f64::from(y)));
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// The layers of networks that follow each other, each a tensor of its weight and, below that, its bias. The gradient of a
/// bias is a sum over the batch that can cancel to nearly nothing, of which there is no norm of its own to measure by.
fn tensors(networks: &[&Network]) -> Vec<std::ops::Range<usize>> {
    let (mut list, mut start) = (Vec::new(), 0);
    for mlp in networks {
        list.extend(mlp.layers().iter().map(|layer| start + layer.weight.start..start + layer.bias.end));
        start += mlp.parameters();
    }
    list
}

/// The worst error of a tensor of two flat vectors; NaN if there is one.
fn worst(networks: &[&Network], x: &[f32], y: &[f32]) -> f64 {
    let errors = tensors(networks).into_iter().map(|range| error(&x[range.clone()], &y[range]).abs());
    // In this order NaN is the largest.
    errors.max_by(f64::total_cmp).unwrap_or(0.0)
}

/// What the learner on the GPU has in the place of an intermediate of the CPU's, by that one's name.
fn intermediate(cuda: &mut CudaLearner, config: &Config, o: usize, a: usize, name: &str) -> Vec<f32> {
    let mut read = |name: &str| cuda.read(name).expect("it works");
    let b = config.batch_size;
    let matrix = |values: Vec<f32>, columns: usize| {
        let rows = values.len() / columns;
        Array2::from_shape_vec((rows, columns), values).expect("it has the shape")
    };
    let flat = |array: Array2<f32>| array.iter().copied().collect();
    match name {
        "action" => flat(matrix(read("inputs"), o + a).slice(s![b.., o..]).to_owned()),
        "d_action" => {
            let both = read("d_action");
            both[..b * a].iter().zip(&both[b * a..]).map(|(x, y)| x + y).collect()
        }
        _ if name.ends_with(".output") || name.ends_with(".d_output") => {
            let raw = matrix(read(if name.ends_with(".output") { "raw" } else { "d_raw" }), 2 * a);
            let columns = match (config.policy_heads, name.starts_with("policy1")) {
                (Heads::Shared, _) => 0..2 * a,
                (Heads::Separate, false) => 0..a,
                (Heads::Separate, true) => a..2 * a,
            };
            flat(raw.slice(s![.., columns]).to_owned())
        }
        _ => read(name),
    }
}

/// Whether a quantity is the one of that name, or one of its parts.
fn is_of(quantity: &str, name: &str) -> bool {
    quantity.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '0', '1', '2']))
}

/// Phase by phase, each from the CPU's own state, every intermediate that it leaves, with all outputs poisoned before:
/// relative to the norm of each, at most 1e-5.
pub fn every_intermediate(gpu: fn() -> Option<Box<dyn Gpu>>) {
    let mut worst_of_all: f64 = 0.0;
    for Case { name, config, observation_size: o, half_range } in [1, 7, 257].into_iter().flat_map(cases) {
        let Some(gpu) = gpu() else { return };
        let a = half_range.len();
        let mut cpu = CpuLearner::<f32>::new(&config, o, &half_range);
        let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
        // Moments and targets that are not those of the beginning.
        for number in 0..3 {
            let (batch, noise) = batch_and_noise(&config, o, a, 100 + number);
            cpu.update(&batch, &noise);
        }
        cuda.restore(&cpu.snapshot()).expect("it fits");
        let (batch, noise) = batch_and_noise(&config, o, a, 0);
        for (quantity, _, length) in cuda.intermediates() {
            cuda.write(&quantity, &vec![f32::NAN; length]).expect("it works");
        }
        cuda.load(&batch, &noise).expect("it works");
        let has_value = cpu.value().is_some();
        let mut compare = |cpu: &CpuLearner, cuda: &mut CudaLearner, phase: &str, prefixes: &[&str]| {
            for (quantity, expected) in cpu.intermediates() {
                let absent = has_value && quantity == "target_q";
                if absent || !prefixes.iter().any(|prefix| is_of(&quantity, prefix)) {
                    continue;
                }
                let mut found = intermediate(cuda, &config, o, a, &quantity);
                let mut expected = expected;
                // The rows of s′ are not looked at where V̄ has their value.
                let forward = quantity.starts_with("policy") && !quantity.contains("d_");
                if has_value && (forward || ["action", "log_prob"].contains(&quantity.as_str())) {
                    expected.drain(..expected.len() / 2);
                    found.drain(..found.len() / 2);
                }
                let error = error(&found, &expected);
                assert!(error <= 1e-5, "{name}: {quantity} after {phase} differs by {error:.1e}");
                worst_of_all = worst_of_all.max(error);
            }
        };
        let poison = |cuda: &mut CudaLearner, prefixes: &[&str]| {
            for (quantity, _, length) in cuda.intermediates() {
                if prefixes.iter().any(|prefix| is_of(&quantity, prefix)) {
                    cuda.write(&quantity, &vec![f32::NAN; length]).expect("it works");
                }
            }
        };
        let gradient = |cpu: &mut CpuLearner, cuda: &mut CudaLearner, of: &str, networks: &[&Network]| {
            let names: &[&str] = if of == "q" { &["q1", "q2"] } else { &[of] };
            let all = cpu.gradients();
            let expected: Vec<f32> = names
                .iter()
                .flat_map(|name| all.iter().find(|(known, _)| known == name).expect("it is there").1.to_vec())
                .collect();
            let mut found = Vec::new();
            for name in names {
                found.extend(intermediate(cuda, &config, o, a, &format!("{name}.gradient")));
            }
            worst(networks, &found, &expected)
        };
        let mut worst_gradient: f64 = 0.0;
        let mut gradients_agree = |error: f64, of: &str| {
            assert!(error <= 1e-5, "{name}: the gradient of {of} differs by {error:.1e}");
            worst_gradient = worst_gradient.max(error);
        };
        let (policy, critic, value) = (cpu.policy().clone(), cpu.critic().clone(), cpu.value().cloned());
        let alpha = (cpu.alpha(), cuda.alpha(false));

        cpu.sample_actions(&batch, &noise);
        let launches = cuda.sample_actions();
        run(&mut cuda, &launches);
        compare(&cpu, &mut cuda, "sample_actions", &["action", "log_prob", "policy0.hidden", "policy1.hidden"]);
        compare(&cpu, &mut cuda, "sample_actions", &["policy0.output", "policy1.output"]);

        cpu.critic_loss(alpha.0, &batch);
        let launches = cuda.critic_loss(alpha.1);
        run(&mut cuda, &launches);
        compare(&cpu, &mut cuda, "critic_loss", &["q", "target_q", "target", "d_q", "critic", "v"]);
        gradients_agree(gradient(&mut cpu, &mut cuda, "q", &[&critic, &critic]), "q");

        poison(&mut cuda, &["q", "critic", "d_q", "v", "value"]);
        cpu.evaluate_actions(&batch);
        let launches = cuda.evaluate_actions();
        run(&mut cuda, &launches);
        compare(&cpu, &mut cuda, "evaluate_actions", &["q", "critic.hidden"]);

        if let Some(value) = &value {
            cpu.value_loss(alpha.0, &batch);
            let launches = cuda.value_loss(alpha.1);
            run(&mut cuda, &launches);
            compare(&cpu, &mut cuda, "value_loss", &["v", "d_v", "value"]);
            gradients_agree(gradient(&mut cpu, &mut cuda, "value", &[value]), "value");
        }

        cpu.policy_loss(alpha.0, &noise);
        let launches = cuda.policy_loss(alpha.1);
        run(&mut cuda, &launches);
        let outputs = ["d_action", "policy0.d_output", "policy1.d_output", "policy0.d_hidden", "policy1.d_hidden"];
        compare(&cpu, &mut cuda, "policy_loss", &outputs);
        let networks: Vec<&Network> = policy.networks.iter().collect();
        gradients_agree(gradient(&mut cpu, &mut cuda, "policy", &networks), "policy");

        if let Some(step) = cuda.temperature_step() {
            cpu.temperature_loss();
            run(&mut cuda, &[step]);
            let expected =
                cpu.gradients().iter().find(|(name, _)| *name == "log_alpha").expect("it is there").1.to_vec();
            let found = intermediate(&mut cuda, &config, o, a, "log_alpha.gradient");
            gradients_agree(error(&found, &expected), "log_alpha");
        }
        worst_of_all = worst_of_all.max(worst_gradient);
    }
    println!("worst error of an intermediate over its norm: {worst_of_all:.1e}");
}

/// What a fused update leaves of every intermediate that it shares with one made layer by layer, both from the state of a
/// third, with all outputs poisoned before: relative to the norm of each, at most 1e-5.
pub fn fused_intermediates(gpu: fn() -> Option<Box<dyn Gpu>>) {
    let mut worst_of_all: f64 = 0.0;
    for Case { name, config, observation_size: o, half_range } in [1, 7, 64, 257].into_iter().flat_map(fused_cases) {
        let (Some(first), Some(second)) = (gpu(), gpu()) else { return };
        let a = half_range.len();
        let mut cpu = CpuLearner::<f32>::new(&config, o, &half_range);
        for number in 0..3 {
            let (batch, noise) = batch_and_noise(&config, o, a, 100 + number);
            cpu.update(&batch, &noise);
        }
        let (batch, noise) = batch_and_noise(&config, o, a, 0);
        let mut learners = [
            CudaLearner::new(&config, o, &half_range, first).expect("it fits"),
            CudaLearner::layer_by_layer(&config, o, &half_range, second).expect("it fits"),
        ];
        for cuda in &mut learners {
            cuda.restore(&cpu.snapshot()).expect("it fits");
            for (quantity, _, length) in cuda.intermediates() {
                cuda.write(&quantity, &vec![f32::NAN; length]).expect("it works");
            }
            cuda.update(&batch, &noise).expect("it works");
        }
        let [mut fused, mut plain] = learners;
        assert_eq!((fused.is_fused(), plain.is_fused()), (true, false));
        for (quantity, ..) in plain.intermediates() {
            // There is no V, the gradients over hidden layers stay within a kernel, and a fixed α has none.
            if ["v", "d_v"].contains(&&*quantity) || quantity.contains("d_hidden") {
                continue;
            }
            // Of one row, an error of one twin may cancel to nearly nothing: the two are measured together, as their Q are.
            let names: &[&str] = match &*quantity {
                "q1.gradient" => continue,
                "q2.gradient" => &["q1.gradient", "q2.gradient"],
                _ => &[&quantity],
            };
            let read = |cuda: &mut CudaLearner| -> Vec<f32> {
                names.iter().flat_map(|name| cuda.read(name).expect("it works")).collect()
            };
            let (found, expected) = (read(&mut fused), read(&mut plain));
            if quantity == "log_alpha.gradient" && expected[0].is_nan() {
                continue;
            }
            let error = error(&found, &expected);
            assert!(error <= 1e-5, "{name}: {quantity} differs by {error:.1e}");
            worst_of_all = worst_of_all.max(error);
        }
    }
    println!("worst error of a fused intermediate over its norm: {worst_of_all:.1e}");
}

/// Asserts that all parameters and targets agree, tensor by tensor, and returns the worst error.
pub fn parameters_agree(name: &str, cpu: &mut CpuLearner, cuda: &mut CudaLearner, bar: f64) -> f64 {
    let (expected, found) = (cpu.snapshot(), cuda.snapshot().expect("it works"));
    assert_eq!(expected.counts, found.counts, "{name}");
    let (policy, critic, value) = (cpu.policy().clone(), cpu.critic().clone(), cpu.value().cloned());
    let mut worst_of_all: f64 = 0.0;
    for (vector, values) in &expected.vectors {
        if vector.contains("adam") {
            continue;
        }
        let networks: Vec<&Network> = match vector.as_str() {
            "policy" => policy.networks.iter().collect(),
            "value" | "target_value" => value.iter().collect(),
            "log_alpha" => Vec::new(),
            _ => vec![&critic],
        };
        let found = found.get(vector).expect("both have the same");
        let error =
            if networks.is_empty() { f64::from((found[0] - values[0]).abs()) } else { worst(&networks, found, values) };
        assert!(error <= bar, "{name}: {vector} differs by {error:.1e}");
        worst_of_all = worst_of_all.max(error);
    }
    worst_of_all
}

/// How far from the CPU gradients from its state may be, in the median of twenty updates and at worst, and parameters after
/// twenty updates: of each tensor's norm.
pub struct Bars {
    pub median_gradients: f64,
    pub gradients: f64,
    pub parameters: f64,
}

pub const F32: Bars = Bars { median_gradients: 1e-5, gradients: 1e-5, parameters: 1e-3 };
/// Rounding to 10 bits leaves errors of about 1e-3. Where it turns a ReLU, which seldom happens, that row of the batch goes
/// another way altogether.
pub const TF32: Bars = Bars { median_gradients: 5e-3, gradients: 0.3, parameters: 1e-2 };

/// [`fused_cases`] in tf32.
pub fn tf32_cases(batch_size: usize) -> Vec<Case> {
    let mut cases = fused_cases(batch_size);
    for case in &mut cases {
        case.name += ", tf32";
        case.config.precision = Precision::Tf32;
    }
    cases
}

/// Twenty updates, each from the CPU's state before it, and twenty of its own.
pub fn twenty_updates(gpu: fn() -> Option<Box<dyn Gpu>>, make: Make, cases: Vec<Case>, bars: &Bars) {
    for Case { name, config, observation_size: o, half_range } in cases {
        let a = half_range.len();
        let (Some(first), Some(second)) = (gpu(), gpu()) else { return };
        let mut cpu = CpuLearner::<f32>::new(&config, o, &half_range);
        let mut following = make(&config, o, &half_range, first).expect("it fits");
        let mut own = make(&config, o, &half_range, second).expect("it fits");
        let mut gradients = Vec::new();
        for number in 0..20 {
            let mut worst_gradient: f64 = 0.0;
            let (batch, noise) = batch_and_noise(&config, o, a, number);
            following.restore(&cpu.snapshot()).expect("it fits");
            cpu.update(&batch, &noise);
            following.update(&batch, &noise).expect("it works");
            own.update(&batch, &noise).expect("it works");
            let policy = cpu.policy().clone();
            let networks: Vec<&Network> = policy.networks.iter().collect();
            let critic = cpu.critic().clone();
            let value = cpu.value().cloned();
            let mut check = |of: &str, networks: &[&Network], expected: &[f32]| {
                let found = intermediate(&mut following, &config, o, a, &format!("{of}.gradient"));
                let error = worst(networks, &found, expected);
                let bar = bars.gradients;
                assert!(error <= bar, "{name}: the gradient of {of} differs by {error:.1e} in update {number}");
                worst_gradient = worst_gradient.max(error);
            };
            let expected: BTreeMap<_, _> = cpu.gradients().into_iter().collect();
            check("q1", &[&critic], expected["q1"]);
            check("q2", &[&critic], expected["q2"]);
            if config.policy_delay == 1 || number % config.policy_delay == config.policy_delay - 1 {
                check("policy", &networks, expected["policy"]);
            }
            if let Some(value) = &value {
                check("value", &[value], expected["value"]);
            }
            gradients.push(worst_gradient);
        }
        gradients.sort_by(f64::total_cmp);
        let (median, worst) = (gradients[10], gradients[19]);
        assert!(median <= bars.median_gradients, "{name}: in the median, gradients differ by {median:.1e}");
        let parameters = parameters_agree(&name, &mut cpu, &mut own, bars.parameters);
        println!(
            "{name}: gradients {worst:.1e}, {median:.1e} in the median; parameters after 20 updates {parameters:.1e}"
        );
    }
}

/// Deterministic and sampled actions, of one observation and of several.
pub fn actions(gpu: fn() -> Option<Box<dyn Gpu>>) {
    for Case { name, config, observation_size: o, half_range } in cases(3) {
        let Some(gpu) = gpu() else { return };
        let a = half_range.len();
        let mut cpu = CpuLearner::<f32>::new(&config, o, &half_range);
        let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
        for (i, rows) in [1, 1, 5, 1].into_iter().enumerate() {
            let (batch, noise) = batch_and_noise(&Config { batch_size: rows, ..config.clone() }, o, a, i as u64);
            for noise in [None, Some(noise.current.view())] {
                let (mut expected, mut found) = (Array2::zeros((rows, a)), Array2::from_elem((rows, a), f32::NAN));
                cpu.act(batch.observation.view(), noise, expected.view_mut()).expect("it works");
                cuda.act(batch.observation.view(), noise, found.view_mut()).expect("it works");
                let error = error(found.as_slice().expect("it is new"), expected.as_slice().expect("it is new"));
                assert!(error <= 1e-5, "{name}: actions differ by {error:.1e}");
            }
        }
    }
}

/// What is seen of updates, and what becomes of one whose loss is not finite.
pub fn failures(gpu: fn() -> Option<Box<dyn Gpu>>) {
    for Case { name, config, observation_size: o, half_range } in [cases(5), fused_cases(5)].into_iter().flatten() {
        let Some(gpu) = gpu() else { return };
        let a = half_range.len();
        let mut cpu = CpuLearner::<f32>::new(&config, o, &half_range);
        let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
        let good = cpu.snapshot();
        let agree = |cpu: &mut CpuLearner, cuda: &mut CudaLearner| {
            let (x, y) = (cpu.metrics(), cuda.metrics().expect("it works"));
            assert_eq!((x.updates, x.policy_updates, x.failure), (y.updates, y.policy_updates, y.failure), "{name}");
            for (x, y) in x.values.into_iter().zip(y.values) {
                assert!((x - y).abs() <= 1e-4 * (1.0 + x.abs()), "{name}: {x} and {y}");
            }
            parameters_agree(&name, cpu, cuda, 1e-4);
        };
        agree(&mut cpu, &mut cuda);
        for number in 0..3 {
            let (batch, noise) = batch_and_noise(&config, o, a, number);
            cpu.update(&batch, &noise);
            cuda.update(&batch, &noise).expect("it works");
            agree(&mut cpu, &mut cuda);
        }
        // A reward that is no number, and then a good batch that comes too late; a network that is none.
        let (mut bad, noise) = batch_and_noise(&config, o, a, 3);
        bad.reward[2] = f32::NAN;
        let (fine, _) = batch_and_noise(&config, o, a, 4);
        for batch in [&bad, &fine] {
            cpu.update(batch, &noise);
            cuda.update(batch, &noise).expect("it works");
            assert!(cpu.metrics().failure.is_some(), "{name}");
            agree(&mut cpu, &mut cuda);
        }
        // Noise at s that is no number: the critics take their step before the policy's loss tells, and no other one after it.
        let mut bad = noise.clone();
        bad.current[[1, 0]] = f32::NAN;
        for learner in [&mut cpu as &mut dyn Learner, &mut cuda] {
            learner.restore(&good).expect("it fits");
        }
        for (noise, fails) in [(&noise, false), (&bad, true), (&noise, true)] {
            cpu.update(&fine, noise);
            cuda.update(&fine, noise).expect("it works");
            let is_fused = Support::of(&config, a) == Support::Fused;
            assert!(cpu.metrics().failure.is_some() == fails || !is_fused, "{name}");
            agree(&mut cpu, &mut cuda);
        }
        let nan = f32::NAN;
        for (vector, value) in [
            ("policy", f32::INFINITY),
            ("value", f32::INFINITY),
            ("log_alpha", f32::INFINITY),
            ("target_q1", nan),
            ("target_q2", nan),
        ] {
            let mut broken = good.clone();
            let Some(values) = broken.get_mut(vector) else { continue };
            values.fill(value);
            for learner in [&mut cpu as &mut dyn Learner, &mut cuda] {
                learner.restore(&broken).expect("it fits");
            }
            cpu.update(&fine, &noise);
            cuda.update(&fine, &noise).expect("it works");
            let (x, y) = (cpu.metrics().failure, cuda.metrics().expect("it works").failure);
            assert_eq!(x, y, "{name}, {vector}");
            // From then on nothing changes.
            let bits = |cuda: &mut CudaLearner| {
                let Snapshot { vectors, counts, .. } = cuda.snapshot().expect("it works");
                let vectors = vectors.into_iter().map(|(_, values)| values.into_iter().map(f32::to_bits).collect());
                (vectors.collect::<Vec<Vec<_>>>(), counts)
            };
            let stopped = bits(&mut cuda);
            cuda.update(&fine, &noise).expect("it works");
            assert!(y.is_none() || bits(&mut cuda) == stopped, "{name}, {vector}");
            for learner in [&mut cpu as &mut dyn Learner, &mut cuda] {
                learner.restore(&good).expect("it fits");
            }
        }
        // Whichever twin has lost its numbers, the policy's loss tells.
        for vector in ["q1", "q2"] {
            let mut broken = good.clone();
            broken.get_mut(vector).expect("every learner has it").fill(nan);
            cuda.restore(&broken).expect("it fits");
            cuda.load(&fine, &noise).expect("it works");
            let alpha = cuda.alpha(false);
            for launches in [cuda.sample_actions(), cuda.evaluate_actions(), cuda.policy_loss(alpha)] {
                run(&mut cuda, &launches);
            }
            assert_eq!(cuda.metrics().expect("it works").failure, Some((1, "policy loss")), "{name}, {vector}");
            cuda.restore(&good).expect("it fits");
        }
        let (batch, noise) = batch_and_noise(&config, o, a, 5);
        cpu.update(&batch, &noise);
        cuda.update(&batch, &noise).expect("it works");
        agree(&mut cpu, &mut cuda);
        // What a snapshot brings back shows at once.
        let moved = cpu.snapshot();
        for learner in [&mut cpu as &mut dyn Learner, &mut cuda] {
            learner.restore(&moved).expect("it fits");
        }
        agree(&mut cpu, &mut cuda);
    }
}

/// The replay memory of a configuration after so many steps, with ends of episodes of both kinds.
pub fn replay(config: &Config, steps: usize, o: usize, a: usize) -> Replay {
    let mut replay = Replay::new(config.replay_rows(), o, a).expect("it is small").of_environments(config.envs);
    push(&mut replay, 0..steps, o, a);
    replay
}

fn push(replay: &mut Replay, steps: std::ops::Range<usize>, o: usize, a: usize) {
    let n = replay.environments();
    for t in steps {
        // Each environment goes through observations of its own.
        let observation = |step: usize| {
            let first = 5000 * (t % n) + step * o;
            (first..first + o).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>()
        };
        let action: Vec<_> = (0..a).map(|i| ((t * a + i) as f32 * 0.3).cos()).collect();
        replay.push(Transition {
            observation: &observation(t / n),
            action: &action,
            reward: (t as f32).cos(),
            next_observation: &observation(t / n + 1),
            terminated: t % 7 == 6,
            truncated: t % 11 == 10,
        });
    }
}

/// What is drawn is what the counter says, and learning is an update with it; also after the memory has wrapped around
/// between two updates, and with several environments and returns over several steps.
pub fn learning(gpu: fn() -> Option<Box<dyn Gpu>>) {
    let cases = [cases(9), fused_cases(9), fused_cases(35)].into_iter().flatten().enumerate();
    for (i, Case { name, config, observation_size: o, half_range }) in cases {
        let Some(gpu) = gpu() else { return };
        let a = half_range.len();
        let (envs, n_step) = [(1, 1), (3, 1), (1, 3), (3, 4)][i % 4];
        let config = Config { steps: 23, replay_capacity: 1000, seed: 3, reward_scale: 1.7, envs, n_step, ..config };
        let mut replay = replay(&config, 10, o, a);
        let mut cpu = CpuLearner::<f32>::new(&config, o, &half_range);
        let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
        for update in 0..4 {
            cuda.learn(&replay, update).expect("it works");
            let (rows, noise) = cuda.drawn().expect("it works");
            let mut words = Philox::new(3, Stream::Replay, update);
            for &row in &rows {
                let word = u64::from(rand::RngCore::next_u32(&mut words));
                assert_eq!(u64::from(row), (word * replay.len() as u64) >> 32, "{name}");
            }
            let mut words = Philox::new(3, Stream::Update, update);
            let mut uniform = || (f64::from(rand::RngCore::next_u32(&mut words) >> 8) + 0.5) / f64::from(1 << 24);
            for pair in noise.chunks(2) {
                let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
                for (&x, y) in pair.iter().zip([radius * angle.cos(), radius * angle.sin()]) {
                    assert!((f64::from(x) - y).abs() < 3e-6, "{name}: {x} must be {y}");
                }
            }
            let rows: Vec<usize> = rows.into_iter().map(|row| row as usize).collect();
            let mut batch = Batch::zeros(rows.len(), o, a);
            replay.gather(&rows, config.gamma as f32, config.n_step, &mut batch);
            batch.reward *= 1.7;
            let half = |from: usize| noise[from * rows.len() * a..][..rows.len() * a].to_vec();
            let half = |from| Array2::from_shape_vec((rows.len(), a), half(from)).expect("it has the shape");
            cpu.update(&batch, &Noise { next: half(0), current: half(1) });
            parameters_agree(&name, &mut cpu, &mut cuda, 1e-4);
            let steps = replay.pushed()..replay.pushed() + [3, 40, 1, 0][update as usize];
            push(&mut replay, steps, o, a);
        }
    }
}

/// Several agents of one learner, of which now these and now those take an update or act, each with the bits that it has alone:
/// seeds in no order, memories of different lengths, transitions that come a few or many at a time, one agent that begins
/// elsewhere and one that fails.
pub fn together(gpu: fn() -> Option<Box<dyn Gpu>>) {
    const SEEDS: [u64; 3] = [9, 4, 11];
    const MARK: f32 = 7.5;
    // Who learns, and how many transitions each of them gets before.
    const ROUNDS: [(&[usize], usize); 6] =
        [(&[0, 1, 2], 1), (&[2], 2), (&[1, 0], 9), (&[0], 0), (&[2, 0], 1), (&[0, 1, 2], 3)];
    let cases = [fused_cases(39), fused_cases(5)].into_iter().flatten().enumerate();
    for (i, Case { name, config, observation_size: o, half_range }) in cases {
        let a = half_range.len();
        let (envs, n_step) = [(1, 1), (1, 3), (3, 1)][i % 3];
        let config = Config { steps: 60, envs, n_step, reward_scale: 0.7, ..config };
        let of_seed = |seed: u64| Config { seed, ..config.clone() };
        let Some(one) = gpu() else { return };
        let mut all = CudaLearner::of_seeds(&config, &SEEDS, o, &half_range, one).expect("it fits");
        let mut alone = SEEDS.map(|seed| {
            CudaLearner::new(&of_seed(seed), o, &half_range, gpu().expect("there is one")).expect("it fits")
        });
        // One goes on from elsewhere, and the memories are of different lengths.
        let mut other = CpuLearner::<f32>::new(&of_seed(77), o, &half_range);
        let (batch, noise) = batch_and_noise(&config, o, a, 0);
        (0..3).for_each(|_| other.update(&batch, &noise));
        let other_snapshot = other.snapshot();
        all.restore_of(1, &other_snapshot).expect("it fits");
        alone[1].restore(&other_snapshot).expect("it fits");
        let mut replays: Vec<_> = (0..3).map(|agent| replay(&config, 12 + 7 * agent, o, a)).collect();
        let mut updates = [0, 3, 0];
        for (round, (agents, fresh)) in ROUNDS.into_iter().enumerate() {
            let mut requests = Vec::new();
            for &agent in agents {
                let pushed = replays[agent].pushed();
                // What waits twice must come in its order.
                push(&mut replays[agent], pushed..pushed + fresh / 3 * envs, o, a);
                all.mirror(agent, &replays[agent]).expect("it works");
                push(&mut replays[agent], pushed + fresh / 3 * envs..pushed + fresh * envs, o, a);
                alone[agent].learn(&replays[agent], updates[agent]).expect("it works");
                all.mirror(agent, &replays[agent]).expect("it works");
                requests.push(UpdateRequest { agent, update: updates[agent], stored: replays[agent].len() as u64 });
                updates[agent] += 1;
            }
            // Whatever an update would leave of an agent that rests is left alone.
            let rests = !agents.contains(&0);
            let left = if rests { all.intermediates() } else { Vec::new() };
            for (quantity, _, length) in &left {
                all.write(quantity, &vec![MARK; *length]).expect("it works");
            }
            let drawn = all.drawn().expect("it works");
            all.learn_together(&requests).expect("it works");
            assert!(!rests || all.drawn().expect("it works") == drawn, "{name}, round {round}");
            for (quantity, ..) in &left {
                let values = all.read(quantity).expect("it works");
                assert!(values.iter().all(|&value| value == MARK), "{name}: {quantity}, round {round}");
            }
            if round == 3 {
                // From here on one of them fails, and stays as it is.
                let mut broken = alone[2].snapshot().expect("it works");
                broken.get_mut("target_q2").expect("every learner has it").fill(f32::NAN);
                all.restore_of(2, &broken).expect("it fits");
                alone[2].restore(&broken).expect("it fits");
            }
            // Those that act together see different things.
            for rows in [1, 2] {
                for sampled in [true, false] {
                    let mut expected = Vec::new();
                    for (agent, one) in alone.iter_mut().enumerate() {
                        let rows = Config { batch_size: rows, ..config.clone() };
                        let (batch, noise) = batch_and_noise(&rows, o, a, (3 * round + agent) as u64);
                        let noise = sampled.then(|| noise.current.view());
                        let mut action = Array2::zeros((batch.observation.nrows(), a));
                        one.act(batch.observation.view(), noise, action.view_mut()).expect("it works");
                        all.observe(agent, batch.observation.view(), noise).expect("it works");
                        expected.extend(action);
                    }
                    let found = all.act_together(rows, sampled).expect("it works");
                    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&found), bits(&expected), "{name}, round {round}");
                }
            }
            let metrics = all.metrics_of_all().expect("it works");
            for (agent, one) in alone.iter_mut().enumerate() {
                let bits = |snapshot: Snapshot<f32>| {
                    let bits = |(name, values): (String, Vec<f32>)| {
                        (name, values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                    };
                    (snapshot.vectors.into_iter().map(bits).collect::<Vec<_>>(), snapshot.counts, snapshot.sums)
                };
                let found = bits(all.snapshot_of(agent).expect("it works"));
                assert!(found == bits(one.snapshot().expect("it works")), "{name}: agent {agent}, round {round}");
                assert_eq!(metrics[agent], one.metrics().expect("it works"), "{name}: agent {agent}, round {round}");
                assert_eq!(metrics[agent], all.metrics_of(agent).expect("it works"), "{name}: agent {agent}");
                assert_eq!(metrics[agent].failure.is_some(), agent == 2 && round > 3, "{name}: agent {agent}");
            }
        }
        let policies: Vec<_> = (0..3).map(|agent| all.snapshot_of(agent).expect("it works").vectors).collect();
        assert!(policies[0] != policies[1] && policies[0] != policies[2], "{name}: each has a seed of its own");
    }
}

/// Transitions of a memory, oldest first, and where it was cut.
fn transitions(replay: &Replay) -> (Vec<Vec<f32>>, Vec<u64>) {
    let rows = (replay.pushed() - replay.len()..replay.pushed()).map(|t| {
        let mut transition = vec![f32::NAN; replay.transition_size()];
        replay.write_transition(t % replay.capacity(), &mut transition);
        transition
    });
    (rows.collect(), replay.cuts())
}

/// Runs on Pendulum that live on the device: each step is that of the environment from the state before, by the action that the
/// random numbers or the policy give; the update after it is the one that is made from the same memory, to the last bit; and a
/// run in long rollouts is the same. What is no longer finite is told at the step where it happens.
pub fn pendulum(gpu: fn() -> Option<Box<dyn Gpu>>) {
    for (steps, utd, replay_capacity, preloaded, reward_scale) in [(411, 1.0, 300, 0, 1.0), (211, 0.6, 1000, 7, 0.3)] {
        let config = Config {
            seed: 3,
            steps,
            random_steps: 20,
            random_hold: 3,
            batch_size: 16,
            policy_hidden: vec![64, 32],
            critic_hidden: vec![32, 32],
            replay_capacity,
            reward_scale,
            utd,
            eval_every: 0,
            ..Config::default()
        };
        let Some(other) = gpu() else { return };
        // What the memory begins with wants room in that of the device.
        let with_room = Config { steps: steps + preloaded, ..config.clone() };
        let make = || {
            let learner = |_: &Config, o: usize, half_range: &[f32]| -> Result<Box<dyn Learner>, Error> {
                Ok(Box::new(CudaLearner::new(&with_room, o, half_range, gpu().expect("there is one"))?))
            };
            let mut trainer =
                Trainer::with_learner(|| Ok(Box::new(Pendulum::new())), config.clone(), learner).expect("it begins");
            let mut state = TrainerState { preloaded, ..trainer.save().expect("it works") };
            // It begins so fast that its first step reaches the limit, one way or the other.
            let way = if preloaded > 0 { 1.0_f64 } else { -1.0 };
            let env = &mut state.envs[0];
            env.env = Pendulum::at(way, 7.9 * way).save();
            env.observation = [way.cos(), way.sin(), 7.9 * way].map(|x| x as f32).into();
            trainer.restore(state, replay(&with_room, preloaded as usize, 3, 1)).expect("it fits");
            trainer
        };
        let (mut trainer, mut other) = (make(), CudaLearner::new(&with_room, 3, &[2.0], other).expect("it fits"));
        assert!(trainer.is_on_device());
        let pendulum = |bytes: &Option<Vec<u8>>| {
            let mut pendulum = Pendulum::new();
            pendulum.restore(bytes.as_ref().expect("it is saved")).expect("it is a pendulum");
            pendulum
        };
        let near = |x: f64, y: f64, bar: f64| assert!((x - y).abs() <= bar, "{x} must be {y}");
        let mut before = trainer.save().expect("it works");
        while !trainer.is_finished() {
            let step = before.steps;
            let ended = trainer.advance(1).expect("it works");
            let after = trainer.save().expect("it works");
            let env = &before.envs[0];
            assert_eq!((after.steps, after.envs[0].env_steps), (step + 1, step + 1));
            assert_eq!(after.updates, config.updates_after(step + 1));

            let (replay, mut transition) = (trainer.replay(), [f32::NAN; 9]);
            assert_eq!(replay.pushed() as u64, preloaded + step + 1);
            replay.write_transition((preloaded + step) as usize % replay.capacity(), &mut transition);
            let action = transition[3];
            other.restore(&before.learner).expect("it fits");
            if step < config.random_steps {
                let mut rng = Philox::new(3, Stream::Action, step - step % 3);
                near(action.into(), rng.random_range(-1.0_f32..=1.0).into(), 1e-6);
            } else {
                let mut rng = Philox::new(3, Stream::Action, step);
                let [u, v] = [(); 2].map(|()| (f64::from(rng.next_u32() >> 8) + 0.5) / f64::from(1 << 24));
                let noise = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                let (seen, noise) = (Array2::from_shape_vec((1, 3), env.observation.clone()), [[noise as f32]]);
                let mut expected = Array2::zeros((1, 1));
                let seen = seen.expect("it is seen by three numbers");
                other.act(seen.view(), Some(ndarray::arr2(&noise).view()), expected.view_mut()).expect("it works");
                near(action.into(), expected[[0, 0]].into(), 1e-5);
            }

            let mut expected = pendulum(&env.env);
            let mut torque = [0.0];
            expected.action_bounds().scale(&[action], &mut torque);
            let taken = expected.step(&torque).expect("it works");
            assert_eq!(transition[..3], env.observation);
            for (&x, &y) in transition[6..].iter().zip(&taken.observation) {
                near(x.into(), y.into(), 1e-6);
            }
            near(transition[4].into(), taken.reward, 1e-6 * taken.reward.abs());
            assert_eq!(transition[5], 1.0);
            let total_reward = env.episode.total_reward + taken.reward;
            let now = &after.envs[0];
            if taken.truncated {
                let number = env.episode.number;
                assert_eq!((ended.len(), ended[0].number, ended[0].length), (1, number, 200));
                near(ended[0].total_reward, total_reward, 1e-9);
                assert_eq!((now.episode.number, now.episode.length, now.episode.total_reward), (number + 1, 0, 0.0));
                let seed = Philox::new(3, Stream::Environment, number + 1).next_u64();
                expected.reset(seed).expect("it works");
            } else {
                assert_eq!((ended.len(), now.episode.number), (0, env.episode.number));
                assert_eq!(now.episode.length, env.episode.length + 1);
                near(now.episode.total_reward, total_reward, 1e-9);
                assert_eq!(now.observation, transition[6..]);
            }
            for (x, y) in pendulum(&now.env).state().into_iter().zip(expected.state()) {
                near(x, y, 1e-12);
            }

            // The other one mirrors the memory even where there is nothing to learn yet.
            if after.updates > before.updates {
                other.learn(replay, before.updates).expect("it works");
            }
            assert!(other.snapshot().expect("it works") == after.learner, "the update of step {step}");
            before = after;
        }

        let mut whole = make();
        let mut episodes = 0;
        while !whole.is_finished() {
            episodes += whole.advance(u64::MAX).expect("it works").len();
        }
        assert_eq!(episodes as u64, steps / 200);
        assert!(whole.save().expect("it works") == before, "in long rollouts it is another run");
        assert_eq!(transitions(whole.replay()), transitions(trainer.replay()));

        // From step 200 on something is not finite.
        let mut broken = make();
        while broken.steps() < 200 {
            broken.advance(200 - broken.steps()).expect("it works");
        }
        let (state, replay) = (broken.save().expect("it works"), broken.replay().clone());
        for (vector, step, quantity) in [("policy", 200, "action"), ("q1", 201, "critic loss")] {
            let mut state: TrainerState = state.clone();
            state.learner.get_mut(vector).expect("every learner has it").fill(f32::NAN);
            broken.restore(state, replay.clone()).expect("it fits");
            let error = broken.advance(u64::MAX).expect_err("it cannot go on");
            let step = if utd < 1.0 && quantity != "action" { broken.steps() } else { step };
            let advice = "lower the learning rates (--lr), or scale the rewards down (--reward-scale)".into();
            assert_eq!(error, Error::NonFinite { step, quantity, advice });
            assert!(broken.steps() == step && broken.replay().pushed() as u64 == preloaded + step && step < 204);
        }
    }
}
