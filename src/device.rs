//! Where a run is trained: on the CPU, on a GPU, or on whichever is faster.

use crate::config::{Config, Precision};
use crate::error::Error;
use crate::gpu::Gpu;
use crate::gpu::cuda::Cuda;
use crate::replay::{Replay, Transition};
use crate::sac::{AgentLearner, CpuLearner, CudaLearner, Learner, Support};
use ndarray::Array2;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Where to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// On the faster one of the CPU and the first GPU, by trying both.
    Auto,
    /// On the CPU.
    Cpu,
    /// On the NVIDIA GPU of this number.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "it is none of auto, cpu, cuda and cuda:N".into()),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// A learner, and where it is.
pub struct Placed {
    /// The learner.
    pub learner: Box<dyn Learner>,
    /// Its device, never [`Device::Auto`].
    pub device: Device,
    /// What to tell the user about it, if there is anything.
    pub note: Option<String>,
}

/// The learners of many agents on one GPU.
pub struct Agents {
    /// One for each seed, in their order.
    pub learners: Vec<AgentLearner>,
    /// What to tell the user about it.
    pub note: String,
}

/// The most runs that share a GPU: each has a thread of its own.
const MOST_RUNS: usize = 1024;

/// How long [`Device::Auto`] tries each device, once it is warm; one step is made in any case.
const TRIAL: Duration = Duration::from_millis(200);

impl Device {
    /// Whether it is there.
    ///
    /// # Errors
    /// [`Error::Device`] if it is a GPU that cannot be used.
    pub fn check(self) -> Result<(), Error> {
        match self {
            // What a run wants besides, its own configuration says.
            Self::Cuda(ordinal) => Cuda::open(ordinal, Precision::F32).map(drop),
            Self::Auto | Self::Cpu => Ok(()),
        }
    }

    /// Whether learners there are for this configuration, in an environment of so many action dimensions.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::Config`], which tells what else to ask for.
    pub fn check_config(self, config: &Config, actions: usize) -> Result<(), Error> {
        match self {
            Self::Cuda(_) => Support::of(config, actions).is_fused().map(drop),
            Self::Auto | Self::Cpu => CpuLearner::<f32>::check(config),
        }
    }

    /// Learners for runs that differ in their seeds alone, which act and learn together on one GPU, all at once; none if
    /// each is to have [one of its own](Self::learner), because there is no GPU named, because their updates are not
    /// [`Support::Fused`], or because there is but one.
    ///
    /// # Errors
    /// As from [`Self::learner`], and if there are more than can be at once.
    pub fn agents(
        self,
        config: &Config,
        seeds: &[u64],
        observation_size: usize,
        half_range: &[f32],
    ) -> Result<Option<Agents>, Error> {
        let Self::Cuda(ordinal) = self else { return Ok(None) };
        if seeds.len() < 2 || Support::of(config, half_range.len()) != Support::Fused {
            return Ok(None);
        }
        if seeds.len() > MOST_RUNS {
            let problem = format!("at most {MOST_RUNS} runs share it, not {}; train fewer at a time", seeds.len());
            return Err(Error::Device(problem));
        }
        let gpu = Cuda::open(ordinal, config.precision)?;
        let note = format!("device: {}; {}, of all {} runs at once", gpu.name(), fused_updates(config), seeds.len());
        let learner = CudaLearner::of_seeds(config, seeds, observation_size, half_range, Box::new(gpu))?;
        Ok(Some(Agents { learners: AgentLearner::of(learner), note }))
    }

