//! Which runs of a command share a GPU: those that differ in their seeds alone, all at once.

use anyhow::Result;
use soft_actor_critic::config::Config;
use soft_actor_critic::device::{self, Device};
use soft_actor_critic::sac::AgentLearner;
use soft_actor_critic::session::learner_config;
use std::sync::{Mutex, PoisonError};

/// The learners of the first runs of a command, which wait for each other; the runs behind them have their own, as have
/// all if there are none here.
#[derive(Default)]
pub struct Agents {
    learners: Vec<Mutex<Option<AgentLearner>>>,
    /// What to tell the user.
    pub note: Option<String>,
}

/// All that decides a learner but its seed.
#[derive(Clone, PartialEq)]
pub struct Kind {
    /// What the run is trained on.
    pub environment: String,
    /// Its configuration, but for the seed.
    pub config: Config,
    /// Where it is trained.
    pub device: Device,
    preloaded: u64,
}

impl Kind {
    /// Of a run whose replay memory begins with so many transitions.
    pub fn new(environment: &str, config: &Config, device: Device, preloaded: u64) -> Self {
        let config = Config { seed: 0, ..config.clone() };
        Self { environment: environment.into(), config, device, preloaded }
    }
}

impl Agents {
    /// Learners for runs of one kind with these seeds, if they can share a GPU; none else.
    pub fn new(kind: &Kind, seeds: &[u64], observation_size: usize, half_range: &[f32]) -> Result<Self> {
        let config = learner_config(&kind.config, kind.preloaded);
        let shared = kind.device.agents(&config, seeds, observation_size, half_range)?;
        Ok(shared.map_or_else(Self::default, |device::Agents { learners, note }| Self {
            learners: learners.into_iter().map(|learner| Mutex::new(Some(learner))).collect(),
            note: Some(note),
        }))
    }

    /// How many runs share, all of which must be trained at the same time.
    pub fn runs(&self) -> usize {
        self.learners.len()
    }

    /// The learner of a run, by its number, if it shares one; the others go on without it once it is dropped.
    pub fn take(&self, number: usize) -> Option<AgentLearner> {
        self.learners.get(number)?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
