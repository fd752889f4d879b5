//! Checkpoints: everything that a run depends on, so that it goes on after any interruption as if there had been none.
//!
//! The folder `checkpoint` of a run holds
//!
//! | file | content |
//! |---|---|
//! | `manifest` | one line of JSON that names the files of the last checkpoint and of the one before, with lengths and checksums, and a line with its own checksum; replaced whole |
//! | `state-STEP.safetensors` | networks, targets, moments, counts and sums of the learner, the bounds of actions, each environment and its episode; if there are such, the statistics of observations and the policy of the best evaluation |
//! | `state-STEP-before-evaluation.safetensors` | the same if the evaluation at that step is still to be made, and the episodes that ended with that step, which are written to `metrics.csv` with it |
//! | `replay-N.bin` | transitions N·65 536 and on, as [`Replay::write_transition`] writes them, in little-endian `f32`; only ever added to. Those that the memory began with come first |
//! | `lock` | held by the process that trains |
//!
//! A checkpoint first adds to the replay files, then writes a new state file, and then replaces the manifest: whenever the
//! process dies, the manifest names files that are whole. Random numbers need no place in it, because they depend on
//! the seed and on counters alone.
//!
//! A run that is interrupted in an evaluation, or whose evaluation fails, is saved as it was before that evaluation, and begins
//! it again when it is resumed. Against a process that is killed meanwhile, `sac` makes such a checkpoint before each
//! evaluation that may take longer than a second: the first of a process, and those that do at the pace of the last one. It
//! costs no more than any other: the replay files get what is new.

use super::checked::Checked;
use super::metrics::{MetricsFiles, Position};
use super::tensors_file::{self, Tensor};
use super::{RunDirectory, config_file, files, typed};
use crate::config::Config;
use crate::env::{Bounds, Info};
use crate::error::Error;
use crate::replay::Replay;
use crate::sac::{Metric, Metrics, Policy, Snapshot};
use crate::train::{Best, EnvState, Episode, Trainer, TrainerState};
use anyhow::{Context, Result, anyhow, ensure};
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) const FOLDER: &str = "checkpoint";
pub(super) const MANIFEST: &str = "manifest";
pub(super) const LOCK: &str = "lock";
const FORMAT: &str = "soft-actor-critic checkpoint 1";
/// What the name of a state file ends with if the evaluation is still to be made.
const BEFORE_EVALUATION: &str = "-before-evaluation.safetensors";
/// Transitions in a replay file.
const SEGMENT: usize = 1 << 16;
/// The most bytes of a manifest that are read.
const MOST_OF_MANIFEST: u64 = 1 << 24;
/// The tensors of the action bounds, `[A]`.
const BOUNDS: [&str; 2] = ["action.low", "action.high"];

/// The files of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    step: u64,
    /// Whether the evaluation at that step is still to be made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    before_evaluation: bool,
    state: Checked,
    /// By the numbers of the replay files.
    replay: BTreeMap<usize, Checked>,
    /// `metrics.csv` at that step.
    metrics: Checked,
}

impl Entry {
    /// The step, and whether the evaluation there is still to be made.
    fn place(&self) -> (u64, bool) {
        (self.step, self.before_evaluation)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: String,
    current: Entry,
    previous: Option<Entry>,
}

/// The checkpoints of a run, one after another.
pub struct Checkpoints {
    folder: PathBuf,
    environment: String,
    /// Where it is trained.
    device: String,
    every: u64,
    manifest: Option<Manifest>,
    /// Transitions in the replay files, and those files.
    logged: usize,
    replay: BTreeMap<usize, Checked>,
    _lock: File,
}

/// What a checkpoint holds.
pub struct Loaded {
    /// For [`Trainer::restore`].
    pub state: TrainerState,
    /// For [`Trainer::restore`], too.
    pub replay: Replay,
    /// For [`MetricsFiles::reopen`].
    pub metrics: Position,
    /// Where the run was trained last.
    pub device: String,
    /// What is to be told: why it is not the last checkpoint.
    pub warning: Option<String>,
}

impl Checkpoints {
    /// For a new run, which is trained on `device`.
    ///
    /// # Errors
    /// If the folder cannot be made, or another process trains this run.
    pub fn create(run: &RunDirectory, device: &str, every: u64) -> Result<Self, Error> {
        typed(|| {
            let lock = run.take_lock().map_or_else(|| lock_run(run.path()), Ok)?;
            Ok(Self {
                _lock: lock,
                folder: run.file(FOLDER),
                environment: run.environment().to_string(),
                device: device.to_string(),
                every,
                manifest: None,
                logged: 0,
                replay: BTreeMap::new(),
            })
        })
    }

