//! `--init-from`: a new run begins with the networks of another run, or with those of a file that PyTorch may have written.
//!
//! A file holds the policy by the names of [`policy_file`], and may hold the critics as `critic.0.0.weight`,
//! `critic.0.0.bias`, `critic.0.1.weight`, … and `critic.1.0.weight`, …, layer after layer, whose input is the observation
//! and then the action, and the value network as `value.0.weight`, …; all f32, weights `[out, in]`. Targets begin as copies.
//! Metadata are not needed. Where observations are normalized, their statistics come from there as well.

use super::checkpoint::{self, Seen};
use super::policy_file::{self, NamedLayer};
use super::tensors_file::{self, STATISTICS};
use super::{RunDirectory, config_file, typed};
use crate::actor::Actor;
use crate::config::{Alpha, Config, Heads};
use crate::env::Bounds;
use crate::error::Error;
use crate::normalizer::Normalizer;
use crate::replay::Replay;
use crate::sac::{NetworkSpec, Snapshot, networks};
use crate::train::Trainer;
use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a new run is to begin with.
pub struct InitFrom {
    path: PathBuf,
    source: Source,
}

enum Source {
    Run(Box<Other>),
    /// The bytes of a safetensors file.
    File(Vec<u8>),
}

/// Another run.
struct Other {
    environment: String,
    config: Config,
    bounds: Bounds,
    seen: Seen,
}

/// What a run has begun with.
pub struct Begun {
    /// For [`RunDirectory::create`].
    pub origin: String,
    /// What to tell the user about it, one line.
    pub note: String,
}

impl InitFrom {
    /// Reads a run directory, with its replay memory if that is wanted, or a file. A run may be in training meanwhile.
    ///
    /// # Errors
    /// If it cannot be read, if the run has no good checkpoint, or if a replay memory is wanted of a file.
    pub fn open(path: &Path, with_replay: bool) -> Result<Self, Error> {
        typed(|| {
            let shown = path.display();
            let source = if path.is_dir() {
                let (run, config) = RunDirectory::open(path)?;
                let (environment, actor) = policy_file::load(&run.file(policy_file::NAME))?;
                let seen = checkpoint::look(&run, &config, with_replay)?;
                // The first checkpoints did not have them.
                let bounds = seen.state.bounds.clone().unwrap_or_else(|| actor.bounds().clone());
                Source::Run(Box::new(Other { environment, config, bounds, seen }))
            } else {
                ensure!(path.is_file(), "{shown} is no file; give --init-from a run directory or a .safetensors file");
                let unreadable =
                    || format!("{shown} cannot be read; give --init-from a run directory or a .safetensors file");
                // The user may name it by a link.
                let bytes = path.canonicalize().and_then(|path| tensors_file::read(&path)).with_context(unreadable)?;
                ensure!(!with_replay, "{shown} has no replay memory; leave --with-replay out, or name a run directory");
                Source::File(bytes)
            };
            Ok(Self { path: path.to_path_buf(), source })
        })
    }

    /// Transitions that the memory of a run with `config` will begin with.
    pub fn preloaded(&self, config: &Config) -> u64 {
        match &self.source {
            Source::Run(other) => other.seen.replay.as_ref().map_or(0, |replay| {
                let stored = replay.len() as u64;
                stored.min(config.replay_rows_with(stored) as u64)
            }),
            Source::File(_) => 0,
        }
    }

