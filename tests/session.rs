//! A run trained through the library alone: its directory is that of the program, and so is how it ends and goes on.
#![cfg(feature = "program")]

use soft_actor_critic::config::{Config, UntilReturn};
use soft_actor_critic::env::{Bounds, Env, EnvError, Pendulum, Step};
use soft_actor_critic::error::Error;
use soft_actor_critic::run::{Plan, Row};
use soft_actor_critic::session::{Changes, End, Ended, NewRun, Observer, SavedRun};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A path in a folder of this test's own, at which there is nothing.
fn new_path(name: &str) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("session-{}-{number}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

fn config() -> Config {
    let hidden = vec![8, 8];
    Config {
        steps: 500,
        policy_hidden: hidden.clone(),
        critic_hidden: hidden,
        batch_size: 16,
        eval_every: 250,
        eval_episodes: 2,
        final_episodes: 3,
        ..Config::default()
    }
}

const SAME: &str = "pendulum --hidden 8,8 --batch 16 --steps 500 --eval-every 250 --eval-episodes 2 --final-episodes 3";

fn pendulum() -> Result<Box<dyn Env>, Error> {
    Ok(Box::new(Pendulum::new()))
}

fn train(config: Config, out: &Path, observer: &mut (dyn Observer + Send)) -> Ended {
    let new = NewRun::prepare(Plan::new("pendulum", config), pendulum, 1).expect("the plan is good");
    new.train(Some(out), observer).expect("it can be written")
}

fn resume(path: &Path, changes: Changes) -> Result<Ended, Error> {
    SavedRun::open(path, changes, pendulum, 1)?.train(&mut ())
}

/// Asserts that two runs have left the same bytes, but for times.
fn assert_same(one: &Path, other: &Path) {
    for name in ["config.toml", "metrics.csv", "policy.safetensors", "curve.svg"] {
        let read = |run: &Path| fs::read(run.join(name)).unwrap_or_else(|e| panic!("{name} of {}: {e}", run.display()));
        assert!(read(one) == read(other), "{name} of {} and {}", one.display(), other.display());
    }
}

/// Counts what it is told, and stops a run at a step.
#[derive(Default)]
struct Counter {
    stops_at: Option<u64>,
    step: u64,
    rows: usize,
    evaluations: Vec<u64>,
    ends: usize,
}

impl Observer for Counter {
    fn is_interrupted(&mut self) -> bool {
        self.stops_at.is_some_and(|step| self.step >= step)
    }

    fn step(&mut self, step: u64) {
        assert_eq!(self.step + 1, step);
        self.step = step;
    }

    fn row(&mut self, row: &Row) {
        self.rows += 1;
        self.evaluations.extend(row.evaluation.map(|_| row.step));
    }

    fn end(&mut self) {
        self.ends += 1;
    }
}

#[test]
fn a_run_is_the_one_of_the_program() {
    let (of_library, of_program) = (new_path("library"), new_path("program"));
    let mut counter = Counter::default();
    let ended = train(config(), &of_library, &mut counter);
    let mean = ended.evaluation().expect("nothing failed").expect("it was evaluated").mean();
    assert_eq!((ended.trainer.steps(), ended.run.path(), &ended.picture), (500, of_library.as_path(), &Ok(())));
    assert!(mean < 0.0 && ended.seconds > 0.0);
    // Episodes of 200 steps end at 200 and 400.
    assert_eq!((counter.step, counter.rows, counter.ends), (500, 4, 1));
    assert_eq!(counter.evaluations, [250, 500]);
    drop(ended);

    let mut program = Command::new(env!("CARGO_BIN_EXE_sac"));
    program.args(SAME.split_whitespace()).args(["--quiet", "--out"]).arg(&of_program).stdin(Stdio::null());
    assert!(program.status().expect("the program is there").success());
    assert_same(&of_library, &of_program);

    // The program goes on with it.
    for run in [&of_library, &of_program] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sac"));
        program.arg("resume").arg(run).args(["--steps", "600", "--quiet"]).stdin(Stdio::null());
        assert!(program.status().expect("the program is there").success());
    }
    assert_same(&of_library, &of_program);
}

