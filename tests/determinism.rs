//! Results depend on the configuration alone: not on the number of threads, not on the process.
#![cfg(feature = "program")]

use soft_actor_critic::env::Pendulum;
use soft_actor_critic::error::Error;
use soft_actor_critic::run::{MetricsFiles, RunDirectory, config_file};
use soft_actor_critic::train::{Trainer, with_threads};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Large enough for every part of an update to be divided among threads, products of the wide layer as well.
const DIVIDED: &str = "steps = 360\nbatch_size = 300\ncritic_hidden = [600, 256]\nfinal_episodes = 3\neval_episodes = 2\neval_every = 100\n";
const TINY: &str = "steps = 600\nbatch_size = 16\npolicy_hidden = [8, 4]\ncritic_hidden = [5]\nfinal_episodes = 3\n";

/// Two blocks of rows, and a layer of a single unit, whose gradients are sums of another kind.
const BLOCKS: &str = "steps = 300\nbatch_size = 100\ncritic_hidden = [1]\nrandom_steps = 150\nfinal_episodes = 3\n";

/// What is off by default, with critics large enough for Adam's step to be divided.
const OPTIONS: &str = "steps = 300\nbatch_size = 50\npolicy_hidden = [64, 64]\ncritic_hidden = [130, 64]\nfinal_episodes = 3\nnormalize_observations = true\nreward_scale = 0.1\nmax_gradient_norm = 0.5\nkeep_best = true\n";
const SEVERAL: &str = "steps = 700\nenvs = 3\nutd = 0.5\nn_step = 3\nbatch_size = 16\npolicy_hidden = [8]\ncritic_hidden = [8]\n\
                       final_episodes = 3\neval_episodes = 2\neval_every = 200\n";

/// The bytes of `metrics.csv` and `policy.safetensors` that a process with these arguments leaves.
fn train(name: &str, config: &str, arguments: &[&str]) -> [Vec<u8>; 2] {
    let directory = format!("{name}-{}-{}", arguments.concat(), std::process::id());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(directory);
    let (file, run) = (directory.join("config.toml"), directory.join("run"));
    fs::create_dir_all(&directory).expect("the target directory can be written");
    fs::write(&file, config).expect("the target directory can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
    command.args(["pendulum", "--config"]).arg(file).arg("--out").arg(&run).args(arguments);
    let output = command.output().expect("the program starts");
    let results = ["metrics.csv", "policy.safetensors"].map(|file| fs::read(run.join(file)).unwrap_or_default());
    fs::remove_dir_all(&directory).expect("it was just made");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    results
}

/// The same, of a run in this process on so many threads, however small it is.
fn train_here(name: &str, config: &str, threads: usize) -> [Vec<u8>; 2] {
    let path = format!("{name}-here-{threads}-{}", std::process::id());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(path);
    let train = || -> Result<(), Error> {
        let config = config_file::parse(config, "pendulum")?;
        let run = RunDirectory::create(Some(&path), "pendulum", &config, None)?;
        let mut files = MetricsFiles::create(&run, &config)?;
        let mut trainer = Trainer::new(|| Box::new(Pendulum::new()), config)?;
        while !trainer.is_finished() {
            let (episodes, evaluation) = (trainer.step()?, trainer.evaluate_if_due()?);
            if !episodes.is_empty() || evaluation.is_some() {
                let metrics = trainer.metrics()?;
                files.write(trainer.steps(), Duration::ZERO, &episodes, evaluation.as_ref(), metrics)?;
            }
        }
        run.save_policy(&trainer.actor()?)
    };
    with_threads(threads, train).and_then(|trained| trained).expect("it trains");
    let results = ["metrics.csv", "policy.safetensors"].map(|file| fs::read(path.join(file)).unwrap_or_default());
    fs::remove_dir_all(&path).expect("it was just made");
    results
}

fn assert_same_results(name: &str, config: &str) {
    let expected = train(name, config, &["--threads", "1"]);
    let rows = expected[0].split(|&byte| byte == b'\n');
    assert!(rows.count() > 3 && !expected[1].is_empty(), "there is nothing to compare");
    let assert_same = |[metrics, policy]: [Vec<u8>; 2], how: &str| {
        assert!(metrics == expected[0], "metrics.csv differs {how}");
        assert!(policy == expected[1], "policy.safetensors differs {how}");
    };
    assert_same(train(name, config, &[]), "in a second process");
    for threads in [1, 2, 3] {
        assert_same(train_here(name, config, threads), &format!("with {threads} threads"));
    }
}

#[test]
fn a_network_whose_work_is_divided_gives_the_same_bytes_on_any_number_of_threads() {
    assert_same_results("divided", DIVIDED);
}

#[test]
fn blocks_of_rows_are_the_same_on_any_number_of_threads() {
    assert_same_results("blocks", BLOCKS);
}

#[test]
fn a_tiny_network_gives_the_same_bytes_on_any_number_of_threads() {
    assert_same_results("tiny", TINY);
}

#[test]
fn what_is_off_by_default_gives_the_same_bytes_on_any_number_of_threads() {
    assert_same_results("options", OPTIONS);
}

#[test]
fn several_environments_give_the_same_bytes_on_any_number_of_threads() {
    assert_same_results("several", SEVERAL);
}

#[test]
fn other_seeds_give_other_results() {
    let results = ["0", "1", "4294967296"].map(|seed| train("seeds", TINY, &["--seed", seed]));
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        assert!(results[i][0] != results[j][0] && results[i][1] != results[j][1], "seeds {i} and {j} agree");
    }
}