    /// The last good checkpoint of a run, and what is to follow it. Nothing is changed on the disk but the lock.
    ///
    /// `config` may have more [`steps`](Config::steps) than the run was begun with, to go on after its end. The trainer
    /// is then made with it, too, and [`RunDirectory::replace_config`] keeps it for the next time.
    ///
    /// # Errors
    /// If there is none, if nothing of it is whole, if it is of another configuration than `config` of the run, or that
    /// is invalid, or if another process trains this run.
    pub fn open(run: &RunDirectory, config: &Config) -> Result<(Self, Loaded), Error> {
        typed(|| {
            let folder = folder_of(run.path())?;
            let path = folder.join(MANIFEST);
            let shown = run.path().display();
            // Another process may just be about to write the first.
            let lock = files::is_directory(&folder).then(|| lock(&folder, "this run")).transpose()?;
            let lock = lock.filter(|_| files::is_there(&path)).with_context(|| {
                format!("{shown} has no checkpoint; train anew with --config {shown}/config.toml --out elsewhere")
            })?;
            let manifest = read_manifest(&path)?;
            let load = |entry: &Entry| {
                let state = load_state(run, entry, config)?;
                let replay = load_replay(&folder, entry, &state, config)?;
                Ok((state, replay))
            };
            let (entry, (State { state, position, device, .. }, replay), problem) =
                last_good(&manifest, load).with_context(|| format!("{shown} has no checkpoint that can be resumed"))?;
            // A table that does not fit is no damage to the checkpoint, and can be put back.
            let metrics = position.check(&run.file(MetricsFiles::METRICS));
            metrics.context("the checkpoint goes on from another metrics.csv; put that back")?;
            let warning = problem.map(|problem| format!("{problem}; going on from step {}", entry.step));
            let checkpoints = Self {
                _lock: lock,
                folder,
                environment: run.environment().to_string(),
                device: device.clone(),
                every: config.checkpoint_every,
                // On the disk all stays as it is until the next one is written.
                manifest: Some(Manifest {
                    current: entry.clone(),
                    previous: manifest.previous.clone().filter(|previous| previous != entry),
                    format: FORMAT.into(),
                }),
                logged: replay.pushed(),
                replay: entry.replay.clone(),
            };
            Ok((checkpoints, Loaded { state, replay, metrics: position, device, warning }))
        })
    }

    /// Notes that training goes on there.
    pub fn set_device(&mut self, device: &str) {
        self.device = device.to_string();
    }

    /// Whether one is to be made after this step of training.
    pub fn is_due(&self, trainer: &Trainer) -> bool {
        // Every transition goes from the replay memory to the files before it is overwritten.
        let added = trainer.replay().pushed() - self.logged;
        let evaluated = self.manifest.as_ref().is_some_and(|Manifest { current, .. }| {
            current.before_evaluation && current.step == trainer.steps() && !trainer.evaluation_is_due()
        });
        evaluated || self.every > 0 && trainer.has_reached(self.every) || added == trainer.replay().capacity()
    }

    /// How many steps there are until one [is due](Self::is_due).
    pub fn steps_until_due(&self, trainer: &Trainer) -> u64 {
        let added = trainer.replay().pushed() - self.logged;
        let room = (trainer.replay().capacity() - added) as u64;
        if self.every > 0 { room.min(self.every - trainer.steps() % self.every) } else { room }
    }

    /// Makes one, between two steps of training, or between a step and its evaluation.
    ///
    /// # Errors
    /// If a file cannot be written; the checkpoint before stays. If the learner's device fails.
    pub fn save(&mut self, trainer: &mut Trainer, metrics: &mut MetricsFiles) -> Result<(), Error> {
        typed(|| {
            let now = (trainer.steps(), trainer.evaluation_is_due());
            if self.manifest.as_ref().is_some_and(|Manifest { current, .. }| current.place() == now) {
                return Ok(());
            }
            self.save_anew(trainer, metrics)
                .with_context(|| format!("the checkpoint in {} cannot be written", self.folder.display()))
        })
    }

    fn save_anew(&mut self, trainer: &mut Trainer, metrics: &mut MetricsFiles) -> Result<()> {
        let state = trainer.save()?;
        let actions = trainer.replay().transition_size() - 2 - 2 * state.envs[0].observation.len();
        let cuts = trainer.replay().cuts();
        let position = metrics.position();
        metrics.sync()?;
        self.add_transitions(trainer.replay())?;
        // Those of which the replay memory still holds something.
        let capacity = trainer.replay().capacity();
        self.replay.retain(|&number, _| {
            number.saturating_add(1).saturating_mul(SEGMENT) > self.logged.saturating_sub(capacity)
        });

        let config = config_file::to_toml(&self.environment, trainer.config())?;
        let bytes = state_to_bytes(&state, &cuts, &position, actions, &config, &self.device)?;
        let (step, before_evaluation) = (state.steps, state.before_evaluation.is_some());
        let mut file = files::create(&state_file(&self.folder, (step, before_evaluation)))?;
        file.write_all(&bytes)?;
        file.sync_all()?;

        let entry = Entry {
            step,
            before_evaluation,
            state: Checked::of(&bytes),
            replay: self.replay.clone(),
            metrics: position.metrics,
        };
        let previous = self.manifest.as_ref().map(|manifest| manifest.current.clone());
        // What has just been made must be on the disk before it is named.
        files::sync_directory(&self.folder)?;
        self.put(Manifest { current: entry, previous, format: FORMAT.into() })
    }

    /// After the last one: only that stays.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn finish(&mut self) -> Result<(), Error> {
        typed(|| {
            let Some(manifest) = self.manifest.clone() else { return Ok(()) };
            self.put(Manifest { previous: None, ..manifest })
                .with_context(|| format!("the checkpoint in {} cannot be written", self.folder.display()))
        })
    }

