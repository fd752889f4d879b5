//! A policy as a safetensors file that stands on its own.
//!
//! Tensors, all f32, weights `[out, in]` as in PyTorch: `trunk.0.weight`, `trunk.0.bias`, … for the hidden layers, then
//! `mean.weight`, `mean.bias`, `log_std.weight`, `log_std.bias`. If each head has a network of its own, its hidden layers
//! are `mean_trunk.0.weight`, …, and `log_std_trunk.0.weight`, … A policy of normalized observations has `observation.count`
//! `[1]`, `observation.mean` and `observation.variance` `[O]` besides, all f64, and its first layers take
//! (x − mean)/√(variance + 1e-8), clipped to ±10. The metadata names the environment, the activation, the
//! forms of the mean and of log σ, the bounds of log σ, and those of the action, so that
//! action = low + ½(tanh(mean) + 1)(high − low) can be computed anywhere.

use super::tensors_file::{self, STATISTICS, Tensor};
use super::{files, typed};
use crate::actor::Actor;
use crate::env::Bounds;
use crate::error::Error;
use crate::nn::{Activation, Dense, LogStd, Mean, Network, TanhGaussian};
use crate::sac::Policy;
use anyhow::{Context, Result, anyhow, bail, ensure};
use ndarray::{Array2, Axis, concatenate, s};
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// The name of the file in a run directory.
pub const NAME: &str = "policy.safetensors";
/// The name of the one whose evaluation was the best, where it is kept.
pub const BEST: &str = "best.safetensors";
const FORMAT: &str = "soft-actor-critic policy 1";

/// A layer as it stands in the file: weight `[out, in]` and bias `[out]`.
pub(crate) struct Tensors {
    pub name: String,
    pub weight: Array2<f32>,
    pub bias: Vec<f32>,
}

/// Writes the file, whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn save(path: &Path, environment: &str, actor: &Actor) -> Result<(), Error> {
    typed(|| {
        let mut tensors = Vec::new();
        for Tensors { name, weight, bias } in to_tensors(actor) {
            let values = weight.iter().copied().collect::<Vec<_>>();
            tensors.push(Tensor::f32(format!("{name}.weight"), weight.shape().to_vec(), &values));
            tensors.push(Tensor::f32(format!("{name}.bias"), vec![bias.len()], &bias));
        }
        tensors.extend(actor.normalizer().into_iter().flat_map(|normalizer| tensors_file::statistics("", normalizer)));
        let bytes = tensors_file::to_bytes(&tensors, &metadata(environment, actor))?;
        files::write(path, &bytes).with_context(|| format!("the policy {} cannot be written", path.display()))
    })
}

/// Reads a policy and the name of the environment it was trained in. A symbolic link is not followed, because in a run it may
/// lead out.
///
/// # Errors
/// If the file cannot be read, is damaged, or is no policy of this program.
pub fn load(path: &Path) -> Result<(String, Actor), Error> {
    read(path).map(|(environment, actor, _)| (environment, actor))
}

/// [`load`], and the bytes of the file.
///
/// # Errors
/// As from [`load`].
pub fn read(path: &Path) -> Result<(String, Actor, Vec<u8>), Error> {
    typed(|| {
        let shown = path.display();
        let bytes = tensors_file::read(path)
            .with_context(|| format!("the policy {shown} cannot be read; give a run directory or a policy file"))?;
        let (environment, actor) = parse(&bytes).with_context(|| {
            format!("{shown} is no policy that `sac` has written whole; train again, or give another file")
        })?;
        Ok((environment, actor, bytes))
    })
}

