//! Whole updates against PyTorch in float64: `tests/golden/update.py`, and for each preset `tests/golden/presets.py`,
//! made the values, and make them again.
#![cfg(feature = "program")]

use ndarray::{Array1, Array2};
use safetensors::SafeTensors;
use soft_actor_critic::config::{Alpha, Config};
use soft_actor_critic::nn::{Network, Real};
use soft_actor_critic::presets::{PRESETS, preset};
use soft_actor_critic::replay::Batch;
use soft_actor_critic::run::config_file::parse;
use soft_actor_critic::sac::{CpuLearner, Learner, Metric, Noise};
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::slice;
use std::str::FromStr;

const UPDATES: usize = 5;

/// The tensors of a file, flat, in the order they have there.
struct Golden {
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
    metadata: HashMap<String, String>,
}

impl Golden {
    fn read(bytes: &[u8]) -> Self {
        let file = SafeTensors::deserialize(bytes).expect("the file is committed whole");
        let (_, header) = SafeTensors::read_metadata(bytes).expect("the file is committed whole");
        let values = |data: &[u8]| {
            data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("it has eight bytes"))).collect()
        };
        Self {
            tensors: file.tensors().iter().map(|(n, t)| (n.clone(), (t.shape().to_vec(), values(t.data())))).collect(),
            metadata: header.metadata().clone().expect("the script writes metadata"),
        }
    }

    fn vector(&self, name: &str) -> &[f64] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("the script writes {name}")).1
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn matrix<T: Real>(&self, name: &str) -> Array2<T> {
        let (shape, values) = &self.tensors[name];
        let values = values.iter().map(|&x| T::of(x)).collect();
        Array2::from_shape_vec((shape[0], shape[1]), values).expect("a tensor has its shape")
    }

    fn number(&self, key: &str) -> f64 {
        self.metadata[key].parse().expect("the script writes numbers")
    }

    fn list<N: FromStr<Err: Debug>>(&self, key: &str) -> Vec<N> {
        self.metadata[key].split(',').map(|number| number.parse().expect("the script writes numbers")).collect()
    }

    /// The configuration that the script follows. That of a preset is the preset's own, but for sizes and bounds.
    fn config(&self) -> Config {
        let mut config = match self.metadata.get("preset") {
            Some(name) => {
                let text = preset(name).expect("there is such a preset");
                let config = parse(text, "pendulum").expect("a preset is valid");
                let (policy_hidden, critic_hidden) = (self.list("policy_hidden"), self.list("critic_hidden"));
                let depths = |policy: &[usize], critic: &[usize]| (policy.len(), critic.len());
                assert_eq!(
                    depths(&policy_hidden, &critic_hidden),
                    depths(&config.policy_hidden, &config.critic_hidden),
                    "{name}"
                );
                Config { policy_hidden, critic_hidden, ..config }
            }
            None => Config {
                policy_hidden: self.list("hidden"),
                critic_hidden: self.list("hidden"),
                policy_learning_rate: self.number("lr_policy"),
                critic_learning_rate: self.number("lr_critic"),
                temperature_learning_rate: self.number("lr_alpha"),
                initial_alpha: self.number("log_alpha").exp(),
                gamma: self.number("gamma"),
                tau: self.number("tau"),
                ..Config::default()
            },
        };
        config.batch_size = self.number("batch_size") as usize;
        if self.metadata.contains_key("log_std_min") {
            (config.log_std_min, config.log_std_max) = (self.number("log_std_min"), self.number("log_std_max"));
        }
        config
    }

    /// ½(high − low) of each action dimension.
    fn half_range(&self) -> Vec<f32> {
        match self.metadata.get("half_range") {
            Some(_) => self.list("half_range"),
            None => vec![1.0; self.number("action_dim") as usize],
        }
    }

    fn batch<T: Real>(&self, k: usize) -> (Batch<T>, Noise<T>) {
        let matrix = |name: &str| self.matrix(&format!("batch.{k}.{name}"));
        let vector =
            |name: &str| -> Array1<T> { self.vector(&format!("batch.{k}.{name}")).iter().map(|&x| T::of(x)).collect() };
        let batch = Batch {
            observation: matrix("observation"),
            action: matrix("action"),
            reward: vector("reward"),
            discount: vector("discount"),
            next_observation: matrix("next_observation"),
        };
        let noise = |name: &str| self.matrix(&format!("noise.{k}.{name}"));
        (batch, Noise { current: noise("current"), next: noise("next") })
    }
}

