//! What it costs to keep a run: `cargo bench --bench keeping`.
//!
//! Two trainings go on as `sac` has them, at the shape of HalfCheetah (17 observation and 6 action dimensions, a full
//! replay memory of 1 000 000 transitions, episodes of 1 000 steps) with two hidden layers of 256, and at that of Pendulum
//! with two of 64, where an update takes least. What is spent on checkpoints, one every 1 000 steps, and on metrics,
//! TensorBoard's events and the picture at the end is set against the training it falls into: the median over blocks of
//! 1 000 steps, or the sum where something happens once. Before that, it is told what the replay memory takes (on Linux).

use soft_actor_critic::config::Config;
use soft_actor_critic::env::{Bounds, Env, EnvError, Step};
use soft_actor_critic::picture::plot;
use soft_actor_critic::run::{Checkpoints, MetricsFiles, RunDirectory};
use soft_actor_critic::train::{Trainer, threads_for, with_threads};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCK: u64 = 1000;
const BLOCKS: usize = 20;

/// An environment that takes no time of its own, with episodes of a fixed length.
struct Instantaneous {
    sizes: (usize, usize),
    length: u64,
    steps: u64,
}

impl Instantaneous {
    fn observation(&self) -> Vec<f32> {
        (0..self.sizes.0).map(|i| ((self.steps * 31 + i as u64 * 17) % 101) as f32 / 50.0 - 1.0).collect()
    }
}

impl Env for Instantaneous {
    fn observation_size(&self) -> usize {
        self.sizes.0
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-1.0; self.sizes.1], vec![1.0; self.sizes.1]).expect("they are ranges")
    }

    fn reset(&mut self, _: u64) -> Result<Vec<f32>, EnvError> {
        self.steps = 0;
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.steps += 1;
        let (observation, reward) = (self.observation(), f64::from(action[0]));
        Ok(Step { observation, reward, terminated: false, truncated: self.steps == self.length })
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(self.steps.to_le_bytes().to_vec())
    }
}

/// Bytes of this process that are in memory, where Linux tells.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kilobytes.parse().ok().map(|kilobytes: f64| 1024.0 * kilobytes)
}

fn measure(name: &str, sizes: (usize, usize), length: u64, config: Config) -> Result<(), Box<dyn Error + Send + Sync>> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keeping-{}-{name}", std::process::id()));
    let run = RunDirectory::create(Some(&path), name, &config, None)?;
    let mut trainer = Trainer::new(move || Box::new(Instantaneous { sizes, length, steps: 0 }), config.clone())?;
    let mut files = MetricsFiles::create(&run, &config)?;
    let mut checkpoints = Checkpoints::create(&run, "cpu", 0)?;
    let started = Instant::now();
    let mut rows = Duration::ZERO;
    let block = |trainer: &mut Trainer, files: &mut MetricsFiles| -> Result<_, Box<dyn Error + Send + Sync>> {
        let (began, mut rows) = (Instant::now(), Duration::ZERO);
        for _ in 0..BLOCK {
            let episodes = trainer.step()?;
            if !episodes.is_empty() {
                let (metrics, began) = (trainer.metrics()?, Instant::now());
                files.write(trainer.steps(), started.elapsed(), &episodes, None, metrics)?;
                rows += began.elapsed();
            }
        }
        Ok((began.elapsed() - rows, rows))
    };
    let before = resident();
    while trainer.steps() < config.random_steps {
        block(&mut trainer, &mut files)?;
    }
    if let (Some(before), Some(after)) = (before, resident()) {
        let (stored, own) = (trainer.replay().len(), trainer.replay().bytes() as f64);
        println!(
            "{name}: {stored} transitions are {:.1} MB, and have made the process grow by {:.1} MB",
            own / 1e6,
            (after - before) / 1e6
        );
    }
    checkpoints.save(&mut trainer, &mut files)?;
    let (mut training, mut shares) = (Duration::ZERO, Vec::new());
    for _ in 0..BLOCKS {
        let (trained, written) = block(&mut trainer, &mut files)?;
        let began = Instant::now();
        checkpoints.save(&mut trainer, &mut files)?;
        shares.push(100.0 * began.elapsed().as_secs_f64() / trained.as_secs_f64());
        (training, rows) = (training + trained, rows + written);
    }
    let began = Instant::now();
    plot::save_curve(&run, &config)?;
    let outputs = 100.0 * (rows + began.elapsed()).as_secs_f64() / training.as_secs_f64();
    shares.sort_by(f64::total_cmp);
    println!(
        "{name}: {:.0} steps/s; a checkpoint every {BLOCK} steps {:.2} % ({:.2} to {:.2}); metrics, events and picture {outputs:.2} %",
        (BLOCKS as u64 * BLOCK) as f64 / training.as_secs_f64(),
        shares[BLOCKS / 2],
        shares[0],
        shares[BLOCKS - 1],
    );
    Ok(std::fs::remove_dir_all(path)?)
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let config = |hidden: usize, batch_size, filled: u64| Config {
        policy_hidden: vec![hidden; 2],
        critic_hidden: vec![hidden; 2],
        batch_size,
        random_steps: filled,
        steps: filled + BLOCK * BLOCKS as u64,
        eval_every: 0,
        ..Config::default()
    };
    let half_cheetah = Config { replay_capacity: 1_000_000, ..config(256, 256, 1_000_000) };
    for (name, sizes, length, config) in
        [("pendulum", (3, 1), 200, config(64, 100, BLOCK)), ("half-cheetah", (17, 6), 1000, half_cheetah)]
    {
        with_threads(threads_for(&config, sizes.0, sizes.1, 0)?, || measure(name, sizes, length, config))??;
    }
    Ok(())
}