    /// Puts it into a trainer on `environment` that has not made a step. Adam's moments and counts begin anew, and so does
    /// a temperature that is not tuned in both runs.
    ///
    /// # Errors
    /// If the shapes of a network, or what a replay memory is to be taken over for, do not fit; if a parameter is not finite.
    pub fn begin(self, trainer: &mut Trainer, environment: &str) -> Result<Begun, Error> {
        typed(|| {
            let preloaded = self.preloaded(trainer.config());
            let shown = self.path.display();
            let (mut state, actor) = (trainer.save()?, trainer.actor()?);
            let (o, a) = (actor.policy().observation_size(), actor.policy().action_size());
            let normalizes = trainer.config().normalize_observations;
            let (at, mut parts, memory, normalizer) = match self.source {
                Source::Run(other) => {
                    let step = other.seen.state.steps;
                    let parts = other.put(&mut state.learner, trainer.config(), environment, &actor);
                    let parts = parts.with_context(|| format!("{shown} does not fit this run"))?;
                    (format!("at its step {step}"), parts, other.seen.replay, other.seen.state.normalizer)
                }
                Source::File(bytes) => {
                    let parts = put_file(&bytes, &mut state.learner, trainer.config(), environment, &actor);
                    let (parts, normalizer) = parts.with_context(|| format!("{shown} does not fit this run"))?;
                    (format!("with the CRC-32 {:08x}", crc32fast::hash(&bytes)), parts, None, normalizer)
                }
            };
            let theirs = normalizer.as_ref().map(Normalizer::observation_size);
            match (normalizes, theirs) {
                (true, None) => bail!(
                    "{shown} does not fit this run: its networks see observations as they are; leave out \
                     --normalize-observations"
                ),
                (false, Some(_)) => bail!(
                    "{shown} does not fit this run: its networks see normalized observations; say \
                     --normalize-observations"
                ),
                _ => ensure!(
                    theirs.is_none_or(|theirs| theirs == o),
                    "{shown} does not fit this run: its statistics are of another number of observation dimensions than {o}"
                ),
            }
            parts.extend(normalizer.as_ref().map(|known| format!("statistics of {} observations", known.count())));
            state.normalizer = normalizer;
            let with_replay = if memory.is_some() { " --with-replay" } else { "" };
            let capacity = trainer.config().replay_rows_with(preloaded);
            let envs = trainer.config().envs;
            let replay = match memory {
                Some(memory) => memory.resized(capacity, envs)?,
                None => Replay::new(capacity, o, a)?.of_environments(envs),
            };
            state.preloaded = preloaded;
            trainer.restore(state, replay)?;
            Ok(Begun {
                // Escaped, so that it stays one line of TOML whatever the path is.
                origin: format!(
                    "begun with --init-from {:?}{with_replay}, {at}; without that, this is another run",
                    self.path
                ),
                note: format!("--init-from {shown}: {}", parts.join("; ")),
            })
        })
    }
}

impl Other {
    /// Puts the networks in place of those of `learner`, and says what there is to tell.
    fn put(
        &self,
        learner: &mut Snapshot<f32>,
        config: &Config,
        environment: &str,
        actor: &Actor,
    ) -> Result<Vec<String>> {
        let (theirs, seen) = (&self.config, &self.seen);
        let sizes = [actor.policy().observation_size(), actor.policy().action_size()];
        let [o, a] = seen.sizes;
        ensure!(
            seen.sizes == sizes,
            "it has {o} observation and {a} action dimensions, not {} and {}; name a run on {environment}",
            sizes[0],
            sizes[1]
        );
        let differing = config_file::differences(theirs, config)?;
        let ours = config_file::differences(config, theirs)?;
        let shapes = differing.iter().zip(&ours).filter(|((key, _), _)| SHAPES.contains(&key.as_str()));
        let shapes: Vec<_> = shapes.map(|((key, theirs), (_, ours))| format!("{key} = {theirs}, not {ours}")).collect();
        let is_width = |(key, _): &(String, _)| !SHAPES.contains(&key.as_str()) || WIDTHS.contains(&key.as_str());
        let widths = Some(&theirs.policy_hidden);
        let widths = widths.filter(|widths| **widths == theirs.critic_hidden && differing.iter().all(is_width));
        check_shapes(&shapes, widths)?;
        let tuned = [theirs, config].iter().all(|config| config.alpha == Alpha::Auto);
        for (name, values) in &mut learner.vectors {
            if name.contains(".adam_") || name == "log_alpha" && !tuned {
                continue;
            }
            let other = seen.state.learner.get(name).filter(|other| other.len() == values.len());
            let other = other.with_context(|| format!("its {name} does not have {} parameters", values.len()))?;
            ensure!(other.iter().all(|value| value.is_finite()), "its {name} has parameters that are not finite");
            values.copy_from_slice(other);
        }
        let mut parts = vec![format!("networks{} of its step {}", if tuned { " and α" } else { "" }, seen.state.steps)];
        parts.extend(seen.warning.clone());
        let keys: Vec<_> = differing.into_iter().map(|(key, _)| key).collect();
        if !keys.is_empty() {
            parts.push(format!("its configuration differs in {}", keys.join(", ")));
        }
        if self.environment != environment {
            parts.push(format!("it was trained on {}", self.environment));
        }
        if self.bounds != *actor.bounds() {
            let range = |bounds: &Bounds| format!("{:?} to {:?}", bounds.low(), bounds.high());
            let ranges = format!("its actions go from {}, not from {}", range(&self.bounds), range(actor.bounds()));
            ensure!(seen.replay.is_none(), "{ranges}; leave --with-replay out");
            parts.push(ranges);
        }
        if let Some(replay) = &seen.replay {
            let stored = replay.len();
            parts.push(format!("{} transitions", stored.min(config.replay_rows_with(stored as u64))));
        }
        Ok(parts)
    }
}

