//! Collecting with several environments side by side, `cargo bench --bench envs`: steps per second, acting and storing
//! included and no updates made, relative to a single environment. Once on Pendulum, which takes next to no time, and once
//! on an environment that waits for 0.1 ms at each step, as one in another process does. Rounds alternate between the numbers
//! of environments, and the median counts.

use soft_actor_critic::config::{Config, FirstUpdate};
use soft_actor_critic::env::{Bounds, Env, EnvError, Pendulum, Step};
use soft_actor_critic::error::Error;
use soft_actor_critic::train::{Trainer, with_threads};
use std::time::{Duration, Instant};

const ENVIRONMENTS: [usize; 5] = [1, 2, 4, 8, 16];
const REPETITIONS: usize = 9;

/// A pendulum that takes its time.
struct Slow {
    pendulum: Pendulum,
    pause: Duration,
}

impl Env for Slow {
    fn observation_size(&self) -> usize {
        self.pendulum.observation_size()
    }

    fn action_bounds(&self) -> Bounds {
        self.pendulum.action_bounds()
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        self.pendulum.reset(seed)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        self.pendulum.step(action)
    }
}

/// A trainer that acts by its policy from the first step on, and does not learn before the last.
fn collector(envs: usize, hidden: usize, pause: Duration) -> Result<Trainer, Error> {
    let steps = 1 << 40;
    let config = Config {
        envs,
        steps,
        random_steps: 0,
        first_update: FirstUpdate::Fixed(steps),
        replay_capacity: 100_000,
        policy_hidden: vec![hidden; 2],
        critic_hidden: vec![hidden; 2],
        ..Config::default()
    };
    Trainer::new(move || Box::new(Slow { pendulum: Pendulum::new(), pause }), config)
}

fn measure(name: &str, hidden: usize, pause: Duration, steps: u64) -> Result<(), Error> {
    let mut collectors: Vec<_> =
        ENVIRONMENTS.iter().map(|&envs| collector(envs, hidden, pause)).collect::<Result<_, _>>()?;
    let mut rates = vec![Vec::new(); ENVIRONMENTS.len()];
    for _ in 0..REPETITIONS {
        for (trainer, rates) in collectors.iter_mut().zip(&mut rates) {
            let (began, first) = (Instant::now(), trainer.steps());
            while trainer.steps() < first + steps {
                trainer.step()?;
            }
            rates.push((trainer.steps() - first) as f64 / began.elapsed().as_secs_f64());
        }
    }
    let medians: Vec<_> = rates
        .iter_mut()
        .map(|rates| {
            rates.sort_by(f64::total_cmp);
            rates[REPETITIONS / 2]
        })
        .collect();
    for (envs, rate) in ENVIRONMENTS.iter().zip(&medians) {
        println!("{name}, 2 × {hidden}, {envs:2} environments: {rate:9.0} steps/s, {:5.2} of one", rate / medians[0]);
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    with_threads(1, || {
        measure("pendulum", 64, Duration::ZERO, 50_000)?;
        measure("pendulum", 256, Duration::ZERO, 20_000)?;
        measure("0.1 ms a step", 256, Duration::from_micros(100), 1_000)
    })?
}