#[test]
fn a_run_that_was_interrupted_goes_on_as_if_it_had_not_been() {
    let (whole, interrupted) = (new_path("whole"), new_path("interrupted"));
    drop(train(config(), &whole, &mut ()));
    let mut counter = Counter { stops_at: Some(333), ..Counter::default() };
    let ended = train(config(), &interrupted, &mut counter);
    assert!(matches!(ended.end, End::Interrupted), "it is asked between two steps");
    assert_eq!((ended.trainer.steps(), ended.evaluation()), (333, Err(Error::Interrupted)));
    drop(ended);

    let ended = resume(&interrupted, Changes::default()).expect("it can be resumed");
    assert_eq!(ended.trainer.steps(), 500);
    drop(ended);
    assert_same(&whole, &interrupted);

    // Now it is finished, until it is given more steps.
    let ended = resume(&interrupted, Changes::default()).expect("it can be opened");
    assert!(matches!(ended.end, End::WasFinished));
    assert_eq!(ended.evaluation(), Ok(None));
    drop(ended);
    let ended = resume(&interrupted, Changes { steps: Some(510), ..Changes::default() }).expect("it has steps left");
    assert_eq!(ended.trainer.steps(), 510);
    assert!(ended.evaluation().expect("nothing failed").is_some());
}

#[test]
fn a_run_ends_at_the_return_that_it_is_to_reach() {
    let path = new_path("reached");
    let low = UntilReturn::Fixed(-1e6);
    let ended = train(Config { until_return: low, ..config() }, &path, &mut ());
    assert_eq!(ended.trainer.steps(), 250);
    assert!(ended.evaluation().expect("nothing failed").is_some());
    drop(ended);
    let ended = resume(&path, Changes::default()).expect("it can be opened");
    assert!(matches!(ended.end, End::WasFinished));
    drop(ended);
    let changes = Changes { until_return: Some(UntilReturn::Off), ..Changes::default() };
    assert_eq!(resume(&path, changes).expect("it can be resumed").trainer.steps(), 500);
}

#[test]
fn changes_that_do_not_fit_are_refused_without_a_word_of_options() {
    let path = new_path("refused");
    drop(train(config(), &path, &mut ()));
    let refusal = |steps| match resume(&path, Changes { steps: Some(steps), ..Changes::default() }) {
        Ok(_) => panic!("{steps} steps are no good"),
        Err(error) => error,
    };
    assert_eq!(refusal(499), Error::Config("steps = 499 is fewer than the 500 that the run is to have".into()));

    // Another process, or another part of this one, trains it.
    let saved = SavedRun::open(&path, Changes::default(), pendulum, 1).expect("it can be opened");
    assert!(SavedRun::open(&path, Changes::default(), pendulum, 1).is_err());
    assert!(saved.can_go_on());
    assert_eq!((saved.step(), saved.config().steps), (500, 500));
}

/// One that fails at a step of its whole life, counted from 1.
struct Frail {
    steps: Arc<AtomicU64>,
    fails_at: u64,
}

impl Env for Frail {
    fn observation_size(&self) -> usize {
        1
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-1.0], vec![1.0]).expect("they are good")
    }

    fn reset(&mut self, _: u64) -> Result<Vec<f32>, EnvError> {
        Ok(vec![0.0])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        if self.steps.fetch_add(1, Ordering::Relaxed) + 1 == self.fails_at {
            return Err("it is frail".into());
        }
        let reward = -f64::from(action[0].abs());
        Ok(Step { observation: vec![0.0], reward, terminated: false, truncated: false })
    }
}

#[test]
fn a_run_whose_environment_fails_is_saved() {
    let path = new_path("frail");
    let frail = |fails_at| {
        let steps = Arc::new(AtomicU64::new(0));
        move || Ok(Box::new(Frail { steps: Arc::clone(&steps), fails_at }) as Box<dyn Env>)
    };
    let config = Config { eval_every: 0, steps: 100, ..config() };
    let new = NewRun::prepare(Plan::new("frail", config), frail(60), 1).expect("the plan is good");
    let ended = new.train(Some(&path), &mut ()).expect("it can be written");
    let End::EnvironmentFailed(Error::Environment { step, problem }) = &ended.end else { panic!("it fails") };
    assert_eq!((*step, problem.as_str(), ended.trainer.steps()), (60, "step: it is frail", 59));
    drop(ended);

    let saved = SavedRun::open(&path, Changes::default(), frail(u64::MAX), 1).expect("it can be opened");
    assert_eq!(saved.step(), 59);
    let ended = saved.train(&mut ()).expect("it can be written");
    assert!(matches!(ended.end, End::Finished(None)));
    assert_eq!(ended.trainer.steps(), 100);
}
