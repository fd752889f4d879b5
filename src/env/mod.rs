//! Environments: the trait, the bounds of actions, and what is built in.

mod gym;
mod info;
mod mountain_car;
pub(crate) mod pendulum;

pub use gym::{Gym, GymEnv};
pub use info::Info;
pub use mountain_car::MountainCar;
pub use pendulum::Pendulum;

use crate::error::Error;
use crate::nn::assert_shape;

/// What goes wrong inside an environment; any error type fits. [`Abandoned`] is the one that is no fault of the environment.
pub type EnvError = Box<dyn std::error::Error + Send + Sync>;

/// The error of an environment that has stopped, in the middle of a reset or a step, because the user no longer waits for it. It
/// becomes [`Error::Interrupted`].
#[derive(Clone, Copy, Debug)]
pub struct Abandoned;

impl std::fmt::Display for Abandoned {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("nobody waits for it any more")
    }
}

impl std::error::Error for Abandoned {}

/// What one step of an environment gives back.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// s′, of the environment's observation size. If it is terminal, elements that are not finite are taken from s instead.
    pub observation: Vec<f32>,
    /// r
    pub reward: f64,
    /// Whether s′ is a terminal state. Nothing follows it, so its value is not bootstrapped.
    pub terminated: bool,
    /// Whether the episode ends here for a reason outside the task, such as a time limit. s′ keeps its value.
    pub truncated: bool,
}

/// What an environment itself has counted of an episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpisodeStatistics {
    /// Its undiscounted return.
    pub total_reward: f64,
    /// Its steps.
    pub length: u64,
}

/// How many numbers [`Env::info`] can give of an episode, and how many names they can have in a run.
pub const MAX_INFO: usize = 32;

/// What an environment looks like.
#[derive(Clone, Debug, PartialEq)]
pub enum Scene {
    /// SVG elements in a viewport of 400 × 400, y downwards, before a white background.
    Svg(String),
    /// A picture of any size.
    Pixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Red, green and blue of each pixel, row by row from the top, `[height, width, 3]`.
        rgb: Vec<u8>,
    },
}

/// An environment with continuous observations and actions.
pub trait Env: Send {
    /// Number of observation dimensions, O.
    fn observation_size(&self) -> usize;

    /// The range of each action dimension; their number is A.
    fn action_bounds(&self) -> Bounds;

    /// Begins an episode that depends on nothing but `seed`, and returns its first observation, `[O]`.
    ///
    /// # Errors
    /// Whatever the environment itself cannot do.
    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError>;

    /// Takes one step with `action`, `[A]`, in the environment's own units and within its bounds.
    ///
    /// # Errors
    /// Whatever the environment itself cannot do.
    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError>;

    /// What is to be told of the episode that the last step has ended, if that is anything but the sum of its rewards and the
    /// number of its steps: where rewards are shaped before they are learned from, for instance.
    fn episode_statistics(&self) -> Option<EpisodeStatistics> {
        None
    }

    /// Other numbers of the episode that the last step has ended, by name, such as `is_success`. They are measured and change
    /// nothing that is learned. [`Info`] says which are used.
    fn info(&self) -> &[(String, f64)] {
        &[]
    }

    /// What a user should know before training in it, a sentence each.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// The scene as it is now, `action` `[A]` in the environment's own units being the one that led to it. None if it cannot
    /// be drawn.
    ///
    /// # Errors
    /// Whatever the environment itself cannot do.
    fn render(&mut self, action: &[f32]) -> Result<Option<Scene>, EnvError> {
        let _ = action;
        Ok(None)
    }

    /// Which of the environments that [`crate::gpu`] has as well this is; none if it has none such.
    fn on_device(&self) -> Option<DeviceEnv> {
        None
    }

    /// Everything that the steps to come depend on, for [`Self::restore`]; none if it cannot be told, and then a run that is
    /// resumed repeats the steps of its episode, and begins a new one if they do not come as they did.
    fn save(&self) -> Option<Vec<u8>> {
        None
    }

    /// Goes back to what [`Self::save`] has told, perhaps in another process.
    ///
    /// # Errors
    /// If `state` is not what this environment saves.
    fn restore(&mut self, state: &[u8]) -> Result<(), EnvError> {
        let _ = state;
        Err("this environment cannot be restored".into())
    }
}

/// The environments that have a kernel of their own, in `kernels/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEnv {
    /// [`Pendulum`]
    Pendulum,
}

/// What stands for the action in a picture: a red that those who do not see all colours can tell from the rest.
pub(crate) const ACTION_COLOR: &str = "#D55E00";

/// The numbers of a state that [`Env::save`] tells, as bytes.
fn state_to_bytes(numbers: &[f64], steps: u32) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).chain(steps.to_le_bytes()).collect()
}

