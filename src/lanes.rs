//! The environments that are trained on, side by side.

use crate::config::Config;
use crate::env::{Bounds, CheckedEnv, DeviceEnv, Env, EpisodeStatistics, Info, Step};
use crate::error::Error;
use crate::replay::Replay;
use crate::rng::{Philox, Stream};
use crate::train::{Activity, EnvState, Episode, Watch};
use rand::RngCore;
use rayon::prelude::*;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long all environments together must take for a step, one after another, before each is stepped on a thread of its own:
/// several times what it takes to wake those threads.
const HAND_OVER: Duration = Duration::from_micros(100);

/// As many environments as the configuration says. Environment i, from 0, of N has the episodes i + 1, i + 1 + N and so on, each
/// with a seed of its own, so that nothing depends on which of them is done first.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    seed: u64,
    /// A thread for each environment, if there are several.
    pool: Option<rayon::ThreadPool>,
    /// What the last steps took, all together.
    took: Duration,
    /// Why there can be no more steps.
    failure: Option<Error>,
}

/// An environment and where it stands.
pub(crate) struct Lane {
    env: CheckedEnv<Box<dyn Env>>,
    /// The observation to act upon, `[O]`.
    pub observation: Vec<f32>,
    /// The action to take, `[A]`, in the environment's own units.
    pub action: Vec<f32>,
    /// The episode so far.
    pub episode: Episode,
    /// Steps that have been handed on.
    steps: u64,
    /// Whether where the environment stands is where the episode does, and not a step ahead of it or before its beginning.
    in_step: bool,
    /// Whether the environment has failed in this episode.
    failed: bool,
    answer: Option<Answer>,
    took: Duration,
}

/// What came of a step, and of what it was the end, if of anything.
type Answer = Result<(Step, Option<Ended>), Error>;

/// What comes after the last step of an episode.
struct Ended {
    /// What the environment itself tells of the episode.
    statistics: Option<EpisodeStatistics>,
    info: Info,
    /// The first observation of the next one.
    first: Result<Vec<f32>, Error>,
}

impl Lanes {
    /// Environments made by `make_env`, at the beginning of their first episodes.
    pub fn new(mut make_env: impl FnMut() -> Result<Box<dyn Env>, Error>, config: &Config) -> Result<Self, Error> {
        let lane = |i| {
            let env = CheckedEnv::new(make_env()?);
            Ok(Lane {
                observation: Vec::new(),
                action: vec![0.0; env.action_bounds().dimensions()],
                episode: Episode { number: i + 1, length: 0, total_reward: 0.0, info: Info::NONE },
                steps: 0,
                in_step: true,
                failed: false,
                answer: None,
                took: Duration::ZERO,
                env,
            })
        };
        let mut lanes = (0..config.envs as u64).map(lane).collect::<Result<Vec<_>, Error>>()?;
        let space = |lane: &Lane| (lane.env.observation_size(), lane.env.action_bounds());
        if lanes.iter().any(|lane| space(lane) != space(&lanes[0])) {
            let problem = "its observations or actions are not those of the one made before".into();
            return Err(Error::Environment { step: 0, problem });
        }
        for lane in &mut lanes {
            lane.observation = lane.env.reset(episode_seed(config.seed, lane.episode.number))?;
        }
        let pool = (config.envs > 1).then(|| rayon::ThreadPoolBuilder::new().num_threads(config.envs).build());
        let pool = pool.transpose().map_err(|_| {
            Error::Config(format!("envs is {}; so many threads cannot be started, lower it (--envs)", config.envs))
        })?;
        Ok(Self { lanes, seed: config.seed, pool, took: Duration::ZERO, failure: None })
    }

    /// O.
    pub fn observation_size(&self) -> usize {
        self.lanes[0].env.observation_size()
    }

    /// The range of each action dimension, the same for all.
    pub fn action_bounds(&self) -> Bounds {
        self.lanes[0].env.action_bounds()
    }

    /// What a user should know of them.
    pub fn notes(&self) -> &[String] {
        self.lanes[0].env.notes()
    }

    /// Which environment of a device's own they are, if there is no more than one.
    pub fn on_device(&self) -> Option<DeviceEnv> {
        let [lane] = &self.lanes[..] else { return None };
        lane.env.on_device()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut()
    }

