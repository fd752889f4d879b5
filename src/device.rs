//! Where a run is trained: on the CPU, on a GPU, or on whichever is faster.

use crate::config::Config;
use crate::error::Error;
use crate::gpu::Gpu;
use crate::gpu::cuda::Cuda;
use crate::replay::{Replay, Transition};
use crate::sac::{CpuLearner, CudaLearner, Learner};
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
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "it is none of auto, cpu, cuda and cuda:N".into()),
        }
    }
}

/// How long [`Device::Auto`] tries each device.
const TRIAL: Duration = Duration::from_millis(200);

impl Device {
    /// The learner that trains there, and what to tell the user about the choice, if there was one.
    ///
    /// The arguments are those of [`CpuLearner::new`].
    ///
    /// # Errors
    /// [`Error::Device`] if a GPU is asked for and cannot be used.
    pub fn learner(
        self,
        config: &Config,
        observation_size: usize,
        half_range: &[f32],
    ) -> Result<(Box<dyn Learner>, Option<String>), Error> {
        let on_cpu = || Box::new(CpuLearner::<f32>::new(config, observation_size, half_range));
        let on_gpu = |gpu: Cuda| CudaLearner::new(config, observation_size, half_range, Box::new(gpu)).map(Box::new);
        match self {
            Self::Cpu => Ok((on_cpu(), None)),
            Self::Cuda(ordinal) => {
                let gpu = Cuda::open(ordinal)?;
                let name = gpu.name();
                Ok((on_gpu(gpu)?, Some(format!("device: {name}"))))
            }
            Self::Auto => {
                // A GPU that cannot be used is a reason, not a failure.
                let trial = Cuda::open(0).and_then(|gpu| {
                    let name = gpu.name();
                    let small = &Config { replay_capacity: config.batch_size, ..config.clone() };
                    let mut cuda = CudaLearner::new(small, observation_size, half_range, Box::new(gpu))?;
                    let mut cpu = CpuLearner::<f32>::new(small, observation_size, half_range);
                    let time =
                        |learner: &mut dyn Learner| seconds_per_step(learner, small, observation_size, half_range);
                    Ok((name, time(&mut cuda)?, time(&mut cpu)?))
                });
                let (name, cuda, cpu) = match trial {
                    Ok(trial) => trial,
                    Err(error) => return Ok((on_cpu(), Some(format!("device: the CPU; {error}")))),
                };
                let times = format!("a step takes {:.3} ms on {name} and {:.3} ms on the CPU", 1e3 * cuda, 1e3 * cpu);
                if cuda < cpu {
                    Ok((on_gpu(Cuda::open(0)?)?, Some(format!("device: the GPU; {times}"))))
                } else {
                    Ok((on_cpu(), Some(format!("device: the CPU; {times}"))))
                }
            }
        }
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
    let mut fastest = f64::INFINITY;
    let began = Instant::now();
    for update in 0.. {
        let step = Instant::now();
        learner.act(observation.view(), None, action.view_mut())?;
        learner.learn(&replay, update)?;
        learner.metrics()?;
        // The first ones compile, record and warm up.
        fastest = fastest.min(step.elapsed().as_secs_f64());
        if began.elapsed() > TRIAL && update > 2 {
            break;
        }
    }
    Ok(fastest)
}
