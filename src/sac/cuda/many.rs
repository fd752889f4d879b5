//! Many agents on one GPU: a [`CudaLearner`] of several agents trains as many runs, each on a thread of its own.
//!
//! Who asks for actions, for an update or for whole steps waits until every other run asks for something too, or has left. Whoever
//! comes last then has it done for all of them: actions if any are asked for, and else updates and steps, so that runs that are at
//! different places come to learn together again. What a run does besides (its environment, evaluations, checkpoints) is its own, and the
//! others wait for it no longer than until they meet again.
//!
//! What an agent computes does not depend on who else takes part, so that each run has the bits that it has by itself.

use super::{CudaLearner, Rollout, UpdateRequest};
use crate::env::DeviceEnv;
use crate::error::Error;
use crate::nn::assert_shape;
use crate::replay::Replay;
use crate::sac::{Learner, Metrics, Runner, Snapshot};
use crate::train::{EnvState, Episode};
use ndarray::{ArrayView2, ArrayViewMut2};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};

/// One of the agents of a [`CudaLearner`], as the learner of a run. The others go on without it once it is dropped.
pub struct AgentLearner {
    agent: usize,
    meeting: Arc<Mutex<Meeting>>,
    /// Those after the last update, which came back with it.
    metrics: Option<Metrics>,
}

/// Where all runs meet.
struct Meeting {
    learner: CudaLearner,
    /// Of each agent.
    runs: Vec<Run>,
    /// What has failed on the device: it goes on failing.
    failure: Option<Error>,
}

/// What a run is at.
enum Run {
    /// Something of its own.
    Elsewhere,
    Asking(Request),
    Gone,
}

struct Request {
    what: What,
    /// If it is dropped without an answer, the run is told that there will be none.
    answer: SyncSender<Result<Answer, Error>>,
}

#[derive(Clone, Copy)]
enum What {
    /// Actions upon so many observations, which the learner has already.
    Act {
        rows: usize,
        sampled: bool,
    },
    Learn(UpdateRequest),
    /// Steps of the environment on the device, `most` of them from where it has taken `steps`.
    Advance {
        most: u64,
        steps: u64,
    },
}

enum Answer {
    /// `[rows, A]`
    Actions(Vec<f32>),
    Metrics(Metrics),
    Rollout(Box<Rollout>),
}

impl AgentLearner {
    /// One for each agent of `learner`, in their order. All must be used on threads of their own, or be dropped, for the
    /// others to go on.
    pub fn of(learner: CudaLearner) -> Vec<Self> {
        let agents = learner.agents();
        let runs = (0..agents).map(|_| Run::Elsewhere).collect();
        let meeting = Arc::new(Mutex::new(Meeting { learner, runs, failure: None }));
        (0..agents).map(|agent| Self { agent, meeting: Arc::clone(&meeting), metrics: None }).collect()
    }

    /// The meeting, while nobody else is at it.
    fn meeting(&self) -> Result<MutexGuard<'_, Meeting>, Error> {
        self.meeting.lock().map_err(|_| abandoned())
    }

    /// Asks for what `prepare` says, and waits for it.
    fn ask(&self, prepare: impl FnOnce(&mut CudaLearner) -> Result<What, Error>) -> Result<Answer, Error> {
        let (answer, answered) = sync_channel(1);
        let mut meeting = self.meeting()?;
        let what = meeting.with_learner(prepare)?;
        meeting.runs[self.agent] = Run::Asking(Request { what, answer });
        meeting.go_on();
        drop(meeting);
        answered.recv().map_err(|_| abandoned())?
    }
}

/// What is left to say where another run has gone down in the middle of what all have asked for.
fn abandoned() -> Error {
    Error::Device("another run that shares it has broken down; begin again".into())
}

