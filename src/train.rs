//! The training loop: act, step, store, learn; and evaluate.
//!
//! With several environments, [`Config::envs`], each goes through the same loop in a round: one step of every environment.

use crate::actor::{Actor, Evaluation, EvaluationProgress, evaluate_watched, mismatch};
use crate::config::{Alpha, Config};
use crate::env::{Bounds, Env, Info};
use crate::error::Error;
use crate::lanes::Lanes;
use crate::nn::threads;
use crate::normalizer::Normalizer;
use crate::replay::{Replay, Transition};
use crate::rng::{Philox, Stream};
use crate::sac::{CpuLearner, Learner, Metric, Metrics, Policy, Snapshot, cost};
use ndarray::{Array2, ArrayView1};
use rand::Rng;
use rand_distr::StandardNormal;
use std::ops::ControlFlow;

/// A finished training episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Its number, counted from 1: with N environments, the one numbered i from 0 has the episodes i + 1, i + 1 + N and so on.
    pub number: u64,
    /// Its steps, or what [`Env::episode_statistics`] tells instead.
    pub length: u64,
    /// The sum of its rewards, or what [`Env::episode_statistics`] tells instead.
    pub total_reward: f64,
    /// What [`Env::info`] gives of it, once it has ended.
    pub info: Info,
}

impl Episode {
    /// The episode that follows in the same one of `envs` environments, before its first step.
    pub(crate) fn next(&self, envs: u64) -> Self {
        Self { number: self.number + envs, length: 0, total_reward: 0.0, info: Info::NONE }
    }
}

/// The policy of the best evaluation so far, the earliest of those with the highest mean return.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Environment steps at that evaluation.
    pub step: u64,
    /// Its mean return.
    pub mean_return: f64,
    /// The policy's parameters then.
    pub theta: Vec<f32>,
    /// What it saw observations through.
    pub normalizer: Option<Normalizer>,
}

/// Where a run stands between two steps, without its replay memory.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerState {
    /// The learner.
    pub learner: Snapshot<f32>,
    /// The bounds of the environment's actions, `[A]`; none if they are unknown.
    pub bounds: Option<Bounds>,
    /// Each environment.
    pub envs: Vec<EnvState>,
    /// The statistics of all observations, where [`Config::normalize_observations`] asks for them.
    pub normalizer: Option<Normalizer>,
    /// Environment steps, each of which has stored a transition.
    pub steps: u64,
    /// Transitions that the replay memory held before the first step.
    pub preloaded: u64,
    /// Updates made.
    pub updates: u64,
    /// The best evaluation, where [`Config::keep_best`] asks for it and there has been one.
    pub best: Option<Best>,
    /// If the evaluation after the last step is still to be made, the episodes that ended with that step.
    pub before_evaluation: Option<Vec<Episode>>,
}

/// What a [`Trainer`] does besides training, as [`Trainer::watch`] is given it after each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activity<'a> {
    /// [`Trainer::evaluate`]
    Evaluation(EvaluationProgress<'a>),
    /// [`Trainer::restore`] repeats the episodes of environments that cannot save themselves.
    Repetition {
        /// Steps that have been repeated.
        steps: u64,
        /// How many there are to repeat.
        of: u64,
    },
}

/// Where one of the environments of a run stands.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvState {
    /// The environment, if it can tell; see [`Env::save`].
    pub env: Option<Vec<u8>>,
    /// Steps that it has taken.
    pub env_steps: u64,
    /// The observation to act upon, `[O]`.
    pub observation: Vec<f32>,
    /// The episode so far.
    pub episode: Episode,
}

/// One training run, advanced a step at a time.
///
/// Results depend on the configuration and the environment alone, not on the number of threads. Steps are fastest
/// inside a thread pool; see [`threads_for`] and [`with_threads`].
pub struct Trainer {
    config: Config,
    envs: Lanes,
    make_env: MakeEnv,
    /// What evaluations take place in, from the first on, or from the beginning where the configuration asks for them.
    evaluation_env: Option<Box<dyn Env>>,
    bounds: Bounds,
    learner: Box<dyn Learner>,
    replay: Replay,

    /// Of each environment, `[N, O]` as the policy sees them, and `[N, A]`.
    observation: Array2<f32>,
    action_noise: Array2<f32>,
    action: Array2<f32>,

