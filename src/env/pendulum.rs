//! Pendulum-v1: swing a pendulum up and keep it there.
//!
//! The same dynamics, reward, start distribution and 200-step limit as Gymnasium's `Pendulum-v1`, compared with recorded
//! trajectories in `tests/pendulum.rs`. It never terminates; the step limit truncates it.

use super::{ACTION_COLOR, Bounds, DeviceEnv, Env, EnvError, Scene, Step, state_from_bytes, state_to_bytes};
use crate::rng::{Philox, Stream};
use rand::Rng;
use std::f64::consts::PI;

const MAX_SPEED: f64 = 8.0;
const MAX_TORQUE: f64 = 2.0;
const DT: f64 = 0.05;
const GRAVITY: f64 = 10.0;
const MASS: f64 = 1.0;
const LENGTH: f64 = 1.0;
pub(crate) const STEP_LIMIT: u32 = 200;

/// The pendulum's state: angle from upright (rad), angular velocity (rad/s), steps taken in this episode.
#[derive(Clone, Debug, Default)]
pub struct Pendulum {
    angle: f64,
    velocity: f64,
    steps: u32,
}

impl Pendulum {
    /// A pendulum at rest, upright. Training begins with [`Env::reset`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A pendulum at `angle` (rad, 0 is upright) and `velocity` (rad/s), at the start of an episode.
    pub fn at(angle: f64, velocity: f64) -> Self {
        Self { angle, velocity, steps: 0 }
    }

    /// Angle (rad, not wrapped) and angular velocity (rad/s).
    pub fn state(&self) -> [f64; 2] {
        [self.angle, self.velocity]
    }

    /// What [`Env::save`] tells of a pendulum that has taken so many steps of its episode.
    #[cfg(feature = "cuda")]
    pub(crate) fn saved(angle: f64, velocity: f64, steps: u32) -> Vec<u8> {
        state_to_bytes(&[angle, velocity], steps)
    }

    fn observation(&self) -> Vec<f32> {
        vec![self.angle.cos() as f32, self.angle.sin() as f32, self.velocity as f32]
    }
}

impl Env for Pendulum {
    fn observation_size(&self) -> usize {
        3
    }

    fn action_bounds(&self) -> Bounds {
        let torque = MAX_TORQUE as f32;
        Bounds::new(vec![-torque], vec![torque]).expect("the torque has a range")
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        let mut rng = Philox::new(seed, Stream::Environment, 0);
        *self = Self::at(rng.random_range(-PI..=PI), rng.random_range(-1.0..=1.0));
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        let torque = f64::from(action[0]).clamp(-MAX_TORQUE, MAX_TORQUE);
        let wrapped = (self.angle + PI).rem_euclid(2.0 * PI) - PI;
        let cost = wrapped.powi(2) + 0.1 * self.velocity.powi(2) + 0.001 * torque.powi(2);

        let acceleration = 3.0 * GRAVITY / (2.0 * LENGTH) * self.angle.sin() + 3.0 / (MASS * LENGTH.powi(2)) * torque;
        self.velocity = (self.velocity + acceleration * DT).clamp(-MAX_SPEED, MAX_SPEED);
        self.angle += self.velocity * DT;
        self.steps += 1;
        Ok(Step {
            observation: self.observation(),
            reward: -cost,
            terminated: false,
            truncated: self.steps >= STEP_LIMIT,
        })
    }

    fn render(&mut self, action: &[f32]) -> Result<Option<Scene>, EnvError> {
        // A positive torque and a positive angle turn to the left. The arrow begins at the rod, which it pushes.
        let torque = f64::from(action[0]) / MAX_TORQUE;
        let sweep = 1.8 * torque;
        let (x, y) = (-80.0 * sweep.sin(), -80.0 * sweep.cos());
        let clockwise = u8::from(torque < 0.0);
        let head = -18.0 * torque.signum() * torque.abs().sqrt();
        let half = 0.6 * head.abs();
        Ok(Some(Scene::Svg(format!(
            r##"<g transform="translate(200 200) rotate({angle})" fill="none" stroke-linecap="round">
<circle r="150" stroke="#ECEFF1" stroke-width="2"/>
<g stroke="{ACTION_COLOR}" stroke-width="5"><path d="M0 -80A80 80 0 0 {clockwise} {x} {y}" stroke-linecap="butt"/>
<path d="M0 {half}L{head} 0L0 -{half}Z" fill="{ACTION_COLOR}" stroke="none" transform="rotate({turn}) translate(0 -80)"/></g>
<path d="M0 0V-150" stroke="#37474F" stroke-width="12"/>
<circle cy="-150" r="22" fill="#0072B2"/><circle r="12" fill="#37474F"/><circle r="5" fill="white"/></g>"##,
            angle = -self.angle.to_degrees(),
            turn = -sweep.to_degrees(),
        ))))
    }

    fn on_device(&self) -> Option<DeviceEnv> {
        Some(DeviceEnv::Pendulum)
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some(state_to_bytes(&[self.angle, self.velocity], self.steps))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), EnvError> {
        let ([angle, velocity], steps) = state_from_bytes(state, STEP_LIMIT)?;
        *self = Self { angle, velocity, steps };
        Ok(())
    }
}
