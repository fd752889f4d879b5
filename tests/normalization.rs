//! Normalized observations: what is counted, what the policy acts upon and what is learned from, against plain sums over all
//! that an environment has told.

use ndarray::{ArrayView2, ArrayViewMut2};
use soft_actor_critic::config::Config;
use soft_actor_critic::env::{Bounds, Env, EnvError, Step};
use soft_actor_critic::error::Error;
use soft_actor_critic::normalizer::Normalizer;
use soft_actor_critic::replay::{Batch, Replay};
use soft_actor_critic::sac::{CpuLearner, Learner, Metrics, Snapshot};
use soft_actor_critic::train::{Trainer, TrainerState};
use std::sync::{Arc, Mutex};

/// Observations, and whether a reset gave them.
type Told = Arc<Mutex<Vec<([f32; 2], bool)>>>;

/// What is to be counted: all but an observation with which an episode begins, until its first step is done.
fn counted(told: &Told) -> Vec<[f32; 2]> {
    let told = told.lock().expect("no thread has panicked");
    let all = if told.last().is_some_and(|last| last.1) { told.len() - 1 } else { told.len() };
    told[..all].iter().map(|(observation, _)| *observation).collect()
}

/// Walks on numbers far from 0 and of unequal spread, and notes all that it tells.
struct Walk {
    told: Told,
    state: [f32; 2],
    steps: u32,
    /// How far an action goes.
    stride: f32,
}

impl Walk {
    fn new(told: Told) -> Self {
        Self { told, state: [0.0; 2], steps: 0, stride: 3.0 }
    }

    fn tell(&self, reset: bool) -> Vec<f32> {
        self.told.lock().expect("no thread has panicked").push((self.state, reset));
        self.state.to_vec()
    }
}

impl Env for Walk {
    fn observation_size(&self) -> usize {
        2
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-1.0], vec![1.0]).expect("it is a range")
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        self.state = [300.0 + (seed % 10) as f32, 0.01 * (seed % 7) as f32];
        self.steps = 0;
        Ok(self.tell(true))
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.state = [self.state[0] + self.stride * action[0], 0.9 * self.state[1] - 0.002 * action[0]];
        self.steps += 1;
        let (terminated, truncated) = (self.state[0] > 310.0, self.steps == 9);
        Ok(Step { observation: self.tell(false), reward: -f64::from(self.state[1]), terminated, truncated })
    }
}

/// (x − mean)/√(variance + 10⁻⁸) clipped to ±10, over all that was told.
fn normalized(told: &[[f32; 2]], observation: [f32; 2]) -> [f64; 2] {
    [0, 1].map(|i| {
        let column = || told.iter().map(|observation| f64::from(observation[i]));
        let mean = column().sum::<f64>() / told.len() as f64;
        let variance = column().map(|x| (x - mean).powi(2)).sum::<f64>() / told.len() as f64;
        ((f64::from(observation[i]) - mean) / (variance + 1e-8).sqrt()).clamp(-10.0, 10.0)
    })
}

fn assert_near(found: impl IntoIterator<Item = f32>, expected: [f64; 2]) {
    let found: Vec<_> = found.into_iter().collect();
    assert_eq!(found.len(), 2);
    // The mean of 300 is rounded to f32.
    let near = found.iter().zip(expected).all(|(&found, expected)| (f64::from(found) - expected).abs() < 1e-3);
    assert!(near, "{found:?} instead of {expected:?}");
}

/// A learner that looks at what it is given.
struct Witness {
    learner: CpuLearner,
    told: Told,
    acts: Arc<Mutex<usize>>,
}

impl Learner for Witness {
    fn act(
        &mut self,
        observation: ArrayView2<f32>,
        noise: Option<ArrayView2<f32>>,
        action: ArrayViewMut2<f32>,
    ) -> Result<(), Error> {
        let (last, _) = *self.told.lock().expect("no thread has panicked").last().expect("there was a reset");
        assert_near(observation.iter().copied(), normalized(&counted(&self.told), last));
        *self.acts.lock().expect("no thread has panicked") += 1;
        self.learner.act(observation, noise, action)
    }

    /// The memory has raw observations, and shows them through the statistics of now.
    fn learn(&mut self, replay: &Replay, update: u64) -> Result<(), Error> {
        let told = counted(&self.told);
        let (mut raw, mut batch) = (vec![0.0; replay.transition_size()], Batch::<f32>::zeros(1, 2, 1));
        for row in 0..replay.len() {
            replay.write_transition(row, &mut raw);
            let (observation, next) = ([raw[0], raw[1]], [raw[5], raw[6]]);
            assert!(told.contains(&observation) && told.contains(&next));
            replay.gather(&[row], 0.99, 1, &mut batch);
            assert_near(batch.observation.iter().copied(), normalized(&told, observation));
            assert_near(batch.next_observation.iter().copied(), normalized(&told, next));
        }
        self.learner.learn(replay, update)
    }

    fn metrics(&mut self) -> Result<Metrics, Error> {
        Ok(self.learner.metrics())
    }

    fn snapshot(&mut self) -> Result<Snapshot<f32>, Error> {
        Ok(self.learner.snapshot())
    }

    fn restore(&mut self, snapshot: &Snapshot<f32>) -> Result<(), Error> {
        Learner::restore(&mut self.learner, snapshot)
    }
}