    /// Adds to the files what the replay memory has got since the last time.
    fn add_transitions(&mut self, replay: &Replay) -> Result<()> {
        let width = replay.transition_size();
        let mut transition = vec![0.0; width];
        while self.logged < replay.pushed() {
            let number = self.logged / SEGMENT;
            let end = replay.pushed().min((number + 1) * SEGMENT);
            let mut bytes = Vec::with_capacity((end - self.logged) * width * 4);
            for t in self.logged..end {
                replay.write_transition(t % replay.capacity(), &mut transition);
                bytes.extend(transition.iter().flat_map(|value| value.to_le_bytes()));
            }
            let known = self.replay.get(&number).copied().unwrap_or(Checked::of(&[]));
            // What a failure has left behind the end is not part of it.
            let mut file = files::append(&self.replay_file(number), known.bytes)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            self.replay.insert(number, known.and(&bytes));
            self.logged = end;
        }
        Ok(())
    }

    /// Puts a manifest in place of the last, and takes away what it no longer names.
    fn put(&mut self, manifest: Manifest) -> Result<()> {
        let line = serde_json::to_string(&manifest)?;
        let text = format!("{line}\n{:08x}\n", crc32fast::hash(line.as_bytes()));
        files::write(&self.folder.join(MANIFEST), text.as_bytes())?;
        self.manifest = Some(manifest);
        self.remove_the_rest();
        Ok(())
    }

    /// Takes away the state and replay files that the manifest does not name. One that cannot be taken away does no harm.
    fn remove_the_rest(&self) {
        let entries = self.manifest.iter().flat_map(|manifest| [Some(&manifest.current), manifest.previous.as_ref()]);
        let mut named = BTreeSet::new();
        for entry in entries.flatten() {
            named.insert(state_file(&self.folder, entry.place()));
            named.extend(entry.replay.keys().map(|&number| self.replay_file(number)));
        }
        for path in fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|file| file.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let between = |start: &str, end: &str| name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            let kinds =
                [("state-", BEFORE_EVALUATION), ("state-", ".safetensors"), ("replay-", ".bin"), ("replay-", ".tmp")];
            let number = kinds.iter().find_map(|(start, end)| between(start, end));
            let ours = number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
            if ours && !named.contains(&path) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn replay_file(&self, number: usize) -> PathBuf {
        replay_file(&self.folder, number)
    }
}

fn state_file(folder: &Path, (step, before_evaluation): (u64, bool)) -> PathBuf {
    folder.join(format!("state-{step}{}", if before_evaluation { BEFORE_EVALUATION } else { ".safetensors" }))
}

fn replay_file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("replay-{number}.bin"))
}

/// The step of the last checkpoint of a run, if there is one, and whether the evaluation at that step is still to be made.
///
/// # Errors
/// If what names it cannot be read.
pub fn last_place(run: &RunDirectory) -> Result<Option<(u64, bool)>, Error> {
    typed(|| {
        let path = folder_of(run.path())?.join(MANIFEST);
        let manifest = files::is_there(&path).then(|| read_manifest(&path)).transpose()?;
        Ok(manifest.map(|manifest| manifest.current.place()))
    })
}

/// What another run can begin with.
pub struct Seen {
    /// The last good checkpoint of the run that has been looked at.
    pub state: TrainerState,
    /// O and A.
    pub sizes: [usize; 2],
    /// What it was trained on.
    pub device: String,
    /// Its memory, if that was asked for.
    pub replay: Option<Replay>,
    /// What is to be told: why it is not the last checkpoint.
    pub warning: Option<String>,
}

/// Looks at the last good checkpoint of a run, which may be in training. Nothing is locked, and nothing is written.
///
/// # Errors
/// If there is none, if nothing of it is whole, or if it is of another configuration than `config` of the run.
pub fn look(run: &RunDirectory, config: &Config, with_replay: bool) -> Result<Seen, Error> {
    typed(|| {
        let (folder, shown) = (folder_of(run.path())?, run.path().display());
        let path = folder.join(MANIFEST);
        ensure!(files::is_there(&path), "{shown} has no checkpoint; name a run that has one, or a .safetensors file");
        let load = |entry: &Entry| {
            let state = load_state(run, entry, config)?;
            let replay = with_replay.then(|| load_replay(&folder, entry, &state, config)).transpose()?;
            Ok((state, replay))
        };
        let (step, (State { state, sizes, device, .. }, replay), problem) =
            last_good_in_training(|| read_manifest(&path), load).with_context(|| {
                format!("{shown} has no checkpoint that can be used; name another run, or a .safetensors file")
            })?;
        let warning = problem.map(|problem| format!("{problem}; taking that of step {step}"));
        Ok(Seen { state, sizes, device, replay, warning })
    })
}

/// [`last_good`] where a process may be at work that replaces the manifest and takes away what the one before has named:
/// then that of now is read once more. Tells the step instead of the entry.
fn last_good_in_training<T>(
    read: impl Fn() -> Result<Manifest>,
    load: impl Fn(&Entry) -> Result<T>,
) -> Result<(u64, T, Option<String>)> {
    let look = || last_good(&read()?, &load).map(|(entry, loaded, problem)| (entry.step, loaded, problem));
    look().or_else(|_| look())
}

/// The last entry that `load` accepts, what it has made of it, and what is wrong with the one after it.
fn last_good<T>(manifest: &Manifest, load: impl Fn(&Entry) -> Result<T>) -> Result<(&Entry, T, Option<String>)> {
    let problem = match load(&manifest.current) {
        Ok(loaded) => return Ok((&manifest.current, loaded, None)),
        Err(problem) => problem,
    };
    let previous = manifest.previous.as_ref().and_then(|entry| Some((entry, load(entry).ok()?)));
    match previous {
        Some((entry, loaded)) => Ok((entry, loaded, Some(format!("the last checkpoint is damaged ({problem:#})")))),
        None => Err(problem),
    }
}