fn parse(bytes: &[u8]) -> Result<(String, Actor)> {
    let (file, metadata) = tensors_file::parse(bytes, FORMAT)?;
    let text = |key: &str| metadata.get(key).map(String::as_str).with_context(|| format!("its metadata lack {key}"));
    let activation = match text("activation")? {
        "relu" => Activation::Relu,
        "tanh" => Activation::Tanh,
        other => bail!("its activation {other:?} is unknown"),
    };
    let (min, max): (f64, f64) = (text("log_std_min")?.parse()?, text("log_std_max")?.parse()?);
    ensure!(min.abs() <= 1e30 && max.abs() <= 1e30 && min < max, "its bounds of log_std, {min} and {max}, are none");
    let log_std = match text("log_std")? {
        "clamp" => LogStd::Clamp { min, max },
        "tanh" => LogStd::Tanh { min, max },
        other => bail!("its form of log_std {other:?} is unknown"),
    };
    // The first policies had no other mean.
    let mean = match text("mean").unwrap_or("raw") {
        "raw" => Mean::Raw,
        "tanh" => Mean::Tanh,
        other => bail!("its form of the mean {other:?} is unknown"),
    };
    let bounds = Bounds::new(split(text("action_low")?)?, split(text("action_high")?)?).map_err(|e| anyhow!(e))?;
    let (networks, theta) = from_tensors(&file, activation)?;
    let policy = Policy { networks, distribution: TanhGaussian { mean, log_std } };
    ensure!(policy.action_size() == bounds.dimensions(), "its heads and its action bounds differ in length");
    ensure!(theta.iter().all(|value| value.is_finite()), "it has parameters that are not finite");
    let normalizer = tensors_file::read_statistics(&file, "")?;
    let sizes = normalizer.iter().all(|normalizer| normalizer.observation_size() == policy.observation_size());
    ensure!(sizes, "its statistics are of another number of observation dimensions than it takes");
    Ok((text("environment")?.to_string(), Actor::new(policy, theta, bounds).with_normalizer(normalizer)))
}

/// What a file says of a policy besides its tensors.
pub(crate) fn metadata(environment: &str, actor: &Actor) -> BTreeMap<&'static str, String> {
    let policy = actor.policy();
    let activation = match policy.networks[0].activation() {
        Activation::Relu => "relu",
        Activation::Tanh => "tanh",
    };
    let (log_std, min, max) = match policy.distribution.log_std {
        LogStd::Clamp { min, max } => ("clamp", min, max),
        LogStd::Tanh { min, max } => ("tanh", min, max),
    };
    let mean = match policy.distribution.mean {
        Mean::Raw => "raw",
        Mean::Tanh => "tanh",
    };
    let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    BTreeMap::from([
        ("format", FORMAT.to_string()),
        ("environment", environment.to_string()),
        ("activation", activation.to_string()),
        ("mean", mean.to_string()),
        ("log_std", log_std.to_string()),
        ("log_std_min", min.to_string()),
        ("log_std_max", max.to_string()),
        ("action_low", list(actor.bounds().low())),
        ("action_high", list(actor.bounds().high())),
    ])
}

fn split(list: &str) -> Result<Vec<f32>> {
    list.split(',').map(|value| value.parse().with_context(|| format!("{value:?} is no number"))).collect()
}

/// A layer, or a head of the last one, by its name in files.
pub(crate) struct NamedLayer {
    pub name: String,
    /// Where its parameters lie in a flat vector, and which of its outputs are meant.
    layer: Dense,
    columns: Range<usize>,
}

impl NamedLayer {
    /// The shape of its weight in a file, `[out, in]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.columns.len(), self.layer.inputs]
    }

    /// As it stands in a file.
    fn tensors(self, theta: &[f32]) -> Tensors {
        let weight = self.layer.weight_of(theta).slice(s![.., self.columns.clone()]).t().to_owned();
        Tensors { name: self.name, weight, bias: theta[self.layer.bias][self.columns].to_vec() }
    }

    /// Puts `weight` `[out, in]` and `bias` `[out]` of a file into a flat vector.
    pub fn put(&self, theta: &mut [f32], weight: &[f32], bias: &[f32]) {
        let Self { layer, columns, .. } = self;
        for (column, weight) in columns.clone().zip(weight.chunks_exact(layer.inputs)) {
            let to = theta[layer.weight.clone()].iter_mut().skip(column).step_by(layer.outputs);
            to.zip(weight).for_each(|(to, &weight)| *to = weight);
        }
        theta[layer.bias.clone()][columns.clone()].copy_from_slice(bias);
    }
}

