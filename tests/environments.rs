//! Environments that a user may bring: faulty ones, ones with uneven action ranges, ones whose rewards explode.

use soft_actor_critic::actor::{Actor, evaluate};
use soft_actor_critic::config::{Alpha, Config, FirstUpdate};
use soft_actor_critic::env::{Bounds, Env, EnvError, MountainCar, Pendulum, Step};
use soft_actor_critic::error::Error;
use soft_actor_critic::replay::Replay;
use soft_actor_critic::sac::{CpuLearner, Learner};
use soft_actor_critic::train::{Trainer, TrainerState, with_threads};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// An observation and a reward.
type Answer = Result<(Vec<f32>, f64), EnvError>;

/// What gives one, the same at each call.
type Always = fn() -> Answer;

/// What is answered to a call: something harmless before call number `from`, `answer` from then on.
#[derive(Clone)]
struct Script {
    from: u64,
    answer: Always,
    calls: u64,
}

impl Script {
    fn new(from: u64, answer: Always) -> Self {
        Self { from, answer, calls: 0 }
    }

    fn harmless() -> Self {
        Self::new(u64::MAX, || unreachable!())
    }

    fn call(&mut self) -> Answer {
        self.calls += 1;
        if self.calls < self.from { Ok((vec![0.5, -0.5], 1.0)) } else { (self.answer)() }
    }
}

/// Episodes of ten steps with two observations, answered by scripts.
#[derive(Clone)]
struct Scripted {
    reset: Script,
    step: Script,
    bounds: Bounds,
    /// The actions that were taken, clones of this environment included.
    actions: Arc<Mutex<Vec<Vec<f32>>>>,
}

impl Scripted {
    fn new(reset: Script, step: Script) -> Self {
        let bounds = Bounds::new(vec![-2.0], vec![2.0]).expect("it is a range");
        Self { reset, step, bounds, actions: Arc::default() }
    }
}

impl Env for Scripted {
    fn observation_size(&self) -> usize {
        2
    }

    fn action_bounds(&self) -> Bounds {
        self.bounds.clone()
    }

    fn reset(&mut self, _: u64) -> Result<Vec<f32>, EnvError> {
        Ok(self.reset.call()?.0)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.actions.lock().expect("nobody panics with it").push(action.to_vec());
        let (observation, reward) = self.step.call()?;
        Ok(Step { observation, reward, terminated: false, truncated: self.step.calls.is_multiple_of(10) })
    }
}

const RANDOM_STEPS: u64 = 1_000;

fn train_on(env: &Scripted) -> Result<Trainer, Error> {
    let config = Config {
        steps: 2 * RANDOM_STEPS,
        random_steps: RANDOM_STEPS,
        policy_hidden: vec![8],
        critic_hidden: vec![8],
        batch_size: 16,
        ..Config::default()
    };
    let env = env.clone();
    Trainer::new(move || Box::new(env.clone()), config)
}

/// Steps until training fails, and returns how. What was learned must have stayed finite.
fn failure(trainer: &mut Trainer) -> Error {
    let error = loop {
        assert!(!trainer.is_finished(), "training did not fail");
        if let Err(error) = trainer.step() {
            break error;
        }
    };
    assert_finite(trainer);
    error
}

fn assert_finite(trainer: &mut Trainer) {
    assert!(
        trainer.actor().expect("it runs on the CPU").theta().iter().all(|value| value.is_finite()),
        "the policy is spoilt"
    );
}

/// The error tells step and problem, and does so in one line that names the mend.
fn assert_environment_failed<T>(result: Result<T, Error>, expected_step: u64, expected: &str) {
    let Some(Error::Environment { step, problem }) = result.as_ref().err() else { panic!("no {expected:?}") };
    assert!(*step == expected_step && problem.contains(expected), "step {step}: {problem}");
    let line = result.err().expect("it is one").to_string();
    assert!(line.contains(expected) && line.ends_with("mend the environment") && !line.contains('\n'), "{line}");
}

