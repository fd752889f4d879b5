//! The numbers that an environment gives of its episodes, in `metrics.csv`, in TensorBoard's file and in evaluations.
#![cfg(feature = "program")]

use soft_actor_critic::config::{Config, FirstUpdate};
use soft_actor_critic::env::{Bounds, Env, EnvError, Info, MAX_INFO, Step};
use soft_actor_critic::run::{Checkpoints, Measurements, MetricsFiles, RunDirectory};
use soft_actor_critic::train::{Episode, Trainer};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Episodes of three steps. Each gives other numbers, as its seed says.
#[derive(Default)]
struct Line {
    seed: u64,
    steps: u64,
    info: Vec<(String, f64)>,
}

impl Env for Line {
    fn observation_size(&self) -> usize {
        1
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-1.0], vec![1.0]).expect("they are valid")
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        *self = Self { seed, ..Self::default() };
        Ok(vec![0.5])
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.steps += 1;
        let truncated = self.steps == 3;
        if truncated && self.seed.is_multiple_of(2) {
            self.info.push(("is_success".into(), f64::from(u8::from(self.seed.is_multiple_of(4)))));
        }
        if truncated && self.seed.is_multiple_of(3) {
            self.info.push(("far,\n\"out\"".into(), f64::from(action[0])));
            self.info.push(("nothing".into(), f64::NAN));
        }
        Ok(Step { observation: vec![action[0]], reward: 1.0, terminated: false, truncated })
    }

    fn info(&self) -> &[(String, f64)] {
        &self.info
    }

    fn save(&self) -> Option<Vec<u8>> {
        Some([self.seed.to_le_bytes(), self.steps.to_le_bytes()].concat())
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), EnvError> {
        let number = |at: usize| Ok::<_, EnvError>(u64::from_le_bytes(state[at..at + 8].try_into()?));
        *self = Self { seed: number(0)?, steps: number(8)?, info: Vec::new() };
        Ok(())
    }
}

fn config() -> Config {
    Config {
        steps: 48,
        seed: 5,
        batch_size: 2,
        policy_hidden: vec![2],
        critic_hidden: vec![2],
        random_steps: 4,
        first_update: FirstUpdate::Fixed(4),
        eval_every: 16,
        eval_episodes: 3,
        final_episodes: 5,
        checkpoint_every: 7,
        ..Config::default()
    }
}

