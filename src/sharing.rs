//! Which runs of a command share a GPU: those that differ in their seeds alone, all at once.

use crate::MakeEnv;
use crate::cli::ResumeArgs;
use crate::resuming::Task;
use anyhow::Result;
use soft_actor_critic::config::Config;
use soft_actor_critic::device::{Agents, Device};
use soft_actor_critic::run::Plan;
use soft_actor_critic::sac::AgentLearner;
use std::sync::{Mutex, PoisonError};

/// The learners of the first runs of a command, which wait for each other; the runs behind them have their own, as have all if
/// there are none here.
#[derive(Default)]
pub struct Sharing {
    learners: Vec<Mutex<Option<AgentLearner>>>,
    /// What to tell the user.
    pub note: Option<String>,
}

/// All that decides a learner but its seed.
#[derive(Clone, PartialEq)]
pub struct Kind {
    environment: String,
    config: Config,
    device: Device,
    preloaded: u64,
}

impl Kind {
    /// Of a run whose replay memory begins with so many transitions.
    pub fn new(environment: &str, config: &Config, device: Device, preloaded: u64) -> Self {
        let config = Config { seed: 0, ..config.clone() };
        Self { environment: environment.into(), config, device, preloaded }
    }
}

impl Sharing {
    /// Learners for runs of one kind with these seeds, if they can share a GPU; none else.
    pub fn new(kind: &Kind, seeds: &[u64], observation_size: usize, half_range: &[f32]) -> Result<Self> {
        let config = learner_config(&kind.config, kind.preloaded);
        let agents = kind.device.agents(&config, seeds, observation_size, half_range)?;
        Ok(agents.map_or_else(Self::default, |Agents { learners, note }| Self {
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

/// What a learner is made for whose memory begins with so many transitions: it has room for a transition for each step, and for
/// those besides.
pub fn learner_config(config: &Config, preloaded: u64) -> Config {
    let steps = config.steps.next_multiple_of(config.envs as u64).saturating_add(preloaded);
    Config { steps, ..config.clone() }
}

/// Puts the runs that can share a GPU before all others: those of the same kind as the first that is trained on one.
pub fn share(
    args: &ResumeArgs,
    tasks: &mut Vec<Task>,
    sizes: impl FnOnce(&str, &Config) -> Result<(MakeEnv, usize, Vec<f32>)>,
) -> Result<Sharing> {
    let kinds: Vec<_> = tasks.iter().map(|task| kind_of(args, task)).collect();
    let on_gpu = |kind: &&(Kind, u64)| matches!(kind.0.device, Device::Cuda(_));
    let Some((kind, _)) = kinds.iter().flatten().find(on_gpu).cloned() else { return Ok(Sharing::default()) };
    let shares = |known: &Option<(Kind, u64)>| known.as_ref().is_some_and(|(other, _)| *other == kind);
    let seeds: Vec<_> = kinds.iter().filter(|known| shares(known)).flatten().map(|(_, seed)| *seed).collect();
    if seeds.len() < 2 {
        return Ok(Sharing::default());
    }
    let (_, observation_size, half_range) = sizes(&kind.environment, &kind.config)?;
    let sharing = Sharing::new(&kind, &seeds, observation_size, &half_range)?;
    if sharing.runs() > 0 {
        let mut known = kinds.iter();
        let (first, others): (Vec<_>, Vec<_>) = tasks.drain(..).partition(|_| known.next().is_some_and(shares));
        tasks.extend(first.into_iter().chain(others));
    }
    Ok(sharing)
}

/// The kind of a run that is to go on, or to begin, and its seed; none if it cannot be known, which is told when it is to go
/// on, or does not matter.
fn kind_of(args: &ResumeArgs, Task { path, plan, .. }: &Task) -> Option<(Kind, u64)> {
    if let Some(Plan { environment, config, device, with_replay, .. }) = plan {
        // What the memory of another run holds is known too late.
        return (!with_replay).then(|| (Kind::new(environment, config, *device, 0), config.seed));
    }
    if !matches!(args.device, None | Some(Device::Cuda(_))) {
        return None;
    }
    let (run, config, seen) = args.look(path)?;
    let device = args.device.or_else(|| seen.device.parse().ok())?;
    Some((Kind::new(run.environment(), &config, device, seen.state.preloaded), config.seed))
}
