//! What the benches learn from.

use rand::Rng;
use soft_actor_critic::replay::{Replay, Transition};
use soft_actor_critic::rng::{Philox, Stream};

/// Transitions that are stored.
pub const STORED: usize = 100_000;

/// A memory of transitions of random values, in episodes of a thousand steps.
pub fn replay(observations: usize, actions: usize) -> Replay {
    let mut rng = Philox::new(0, Stream::Environment, 0);
    let mut random = |length: usize| -> Vec<f32> { (0..length).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let mut replay = Replay::new(STORED, observations, actions).expect("it fits");
    let mut observation = random(observations);
    for step in 1..=STORED {
        let (action, reward, next_observation) = (random(actions), random(1)[0], random(observations));
        replay.push(Transition {
            observation: &observation,
            action: &action,
            reward,
            next_observation: &next_observation,
            terminated: false,
            truncated: step % 1000 == 0,
        });
        observation = next_observation;
    }
    replay
}
