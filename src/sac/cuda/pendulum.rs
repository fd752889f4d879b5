//! Whole runs on Pendulum-v1 on the device: a launch of `kernels/pendulum.cu` for a step of every agent, and those of the updates
//! that are then due.

use super::support::steps_environment;
use super::{CudaLearner, Form};
use crate::env::pendulum::STEP_LIMIT;
use crate::env::{DeviceEnv, Env, Info, Pendulum};
use crate::error::Error;
use crate::gpu::kernels::{Arguments, Launch, PendulumStep};
use crate::gpu::{Buffer, Graph, words_mut};
use crate::replay::{Replay, Transition};
use crate::sac::Runner;
use crate::train::{EnvState, Episode};

/// Steps that the longer one of the graphs takes; the other one takes a single step.
const ROLLOUT_STEPS: u64 = 50;

/// Numbers of a transition: s, a, r, 1 − d, s′.
const WIDTH: usize = 9;

/// Where a run stands between two steps; `PendulumState` of `kernels/pendulum.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PendulumState {
    angle: f64,
    velocity: f64,
    total_reward: f64,
    last_return: f64,
    steps: u64,
    end: u64,
    pushed: u64,
    updates: u64,
    episode: u64,
    length: u64,
    observation: [f32; 3],
    unused: f32,
    rewards: [f32; STEP_LIMIT as usize],
}

const PENDULUM_WORDS: usize = size_of::<PendulumState>() / 4;

/// What the device has for it.
pub(super) struct OnDevice {
    /// Of all agents.
    states: Buffer,
    step: Graph,
    rollout: Graph,
}

/// The steps that a run has taken on the device since it was [uploaded](CudaLearner::upload).
pub struct Rollout {
    state: PendulumState,
    /// New transitions, `[steps, 9]`.
    transitions: Vec<f32>,
}

impl CudaLearner {
    /// Whether the device takes whole steps of training in this environment, itself included.
    pub fn runs(&self, env: DeviceEnv) -> bool {
        self.is_fused() && steps_environment(&self.config, env)
    }

    fn on_device(&mut self) -> Result<&OnDevice, Error> {
        if self.pendulum.is_none() {
            let states = self.gpu.allocate(self.agents() * PENDULUM_WORDS)?;
            let launches = |count| (0..count).flat_map(|_| self.step_launches(states)).collect();
            let (step, rollout) = (launches(1), launches(ROLLOUT_STEPS));
            // SAFETY: they are this learner's own.
            let (step, rollout) = unsafe { (self.gpu.capture(step)?, self.gpu.capture(rollout)?) };
            self.pendulum = Some(OnDevice { states, step, rollout });
        }
        Ok(self.pendulum.as_ref().expect("it is there now"))
    }

    /// The launches of a step of each agent, and of the updates that follow: where none is due, an agent rests.
    fn step_launches(&self, states: Buffer) -> Vec<Launch> {
        let (config, form) = (&self.config, Form { some_rest: true, ..Form::USUAL });
        let step = PendulumStep {
            fused: self.fused_arguments(true, form).expect("runs are on the device where updates are fused"),
            pendulum: states,
            random_steps: config.random_steps,
            random_hold: config.random_hold,
            capacity: self.capacity as u64,
            first_update: config.first_update(),
            parts: config.parts_of_update() as u32,
            reward_scale: config.reward_scale as f32,
        };
        let mut launches = vec![step.launch([1, 1, self.agents()])];
        launches.extend(self.launches(true, form));
        launches
    }

    /// Puts a run where [`Self::advance_together`] finds it: `most` steps are ahead of it, or fewer if its episode ends sooner.
    /// Returns that many. The others are as for [`Runner::advance`].
    ///
    /// # Errors
    /// If the GPU fails; [`Error::Snapshot`] if no pendulum stands so.
    pub fn upload(
        &mut self,
        agent: usize,
        most: u64,
        env: &EnvState,
        updates: u64,
        replay: &Replay,
    ) -> Result<u64, Error> {
        let Episode { number: episode, length, total_reward, .. } = env.episode;
        let mut pendulum = Pendulum::new();
        let restored = pendulum.restore(env.env.as_ref().expect("a pendulum can be saved"));
        if restored.is_err() || length >= u64::from(STEP_LIMIT) {
            return Err(Error::Snapshot(format!("there is no pendulum after {length} steps of an episode")));
        }
        let [angle, velocity] = pendulum.state();
        let most = most.min(u64::from(STEP_LIMIT) - length);
        if !replay.is_empty() {
            self.mirror(agent, replay)?;
        }
        let state = PendulumState {
            angle,
            velocity,
            total_reward,
            last_return: 0.0,
            steps: env.env_steps,
            end: env.env_steps + most,
            pushed: replay.pushed() as u64,
            updates,
            episode,
            length,
            observation: env.observation[..].try_into().expect("a pendulum is seen by three numbers"),
            unused: 0.0,
            rewards: [0.0; STEP_LIMIT as usize],
        };
        // SAFETY: a `PendulumState` is so many words of plain numbers, without padding.
        let words = unsafe { std::mem::transmute::<PendulumState, [u32; PENDULUM_WORDS]>(state) };
        let states = self.on_device()?.states;
        // SAFETY: the buffer was made for a `PendulumState` of each agent.
        unsafe { self.gpu.upload(states.at(agent * PENDULUM_WORDS), &words) }?;
        Ok(most)
    }

