//! Results depend on the configuration alone: not on the number of threads, not on the process.
#![cfg(feature = "program")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Large enough for every part of an update to be divided among threads, products of the wide layer as well.
const DIVIDED: &str = "steps = 360\nbatch_size = 300\ncritic_hidden = [600, 256]\nfinal_episodes = 3\neval_episodes = 2\neval_every = 100\n";
const TINY: &str = "steps = 600\nbatch_size = 16\npolicy_hidden = [8, 4]\ncritic_hidden = [5]\nfinal_episodes = 3\n";

/// Two blocks of rows, and a layer of a single unit, whose gradients are sums of another kind.
const BLOCKS: &str = "steps = 300\nbatch_size = 100\ncritic_hidden = [1]\nrandom_steps = 150\nfinal_episodes = 3\n";

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

fn assert_same_results(name: &str, config: &str) {
    let expected = train(name, config, &["--threads", "1"]);
    let rows = expected[0].split(|&byte| byte == b'\n');
    assert!(rows.count() > 3 && !expected[1].is_empty(), "there is nothing to compare");
    // A second process on one thread is the second of these.
    for threads in ["1", "2", "3"] {
        let [metrics, policy] = train(name, config, &["--threads", threads]);
        assert!(metrics == expected[0], "metrics.csv differs with {threads} threads");
        assert!(policy == expected[1], "policy.safetensors differs with {threads} threads");
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
fn other_seeds_give_other_results() {
    let results = ["0", "1", "4294967296"].map(|seed| train("seeds", TINY, &["--seed", seed]));
    for (i, j) in [(0, 1), (0, 2), (1, 2)] {
        assert!(results[i][0] != results[j][0] && results[i][1] != results[j][1], "seeds {i} and {j} agree");
    }
}
