//! Runs that are killed, interrupted or damaged, and resumed, against runs that were left alone: byte for byte.
//!
//! `SAC_KILLED_RUNS` in the environment sets how many runs are killed, 8 if it is not set, and `SAC_INTERRUPTIONS` how often one
//! is interrupted that spends its time evaluating, 4 if it is not set.
#![cfg(all(feature = "program", unix))]

use rand::Rng;
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::run::{Checkpoints, RunDirectory};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn sac(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    sac(arguments).output().expect("the program is there")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A path in a folder of this test's own, at which there is nothing.
fn new_path(name: &str) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("resume-{}-{number}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

/// A small run, different for each number: with rings that wrap around, other presets, another environment.
fn small_run(number: usize) -> Vec<String> {
    let kinds = [
        "pendulum --hidden 16,16 --replay 500",
        "pendulum --preset v-net-auto --hidden 8 --eval-every 400 --random-steps 300 --first-update 310",
        "mountain-car --hidden 8,8 --replay 900 --random-steps 300 --random-hold 7",
        "pendulum --preset split-policy --hidden 6 --eval-every 0",
        "pendulum --hidden 32 --replay 250 --checkpoint-every 1000 --normalize-observations --reward-scale 0.1 \
         --max-gradient-norm 0.5 --keep-best",
        // Several environments, more or fewer updates than steps, returns over several steps, rings that wrap around.
        "pendulum --hidden 16 --envs 3 --utd 0.5 --replay 500 --random-steps 50 --random-hold 4",
        "pendulum --hidden 8,8 --envs 3 --utd 2 --n-step 3 --replay 700 --steps 1500 --normalize-observations",
        // Several files of transitions, of which the first are taken away.
        "pendulum --hidden 2 --batch 1 --replay 70000 --eval-every 0 --checkpoint-every 9000 --steps 150000",
    ];
    let kind = kinds[number % kinds.len()];
    let mut arguments: Vec<String> = kind.split(' ').map(Into::into).collect();
    arguments.extend(["--eval-episodes", "2", "--threads", "1"].map(String::from));
    for (option, value) in
        [("--batch", "16"), ("--steps", "2500"), ("--eval-every", "600"), ("--checkpoint-every", "130")]
    {
        if !kind.contains(option) {
            arguments.extend([option.into(), value.into()]);
        }
    }
    arguments.extend(["--seed".into(), number.to_string()]);
    arguments
}

fn begin(number: usize, out: &Path) -> Command {
    let arguments = small_run(number);
    let mut command = sac(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.arg("--out").arg(out);
    command
}

/// Every file of a run but those with times.
fn content(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![run.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it is there") {
            let path = entry.expect("it is there").path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("timings.csv") && !path.ends_with("events.out.tfevents.sac") {
                let name = path.strip_prefix(run).expect("it is inside").to_path_buf();
                files.push((name, fs::read(&path).expect("it is there")));
            }
        }
    }
    files.sort();
    files
}

fn assert_same(one: &Path, other: &Path, what: &str) {
    let (one, other) = (content(one), content(other));
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other), "{what}");
    for ((name, one), (_, other)) in one.iter().zip(&other) {
        assert!(one == other, "{what}: {} differs", name.display());
    }
}