/// The error of an evaluation says in which of its episodes, and at which step of that.
fn assert_evaluation_failed<T>(result: Result<T, Error>, expected_step: u64, expected: &str) {
    let Some(Error::Evaluation { episode: 1, step, problem }) = result.as_ref().err() else {
        panic!("no {expected:?}")
    };
    assert!(*step == expected_step && problem.contains(expected), "step {step}: {problem}");
    let line = result.err().expect("it is one").to_string();
    assert!(line.starts_with(&format!("episode 1 of the evaluation failed at its step {expected_step}: ")), "{line}");
    assert!(line.contains(expected) && line.ends_with("fix the environment") && !line.contains('\n'), "{line}");
}

#[test]
fn a_faulty_step_ends_training_and_evaluation_with_its_number_and_problem() {
    let cases: [(Always, &str); 7] = [
        (|| Ok((vec![0.0, f32::NAN], 0.0)), "element 1 of its observation is NaN"),
        (|| Ok((vec![f32::INFINITY, 0.0], 0.0)), "element 0 of its observation is inf"),
        (|| Ok((vec![0.0; 3], 0.0)), "3 elements instead of 2"),
        (|| Ok((vec![0.0; 2], f64::INFINITY)), "reward is inf"),
        (|| Ok((vec![0.0; 2], f64::NAN)), "reward is NaN"),
        // Finite, but no longer so as the f32 that is learned from.
        (|| Ok((vec![0.0; 2], 1e39)), "not a finite f32"),
        (|| Err("the motor is stuck".into()), "the motor is stuck"),
    ];
    for (answer, problem) in cases {
        let mut env = Scripted::new(Script::harmless(), Script::new(7, answer));
        let mut trainer = train_on(&env).expect("it begins well");
        assert_environment_failed::<()>(Err(failure(&mut trainer)), 7, problem);
        assert_eq!(trainer.steps(), 6);
        assert_evaluation_failed(trainer.evaluate(1), 7, problem);
        assert_evaluation_failed(
            evaluate(&mut trainer.actor().expect("it runs on the CPU"), &mut env, 0, 1, true),
            7,
            problem,
        );
    }
}

#[test]
fn a_faulty_reset_ends_training_and_evaluation_with_the_steps_before_it_and_its_problem() {
    let cases: [(Always, &str); 3] = [
        (|| Ok((vec![f32::NAN, 0.0], 0.0)), "element 0 of its observation is NaN"),
        (|| Ok((vec![0.0], 0.0)), "1 elements instead of 2"),
        (|| Err("no power".into()), "no power"),
    ];
    for (answer, problem) in cases {
        let [mut at_once, later] = [1, 3].map(|from| Scripted::new(Script::new(from, answer), Script::harmless()));
        assert_environment_failed(train_on(&at_once), 0, problem);
        let mut trainer = train_on(&later).expect("it begins well");
        assert_environment_failed::<()>(Err(failure(&mut trainer)), 20, problem);
        assert_evaluation_failed(
            evaluate(&mut trainer.actor().expect("it runs on the CPU"), &mut at_once, 0, 1, false),
            0,
            problem,
        );
    }
}

#[test]
fn random_actions_are_held_and_updates_begin_where_they_are_told_to() {
    let env = Scripted::new(Script::harmless(), Script::harmless());
    let config = Config {
        steps: 60,
        random_steps: 30,
        random_hold: 4,
        first_update: FirstUpdate::Fixed(20),
        policy_hidden: vec![8],
        critic_hidden: vec![8],
        batch_size: 16,
        ..Config::default()
    };
    let made = env.clone();
    let mut trainer = Trainer::new(move || Box::new(made.clone()), config).expect("it begins well");
    while !trainer.is_finished() {
        trainer.step().expect("it is harmless");
        // One update after step 20, and one after each that follows, while actions are still random.
        assert_eq!(
            trainer.metrics().expect("it runs on the CPU").updates,
            (trainer.steps() + 1).saturating_sub(20),
            "step {}",
            trainer.steps()
        );
    }
    let actions = env.actions.lock().expect("nobody panics with it").clone();
    for (step, pair) in actions.windows(2).enumerate() {
        let held = step + 1 < 30 && !(step + 1).is_multiple_of(4);
        assert_eq!(pair[0] == pair[1], held, "step {step} and the next");
    }
}

