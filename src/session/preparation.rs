//! What a run needs before its first step: the sizes of its environment, its threads, its trainer.

use crate::config::Config;
use crate::device::{Device, Placed};
use crate::env::Env;
use crate::error::Error;
use crate::sac::AgentLearner;
use crate::train::{Trainer, threads_for};

/// What makes the environment of a run, as often as it is called.
pub type MakeEnv = Box<dyn FnMut() -> Result<Box<dyn Env>, Error> + Send>;

/// The number of observation dimensions O, and half the range of each action dimension, `[A]`. That takes an
/// environment, which is then the first that the function returned here makes.
///
/// # Errors
/// If the environment cannot be made.
pub fn sizes(mut make_env: MakeEnv) -> Result<(MakeEnv, usize, Vec<f32>), Error> {
    let env = make_env()?;
    let (observation_size, half_range) = (env.observation_size(), env.action_bounds().half_range());
    let mut first = Some(env);
    Ok((Box::new(move || first.take().map_or_else(&mut make_env, Ok)), observation_size, half_range))
}

/// The configuration of a learner whose memory begins with `preloaded` transitions: it has room for a transition for
/// each step, and for those besides.
pub fn learner_config(config: &Config, preloaded: u64) -> Config {
    let steps = config.steps.next_multiple_of(config.envs as u64).saturating_add(preloaded);
    Config { steps, ..config.clone() }
}

/// The number of threads for a run, at most `most`; 0 sets no such bound.
pub(super) fn number_of_threads(most: usize, make_env: MakeEnv, config: &Config) -> Result<(MakeEnv, usize), Error> {
    let (make_env, observation_size, half_range) = sizes(make_env)?;
    Ok((make_env, threads_for(config, observation_size, half_range.len(), most)?))
}

/// A trainer before its first step, and where it trains.
pub(super) struct PlacedTrainer {
    pub trainer: Trainer,
    /// Never [`Device::Auto`].
    pub device: Device,
    /// What to tell the user about the device, if there is anything.
    pub note: Option<String>,
}

impl PlacedTrainer {
    /// One whose replay memory will begin with `preloaded` transitions, with its own learner unless it has one that is
    /// `shared` with other runs on `device`.
    pub fn new(
        make_env: MakeEnv,
        config: Config,
        device: Device,
        preloaded: u64,
        shared: Option<AgentLearner>,
    ) -> Result<Self, Error> {
        let mut place = None;
        let mut trainer = Trainer::with_learner(make_env, config, |config, observation_size, half_range| {
            if let Some(learner) = shared {
                place = Some((device, None));
                return Ok(Box::new(learner));
            }
            let config = &learner_config(config, preloaded);
            let Placed { learner, device, note } = device.learner(config, observation_size, half_range)?;
            place = Some((device, note));
            Ok(learner)
        })?;
        let (device, note): (Device, Option<String>) = place.expect("a trainer has a learner");
        let whole = if trainer.is_on_device() { "; the whole run is on the device" } else { "" };
        Ok(Self { trainer, device, note: note.map(|note| note + whole) })
    }
}