    /// The learner that trains there.
    ///
    /// The arguments are those of [`CpuLearner::new`].
    ///
    /// # Errors
    /// [`Error::Device`] if a GPU is asked for and cannot be used, or not for this configuration; [`Error::Config`] if one must be
    /// asked for.
    pub fn learner(self, config: &Config, observation_size: usize, half_range: &[f32]) -> Result<Placed, Error> {
        let on_cpu = |note| {
            let learner = Box::new(CpuLearner::<f32>::new(config, observation_size, half_range));
            Ok(Placed { learner, device: Self::Cpu, note })
        };
        let on_gpu = |gpu: Cuda, ordinal, note: String| {
            let learner = Box::new(CudaLearner::new(config, observation_size, half_range, Box::new(gpu))?);
            let updates = if learner.is_fused() { fused_updates(config) } else { "updates layer by layer" };
            Ok(Placed { learner, device: Self::Cuda(ordinal), note: Some(format!("{note}; {updates}")) })
        };
        let open = |ordinal| Cuda::open(ordinal, config.precision);
        // That is told before what a GPU may lack.
        self.check_config(config, half_range.len())?;
        match self {
            Self::Cpu => on_cpu(None),
            Self::Cuda(ordinal) => {
                let gpu = open(ordinal)?;
                let name = gpu.name();
                on_gpu(gpu, ordinal, format!("device: {name}"))
            }
            Self::Auto => {
                // A GPU that cannot be used is a reason, not a failure.
                let trial = || {
                    Support::of(config, half_range.len()).is_fused()?;
                    let gpu = open(0)?;
                    let name = gpu.name();
                    let small = &Config { replay_capacity: config.batch_size, envs: 1, ..config.clone() };
                    let mut cuda = CudaLearner::new(small, observation_size, half_range, Box::new(gpu))?;
                    let mut cpu = CpuLearner::<f32>::new(small, observation_size, half_range);
                    let time =
                        |learner: &mut dyn Learner| seconds_per_step(learner, small, observation_size, half_range);
                    let (cuda, cpu) = (time(&mut cuda)?, time(&mut cpu)?);
                    let times =
                        format!("a step takes {:.3} ms on the CPU and {:.3} ms on {name}", 1e3 * cpu, 1e3 * cuda);
                    if cuda < cpu {
                        on_gpu(open(0)?, 0, format!("device: the GPU; {times}"))
                    } else {
                        on_cpu(Some(format!("device: the CPU; {times}")))
                    }
                };
                trial().or_else(|error: Error| on_cpu(Some(format!("device: the CPU; {error}"))))
            }
        }
    }
}

/// What updates are called that are fused.
fn fused_updates(config: &Config) -> &'static str {
    match config.precision {
        Precision::F32 => "fused updates",
        Precision::Tf32 => "fused updates in tf32",
    }
}

/// How long a step of training takes, without the environment: an action, and an update from a memory of one batch.
fn seconds_per_step(
    learner: &mut dyn Learner,
    config: &Config,
    observation_size: usize,
    half_range: &[f32],
) -> Result<f64, Error> {
    let actions = half_range.len();
    let mut replay = Replay::new(config.replay_rows(), observation_size, actions)?;
    let (observation, mut action) = (Array2::zeros((1, observation_size)), Array2::zeros((1, actions)));
    for _ in 0..replay.capacity() {
        replay.push(Transition {
            observation: &vec![0.0; observation_size],
            action: &vec![0.0; actions],
            reward: 0.0,
            next_observation: &vec![0.0; observation_size],
            terminated: false,
            truncated: false,
        });
    }
    let mut update = 0;
    // As many as it takes until the policy has had its turn, unless that is nearly never.
    let cycle_length = config.policy_delay.min(10);
    let mut cycle = || {
        let began = Instant::now();
        for _ in 0..cycle_length {
            learner.act(observation.view(), None, action.view_mut())?;
            learner.learn(&replay, update)?;
            learner.metrics()?;
            update += 1;
        }
        Ok::<_, Error>(began.elapsed().as_secs_f64() / cycle_length as f64)
    };
    // The first ones compile, record and warm up.
    cycle()?;
    cycle()?;
    let began = Instant::now();
    let mut fastest = cycle()?;
    while began.elapsed() < TRIAL {
        fastest = fastest.min(cycle()?);
    }
    Ok(fastest)
}