#[test]
fn a_policy_for_other_actions_or_with_lost_numbers_does_not_act() {
    let mut env = Scripted::new(Script::harmless(), Script::harmless());
    let mut trainer = train_on(&env).expect("it begins well");
    let actor = trainer.actor().expect("it runs on the CPU");
    let mut lost = Actor::new(actor.policy().clone(), vec![f32::NAN; actor.theta().len()], actor.bounds().clone());
    let error = evaluate(&mut lost, &mut env, 0, 1, false).expect_err("its actions are no numbers");
    let problem = "the policy's action is not finite; use another policy".into();
    assert_eq!(error, Error::Evaluation { episode: 1, step: 0, problem });
    let (low, high) =
        (actor.bounds().low().to_vec(), actor.bounds().high().iter().map(|high| 2.0 * high + 1.0).collect());
    let wider = Bounds::new(low, high).expect("it is a range");
    let mut other = Actor::new(actor.policy().clone(), actor.theta().to_vec(), wider);
    let error = evaluate(&mut other, &mut env, 0, 1, false).expect_err("its actions are others");
    assert!(matches!(&error, Error::Policy(problem) if problem.contains("for actions from")), "{error}");
}

#[test]
fn exploding_rewards_end_training_with_the_quantity_and_leave_the_policy_finite() {
    let from = RANDOM_STEPS + 100;
    let env = Scripted::new(Script::harmless(), Script::new(from, || Ok((vec![0.5, -0.5], 1e30))));
    let mut trainer = train_on(&env).expect("it begins well");
    let error = failure(&mut trainer);
    let Error::NonFinite { step, quantity, advice } = error.clone() else { panic!("{error:?}") };
    assert_eq!(quantity, "critic loss");
    // The first such reward is not necessarily in the first batch after it.
    assert!((from..from + 200).contains(&step) && step == trainer.steps(), "step {step}");
    let line = error.to_string();
    assert!(line.contains(quantity) && line.contains(&format!("step {step}")), "{line}");
    assert!(line.ends_with("rewards are as large as 1.0e30; scale them down (--reward-scale)"), "{line}");

    let learned = trainer.actor().expect("it runs on the CPU");
    let metrics = trainer.metrics().expect("it runs on the CPU");
    assert!(metrics.updates > 0 && metrics.values.iter().all(|value| value.is_finite()));
    assert_eq!(trainer.step().expect_err("it does not recover"), Error::NonFinite { step: step + 1, quantity, advice });
    assert_eq!(trainer.actor().expect("it runs on the CPU").theta(), learned.theta());
}

#[test]
fn the_policy_stays_finite_however_large_the_rewards() {
    let rewards: [Always; 6] = [
        || Ok((vec![0.5, -0.5], 1e10)),
        || Ok((vec![0.5, -0.5], -1e17)),
        || Ok((vec![0.5, -0.5], 1e18)),
        || Ok((vec![0.5, -0.5], 1e19)),
        || Ok((vec![0.5, -0.5], -1e25)),
        || Ok((vec![0.5, -0.5], 3e38)),
    ];
    for answer in rewards {
        let mut trainer = train_on(&Scripted::new(Script::harmless(), Script::new(1, answer))).expect("it begins well");
        let ended = (0..2 * RANDOM_STEPS).try_for_each(|_| trainer.step().map(drop));
        assert!(matches!(ended, Ok(()) | Err(Error::NonFinite { .. })), "{ended:?}");
        println!("{:?}: {ended:?}", answer().map(|(_, reward)| reward));
        assert_finite(&mut trainer);
    }
}

#[test]
fn actions_stay_within_the_range_of_each_dimension_and_reach_both_ends() {
    let (low, high) = (vec![-2.0, 0.0, -0.3, 1e3], vec![2.0, 10.0, 0.1, 1.001e3]);
    let bounds = Bounds::new(low.clone(), high.clone()).expect("they are ranges");
    let env = Scripted { bounds, ..Scripted::new(Script::harmless(), Script::harmless()) };
    let mut trainer = train_on(&env).expect("it begins well");
    while !trainer.is_finished() {
        trainer.step().expect("it goes well");
    }
    let actions = env.actions.lock().expect("nobody panics with it");
    let (random, learned) = actions.split_at(RANDOM_STEPS as usize);
    for (d, (&low, &high)) in low.iter().zip(&high).enumerate() {
        let range = |actions: &[Vec<f32>]| {
            let of_dimension = actions.iter().map(|action| action[d]);
            (of_dimension.clone().fold(f32::INFINITY, f32::min), of_dimension.fold(f32::NEG_INFINITY, f32::max))
        };
        let ((least, most), margin) = (range(random), 0.01 * (high - low));
        println!("dimension {d}, {low} to {high}: random steps took {least} to {most}");
        assert!(low <= least && least < low + margin && high - margin < most && most <= high);
        let (least, most) = range(learned);
        assert!(low <= least && least < most && most <= high);
    }
}