/// What decides the shapes of a run's networks in its environment; the widths come first.
const SHAPES: [&str; 4] = ["policy_hidden", "critic_hidden", "policy_heads", "bootstrap"];
/// Those that `--hidden` sets, both at once.
const WIDTHS: &[&str] = SHAPES.split_at(2).0;

/// Refuses networks of other `shapes`, all of which the error names, and how to have them: by an option, if `widths`
/// are all that is to be said.
fn check_shapes(shapes: &[String], widths: Option<&Vec<usize>>) -> Result<()> {
    let option = widths.filter(|widths| !widths.is_empty()).map(|widths| {
        let widths: Vec<_> = widths.iter().map(ToString::to_string).collect();
        format!("--hidden {}", widths.join(","))
    });
    let mend = option.unwrap_or_else(|| "in a TOML file given to --config".into());
    ensure!(shapes.is_empty(), "its networks have other shapes; give this run {} ({mend})", shapes.join(", and "));
    Ok(())
}

/// Puts the networks of a safetensors file in place of those of `learner`, and says what there is to tell.
fn put_file(
    bytes: &[u8],
    learner: &mut Snapshot<f32>,
    config: &Config,
    environment: &str,
    actor: &Actor,
) -> Result<(Vec<String>, Option<Normalizer>)> {
    let not_one = || "it is no safetensors file; write it by safetensors.torch.save_file";
    let file = SafeTensors::deserialize(bytes).with_context(not_one)?;
    let (_, header) = SafeTensors::read_metadata(bytes).with_context(not_one)?;
    let mut tensors = Tensors { unread: file.names().into_iter().collect(), file: &file };
    let (o, a) = (actor.policy().observation_size(), actor.policy().action_size());
    let specs = networks(config, o, a);

    let trunk = if config.policy_heads == Heads::Shared { "trunk" } else { "mean_trunk" };
    let policy_widths = widths(&file, trunk);
    let mut critic_widths = widths(&file, "critic.0");
    // Its last layer is no hidden one.
    critic_widths.as_mut().map(Vec::pop);
    let both = [(&policy_widths, &config.policy_hidden), (&critic_widths, &config.critic_hidden)];
    let shapes = WIDTHS.iter().zip(both).filter_map(|(key, (theirs, ours))| {
        let theirs = theirs.as_ref().filter(|theirs| *theirs != ours)?;
        Some(format!("{key} = {theirs:?}, not {ours:?}"))
    });
    let shapes: Vec<_> = shapes.collect();
    // Critics that begin anew may have any.
    let are_alike = critic_widths.is_none() || critic_widths == policy_widths;
    check_shapes(&shapes, policy_widths.as_ref().filter(|_| are_alike))?;

    let mut parts = vec!["policy".to_string()];
    let mut anew = Vec::new();
    tensors.read(&policy_file::policy_layers(actor.policy()), learner, "policy")?;
    if tensors.unread.iter().any(|name| name.starts_with("critic.")) {
        for spec in specs.iter().filter(|spec| spec.file_name.starts_with("critic.")) {
            tensors.read_network(spec, learner)?;
        }
        parts.push("critics".into());
    } else {
        anew.push("critics begin anew");
    }
    if learner.get("value").is_some() {
        if tensors.unread.iter().any(|name| name.starts_with("value.")) {
            for spec in specs.iter().filter(|spec| spec.file_name == "value") {
                tensors.read_network(spec, learner)?;
            }
            parts.push("value network".into());
        } else {
            anew.push("the value network begins anew");
        }
    }
    let normalizer = tensors_file::read_statistics(&file, "")?;
    tensors.unread.retain(|name| !STATISTICS.contains(name));
    if let Some(name) = tensors.unread.first() {
        let shape = file.tensor(name)?.shape().to_vec();
        return Err(anyhow!(
            "no network of this run has a tensor {name} (of shape {shape:?}); take it out, or change the configuration"
        ));
    }
    let mut parts = vec![parts.join(", ")];
    parts.extend(anew.into_iter().map(String::from));
    // What PyTorch writes says nothing but its own format.
    let said = header.metadata().clone().unwrap_or_default();
    let ours = policy_file::metadata(environment, actor);
    let contrary =
        |(key, ours): &(&&str, &String)| **key != "format" && said.get(**key).is_some_and(|said| said != *ours);
    let differing: Vec<_> = ours.iter().filter(contrary).map(|(key, _)| *key).collect();
    if !differing.is_empty() {
        parts.push(format!("its metadata differ in {}", differing.join(", ")));
    }
    Ok((parts, normalizer))
}