    steps: u64,
    preloaded: u64,
    updates: u64,
    best: Option<Best>,
    last_metrics: Metrics,
    /// The episodes that ended with the last step, and whether the evaluation after that step is still to be made.
    ended: Vec<Episode>,
    before_evaluation: bool,
    watch: Box<Watch>,
}

/// What is called during an [`Activity`], which it stops by breaking.
pub(crate) type Watch = dyn FnMut(Activity) -> ControlFlow<()> + Send;

type MakeEnv = Box<dyn FnMut() -> Result<Box<dyn Env>, Error> + Send>;

impl Trainer {
    /// A run on the CPU before its first step. `make_env` is called for each environment to train on, and once more for
    /// evaluation: if [`Config::eval_every`] is 0, not before [`Self::evaluate`] is.
    ///
    /// # Errors
    /// If `config` is invalid, the replay memory does not fit, or the environment fails.
    pub fn new(make_env: impl Fn() -> Box<dyn Env> + Send + 'static, config: Config) -> Result<Self, Error> {
        Self::with_learner(
            move || Ok(make_env()),
            config,
            |config, observation_size, half_range| {
                CpuLearner::<f32>::check(config)?;
                Ok(Box::new(CpuLearner::new(config, observation_size, half_range)))
            },
        )
    }

    /// As [`Self::new`], with environments that it may not be possible to make, and with the learner that `make_learner` makes
    /// from the configuration, the number of observation dimensions, and half the range of each action dimension.
    ///
    /// # Errors
    /// As from [`Self::new`], `make_env` and `make_learner`.
    pub fn with_learner(
        mut make_env: impl FnMut() -> Result<Box<dyn Env>, Error> + Send + 'static,
        config: Config,
        make_learner: impl FnOnce(&Config, usize, &[f32]) -> Result<Box<dyn Learner>, Error>,
    ) -> Result<Self, Error> {
        config.validate()?;
        let envs = Lanes::new(&mut make_env, &config)?;
        let bounds = envs.action_bounds();
        let (n, o, a) = (envs.len(), envs.observation_size(), bounds.dimensions());
        let mut replay = Replay::new(config.replay_rows(), o, a)?.of_environments(n);
        replay.normalizer = config.normalize_observations.then(|| Normalizer::new(o));
        Ok(Self {
            evaluation_env: (config.eval_every > 0).then(&mut make_env).transpose()?,
            make_env: Box::new(make_env),
            learner: make_learner(&config, o, &bounds.half_range())?,
            replay,
            observation: Array2::zeros((n, o)),
            action_noise: Array2::zeros((n, a)),
            action: Array2::zeros((n, a)),
            steps: 0,
            preloaded: 0,
            updates: 0,
            best: None,
            last_metrics: Metrics::default(),
            ended: Vec::new(),
            before_evaluation: false,
            watch: Box::new(|_| ControlFlow::Continue(())),
            envs,
            bounds,
            config,
        })
    }

    /// Where the run stands between two steps: all that [`Self::restore`] needs, besides the replay memory.
    ///
    /// # Errors
    /// [`Error::Device`] if the learner's device fails.
    pub fn save(&mut self) -> Result<TrainerState, Error> {
        Ok(TrainerState {
            learner: self.learner.snapshot()?,
            bounds: Some(self.bounds.clone()),
            envs: self.envs.save(),
            normalizer: self.replay.normalizer.clone(),
            steps: self.steps,
            preloaded: self.preloaded,
            updates: self.updates,
            best: self.best.clone(),
            before_evaluation: self.before_evaluation.then(|| self.ended.clone()),
        })
    }

    /// Calls `watch` from now on during whatever else than training takes steps of an environment. When it breaks, that ends
    /// with [`Error::Interrupted`].
    pub fn watch(&mut self, watch: impl FnMut(Activity) -> ControlFlow<()> + Send + 'static) {
        self.watch = Box::new(watch);
    }