/// The layers of a network whose parameters begin at `start`: `trunk.0` and on, and `heads` for the last one.
fn layers(network: &Network, start: usize, trunk: &str, heads: &[(&str, Range<usize>)]) -> Vec<NamedLayer> {
    let shift = |range: &Range<usize>| start + range.start..start + range.end;
    let named = |name: String, layer: &Dense, columns| {
        let layer = Dense { weight: shift(&layer.weight), bias: shift(&layer.bias), ..*layer };
        NamedLayer { name, layer, columns }
    };
    let (last, hidden) = network.layers().split_last().expect("a network has a layer");
    let hidden = hidden.iter().enumerate().map(|(l, layer)| named(format!("{trunk}.{l}"), layer, 0..layer.outputs));
    hidden.chain(heads.iter().map(|(head, columns)| named(head.to_string(), last, columns.clone()))).collect()
}

/// The layers of a network with one output head: `name.0` and on.
pub(crate) fn network_layers(network: &Network, name: &str) -> Vec<NamedLayer> {
    let last = format!("{name}.{}", network.layers().len() - 1);
    layers(network, 0, name, &[(&last, 0..network.outputs())])
}

/// The layers of a policy. The last layer of a network with both heads is two.
pub(crate) fn policy_layers(policy: &Policy) -> Vec<NamedLayer> {
    let actions = policy.action_size();
    match policy.networks.as_slice() {
        [both] => layers(both, 0, "trunk", &[("mean", 0..actions), ("log_std", actions..2 * actions)]),
        networks => {
            let starts = [0, networks[0].parameters()];
            let named = networks.iter().zip(starts).zip([("mean_trunk", "mean"), ("log_std_trunk", "log_std")]);
            named.flat_map(|((net, start), (trunk, head))| layers(net, start, trunk, &[(head, 0..actions)])).collect()
        }
    }
}

/// The layers by their names in the file.
pub(crate) fn to_tensors(actor: &Actor) -> Vec<Tensors> {
    policy_layers(actor.policy()).into_iter().map(|layer| layer.tensors(actor.theta())).collect()
}