/// Another trainer goes on exactly where the first stood, if the environment can tell its state; if it cannot, with a new
/// episode.
/// Whoever gives a run more steps is told what its memory needs for that; it then goes on as if it had always had them.
#[test]
fn a_run_is_lengthened_as_the_error_says() {
    let small = Config {
        random_steps: 20,
        batch_size: 8,
        policy_hidden: vec![8],
        critic_hidden: vec![8],
        normalize_observations: true,
        ..Config::default()
    };
    for envs in [1, 3] {
        let of_steps = |steps| {
            let config = Config { steps, envs, ..small.clone() };
            Trainer::new(|| Box::new(Pendulum::new()), config).expect("it begins well")
        };
        let (mut short, mut long, mut lengthened) = (of_steps(250), of_steps(500), of_steps(500));
        while !short.is_finished() {
            assert_eq!(short.step().expect("it goes well"), long.step().expect("it goes well"));
        }
        let (state, replay) = (short.save().expect("it runs on the CPU"), short.replay().clone());
        let error = lengthened.restore(state.clone(), replay.clone()).expect_err("it has no room").to_string();
        let config = lengthened.config();
        let room = config.replay_rows_with(state.preloaded);
        assert!(error.contains(&format!("of 500 steps, for {room}; to go on")), "{error}");
        assert!(error.contains(&format!("restore replay.resized({room}, {envs})")) && !error.contains('\n'), "{error}");
        let replay = replay.resized(room, envs).expect("there is memory");
        assert_eq!(lengthened.restore(state, replay), Ok(true));
        while !long.is_finished() {
            assert_eq!(lengthened.step().expect("it goes well"), long.step().expect("it goes well"));
        }
        assert!(lengthened.is_finished());
        assert_eq!(lengthened.save().expect("it runs on the CPU"), long.save().expect("it runs on the CPU"));
    }
}

#[test]
fn a_trainer_is_restored_with_its_episode_or_with_a_new_one() {
    let config = Config {
        steps: 400,
        random_steps: 20,
        batch_size: 8,
        policy_hidden: vec![8],
        critic_hidden: vec![8],
        ..Config::default()
    };
    let replay_of = |trainer: &Trainer| trainer.replay().clone();
    let pendulum = || Trainer::new(|| Box::new(Pendulum::new()), config.clone()).expect("it begins well");
    let (mut first, mut second) = (pendulum(), pendulum());
    for _ in 0..250 {
        first.step().expect("it goes well");
    }
    let state = first.save().expect("it runs on the CPU");
    assert!(second.restore(state.clone(), replay_of(&first)).expect("it fits"));
    for _ in 0..150 {
        assert_eq!(first.step().expect("it goes well"), second.step().expect("it goes well"));
    }
    assert_eq!(first.save().expect("it runs on the CPU"), second.save().expect("it runs on the CPU"));

    // Environments that cannot save themselves repeat their episodes, of ten steps each.
    let scripted = |envs, replay_capacity, step: Script| {
        let make = move || -> Box<dyn Env> { Box::new(Scripted::new(Script::harmless(), step.clone())) };
        Trainer::new(make, Config { envs, replay_capacity, ..config.clone() }).expect("it begins well")
    };
    let sound = Script::harmless();
    let other_observation = Script::new(2, || Ok((vec![0.5, -0.4], 1.0)));
    let other_reward = Script::new(3, || Ok((vec![0.5, -0.5], 1.0 + 1e-6)));
    let cases = [
        (1, 40, 400, &sound, true),
        (1, 43, 400, &sound, true),
        (3, 43, 400, &sound, true),
        // The memory holds all of the episode, or lacks its first step.
        (3, 44, 12, &sound, true),
        (3, 45, 12, &sound, false),
        (1, 43, 400, &other_observation, false),
        (3, 43, 400, &other_reward, false),
    ];
    for (envs, rounds, capacity, script, goes_on) in cases {
        let (mut first, mut second) =
            (scripted(envs, capacity, sound.clone()), scripted(envs, capacity, script.clone()));
        for _ in 0..rounds {
            first.step().expect("it goes well");
        }
        let state = first.save().expect("it runs on the CPU");
        assert_eq!(state.envs[0].env, None);
        assert_eq!(second.restore(state.clone(), replay_of(&first)).expect("it fits"), goes_on);
        assert_eq!(second.steps(), (envs * rounds) as u64);
        let restored = second.save().expect("it runs on the CPU");
        if goes_on {
            assert_eq!(restored, state);
        }
        for (i, env) in restored.envs.iter().enumerate() {
            let number = (4 + usize::from(!goes_on)) * envs + i + 1;
            let length = if goes_on { rounds % 10 } else { 0 };
            assert_eq!((env.episode.number, env.episode.length), (number as u64, length as u64));
        }
        for _ in 0..15 {
            let (one, other) = (first.step().expect("it goes well"), second.step().expect("it goes well"));
            assert!(!goes_on || one == other);
        }
        assert_eq!(goes_on, first.save().expect("it runs on the CPU") == second.save().expect("it runs on the CPU"));
        assert!(scripted(envs + 1, 400, sound.clone()).restore(state.clone(), replay_of(&first)).is_err());
        let other = Replay::new(401, 2, 1).expect("it is small");
        assert!(matches!(second.restore(state, other), Err(Error::Snapshot(_))));
    }
}