impl Meeting {
    /// Does something with the learner, unless its device has failed; a failure is remembered.
    fn with_learner<R>(&mut self, work: impl FnOnce(&mut CudaLearner) -> Result<R, Error>) -> Result<R, Error> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let result = work(&mut self.learner);
        if let Err(failure @ Error::Device(_)) = &result {
            self.failure = Some(failure.clone());
        }
        result
    }

    /// Has done what is asked for, if no run is elsewhere.
    fn go_on(&mut self) {
        if self.runs.iter().any(|run| matches!(run, Run::Elsewhere)) {
            return;
        }
        // If this thread breaks down, all of them are dropped with it, and nobody waits for ever.
        let mut asking = Vec::new();
        for (agent, run) in self.runs.iter_mut().enumerate() {
            if matches!(run, Run::Asking(_))
                && let Run::Asking(request) = std::mem::replace(run, Run::Elsewhere)
            {
                asking.push((agent, request));
            }
        }
        let acting: Vec<_> = asking.extract_if(.., |(_, request)| matches!(request.what, What::Act { .. })).collect();
        if acting.is_empty() {
            let advancing = |(_, request): &mut (usize, Request)| matches!(request.what, What::Advance { .. });
            let advancing = asking.extract_if(.., advancing).collect();
            self.learn(asking);
            self.advance(advancing);
            return;
        }
        self.act(acting);
        // Those that want to learn wait for the others to come so far.
        for (agent, request) in asking {
            self.runs[agent] = Run::Asking(request);
        }
    }

    fn act(&mut self, mut asking: Vec<(usize, Request)>) {
        while let Some(&(_, Request { what: What::Act { rows, sampled }, .. })) = asking.first() {
            let alike = |(_, request): &mut (usize, Request)| match request.what {
                What::Act { rows: r, sampled: s } => (r, s) == (rows, sampled),
                What::Learn(_) | What::Advance { .. } => false,
            };
            let alike: Vec<_> = asking.extract_if(.., alike).collect();
            let actions = self.with_learner(|learner| learner.act_together(rows, sampled));
            for (agent, Request { answer, .. }) in alike {
                let own = actions.as_ref().map_err(Clone::clone).map(|actions| {
                    let length = actions.len() / self.runs.len();
                    Answer::Actions(actions[agent * length..][..length].to_vec())
                });
                tell(&answer, own);
            }
        }
    }

    fn learn(&mut self, asking: Vec<(usize, Request)>) {
        let update = |(_, request): &(usize, Request)| match request.what {
            What::Learn(update) => Some(update),
            What::Act { .. } | What::Advance { .. } => None,
        };
        let updates: Vec<_> = asking.iter().filter_map(update).collect();
        if updates.is_empty() {
            return;
        }
        let metrics = self.with_learner(|learner| {
            learner.learn_together(&updates)?;
            learner.metrics_of_all()
        });
        for (agent, Request { answer, .. }) in asking {
            tell(&answer, metrics.as_ref().map_err(Clone::clone).map(|metrics| Answer::Metrics(metrics[agent])));
        }
    }

    fn advance(&mut self, asking: Vec<(usize, Request)>) {
        let rollout = |(agent, request): &(usize, Request)| match request.what {
            What::Advance { most, steps } => Some((most, (*agent, steps))),
            What::Act { .. } | What::Learn(_) => None,
        };
        let (lengths, agents): (Vec<_>, Vec<_>) = asking.iter().filter_map(rollout).unzip();
        let Some(&most) = lengths.iter().max() else { return };
        let rollouts = self.with_learner(|learner| learner.advance_together(most, &agents));
        let mut rollouts = rollouts.map(Vec::into_iter);
        for (_, Request { answer, .. }) in asking {
            let own = rollouts.as_mut().map_err(|failure| failure.clone());
            let own = own.map(|rollouts| rollouts.next().expect("there is one for each that asks"));
            tell(&answer, own.map(|rollout| Answer::Rollout(Box::new(rollout))));
        }
    }
}

fn tell(answer: &SyncSender<Result<Answer, Error>>, result: Result<Answer, Error>) {
    // There is room for it, and who has asked waits for it.
    let _ = answer.send(result);
}

impl Learner for AgentLearner {
    fn act(
        &mut self,
        observation: ArrayView2<f32>,
        noise: Option<ArrayView2<f32>>,
        mut action: ArrayViewMut2<f32>,
    ) -> Result<(), Error> {
        let (rows, sampled) = (observation.nrows(), noise.is_some());
        let answer = self.ask(|learner| {
            learner.observe(self.agent, observation, noise)?;
            Ok(What::Act { rows, sampled })
        })?;
        let Answer::Actions(actions) = answer else { unreachable!("actions were asked for") };
        assert_shape("the action", action.shape(), &[rows, actions.len() / rows.max(1)]);
        action.iter_mut().zip(actions).for_each(|(action, value)| *action = value);
        Ok(())
    }

    fn learn(&mut self, replay: &Replay, update: u64) -> Result<(), Error> {
        let agent = self.agent;
        let answer = self.ask(|learner| {
            learner.mirror(agent, replay)?;
            Ok(What::Learn(UpdateRequest { agent, update, stored: replay.len() as u64 }))
        })?;
        let Answer::Metrics(metrics) = answer else { unreachable!("an update was asked for") };
        self.metrics = Some(metrics);
        Ok(())
    }

    fn metrics(&mut self) -> Result<Metrics, Error> {
        if let Some(metrics) = self.metrics {
            return Ok(metrics);
        }
        let metrics = self.meeting()?.with_learner(|learner| learner.metrics_of(self.agent))?;
        self.metrics = Some(metrics);
        Ok(metrics)
    }

    fn snapshot(&mut self) -> Result<Snapshot<f32>, Error> {
        self.meeting()?.with_learner(|learner| learner.snapshot_of(self.agent))
    }

    fn restore(&mut self, snapshot: &Snapshot<f32>) -> Result<(), Error> {
        self.metrics = None;
        self.meeting()?.with_learner(|learner| learner.restore_of(self.agent, snapshot))
    }

    fn runner(&mut self, env: DeviceEnv) -> Option<&mut dyn Runner> {
        let runs = self.meeting().is_ok_and(|meeting| meeting.learner.runs(env));
        runs.then_some(self)
    }
}

impl Runner for AgentLearner {
    fn advance(
        &mut self,
        most: u64,
        env: &mut EnvState,
        updates: &mut u64,
        replay: &mut Replay,
    ) -> Result<Option<Episode>, Error> {
        let (agent, steps) = (self.agent, env.env_steps);
        self.metrics = None;
        let answer = self.ask(|learner| {
            let most = learner.upload(agent, most, env, *updates, replay)?;
            Ok(What::Advance { most, steps })
        })?;
        let Answer::Rollout(rollout) = answer else { unreachable!("steps were asked for") };
        Ok(rollout.apply(env, updates, replay))
    }
}

impl Drop for AgentLearner {
    fn drop(&mut self) {
        match self.meeting.lock() {
            Ok(mut meeting) => {
                meeting.runs[self.agent] = Run::Gone;
                meeting.go_on();
            }
            // A run, this one perhaps, has broken down at the meeting: whoever waits there is to know.
            Err(broken) => broken.into_inner().runs.clear(),
        }
    }
}