    /// Says whether there can be another step.
    ///
    /// # Errors
    /// What has failed, if there cannot.
    pub fn check(&self) -> Result<(), Error> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Takes the action of each environment there. Hands `push`, in their order, the number of each, where it stood before
    /// the step, and the step; and returns the episodes that ended, in the same order. Where the next one cannot begin, this
    /// step is done, and [`Self::check`] tells.
    ///
    /// # Errors
    /// The first environment's whose step fails. Nothing is handed on then.
    pub fn step(&mut self, mut push: impl FnMut(usize, &Lane, &Step)) -> Result<Vec<Episode>, Error> {
        let (seed, apart) = (self.seed, self.lanes.len() as u64);
        match &self.pool {
            // What takes long once is expected to do so again, and costs little where it does not.
            Some(pool) if self.took > HAND_OVER => {
                pool.install(|| self.lanes.par_iter_mut().with_max_len(1).for_each(|lane| lane.step(seed, apart)));
            }
            _ => self.lanes.iter_mut().for_each(|lane| lane.step(seed, apart)),
        }
        self.took = self.lanes.iter().map(|lane| lane.took).sum();
        let answers: Vec<_> =
            self.lanes.iter_mut().map(|lane| lane.answer.take().expect("it has taken its step")).collect();
        if let Some(Err(error)) = answers.iter().find(|answer| answer.is_err()) {
            for (lane, answer) in self.lanes.iter_mut().zip(&answers) {
                lane.in_step = answer.is_err();
                lane.failed = matches!(answer, Err(error) if *error != Error::Interrupted);
            }
            self.failure = Some(error.clone());
        }
        self.check()?;

        let mut ended = Vec::new();
        for (i, (lane, (step, end))) in self.lanes.iter_mut().zip(answers.into_iter().flatten()).enumerate() {
            push(i, lane, &step);
            lane.steps += 1;
            lane.episode.length += 1;
            lane.episode.total_reward += step.reward;
            let Some(Ended { statistics, info, first }) = end else {
                lane.observation = step.observation;
                continue;
            };
            let next = lane.episode.next(apart);
            let mut episode = Episode { info, ..std::mem::replace(&mut lane.episode, next) };
            if let Some(EpisodeStatistics { total_reward, length }) = statistics {
                (episode.total_reward, episode.length) = (total_reward, length);
            }
            ended.push(episode);
            lane.in_step = first.is_ok();
            match first {
                Ok(observation) => lane.observation = observation,
                Err(error) => self.failure = self.failure.take().or(Some(error)),
            }
        }
        Ok(ended)
    }

    /// Where they stand.
    pub fn save(&self) -> Vec<EnvState> {
        let apart = self.lanes.len() as u64;
        let save = |lane: &Lane| {
            // What does not stand where the episode does is of no use.
            let env = if lane.in_step { lane.env.save() } else { None };
            // An episode that cannot go on is not repeated: it would fail again.
            let gives_up = lane.failed && env.is_none() && lane.episode.length > 0;
            let episode = if gives_up { lane.episode.next(apart) } else { lane.episode.clone() };
            EnvState { env, env_steps: lane.steps, observation: lane.observation.clone(), episode }
        };
        self.lanes.iter().map(save).collect()
    }