/// One of PyTorch's tensors, and where its elements, weights as `[out, in]`, lie in the flat vector that holds it.
struct Tensor {
    name: String,
    at: Vec<usize>,
}

/// PyTorch's tensors of our flat vector called `name`: of each layer weight and bias, the heads of a policy apart.
fn tensors<T: Real>(learner: &CpuLearner<T>, name: &str) -> Vec<Tensor> {
    let networks: &[Network] = match name {
        "log_alpha" => return vec![Tensor { name: name.into(), at: vec![0] }],
        "policy" => &learner.policy().networks,
        "value" | "target_value" => slice::from_ref(learner.value().expect("this learner has one")),
        _ => slice::from_ref(learner.critic()),
    };
    let (mut tensors, mut start) = (Vec::new(), 0);
    for (n, network) in networks.iter().enumerate() {
        let last = network.layers().len() - 1;
        for (l, layer) in network.layers().iter().enumerate() {
            let (all, head) = (0..layer.outputs, ["mean", "log_std"][n]);
            let actions = layer.outputs / 2;
            let parts = match (name, networks) {
                ("policy", [_]) if l == last => {
                    vec![("mean".into(), 0..actions), ("log_std".into(), actions..2 * actions)]
                }
                ("policy", [_]) => vec![(format!("trunk.{l}"), all)],
                ("policy", _) if l == last => vec![(head.into(), all)],
                ("policy", _) => vec![(format!("{head}_trunk.{l}"), all)],
                _ => vec![(l.to_string(), all)],
            };
            for (part, outputs) in parts {
                let weight =
                    |output| (0..layer.inputs).map(move |input| layer.weight.start + input * layer.outputs + output);
                let weight = outputs.clone().flat_map(weight).map(|at| start + at).collect();
                let bias = outputs.map(|output| start + layer.bias.start + output).collect();
                tensors.push(Tensor { name: format!("{name}.{part}.weight"), at: weight });
                tensors.push(Tensor { name: format!("{name}.{part}.bias"), at: bias });
            }
        }
        start += network.parameters();
    }
    tensors
}

/// The names of the vectors that the script has too: parameters and targets, and log α if it is tuned.
fn names<T: Real>(golden: &Golden, learner: &mut CpuLearner<T>) -> Vec<String> {
    let tuned = golden.config().alpha == Alpha::Auto;
    let names = learner.snapshot().vectors.into_iter().map(|(name, _)| name);
    names.filter(|name| !name.contains('.') && (tuned || name != "log_alpha")).collect()
}

/// The learner that the script starts from.
fn learner<T: Real>(golden: &Golden) -> CpuLearner<T> {
    let observation_size = golden.number("observation_dim") as usize;
    let mut learner = CpuLearner::<T>::new(&golden.config(), observation_size, &golden.half_range());
    for name in names(golden, &mut learner) {
        // Where the temperature starts, the configuration says.
        if name != "log_alpha" {
            set(golden, "init", &mut learner, &name);
        }
    }
    learner
}

