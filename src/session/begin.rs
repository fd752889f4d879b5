//! A run that begins.

use super::preparation::{MakeEnv, PlacedTrainer, number_of_threads, sizes};
use super::training::{Ended, Observer, Session};
use crate::device::Device;
use crate::env::Env;
use crate::error::Error;
use crate::run::{InitFrom, Plan, RunDirectory};
use crate::sac::AgentLearner;
use crate::train::{Trainer, with_threads};
use std::path::Path;

/// A run that is planned, and whose environment can be made.
pub struct NewRun {
    plan: Plan,
    make_env: MakeEnv,
    threads: usize,
    init_from: Option<InitFrom>,
}

impl NewRun {
    /// Checks the plan, reads what the run begins with, and makes the first environment. The run has `most_threads`
    /// threads at most; 0 sets no such bound.
    ///
    /// # Errors
    /// If the configuration is invalid, the environment cannot be made, or what the run begins with cannot be read;
    /// [`Error::Threads`] if `most_threads` is too large.
    pub fn prepare(
        plan: Plan,
        make_env: impl FnMut() -> Result<Box<dyn Env>, Error> + Send + 'static,
        most_threads: usize,
    ) -> Result<Self, Error> {
        plan.config.validate()?;
        let init_from = plan.init_from.as_deref().map(|path| InitFrom::open(path, plan.with_replay)).transpose()?;
        let (make_env, threads) = number_of_threads(most_threads, Box::new(make_env), &plan.config)?;
        Ok(Self { plan, make_env, threads, init_from })
    }

    /// What decides the run.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of threads that [`with_threads`] is best given for it.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Transitions that its replay memory begins with.
    pub fn preloaded(&self) -> u64 {
        self.init_from.as_ref().map_or(0, |init_from| init_from.preloaded(&self.plan.config))
    }

    /// The number of observation dimensions O, and half the range of each action dimension, `[A]`.
    ///
    /// # Errors
    /// If the environment cannot be made.
    pub fn sizes(self) -> Result<(Self, usize, Vec<f32>), Error> {
        let (make_env, observation_size, half_range) = sizes(self.make_env)?;
        Ok((Self { make_env, ..self }, observation_size, half_range))
    }

    /// Makes the trainer, with the learner if it has one that it shares with other runs. Nothing is written yet.
    ///
    /// # Errors
    /// If the environment fails, the device cannot be used, the replay memory does not fit, or what the run begins with
    /// does not fit.
    pub fn make(self, learner: Option<AgentLearner>) -> Result<Made, Error> {
        let preloaded = self.preloaded();
        let Plan { environment, config, device, .. } = self.plan;
        let placed = PlacedTrainer::new(self.make_env, config, device, preloaded, learner)?;
        let PlacedTrainer { mut trainer, device, note } = placed;
        let begun = self.init_from.map(|init_from| init_from.begin(&mut trainer, &environment)).transpose()?;
        let (origin, from) = begun.map(|begun| (begun.origin, begun.note)).unzip();
        let notes = from.into_iter().chain(note).chain(trainer.notes().iter().cloned()).collect();
        Ok(Made { environment, trainer, device, origin, notes })
    }

    /// Trains the run to its end, in the directory `out`, which must be new or empty, or in the first unused
    /// `runs/ENVIRONMENT-N`.
    ///
    /// # Errors
    /// As from [`Self::make`], [`Made::create`], [`Made::begin`] and [`Session::train`].
    pub fn train(self, out: Option<&Path>, observer: &mut (dyn Observer + Send)) -> Result<Ended, Error> {
        with_threads(self.threads, || {
            let made = self.make(None)?;
            let run = made.create(out)?;
            made.begin(run)?.train(observer)
        })?
    }
}

/// A run that is ready for its first step, of which nothing is on disk.
pub struct Made {
    environment: String,
    trainer: Trainer,
    device: Device,
    origin: Option<String>,
    notes: Vec<String>,
}

impl Made {
    /// Makes its directory, with the configuration in it; see [`RunDirectory::create`].
    ///
    /// # Errors
    /// As from [`RunDirectory::create`]; nothing has been written then.
    pub fn create(&self, out: Option<&Path>) -> Result<RunDirectory, Error> {
        RunDirectory::create(out, &self.environment, self.trainer.config(), self.origin.as_deref())
    }

    /// Writes the first policy and the first checkpoint. From then on the run can be resumed.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn begin(self, run: RunDirectory) -> Result<Session, Error> {
        Session::first(self.trainer, run, self.device, self.notes)
    }
}