/// What [`state_to_bytes`] has made of so many numbers, in an episode of at most `limit` steps.
fn state_from_bytes<const N: usize>(state: &[u8], limit: u32) -> Result<([f64; N], u32), EnvError> {
    let wrong = || format!("its state has {} bytes instead of {}", state.len(), 8 * N + 4);
    let (numbers, steps) = state.split_last_chunk::<4>().ok_or_else(wrong)?;
    let (numbers, rest) = numbers.as_chunks::<8>();
    let numbers: Vec<f64> = numbers.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
    let steps = u32::from_le_bytes(*steps);
    if steps > limit {
        return Err(format!("its state is after {steps} steps of an episode of {limit}").into());
    }
    match numbers.try_into() {
        Ok(numbers) if rest.is_empty() => Ok((numbers, steps)),
        _ => Err(wrong().into()),
    }
}

/// An environment whose every answer is checked: the right shape, and finite.
pub(crate) struct CheckedEnv<E> {
    env: E,
    observation_size: usize,
    steps: u64,
    /// The last observation, `[O]`.
    observation: Vec<f32>,
}

impl<E: std::ops::DerefMut<Target: Env>> CheckedEnv<E> {
    pub(crate) fn new(env: E) -> Self {
        Self { observation_size: env.observation_size(), env, steps: 0, observation: Vec::new() }
    }

    pub(crate) fn action_bounds(&self) -> Bounds {
        self.env.action_bounds()
    }

    pub(crate) fn observation_size(&self) -> usize {
        self.observation_size
    }

    pub(crate) fn on_device(&self) -> Option<DeviceEnv> {
        self.env.on_device()
    }

    pub(crate) fn reset(&mut self, seed: u64) -> Result<Vec<f32>, Error> {
        let observation = self.env.reset(seed).map_err(|e| failure(self.steps, "reset", e))?;
        self.check_observation(self.steps, &observation)?;
        self.observation.clone_from(&observation);
        Ok(observation)
    }

    pub(crate) fn step(&mut self, action: &[f32]) -> Result<Step, Error> {
        // A step that fails is none.
        let number = self.steps + 1;
        let mut step = self.env.step(action).map_err(|e| failure(number, "step", e))?;
        if step.terminated && step.observation.len() == self.observation.len() {
            // Nothing is bootstrapped from it, so that it need not be a number.
            for (value, &last) in step.observation.iter_mut().zip(&self.observation) {
                *value = if value.is_finite() { *value } else { last };
            }
        }
        self.check_observation(number, &step.observation)?;
        self.observation.clone_from(&step.observation);
        if !(step.reward as f32).is_finite() {
            return Err(error(number, format!("its reward is {:e}, not a finite f32", step.reward)));
        }
        if (step.terminated || step.truncated)
            && let Some(EpisodeStatistics { total_reward, .. }) = self.episode_statistics()
            && !(total_reward as f32).is_finite()
        {
            let problem = format!("the return that it tells of its episode is {total_reward:e}, not a finite f32");
            return Err(error(number, problem));
        }
        self.steps = number;
        Ok(step)
    }

    pub(crate) fn episode_statistics(&self) -> Option<EpisodeStatistics> {
        self.env.episode_statistics()
    }

    pub(crate) fn notes(&self) -> &[String] {
        self.env.notes()
    }

    pub(crate) fn info(&self) -> Info {
        Info::new(self.env.info().iter().map(|(name, number)| (name.as_str(), *number)))
    }

    #[cfg(feature = "program")]
    pub(crate) fn render(&mut self, action: &[f32]) -> Result<Option<Scene>, Error> {
        self.env.render(action).map_err(|e| failure(self.steps, "render", e))
    }

    pub(crate) fn save(&self) -> Option<Vec<u8>> {
        self.env.save()
    }

    /// Goes on counting from `steps`.
    pub(crate) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Goes back to where the environment stood after `steps` steps, when it had returned `observation`.
    pub(crate) fn restore(&mut self, state: &[u8], steps: u64, observation: &[f32]) -> Result<(), Error> {
        self.set_steps(steps);
        self.observation = observation.to_vec();
        self.env.restore(state).map_err(|e| failure(steps, "restore", e))
    }

    fn check_observation(&self, step: u64, observation: &[f32]) -> Result<(), Error> {
        if observation.len() != self.observation_size {
            let (found, size) = (observation.len(), self.observation_size);
            return Err(error(step, format!("its observation has {found} elements instead of {size}")));
        }
        match observation.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(error(step, format!("element {i} of its observation is {}", observation[i]))),
            None => Ok(()),
        }
    }
}

fn failure(step: u64, what: &str, cause: EnvError) -> Error {
    if cause.is::<Abandoned>() { Error::Interrupted } else { error(step, format!("{what}: {cause}")) }
}

fn error(step: u64, problem: String) -> Error {
    Error::Environment { step, problem }
}

/// The range of each action dimension, in the environment's units.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    low: Vec<f32>,
    high: Vec<f32>,
}