/// Makes this process the only one that trains what belongs to a folder.
pub(super) fn lock(folder: &Path, what: &str) -> Result<File> {
    let path = folder.join(LOCK);
    let locked = files::lock(&path);
    let locked = locked.with_context(|| format!("{} cannot be written; see to its permissions", path.display()))?;
    locked.with_context(|| format!("another process trains {what}; wait for its end, or stop it"))
}

/// Makes this process the only one that writes into the run in a directory, as long as the file lives.
pub(super) fn lock_run(run: &Path) -> Result<File> {
    let folder = folder_of(run)?;
    files::create_directories(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    lock(&folder, "this run")
}

/// Removes the lock of a run that could not be begun.
pub(super) fn remove_lock(run: &Path) {
    let _ = fs::remove_file(run.join(FOLDER).join(LOCK));
}

/// The folder of a run's checkpoints, whether it is there or not.
fn folder_of(run: &Path) -> Result<PathBuf> {
    let folder = run.join(FOLDER);
    // In this order, because another process may make it in between.
    let (is_ours, shown) = (!files::is_there(&folder) || files::is_directory(&folder), folder.display());
    ensure!(is_ours, "{shown} is no directory of its own, a symbolic link is not followed; put the directory there");
    Ok(folder)
}

fn read_manifest(path: &Path) -> Result<Manifest> {
    let shown = path.display();
    let text = files::read(path, MOST_OF_MANIFEST).with_context(|| format!("{shown} cannot be read"))?;
    let damaged = || anyhow!("{shown} is damaged; train anew, or put back a copy of it");
    let text = String::from_utf8(text).map_err(|_| damaged())?;
    let (line, checksum) = text.split_once('\n').ok_or_else(damaged)?;
    ensure!(checksum == format!("{:08x}\n", crc32fast::hash(line.as_bytes())), damaged());
    let manifest: Manifest = serde_json::from_str(line)
        .map_err(|_| anyhow!("{shown} is that of another version; resume with the version that wrote it"))?;
    ensure!(
        manifest.format == FORMAT,
        "{shown} is of the format {:?}, not {FORMAT:?}; resume with the version that wrote it",
        manifest.format
    );
    Ok(manifest)
}

/// Loads the state that an entry of the manifest names.
fn load_state(run: &RunDirectory, entry: &Entry, config: &Config) -> Result<State> {
    config.validate()?;
    let path = state_file(&run.file(FOLDER), entry.place());
    let bytes = entry.state.read(&path)?;
    let mut state =
        state_from_bytes(&bytes).with_context(|| format!("{} is no checkpoint of this version", path.display()))?;
    let written = config_file::parse(&state.config, run.environment())
        .context("its configuration cannot be read; resume with the version that wrote it")?;
    // More steps, another end and other pauses are what a run may be resumed for.
    let &Config { steps, checkpoint_every, until_return, .. } = config;
    let same = Config { steps, checkpoint_every, until_return, ..written };
    ensure!(same == *config, "it is of another configuration than config.toml; put back what was changed there");
    let place = (state.state.steps, state.state.before_evaluation.is_some());
    ensure!(place == entry.place(), "{} is of another step", path.display());
    ensure!(state.state.envs.len() == config.envs, "it is of another number of environments");
    ensure!(counts_fit(&state, config), "{} counts what cannot have been", path.display());
    let [o, a] = state.sizes;
    ensure!((1..1 << 32).contains(&o) && (1..1 << 32).contains(&a), "it has {o} observation and {a} action dimensions");
    // What is no more than a number there must not ask for memory; the parameters show that there are so many actions.
    let parameters = Policy::new(config, o, a).parameters();
    ensure!(state.state.learner.get("policy").map(<[f32]>::len) == Some(parameters), "its policy has another shape");
    state.position.metrics = entry.metrics;
    Ok(state)
}

/// Whether no count is beyond the steps, or beyond the updates; such a one could go on beyond what can be read back.
fn counts_fit(State { state, position: Position { last, last_step, .. }, .. }: &State, config: &Config) -> bool {
    let &TrainerState { steps, updates, .. } = state;
    let (n, mut of_updates) = (
        state.envs.len() as u64,
        state.learner.counts.iter().map(|&(_, count)| count).chain([last.updates, last.policy_updates]),
    );
    let env_fits = |(i, env): (u64, &EnvState)| {
        let (rounds, &Episode { number, length, .. }) = (steps / n, &env.episode);
        let before = number.checked_sub(1).filter(|before| before % n == i);
        before.is_some_and(|before| [env.env_steps, length, before / n].iter().all(|&count| count <= rounds))
    };
    steps.is_multiple_of(n)
        && (0..).zip(&state.envs).all(env_fits)
        && *last_step <= steps
        && updates <= config.updates_after(steps)
        && of_updates.all(|count| count <= updates)
}

/// Loads the replay memory that belongs to a state.
fn load_replay(folder: &Path, entry: &Entry, state: &State, config: &Config) -> Result<Replay> {
    let (&TrainerState { steps, preloaded, .. }, [o, a]) = (&state.state, state.sizes);
    let capacity = config.replay_rows_with(preloaded);
    let pushed = steps.checked_add(preloaded).filter(|&pushed| pushed < 1 << 63);
    let pushed = pushed.context("its number of transitions is none")?;
    let pushed = usize::try_from(pushed)?;
    let first = pushed - pushed.min(capacity);
    let width = 2 * o + a + 2;
    let mut floats: Vec<f32> = Vec::new();
    let numbers = first / SEGMENT..pushed.div_ceil(SEGMENT);
    // They would be added to as they are, unread.
    ensure!(entry.replay.keys().all(|&number| number < numbers.end), "it names transitions that are yet to come");
    for number in numbers {
        let path = replay_file(folder, number);
        let checked = entry.replay.get(&number).with_context(|| format!("{} is missing", path.display()))?;
        let range = first.max(number * SEGMENT)..pushed.min((number + 1) * SEGMENT);
        let length = ((range.end - number * SEGMENT) as u64).checked_mul(width as u64 * 4);
        ensure!(length == Some(checked.bytes), "{} has another length", path.display());
        let bytes = checked.read(&path)?;
        let bytes = &bytes[(range.start - number * SEGMENT) * width * 4..];
        floats.extend(tensors_file::f32s(bytes));
    }
    let empty = Replay::new(capacity, o, a)?.of_environments(config.envs);
    Ok(empty.restored(pushed, &state.cuts, floats.chunks_exact(width)))
}

/// What a state file holds.
struct State {
    state: TrainerState,
    /// Of the replay memory.
    cuts: Vec<u64>,
    /// Without the length and the checksum of the file, which the manifest has.
    position: Position,
    config: String,
    device: String,
    /// O and A.
    sizes: [usize; 2],
}

/// The name of a tensor of environment `i`; there was a single one once, whose tensors have no number.
fn of_env(name: &str, i: usize) -> String {
    if i == 0 { name.to_string() } else { format!("{name}.of-{i}") }
}

fn state_to_bytes(
    state: &TrainerState,
    cuts: &[u64],
    position: &Position,
    actions: usize,
    config: &str,
    device: &str,
) -> Result<Vec<u8>> {
    let TrainerState { learner, bounds, envs, normalizer, steps, preloaded, updates, best, before_evaluation } = state;
    let mut tensors = Vec::new();
    for (name, values) in &learner.vectors {
        tensors.push(Tensor::f32(format!("learner.{name}"), vec![values.len()], values));
    }
    for (name, count) in &learner.counts {
        tensors.push(Tensor::u64(format!("learner.count.{name}"), &[*count]));
    }
    for (name, sum) in &learner.sums {
        tensors.push(Tensor::f64(format!("learner.sum.{name}"), &[*sum]));
    }
    if let Some(bounds) = bounds {
        for (name, values) in BOUNDS.into_iter().zip([bounds.low(), bounds.high()]) {
            tensors.push(Tensor::f32(name.into(), vec![values.len()], values));
        }
    }
    for (i, EnvState { env, env_steps, observation, episode }) in envs.iter().enumerate() {
        tensors.push(Tensor::f32(of_env("observation", i), vec![observation.len()], observation));
        tensors.extend(env.iter().map(|env| Tensor::u8(of_env("env", i), env.clone())));
        tensors.push(Tensor::u64(of_env("episode", i), &[episode.number, episode.length]));
        tensors.push(Tensor::f64(of_env("episode.total_reward", i), &[episode.total_reward]));
        tensors.extend((i > 0).then(|| Tensor::u64(of_env("env_steps", i), &[*env_steps])));
    }
    tensors.extend(normalizer.iter().flat_map(|normalizer| tensors_file::statistics("", normalizer)));
    tensors.push(Tensor::u64("steps".into(), &[*steps, envs[0].env_steps, *updates]));
    // Most runs begin with an empty memory, as all did once.
    tensors.extend((*preloaded > 0).then(|| Tensor::u64("preloaded".into(), &[*preloaded])));
    tensors.extend((!cuts.is_empty()).then(|| Tensor::u64("cuts".into(), cuts)));
    if let Some(Best { step, mean_return, theta, normalizer }) = best {
        tensors.push(Tensor::u64("best.step".into(), &[*step]));
        tensors.push(Tensor::f64("best.return".into(), &[*mean_return]));
        tensors.push(Tensor::f32("best.policy".into(), vec![theta.len()], theta));
        tensors.extend(normalizer.iter().flat_map(|normalizer| tensors_file::statistics("best.", normalizer)));
    }
    let mut metadata = BTreeMap::from([
        ("format".to_string(), FORMAT.to_string()),
        ("config".to_string(), config.to_string()),
        ("device".to_string(), device.to_string()),
        ("actions".to_string(), actions.to_string()),
    ]);
    if let Some(ended) = before_evaluation {
        let counts: Vec<_> = ended.iter().flat_map(|episode| [episode.number, episode.length]).collect();
        let returns: Vec<_> = ended.iter().map(|episode| episode.total_reward).collect();
        tensors.push(Tensor::u64("ended".into(), &counts));
        tensors.push(Tensor::f64("ended.total_reward".into(), &returns));
        for (i, info) in ended.iter().map(|episode| &episode.info).enumerate().filter(|(_, info)| !info.is_empty()) {
            let (names, numbers): (Vec<_>, Vec<_>) = info.iter().unzip();
            tensors.push(Tensor::f64(format!("ended.{i}.info"), &numbers));
            metadata.insert(format!("ended.{i}.info"), names.join(","));
        }
    }
    let Metrics { updates, policy_updates, values, .. } = position.last;
    tensors.push(Tensor::u64("metrics.last".into(), &[position.last_step, updates, policy_updates]));
    for (metric, value) in Metric::ALL.into_iter().zip(values) {
        tensors.push(Tensor::f64(format!("metrics.last.{}", metric.name()), &[value]));
    }
    // Most environments give no numbers, and once there were no columns for them.
    if !position.columns.is_empty() {
        metadata.insert("columns".into(), position.columns.join(","));
    }
    tensors_file::to_bytes(&tensors, &metadata)
}

fn state_from_bytes(bytes: &[u8]) -> Result<State> {
    let (file, metadata) = tensors_file::parse(bytes, FORMAT)?;
    let text = |key: &str| metadata.get(key).cloned().with_context(|| format!("its metadata lack {key}"));

    let data = |name: &str, dtype: Dtype| -> Result<Vec<u8>> {
        let tensor = file.tensor(name).map_err(|_| anyhow!("it lacks {name}"))?;
        ensure!(tensor.dtype() == dtype, "its {name} is of another type");
        Ok(tensor.data().to_vec())
    };
    let f32s = |name: &str| -> Result<Vec<f32>> { Ok(tensors_file::f32s(&data(name, Dtype::F32)?).collect()) };
    fn eights<const N: usize>(name: &str, data: &[u8]) -> Result<[[u8; 8]; N]> {
        let (chunks, _) = data.as_chunks::<8>();
        chunks.try_into().map_err(|_| anyhow!("its {name} has another length"))
    }
    fn u64s<const N: usize>(name: &str, data: &[u8]) -> Result<[u64; N]> {
        let counts = eights(name, data)?.map(u64::from_le_bytes);
        // Each can go on being counted.
        ensure!(counts.iter().all(|&count| count < 1 << 63), "its {name} counts beyond 2⁶³");
        Ok(counts)
    }
    fn f64s<const N: usize>(name: &str, data: &[u8]) -> Result<[f64; N]> {
        Ok(eights(name, data)?.map(f64::from_le_bytes))
    }

    let mut learner = Snapshot { vectors: Vec::new(), counts: Vec::new(), sums: Vec::new() };
    let mut names: Vec<&str> = file.names().into_iter().collect();
    names.sort_unstable();
    for name in names {
        if let Some(count) = name.strip_prefix("learner.count.") {
            let [value] = u64s(name, &data(name, Dtype::U64)?)?;
            learner.counts.push((count.to_string(), value));
        } else if let Some(sum) = name.strip_prefix("learner.sum.") {
            let [value] = f64s(name, &data(name, Dtype::F64)?)?;
            learner.sums.push((sum.to_string(), value));
        } else if let Some(vector) = name.strip_prefix("learner.") {
            learner.vectors.push((vector.to_string(), f32s(name)?));
        }
    }
    let [steps, first_env_steps, updates] = u64s("steps", &data("steps", Dtype::U64)?)?;
    let preloaded = file.tensor("preloaded").is_ok().then(|| u64s("preloaded", &data("preloaded", Dtype::U64)?));
    let [preloaded] = preloaded.transpose()?.unwrap_or_default();
    let [last_step, last_updates, policy_updates] = u64s("metrics.last", &data("metrics.last", Dtype::U64)?)?;
    let mut last = Metrics { updates: last_updates, policy_updates, ..Metrics::default() };
    for metric in Metric::ALL {
        let name = format!("metrics.last.{}", metric.name());
        [last[metric]] = f64s(&name, &data(&name, Dtype::F64)?)?;
    }
    let read_best = || -> Result<Best> {
        let [step] = u64s("best.step", &data("best.step", Dtype::U64)?)?;
        let [mean_return] = f64s("best.return", &data("best.return", Dtype::F64)?)?;
        let theta = f32s("best.policy")?;
        let finite = mean_return.is_finite() && theta.iter().all(|value| value.is_finite());
        ensure!(finite && step <= steps, "its best evaluation is none");
        Ok(Best { step, mean_return, theta, normalizer: tensors_file::read_statistics(&file, "best.")? })
    };
    let has_best = file.names().iter().any(|name| name.starts_with("best."));
    let best = has_best.then(read_best).transpose()?;
    let env_state = |i| -> Result<EnvState> {
        let name = |name| of_env(name, i);
        let [env_steps] =
            if i > 0 { u64s("env_steps", &data(&name("env_steps"), Dtype::U64)?)? } else { [first_env_steps] };
        let env = file.tensor(&name("env")).is_ok().then(|| data(&name("env"), Dtype::U8)).transpose()?;
        let [number, length] = u64s("episode", &data(&name("episode"), Dtype::U64)?)?;
        let [total_reward] = f64s("episode.total_reward", &data(&name("episode.total_reward"), Dtype::F64)?)?;
        ensure!(total_reward.is_finite(), "its episode is none");
        let observation = f32s(&name("observation"))?;
        let episode = Episode { number, length, total_reward, info: Info::NONE };
        Ok(EnvState { env, env_steps, observation, episode })
    };
    let count = (1..).take_while(|&i| file.tensor(&of_env("observation", i)).is_ok()).count();
    let envs = (0..=count).map(env_state).collect::<Result<Vec<_>>>()?;
    let observations = envs[0].observation.len();
    ensure!(envs.iter().all(|env| env.observation.len() == observations), "its observations differ in length");
    let read_ended = || -> Result<Vec<Episode>> {
        let (counts, returns) = (data("ended", Dtype::U64)?, data("ended.total_reward", Dtype::F64)?);
        let (counts, _) = counts.as_chunks::<16>();
        let (returns, _) = returns.as_chunks::<8>();
        // No more than one of each environment can end with a step.
        ensure!(counts.len() == returns.len() && counts.len() <= envs.len(), "its ended episodes have another number");
        let episode = |(i, (counts, &total_reward)): (usize, (&[u8; 16], _))| {
            let ([number, length], total_reward) = (u64s("ended", counts)?, f64::from_le_bytes(total_reward));
            ensure!(total_reward.is_finite(), "the return of an ended episode is not finite");
            let name = format!("ended.{i}.info");
            let info = match metadata.get(&name) {
                None => Info::NONE,
                Some(names) => {
                    let numbers = data(&name, Dtype::F64)?;
                    let numbers = numbers.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
                    Info::new(names.split(',').zip(numbers))
                }
            };
            Ok(Episode { number, length, total_reward, info })
        };
        counts.iter().zip(returns).enumerate().map(episode).collect()
    };
    let before_evaluation = file.tensor("ended").is_ok().then(read_ended).transpose()?;
    let cuts = file.tensor("cuts").is_ok().then(|| data("cuts", Dtype::U64)).transpose()?.unwrap_or_default();
    let cuts: Vec<_> = cuts.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
    ensure!(cuts.is_sorted(), "its cuts are in no order");
    let columns = metadata.get("columns").map_or(Vec::new(), |text| text.split(',').map(str::to_string).collect());
    ensure!(Position::are_columns(&columns), "its columns of metrics.csv are invalid");
    let normalizer = tensors_file::read_statistics(&file, "")?;
    let actions: usize = text("actions")?.parse().context("its number of actions is none")?;
    // The first checkpoints did not have them.
    let has_bounds = BOUNDS.iter().any(|name| file.tensor(name).is_ok());
    let read_bounds = || Bounds::new(f32s(BOUNDS[0])?, f32s(BOUNDS[1])?).map_err(|problem| anyhow!(problem));
    let bounds = has_bounds.then(read_bounds).transpose()?;
    ensure!(
        bounds.as_ref().is_none_or(|bounds| bounds.dimensions() == actions),
        "its action bounds are not of {actions} dimensions"
    );
    Ok(State {
        state: TrainerState { learner, bounds, envs, normalizer, steps, preloaded, updates, best, before_evaluation },
        cuts,
        position: Position { metrics: Checked::of(&[]), columns, last, last_step },
        config: text("config")?,
        device: text("device")?,
        sizes: [observations, actions],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{MAX_INFO, Pendulum};
    use anyhow::bail;
    use std::cell::Cell;

    fn manifest(step: u64) -> Manifest {
        let checked = Checked::of(&[]);
        let entry =
            |step| Entry { step, before_evaluation: false, state: checked, replay: BTreeMap::new(), metrics: checked };
        Manifest { format: FORMAT.into(), current: entry(step), previous: Some(entry(step - 1)) }
    }

    /// What the first manifest names is gone by the time it is looked for, and what the second names is there.
    #[test]
    fn a_manifest_that_is_replaced_meanwhile_is_read_again() {
        let now = Cell::new(10);
        let read = || Ok(manifest(now.replace(now.get() + 2)));
        let present = |from: u64| move |entry: &Entry| if entry.step >= from { Ok(entry.step) } else { bail!("gone") };
        assert_eq!(last_good_in_training(read, present(11)).expect("it is there"), (12, 12, None));
        let (step, _, problem) = last_good_in_training(
            || Ok(manifest(10)),
            |entry| if entry.step == 9 { Ok(()) } else { bail!("of another length") },
        )
        .expect("the one before is there");
        assert_eq!((step, problem.as_deref()), (9, Some("the last checkpoint is damaged (of another length)")));
        assert!(last_good_in_training(|| Ok(manifest(10)), present(11)).is_err());
    }

    /// The error that a run meets whose checkpoint says something else, with checksums that fit.
    fn error(name: &str, actions: usize, change: impl FnOnce(&mut TrainerState, &mut Entry)) -> String {
        let place = std::env::temp_dir().join(format!("soft-actor-critic-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        let hidden = || vec![2];
        let config =
            Config { policy_hidden: hidden(), critic_hidden: hidden(), replay_capacity: 300, ..Config::default() };
        let run = RunDirectory::create(Some(&place), "pendulum", &config, None)
            .expect("the temporary directory can be written");
        let mut trainer = Trainer::new(|| Box::new(Pendulum::new()), config.clone()).expect("it is valid");
        let mut files = MetricsFiles::create(&run, &config).expect("it can be written");
        let mut checkpoints = Checkpoints::create(&run, "cpu", 1).expect("it can be written");
        checkpoints.save(&mut trainer, &mut files).expect("it can be written");
        let mut state = trainer.save().expect("it is on the CPU");
        let mut manifest = checkpoints.manifest.clone().expect("it was just written");
        change(&mut state, &mut manifest.current);
        let text = config_file::to_toml("pendulum", &config).expect("it has a TOML form");
        let bytes = state_to_bytes(&state, &[], &files.position(), actions, &text, "cpu").expect("it is small");
        fs::write(state_file(&checkpoints.folder, manifest.current.place()), &bytes).expect("it can be written");
        manifest.current.state = Checked::of(&bytes);
        checkpoints.put(manifest).expect("it can be written");
        drop(checkpoints);
        let error = Checkpoints::open(&run, &config).map(drop).expect_err("it says something else");
        fs::remove_dir_all(place).expect("it was just written");
        format!("{error:#}")
    }

    /// The bounds are those of as many dimensions as there are actions; a checkpoint from before they were written is whole.
    #[test]
    fn bounds_are_those_of_the_actions_or_unknown() {
        let two = Bounds::new(vec![-2.0; 2], vec![2.0; 2]).expect("they are valid");
        let message = error("bounds", 1, |state, _| state.bounds = Some(two));
        assert!(message.contains("its action bounds are not of 1 dimensions"), "{message}");
        let config = Config { policy_hidden: vec![2], replay_capacity: 300, ..Config::default() };
        let mut trainer = Trainer::new(|| Box::new(Pendulum::new()), config).expect("it is valid");
        let state = trainer.save().expect("it is on the CPU");
        for bounds in [state.bounds.clone(), None] {
            let state = TrainerState { bounds, ..state.clone() };
            let position =
                Position { metrics: Checked::of(&[]), columns: vec![], last: Metrics::default(), last_step: 0 };
            let bytes = state_to_bytes(&state, &[], &position, 1, "", "cpu").expect("it is small");
            assert_eq!(state_from_bytes(&bytes).expect("it was just written").state.bounds, state.bounds);
        }
    }

    /// A checkpoint without columns is one from before there were any.
    #[test]
    fn columns_are_those_that_a_run_can_have() {
        let config = Config { policy_hidden: vec![2], replay_capacity: 300, ..Config::default() };
        let mut trainer = Trainer::new(|| Box::new(Pendulum::new()), config).expect("it is valid");
        let state = trainer.save().expect("it is on the CPU");
        let read = |columns: &[String]| {
            let (metrics, columns) = (Checked::of(&[]), columns.to_vec());
            let position = Position { metrics, columns, last: Metrics::default(), last_step: 0 };
            let bytes = state_to_bytes(&state, &[], &position, 1, "", "cpu").expect("it is small");
            let has_them = bytes.windows(7).any(|window| window == b"columns");
            assert_eq!(has_them, !position.columns.is_empty());
            state_from_bytes(&bytes).map(|state| state.position.columns)
        };
        let many = |count| (0..count).map(|i| format!("info.{i}")).collect::<Vec<_>>();
        let with = |column: &str| vec!["info.a".to_string(), column.to_string()];
        for columns in [vec![], with("evaluation.a"), with("info.é"), many(MAX_INFO)] {
            assert_eq!(read(&columns).expect("a run can have them"), columns);
        }
        for columns in [with("info.a"), with("q"), with("evaluation.a\nb"), with(""), many(MAX_INFO + 1)] {
            let error = read(&columns).map(drop).expect_err("no run has them");
            assert!(error.to_string().contains("its columns of metrics.csv are invalid"), "{error:#}");
        }
    }

    #[test]
    fn counts_that_cannot_go_on_are_refused() {
        type Change = fn(&mut TrainerState);
        let changes: [(&str, Change); 4] = [
            ("steps", |state| state.updates = u64::MAX),
            ("steps", |state| state.envs[0].env_steps = u64::MAX),
            ("episode", |state| state.envs[0].episode.length = u64::MAX),
            ("learner.count.updates", |state| state.learner.counts[0].1 = u64::MAX),
        ];
        for (name, change) in changes {
            let error = error("counts", 1, |state, _| change(state));
            assert!(error.contains(&format!("its {name} counts beyond")), "{error}");
        }
    }

    /// A number of actions alone would ask for as much memory.
    #[test]
    fn actions_that_the_policy_does_not_have_are_refused() {
        for actions in [2, 1 << 31] {
            let error = error("actions", actions, |state, _| state.bounds = None);
            assert!(error.contains("its policy has another shape"), "{error}");
        }
    }

    #[test]
    fn counts_of_what_cannot_have_been_are_refused() {
        type Change = fn(&mut TrainerState);
        let changes: [Change; 6] = [
            |state| state.learner.counts[0].1 = 1,
            |state| state.updates = 1,
            |state| state.envs[0].env_steps = 1,
            |state| state.envs[0].episode.length = 1,
            |state| state.envs[0].episode.number = 2,
            |state| state.envs[0].episode.number = 0,
        ];
        for change in changes {
            let error = error("beyond", 1, |state, _| change(state));
            assert!(error.contains("counts what cannot have been"), "{error}");
        }
    }

    #[test]
    fn transitions_beyond_counting_are_refused() {
        let more = |state: &mut TrainerState, entry: &mut Entry| {
            (state.steps, state.preloaded) = (1, (1 << 63) - 1);
            entry.step = 1;
        };
        let error = error("preloaded", 1, more);
        assert!(error.contains("its number of transitions is none"), "{error}");
    }

    #[test]
    fn transitions_that_are_yet_to_come_are_refused() {
        let more = |_: &mut TrainerState, entry: &mut Entry| {
            entry.replay.insert(0, Checked { bytes: 1 << 40, crc32: 0 });
        };
        let error = error("more", 1, more);
        assert!(error.contains("it names transitions that are yet to come"), "{error}");
    }
}