    /// Goes on from where another run of the same configuration stood, with the memory that it had. An environment that cannot
    /// save itself is reset with the seed of its episode, and repeats the actions of that episode, if the memory holds them
    /// all. Where it does not answer exactly as it did then, a new episode begins. Returns whether all episodes go on.
    ///
    /// Where the memory has begun with transitions from before the first step, it has the room of
    /// [`Config::replay_rows_with`], and a learner on a device must have been made for as many.
    ///
    /// The configuration may have more [`steps`](Config::steps) than the other run had. The memory then needs the room
    /// that they take: [`replay.resized`](Replay::resized)`(config.replay_rows_with(state.preloaded), config.envs)` has
    /// it, and so has that of a checkpoint which is opened with this configuration (`run::Checkpoints::open`).
    ///
    /// # Errors
    /// [`Error::OtherEnvironment`] if the environment has other sizes or action bounds; [`Error::Snapshot`] if `state` or
    /// `replay` does not fit otherwise; [`Error::Environment`] if the environment fails; [`Error::Interrupted`] if
    /// [`Self::watch`] breaks, and then only another call of this goes on.
    pub fn restore(&mut self, state: TrainerState, replay: Replay) -> Result<bool, Error> {
        let (n, o) = self.observation.dim();
        if state.envs.len() != n {
            return Err(Error::Snapshot(format!("it is of {} environments instead of {n}", state.envs.len())));
        }
        let transition_size = replay.transition_size();
        for found in state.envs.iter().map(|env| env.observation.len()) {
            // A transition is s, a, r, 1 − d and s′.
            let Some(actions) = transition_size.checked_sub(2 * found + 2) else {
                return Err(Error::Snapshot("its replay memory is that of another run".into()));
            };
            if let Some(problem) = mismatch([found, actions], state.bounds.as_ref(), o, &self.bounds) {
                return Err(Error::OtherEnvironment(problem));
            }
        }
        let fits = |normalizer: &Option<Normalizer>| {
            let size = self.config.normalize_observations.then_some(o);
            normalizer.as_ref().map(Normalizer::observation_size) == size
        };
        if !fits(&state.normalizer) {
            return Err(Error::Snapshot("its statistics of observations are those of another run".into()));
        }
        let parameters = self.policy().parameters();
        let best_fits = |best: &Best| self.config.keep_best && best.theta.len() == parameters && fits(&best.normalizer);
        if !state.best.as_ref().is_none_or(best_fits) {
            return Err(Error::Snapshot("its best policy is that of another run".into()));
        }
        let (room, pushed) = (self.config.replay_rows_with(state.preloaded), replay.pushed());
        let same = (replay.environments(), replay.transition_size()) == (n, self.replay.transition_size());
        let all_fit = replay.len() == pushed && pushed <= room;
        if !same
            || Some(pushed as u64) != state.steps.checked_add(state.preloaded)
            || replay.capacity() != room && !all_fit
        {
            return Err(Error::Snapshot("its replay memory is that of another run".into()));
        }
        if replay.capacity() != room {
            return Err(Error::Snapshot(format!(
                "its replay memory has room for {} transitions, and this run, of {} steps, for {room}; to go on for \
                 another number of steps, restore replay.resized({room}, {n}), or a checkpoint opened with this \
                 configuration",
                replay.capacity(),
                self.config.steps
            )));
        }
        self.learner.restore(&state.learner)?;
        self.last_metrics = self.learner.metrics()?;
        self.replay = replay;
        self.replay.normalizer = state.normalizer;
        (self.steps, self.preloaded) = (state.steps, state.preloaded);
        (self.updates, self.best) = (state.updates, state.best);
        // A run that is given more steps may no longer have an evaluation here.
        self.before_evaluation = state.before_evaluation.is_some() && self.evaluates_here();
        self.ended = state.before_evaluation.unwrap_or_default();
        self.envs.restore(state.envs, &self.replay, &mut *self.watch)
    }

    /// What the environment says that a user should know, see [`Env::notes`].
    pub fn notes(&self) -> &[String] {
        self.envs.notes()
    }

    /// What has been stored to learn from.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// What it learns with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Environment steps taken, by all environments together.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether all steps of the configuration have been taken.
    pub fn is_finished(&self) -> bool {
        self.steps >= self.config.steps
    }