/// Kills a run at random instants until it ends, and says how often, and how often before its first checkpoint.
fn kill_and_resume(begin: impl Fn(&Path) -> Command, out: &Path, duration: Duration, seed: u64) -> (usize, usize) {
    let mut rng = Philox::new(seed, Stream::Environment, 1);
    let (mut kills, mut before_the_first_checkpoint, mut begun) = (0, 0, false);
    loop {
        let mut command = if begun { sac(&["resume"]) } else { begin(out) };
        if begun {
            command.args(["--threads", "1"]).arg(out);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program is there");
        std::thread::sleep(duration.mul_f64(rng.random_range(0.0..0.5)));
        let _ = child.kill();
        let output = child.wait_with_output().expect("it has been started");
        if output.status.success() {
            return (kills, before_the_first_checkpoint);
        }
        assert_eq!(output.status.code(), None, "run {seed} fails: {}", text(&output.stderr));
        kills += 1;
        assert!(kills < 1000, "run {seed} does not come to its end");
        begun = out.join("checkpoint/manifest").exists();
        if !begun {
            before_the_first_checkpoint += 1;
            let _ = fs::remove_dir_all(out);
        }
    }
}

#[test]
fn killed_runs_end_as_if_they_had_been_left_alone() {
    let runs = std::env::var("SAC_KILLED_RUNS").map_or(8, |runs| runs.parse().expect("SAC_KILLED_RUNS: a number"));
    let (mut kills, mut before_the_first_checkpoint) = (0, 0);
    for number in 0..runs {
        let (alone, killed) = (new_path("alone"), new_path("killed"));
        let began = std::time::Instant::now();
        assert!(begin(number, &alone).output().expect("the program is there").status.success());
        let duration = began.elapsed();
        let killed_so_often = kill_and_resume(|out| begin(number, out), &killed, duration, number as u64);
        kills += killed_so_often.0;
        before_the_first_checkpoint += killed_so_often.1;
        assert_same(&alone, &killed, &format!("run {number}"));
        let _ = (fs::remove_dir_all(alone), fs::remove_dir_all(killed));
    }
    println!(
        "{runs} runs killed {kills} times, {before_the_first_checkpoint} of them before the first checkpoint: identical"
    );
    assert!(kills > runs, "the program is too fast to be killed");
}

/// The same for runs that begin with the networks of another, and with its memory, which then wraps around or grows.
#[test]
fn killed_runs_that_begin_with_another_end_as_if_they_had_been_left_alone() {
    let source = new_path("source");
    assert!(begin(0, &source).output().expect("the program is there").status.success());
    let from = |more: &str, out: &Path| {
        let arguments = "pendulum --hidden 16,16 --batch 16 --eval-every 600 --checkpoint-every 130 --eval-episodes 2";
        let mut command = sac(&arguments.split(' ').chain(more.split(' ')).collect::<Vec<_>>());
        command.args(["--threads", "1", "--init-from"]).arg(&source).arg("--out").arg(out);
        command
    };
    let kinds = [
        "--steps 2000 --replay 700 --with-replay",
        "--steps 2000 --replay 300 --with-replay",
        "--steps 2000 --replay 700 --with-replay --envs 3 --n-step 3",
        "--steps 2000",
        // It ends when it reaches that, which need not be said again.
        "--steps 2000 --until-return -4000",
    ];
    for (number, more) in kinds.iter().enumerate() {
        let (alone, killed) = (new_path("alone"), new_path("killed"));
        let began = std::time::Instant::now();
        assert!(from(more, &alone).output().expect("the program is there").status.success());
        let (kills, _) = kill_and_resume(|out| from(more, out), &killed, began.elapsed(), number as u64);
        assert!(kills > 0, "the program is too fast to be killed");
        assert_same(&alone, &killed, more);
    }
    // More steps: a memory that has room for all, and the line that says what the run began with.
    let (whole, longer) = (new_path("whole"), new_path("longer"));
    assert!(from("--with-replay --steps 900", &whole).output().expect("the program is there").status.success());
    assert!(from("--with-replay --steps 500", &longer).output().expect("the program is there").status.success());
    let output = run(&["resume", longer.to_str().expect("it is text"), "--steps", "900"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for name in ["config.toml", "policy.safetensors", "checkpoint/replay-0.bin"] {
        let [one, other] = [&whole, &longer].map(|run| fs::read(run.join(name)).expect("it is there"));
        assert!(one == other, "{name} differs");
    }
    let config = fs::read_to_string(longer.join("config.toml")).expect("it is there");
    assert!(config.starts_with("# begun with --init-from \"") && config.contains("--with-replay, at its step 2500;"));
}

/// Ctrl-C and SIGTERM save, and say how to go on.
#[test]
fn interrupted_runs_go_on_as_if_they_had_not_been() {
    for (number, signal) in [(0, "-INT"), (3, "-TERM")] {
        let interrupted = new_path("interrupted");
        // Long, so that the signal comes in time.
        let with_steps = |steps: &str| {
            let mut arguments = small_run(number);
            let at = arguments.iter().position(|argument| argument == "--steps").expect("it has them");
            arguments[at + 1] = steps.into();
            sac(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let mut command = with_steps("400000");
        let child =
            command.arg("--out").arg(&interrupted).stderr(Stdio::piped()).spawn().expect("the program is there");
        while !interrupted.join("checkpoint/manifest").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(60));
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("there is kill");
        assert!(sent.success());
        let output = child.wait_with_output().expect("it has been started");
        assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("go on with: sac resume"), "{}", text(&output.stderr));
        let place = interrupted.to_str().expect("it is text");
        let step: u64 = manifest_step(&interrupted);
        assert!(step > 0);
        let steps = (step + 500).to_string();
        let (config, begun_with) = (interrupted.join("config.toml"), "\nsteps = 400000\n");
        let text_of = fs::read_to_string(&config).expect("it is there");
        assert!(text_of.contains(begun_with), "{text_of}");
        fs::write(config, text_of.replace(begun_with, &format!("\nsteps = {steps}\n"))).expect("it can be written");
        let resumed = run(&["resume", place]);
        assert!(resumed.status.success(), "{}", text(&resumed.stderr));
        let whole = new_path("whole");
        let mut command = with_steps(&steps);
        assert!(command.arg("--out").arg(&whole).output().expect("the program is there").status.success());
        assert_same(&whole, &interrupted, signal);
    }
}

/// A run that does little but evaluate: whatever the instant of an interruption, it ends at once, and its successor goes on with
/// the evaluation. So does that of a run that is killed, from the checkpoint made before the evaluation.
#[test]
fn evaluations_that_are_interrupted_or_killed_are_made_again() {
    let number = std::env::var("SAC_INTERRUPTIONS").map_or(4, |number| number.parse().expect("it is a number"));
    let begin = |out: &Path| {
        let arguments = "pendulum --hidden 8 --batch 8 --steps 60 --random-steps 20 --eval-every 7 --checkpoint-every 4 \
                         --eval-episodes 100 --final-episodes 600 --keep-best --threads 1 --quiet";
        let mut command = sac(&arguments.split_whitespace().collect::<Vec<_>>());
        command.arg("--out").arg(out);
        command
    };
    let alone = new_path("alone");
    let began = std::time::Instant::now();
    assert!(begin(&alone).output().expect("the program is there").status.success());
    let duration = began.elapsed();
    let mut rng = Philox::new(0, Stream::Environment, 2);
    let (mut interrupted, mut evaluating, mut took) = (0, 0, Vec::new());
    while interrupted < number {
        let path = new_path("evaluating");
        let mut begun = false;
        loop {
            let mut command = if begun { sac(&["resume", "--threads", "1", "--quiet"]) } else { begin(&path) };
            if begun {
                command.arg(&path);
            }
            let child = command.stderr(Stdio::piped()).spawn().expect("the program is there");
            std::thread::sleep(duration.mul_f64(rng.random_range(0.05..0.6)));
            let signal = ["-INT", "-TERM", "-KILL"][rng.random_range(0..3)];
            let sent = std::time::Instant::now();
            let _ = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
            let output = child.wait_with_output().expect("it has been started");
            if output.status.success() {
                break;
            }
            let expected = if signal == "-KILL" { None } else { Some(130) };
            assert_eq!(output.status.code(), expected, "{signal}: {}", text(&output.stderr));
            took.push(sent.elapsed());
            interrupted += 1;
            begun = path.join("checkpoint/manifest").exists();
            if begun {
                let manifest = fs::read_to_string(path.join("checkpoint/manifest")).expect("it is there");
                let current = manifest.split("\"previous\"").next().expect("it has a beginning");
                evaluating += usize::from(current.contains("\"before_evaluation\":true"));
            }
        }
        assert_same(&alone, &path, "an interrupted evaluation");
        let _ = fs::remove_dir_all(path);
    }
    took.sort();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{interrupted} times, {evaluating} of them in an evaluation, ended within {median:?} (median), {slowest:?} (all): \
         identical"
    );
    assert!(evaluating > 0, "no evaluation was interrupted");
    // A machine that does other work takes longer now and then.
    assert!(median < Duration::from_secs(1), "{median:?}");
}

/// A run whose last evaluation is still to be made is not finished, and can be given more steps instead of it.
#[test]
fn a_run_before_its_last_evaluation_is_not_finished() {
    let begin = |steps: &str, out: &Path| {
        let arguments = "pendulum --hidden 8 --batch 8 --random-steps 20 --eval-every 50 --checkpoint-every 10 \
                         --eval-episodes 1 --final-episodes 4000 --threads 1 --quiet --steps";
        let mut command = sac(&arguments.split_whitespace().chain([steps]).collect::<Vec<_>>());
        command.arg("--out").arg(out);
        command
    };
    let path = new_path("last");
    let child = begin("230", &path).spawn().expect("the program is there");
    while !path.join("checkpoint/manifest").exists() || manifest_step(&path) < 220 {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("there is kill").success());
    assert_eq!(child.wait_with_output().expect("it has been started").status.code(), Some(130));
    assert_eq!(manifest_step(&path), 230);
    let place = path.to_str().expect("it is text");
    let runs = run(&["runs", place]);
    assert!(text(&runs.stdout).trim_end().ends_with("unfinished"), "{}", text(&runs.stdout));
    let resumed = run(&["resume", place, "--steps", "260", "--threads", "1"]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    let whole = new_path("whole");
    assert!(begin("260", &whole).output().expect("the program is there").status.success());
    assert_same(&whole, &path, "more steps");
}

fn manifest_step(run: &Path) -> u64 {
    let manifest = fs::read_to_string(run.join("checkpoint/manifest")).expect("it is there");
    let line: serde_json::Value = serde_json::from_str(manifest.lines().next().expect("it has a line")).expect("JSON");
    line["current"]["step"].as_u64().expect("it has a step")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("checkpoint")).expect("it can be made");
    for (name, bytes) in content(from) {
        fs::write(to.join(name), bytes).expect("it can be written");
    }
    fs::copy(from.join("timings.csv"), to.join("timings.csv")).expect("it can be copied");
}

/// A tiny run.
fn tiny_run() -> PathBuf {
    let place = new_path("tiny");
    let out = place.to_str().expect("it is text");
    let mut arguments = vec!["pendulum", "--steps", "9", "--hidden", "1", "--batch", "1", "--random-steps", "2"];
    arguments.extend(["--checkpoint-every", "4", "--eval-every", "3", "--eval-episodes", "1", "--out", out]);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    place
}

/// Every byte of every file of a checkpoint changed, and every truncation of it: an error, or a good checkpoint.
#[test]
fn a_damaged_checkpoint_is_an_error_or_the_one_before() {
    let whole = tiny_run();
    let open = |place: &Path| -> Result<_, anyhow::Error> {
        let (run, config) = RunDirectory::open(place)?;
        let (_, loaded) = Checkpoints::open(&run, &config)?;
        Ok((loaded.state, loaded.metrics))
    };
    let good = open(&whole).expect("it is whole");
    let files = content(&whole);
    let place = new_path("damaged");
    copy(&whole, &place);
    let mut seen = (0, 0);
    for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("checkpoint")) {
        let flipped = (0..bytes.len()).map(|at| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        });
        for damaged in flipped.chain((0..bytes.len()).map(|length| bytes[..length].to_vec())) {
            fs::write(place.join(name), damaged).expect("it can be written");
            match open(&place) {
                Err(error) => {
                    seen.0 += 1;
                    assert!(!format!("{error:#}").contains('\n'), "{error:#}");
                }
                Ok(loaded) => {
                    seen.1 += 1;
                    assert_eq!(loaded, good, "{}", name.display());
                }
            }
            fs::write(place.join(name), bytes).expect("it can be written");
        }
    }
    println!("{} damaged checkpoints are errors, {} are as before", seen.0, seen.1);
    assert!(seen.0 > 1000 && seen.1 == 0, "a byte of a checkpoint that does not matter");
}