/// Gives `learner` the vector called `name` that the script has at `stage`.
fn set<T: Real>(golden: &Golden, stage: &str, learner: &mut CpuLearner<T>, name: &str) {
    let mut snapshot = learner.snapshot();
    let vector = snapshot.get_mut(name).expect("every such learner has it");
    for tensor in tensors(learner, name) {
        let values = golden.vector(&format!("{stage}.{}", tensor.name));
        assert_eq!(values.len(), tensor.at.len(), "{}", tensor.name);
        for (at, &value) in tensor.at.into_iter().zip(values) {
            vector[at] = T::of(value);
        }
    }
    learner.restore(&snapshot).expect("the script's networks have these shapes");
}

/// The norm of the error over the norm of the tensor; none if they are the same, even if they are zero.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    if error == 0.0 { 0.0 } else { error / norm(&mut expected.iter().copied()) }
}

/// Compares one update, or one state, tensor by tensor; keeps the worst error, and what has been compared.
struct Comparison<'a> {
    golden: &'a Golden,
    tolerance: f64,
    worst: f64,
    compared: HashSet<String>,
}

impl<'a> Comparison<'a> {
    fn new(golden: &'a Golden, tolerance: f64) -> Self {
        Self { golden, tolerance, worst: 0.0, compared: HashSet::new() }
    }

    fn value(&mut self, name: &str, found: &[f64]) {
        let error = relative_error(found, self.golden.vector(name));
        assert!(error <= self.tolerance, "{name}: error {error:.1e} over its norm");
        self.worst = self.worst.max(error);
        self.compared.insert(name.into());
    }

    /// Compares the loss called `name` if the script has it at this update; else there must be none.
    fn loss(&mut self, k: usize, name: &str, found: f64) {
        let name = format!("loss.{k}.{name}");
        if self.golden.has(&name) {
            self.value(&name, &[found]);
        } else {
            // A sum that nothing was added to is zero, and so is its mean, or NaN over no updates.
            assert!(found == 0.0 || found.is_nan(), "{name}: there is none, but {found}");
        }
    }

    /// Compares the vector called `name`, or its gradient.
    fn vector<T: Real>(&mut self, stage: &str, learner: &CpuLearner<T>, name: &str, flat: &[T]) {
        let tensors = tensors(learner, name);
        assert_eq!(tensors.iter().map(|tensor| tensor.at.len()).sum::<usize>(), flat.len(), "{name}");
        for tensor in tensors {
            let found: Vec<_> = tensor.at.iter().map(|&at| flat[at].as_f64()).collect();
            self.value(&format!("{stage}.{}", tensor.name), &found);
        }
    }

    /// Compares the gradients that this update has left.
    fn gradients<T: Real>(&mut self, k: usize, learner: &mut CpuLearner<T>) {
        let stage = format!("grad.{k}");
        let gradients = learner.gradients().into_iter().map(|(name, gradient)| (name, gradient.to_vec()));
        for (name, gradient) in gradients.collect::<Vec<_>>() {
            let taken = match name {
                "policy" => self.golden.has(&format!("loss.{k}.policy")),
                "log_alpha" => self.golden.has(&format!("loss.{k}.temperature")),
                _ => true,
            };
            if taken {
                self.vector(&stage, learner, name, &gradient);
            }
        }
    }

    /// Makes sure that nothing that the script has been asked for is left out.
    fn is_complete(&self) {
        let results = ["target", "loss", "grad", "after"];
        let wanted = |name: &&String| name.split('.').next().is_some_and(|stage| results.contains(&stage));
        for name in self.golden.tensors.keys().filter(wanted) {
            assert!(self.compared.contains(name), "{name} has not been compared");
        }
    }
}