    /// Goes back to where others stood, when `replay` was as it is. An environment that cannot save itself repeats its episode,
    /// and begins a new one where it does not answer as it did then. Returns whether all episodes go on.
    ///
    /// # Errors
    /// [`Error::Environment`] if one fails; [`Error::Interrupted`] if `watch` breaks.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn restore(&mut self, states: Vec<EnvState>, replay: &Replay, watch: &mut Watch) -> Result<bool, Error> {
        assert_eq!(states.len(), self.lanes.len());
        let (seed, apart) = (self.seed, self.lanes.len());
        self.failure = None;
        let of = states.iter().filter(|state| state.env.is_none()).map(|state| state.episode.length).sum();
        let watch = Mutex::new((0, watch));
        let repeated = || {
            let (steps, watch) = &mut *watch.lock().map_err(|_| Error::Interrupted)?;
            *steps += 1;
            let goes_on = watch(Activity::Repetition { steps: *steps, of }).is_continue();
            if goes_on { Ok(()) } else { Err(Error::Interrupted) }
        };
        let restore = |(i, (lane, state)): (usize, (&mut Lane, EnvState))| {
            (lane.steps, lane.in_step, lane.failed) = (state.env_steps, true, false);
            if let Some(env) = state.env {
                (lane.episode, lane.observation) = (state.episode, state.observation);
                return lane.env.restore(&env, state.env_steps, &lane.observation).map(|()| true);
            }
            // The newest transition of this environment, and those before it.
            let newest = replay.pushed().saturating_sub(apart - i);
            let goes_on = lane.repeat(seed, &state, replay, newest, repeated)?;
            lane.episode = state.episode;
            if !goes_on {
                if lane.episode.length > 0 {
                    lane.episode = lane.episode.next(apart as u64);
                }
                lane.env.set_steps(state.env_steps);
                lane.observation = lane.env.reset(episode_seed(seed, lane.episode.number))?;
            }
            Ok(goes_on)
        };
        let lanes = self.lanes.iter_mut().zip(states).enumerate();
        let all_go_on: Vec<_> = match &self.pool {
            Some(pool) => {
                let lanes: Vec<_> = lanes.collect();
                pool.install(|| lanes.into_par_iter().with_max_len(1).map(restore).collect::<Result<_, Error>>())?
            }
            None => lanes.map(restore).collect::<Result<_, Error>>()?,
        };
        Ok(all_go_on.into_iter().all(|goes_on| goes_on))
    }
}

impl Lane {
    /// Takes the action, and begins the next episode, whose number lies so far `apart`, if it ends one.
    fn step(&mut self, seed: u64, apart: u64) {
        let began = Instant::now();
        self.answer = Some(self.env.step(&self.action).map(|step| {
            let ended = step.terminated || step.truncated;
            let end = ended.then(|| Ended {
                statistics: self.env.episode_statistics(),
                info: self.env.info(),
                first: self.env.reset(episode_seed(seed, self.episode.number + apart)),
            });
            (step, end)
        }));
        self.took = began.elapsed();
    }

    /// Resets the environment with the seed of the episode of `state`, and repeats that episode's actions, the last of which
    /// belongs to transition `newest`. Returns whether everything came as it did then, bit for bit, so that the environment
    /// stands where it stood.
    fn repeat(
        &mut self,
        seed: u64,
        state: &EnvState,
        replay: &Replay,
        newest: usize,
        repeated: impl Fn() -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let EnvState { env_steps, observation, episode, .. } = state;
        let apart = replay.environments();
        let Some(length) = usize::try_from(episode.length).ok().filter(|&length| length <= replay.len() / apart) else {
            return Ok(false);
        };
        self.env.set_steps(env_steps.saturating_sub(episode.length));
        self.observation = self.env.reset(episode_seed(seed, episode.number))?;
        let (o, bounds) = (self.observation.len(), self.env.action_bounds());
        let mut then = vec![0.0; replay.transition_size()];
        let mut total_reward = 0.0;
        for age in (0..length).rev() {
            replay.write_transition((newest - age * apart) % replay.capacity(), &mut then);
            let (observation, rest) = then.split_at(o);
            let (action, rest) = rest.split_at(bounds.dimensions());
            if !same_bits(observation, &self.observation) {
                return Ok(false);
            }
            bounds.scale(action, &mut self.action);
            let step = self.env.step(&self.action)?;
            // The episode was not over yet.
            if !same_bits(&[step.reward as f32], &rest[..1]) || step.terminated || step.truncated {
                return Ok(false);
            }
            total_reward += step.reward;
            self.observation = step.observation;
            repeated()?;
        }
        Ok(same_bits(observation, &self.observation) && total_reward.to_bits() == episode.total_reward.to_bits())
    }
}

fn same_bits(some: &[f32], others: &[f32]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(one, other)| one.to_bits() == other.to_bits())
}

/// The seed of a training episode.
fn episode_seed(seed: u64, number: u64) -> u64 {
    Philox::new(seed, Stream::Environment, number).next_u64()
}
