//! A trained policy in the environment's own units, and how well it does.

use crate::env::{Bounds, CheckedEnv, Env, Info, Step};
use crate::error::Error;
use crate::nn::{Theta, assert_shape, undivided};
use crate::normalizer::Normalizer;
use crate::rng::{Philox, Stream};
use crate::sac::{Policy, PolicyPass};
use ndarray::{Array2, ArrayView2};
use rand::{Rng, RngCore};
use rand_distr::StandardNormal;
use std::ops::ControlFlow;

/// A policy with its parameters and the bounds of its actions: all that acting needs.
#[derive(Clone, Debug)]
pub struct Actor {
    policy: Policy,
    theta: Theta<f32>,
    bounds: Bounds,
    normalizer: Option<Normalizer>,
    /// The observation as the policy sees it.
    seen: Array2<f32>,
    pass: PolicyPass<f32>,
    action: Array2<f32>,
}

impl Actor {
    /// The policy with the parameters `theta`, for an environment with these action bounds.
    ///
    /// # Panics
    /// If `theta` or `bounds` do not fit the shape of `policy`.
    pub fn new(policy: Policy, theta: Vec<f32>, bounds: Bounds) -> Self {
        assert_shape("theta", &[theta.len()], &[policy.parameters()]);
        assert_shape("the bounds", &[bounds.dimensions()], &[policy.action_size()]);
        let action = Array2::zeros((1, policy.action_size()));
        let seen = Array2::zeros((1, policy.observation_size()));
        let (pass, theta) = (policy.pass(&undivided(1)), policy.theta(&theta, false));
        Self { policy, theta, bounds, normalizer: None, seen, pass, action }
    }

    /// The same policy, which sees observations through `normalizer`.
    ///
    /// # Panics
    /// If that is for another number of dimensions.
    #[must_use]
    pub fn with_normalizer(self, normalizer: Option<Normalizer>) -> Self {
        if let Some(normalizer) = &normalizer {
            let (theirs, ours) = (normalizer.observation_size(), self.policy.observation_size());
            assert_shape("the normalizer", &[theirs], &[ours]);
        }
        Self { normalizer, ..self }
    }

    /// The shape of the policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its parameters, flat.
    pub fn theta(&self) -> &[f32] {
        &self.theta
    }

    /// The range of each action dimension.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// What it sees observations through, if anything.
    pub fn normalizer(&self) -> Option<&Normalizer> {
        self.normalizer.as_ref()
    }

    /// Whether this policy can act in `env`.
    ///
    /// # Errors
    /// [`Error::Policy`] if their numbers of observation dimensions, or their action bounds, differ.
    pub fn fits(&self, env: &dyn Env) -> Result<(), Error> {
        let needs = [self.policy.observation_size(), self.policy.action_size()];
        match mismatch(needs, Some(&self.bounds), env.observation_size(), &env.action_bounds()) {
            Some(problem) => Err(Error::Policy(problem)),
            None => Ok(()),
        }
    }

    /// Writes the action for `observation` `[O]` to `action` `[A]`, in the environment's units: sampled with the
    /// standard normal `noise` `[A]`, or deterministic without it.
    ///
    /// # Panics
    /// If one of them is of another length; the message names what it is and what it must be.
    pub fn act(&mut self, observation: &[f32], noise: Option<&[f32]>, action: &mut [f32]) {
        let (o, a) = (self.policy.observation_size(), self.policy.action_size());
        assert_shape("the observation", &[observation.len()], &[o]);
        noise.inspect(|noise| assert_shape("the noise", &[noise.len()], &[a]));
        assert_shape("the action", &[action.len()], &[a]);
        let seen = self.seen.as_slice_mut().expect("it is a single row");
        seen.copy_from_slice(observation);
        if let Some(normalizer) = &self.normalizer {
            normalizer.apply(seen);
        }
        let noise = noise.map(|noise| ArrayView2::from_shape((1, noise.len()), noise).expect("a slice is a row"));
        self.policy.act(&self.theta, self.seen.view(), noise, &mut self.pass, self.action.view_mut());
        self.bounds.scale(self.action.as_slice().expect("it is a single row"), action);
    }
}

/// The returns of evaluation episodes: undiscounted sums of rewards, or what the environment
/// [tells instead](Env::episode_statistics).
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// One for each episode, in the order of their seeds.
    pub returns: Vec<f64>,
    /// The means of the numbers that the [environment gives](Env::info) of its episodes, a success rate for instance.
    pub info: Info,
}

impl Evaluation {
    /// The mean return.
    pub fn mean(&self) -> f64 {
        self.returns.iter().sum::<f64>() / self.returns.len() as f64
    }

    /// The standard deviation over episodes (of these episodes, divided by their number).
    pub fn std(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.returns.iter().map(|r| (r - mean).powi(2)).sum();
        (squares / self.returns.len() as f64).sqrt()
    }

