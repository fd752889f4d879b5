//! A run that goes on.

use super::preparation::{MakeEnv, PlacedTrainer, number_of_threads};
use super::training::{Ended, Observer, Session};
use crate::config::{Config, UntilReturn};
use crate::device::Device;
use crate::env::Env;
use crate::error::Error;
use crate::run::checkpoint::{Checkpoints, Loaded};
use crate::run::{Measurements, MetricsFiles, Position, RunDirectory};
use crate::sac::AgentLearner;
use crate::train::{Activity, Trainer, with_threads};
use std::ops::ControlFlow;
use std::path::Path;

/// What a run does from now on otherwise than it was begun with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// Environment steps in all, at least those that it was begun with.
    pub steps: Option<u64>,
    /// The return that ends it.
    pub until_return: Option<UntilReturn>,
    /// Where it is trained.
    pub device: Option<Device>,
}

impl Changes {
    /// The configuration with which a run goes on that was begun with `config`.
    ///
    /// # Errors
    /// [`Error::Config`] if it has fewer steps, or is invalid.
    pub fn adapt(&self, config: &Config) -> Result<Config, Error> {
        let (steps, begun_with) = (self.steps.unwrap_or(config.steps), config.steps);
        if steps < begun_with {
            let problem = format!("steps = {steps} is fewer than the {begun_with} that the run is to have");
            return Err(Error::Config(problem));
        }
        let config = Config { steps, until_return: self.until_return.unwrap_or(config.until_return), ..config.clone() };
        config.validate()?;
        Ok(config)
    }
}

/// A run as its last checkpoint has it. As long as this lives, no other process can resume it.
pub struct SavedRun {
    run: RunDirectory,
    config: Config,
    begun_with: Config,
    device: Option<Device>,
    /// Whether its last evaluation has reached [`Config::until_return`].
    has_reached: bool,
    make_env: MakeEnv,
    threads: usize,
    checkpoints: Checkpoints,
    loaded: Loaded,
}

impl SavedRun {
    /// Opens the run in a directory. It has `most_threads` threads at most; 0 sets no such bound.
    ///
    /// # Errors
    /// If there is no run, or no checkpoint that can be used; if the changes do not fit; if another process trains the
    /// run; if the environment cannot be made; [`Error::Threads`] if `most_threads` is too large.
    pub fn open(
        path: &Path,
        changes: Changes,
        make_env: impl FnMut() -> Result<Box<dyn Env>, Error> + Send + 'static,
        most_threads: usize,
    ) -> Result<Self, Error> {
        let (run, begun_with) = RunDirectory::open(path)?;
        let config = changes.adapt(&begun_with)?;
        let (checkpoints, loaded) = Checkpoints::open(&run, &config)?;
        // Until the run was locked, another process may have given it more steps.
        if RunDirectory::open(path)?.1 != begun_with {
            let problem = format!("another process has just changed {}; resume it again", path.display());
            return Err(Error::Files(problem));
        }
        // A row of an evaluation that is still to be made is written again.
        let last_return = Measurements::read(&run)?
            .evaluation_at(loaded.state.steps)
            .filter(|_| loaded.state.before_evaluation.is_none());
        let has_reached = last_return.is_some_and(|value| config.is_reached_by(value));
        let (make_env, threads) = number_of_threads(most_threads, Box::new(make_env), &config)?;
        let device = changes.device;
        Ok(Self { run, config, begun_with, device, has_reached, make_env, threads, checkpoints, loaded })
    }

    /// The step of the checkpoint.
    pub fn step(&self) -> u64 {
        self.loaded.state.steps
    }

    /// The configuration with which the run goes on.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it can go on: at the end that it was begun with it is finished, and anywhere else it must have steps
    /// left.
    pub fn can_go_on(&self) -> bool {
        self.step() < self.config.steps || self.config.steps == self.begun_with.steps
    }

    /// The number of threads that [`with_threads`] is best given for it.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Makes the trainer, with the learner if it has one that it shares with other runs, and puts it where the
    /// checkpoint stands. Episodes that must be repeated are shown to `watch`. Nothing is written yet.
    ///
    /// # Errors
    /// If it has no steps left, the environment fails or does not fit, or the device cannot be used;
    /// [`Error::Interrupted`] if `watch` breaks.
    pub fn restore(
        self,
        learner: Option<AgentLearner>,
        watch: impl FnMut(Activity) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Restored, Error> {
        if !self.can_go_on() {
            let (step, steps) = (self.step(), self.config.steps);
            let problem = format!("the run is at step {step} already, and is to have {steps} steps; give it more");
            return Err(Error::Config(problem));
        }
        let Loaded { state, replay, metrics, device, warning } = self.loaded;
        let trained_on: Device =
            device.parse().map_err(|_| Error::Files(format!("its device {device:?} is unknown")))?;
        let device = self.device.unwrap_or(trained_on);
        let placed = PlacedTrainer::new(self.make_env, self.config, device, state.preloaded, learner)?;
        let PlacedTrainer { mut trainer, device, note } = placed;
        trainer.watch(watch);
        let episodes_go_on = trainer.restore(state, replay)?;
        let mut notes: Vec<_> = warning.into_iter().chain(note).chain(trainer.notes().iter().cloned()).collect();
        if device != trained_on {
            notes.push(format!(
                "the run was trained on {trained_on} until here; its results are no longer those of {trained_on}"
            ));
        }
        if !episodes_go_on {
            notes.push(
                "the episode cannot be repeated: the environment does not answer as it did, or the replay memory no \
                 longer holds all of it; a new episode begins"
                    .into(),
            );
        }
        let Self { run, begun_with, has_reached, checkpoints, .. } = self;
        Ok(Restored { trainer, device, run, begun_with, has_reached, checkpoints, metrics, notes })
    }

    /// Trains the run to its end.
    ///
    /// # Errors
    /// As from [`Self::restore`], [`Restored::resume`] and [`Session::train`].
    pub fn train(self, observer: &mut (dyn Observer + Send)) -> Result<Ended, Error> {
        with_threads(self.threads, || self.restore(None, |_| ControlFlow::Continue(()))?.resume()?.train(observer))?
    }
}

/// A run that stands where its checkpoint does, on disk still as it was.
pub struct Restored {
    trainer: Trainer,
    device: Device,
    run: RunDirectory,
    begun_with: Config,
    has_reached: bool,
    checkpoints: Checkpoints,
    metrics: Position,
    notes: Vec<String>,
}

impl Restored {
    /// Cuts the metrics files off at the checkpoint, and writes what has changed in the configuration.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn resume(self) -> Result<Session, Error> {
        let Self { trainer, device, run, begun_with, has_reached, mut checkpoints, metrics, notes } = self;
        checkpoints.set_device(&device.to_string());
        let files = MetricsFiles::reopen(&run, trainer.config(), metrics)?;
        if trainer.config().keep_best {
            // What came after the checkpoint need not come again, on another device for instance.
            run.save_best(trainer.best_actor().as_ref())?;
        }
        if begun_with != *trainer.config() {
            run.replace_config(trainer.config())?;
        }
        Ok(Session::resumed(trainer, run, files, checkpoints, notes, has_reached))
    }
}
