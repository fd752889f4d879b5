//! The built-in pendulum against Gymnasium's, as recorded by `tests/golden/pendulum.py`.
#![cfg(feature = "program")]

mod recording;

use recording::{Recorded, distance};
use soft_actor_critic::env::{Env, Pendulum, Step};
use std::f64::consts::PI;

const EPISODES: usize = 5;
const STEPS: usize = 200;

/// A row of `state` and `observation` is before the step of its number, the last one after the last step.
struct Recording {
    state: Vec<f64>,
    observation: Vec<f64>,
    action: Vec<f64>,
    reward: Vec<f64>,
    truncated: Vec<f64>,
    terminated: Vec<f64>,
}

impl Recording {
    fn read() -> Self {
        let file = Recorded::open("pendulum.safetensors");
        let read = |name, shape: &[usize]| file.tensor(name, shape);
        Self {
            state: read("state", &[EPISODES, STEPS + 1, 2]),
            observation: read("observation", &[EPISODES, STEPS + 1, 3]),
            action: read("action", &[EPISODES, STEPS]),
            reward: read("reward", &[EPISODES, STEPS]),
            truncated: read("truncated", &[EPISODES, STEPS]),
            terminated: read("terminated", &[EPISODES, STEPS]),
        }
    }

    fn state(&self, episode: usize, row: usize) -> &[f64] {
        &self.state[(episode * (STEPS + 1) + row) * 2..][..2]
    }

    /// A pendulum where the recorded one was at `row`, at the start of an episode.
    fn pendulum_at(&self, episode: usize, row: usize) -> Pendulum {
        let state = self.state(episode, row);
        Pendulum::at(state[0], state[1])
    }

    /// Takes step `t` with the recorded action; `worst` keeps the largest errors of state, reward and observation.
    fn step(&self, pendulum: &mut Pendulum, episode: usize, t: usize, worst: &mut [f64; 3]) -> Step {
        let at = episode * STEPS + t;
        let step = pendulum.step(&[self.action[at] as f32]).expect("a pendulum does not fail");
        let observation: Vec<f64> = step.observation.iter().map(|&x| f64::from(x)).collect();
        let recorded = &self.observation[(at + episode + 1) * 3..][..3];
        let errors = [
            distance(&pendulum.state(), self.state(episode, t + 1)),
            distance(&[step.reward], &[self.reward[at]]),
            distance(&observation, recorded),
        ];
        worst.iter_mut().zip(errors).for_each(|(worst, error)| *worst = worst.max(error));
        step
    }
}

#[test]
fn one_step_from_every_recorded_state_agrees() {
    let recording = Recording::read();
    let mut worst = [0.0; 3];
    for episode in 0..EPISODES {
        for t in 0..STEPS {
            recording.step(&mut recording.pendulum_at(episode, t), episode, t, &mut worst);
        }
    }
    println!("worst error of one step: state {:.1e}, reward {:.1e}, observation {:.1e}", worst[0], worst[1], worst[2]);
    assert!(worst.iter().all(|&error| error <= 1e-6));
}

#[test]
fn whole_trajectories_agree_and_end_where_the_recorded_ones_do() {
    let recording = Recording::read();
    let mut worst = [0.0; 3];
    for episode in 0..EPISODES {
        let mut pendulum = recording.pendulum_at(episode, 0);
        for t in 0..STEPS {
            let step = recording.step(&mut pendulum, episode, t, &mut worst);
            let at = episode * STEPS + t;
            let flags = [step.truncated, step.terminated].map(|flag| f64::from(u8::from(flag)));
            assert_eq!(flags, [recording.truncated[at], recording.terminated[at]], "episode {episode}, step {t}");
            assert!(!step.terminated);
        }
    }
    println!(
        "worst error of {STEPS} steps: state {:.1e}, reward {:.1e}, observation {:.1e}",
        worst[0], worst[1], worst[2]
    );
    assert!(worst.iter().all(|&error| error <= 1e-3));
}

#[test]
fn episodes_start_uniformly_and_from_their_seed_alone() {
    let seeds = 20_000;
    let start = |pendulum: &mut Pendulum, seed| {
        let observation = pendulum.reset(seed).expect("a pendulum does not fail");
        let [angle, velocity] = pendulum.state();
        assert_eq!(observation, [angle.cos() as f32, angle.sin() as f32, velocity as f32]);
        [angle / PI, velocity]
    };
    let truncated = |pendulum: &mut Pendulum| pendulum.step(&[1.0]).expect("a pendulum does not fail").truncated;
    let mut used = Pendulum::new();
    assert_eq!((0..STEPS).find(|_| truncated(&mut used)), Some(STEPS - 1));
    let starts: Vec<_> = (0..seeds).map(|seed| start(&mut used, seed)).collect();
    assert_eq!((0..STEPS).find(|_| truncated(&mut used)), Some(STEPS - 1));
    for seed in [0, 1, seeds - 1] {
        assert_eq!(start(&mut Pendulum::new(), seed), starts[seed as usize], "seed {seed}");
    }
    assert!(starts.iter().flatten().all(|x| x.abs() <= 1.0));

    // Angle/π and velocity are uniform in [-1, 1] and independent: means over n seeds, in their standard errors.
    let moment = |f: &dyn Fn([f64; 2]) -> f64, mean: f64, variance: f64| {
        let found = starts.iter().map(|&x| f(x)).sum::<f64>() / seeds as f64;
        (found - mean).abs() / (variance / seeds as f64).sqrt()
    };
    for (name, errors) in [
        ("mean of the angle", moment(&|x| x[0], 0.0, 1.0 / 3.0)),
        ("mean of the velocity", moment(&|x| x[1], 0.0, 1.0 / 3.0)),
        ("variance of the angle", moment(&|x| x[0] * x[0], 1.0 / 3.0, 4.0 / 45.0)),
        ("variance of the velocity", moment(&|x| x[1] * x[1], 1.0 / 3.0, 4.0 / 45.0)),
        ("covariance of the two", moment(&|x| x[0] * x[1], 0.0, 1.0 / 9.0)),
        ("covariance of one seed and the next", {
            let products: f64 = starts.windows(2).map(|pair| pair[0][0] * pair[1][0]).sum();
            (products / seeds as f64).abs() / (1.0 / 9.0 / seeds as f64).sqrt()
        }),
    ] {
        println!("{name}: {errors:.2} standard errors from that of the uniform distribution");
        assert!(errors < 4.0, "{name}");
    }
}
