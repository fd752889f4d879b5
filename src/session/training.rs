//! Training from one step to the last: what is saved when, and how it ends.

use crate::actor::Evaluation;
use crate::device::Device;
use crate::error::Error;
use crate::picture::plot;
use crate::run::{Checkpoints, MetricsFiles, Row, RunDirectory};
use crate::sac::Metrics;
use crate::train::{Activity, Trainer};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What is told of a run while it is trained. `()` is told everything and does nothing.
pub trait Observer {
    /// Whether training is to stop between two steps. The run is saved then, and can be resumed.
    fn is_interrupted(&mut self) -> bool {
        false
    }

    /// The run has reached `step`, and writes what has happened there next.
    fn step(&mut self, step: u64) {
        let _ = step;
    }

    /// A row has been added to the metrics.
    fn row(&mut self, row: &Row) {
        let _ = row;
    }

    /// An evaluation of so many episodes begins that is likely to take `seconds`, 2 or more. It `is_last` if it is the
    /// one after the last step.
    fn long_evaluation(&mut self, episodes: u64, seconds: f64, is_last: bool) {
        let _ = (episodes, seconds, is_last);
    }

    /// No step and no evaluation follows. Rows still may.
    fn end(&mut self) {}
}

impl Observer for () {}

/// How training ended.
pub enum End {
    /// At the last step, or with an evaluation that reached
    /// [`Config::until_return`](crate::config::Config::until_return). With the evaluation made there, if one was due.
    Finished(Option<Evaluation>),
    /// There was nothing left to do.
    WasFinished,
    /// The [`Observer`], or what [watches](Session::watch) the trainer, asked for it. The run can be resumed.
    Interrupted,
    /// The environment failed between two steps. The run can be resumed.
    EnvironmentFailed(Error),
    /// The evaluation after the last step failed. The run can be resumed, and makes it again.
    EvaluationFailed(Error),
    /// Something else failed. The run can be resumed from its last checkpoint.
    Failed {
        /// What it was.
        error: Error,
        /// Whether the policy that had been learned until then is saved.
        policy_is_saved: bool,
    },
}

/// A run whose training has ended.
pub struct Ended {
    /// How.
    pub end: End,
    /// Its trainer, as it then was.
    pub trainer: Trainer,
    /// Its directory.
    pub run: RunDirectory,
    /// How long it has taken, those processes included that trained it before.
    pub seconds: f64,
    /// Whether its [picture](plot::save_curve) was drawn. Without it nothing of the run is lost.
    pub picture: Result<(), Error>,
}

impl Ended {
    /// The evaluation at the last step. None if none was due, or if the run was finished before.
    ///
    /// # Errors
    /// What made training end before.
    pub fn evaluation(&self) -> Result<Option<&Evaluation>, Error> {
        match &self.end {
            End::Finished(evaluation) => Ok(evaluation.as_ref()),
            End::WasFinished => Ok(None),
            End::Interrupted => Err(Error::Interrupted),
            End::EnvironmentFailed(error) | End::EvaluationFailed(error) | End::Failed { error, .. } => {
                Err(error.clone())
            }
        }
    }
}

/// A run that is on disk and can be trained.
pub struct Session {
    trainer: Trainer,
    run: RunDirectory,
    files: MetricsFiles,
    checkpoints: Checkpoints,
    notes: Vec<String>,
    /// Whether its last evaluation has reached what was to be reached.
    has_reached: bool,
    /// How long an episode of the last evaluation took.
    evaluation_episode: Option<Duration>,
}

impl Session {
    /// A new run on `device`, with its first policy and checkpoint.
    pub(super) fn first(
        mut trainer: Trainer,
        run: RunDirectory,
        device: Device,
        notes: Vec<String>,
    ) -> Result<Self, Error> {
        let mut files = MetricsFiles::create(&run, trainer.config())?;
        let mut checkpoints = Checkpoints::create(&run, &device.to_string(), trainer.config().checkpoint_every)?;
        // Before the first checkpoint, with which the run counts as begun, and has a policy.
        run.save_policy(&trainer.actor()?)?;
        checkpoints.save(&mut trainer, &mut files)?;
        run.sync()?;
        Ok(Self::resumed(trainer, run, files, checkpoints, notes, false))
    }

