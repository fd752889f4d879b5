//! The training loop: act, step, store, learn; and evaluate.

use crate::actor::{Actor, Evaluation, evaluate};
use crate::config::Config;
use crate::env::{Bounds, CheckedEnv, Env};
use crate::error::Error;
use crate::nn::threads;
use crate::normalizer::Normalizer;
use crate::replay::{Replay, Transition};
use crate::rng::{Philox, Stream};
use crate::sac::{CpuLearner, Learner, Metrics, Policy, Snapshot, work};
use ndarray::Array2;
use rand::{Rng, RngCore};
use rand_distr::StandardNormal;

/// A finished training episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// Its number, counted from 1.
    pub number: u64,
    /// Its steps.
    pub length: u64,
    /// The sum of its rewards.
    pub total_reward: f64,
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
    /// The environment, if it can tell; see [`Env::save`].
    pub env: Option<Vec<u8>>,
    /// Steps that the environment has taken.
    pub env_steps: u64,
    /// The observation to act upon, `[O]`.
    pub observation: Vec<f32>,
    /// The statistics of all observations, where [`Config::normalize_observations`] asks for them.
    pub normalizer: Option<Normalizer>,
    /// Environment steps, each of which has stored a transition.
    pub steps: u64,
    /// Transitions that the replay memory held before the first step.
    pub preloaded: u64,
    /// Updates made.
    pub updates: u64,
    /// The episode so far.
    pub episode: Episode,
    /// The best evaluation, where [`Config::keep_best`] asks for it and there has been one.
    pub best: Option<Best>,
}

/// One training run, advanced a step at a time.
///
/// Results depend on the configuration and the environment alone, not on the number of threads. Steps are fastest
/// inside a thread pool; see [`threads_for`] and [`with_threads`].
pub struct Trainer {
    config: Config,
    env: CheckedEnv<Box<dyn Env>>,
    evaluation_env: Box<dyn Env>,
    bounds: Bounds,
    learner: Box<dyn Learner>,
    replay: Replay,

    action: Array2<f32>,
    action_noise: Array2<f32>,
    scaled_action: Vec<f32>,

    observation: Vec<f32>,
    /// The same, as the policy sees it.
    seen: Array2<f32>,
    steps: u64,
    preloaded: u64,
    updates: u64,
    episode: Episode,
    best: Option<Best>,
    last_metrics: Metrics,
    /// Why the episode cannot begin that is to.
    no_episode: Option<Error>,
}

impl Trainer {
    /// A run on the CPU before its first step. `make_env` is called twice, for training and for evaluation.
    ///
    /// # Errors
    /// If `config` is invalid, the replay memory does not fit, or the environment fails.
    pub fn new(make_env: impl Fn() -> Box<dyn Env>, config: Config) -> Result<Self, Error> {
        Self::with_learner(
            || Ok(make_env()),
            config,
            |config, observation_size, half_range| Ok(Box::new(CpuLearner::new(config, observation_size, half_range))),
        )
    }

    /// As [`Self::new`], with environments that it may not be possible to make, and with the learner that `make_learner` makes from the configuration, the number of observation
    /// dimensions, and half the range of each action dimension.
    ///
    /// # Errors
    /// As from [`Self::new`], `make_env` and `make_learner`.
    pub fn with_learner(
        mut make_env: impl FnMut() -> Result<Box<dyn Env>, Error>,
        config: Config,
        make_learner: impl FnOnce(&Config, usize, &[f32]) -> Result<Box<dyn Learner>, Error>,
    ) -> Result<Self, Error> {
        config.validate()?;
        let mut env = CheckedEnv::new(make_env()?);
        let bounds = env.action_bounds();
        let (o, a) = (env.observation_size(), bounds.dimensions());
        let mut replay = Replay::new(config.replay_rows(), o, a)?;
        replay.normalizer = config.normalize_observations.then(|| Normalizer::new(o));
        let observation = env.reset(episode_seed(config.seed, 1))?;
        Ok(Self {
            evaluation_env: make_env()?,
            learner: make_learner(&config, o, &bounds.half_range())?,
            replay,
            action: Array2::zeros((1, a)),
            action_noise: Array2::zeros((1, a)),
            scaled_action: vec![0.0; a],
            observation,
            seen: Array2::zeros((1, o)),
            steps: 0,
            preloaded: 0,
            updates: 0,
            episode: Episode { number: 1, length: 0, total_reward: 0.0 },
            best: None,
            last_metrics: Metrics::default(),
            no_episode: None,
            env,
            bounds,
            config,
        })
    }

