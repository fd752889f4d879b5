//! An environment of one's own with everything that `sac` does for a run: trained, resumed with more steps, and
//! evaluated: `cargo run --release --example own_run`.
//!
//! A lamp is to be turned towards a target that lies elsewhere in each episode. The run directory is that of any other
//! run: `sac plot`, `sac compare` and `sac export` read it, and so does TensorBoard.

use rand::Rng;
use soft_actor_critic::actor::{UNSEEN, evaluate};
use soft_actor_critic::config::Config;
use soft_actor_critic::env::{Bounds, Env, EnvError, Step};
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::run::{Plan, Row};
use soft_actor_critic::session::{Changes, NewRun, Observer, SavedRun};
use std::error::Error;

#[derive(Default)]
struct Lamp {
    angle: f32,
    target: f32,
    steps: u32,
}

impl Env for Lamp {
    fn observation_size(&self) -> usize {
        2
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-0.5], vec![0.5]).expect("it turns both ways")
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        let mut rng = Philox::new(seed, Stream::Environment, 0);
        *self = Self { angle: 0.0, target: rng.random_range(-2.0..2.0), steps: 0 };
        Ok(vec![self.angle, self.target])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.angle += action[0];
        self.steps += 1;
        Ok(Step {
            observation: vec![self.angle, self.target],
            reward: -f64::from((self.angle - self.target).powi(2)),
            terminated: false,
            truncated: self.steps == 20,
        })
    }
}

/// Prints the evaluations.
struct Printer;

impl Observer for Printer {
    fn row(&mut self, row: &Row) {
        if let Some((mean, _)) = row.evaluation {
            println!("step {:5}  mean return {mean:.2}", row.step);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let hidden = vec![32, 32];
    let config = Config { policy_hidden: hidden.clone(), critic_hidden: hidden, steps: 2_000, ..Config::default() };
    let config = Config { random_steps: 200, eval_every: 500, ..config };
    let lamp = || Ok(Box::new(Lamp::default()) as _);

    // runs/lamp-1, or the first number that is free.
    let ended = NewRun::prepare(Plan::new("lamp", config), lamp, 0)?.train(None, &mut Printer)?;
    ended.evaluation()?;

    // A run that was interrupted goes on in the same way, without changes.
    let longer = Changes { steps: Some(3_000), ..Changes::default() };
    let mut ended = SavedRun::open(ended.run.path(), longer, lamp, 0)?.train(&mut Printer)?;
    ended.evaluation()?;

    let mut actor = ended.trainer.actor()?;
    let mean = evaluate(&mut actor, &mut Lamp::default(), UNSEEN, 100, false)?.mean();
    println!("{}: mean return {mean:.2} in 100 episodes that it has not been evaluated by", ended.run.path().display());
    Ok(())
}