/// The sizes and the action bounds of a run's environment are those it goes on with.
#[test]
fn a_run_does_not_go_on_in_another_environment() {
    let config = Config { policy_hidden: vec![4], critic_hidden: vec![4], replay_capacity: 300, ..Config::default() };
    let begin = |make: fn() -> Box<dyn Env>| Trainer::new(make, config.clone()).expect("it begins well");
    let pendulum = || begin(|| Box::new(Pendulum::new()));
    let replay = |observations| Replay::new(300, observations, 1).expect("it is small");
    let state = pendulum().save().expect("it runs on the CPU");
    let cart = begin(|| Box::new(MountainCar::new())).save().expect("it runs on the CPU");
    let wider = Bounds::new(vec![-20.0], vec![20.0]).expect("they are valid");
    let wide = TrainerState { bounds: Some(wider), ..state.clone() };
    for (other, observations, problem) in [
        (wide, 3, "it is for actions from [-20.0] to [20.0], not from [-2.0] to [2.0]"),
        (cart, 2, "it is for 2 observation and 1 action dimensions, of which there are 3 and 1"),
    ] {
        let error = pendulum().restore(other, replay(observations)).expect_err("it is of another environment");
        assert_eq!(error, Error::OtherEnvironment(problem.into()));
    }
    // The first checkpoints did not have the bounds.
    pendulum().restore(TrainerState { bounds: None, ..state }, replay(3)).expect("it fits");
}