    /// A run that stands where its checkpoint does.
    pub(super) fn resumed(
        trainer: Trainer,
        run: RunDirectory,
        files: MetricsFiles,
        checkpoints: Checkpoints,
        notes: Vec<String>,
        has_reached: bool,
    ) -> Self {
        Self { trainer, run, files, checkpoints, notes, has_reached, evaluation_episode: None }
    }

    /// Its trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// Its directory.
    pub fn run(&self) -> &RunDirectory {
        &self.run
    }

    /// What there is to tell the user before it is trained, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether its last evaluation has reached [`Config::until_return`](crate::config::Config::until_return).
    pub fn has_reached(&self) -> bool {
        self.has_reached
    }

    /// Whether there is nothing left to do.
    pub fn is_finished(&self) -> bool {
        self.trainer.is_finished() && !self.trainer.evaluation_is_due() || self.has_reached
    }

    /// Calls `watch` after each step of an evaluation, as [`Trainer::watch`] does. When it breaks, training ends with
    /// [`End::Interrupted`].
    pub fn watch(&mut self, watch: impl FnMut(Activity) -> ControlFlow<()> + Send + 'static) {
        self.trainer.watch(watch);
    }

    /// Trains to the end, and leaves the run as it then is: with its policy, its checkpoint and its picture.
    ///
    /// It is fastest inside [`with_threads`](crate::train::with_threads).
    ///
    /// # Errors
    /// If what the run had at its end cannot be written. Whatever else ends training early is an [`End`].
    pub fn train(mut self, observer: &mut dyn Observer) -> Result<Ended, Error> {
        if self.is_finished() {
            // It may have been killed while it took away what the last checkpoint leaves behind.
            self.checkpoints.finish()?;
            return Ok(self.ended(End::WasFinished, Duration::ZERO));
        }
        let started = Instant::now();
        let mut end =
            self.advance(started, observer).unwrap_or_else(|error| End::Failed { error, policy_is_saved: false });
        observer.end();

        let (step, elapsed) = (self.trainer.steps(), started.elapsed());
        if !matches!(end, End::Finished(Some(_))) {
            // Cut short: what was learned and measured since the last evaluation is kept as well, unless what failed is
            // the device that has it.
            let saved = self.save_policy();
            let is_between_steps =
                matches!(end, End::Interrupted | End::EnvironmentFailed(_) | End::EvaluationFailed(_));
            let checkpointed = if is_between_steps { self.checkpoint() } else { Ok(()) };
            let written = self.write_rest(step, elapsed, observer);
            if let End::Failed { policy_is_saved, .. } = &mut end {
                *policy_is_saved = saved.is_ok();
            } else {
                saved.and(checkpointed).and(written)?;
            }
        }
        if matches!(end, End::Finished(_)) {
            self.checkpoint()?;
            self.checkpoints.finish()?;
        }
        Ok(self.ended(end, elapsed))
    }

    fn ended(self, end: End, elapsed: Duration) -> Ended {
        let seconds = self.files.since_the_beginning(elapsed).as_secs_f64();
        let picture = plot::save_curve(&self.run, self.trainer.config());
        Ended { end, trainer: self.trainer, run: self.run, seconds, picture }
    }