    /// Where the run stands between two steps: all that [`Self::restore`] needs, besides the replay memory.
    ///
    /// # Errors
    /// [`Error::Device`] if the learner's device fails.
    pub fn save(&mut self) -> Result<TrainerState, Error> {
        let (env, env_steps) = self.env.save();
        // Where it stands is of no use to an episode that has not begun.
        let env = env.filter(|_| self.no_episode.is_none());
        Ok(TrainerState {
            learner: self.learner.snapshot()?,
            env,
            env_steps,
            observation: self.observation.clone(),
            normalizer: self.replay.normalizer.clone(),
            steps: self.steps,
            preloaded: self.preloaded,
            updates: self.updates,
            episode: self.episode,
            best: self.best.clone(),
        })
    }

    /// Goes on from where another run of the same configuration stood, with the memory that it had. Where the environment
    /// cannot be restored a new episode begins; says whether the one of then goes on.
    ///
    /// Where the memory has begun with transitions from before the first step, it has the room of
    /// [`Config::replay_rows_with`], and a learner on a device must have been made for as many.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if `state` or `replay` does not fit; [`Error::Environment`] if the environment fails.
    pub fn restore(&mut self, state: TrainerState, replay: Replay) -> Result<bool, Error> {
        if state.observation.len() != self.observation.len() {
            let (found, size) = (state.observation.len(), self.observation.len());
            return Err(Error::Snapshot(format!("its observation has {found} elements instead of {size}")));
        }
        let fits = |normalizer: &Option<Normalizer>| {
            let size = self.config.normalize_observations.then_some(self.observation.len());
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
        let room = (self.config.replay_rows_with(state.preloaded), self.replay.transition_size());
        let same = (replay.capacity(), replay.transition_size()) == room;
        if !same || Some(replay.pushed() as u64) != state.steps.checked_add(state.preloaded) {
            return Err(Error::Snapshot("its replay memory is that of another run".into()));
        }
        self.learner.restore(&state.learner)?;
        self.last_metrics = self.learner.metrics()?;
        self.replay = replay;
        self.replay.normalizer = state.normalizer;
        (self.steps, self.preloaded) = (state.steps, state.preloaded);
        (self.updates, self.episode, self.best) = (state.updates, state.episode, state.best);
        match state.env {
            Some(env) => {
                self.env.restore(&env, state.env_steps)?;
                self.observation = state.observation;
                Ok(true)
            }
            None => {
                self.env.set_steps(state.env_steps);
                let begun = self.episode.length > 0;
                let number = self.episode.number + u64::from(begun);
                self.episode = Episode { number, length: 0, total_reward: 0.0 };
                self.observation = self.env.reset(episode_seed(self.config.seed, number))?;
                Ok(!begun)
            }
        }
    }

    /// What has been stored to learn from.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// What it learns with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Environment steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether all steps of the configuration have been taken.
    pub fn is_finished(&self) -> bool {
        self.steps >= self.config.steps
    }

    /// Takes one step in the environment, and makes one update once there is enough to learn from. Returns the episode
    /// if this step ended one.
    ///
    /// # Errors
    /// [`Error::Environment`] if the environment fails or returns what it must not, [`Error::NonFinite`] if a loss or
    /// an action is not finite; the policy then stays as it was before. [`Error::Device`] if the learner's device fails.
    /// After an [`Error::Environment`] the run stands where it stood before this step, and can be saved.
    pub fn step(&mut self) -> Result<Option<Episode>, Error> {
        if let Some(error) = &self.no_episode {
            return Err(error.clone());
        }
        self.act()?;
        let step = self.env.step(&self.scaled_action)?;
        self.replay.push(Transition {
            observation: &self.observation,
            action: self.action.as_slice().expect("it is a single row"),
            reward: step.reward as f32,
            next_observation: &step.observation,
            terminated: step.terminated,
            truncated: step.truncated,
        });
        if let Some(normalizer) = &mut self.replay.normalizer {
            // Each observation once, when its step is done: s has been the s′ of the step before, but for the first.
            if self.episode.length == 0 {
                normalizer.add(&self.observation);
            }
            normalizer.add(&step.observation);
        }
        self.observation = step.observation;
        self.steps += 1;
        self.episode.length += 1;
        self.episode.total_reward += step.reward;

        let mut finished = None;
        if step.terminated || step.truncated {
            finished = Some(self.episode);
            self.episode = Episode { number: self.episode.number + 1, length: 0, total_reward: 0.0 };
            // This step is done, whatever becomes of the next.
            match self.env.reset(episode_seed(self.config.seed, self.episode.number)) {
                Ok(observation) => self.observation = observation,
                Err(error) => self.no_episode = Some(error),
            }
        }
        if self.steps >= self.config.first_update() {
            self.learn()?;
        }
        Ok(finished)
    }

    /// Chooses the action of this step: uniformly at random at first, then from the policy.
    fn act(&mut self) -> Result<(), Error> {
        let random = self.steps < self.config.random_steps;
        // An action that is held is drawn again from the step at which it was first.
        let drawn_at = if random { self.steps - self.steps % self.config.random_hold } else { self.steps };
        let mut rng = Philox::new(self.config.seed, Stream::Action, drawn_at);
        if random {
            self.action.iter_mut().for_each(|action| *action = rng.random_range(-1.0..=1.0));
        } else {
            self.action_noise.iter_mut().for_each(|noise| *noise = rng.sample(StandardNormal));
            let seen = self.seen.as_slice_mut().expect("it is a single row");
            seen.copy_from_slice(&self.observation);
            if let Some(normalizer) = &self.replay.normalizer {
                normalizer.apply(seen);
            }
            self.learner.act(self.seen.view(), Some(self.action_noise.view()), self.action.view_mut())?;
        }
        if self.action.iter().any(|action| !action.is_finite()) {
            return Err(Error::NonFinite { step: self.steps, quantity: "action" });
        }
        self.bounds.scale(self.action.as_slice().expect("it is a single row"), &mut self.scaled_action);
        Ok(())
    }

    /// Makes one update.
    fn learn(&mut self) -> Result<(), Error> {
        self.learner.learn(&self.replay, self.updates)?;
        self.updates += 1;
        match self.metrics()?.failure {
            Some((_, quantity)) => Err(Error::NonFinite { step: self.steps, quantity }),
            None => Ok(()),
        }
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
        Policy::new(&self.config, self.observation.len(), self.bounds.dimensions())
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

    /// Evaluates the deterministic policy over `episodes` episodes. Every evaluation of a run has the same start states.
    ///
    /// # Errors
    /// [`Error::Environment`], as from [`Self::step`].
    pub fn evaluate(&mut self, episodes: u64) -> Result<Evaluation, Error> {
        let seed = self.config.seed;
        evaluate(&mut self.actor()?, &mut *self.evaluation_env, seed, episodes, false)
    }

    /// Whether the configuration asks for an evaluation at this step: every `eval_every` steps, and at the end.
    pub fn evaluation_is_due(&self) -> bool {
        self.config.eval_every > 0 && (self.is_finished() || self.steps.is_multiple_of(self.config.eval_every))
    }

    /// Evaluates if [`Self::evaluation_is_due`], and keeps the policy if [`Config::keep_best`] asks for it and none has done
    /// better.
    ///
    /// # Errors
    /// [`Error::Environment`], as from [`Self::step`].
    pub fn evaluate_if_due(&mut self) -> Result<Option<Evaluation>, Error> {
        let Config { eval_episodes, final_episodes, .. } = self.config;
        let episodes = if self.is_finished() { final_episodes } else { eval_episodes };
        let evaluation = self.evaluation_is_due().then(|| self.evaluate(episodes)).transpose()?;
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

/// The seed of a training episode.
fn episode_seed(seed: u64, number: u64) -> u64 {
    Philox::new(seed, Stream::Environment, number).next_u64()
}

/// The most threads that [`with_threads`] starts; far more than an update can keep busy.
pub const MAX_THREADS: usize = 256;

/// How many threads [`with_threads`] is best given for updates on the CPU: as many as make updates of this size faster, see
/// [`work::threads`], but one for each core and `most` at most; 0 sets no such bound.
///
/// # Errors
/// If `most` is more than [`MAX_THREADS`].
pub fn threads_for(config: &Config, observation_size: usize, action_size: usize, most: usize) -> Result<usize, Error> {
    let most = match most {
        0 => MAX_THREADS,
        1..=MAX_THREADS => most,
        _ => return Err(Error::Threads { threads: most }),
    };
    Ok(work::threads(config, observation_size, action_size).min(cores()).min(most))
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