impl Bounds {
    /// Ranges from `low` to `high`, both `[A]`.
    ///
    /// # Errors
    /// If there is no dimension, the lengths differ, or a range is empty or not finite.
    pub fn new(low: Vec<f32>, high: Vec<f32>) -> Result<Self, String> {
        if low.len() != high.len() || low.is_empty() {
            return Err(format!(
                "action bounds need one low and one high value for each dimension, not {} and {}",
                low.len(),
                high.len()
            ));
        }
        let fits = |(low, high): (&f32, &f32)| low < high && (high - low).is_finite();
        if let Some(i) = low.iter().zip(&high).position(|range| !fits(range)) {
            return Err(format!(
                "action dimension {i} ranges from {} to {}; give it finite bounds, the lower one first",
                low[i], high[i]
            ));
        }
        Ok(Self { low, high })
    }

    /// Number of action dimensions, A.
    pub fn dimensions(&self) -> usize {
        self.low.len()
    }

    /// The lower bounds, `[A]`.
    pub fn low(&self) -> &[f32] {
        &self.low
    }

    /// The upper bounds, `[A]`.
    pub fn high(&self) -> &[f32] {
        &self.high
    }

    /// ½(high − low), `[A]`: what a learned action in \[−1, 1] is multiplied by.
    pub fn half_range(&self) -> Vec<f32> {
        self.low.iter().zip(&self.high).map(|(low, high)| 0.5 * (high - low)).collect()
    }

    /// Turns a learned action in \[−1, 1] into the environment's units: low + ½(a + 1)(high − low), never beyond them;
    /// both are `[A]`.
    ///
    /// # Panics
    /// If one of them is of another length.
    pub fn scale(&self, action: &[f32], scaled: &mut [f32]) {
        assert_shape("the action", &[action.len()], &[self.dimensions()]);
        assert_shape("the scaled action", &[scaled.len()], &[self.dimensions()]);
        for (((scaled, &a), &low), &high) in scaled.iter_mut().zip(action).zip(&self.low).zip(&self.high) {
            *scaled = (low + 0.5 * (a + 1.0) * (high - low)).clamp(low, high);
        }
    }
}

/// What makes an environment.
pub type MakeEnv = fn() -> Box<dyn Env>;

/// The environments that the program knows by name.
pub const BUILT_IN: &[(&str, MakeEnv)] =
    &[("pendulum", || Box::new(Pendulum::new())), ("mountain-car", || Box::new(MountainCar::new()))];

/// How to make the built-in environment called `name`.
pub fn built_in(name: &str) -> Option<MakeEnv> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|&(_, make)| make)
}

/// The identifier in the name of an environment of Gymnasium, `gym:ID`; none if it is the name of another.
pub fn gym_id(name: &str) -> Option<&str> {
    name.strip_prefix("gym:")
}

/// What stands in the names of files for the environment called `name`: for `gym:module:namespace/Id-v0` no more than `Id-v0`.
/// A name from a file leads into no other directory, and holds nothing that a terminal obeys.
pub fn file_name(name: &str) -> String {
    name.rsplit([':', '/', '\\']).next().unwrap_or(name).replace(char::is_control, "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_in_their_directory() {
        for (name, expected) in [
            ("pendulum", "pendulum"),
            ("gym:module:namespace/Id-v0", "Id-v0"),
            ("gym:../../Id-v0", "Id-v0"),
            ("gym:..\\Id-v0", "Id-v0"),
            ("gym:\u{1b}[2J\u{9b}\n", "_[2J__"),
        ] {
            assert_eq!(file_name(name), expected);
        }
    }

    #[test]
    fn actions_are_scaled_to_the_bounds_of_each_dimension() {
        let bounds = Bounds::new(vec![-2.0, 0.0, -0.3], vec![2.0, 10.0, 0.1]).expect("they are valid");
        let mut scaled = [0.0; 3];
        bounds.scale(&[-1.0, -1.0, -1.0], &mut scaled);
        assert_eq!(scaled, [-2.0, 0.0, -0.3]);
        bounds.scale(&[1.0, 1.0, 1.0], &mut scaled);
        approx::assert_relative_eq!(scaled[..], [2.0, 10.0, 0.1][..], max_relative = 1e-6);
        bounds.scale(&[0.5, 0.0, 0.0], &mut scaled);
        approx::assert_relative_eq!(scaled[..], [1.0, 5.0, -0.1][..], max_relative = 1e-6);
    }

    #[test]
    fn states_that_no_environment_saves_are_refused() {
        for (_, make) in BUILT_IN {
            let state = make().save().expect("it can tell");
            let (numbers, _) = state.split_last_chunk::<4>().expect("it ends with the steps");
            assert!(make().restore(&state).is_ok() && make().restore(numbers).is_err());
            assert!(make().restore(&[numbers, &u32::MAX.to_le_bytes()].concat()).is_err());
        }
    }

    #[test]
    fn bounds_that_make_no_range_are_refused() {
        for (low, high) in [
            (vec![], vec![]),
            (vec![0.0], vec![1.0, 2.0]),
            (vec![1.0], vec![1.0]),
            (vec![f32::NEG_INFINITY], vec![0.0]),
            (vec![0.0], vec![f32::NAN]),
        ] {
            assert!(Bounds::new(low, high).is_err());
        }
    }
}
