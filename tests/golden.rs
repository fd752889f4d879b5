//! Whole updates against PyTorch in float64: `tests/golden/update.py` made the values, and makes them again.
#![cfg(feature = "program")]

use ndarray::{Array1, Array2, Axis, s};
use safetensors::SafeTensors;
use soft_actor_critic::config::Config;
use soft_actor_critic::nn::{Mlp, Real, mlp::weight};
use soft_actor_critic::replay::Batch;
use soft_actor_critic::sac::{CpuLearner, Learner, Noise};
use std::collections::HashMap;

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

    fn scalar(&self, name: &str) -> f64 {
        self.vector(name)[0]
    }

    fn matrix<T: Real>(&self, name: &str) -> Array2<T> {
        let (shape, values) = &self.tensors[name];
        let values = values.iter().map(|&x| T::of(x)).collect();
        Array2::from_shape_vec((shape[0], shape[1]), values).expect("a tensor has its shape")
    }

    fn number(&self, key: &str) -> f64 {
        self.metadata[key].parse().expect("the script writes numbers")
    }

    fn config(&self) -> Config {
        let hidden: Vec<usize> =
            self.metadata["hidden"].split(',').map(|width| width.parse().expect("it is a width")).collect();
        Config {
            policy_hidden: hidden.clone(),
            critic_hidden: hidden,
            log_std_min: self.number("log_std_min"),
            log_std_max: self.number("log_std_max"),
            policy_learning_rate: self.number("lr_policy"),
            critic_learning_rate: self.number("lr_critic"),
            temperature_learning_rate: self.number("lr_alpha"),
            gamma: self.number("gamma"),
            tau: self.number("tau"),
            batch_size: self.number("batch_size") as usize,
            ..Config::default()
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

/// Our flat vector called `name` as the tensors that PyTorch has: weights `[out, in]`, the policy's heads apart.
fn torch_tensors<T: Real>(name: &str, network: &Mlp, flat: &[T]) -> Vec<(String, Vec<f64>)> {
    let last = network.layers().len() - 1;
    let mut tensors = Vec::new();
    for (l, layer) in network.layers().iter().enumerate() {
        let (weight, bias) = (weight(layer, flat), &flat[layer.bias.clone()]);
        let actions = layer.outputs / 2;
        let parts = match name {
            "policy" if l == last => vec![("mean".into(), 0..actions), ("log_std".into(), actions..2 * actions)],
            "policy" => vec![(format!("trunk.{l}"), 0..layer.outputs)],
            _ => vec![(l.to_string(), 0..layer.outputs)],
        };
        for (part, columns) in parts {
            let of = |values: &mut dyn Iterator<Item = &T>| values.map(|x| x.as_f64()).collect();
            let transposed = weight.slice(s![.., columns.clone()]).reversed_axes();
            tensors.push((format!("{name}.{part}.weight"), of(&mut transposed.iter())));
            tensors.push((format!("{name}.{part}.bias"), of(&mut bias[columns].iter())));
        }
    }
    tensors
}

/// PyTorch's tensors of the network called `name`, at some stage of the script, as our flat vector.
fn flat<T: Real>(golden: &Golden, stage: &str, name: &str, network: &Mlp) -> Vec<T> {
    let mut flat = Vec::new();
    for l in 0..network.layers().len() {
        let parts = match name {
            "policy" if l + 1 == network.layers().len() => vec!["mean".into(), "log_std".into()],
            "policy" => vec![format!("trunk.{l}")],
            _ => vec![l.to_string()],
        };
        let tensor = |part: &String, kind: &str| format!("{stage}.{name}.{part}.{kind}");
        let weights: Vec<_> = parts.iter().map(|part| golden.matrix::<T>(&tensor(part, "weight"))).collect();
        let views: Vec<_> = weights.iter().map(|weight| weight.view()).collect();
        let weight = ndarray::concatenate(Axis(0), &views).expect("the heads have the same inputs");
        flat.extend(weight.t().iter().copied());
        let biases = parts.iter().flat_map(|part| golden.vector(&tensor(part, "bias")));
        flat.extend(biases.map(|&x| T::of(x)));
    }
    flat
}

/// The learner that the script starts from.
fn learner<T: Real>(golden: &Golden) -> CpuLearner<T> {
    let (o, a) = (golden.number("observation_dim") as usize, golden.number("action_dim") as usize);
    let mut learner = CpuLearner::<T>::new(&golden.config(), o, &vec![1.0; a]);
    let (policy, critic) = (learner.policy().networks[0].clone(), learner.critic().clone());
    set(&mut learner, "policy", flat(golden, "init", "policy", &policy));
    for name in ["q1", "q2", "target_q1", "target_q2"] {
        set(&mut learner, name, flat(golden, "init", name, &critic));
    }
    set(&mut learner, "log_alpha", vec![T::of(golden.scalar("init.log_alpha"))]);
    learner
}

fn set<T: Real>(learner: &mut CpuLearner<T>, name: &str, values: Vec<T>) {
    let mut snapshot = learner.snapshot();
    *snapshot.get_mut(name).expect("every learner has it") = values;
    learner.restore(&snapshot).expect("the script's networks have these shapes");
}

/// The norm of the error over the norm of the tensor.
fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(expected).map(|(f, e)| f - e)) / norm(&mut expected.iter().copied())
}

