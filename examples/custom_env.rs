//! An environment of one's own, trained to the end, and its policy saved, loaded and asked for an action:
//! `cargo run --release --example custom_env`.
//!
//! A cart on a rail starts somewhere and is to come to rest at the origin. It is pushed by a force from −1 to 3 newtons,
//! so the agent has to find out that zero is not in the middle of its range.

use rand::Rng;
use soft_actor_critic::config::Config;
use soft_actor_critic::env::{Bounds, Env, EnvError, Step};
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::run::policy_file;
use soft_actor_critic::train::{Trainer, threads_for, with_threads};
use std::error::Error;

#[derive(Default)]
struct Cart {
    position: f32,
    velocity: f32,
    steps: u32,
}

impl Env for Cart {
    fn observation_size(&self) -> usize {
        2
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-1.0], vec![3.0]).expect("the force has a range")
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        let mut rng = Philox::new(seed, Stream::Environment, 0);
        *self = Self { position: rng.random_range(-1.0..1.0), velocity: 0.0, steps: 0 };
        Ok(vec![self.position, self.velocity])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.velocity += 0.1 * action[0];
        self.position += 0.1 * self.velocity;
        self.steps += 1;
        let cost = self.position.powi(2) + 0.1 * self.velocity.powi(2) + 0.01 * action[0].powi(2);
        Ok(Step {
            observation: vec![self.position, self.velocity],
            reward: f64::from(-cost),
            // Off the rail is the end; the time limit only cuts the episode short.
            terminated: self.position.abs() > 5.0,
            truncated: self.steps == 100,
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let config = Config { steps: 5_000, policy_hidden: vec![64, 64], critic_hidden: vec![64, 64], ..Config::default() };
    let cart = Cart::default();
    let threads = threads_for(&config, cart.observation_size(), cart.action_bounds().dimensions(), 0)?;
    let actor = with_threads(threads, || {
        let mut trainer = Trainer::new(|| Box::<Cart>::default(), config)?;
        while !trainer.is_finished() {
            trainer.step()?;
        }
        println!("mean return over 100 episodes: {:.2}", trainer.evaluate(100)?.mean());
        trainer.actor()
    })??;

    let path = std::env::temp_dir().join("cart.safetensors");
    policy_file::save(&path, "cart", &actor)?;
    let (_, mut actor) = policy_file::load(&path)?;
    let mut force = [0.0];
    actor.act(&[0.5, 0.0], None, &mut force);
    println!("at rest, half a metre off, it pushes with {:.2} N", force[0]);
    Ok(())
}