/// Whoever watches sees each step of an evaluation and of a repetition, and ends it; then both can be begun again.
#[test]
fn evaluations_and_repetitions_are_ended_at_any_step() {
    let config = Config {
        steps: 20,
        random_steps: 10,
        batch_size: 8,
        policy_hidden: vec![8],
        critic_hidden: vec![8],
        eval_every: 15,
        eval_episodes: 2,
        ..Config::default()
    };
    let scripted = || {
        let make = || -> Box<dyn Env> { Box::new(Scripted::new(Script::harmless(), Script::harmless())) };
        Trainer::new(make, config.clone()).expect("it begins well")
    };
    let mut whole = scripted();
    for _ in 0..15 {
        whole.step().expect("it goes well");
    }
    let state = whole.save().expect("it runs on the CPU");
    assert_eq!(state.before_evaluation, Some(vec![]));
    let evaluation = whole.evaluate_if_due().expect("it goes well").expect("it is due");
    assert_eq!(whole.evaluate_if_due(), Ok(None));
    let after = whole.save().expect("it runs on the CPU");
    assert_eq!(after.before_evaluation, None);

    // Five steps are repeated, and an evaluation has two episodes of ten steps.
    for break_at in 1..=5 + 2 * 11 + 1 {
        let mut trainer = scripted();
        let seen = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&seen);
        trainer.watch(move |_| {
            let mut seen = counter.lock().expect("nobody panics with it");
            *seen += 1;
            if *seen == break_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let restored = trainer.restore(state.clone(), whole.replay().clone());
        if break_at <= 5 {
            assert_eq!(restored, Err(Error::Interrupted));
            // The environment has no seed, so that another one is needed.
            trainer = scripted();
            assert_eq!(trainer.restore(state.clone(), whole.replay().clone()), Ok(true));
        } else {
            assert_eq!(restored, Ok(true));
        }
        if (6..28).contains(&break_at) {
            assert_eq!(trainer.evaluate_if_due(), Err(Error::Interrupted));
            assert_eq!(*seen.lock().expect("nobody panics with it"), break_at);
        }
        assert_eq!(trainer.save().expect("it runs on the CPU"), state);
        assert_eq!(trainer.evaluate_if_due(), Ok(Some(evaluation.clone())));
        assert_eq!(trainer.save().expect("it runs on the CPU"), after);
    }
}

/// What an environment has been through: the seeds of its episodes, and of each step the observation before it, the action, and
/// what came of it.
#[derive(Clone, Default)]
struct Diary {
    seeds: Vec<u64>,
    steps: Vec<(Vec<f32>, Vec<f32>, Step)>,
}

/// A pendulum that keeps a diary, whose episodes end sooner, and which may dawdle.
struct Told {
    pendulum: Pendulum,
    observation: Vec<f32>,
    diary: Arc<Mutex<Diary>>,
    threads: Arc<Mutex<HashSet<ThreadId>>>,
    length: usize,
    pause: Duration,
}

impl Env for Told {
    fn observation_size(&self) -> usize {
        self.pendulum.observation_size()
    }

    fn action_bounds(&self) -> Bounds {
        self.pendulum.action_bounds()
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        self.diary.lock().expect("nobody panics with it").seeds.push(seed);
        self.observation = self.pendulum.reset(seed)?;
        Ok(self.observation.clone())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        thread::sleep(self.pause);
        self.threads.lock().expect("nobody panics with it").insert(thread::current().id());
        let mut step = self.pendulum.step(action)?;
        let mut diary = self.diary.lock().expect("nobody panics with it");
        let ends = (diary.steps.len() + 1).is_multiple_of(self.length);
        (step.terminated, step.truncated) = (ends && self.length == 7, ends && self.length != 7);
        let before = std::mem::replace(&mut self.observation, step.observation.clone());
        diary.steps.push((before, action.to_vec(), step.clone()));
        Ok(step)
    }
}

/// An environment for evaluations is made with the others if there will be some, and else for the first that is asked for.
#[test]
fn an_environment_for_evaluations_is_made_when_it_is_needed() {
    for (eval_every, at_first) in [(10, 2), (0, 1)] {
        let made = Arc::<Mutex<usize>>::default();
        let count = Arc::clone(&made);
        let make = move || -> Box<dyn Env> {
            *count.lock().expect("nobody panics with it") += 1;
            Box::new(Pendulum::new())
        };
        let made = || *made.lock().expect("nobody panics with it");
        let config = Config { eval_every, policy_hidden: vec![4], critic_hidden: vec![4], ..Config::default() };
        let mut trainer = Trainer::new(make, config).expect("it begins well");
        assert_eq!(made(), at_first);
        let first = trainer.evaluate(1).expect("it goes well");
        assert_eq!(trainer.evaluate(1).expect("it goes well"), first);
        assert_eq!(made(), 2);
    }
}

/// Several environments whose episodes have different lengths, trained to the end, their diaries, and the threads they ran on.
fn train_several(config: &Config, pause: Duration) -> (Trainer, Vec<Diary>, usize) {
    let (diaries, threads) = (Arc::new(Mutex::new(Vec::new())), Arc::<Mutex<HashSet<_>>>::default());
    let (kept, seen) = (Arc::clone(&diaries), Arc::clone(&threads));
    let make = move || -> Box<dyn Env> {
        let mut diaries = kept.lock().expect("nobody panics with it");
        let diary = Arc::<Mutex<Diary>>::default();
        diaries.push(Arc::clone(&diary));
        let length = [7, 11, 20, 13][(diaries.len() - 1) % 4];
        // One of them is the slowest.
        let pause = if diaries.len() == 1 { pause } else { pause / 4 };
        let (pendulum, threads) = (Pendulum::new(), Arc::clone(&seen));
        Box::new(Told { pendulum, observation: Vec::new(), diary, threads, length, pause })
    };
    let mut trainer = Trainer::new(make, config.clone()).expect("it begins well");
    let mut ended = Vec::new();
    while !trainer.is_finished() {
        let episodes = trainer.step().expect("it goes well");
        assert!(episodes.is_sorted_by_key(|episode| (episode.number - 1) % config.envs as u64));
        ended.extend(episodes);
        assert_eq!(trainer.metrics().expect("it runs on the CPU").updates, config.updates_after(trainer.steps()));
    }
    let diaries = diaries.lock().expect("nobody panics with it");
    let diaries: Vec<_> = diaries.iter().map(|diary| diary.lock().expect("nobody panics with it").clone()).collect();
    // Each environment counts its episodes in steps of as many as there are.
    for (i, diary) in diaries[..config.envs].iter().enumerate() {
        let length = [7, 11, 20, 13][i];
        let own: Vec<_> =
            ended.iter().filter(|episode| (episode.number - 1) % config.envs as u64 == i as u64).collect();
        assert_eq!(own.len(), diary.steps.len() / length);
        for (k, episode) in own.into_iter().enumerate() {
            let rewards = diary.steps[k * length..][..length].iter().map(|(_, _, step)| step.reward);
            assert_eq!((episode.number, episode.length), ((i + 1 + k * config.envs) as u64, length as u64));
            assert_eq!(episode.total_reward, rewards.sum::<f64>());
        }
    }
    let threads = threads.lock().expect("nobody panics with it").len();
    (trainer, diaries, threads)
}

/// Whichever environment is slow, and on whatever threads they are: the same run. What is stored is what each of them has been
/// through, with the true last observation of every episode.
#[test]
fn several_environments_are_stored_one_by_one_whatever_their_speed() {
    let config = Config {
        steps: 400,
        envs: 3,
        utd: 0.25,
        n_step: 2,
        random_steps: 100,
        random_hold: 5,
        batch_size: 8,
        policy_hidden: vec![8],
        critic_hidden: vec![8],
        ..Config::default()
    };
    let (mut trainer, diaries, _) = train_several(&config, Duration::ZERO);
    assert_eq!((trainer.steps(), trainer.replay().len(), trainer.replay().capacity()), (402, 402, 402));
    let (o, a) = (3, 1);
    for t in 0..402 {
        let (before, action, step) = &diaries[t % 3].steps[t / 3];
        let mut stored = vec![0.0; 2 * o + a + 2];
        trainer.replay().write_transition(t, &mut stored);
        assert_eq!(stored[..o], before[..]);
        assert!((stored[o] * 2.0 - action[0]).abs() < 1e-6);
        assert_eq!((stored[o + a], stored[o + a + 1]), (step.reward as f32, f32::from(u8::from(!step.terminated))));
        assert_eq!(stored[o + a + 2..], step.observation[..]);
        // A round is random if it begins before the random steps are over, and each environment holds its own action.
        let held = t / 3 < 34 && !(t / 3).is_multiple_of(5);
        assert!(t < 3 || held == (*action == diaries[t % 3].steps[t / 3 - 1].1), "step {t}");
    }
    let mut seeds: Vec<_> = diaries[..3].iter().flat_map(|diary| &diary.seeds).collect();
    let (count, first) = (seeds.len(), diaries[0].seeds[0]);
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), count, "two episodes have the same seed");
    let (_, alone, threads) = train_several(&Config { envs: 1, ..config.clone() }, Duration::ZERO);
    assert_eq!((alone[0].seeds[0], threads), (first, 1));

    let slow = with_threads(2, || train_several(&config, Duration::from_micros(400)));
    let (mut slow, _, threads) = slow.expect("there are threads");
    assert!(threads > 1, "every step was taken on one thread");
    assert_eq!(trainer.save().expect("it runs on the CPU"), slow.save().expect("it runs on the CPU"));
}