#[test]
fn observations_are_seen_through_the_statistics_of_all_so_far() {
    let config = Config {
        normalize_observations: true,
        steps: 60,
        batch_size: 4,
        random_steps: 10,
        replay_capacity: 30,
        policy_hidden: vec![5],
        critic_hidden: vec![5],
        ..Config::default()
    };
    let (told, acts) = (Told::default(), Arc::<Mutex<usize>>::default());
    let mut made = 0;
    let theirs = Arc::clone(&told);
    let make_env = move || {
        made += 1;
        // What an evaluation meets does not count.
        let told = if made == 1 { Arc::clone(&theirs) } else { Told::default() };
        Ok(Box::new(Walk::new(told)) as Box<dyn Env>)
    };
    let mut trainer = Trainer::with_learner(make_env, config, |config, o, half_range| {
        let learner = CpuLearner::new(config, o, half_range);
        Ok(Box::new(Witness { learner, told: Arc::clone(&told), acts: Arc::clone(&acts) }))
    })
    .expect("it is valid");
    let mut episodes = 0;
    while !trainer.is_finished() {
        episodes += trainer.step().expect("it trains").len();
        let before = trainer.replay().normalizer.clone().expect("they are counted");
        let begun = trainer.save().expect("it is on the CPU").envs[0].episode.length > 0;
        // One for each step, and one more for each episode.
        assert_eq!(before.count(), trainer.steps() as f64 + episodes as f64 + f64::from(begun));
        assert_eq!(before.count(), counted(&told).len() as f64);
        trainer.evaluate(1).expect("it works");
        assert_eq!(trainer.replay().normalizer.as_ref(), Some(&before));
        let actor = trainer.actor().expect("it is on the CPU");
        assert_eq!(actor.normalizer(), Some(&before));
    }
    assert!(episodes > 5 && *acts.lock().expect("no thread has panicked") == 50);
}

/// An actor is its policy behind its normalizer.
#[test]
fn an_actor_normalizes_what_it_acts_upon() {
    let config = Config {
        normalize_observations: true,
        steps: 40,
        batch_size: 4,
        random_steps: 10,
        policy_hidden: vec![5],
        critic_hidden: vec![5],
        ..Config::default()
    };
    let make_env = || Box::new(Walk::new(Told::default())) as Box<dyn Env>;
    let mut trainer = Trainer::new(make_env, config).expect("it is valid");
    while !trainer.is_finished() {
        trainer.step().expect("it trains");
    }
    let mut actor = trainer.actor().expect("it is on the CPU");
    let mut plain = actor.clone().with_normalizer(None);
    let (mut action, mut expected) = ([0.0], [0.0]);
    let observation = [303.0, 0.03];
    let mut seen = observation;
    actor.normalizer().expect("it has one").apply(&mut seen);
    actor.act(&observation, Some(&[0.4]), &mut action);
    plain.act(&seen, Some(&[0.4]), &mut expected);
    assert_eq!(action, expected);
    plain.act(&observation, Some(&[0.4]), &mut expected);
    assert_ne!(action, expected);
}

/// [`Walk`] cannot be restored: an episode on its way is repeated, and where that goes another way, the next one begins.
/// Either way nothing is counted twice.
#[test]
fn what_is_observed_again_is_counted_once() {
    let config =
        Config { normalize_observations: true, steps: 60, batch_size: 50, random_steps: 10, ..Config::default() };
    let make_env = || Box::new(Walk::new(Told::default())) as Box<dyn Env>;
    let begin = || Trainer::new(make_env, config.clone()).expect("it is valid");
    let make_other = || Box::new(Walk { stride: 2.0, ..Walk::new(Told::default()) }) as Box<dyn Env>;
    let begin_other = || Trainer::new(make_other, config.clone()).expect("it is valid");
    let state = |trainer: &mut Trainer| trainer.save().expect("it is on the CPU");
    for (episodes, more, repeats) in [(0, 0, true), (1, 0, true), (2, 0, true), (2, 1, true), (2, 1, false)] {
        let (mut whole, mut resumed) = (begin(), if repeats { begin() } else { begin_other() });
        let mut ended = 0;
        while ended < episodes {
            ended += whole.step().expect("it steps").len();
        }
        for _ in 0..more {
            whole.step().expect("it steps");
        }
        let then = state(&mut whole);
        let goes_on = resumed.restore(then.clone(), whole.replay().clone()).expect("it is the same run");
        assert_eq!(goes_on, repeats);
        assert_eq!(state(&mut resumed).normalizer, then.normalizer);
        resumed.step().expect("it steps");
        let now = state(&mut resumed);
        if goes_on {
            whole.step().expect("it steps");
            let expected = state(&mut whole);
            assert_eq!((now.envs, now.normalizer), (expected.envs, expected.normalizer));
        } else {
            let count = |state: &TrainerState| state.normalizer.as_ref().map_or(0.0, Normalizer::count);
            assert_eq!(count(&now), count(&then) + 2.0);
        }
    }
    // What was not counted cannot go on as if it had been.
    let mut plain =
        Trainer::new(make_env, Config { normalize_observations: false, ..config.clone() }).expect("it is valid");
    let (state, replay) = (plain.save().expect("it is on the CPU"), plain.replay().clone());
    let error = begin().restore(state, replay).expect_err("it has no statistics").to_string();
    assert!(error.contains("its statistics of observations are those of another run"), "{error}");
}