    /// Steps until training ends.
    fn advance(&mut self, started: Instant, observer: &mut dyn Observer) -> Result<End, Error> {
        // What a run has still to do at the step that it goes on from.
        let mut ended = if self.trainer.ended().is_empty() && !self.trainer.evaluation_is_due() {
            None
        } else {
            self.after_step(started, observer)?
        };
        loop {
            if let Some(ended) = ended {
                return Ok(ended);
            }
            if observer.is_interrupted() {
                return Ok(End::Interrupted);
            }
            if self.checkpoints.is_due(&self.trainer) {
                self.checkpoint()?;
            }
            let most = self.checkpoints.steps_until_due(&self.trainer);
            match self.trainer.advance(most) {
                Err(Error::Interrupted) => return Ok(End::Interrupted),
                Err(error @ Error::Environment { .. }) => return Ok(End::EnvironmentFailed(error)),
                stepped => stepped?,
            };
            ended = self.after_step(started, observer)?;
        }
    }

    /// Makes the evaluation that is due after a step, if one is, and writes what has happened there. Returns how
    /// training has ended, if it has.
    fn after_step(&mut self, started: Instant, observer: &mut dyn Observer) -> Result<Option<End>, Error> {
        let step = self.trainer.steps();
        observer.step(step);
        let evaluation = match self.evaluate_if_due(observer) {
            Err(Error::Interrupted) => return Ok(Some(End::Interrupted)),
            Err(error @ Error::Evaluation { .. }) => return Ok(Some(End::EvaluationFailed(error))),
            evaluated => evaluated?,
        };
        if self.trainer.best().is_some_and(|best| best.step == step) {
            self.run.save_best(self.trainer.best_actor().as_ref())?;
        }
        if !self.trainer.ended().is_empty() || evaluation.is_some() {
            let metrics = self.trainer.metrics()?;
            self.write(started.elapsed(), evaluation.as_ref(), metrics, observer)?;
        }
        let has_reached = |evaluation: &Evaluation| self.trainer.config().is_reached_by(evaluation.mean());
        let ends = self.trainer.is_finished() || evaluation.as_ref().is_some_and(has_reached);
        Ok(ends.then_some(End::Finished(evaluation)))
    }

    fn evaluate_if_due(&mut self, observer: &mut dyn Observer) -> Result<Option<Evaluation>, Error> {
        /// From when on an evaluation is not made before there is a checkpoint, and from when on it is announced.
        const SAVED: f64 = 1.0;
        const ANNOUNCED: f64 = 2.0;
        if !self.trainer.evaluation_is_due() {
            return Ok(None);
        }
        let episodes = self.trainer.episodes_of_evaluation();
        let seconds = self.evaluation_episode.map(|duration| duration.as_secs_f64() * episodes as f64);
        // An evaluation can be long, and what was learned must not depend on its end.
        self.save_policy()?;
        if seconds.is_none_or(|seconds| seconds >= SAVED) {
            self.checkpoint()?;
        }
        if let Some(seconds) = seconds.filter(|&seconds| seconds >= ANNOUNCED) {
            observer.long_evaluation(episodes, seconds, self.trainer.is_finished());
        }
        let began = Instant::now();
        let evaluation = self.trainer.evaluate_if_due()?;
        self.evaluation_episode = Some(began.elapsed().div_f64(episodes as f64));
        Ok(evaluation)
    }

    /// Writes rows for the episodes that ended with the last step, and for its evaluation.
    fn write(
        &mut self,
        elapsed: Duration,
        evaluation: Option<&Evaluation>,
        metrics: Metrics,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let rows = self.files.write(self.trainer.steps(), elapsed, self.trainer.ended(), evaluation, metrics)?;
        rows.iter().for_each(|row| observer.row(row));
        Ok(())
    }

    /// Writes the last rows of a run that has been cut short.
    fn write_rest(&mut self, step: u64, elapsed: Duration, observer: &mut dyn Observer) -> Result<(), Error> {
        let metrics = self.trainer.last_metrics();
        if self.trainer.evaluation_is_due() {
            self.write(elapsed, None, metrics, observer)?;
        }
        if let Some(row) = self.files.write_rest(step, elapsed, metrics)? {
            observer.row(&row);
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        self.checkpoints.save(&mut self.trainer, &mut self.files)
    }

    fn save_policy(&mut self) -> Result<(), Error> {
        self.run.save_policy(&self.trainer.actor()?)
    }
}