/// A pendulum that gets stuck.
struct Stuck {
    pendulum: Pendulum,
    steps_left: u64,
}

impl Env for Stuck {
    fn observation_size(&self) -> usize {
        self.pendulum.observation_size()
    }

    fn action_bounds(&self) -> Bounds {
        self.pendulum.action_bounds()
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        self.pendulum.reset(seed)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or("the motor is stuck")?;
        self.pendulum.step(action)
    }

    fn save(&self) -> Option<Vec<u8>> {
        self.pendulum.save()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), EnvError> {
        self.pendulum.restore(state)
    }
}

/// One of several environments that fails ends training with its problem. Nothing of that round is stored, and a run that goes
/// on takes up all episodes: those environments that have gone ahead repeat theirs.
#[test]
fn a_fault_in_one_of_several_environments_ends_training() {
    let trainer = |faulty: u64| {
        let mut made = 0;
        let make = move || -> Result<Box<dyn Env>, Error> {
            made += 1;
            let steps_left = if made == faulty { 6 } else { u64::MAX };
            Ok(Box::new(Stuck { pendulum: Pendulum::new(), steps_left }))
        };
        let config = Config { envs: 3, batch_size: 16, ..Config::default() };
        let on_cpu = |config: &Config, observations: usize, half_range: &[f32]| -> Result<Box<dyn Learner>, Error> {
            Ok(Box::new(CpuLearner::new(config, observations, half_range)))
        };
        Trainer::with_learner(make, config, on_cpu).expect("it begins well")
    };
    let (mut stuck, mut sound) = (trainer(2), trainer(0));
    let error = failure(&mut stuck);
    assert_environment_failed::<()>(Err(error.clone()), 7, "the motor is stuck");
    assert_eq!(stuck.step().expect_err("it does not recover"), error);
    assert_eq!((stuck.steps(), stuck.replay().len()), (18, 18));
    let state = stuck.save().expect("it runs on the CPU");
    assert_eq!(
        [0, 1, 2].map(|i| (state.envs[i].env.is_some(), state.envs[i].env_steps)),
        [(false, 6), (true, 6), (false, 6)]
    );
    assert!(sound.restore(state, stuck.replay().clone()).expect("it fits"));
    sound.step().expect("it goes well");
    let envs = sound.save().expect("it runs on the CPU").envs;
    assert_eq!([0, 1, 2].map(|i| (envs[i].episode.number, envs[i].episode.length)), [(1, 7), (2, 7), (3, 7)]);
}