    /// Takes one step in each environment, and makes the updates that are then due once there is enough to learn from. Returns
    /// the episodes that ended, in the order of the environments: one at most if there is one environment.
    ///
    /// # Errors
    /// [`Error::Environment`] if an environment fails or returns what it must not, [`Error::NonFinite`] if a loss or
    /// an action is not finite; the policy then stays as it was before. [`Error::Device`] if the learner's device fails.
    /// After an [`Error::Environment`] the run stands where it stood before this step, and can be saved; but it can take no more
    /// steps before [`Self::restore`].
    pub fn step(&mut self) -> Result<Vec<Episode>, Error> {
        self.envs.check()?;
        self.act()?;
        let before = self.steps;
        let ended = self.envs.step(|i, before, step| {
            self.steps += 1;
            self.replay.push(Transition {
                observation: &before.observation,
                action: self.action.row(i).to_slice().expect("rows are contiguous"),
                reward: step.reward as f32,
                next_observation: &step.observation,
                terminated: step.terminated,
                truncated: step.truncated,
            });
            if let Some(normalizer) = &mut self.replay.normalizer {
                // Each observation once, when its step is done: s has been the s′ of the step before, but for the first.
                if before.episode.length == 0 {
                    normalizer.add(&before.observation);
                }
                normalizer.add(&step.observation);
            }
        })?;
        for _ in self.config.updates_after(before)..self.config.updates_after(self.steps) {
            self.learn()?;
        }
        Ok(self.ended_with(ended))
    }

    /// Notes which episodes ended with the last step, and whether an evaluation follows it.
    fn ended_with(&mut self, ended: Vec<Episode>) -> Vec<Episode> {
        self.before_evaluation = self.evaluates_here();
        self.ended.clone_from(&ended);
        ended
    }

    /// The episodes that ended with the last step. A run that is restored to before an evaluation has them as well.
    pub fn ended(&self) -> &[Episode] {
        &self.ended
    }

    /// Takes steps as [`Self::step`] does: one, or where the learner steps the environment on its own device, as many as until an
    /// episode ends, an evaluation is due or the run is finished, but no more than `most`. Actions are then drawn from the same
    /// counters by other formulas, so that the run is not that of [`Self::step`], but the same however it is divided into calls.
    ///
    /// # Errors
    /// As from [`Self::step`]; what is no longer finite is found at the end, and the run stands at the step that met it.
    pub fn advance(&mut self, most: u64) -> Result<Vec<Episode>, Error> {
        let until = |every: u64| if every > 0 { every - self.steps % every } else { u64::MAX };
        let most = most.min(until(self.config.eval_every)).min(self.config.steps.saturating_sub(self.steps));
        let Some(runner) = self.envs.on_device().and_then(|env| self.learner.runner(env)) else { return self.step() };
        self.envs.check()?;
        let mut envs = self.envs.save();
        let ended = runner.advance(most.max(1), &mut envs[0], &mut self.updates, &mut self.replay)?;
        self.steps = envs[0].env_steps;
        self.envs.restore(envs, &self.replay, &mut *self.watch)?;
        match self.metrics()?.failure {
            Some((_, quantity)) => Err(self.non_finite(quantity)),
            None => Ok(self.ended_with(ended.into_iter().collect())),
        }
    }

    /// Whether [`Self::advance`] leaves the whole run to the learner's device.
    pub fn is_on_device(&mut self) -> bool {
        self.envs.on_device().is_some_and(|env| self.learner.runner(env).is_some())
    }

    /// Chooses the actions of this round: uniformly at random at first, then from the policy.
    fn act(&mut self) -> Result<(), Error> {
        let n = self.envs.len() as u64;
        let (round, random) = (self.steps / n, self.steps < self.config.random_steps);
        // An action that is held is drawn again from the round at which it was first.
        let drawn_in = if random { round - round % self.config.random_hold } else { round };
        let rngs = (drawn_in * n..).map(|step| Philox::new(self.config.seed, Stream::Action, step));
        if random {
            for (mut action, mut rng) in self.action.rows_mut().into_iter().zip(rngs) {
                action.iter_mut().for_each(|action| *action = rng.random_range(-1.0..=1.0));
            }
        } else {
            for (mut noise, mut rng) in self.action_noise.rows_mut().into_iter().zip(rngs) {
                noise.iter_mut().for_each(|noise| *noise = rng.sample(StandardNormal));
            }
            for (mut row, env) in self.observation.rows_mut().into_iter().zip(self.envs.iter()) {
                row.assign(&ArrayView1::from(&env.observation));
                if let Some(normalizer) = &self.replay.normalizer {
                    normalizer.apply(row.as_slice_mut().expect("rows are contiguous"));
                }
            }
            self.learner.act(self.observation.view(), Some(self.action_noise.view()), self.action.view_mut())?;
        }
        if self.action.iter().any(|action| !action.is_finite()) {
            return Err(self.non_finite("action"));
        }
        for (action, env) in self.action.rows().into_iter().zip(self.envs.iter_mut()) {
            self.bounds.scale(action.to_slice().expect("rows are contiguous"), &mut env.action);
        }
        Ok(())
    }