/// The networks and their flat parameters, from the layers by their names.
fn from_tensors(file: &SafeTensors, activation: Activation) -> Result<(Vec<Network>, Vec<f32>)> {
    let tensor = |name: &str, dimensions: usize| -> Result<(Vec<usize>, Vec<f32>)> {
        let tensor = file.tensor(name).map_err(|_| anyhow!("it lacks the tensor {name}"))?;
        let shape = tensor.shape().to_vec();
        ensure!(
            tensor.dtype() == Dtype::F32 && shape.len() == dimensions,
            "its tensor {name} has another type or rank"
        );
        Ok((shape, tensors_file::f32s(tensor.data()).collect()))
    };
    let layer = |name: &str| -> Result<(Array2<f32>, Vec<f32>)> {
        let (shape, weight) = tensor(&format!("{name}.weight"), 2)?;
        let (_, bias) = tensor(&format!("{name}.bias"), 1)?;
        ensure!(bias.len() == shape[0] && !weight.is_empty(), "the weight and bias of {name} do not fit each other");
        Ok((Array2::from_shape_vec((shape[0], shape[1]), weight)?, bias))
    };
    let depth = |trunk: &str| (0..).take_while(|l| file.tensor(&format!("{trunk}.{l}.weight")).is_ok()).count();
    let network = |trunk: &str, head: (Array2<f32>, Vec<f32>)| -> Result<(Network, Vec<f32>)> {
        let mut layers = (0..depth(trunk)).map(|l| layer(&format!("{trunk}.{l}"))).collect::<Result<Vec<_>>>()?;
        layers.push(head);
        let fit = layers.windows(2).all(|pair| pair[0].0.nrows() == pair[1].0.ncols());
        ensure!(fit, "its layers do not fit each other");
        let widths: Vec<_> = layers.iter().map(|(weight, _)| weight.nrows()).collect();
        let (outputs, hidden) = widths.split_last().expect("the head is a layer");
        let network = Network::new(layers[0].0.ncols(), hidden, *outputs, activation);
        let theta = layers.iter().flat_map(|(weight, bias)| weight.t().iter().chain(bias).copied().collect::<Vec<_>>());
        Ok((network, theta.collect()))
    };
    let ((mean, mean_bias), (log_std, log_std_bias)) = (layer("mean")?, layer("log_std")?);
    let separate = depth("mean_trunk") + depth("log_std_trunk");
    let statistics = STATISTICS.iter().filter(|name| file.tensor(name).is_ok()).count();
    let expected = 2 * (if separate > 0 { separate } else { depth("trunk") }) + 4 + statistics;
    ensure!(file.len() == expected, "it holds tensors that a policy does not have");
    ensure!(mean_bias.len() == log_std_bias.len(), "its two heads differ in length");
    if separate > 0 {
        let (mean, theta) = network("mean_trunk", (mean, mean_bias))?;
        let (log_std, log_std_theta) = network("log_std_trunk", (log_std, log_std_bias))?;
        ensure!(mean.inputs() == log_std.inputs(), "its two networks take different observations");
        return Ok((vec![mean, log_std], [theta, log_std_theta].concat()));
    }
    ensure!(mean.dim() == log_std.dim(), "its two heads differ in shape");
    let heads = (concatenate![Axis(0), mean, log_std], [mean_bias, log_std_bias].concat());
    let (network, theta) = network("trunk", heads)?;
    Ok((vec![network], theta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Heads, LogStdForm};
    use crate::normalizer::Normalizer;
    use crate::rng::{Philox, Stream};
    use std::fs;

    fn actor(hidden: &[usize], policy_heads: Heads, mean: Mean) -> Actor {
        let policy_hidden = hidden.to_vec();
        let config = Config { policy_hidden, policy_heads, mean, log_std: LogStdForm::Tanh, ..Config::default() };
        let policy = Policy::new(&config, 5, 2);
        let theta = policy.initial(&config, &mut Philox::new(1, Stream::Init, 0));
        Actor::new(policy, theta, Bounds::new(vec![-1.0, 0.1], vec![2.0, 0.3]).expect("they are valid"))
    }

    fn plain(hidden: &[usize]) -> Actor {
        actor(hidden, Heads::Shared, Mean::Raw)
    }

    fn bytes(actor: &Actor, name: &str) -> Vec<u8> {
        let path = std::env::temp_dir().join(format!("soft-actor-critic-{}-{name}", std::process::id()));
        save(&path, "pendulum", actor).expect("the temporary directory can be written");
        let bytes = fs::read(&path).expect("it was just written");
        fs::remove_file(&path).expect("it was just written");
        bytes
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let shapes = [&[][..], &[7], &[4, 3, 6]];
        let forms = [(Heads::Shared, Mean::Raw), (Heads::Shared, Mean::Tanh), (Heads::Separate, Mean::Raw)];
        for (hidden, (heads, mean)) in shapes.iter().flat_map(|shape| forms.map(|form| (shape, form))) {
            if hidden.is_empty() && heads == Heads::Separate {
                // Without hidden layers, two networks and one with two heads are the same.
                continue;
            }
            let normalizer = Normalizer::from_statistics(3.0, vec![0.1; 5], vec![0.7; 5]).expect("they are statistics");
            let saved = actor(hidden, heads, mean).with_normalizer((mean == Mean::Raw).then_some(normalizer));
            let (environment, loaded) = parse(&bytes(&saved, "round-trip")).expect("it was just written");
            assert_eq!(environment, "pendulum");
            assert_eq!((loaded.theta(), loaded.bounds()), (saved.theta(), saved.bounds()));
            assert_eq!(loaded.normalizer(), saved.normalizer());
            let observation = [0.1, -0.2, 0.3, 1.0, 5.0];
            let act = |mut actor: Actor| {
                let mut action = [0.0; 2];
                actor.act(&observation, Some(&[0.5, -0.5]), &mut action);
                action
            };
            assert_eq!(act(loaded), act(saved));
        }
    }

    /// Statistics that are in part, of another shape, or none.
    #[test]
    fn statistics_that_cannot_be_are_refused() {
        let saved = plain(&[3]);
        let parse = |tensors: &[(&str, &[f64])]| {
            let bytes = bytes(&saved, "statistics");
            let file = SafeTensors::deserialize(&bytes).expect("it was just written");
            let mut all: Vec<_> =
                file.tensors().into_iter().map(|(n, t)| Tensor::f32(n, t.shape().to_vec(), &f32s(&t))).collect();
            all.extend(tensors.iter().map(|(name, values)| Tensor::f64(name.to_string(), values)));
            parse(&tensors_file::to_bytes(&all, &metadata("pendulum", &saved)).expect("they fit"))
        };
        fn f32s(tensor: &safetensors::tensor::TensorView) -> Vec<f32> {
            tensors_file::f32s(tensor.data()).collect()
        }
        let [count, mean, variance] = STATISTICS;
        let (_, loaded) =
            parse(&[(count, &[2.0]), (mean, &[0.0; 5]), (variance, &[1.0; 5])]).expect("these are statistics");
        assert_eq!(loaded.normalizer().map(Normalizer::count), Some(2.0));
        type Case<'a> = (&'a [(&'a str, &'a [f64])], &'a str);
        let cases: [Case; 5] = [
            (&[(count, &[2.0]), (mean, &[0.0; 5])], "lacks the tensor observation.variance"),
            (&[(count, &[2.0; 2]), (mean, &[0.0; 5]), (variance, &[1.0; 5])], "count is not a single number"),
            (&[(count, &[2.0]), (mean, &[0.0; 5]), (variance, &[1.0; 4])], "5 means and 4 variances"),
            (&[(count, &[2.0]), (mean, &[0.0; 4]), (variance, &[1.0; 4])], "another number of observation dimensions"),
            (&[(count, &[2.0]), (mean, &[0.0; 5]), (variance, &[-1.0; 5])], "dimension 0 cannot have"),
        ];
        for (tensors, expected) in cases {
            let message = format!("{:#}", parse(tensors).expect_err(expected));
            assert!(message.contains(expected) && !message.contains('\n'), "{message}");
        }
    }

    /// A file from before the form of the mean was written has the only one that there was.
    #[test]
    fn a_file_without_the_form_of_the_mean_is_read() {
        let saved = plain(&[3]);
        let mut metadata = metadata("pendulum", &saved);
        assert!(metadata.remove("mean").is_some());
        let old = tensors_file::with_metadata(&bytes(&saved, "old"), &metadata).expect("it was just written");
        let (_, loaded) = parse(&old).expect("it is a policy");
        assert_eq!((loaded.policy().distribution.mean, loaded.theta()), (Mean::Raw, saved.theta()));
    }

    #[test]
    fn the_same_policy_gives_the_same_bytes() {
        assert_eq!(bytes(&plain(&[8]), "first"), bytes(&plain(&[8]), "second"));
    }

    /// Every prefix, and every file with one byte of its header changed, is refused or read; none makes a panic.
    #[test]
    fn damaged_files_are_refused() {
        let whole = bytes(&plain(&[3]), "damaged");
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "a prefix of {length} bytes was read");
        }
        let header = u64::from_le_bytes(whole[..8].try_into().expect("it has eight bytes")) as usize;
        for at in 0..8 + header {
            for change in [1, 0x20, 0x80] {
                let mut damaged = whole.clone();
                damaged[at] ^= change;
                let _ = parse(&damaged);
            }
        }
        let mut infinite = whole.clone();
        let end = infinite.len();
        infinite[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert!(parse(&infinite).is_err());
    }

    #[test]
    fn a_policy_of_no_observation_is_refused() {
        let heads = ["mean", "log_std"].into_iter().flat_map(|head| {
            let weight = Tensor::f32(format!("{head}.weight"), vec![2, 0], &[]);
            [weight, Tensor::f32(format!("{head}.bias"), vec![2], &[0.0; 2])]
        });
        let metadata = metadata("pendulum", &plain(&[]));
        let empty = tensors_file::to_bytes(&heads.collect::<Vec<_>>(), &metadata).expect("the names differ");
        let message = parse(&empty).expect_err("it looks at nothing").to_string();
        assert!(message.contains("the weight and bias of mean do not fit each other"), "{message}");
    }

    #[test]
    fn a_name_of_two_lines_is_told_in_one() {
        let header = r#"{"a\nb":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        let message = parse(&bytes).expect_err("it has no such data").to_string();
        assert!(message.contains("`a b`"), "{message}");
    }
}