fn new_path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("info-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

fn metrics(run: &Path) -> String {
    fs::read_to_string(run.join(MetricsFiles::METRICS)).expect("it is there")
}

/// Begins a run, or resumes it, and leaves it after step `until` as a killed process does.
fn train(path: &Path, until: u64) {
    let (run, mut trainer, mut files, mut checkpoints) = if path.exists() {
        let (run, config) = RunDirectory::open(path).expect("it is there");
        let (checkpoints, loaded) = Checkpoints::open(&run, &config).expect("it is whole");
        let mut trainer = Trainer::new(|| Box::new(Line::default()), config.clone()).expect("it is valid");
        trainer.restore(loaded.state, loaded.replay).expect("it fits");
        let files = MetricsFiles::reopen(&run, &config, loaded.metrics).expect("it can be written");
        (run, trainer, files, checkpoints)
    } else {
        let run = RunDirectory::create(Some(path), "line", &config(), None).expect("it can be written");
        let files = MetricsFiles::create(&run, &config()).expect("it can be written");
        let checkpoints = Checkpoints::create(&run, "cpu", 7).expect("it can be written");
        (run, Trainer::new(|| Box::new(Line::default()), config()).expect("it is valid"), files, checkpoints)
    };
    while trainer.steps() < until {
        if checkpoints.is_due(&trainer) || trainer.steps() == 0 {
            checkpoints.save(&mut trainer, &mut files).expect("it can be written");
        }
        let episodes = trainer.step().expect("nothing goes wrong");
        let evaluation = trainer.evaluate_if_due().expect("nothing goes wrong");
        let learned = trainer.metrics().expect("it is on the CPU");
        files.write(trainer.steps(), Duration::ZERO, &episodes, evaluation.as_ref(), learned).expect("it is written");
        let header = metrics(run.path()).lines().next().expect("it has a header").to_string();
        assert!(metrics(run.path()).lines().all(|row| row.split(',').count() == header.split(',').count()));
    }
    if trainer.is_finished() {
        checkpoints.save(&mut trainer, &mut files).expect("it can be written");
    }
}

/// Columns come with the first episode and the first evaluation that has them, after others have been written without.
#[test]
fn numbers_become_columns() {
    let path = new_path("columns");
    train(&path, 3);
    let before = metrics(&path);
    assert!(before.starts_with("step,episode,") && before.ends_with("\n3,1,3,3,,,,,,,,,\n"), "{before}");
    fs::remove_dir_all(&path).expect("it was just written");
    train(&path, 48);
    let after = metrics(&path);
    let (header, rows) = after.split_once('\n').expect("it has rows");
    let (own, of_env) = header.split_once(",q,").expect("it has more columns");
    assert_eq!(own.to_string() + ",q", before.lines().next().expect("it has a header"));
    let mut columns: Vec<_> = of_env.split(',').collect();
    assert!(rows.starts_with(&format!("3,1,3,3,,,,,,,,,{}\n", ",".repeat(columns.len()))), "{after}");
    let run = RunDirectory::open(&path).expect("it is there").0;
    let measured = Measurements::read(&run).expect("it is there");
    assert_eq!(measured.points("episode").len(), 16);
    let successes = measured.points("info.is_success");
    assert!((2..16).contains(&successes.len()) && successes.iter().all(|&(_, value)| value == 0.0 || value == 1.0));
    assert_eq!(measured.points("evaluation.is_success").len(), 3);
    columns.sort_unstable();
    assert_eq!(columns, ["evaluation.far___out_", "evaluation.is_success", "info.far___out_", "info.is_success"]);

    let events = fs::read(run.path().join("events.out.tfevents.sac")).expect("it is there");
    for tag in ["info/is_success", "info/far___out_", "evaluation/is_success", "return/episode"] {
        assert!(events.windows(tag.len()).any(|window| window == tag.as_bytes()), "{tag}");
    }
    fs::remove_dir_all(&path).expect("it was just written");
}

/// A run killed after each of its steps, whether or not a column has come since its last checkpoint.
#[test]
fn killed_runs_have_the_same_columns() {
    let alone = new_path("alone");
    train(&alone, 48);
    let killed = new_path("killed");
    for at in (1..48).step_by(4) {
        train(&killed, at);
        train(&killed, 48);
        assert_eq!(metrics(&alone), metrics(&killed), "killed at step {at}");
        fs::remove_dir_all(&killed).expect("it was just written");
    }
    for at in 1..=48 {
        train(&killed, at);
    }
    assert_eq!(metrics(&alone), metrics(&killed), "killed at every step");
    // A table that is not that of the checkpoint is an error, wider or not.
    let (run, config) = RunDirectory::open(&killed).expect("it is there");
    let text = metrics(&killed);
    for changed in [text.replacen("3,1,3", "3,1,4", 1), text[..text.len() - 2].into(), text.replace("\n", ",,9\n")] {
        fs::write(run.path().join(MetricsFiles::METRICS), &changed).expect("it can be written");
        let opened = Checkpoints::open(&run, &config).map(drop);
        assert_eq!(opened.is_ok(), changed.contains(",,9"), "{opened:?}");
    }
    for path in [alone, killed] {
        fs::remove_dir_all(path).expect("it was just written");
    }
}

#[test]
fn a_run_has_no_more_than_so_many_columns() {
    let path = new_path("many");
    let run = RunDirectory::create(Some(&path), "line", &config(), None).expect("it can be written");
    let mut files = MetricsFiles::create(&run, &config()).expect("it can be written");
    let own = metrics(&path).split(',').count();
    for number in 1..=50_u64 {
        let name = format!("n{number}");
        let info = Info::new([(name.as_str(), 1.0), ("n1", number as f64)]);
        let episode = Episode { number, length: 1, total_reward: 0.0, info };
        let rows = files.write(number, Duration::ZERO, &[episode], None, Default::default()).expect("it is written");
        assert_eq!(rows[0].info.len(), if (2..=MAX_INFO as u64).contains(&number) { 2 } else { 1 });
    }
    let text = metrics(&path);
    assert!(text.lines().all(|row| row.split(',').count() == own + MAX_INFO));
    assert!(text.lines().next().expect("it has a header").ends_with("info.n31,info.n32"));
    let first = Measurements::read(&run).expect("it is there").points("info.n1");
    assert_eq!(first.len(), 50);
    fs::remove_dir_all(path).expect("it was just written");
}

#[test]
fn evaluations_have_the_means() {
    let mut trainer = Trainer::new(|| Box::new(Line::default()), config()).expect("it is valid");
    let evaluation = trainer.evaluate(40).expect("nothing goes wrong");
    let successes = evaluation.info.get("is_success").expect("half of the episodes have it");
    assert!(successes > 0.1 && successes < 0.9, "{successes}");
    assert!(evaluation.info.get("far___out_").is_some() && evaluation.info.get("nothing").is_none());
}
