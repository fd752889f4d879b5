//! The algorithm: the seam between training and whatever computes its updates.
//!
//! A [`Learner`] owns the networks and changes them by updates. All randomness enters as data, as batches and as the
//! noise ε, so that every implementation computes the same function of the same inputs and two of them are compared by
//! comparing vectors. [`cpu::CpuLearner`] is the algorithm itself, to be read top to bottom.

pub mod cost;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod metrics;
mod networks;
mod policy;

pub use cpu::CpuLearner;
#[cfg(feature = "cuda")]
pub use cuda::{AgentLearner, CudaLearner, Support};
pub use metrics::{Metric, Metrics, Per};
pub use networks::{NetworkSpec, networks};
pub use policy::{Policy, PolicyPass};

use crate::env::DeviceEnv;
use crate::error::Error;
use crate::nn::{Real, assert_shape};
use crate::replay::Replay;
use crate::train::{EnvState, Episode};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rand::Rng;
use rand_distr::StandardNormal;

/// What computes updates, and actions, for one agent.
pub trait Learner<T: Real = f32>: Send {
    /// Writes a = tanh(μ + σ·ε) for `noise` ε, or the deterministic tanh(μ) without it.
    ///
    /// `observation` is `[B, O]`, normalized if those that are learned from are; `noise` and `action` are `[B, A]`, actions in \[−1, 1].
    ///
    /// # Errors
    /// [`Error::Device`] if a device fails, here as in all that follow.
    ///
    /// # Panics
    /// If one of them is of another shape; the message names what it is and what it must be, here and below.
    fn act(
        &mut self,
        observation: ArrayView2<T>,
        noise: Option<ArrayView2<T>>,
        action: ArrayViewMut2<T>,
    ) -> Result<(), Error>;

    /// Makes the update numbered `update`, from 0, of a run: draws a batch from `replay`, with observations as its normalizer
    /// shows them, and noise, multiplies the rewards by [`Config::reward_scale`](crate::config::Config), and takes a step of each
    /// network. What is drawn depends on the seed of the configuration and on `update`.
    ///
    /// Where a loss is not finite, the network it belongs to and those after it take no step, and later updates change nothing
    /// until [`Self::restore`].
    ///
    /// A learner on a device mirrors `replay`, and draws there; it must be given the same one every time.
    ///
    /// # Errors
    /// [`Error::Device`]; a loss that is not finite is not an error, see [`Self::metrics`].
    ///
    /// # Panics
    /// If `replay` is empty, or was made for observations or actions of other sizes.
    fn learn(&mut self, replay: &Replay, update: u64) -> Result<(), Error>;

    /// What the updates so far have seen. Waits for a device, as do [`Self::act`] and [`Self::snapshot`].
    ///
    /// # Errors
    /// [`Error::Device`]
    fn metrics(&mut self) -> Result<Metrics, Error>;

    /// Everything that updates depend on, by name.
    ///
    /// # Errors
    /// [`Error::Device`]
    fn snapshot(&mut self) -> Result<Snapshot<T>, Error>;

    /// Goes back to a snapshot, with the sums of [`Self::metrics`] as they were then. A failure is forgotten.
    ///
    /// # Errors
    /// [`Error::Snapshot`] if a vector is missing, unknown or of another length; nothing is changed then. [`Error::Device`]
    fn restore(&mut self, snapshot: &Snapshot<T>) -> Result<(), Error>;

    /// What takes whole steps of training, those of a single environment included, if the learner's device can do so.
    fn runner(&mut self, env: DeviceEnv) -> Option<&mut dyn Runner> {
        let _ = env;
        None
    }
}

/// What takes steps of training by itself, environment and all: the loop of [`crate::train::Trainer`] on a device.
pub trait Runner {
    /// Takes `most` steps from where `env` stands, or fewer if its episode ends sooner or something fails, each with the update
    /// that is then due, after `updates` of them. Transitions go into `replay`; `env` and `updates` are then those after the last
    /// step. Returns the episode that has ended.
    ///
    /// Batches are drawn from the same counters as by [`Learner::learn`], and so are actions, by formulas of the device's own.
    ///
    /// # Errors
    /// [`Error::Device`]; a loss or an action that is not finite is none, but shows in [`Learner::metrics`].
    fn advance(
        &mut self,
        most: u64,
        env: &mut EnvState,
        updates: &mut u64,
        replay: &mut Replay,
    ) -> Result<Option<Episode>, Error>;
}