    /// Makes one update.
    fn learn(&mut self) -> Result<(), Error> {
        self.learner.learn(&self.replay, self.updates)?;
        self.updates += 1;
        match self.metrics()?.failure {
            Some((_, quantity)) => Err(self.non_finite(quantity)),
            None => Ok(()),
        }
    }

    /// The error of a quantity that is no longer finite, with the advice that fits what has been seen last: sizes whose squares
    /// or products leave f32 soon.
    fn non_finite(&self, quantity: &'static str) -> Error {
        const SEEN: usize = 1_000;
        const HUGE: f32 = 1e6;
        let (o, a) = (self.observation.ncols(), self.bounds.dimensions());
        let mut transition = vec![0.0; self.replay.transition_size()];
        let (mut observation, mut reward) = (0.0_f32, 0.0_f32);
        for t in self.replay.pushed().saturating_sub(SEEN.min(self.replay.len()))..self.replay.pushed() {
            self.replay.write_transition(t % self.replay.capacity(), &mut transition);
            observation = transition[..o].iter().fold(observation, |largest, value| largest.max(value.abs()));
            reward = reward.max(transition[o + a].abs());
        }
        let (alpha, scaled) = (self.last_metrics[Metric::Alpha], reward * self.config.reward_scale as f32);
        let advice = if observation > HUGE && !self.config.normalize_observations {
            format!("observations are as large as {observation:.1e}; normalize them (--normalize-observations)")
        } else if alpha > f64::from(HUGE) {
            match self.config.alpha {
                Alpha::Fixed(_) => format!("the temperature is {alpha:.1e}; choose a smaller one (--alpha)"),
                Alpha::Auto => format!(
                    "the temperature has grown to {alpha:.1e}, because the policy's entropy stays below its target; lower the \
                     target (--target-entropy)"
                ),
            }
        } else if scaled > HUGE {
            format!("rewards are as large as {scaled:.1e}; scale them down (--reward-scale)")
        } else {
            "lower the learning rates (--lr), or scale the rewards down (--reward-scale)".into()
        };
        Error::NonFinite { step: self.steps, quantity, advice }
    }

    /// What the updates so far have seen.
    ///
    /// # Errors
    /// [`Error::Device`] if the learner's device fails.
    pub fn metrics(&mut self) -> Result<Metrics, Error> {
        self.last_metrics = self.learner.metrics()?;
        Ok(self.last_metrics)
    }

    /// What [`Self::metrics`], or the last update, gave last: what is left of a device that has failed.
    pub fn last_metrics(&self) -> Metrics {
        self.last_metrics
    }

    /// The policy as it is now.
    ///
    /// # Errors
    /// [`Error::Device`] if the learner's device fails.
    pub fn actor(&mut self) -> Result<Actor, Error> {
        let theta = self.learner.snapshot()?.get("policy").expect("every learner has a policy").to_vec();
        Ok(Actor::new(self.policy(), theta, self.bounds.clone()).with_normalizer(self.replay.normalizer.clone()))
    }

    fn policy(&self) -> Policy {
        Policy::new(&self.config, self.observation.ncols(), self.bounds.dimensions())
    }

    /// The best evaluation so far, where [`Config::keep_best`] asks for it.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// The policy of [`Self::best`].
    pub fn best_actor(&self) -> Option<Actor> {
        let best = self.best.as_ref()?;
        let actor = Actor::new(self.policy(), best.theta.clone(), self.bounds.clone());
        Some(actor.with_normalizer(best.normalizer.clone()))
    }

    /// Evaluates the deterministic policy over `episodes` episodes. Every evaluation of a run has the same start
    /// states, those of [`evaluate`](crate::actor::evaluate) with [`Config::seed`].
    ///
    /// # Errors
    /// [`Error::Evaluation`] if the environment fails; whatever keeps one from being made; [`Error::Interrupted`] if
    /// [`Self::watch`] breaks. The run itself stays as it is, and another evaluation has another environment.
    pub fn evaluate(&mut self, episodes: u64) -> Result<Evaluation, Error> {
        let (mut actor, seed) = (self.actor()?, self.config.seed);
        let mut env = match self.evaluation_env.take() {
            Some(env) => env,
            None => (self.make_env)()?,
        };
        let watch = |progress: EvaluationProgress| (self.watch)(Activity::Evaluation(progress));
        let evaluation = evaluate_watched(&mut actor, &mut *env, seed, episodes, false, watch)?;
        self.evaluation_env = Some(env);
        Ok(evaluation)
    }