    /// The smallest return.
    pub fn min(&self) -> f64 {
        self.returns.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The largest return.
    pub fn max(&self) -> f64 {
        self.returns.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Where an evaluation stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluationProgress<'a> {
    /// How many episodes it has.
    pub episodes: u64,
    /// The returns of the episodes that have ended.
    pub returns: &'a [f64],
    /// Steps taken in the next episode.
    pub steps: u64,
}

/// A seed for the evaluation of a trained policy, which no [`Config::seed`](crate::config::Config::seed) can be. Its
/// episodes are others than those of every evaluation during training, by which the policy may have been chosen.
pub const UNSEEN: u64 = 1 << 63;

/// Runs `episodes` episodes whose start states, and noise if `stochastic`, depend on `seed` alone. Evaluations during
/// training have the seed of the run; [`UNSEEN`] is the seed of no run.
///
/// # Errors
/// [`Error::Policy`] if the policy does not fit the environment, [`Error::Evaluation`] if that fails or returns what it
/// must not, or if an action is not finite.
///
/// # Panics
/// If `episodes` is 0. It never returns if the environment never ends an episode; see [`evaluate_watched`].
pub fn evaluate(
    actor: &mut Actor,
    env: &mut dyn Env,
    seed: u64,
    episodes: u64,
    stochastic: bool,
) -> Result<Evaluation, Error> {
    evaluate_watched(actor, env, seed, episodes, stochastic, |_| ControlFlow::Continue(()))
}

/// The same as [`evaluate`]. It calls `watch` before each episode and after each step, and stops when that breaks.
///
/// # Errors
/// As from [`evaluate`]; [`Error::Interrupted`] if `watch` breaks.
///
/// # Panics
/// If `episodes` is 0.
pub fn evaluate_watched(
    actor: &mut Actor,
    env: &mut dyn Env,
    seed: u64,
    episodes: u64,
    stochastic: bool,
    mut watch: impl FnMut(EvaluationProgress) -> ControlFlow<()>,
) -> Result<Evaluation, Error> {
    assert!(episodes > 0, "an evaluation has at least one episode");
    actor.fits(env)?;
    let mut env = CheckedEnv::new(env);
    let (mut returns, mut info) = (Vec::new(), Vec::new());
    for episode in 0..episodes {
        let mut go_on = |steps| {
            let goes_on = watch(EvaluationProgress { episodes, returns: &returns, steps }).is_continue();
            if goes_on { Ok(()) } else { Err(Error::Interrupted) }
        };
        go_on(0)?;
        let mut steps = 0;
        let total = run_episode(actor, &mut env, seed, episode, stochastic, |_, _, _| {
            steps += 1;
            go_on(steps)
        })?;
        returns.push(total);
        info.push(env.info());
    }
    Ok(Evaluation { returns, info: Info::means(&info) })
}

/// Runs one of the episodes that `seed` tells, calls `after_step` with the environment, the action and what came of it,
/// and returns the return.
pub(crate) fn run_episode(
    actor: &mut Actor,
    env: &mut CheckedEnv<&mut dyn Env>,
    seed: u64,
    episode: u64,
    stochastic: bool,
    mut after_step: impl FnMut(&mut CheckedEnv<&mut dyn Env>, &[f32], &Step) -> Result<(), Error>,
) -> Result<f64, Error> {
    let mut action = vec![0.0; actor.bounds.dimensions()];
    let mut noise = vec![0.0; action.len()];
    let mut rng = Philox::new(seed, Stream::Evaluation, episode);
    let mut steps = 0;
    let failed = |step, error| match error {
        Error::Environment { problem, .. } => {
            Error::Evaluation { episode: episode + 1, step, problem: format!("{problem}; fix the environment") }
        }
        other => other,
    };
    let mut observation = env.reset(rng.next_u64()).map_err(|error| failed(steps, error))?;
    let mut total = 0.0;
    loop {
        noise.iter_mut().for_each(|noise| *noise = rng.sample(StandardNormal));
        actor.act(&observation, stochastic.then_some(&noise), &mut action);
        if action.iter().any(|action| !action.is_finite()) {
            let problem = "the policy's action is not finite; use another policy".into();
            return Err(Error::Evaluation { episode: episode + 1, step: steps, problem });
        }
        let step = env.step(&action).map_err(|error| failed(steps + 1, error))?;
        steps += 1;
        total += step.reward;
        after_step(env, &action, &step)?;
        if step.terminated || step.truncated {
            return Ok(env.episode_statistics().map_or(total, |statistics| statistics.total_reward));
        }
        observation = step.observation;
    }
}

/// How an environment of `observation_size` and `bounds` differs from one of the sizes `needs`, O and A, and the bounds
/// `needs_bounds`, where these are known.
pub(crate) fn mismatch(
    needs: [usize; 2],
    needs_bounds: Option<&Bounds>,
    observation_size: usize,
    bounds: &Bounds,
) -> Option<String> {
    let has = [observation_size, bounds.dimensions()];
    if has != needs {
        let ([o, a], [has_o, has_a]) = (needs, has);
        return Some(format!(
            "it is for {o} observation and {a} action dimensions, of which there are {has_o} and {has_a}"
        ));
    }
    let needs = needs_bounds.filter(|needs| *needs != bounds)?;
    let range = |bounds: &Bounds| format!("{:?} to {:?}", bounds.low(), bounds.high());
    Some(format!("it is for actions from {}, not from {}", range(needs), range(bounds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Acts with observations, noise and actions of so many numbers, where the policy has 3 and 1.
    fn act(observation: usize, noise: usize, action: usize) {
        let config = Config { policy_hidden: vec![4], ..Config::default() };
        let policy = Policy::new(&config, 3, 1);
        let theta = policy.initial(&config, &mut Philox::new(0, Stream::Init, 0));
        let bounds = Bounds::new(vec![-2.0], vec![2.0]).expect("it is a range");
        let mut actor = Actor::new(policy, theta, bounds);
        actor.act(&vec![0.5; observation], Some(&vec![0.0; noise]), &mut vec![0.0; action]);
    }

    #[test]
    #[should_panic(expected = "the observation must be of shape [3], not [4]")]
    fn an_observation_of_another_length_is_named() {
        act(4, 1, 1);
    }

    #[test]
    #[should_panic(expected = "the noise must be of shape [1], not [3]")]
    fn noise_of_another_length_is_named() {
        act(3, 3, 1);
    }

    #[test]
    #[should_panic(expected = "the action must be of shape [1], not [2]")]
    fn an_action_of_another_length_is_named() {
        act(3, 1, 2);
    }
}