/// The widths of the layers `name.0`, `name.1` and so on; none if there are no such, or they do not fit each other.
fn widths(file: &SafeTensors, name: &str) -> Option<Vec<usize>> {
    let shape = |l: usize| {
        let weight = file.tensor(&format!("{name}.{l}.weight")).ok()?;
        <[usize; 2]>::try_from(weight.shape()).ok()
    };
    let shapes: Vec<_> = (0..).map_while(shape).collect();
    let fit = shapes.windows(2).all(|pair| pair[0][0] == pair[1][1]);
    (fit && !shapes.is_empty()).then(|| shapes.iter().map(|[outputs, _]| *outputs).collect())
}

/// The tensors of a file, and the names of those that have not been asked for.
struct Tensors<'a> {
    file: &'a SafeTensors<'a>,
    unread: BTreeSet<&'a str>,
}

impl Tensors<'_> {
    /// Puts `layers` in place of the vector `name` of a learner, and of its target, if there is one.
    fn read(&mut self, layers: &[NamedLayer], learner: &mut Snapshot<f32>, name: &str) -> Result<()> {
        let theta = learner.get_mut(name).with_context(|| format!("the learner has no {name}"))?;
        for layer in layers {
            let [outputs, inputs] = layer.shape();
            let weight = self.tensor(&format!("{}.weight", layer.name), &[outputs, inputs])?;
            let bias = self.tensor(&format!("{}.bias", layer.name), &[outputs])?;
            layer.put(theta, &weight, &bias);
        }
        let theta = theta.clone();
        if let Some(target) = learner.get_mut(&format!("target_{name}")) {
            *target = theta;
        }
        Ok(())
    }

    /// Puts the tensors of a network, by its name in the file, in place of its vectors.
    fn read_network(&mut self, spec: &NetworkSpec, learner: &mut Snapshot<f32>) -> Result<()> {
        self.read(&policy_file::network_layers(&spec.shape[0], spec.file_name), learner, spec.name)
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let must = format!("must be F32 of shape {shape:?}");
        let tensor = self.file.tensor(name).map_err(|_| anyhow!("it lacks the tensor {name}, which {must}"))?;
        let (found, dtype) = (tensor.shape(), tensor.dtype());
        ensure!(dtype == Dtype::F32 && found == shape, "its tensor {name} is {dtype} of shape {found:?}; it {must}");
        let values: Vec<_> = tensors_file::f32s(tensor.data()).collect();
        ensure!(
            values.iter().all(|value| value.is_finite()),
            "its tensor {name} has a value that is not finite; it {must}"
        );
        self.unread.remove(name);
        Ok(values)
    }
}