    /// Takes the steps of all runs that have been [uploaded](Self::upload), `most` at most. Returns, for each of the `agents`, what
    /// has become of it; its environment took `steps` steps before.
    ///
    /// # Errors
    /// If the GPU fails.
    pub fn advance_together(&mut self, most: u64, agents: &[(usize, u64)]) -> Result<Vec<Rollout>, Error> {
        self.store()?;
        self.set_draws(&self.resting())?;
        let &OnDevice { states, step, rollout } = self.on_device()?;
        (0..most / ROLLOUT_STEPS).try_for_each(|_| self.gpu.run_graph(rollout))?;
        (0..most % ROLLOUT_STEPS).try_for_each(|_| self.gpu.run_graph(step))?;
        agents.iter().map(|&(agent, steps)| self.fetch(states, agent, steps)).collect()
    }

    /// What has become of an agent whose environment took `steps` steps before.
    fn fetch(&mut self, states: Buffer, agent: usize, steps: u64) -> Result<Rollout, Error> {
        let mut words = [0_u32; PENDULUM_WORDS];
        // SAFETY: the buffer was made for a `PendulumState` of each agent.
        unsafe { self.gpu.download(states.at(agent * PENDULUM_WORDS), &mut words) }?;
        // SAFETY: a `PendulumState` is so many words of plain numbers, and every bit pattern is valid.
        let state = unsafe { std::mem::transmute::<[u32; PENDULUM_WORDS], PendulumState>(words) };
        let (pushed, memory) = (state.pushed as usize, self.of(agent, self.buffers.memory));
        let mut transitions = vec![0.0; (state.steps - steps) as usize * WIDTH];
        let mut next = pushed - transitions.len() / WIDTH;
        let mut rest = &mut transitions[..];
        while next < pushed {
            // As many as lie in one piece.
            let row = next % self.capacity;
            let count = (pushed - next).min(self.capacity - row);
            let (piece, others) = rest.split_at_mut(count * WIDTH);
            // SAFETY: `row + count` is at most the capacity that the memory was made for.
            unsafe { self.gpu.download(memory.at(row * WIDTH), words_mut(piece)) }?;
            (next, rest) = (next + count, others);
        }
        let own = &mut self.agents[agent];
        (own.updates, own.mirrored) = (state.updates, pushed);
        Ok(Rollout { state, transitions })
    }
}

impl Rollout {
    /// Takes a run to where it stands now; the arguments are those of [`Runner::advance`], and so is what is returned.
    pub(crate) fn apply(self, env: &mut EnvState, updates: &mut u64, replay: &mut Replay) -> Option<Episode> {
        let Self { state, transitions } = self;
        let Episode { number, length, .. } = env.episode;
        let ended = state.episode > number;
        let rewards = state.rewards[length as usize..].iter();
        let mut transitions = transitions.chunks_exact(WIDTH).zip(rewards).peekable();
        while let Some((transition, &reward)) = transitions.next() {
            replay.push(Transition {
                observation: &transition[..3],
                action: &transition[3..4],
                reward,
                next_observation: &transition[6..],
                terminated: false,
                truncated: ended && transitions.peek().is_none(),
            });
        }
        *updates = state.updates;
        *env = EnvState {
            env: Some(Pendulum::saved(state.angle, state.velocity, state.length as u32)),
            env_steps: state.steps,
            observation: state.observation.into(),
            episode: Episode {
                number: state.episode,
                length: state.length,
                total_reward: state.total_reward,
                info: Info::NONE,
            },
        };
        let (length, total_reward) = (STEP_LIMIT.into(), state.last_return);
        ended.then_some(Episode { number, length, total_reward, info: Info::NONE })
    }
}

impl Runner for CudaLearner {
    fn advance(
        &mut self,
        most: u64,
        env: &mut EnvState,
        updates: &mut u64,
        replay: &mut Replay,
    ) -> Result<Option<Episode>, Error> {
        let most = self.upload(0, most, env, *updates, replay)?;
        let rollouts = self.advance_together(most, &[(0, env.env_steps)])?;
        Ok(rollouts.into_iter().find_map(|rollout| rollout.apply(env, updates, replay)))
    }
}