#[test]
fn what_cannot_be_resumed_is_told() {
    let whole = tiny_run();
    let place = |change: &dyn Fn(&Path)| {
        let place = new_path("changed");
        copy(&whole, &place);
        change(&place);
        place
    };
    let edit = |place: &Path, name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(place.join(name)).expect("it is there");
        assert!(text.contains(from));
        fs::write(place.join(name), text.replace(from, to)).expect("it can be written");
    };
    type Change<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Change); 7] = [
        ("it has no config.toml", &|place| fs::remove_file(place.join("config.toml")).expect("it is there")),
        ("has no checkpoint; train anew", &|place| fs::remove_dir_all(place.join("checkpoint")).expect("it is there")),
        ("replay-0.bin", &|place| fs::remove_file(place.join("checkpoint/replay-0.bin")).expect("it is there")),
        ("it is of another configuration", &|place| edit(place, "config.toml", "gamma = 0.99", "gamma = 0.9")),
        ("the checkpoint goes on from another metrics.csv", &|place| edit(place, "metrics.csv", "step", "stop")),
        ("there is no environment \"cart\"", &|place| edit(place, "config.toml", "pendulum", "cart")),
        ("is damaged", &|place| edit(place, "checkpoint/manifest", "\"step\":9", "\"step\":8")),
    ];
    for (expected, change) in cases {
        let place = place(change);
        let before = content(&place);
        let output = run(&["resume", place.to_str().expect("it is text"), "--steps", "12"]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{expected}: {told}");
        assert!(told.contains(expected) && told.trim().lines().count() == 1, "{expected}: {told}");
        let after: Vec<_> = content(&place).into_iter().filter(|(name, _)| !name.ends_with("lock")).collect();
        let before: Vec<_> = before.into_iter().filter(|(name, _)| !name.ends_with("lock")).collect();
        assert!(before == after, "{expected}: something has changed");
    }
    // Nor does a resume that fails late change anything, and what is not ours stays.
    let place = place(&|place| fs::create_dir_all(place.join("checkpoint/backup")).expect("it can be made"));
    fs::write(place.join("checkpoint/manifest.bak"), "mine").expect("it can be written");
    let before = content(&place);
    let place = place.to_str().expect("it is text");
    let output = run(&["resume", place, "--steps", "20", "--device", "cuda:99"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(before == content(Path::new(place)), "something has changed");
    let output = run(&["resume", place, "--steps", "20"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let kept = ["checkpoint/backup", "checkpoint/manifest.bak"].map(|name| Path::new(place).join(name).exists());
    assert_eq!(kept, [true, true]);
    let done = run(&["resume", whole.to_str().expect("it is text")]);
    assert!(done.status.success() && text(&done.stderr).contains("it is finished"), "{}", text(&done.stderr));
}

/// If the last checkpoint is damaged and there is one before it, the run goes on from that, says so, and ends the same.
#[test]
fn the_checkpoint_before_serves_where_the_last_is_damaged() {
    let (alone, killed) = (new_path("alone"), new_path("killed"));
    assert!(begin(0, &alone).output().expect("the program is there").status.success());
    let mut child = begin(0, &killed).stderr(Stdio::null()).spawn().expect("the program is there");
    while fs::read_to_string(killed.join("checkpoint/manifest")).map_or(true, |text| text.contains("\"previous\":null"))
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("it runs");
    child.wait().expect("it has been started");
    let step = manifest_step(&killed);
    let state = killed.join(format!("checkpoint/state-{step}.safetensors"));
    let mut bytes = fs::read(&state).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).expect("it can be written");
    let output = run(&["resume", killed.to_str().expect("it is text")]);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("the last checkpoint is damaged") && told.contains("going on from step"), "{told}");
    assert_same(&alone, &killed, "the one before");
}

#[test]
fn only_one_process_trains_a_run() {
    let place = new_path("locked");
    let out = place.to_str().expect("it is text");
    let long = ["pendulum", "--steps", "1000000", "--hidden", "8", "--batch", "8", "--out", out];
    let mut child = sac(&long).stderr(Stdio::null()).spawn().expect("the program is there");
    while !place.join("checkpoint/manifest").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = run(&["resume", out]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("another process trains this run"), "{}", text(&output.stderr));
    child.kill().expect("it runs");
    child.wait().expect("it has been started");
}

/// A disk that takes no more: exit code 1, a line that says so, and the last checkpoint goes on once there is room.
#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    let (alone, full) = (new_path("alone"), new_path("full"));
    assert!(begin(0, &alone).output().expect("the program is there").status.success());
    let arguments = small_run(0).join(" ");
    // Files of at most 40 KiB; the signal that comes with a longer one is not heard.
    let script =
        format!("trap '' XFSZ; ulimit -f 40; exec {} {arguments} --out {}", env!("CARGO_BIN_EXE_sac"), full.display());
    let output = Command::new("bash").args(["-c", &script]).output().expect("there is bash");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot be written") && told.contains("checkpoint"), "{told}");
    let resumed = run(&["resume", full.to_str().expect("it is text")]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    assert_same(&alone, &full, "after a full disk");
}