/// Makes the updates of a file in f64; gives the worst error.
fn five_updates(golden: &Golden) -> f64 {
    let mut learner = learner::<f64>(golden);
    let names = names(golden, &mut learner);
    let mut compare = Comparison::new(golden, 1e-9);
    for k in 0..UPDATES {
        let (batch, noise) = golden.batch(k);
        let before = learner.metrics();
        learner.update(&batch, &noise);
        compare.value(&format!("target.{k}"), learner.target());
        let metrics = learner.metrics();
        let policy_updates = metrics.policy_updates - before.policy_updates;
        assert_eq!(policy_updates, u64::from(golden.has(&format!("loss.{k}.policy"))), "update {k}");
        let losses = metrics.means_since(&before).expect("there was an update");
        compare.loss(k, "critic", losses[Metric::CriticLoss]);
        compare.loss(k, "value", losses[Metric::ValueLoss]);
        compare.loss(k, "policy", losses[Metric::PolicyLoss]);
        compare.loss(k, "temperature", losses[Metric::TemperatureLoss]);
        let mean_log_prob = golden.vector(&format!("log_prob.{k}")).iter().sum::<f64>() / batch.reward.len() as f64;
        assert!((losses[Metric::Entropy] + mean_log_prob).abs() < 1e-12);
        compare.gradients(k, &mut learner);
        if k == 0 || k == UPDATES - 1 {
            let (stage, snapshot) = (format!("after.{}", k + 1), learner.snapshot());
            for name in &names {
                compare.vector(&stage, &learner, name, snapshot.get(name).expect("it has been listed"));
            }
        }
    }
    compare.is_complete();
    compare.worst
}

fn files() -> [(&'static str, Golden); 2] {
    [
        ("obs 3, act 1", Golden::read(include_bytes!("golden/update-obs3-act1.safetensors"))),
        ("obs 17, act 6", Golden::read(include_bytes!("golden/update-obs17-act6.safetensors"))),
    ]
}

#[test]
fn five_updates_in_f64() {
    for (shape, golden) in files() {
        let worst = five_updates(&golden);
        println!("{shape}, f64, {UPDATES} updates: worst error {worst:.1e} of a tensor's norm");
    }
}

/// One test for each preset, which takes its file of each shape.
macro_rules! presets {
    ($($test:ident: $name:literal)*) => {
        $(
            #[test]
            fn $test() {
                let files: [&[u8]; 2] = [
                    include_bytes!(concat!("golden/preset-", $name, "-obs3-act1.safetensors")),
                    include_bytes!(concat!("golden/preset-", $name, "-obs5-act2.safetensors")),
                ];
                let worst = files.map(|bytes| {
                    let golden = Golden::read(bytes);
                    assert_eq!(golden.metadata["preset"], $name);
                    five_updates(&golden)
                });
                let worst = worst.into_iter().fold(0.0, f64::max);
                println!("{}, f64, {UPDATES} updates: worst error {worst:.1e} of a tensor's norm", $name);
            }
        )*

        #[test]
        fn every_preset_has_golden_values() {
            // The default is what the first files are of, and the preset for MuJoCo differs from it by numbers alone.
            let own = ["default", "mujoco"];
            let names: Vec<_> = PRESETS.iter().map(|&(name, _)| name).filter(|name| !own.contains(name)).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

presets! {
    twin_q_auto_in_f64: "twin-q-auto"
    v_net_auto_in_f64: "v-net-auto"
    twin_q_fixed_in_f64: "twin-q-fixed"
    v_net_fixed_in_f64: "v-net-fixed"
    split_policy_in_f64: "split-policy"
}

#[test]
fn gradients_in_f32_at_the_same_parameters() {
    for (shape, golden) in files() {
        let mut learner = learner::<f32>(&golden);
        let (batch, noise) = golden.batch(0);
        let alpha = learner.alpha();
        learner.sample_actions(&batch, &noise);
        learner.critic_loss(alpha, &batch);
        // The policy's gradient is taken at the critics that the first step has led to.
        for name in ["q1", "q2"] {
            set(&golden, "after.1", &mut learner, name);
        }
        learner.evaluate_actions(&batch);
        learner.policy_loss(alpha, &noise);
        learner.temperature_loss();
        let mut compare = Comparison::new(&golden, 1e-4);
        compare.gradients(0, &mut learner);
        println!("{shape}, f32: worst error of a gradient {:.1e} of its norm", compare.worst);
    }
}
