//! The learner alone, fed by a loop of your own: no `Env`, no `Trainer`, no program.
//!
//! The task: a point on a line, pushed by ±1, is to come to rest at 0. Run it with
//! `cargo run --release --example learner_alone`.

use ndarray::{Array2, arr2};
use rand::Rng;
use rand_distr::StandardNormal;
use soft_actor_critic::config::Config;
use soft_actor_critic::error::Error;
use soft_actor_critic::replay::{Replay, Transition};
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::{CpuLearner, Learner};

const STEPS: u64 = 4_000;
const EPISODE: u64 = 50;

fn main() -> Result<(), Error> {
    let config = Config {
        steps: STEPS,
        batch_size: 64,
        policy_hidden: vec![32, 32],
        critic_hidden: vec![32, 32],
        ..Config::default()
    };
    // Two numbers are observed, and one action is taken from −1 to 1, so that half its range is 1.
    let mut learner = CpuLearner::<f32>::new(&config, 2, &[1.0]);
    let mut replay = Replay::new(config.replay_rows(), 2, 1)?;
    let mut rng = Philox::new(config.seed, Stream::Action, 0);
    let (mut position, mut velocity, mut cost) = (1.0_f32, 0.0_f32, 0.0);

    for step in 0..STEPS {
        let observation = [position, velocity];
        let mut action = Array2::zeros((1, 1));
        if step < config.batch_size as u64 {
            action[[0, 0]] = rng.random_range(-1.0..=1.0);
        } else {
            let noise = arr2(&[[rng.sample(StandardNormal)]]);
            learner.act(arr2(&[observation]).view(), Some(noise.view()), action.view_mut())?;
        }

        velocity = 0.9 * velocity + 0.1 * action[[0, 0]];
        position = (position + 0.2 * velocity).clamp(-2.0, 2.0);
        let reward = -position * position - 0.1 * velocity * velocity;
        cost -= reward;
        let truncated = (step + 1) % EPISODE == 0;
        replay.push(Transition {
            observation: &observation,
            action: &[action[[0, 0]]],
            reward,
            next_observation: &[position, velocity],
            terminated: false,
            truncated,
        });
        if step >= config.batch_size as u64 {
            learner.learn(&replay, step)?;
        }
        if truncated {
            if (step + 1) % 500 == 0 {
                println!("step {:5}  cost of the last episode {cost:6.2}", step + 1);
            }
            (position, velocity, cost) = (rng.random_range(-1.5..=1.5), 0.0, 0.0);
        }
    }
    Ok(())
}