    /// Whether the configuration asks for an evaluation after the last step, every `eval_every` steps and at the end, which
    /// has not been made.
    pub fn evaluation_is_due(&self) -> bool {
        self.before_evaluation
    }

    /// How many episodes the evaluation after this step has.
    pub fn episodes_of_evaluation(&self) -> u64 {
        if self.is_finished() { self.config.final_episodes } else { self.config.eval_episodes }
    }

    fn evaluates_here(&self) -> bool {
        self.config.eval_every > 0 && (self.is_finished() || self.has_reached(self.config.eval_every))
    }

    /// Whether the last round has reached a multiple of so many steps.
    pub(crate) fn has_reached(&self, every: u64) -> bool {
        self.steps % every < self.envs.len() as u64
    }

    /// Evaluates if [`Self::evaluation_is_due`], and keeps the policy if [`Config::keep_best`] asks for it and none has done
    /// better.
    ///
    /// # Errors
    /// As from [`Self::evaluate`]; the evaluation is then still due.
    pub fn evaluate_if_due(&mut self) -> Result<Option<Evaluation>, Error> {
        let episodes = self.episodes_of_evaluation();
        let evaluation = self.evaluation_is_due().then(|| self.evaluate(episodes)).transpose()?;
        self.before_evaluation = false;
        if let Some(mean_return) = evaluation.as_ref().filter(|_| self.config.keep_best).map(Evaluation::mean)
            && self.best.as_ref().is_none_or(|best| mean_return > best.mean_return)
        {
            let (step, actor) = (self.steps, self.actor()?);
            let (theta, normalizer) = (actor.theta().to_vec(), actor.normalizer().cloned());
            self.best = Some(Best { step, mean_return, theta, normalizer });
        }
        Ok(evaluation)
    }
}

/// The most threads that [`with_threads`] starts; far more than an update can keep busy.
pub const MAX_THREADS: usize = 256;

/// How many threads [`with_threads`] is best given for updates on the CPU: as many as make updates of this size faster, see
/// [`cost::threads`], but one for each core and `most` at most; 0 sets no such bound.
///
/// # Errors
/// If `most` is more than [`MAX_THREADS`].
pub fn threads_for(config: &Config, observation_size: usize, action_size: usize, most: usize) -> Result<usize, Error> {
    let most = match most {
        0 => MAX_THREADS,
        1..=MAX_THREADS => most,
        _ => return Err(Error::Threads { threads: most }),
    };
    Ok(cost::threads(config, observation_size, action_size).min(cores()).min(most))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` in a pool of `threads` threads, which [`threads_for`] chooses best; 0 stands for one for each core, which is
/// seldom of use to a single run.
///
/// Everything that is parallel within `work` uses this pool, and handing over work costs least from inside it. While updates
/// follow each other its threads stay awake, so several runs beside each other want a thread each.
///
/// # Errors
/// If that is more than [`MAX_THREADS`], or than the system gives.
pub fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R, Error> {
    let threads = match threads {
        0 => cores().min(MAX_THREADS),
        1..=MAX_THREADS => threads,
        _ => return Err(Error::Threads { threads }),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|_| Error::Threads { threads })?;
    Ok(threads::run(&pool, work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_no_more_threads_than_cores_nor_than_it_may() {
        let hidden = vec![256; 2];
        let large =
            Config { batch_size: 4096, policy_hidden: hidden.clone(), critic_hidden: hidden, ..Config::default() };
        for most in [0, 1, 2, 3, MAX_THREADS] {
            let threads = threads_for(&large, 3, 1, most).expect("so many may be asked for");
            assert!(threads >= 1 && threads <= cores());
            assert!(most == 0 || threads <= most);
        }
        let small = Config { batch_size: 8, policy_hidden: vec![4], critic_hidden: vec![4], ..Config::default() };
        assert_eq!(threads_for(&small, 3, 1, 8), Ok(1));
        assert_eq!(threads_for(&small, 3, 1, MAX_THREADS + 1), Err(Error::Threads { threads: MAX_THREADS + 1 }));
    }
}