/// Compares one update, or one state, tensor by tensor; gives the worst error.
struct Comparison<'a> {
    golden: &'a Golden,
    tolerance: f64,
    worst: f64,
}

impl Comparison<'_> {
    fn value(&mut self, name: &str, found: &[f64]) {
        let error = relative_error(found, self.golden.vector(name));
        assert!(error <= self.tolerance, "{name}: error {error:.1e} over its norm");
        self.worst = self.worst.max(error);
    }

    fn network<T: Real>(&mut self, stage: &str, name: &str, network: &Mlp, flat: &[T]) {
        for (tensor, found) in torch_tensors(name, network, flat) {
            self.value(&format!("{stage}.{tensor}"), &found);
        }
    }

    fn gradients<T: Real>(&mut self, k: usize, learner: &CpuLearner<T>) {
        for (name, gradient) in learner.gradients() {
            match name {
                "log_alpha" => self.value(&format!("grad.{k}.log_alpha"), &[gradient[0].as_f64()]),
                "policy" => self.network(&format!("grad.{k}"), name, &learner.policy().networks[0], gradient),
                _ => self.network(&format!("grad.{k}"), name, learner.critic(), gradient),
            }
        }
    }
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
        let mut learner = learner::<f64>(&golden);
        let mut compare = Comparison { golden: &golden, tolerance: 1e-9, worst: 0.0 };
        for k in 0..UPDATES {
            let (batch, noise) = golden.batch(k);
            let alpha = learner.alpha();
            learner.sample_actions(&batch, &noise);
            learner.critic_loss(alpha, &batch);
            compare.value(&format!("target.{k}"), &learner.target().to_vec());
            let before = learner.metrics();
            learner.update(&batch, &noise);
            let losses = learner.metrics().means_since(&before).expect("there was an update");
            compare.value(&format!("loss.{k}.critic"), &[losses.critic_loss]);
            compare.value(&format!("loss.{k}.policy"), &[losses.policy_loss]);
            compare.value(&format!("loss.{k}.temperature"), &[losses.temperature_loss]);
            let mean_log_prob = golden.vector(&format!("log_prob.{k}")).iter().sum::<f64>() / batch.reward.len() as f64;
            assert!((losses.entropy + mean_log_prob).abs() < 1e-12);
            compare.gradients(k, &learner);
            if k == 0 || k == UPDATES - 1 {
                let (stage, snapshot) = (format!("after.{}", k + 1), learner.snapshot());
                let vector = |name| snapshot.get(name).expect("every learner has it");
                compare.network(&stage, "policy", &learner.policy().networks[0], vector("policy"));
                for name in ["q1", "q2", "target_q1", "target_q2"] {
                    compare.network(&stage, name, learner.critic(), vector(name));
                }
                compare.value(&format!("{stage}.log_alpha"), vector("log_alpha"));
            }
        }
        println!("{shape}, f64, {UPDATES} updates: worst error {:.1e} of a tensor's norm", compare.worst);
    }
}

#[test]
fn gradients_in_f32_at_the_same_parameters() {
    for (shape, golden) in files() {
        let mut learner = learner::<f32>(&golden);
        let (batch, noise) = golden.batch(0);
        let (alpha, critic) = (learner.alpha(), learner.critic().clone());
        learner.sample_actions(&batch, &noise);
        learner.critic_loss(alpha, &batch);
        // The policy's gradient is taken at the critics that the first step has led to.
        for name in ["q1", "q2"] {
            set(&mut learner, name, flat(&golden, "after.1", name, &critic));
        }
        learner.evaluate_actions(&batch);
        learner.policy_loss(alpha, &batch, &noise);
        learner.temperature_loss();
        let mut compare = Comparison { golden: &golden, tolerance: 1e-4, worst: 0.0 };
        compare.gradients(0, &learner);
        println!("{shape}, f32: worst error of a gradient {:.1e} of its norm", compare.worst);
    }
}