/// What to do about a quantity that is no longer finite depends on what has been seen.
#[test]
fn the_advice_after_a_divergence_fits_its_cause() {
    /// Observes and rewards what it is told.
    struct Sized {
        observation: f32,
        reward: f64,
    }
    impl Env for Sized {
        fn observation_size(&self) -> usize {
            1
        }
        fn action_bounds(&self) -> Bounds {
            Bounds::new(vec![-1.0], vec![1.0]).expect("they are a range")
        }
        fn reset(&mut self, _: u64) -> Result<Vec<f32>, EnvError> {
            Ok(vec![self.observation])
        }
        fn step(&mut self, _: &[f32]) -> Result<Step, EnvError> {
            let (observation, reward) = (vec![self.observation], self.reward);
            Ok(Step { observation, reward, terminated: false, truncated: true })
        }
    }
    let small = Config {
        steps: 400,
        random_steps: 8,
        batch_size: 8,
        policy_hidden: vec![8],
        critic_hidden: vec![8],
        eval_every: 0,
        ..Config::default()
    };
    for (observation, reward, alpha, expected) in [
        (1e20, 0.0, Alpha::Auto, "observations are as large as 1.0e20; normalize them (--normalize-observations)"),
        (1.0, 0.0, Alpha::Fixed(1e30), "the temperature is 1.0e30; choose a smaller one (--alpha)"),
        (1.0, 1e30, Alpha::Auto, "rewards are as large as 1.0e30; scale them down (--reward-scale)"),
    ] {
        let config = Config { alpha, ..small.clone() };
        let mut trainer =
            Trainer::new(move || Box::new(Sized { observation, reward }), config).expect("it is a configuration");
        let error = loop {
            if let Err(error) = trainer.step() {
                break error.to_string();
            }
            assert!(!trainer.is_finished(), "{expected}: it does not diverge");
        };
        assert!(error.contains("no longer finite at step") && error.ends_with(expected), "{expected:?}? {error}");
    }
}