/// The ε of one update, standard normal.
#[derive(Clone, Debug, Default)]
pub struct Noise<T> {
    /// For the actions at s, in the losses of the policy and the temperature, `[B, A]`.
    pub current: Array2<T>,
    /// For the actions at s′, in the critics' targets, `[B, A]`.
    pub next: Array2<T>,
}

impl<T: Real> Noise<T> {
    /// Room for the noise of a batch.
    pub fn zeros(batch_size: usize, action_size: usize) -> Self {
        let zeros = Array2::zeros((batch_size, action_size));
        Self { current: zeros.clone(), next: zeros }
    }

    /// Panics unless it is for `b` transitions of `a` action dimensions.
    #[track_caller]
    pub(crate) fn assert_shapes(&self, [b, a]: [usize; 2]) {
        assert_shape("the noise's current", self.current.shape(), &[b, a]);
        assert_shape("the noise's next", self.next.shape(), &[b, a]);
    }

    /// Draws all of it anew.
    pub fn fill(&mut self, rng: &mut impl Rng) {
        for noise in [&mut self.current, &mut self.next] {
            noise.iter_mut().for_each(|noise| *noise = T::of(rng.sample(StandardNormal)));
        }
    }
}

/// A learner's state by name. What a later version adds is another name.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot<T> {
    /// Parameters, targets and moments.
    pub vectors: Vec<(String, Vec<T>)>,
    /// Numbers of updates and of optimizer steps.
    pub counts: Vec<(String, u64)>,
    /// The sums of [`Metrics`].
    pub sums: Vec<(String, f64)>,
}

impl<T> Snapshot<T> {
    /// The vector called `name`.
    pub fn get(&self, name: &str) -> Option<&[T]> {
        self.vectors.iter().find(|(known, _)| known == name).map(|(_, values)| values.as_slice())
    }

    /// The vector called `name`, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Vec<T>> {
        self.vectors.iter_mut().find(|(known, _)| known == name).map(|(_, values)| values)
    }

    /// The sum called `name`.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sums.iter().find(|(known, _)| known == name).map(|&(_, sum)| sum)
    }

    /// Whether this holds vectors of these names and lengths, counts of these names, the sums of [`Metrics`], and nothing
    /// else.
    ///
    /// # Errors
    /// [`Error::Snapshot`] names the first that does not fit.
    pub fn check<'a>(
        &self,
        vectors: impl Iterator<Item = (&'a str, usize)>,
        counts: impl Iterator<Item = &'a str>,
    ) -> Result<(), Error> {
        let (mut known_vectors, mut known_counts) = (0, 0);
        for (name, length) in vectors {
            let found = self.get(name).map(<[T]>::len);
            if found != Some(length) {
                let found = found.map_or("none".into(), |length| format!("one of length {length}"));
                return Err(Error::Snapshot(format!("{name} must have length {length}, there is {found}")));
            }
            known_vectors += 1;
        }
        for name in counts {
            if self.count(name).is_none() {
                return Err(Error::Snapshot(format!("the count {name} is missing")));
            }
            known_counts += 1;
        }
        let mut known_sums = 0;
        for (name, _) in Metrics::default().sums() {
            if self.sum(name).is_none() {
                return Err(Error::Snapshot(format!("the sum {name} is missing")));
            }
            known_sums += 1;
        }
        let found = (self.vectors.len(), self.counts.len(), self.sums.len());
        if found != (known_vectors, known_counts, known_sums) {
            return Err(Error::Snapshot("it holds more than a learner of this configuration does".into()));
        }
        Ok(())
    }

    /// The count called `name`.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.counts.iter().find(|(known, _)| known == name).map(|&(_, count)| count)
    }
}
