//! The built-in mountain car against Gymnasium's, as recorded by `tests/golden/mountain_car.py`.
#![cfg(feature = "program")]

mod recording;

use recording::{Recorded, distance};
use soft_actor_critic::env::{Env, MountainCar, Step};

const EPISODES: usize = 5;
const STEPS: usize = 999;

/// A row of `observation` is before the step of its number; nothing follows an episode's end.
struct Recording {
    start: Vec<f64>,
    observation: Vec<f64>,
    action: Vec<f64>,
    reward: Vec<f64>,
    terminated: Vec<f64>,
    truncated: Vec<f64>,
}

impl Recording {
    fn read() -> Self {
        let file = Recorded::open("mountain_car.safetensors");
        let read = |name, shape: &[usize]| file.tensor(name, shape);
        Self {
            start: read("start", &[EPISODES, 2]),
            observation: read("observation", &[EPISODES, STEPS + 1, 2]),
            action: read("action", &[EPISODES, STEPS]),
            reward: read("reward", &[EPISODES, STEPS]),
            terminated: read("terminated", &[EPISODES, STEPS]),
            truncated: read("truncated", &[EPISODES, STEPS]),
        }
    }

    /// Number of steps in an episode: up to the first flag, and with it.
    fn length(&self, episode: usize) -> usize {
        let ends = |&t: &usize| self.flags(episode, t) != [0.0; 2];
        (0..STEPS).find(ends).expect("the step limit ends every episode") + 1
    }

    /// Whether step `t` terminated the episode, and whether it truncated it: 0 or 1.
    fn flags(&self, episode: usize, t: usize) -> [f64; 2] {
        let at = episode * STEPS + t;
        [self.terminated[at], self.truncated[at]]
    }

    fn observation(&self, episode: usize, row: usize) -> &[f64] {
        &self.observation[(episode * (STEPS + 1) + row) * 2..][..2]
    }

    /// Takes step `t` with the recorded action; `worst` keeps the largest errors of observation and reward.
    fn step(&self, car: &mut MountainCar, episode: usize, t: usize, worst: &mut [f64; 2]) -> Step {
        let at = episode * STEPS + t;
        let step = car.step(&[self.action[at] as f32]).expect("a car does not fail");
        let observation: Vec<f64> = step.observation.iter().map(|&x| f64::from(x)).collect();
        let errors =
            [distance(&observation, self.observation(episode, t + 1)), distance(&[step.reward], &[self.reward[at]])];
        worst.iter_mut().zip(errors).for_each(|(worst, error)| *worst = worst.max(error));
        step
    }
}

#[test]
fn one_step_from_every_recorded_state_agrees() {
    let recording = Recording::read();
    let mut worst = [0.0; 2];
    for episode in 0..EPISODES {
        for t in 0..recording.length(episode) {
            // The start of an episode is computed in f64, where the recorded steps after the first were in f32.
            let state = recording.observation(episode, t);
            recording.step(&mut MountainCar::at(state[0], state[1]), episode, t, &mut worst);
        }
    }
    println!("worst error of one step: observation {:.1e}, reward {:.1e}", worst[0], worst[1]);
    assert!(worst.iter().all(|&error| error <= 1e-6));
}

#[test]
fn whole_trajectories_agree_and_end_where_the_recorded_ones_do() {
    let recording = Recording::read();
    let mut worst = [0.0; 2];
    for episode in 0..EPISODES {
        let start = &recording.start[episode * 2..][..2];
        let mut car = MountainCar::at(start[0], start[1]);
        for t in 0..recording.length(episode) {
            let step = recording.step(&mut car, episode, t, &mut worst);
            let flags = [step.terminated, step.truncated].map(|flag| f64::from(u8::from(flag)));
            assert_eq!(flags, recording.flags(episode, t), "episode {episode}, step {t}");
        }
    }
    let lengths: Vec<_> = (0..EPISODES).map(|episode| recording.length(episode)).collect();
    println!("worst error of {lengths:?} steps: observation {:.1e}, reward {:.1e}", worst[0], worst[1]);
    assert!(worst.iter().all(|&error| error <= 1e-3));
}

#[test]
fn episodes_start_uniformly_and_from_their_seed_alone() {
    let seeds = 20_000;
    // The position, from [-0.6, -0.4] to [-1, 1].
    let start = |car: &mut MountainCar, seed| {
        let observation = car.reset(seed).expect("a car does not fail");
        let [position, velocity] = car.state();
        assert_eq!(observation, [position as f32, velocity as f32]);
        assert!((-0.6..=-0.4).contains(&position) && velocity == 0.0);
        (position + 0.5) / 0.1
    };
    let truncated = |car: &mut MountainCar| car.step(&[0.0]).expect("a car does not fail").truncated;
    let mut used = MountainCar::new();
    assert_eq!((0..STEPS).find(|_| truncated(&mut used)), Some(STEPS - 1));
    let starts: Vec<_> = (0..seeds).map(|seed| start(&mut used, seed)).collect();
    assert_eq!((0..STEPS).find(|_| truncated(&mut used)), Some(STEPS - 1));
    for seed in [0, 1, seeds - 1] {
        assert_eq!(start(&mut MountainCar::new(), seed), starts[seed as usize], "seed {seed}");
    }

    // Means over n seeds, in their standard errors.
    let moment = |products: f64, mean: f64, variance: f64| {
        (products / seeds as f64 - mean).abs() / (variance / seeds as f64).sqrt()
    };
    for (name, errors) in [
        ("mean of the position", moment(starts.iter().sum(), 0.0, 1.0 / 3.0)),
        ("variance of the position", moment(starts.iter().map(|x| x * x).sum(), 1.0 / 3.0, 4.0 / 45.0)),
        ("covariance of one seed and the next", {
            moment(starts.windows(2).map(|pair| pair[0] * pair[1]).sum(), 0.0, 1.0 / 9.0)
        }),
    ] {
        println!("{name}: {errors:.2} standard errors from that of the uniform distribution");
        assert!(errors < 4.0, "{name}");
    }
}
