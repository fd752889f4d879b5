//! MountainCarContinuous-v0: swing a car that is too weak for its hill out of the valley and up to the goal.
//!
//! The same dynamics, reward, start distribution and 999-step limit as Gymnasium's `MountainCarContinuous-v0`, compared
//! with recorded trajectories in `tests/mountain_car.rs`. The goal terminates it with a reward of 100; the step limit
//! truncates it.
//!
//! Gymnasium starts in f64 and keeps the state in f32 after the first step; its actions are f32 unless they are clipped.
//! So the acceleration of an action within the bounds is rounded to f32 after each operation, and from the second step on
//! so is the rest. Here they are computed in f64 and then rounded, which gives the same bits.

use super::{ACTION_COLOR, Bounds, Env, EnvError, Scene, Step, state_from_bytes, state_to_bytes};
use crate::rng::{Philox, Stream};
use rand::Rng;

const MAX_ACTION: f64 = 1.0;
const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.45;
const GOAL_REWARD: f64 = 100.0;
const POWER: f64 = 0.0015;
const GRAVITY: f64 = 0.0025;
const STEP_LIMIT: u32 = 999;

/// The car's state: position, velocity (position per step), steps taken in this episode.
#[derive(Clone, Debug)]
pub struct MountainCar {
    position: f64,
    velocity: f64,
    steps: u32,
}

impl Default for MountainCar {
    fn default() -> Self {
        Self::new()
    }
}

impl MountainCar {
    /// A car at rest in the middle of its range of starts. Training begins with [`Env::reset`].
    pub fn new() -> Self {
        Self::at(-0.5, 0.0)
    }

    /// A car at `position` (−1.2 to 0.6, the goal begins at 0.45) and `velocity` (−0.07 to 0.07), at the start of an
    /// episode.
    pub fn at(position: f64, velocity: f64) -> Self {
        Self { position, velocity, steps: 0 }
    }

    /// Position and velocity.
    pub fn state(&self) -> [f64; 2] {
        [self.position, self.velocity]
    }

    fn observation(&self) -> Vec<f32> {
        vec![self.position as f32, self.velocity as f32]
    }
}

impl Env for MountainCar {
    fn observation_size(&self) -> usize {
        2
    }

    fn action_bounds(&self) -> Bounds {
        let force = MAX_ACTION as f32;
        Bounds::new(vec![-force], vec![force]).expect("the force has a range")
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        let mut rng = Philox::new(seed, Stream::Environment, 0);
        *self = Self::at(rng.random_range(-0.6..=-0.4), 0.0);
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        let first = self.steps == 0;
        let round = |x: f64| if first { x } else { to_f32(x) };

        let action = f64::from(action[0]);
        let slope = GRAVITY * round(3.0 * self.position).cos();
        let acceleration = if action.abs() <= MAX_ACTION {
            to_f32(to_f32(action * to_f32(POWER)) - to_f32(slope))
        } else {
            round(MAX_ACTION.copysign(action) * POWER - slope)
        };
        let mut velocity = round(self.velocity + acceleration).clamp(-round(MAX_SPEED), round(MAX_SPEED));
        let position = round(self.position + velocity).clamp(round(MIN_POSITION), round(MAX_POSITION));
        if position == round(MIN_POSITION) {
            velocity = velocity.max(0.0);
        }

        let terminated = position >= round(GOAL_POSITION) && velocity >= 0.0;
        (self.position, self.velocity) = (to_f32(position), to_f32(velocity));
        self.steps += 1;
        Ok(Step {
            observation: self.observation(),
            reward: if terminated { GOAL_REWARD } else { 0.0 } - 0.1 * action.powi(2),
            terminated,
            truncated: self.steps >= STEP_LIMIT,
        })
    }

    fn render(&mut self, action: &[f32]) -> Result<Option<Scene>, EnvError> {
        // Gymnasium's hill, ⁹⁄₂₀ sin 3x, at 200 to a unit both ways; it goes on beyond the edges.
        let at = |position: f64| (200.0 * (position + 1.3), 250.0 - 90.0 * (3.0 * position).sin());
        let hill = (-1..=101).map(|i| at(f64::from(i) / 50.0 - 1.3));
        let hill: String = hill.map(|(x, y)| format!("L{x:.1} {y:.1}")).collect();
        let ((flag_x, flag_y), (x, y)) = (at(GOAL_POSITION), at(self.position));
        let slope = 1.35 * (3.0 * self.position).cos();
        let force = f64::from(action[0]).clamp(-MAX_ACTION, MAX_ACTION);
        let head = 14.0 * force.signum() * force.abs().sqrt();
        Ok(Some(Scene::Svg(format!(
            r##"<path d="M-4 404{hill}V404Z" fill="#ECEFF1" stroke="#90A4AE" stroke-width="2"/>
<g transform="translate({flag_x} {flag_y})"><path d="M0 -50L28 -41L0 -32Z" fill="#009E73"/>
<path d="M0 0V-51" stroke="#37474F" stroke-width="3"/></g>
<g transform="translate({x} {y}) rotate({angle})">
<path d="M-22 -8L-18 -18H-9L-4 -27H9L14 -18H22V-8Z" fill="#0072B2" stroke="#0072B2" stroke-width="3" stroke-linejoin="round"/>
<g fill="#37474F" stroke="white" stroke-width="2"><circle cx="-12" cy="-7" r="7"/><circle cx="12" cy="-7" r="7"/></g>
<g fill="{ACTION_COLOR}"><path d="M0 -44h{shaft}" stroke="{ACTION_COLOR}" stroke-width="5"/>
<path d="M{shaft} -{low}l{head} {half}l{back} {half}Z"/></g></g>"##,
            angle = -slope.atan().to_degrees(),
            back = -head,
            shaft = 36.0 * force,
            half = 0.6 * head.abs(),
            low = 44.0 + 0.6 * head.abs(),
        ))))
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(state_to_bytes(&[self.position, self.velocity], self.steps))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), EnvError> {
        let ([position, velocity], steps) = state_from_bytes(state, STEP_LIMIT)?;
        *self = Self { position, velocity, steps };
        Ok(())
    }
}

/// The value in f32 that is nearest to `x`.
fn to_f32(x: f64) -> f64 {
    f64::from(x as f32)
}
