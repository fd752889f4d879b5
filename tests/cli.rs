//! The program `sac` as its user meets it: exit codes, messages, and what is on disk afterwards.
#![cfg(feature = "program")]

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use soft_actor_critic::run::policy_file;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
#[cfg(unix)]
use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

const TINY: &str = "pendulum --hidden 8,8 --batch 16 --steps 300 --eval-every 100";
const RUN_FILES: [&str; 7] = [
    "checkpoint",
    "config.toml",
    "curve.svg",
    "events.out.tfevents.sac",
    "metrics.csv",
    "policy.safetensors",
    "timings.csv",
];

/// A directory of one test, where its programs run; it goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the target directory can be written");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("the directory can be written");
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
        command.current_dir(&self.0).args(arguments.split_whitespace());
        command
    }

    fn sac(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// Runs what must end well, and returns its standard output.
    fn succeed(&self, arguments: &str) -> String {
        let output = self.sac(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn evaluate(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.succeed(&format!("eval --json {arguments}"))).expect("it is JSON")
    }

    /// Every file with its bytes, and every directory with none.
    fn tree(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        fn collect(path: PathBuf, tree: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
            if let Ok(entries) = fs::read_dir(&path) {
                entries.for_each(|entry| collect(entry.expect("it can be listed").path(), tree));
            }
            tree.insert(path.clone(), fs::read(path).ok());
        }
        let mut tree = BTreeMap::new();
        collect(self.0.clone(), &mut tree);
        tree
    }

    /// The names of the files of a run.
    fn files(&self, run: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(run)).expect("the run has a directory");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("it can be listed").file_name();
        let mut names: Vec<_> = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The cells below a heading of a CSV file.
    fn column(&self, file: &str, heading: &str) -> Vec<String> {
        let table = text(&self.read(file));
        let rows: Vec<Vec<_>> = table.lines().map(|row| row.split(',').collect()).collect();
        let column = rows[0].iter().position(|&name| name == heading).expect("the column exists");
        rows[1..].iter().map(|row| row[column].to_string()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A panic here would hide why the test failed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

#[test]
fn bad_input_is_told_in_one_line_that_names_the_mend_and_changes_nothing() {
    let scratch = Scratch::new("bad-input");
    scratch.succeed(&format!("{TINY} --quiet --out used"));
    scratch.succeed(&format!("{TINY} --quiet --seeds 3..4 --out group"));
    scratch.write("file", "not a directory");
    scratch.write("malformed.toml", "seed = 1\ngamma =\n");
    // One step is too few for a batch, so none of these would train even if its own mistake were overlooked.
    scratch.write("unknown.toml", "steps = 1\ngama = 0.9");
    scratch.write("wrong-type.toml", "steps = 1\ngamma = \"high\"");
    scratch.write("nan.toml", "steps = 1\ntau = nan");
    scratch.write("elsewhere.toml", "steps = 1\nenvironment = \"cart\"");
    let policy = scratch.read("used/policy.safetensors");
    scratch.write("truncated.safetensors", &policy[..policy.len() - 1]);
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pendulum.safetensors");
    fs::copy(recording, scratch.path("foreign.safetensors")).expect("the recording is in the repository");
    fs::create_dir(scratch.path("empty")).expect("the directory can be written");

    let help = scratch.succeed("--help").replace('\n', " ");
    let before = scratch.tree();
    for (arguments, expected) in [
        ("", "ENVIRONMENT"),
        ("moon", "\"moon\"; there are: pendulum, mountain-car"),
        ("pendulum --steps 0", "steps is 0; it must be at least 1"),
        ("pendulum --steps 300 --batch 301", "lower it (--batch) or train longer (--steps)"),
        ("pendulum --replay 10", "replay_capacity is 10; it must be at least the batch size, 256"),
        ("pendulum --lr -0.001", "learning_rate is -0.001; it must be a number above 0"),
        ("pendulum --lr nan", "learning_rate is NaN; it must be a number above 0"),
        ("pendulum --max-gradient-norm 0", "max_gradient_norm is 0; it must be off or a number from"),
        ("pendulum --max-gradient-norm 1 --device cuda", "max_gradient_norm is for the CPU alone; say --device cpu"),
        (
            "pendulum --normalize-observations --device cuda",
            "normalize_observations is for the CPU alone; say --device cpu",
        ),
        ("pendulum --keep-best --eval-every 0", "keep_best is true; it must be false where there is no evaluation"),
        (
            "pendulum --reward-scale 0",
            "reward_scale is 0; it must be a number above 0, from 1e-30 to 1e30 (--reward-scale)",
        ),
        ("pendulum --reward-scale 1e300", "reward_scale is 1e300; it must be"),
        ("pendulum --tau 1e-300", "tau is 1e-300; it must be"),
        (
            "pendulum --replay 0",
            "replay_capacity is 0; it must be at least the batch size, 256, and below 2⁶³ (--replay)",
        ),
        ("pendulum --gamma 1.01", "gamma is 1.01; it must be from 0 to 1"),
        ("pendulum --gamma -0.1", "gamma is -0.1; it must be from 0 to 1"),
        ("pendulum --hidden 8,0", "policy_hidden is [8, 0]; it must be widths from 1 to 65536 (--hidden)"),
        ("pendulum --alpha high", "--alpha"),
        ("pendulum --steps", "--steps"),
        ("pendulum --stepps 300", "unexpected argument '--stepps'"),
        ("pendulum --until-return nan", "--until-return"),
        ("pendulum --until-return 0 --eval-every 0", "raise eval_every (--eval-every) above 0"),
        // 10¹⁷ transitions are within the arithmetic of the machine, but not within its memory.
        ("pendulum --steps 100000000000000000 --replay 100000000000000000", "lower replay_capacity (--replay)"),
        ("pendulum --threads 100000", "lower the number (--threads)"),
        ("pendulum --config missing.toml", "missing.toml cannot be read"),
        ("pendulum --config malformed.toml", "malformed.toml cannot be used: line 2"),
        ("pendulum --config unknown.toml", "unknown field `gama`, expected one of `seed`"),
        ("pendulum --config wrong-type.toml", "wrong-type.toml cannot be used: invalid type"),
        ("pendulum --config nan.toml", "tau is NaN; it must be a number above 0"),
        ("pendulum --config elsewhere.toml", "the environment \"cart\", not \"pendulum\"; mend or remove that line"),
        // Not a matter of permissions, which a test that runs as root would not meet.
        ("pendulum --out file/run", "choose another with --out"),
        ("pendulum --out file", "choose another with --out"),
        ("pendulum --out used", "used already holds files, which will not be overwritten; choose another directory"),
        ("pendulum --preset moon", "there is no preset \"moon\"; known are default, mujoco, twin-q-auto"),
        ("presets moon", "there is no preset \"moon\"; known are default, mujoco, twin-q-auto"),
        ("pendulum --preset default --config unknown.toml", "cannot be used with"),
        (
            "pendulum --preset v-net-auto --steps 5000",
            "first_update is 10001; it must be from 1 to the number of steps",
        ),
        ("pendulum --steps 300 --first-update -3", "--first-update"),
        ("pendulum --random-hold 0", "random_hold is 0"),
        ("pendulum --envs 0", "envs is 0; it must be from 1 to 256 (--envs)"),
        (
            "pendulum --envs 8 --batch 4 --replay 7",
            "replay_capacity is 7; it must be at least the number of environments",
        ),
        ("pendulum --utd 0", "utd is 0; it must be from 0.000001 to 1000, with six decimals at most (--utd)"),
        ("pendulum --utd 0.3333333", "utd is 0.3333333; it must be from 0.000001"),
        ("pendulum --n-step 0", "n_step is 0; it must be from 1 to 1000 (--n-step)"),
        ("eval", "<DIR>"),
        ("eval missing", "missing cannot be read"),
        ("eval empty", "policy.safetensors cannot be read"),
        ("eval truncated.safetensors", "truncated.safetensors is no policy that `sac` has written whole"),
        ("eval foreign.safetensors", "foreign.safetensors is no policy that `sac` has written whole"),
        ("eval used/config.toml", "config.toml is no policy that `sac` has written whole"),
        ("eval used --episodes 0", "--episodes"),
        ("eval used --best", "used has no best.safetensors; train with --keep-best, or leave out --best"),
        ("render used --best", "used has no best.safetensors; train with --keep-best, or leave out --best"),
        ("export used --format c --best", "used has no best.safetensors; train with --keep-best, or leave out --best"),
        ("eval used/policy.safetensors --best", "is no run directory; name one, or leave out --best"),
        ("eval used --epochs 1", "unexpected argument '--epochs'"),
        ("pendulum --python python3", "pendulum needs no Python; leave out --python and --env-timeout"),
        ("pendulum --env-timeout 3", "pendulum needs no Python"),
        ("eval used --python python3", "pendulum needs no Python"),
        ("resume used --python python3", "pendulum needs no Python"),
        ("resume group --env-timeout 3 --steps 400", "pendulum needs no Python"),
        ("eval group", "group is no run, but holds some; name one of them, as in group/seed-3"),
        ("render group --best", "group is no run, but holds some; name one of them, as in group/seed-3"),
        ("export group --format c", "group is no run, but holds some; name one of them, as in group/seed-3"),
    ] {
        let output = scratch.sac(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "sac {arguments}: {error}");
        assert!(error.starts_with("error: ") && error.ends_with('\n') && error.lines().count() == 1, "{error}");
        assert!(error.contains(expected) && !error.contains("Usage:"), "sac {arguments}: {expected:?}? {error}");
        let options = error.split("(--").skip(1).filter_map(|rest| rest.split(')').next());
        for option in options {
            assert!(help.contains(&format!(" --{option} ")), "sac {arguments}: there is no --{option}: {error}");
        }
        assert!(output.stdout.is_empty(), "sac {arguments}");
        assert!(scratch.tree() == before, "sac {arguments} has changed what is on disk");
    }
}

#[test]
fn presets_are_listed_printed_trained_and_overridden() {
    let scratch = Scratch::new("presets");
    let list = scratch.succeed("presets");
    for (name, toml) in soft_actor_critic::presets::PRESETS {
        assert!(list.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name} is not listed");
        assert_eq!(scratch.succeed(&format!("presets {name}")), toml);
        scratch.write("printed.toml", toml);
        // One and the same run by name and by file, where options come before both.
        let options = "--hidden 8 --batch 16 --steps 40 --random-steps 10 --first-update 30 --alpha 0.3 --eval-every 0";
        scratch.succeed(&format!("pendulum --preset {name} {options} --quiet --out {name}"));
        scratch.succeed(&format!("pendulum --config printed.toml {options} --quiet --out {name}-printed"));
        for file in ["config.toml", "metrics.csv", "policy.safetensors"] {
            let [by_name, by_file] = [name.to_string(), format!("{name}-printed")];
            assert_eq!(
                scratch.read(&format!("{by_name}/{file}")),
                scratch.read(&format!("{by_file}/{file}")),
                "{name}"
            );
        }
        let ran = text(&scratch.read(&format!("{name}/config.toml")));
        for line in ["alpha = 0.3", "steps = 40", "first_update = 30", "policy_hidden = [8]"] {
            assert!(ran.lines().any(|ran| ran == line), "{name}: {line} is not what ran:\n{ran}");
        }
    }
    assert!(text(&scratch.read("split-policy/config.toml")).contains("policy_heads = \"separate\""));
}

#[test]
fn an_unknown_kernel_or_channel_is_refused() {
    let scratch = Scratch::new("kernel");
    let output = scratch.command("presets").env("SAC_CHANNEL", "pipe").output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("SAC_CHANNEL is \"pipe\"; unset it, or say pipes"));
    let output = scratch.command("presets").env("SAC_GEMM", "fast").output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("SAC_GEMM is \"fast\"; unset it, or say what this processor has: "));
}

#[test]
fn a_run_leaves_its_files_and_their_rows_agree() {
    let scratch = Scratch::new("files");
    let output = scratch.sac(&format!("{TINY} --out run"));
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    assert!(said.contains("saved; evaluate it further with: sac eval run"), "{said}");
    // Nobody's terminal: plain lines, and no result on standard output.
    assert!(output.stdout.is_empty() && !said.contains(['\r', '\u{1b}']), "{said}");

    assert_eq!(scratch.files("run"), RUN_FILES);
    assert_eq!(scratch.column("run/metrics.csv", "step"), ["100", "200", "300"]);
    assert_eq!(scratch.column("run/timings.csv", "step"), ["100", "200", "300"]);
    assert_eq!(scratch.column("run/metrics.csv", "episode"), ["", "1", ""]);
    assert_eq!(scratch.column("run/metrics.csv", "episode_length"), ["", "200", ""]);
    for heading in ["evaluation_return", "evaluation_std", "critic_loss", "policy_loss", "alpha", "entropy", "q"] {
        let cells = scratch.column("run/metrics.csv", heading);
        assert!(cells.iter().all(|cell| cell.parse::<f64>().is_ok_and(f64::is_finite)), "{heading}: {cells:?}");
    }
}

/// The best evaluation is the highest in the table, and its policy does as well again; the file is that of the checkpoint.
#[test]
fn the_policy_of_the_best_evaluation_is_kept() {
    let scratch = Scratch::new("best");
    scratch.write("config.toml", "final_episodes = 7");
    let run = "pendulum --hidden 8,8 --batch 16 --steps 600 --eval-every 100 --eval-episodes 4 --lr 0.003";
    scratch.succeed(&format!("{run} --quiet --config config.toml --out without"));
    let output = scratch.sac(&format!("{run} --config config.toml --keep-best --normalize-observations --out run"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(scratch.files("run").contains(&"best.safetensors".into()));
    assert!(!scratch.files("without").contains(&"best.safetensors".into()));

    let returns: Vec<(String, f64)> = scratch
        .column("run/metrics.csv", "step")
        .into_iter()
        .zip(scratch.column("run/metrics.csv", "evaluation_return"))
        .filter_map(|(step, value)| Some((step, value.parse().ok()?)))
        .collect();
    assert_eq!(returns.len(), 6);
    let highest = returns.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
    let (step, _) = returns.iter().find(|(_, value)| *value == highest).expect("it is one of them");
    let said = text(&output.stderr);
    assert!(said.contains(&format!("best evaluation: mean return {highest:.1} at step {step}; ")), "{said}");
    assert_ne!(step, "600", "another seed, or the last policy is the best");
    let again = scratch.evaluate("run --best --episodes 4 --seed 0");
    assert!(
        again["mean_return"].as_f64().is_some_and(|mean| (mean - highest).abs() < 1e-9),
        "{again} is not {highest}"
    );

    scratch.succeed("export run --best --format safetensors -o exported.safetensors");
    let best = scratch.read("run/best.safetensors");
    assert!(scratch.read("exported.safetensors") == best && scratch.read("run/policy.safetensors") != best);
    scratch.write("run/best.safetensors", "of steps that have not been");
    scratch.succeed("resume run");
    assert!(scratch.read("run/best.safetensors") == best);
    scratch.succeed("render run --best --size 64 -o best.gif");
}

/// Episodes that end in the same round have a row each, in the order of their environments; what is due at a step comes after
/// the round that reaches it, and the last round may go beyond the last step.
#[test]
fn several_environments_share_steps_and_have_rows_of_their_own() {
    let scratch = Scratch::new("several");
    let arguments = "pendulum --envs 3 --steps 700 --hidden 8 --batch 16 --eval-every 300 --eval-episodes 1";
    scratch.succeed(&format!("{arguments} --checkpoint-every 250 --utd 0.1 --out run"));
    let column = |heading| scratch.column("run/metrics.csv", heading);
    assert_eq!(column("step"), ["300", "600", "600", "600", "702"]);
    assert_eq!(column("episode"), ["", "1", "2", "3", ""]);
    assert_eq!(column("episode_length"), ["", "200", "200", "200", ""]);
    let is_empty = |heading| column(heading).iter().map(String::is_empty).collect::<Vec<_>>();
    assert_eq!(is_empty("evaluation_return"), [false, true, true, false, false]);
    assert_eq!(is_empty("critic_loss"), [false, false, true, true, false]);
    let returns = column("episode_return");
    assert!(returns[1] != returns[2] && returns[2] != returns[3], "{returns:?}");
    // At the end it was begun with it is finished, and it goes on from where the last round has ended.
    let again = scratch.sac("resume run");
    assert!(text(&again.stderr).contains("it is finished"), "{}", text(&again.stderr));
    scratch.succeed("resume run --steps 710");
    assert_eq!(column("step").last().map(String::as_str), Some("711"));
}

#[test]
fn runs_without_a_directory_are_numbered() {
    let scratch = Scratch::new("numbered");
    for run in ["runs/pendulum-1", "runs/pendulum-2"] {
        scratch.succeed(&format!("{TINY} --quiet"));
        assert_eq!(scratch.files(run), RUN_FILES);
    }
}

#[test]
fn the_configuration_of_a_run_repeats_it_and_options_come_before_it() {
    let scratch = Scratch::new("config");
    scratch.succeed(&format!("{TINY} --seed 3 --lr 0.001 --gamma 0.9 --alpha 0.2 --tau 0.01 --out first"));
    scratch.succeed("pendulum --config first/config.toml --out second");
    for file in ["config.toml", "metrics.csv", "policy.safetensors"] {
        assert!(scratch.read(&format!("first/{file}")) == scratch.read(&format!("second/{file}")), "{file} differs");
    }

    scratch.succeed("pendulum --config first/config.toml --gamma 0.5 --out third");
    let [first, third] = ["first", "third"].map(|run| text(&scratch.read(&format!("{run}/config.toml"))));
    assert!(first.contains("gamma = 0.9\n"), "{first}");
    assert_eq!(first.replace("gamma = 0.9\n", "gamma = 0.5\n"), third);
    assert!(scratch.read("first/metrics.csv") != scratch.read("third/metrics.csv"), "γ changes nothing");
}

#[test]
fn runs_are_listed_with_their_returns_and_whether_they_are_finished() {
    let scratch = Scratch::new("runs-listed");
    let training = "pendulum --hidden 8 --batch 8 --random-steps 8 --steps 250 --eval-every 100 --eval-episodes 1";
    for number in [2, 10] {
        let options = format!("{training} --seed {number} --out runs/p-{number}");
        assert!(scratch.command(&options).output().expect("the program starts").status.success());
    }
    fs::create_dir_all(scratch.path("runs/no-run")).expect("it can be made");
    let config = fs::read_to_string(scratch.path("runs/p-10/config.toml")).expect("it is there");
    fs::write(scratch.path("runs/p-10/config.toml"), config.replace("steps = 250", "steps = 900"))
        .expect("it is there");
    let output = scratch.command("runs").output().expect("the program starts");
    let listed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: Vec<Vec<_>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{listed}");
    assert_eq!(rows[1][..5], ["runs/p-2", "pendulum", "2", "250", "250"]);
    assert_eq!(rows[2][..5], ["runs/p-10", "pendulum", "10", "250", "900"]);
    assert_eq!((rows[1][7], rows[2][7]), ("finished", "unfinished"));
    let evaluations = scratch.column("runs/p-2/metrics.csv", "evaluation_return");
    let evaluations: Vec<f64> = evaluations.iter().filter_map(|cell| cell.parse().ok()).collect();
    let best = evaluations.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let last = evaluations.last().expect("there was one");
    assert_eq!((rows[1][5], rows[1][6]), (format!("{best:.1}").as_str(), format!("{last:.1}").as_str()));

    for (arguments, mend) in [("runs nowhere", "name a directory of runs"), ("runs runs/no-run", "holds no runs")] {
        let output = scratch.command(arguments).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(mend), "{}", text(&output.stderr));
    }
}

#[test]
fn quiet_prints_nothing() {
    let scratch = Scratch::new("quiet");
    let output = scratch.sac(&format!("{TINY} --quiet --out run"));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), String::new()));
}

#[test]
fn a_return_that_is_reached_ends_training() {
    let scratch = Scratch::new("until-return");
    // No episode of Pendulum-v1 returns less than −3 300, and none more than 0.
    for (target, steps, verdict) in [("-4000", "100", "return -4000 reached"), ("1", "300", "return 1 not reached")] {
        let run = format!("to{target}");
        let output = scratch.sac(&format!("{TINY} --until-return {target} --out {run}"));
        assert_eq!(output.status.code(), Some(0));
        let said = text(&output.stderr);
        assert!(said.contains(&format!("{verdict} after {steps} steps")), "{said}");
        let last = scratch.column(&format!("{run}/metrics.csv"), "step").pop();
        assert_eq!(last.as_deref(), Some(steps));
    }

    // One that has reached it is finished, also among others, until it gets another.
    let training = format!("{TINY} --keep-best --until-return -4000");
    let told = text(&scratch.sac(&format!("{training} --seeds 0..2 --out many")).stderr);
    for line in ["seed-1: return -4000 reached after 100 steps", "seed-0: best evaluation: mean return "] {
        assert!(told.lines().any(|told| told.starts_with(line)), "{line}: {told}");
    }
    for arguments in ["resume many", "resume many --steps 500"] {
        let output = scratch.sac(arguments);
        assert!(output.status.success() && text(&output.stderr).contains("all runs in many are finished; give them"));
    }
    let told = text(&scratch.sac("resume many/seed-0 --steps 500").stderr);
    assert!(told.contains("it is finished; go on with --until-return off or a higher one"), "{told}");
    assert!(scratch.succeed("runs many").lines().skip(1).all(|line| line.ends_with("  finished")));
    scratch.succeed("resume many --quiet --until-return off");
    scratch.succeed(&format!("{TINY} --keep-best --quiet --seed 1 --out alone"));
    for file in ["config.toml", "policy.safetensors", "best.safetensors"] {
        assert!(scratch.read(&format!("many/seed-1/{file}")) == scratch.read(&format!("alone/{file}")), "{file}");
    }
    scratch.succeed("resume many/seed-0 --quiet --steps 600 --until-return -4000");
    let last = scratch.column("many/seed-0/metrics.csv", "step").pop();
    assert_eq!(last.as_deref(), Some("500"), "what the last evaluation has reached is reached");
}

#[test]
fn without_evaluations_their_cells_are_empty() {
    let scratch = Scratch::new("no-evaluations");
    scratch.succeed("pendulum --hidden 8,8 --batch 16 --steps 300 --eval-every 0 --out run");
    assert_eq!(scratch.column("run/metrics.csv", "step"), ["200", "300"]);
    for heading in ["evaluation_return", "evaluation_std"] {
        assert_eq!(scratch.column("run/metrics.csv", heading), ["", ""]);
    }
    assert_eq!(scratch.files("run"), RUN_FILES);
}

#[test]
fn evaluation_as_json_has_exactly_its_keys_and_they_agree() {
    let scratch = Scratch::new("eval");
    scratch.succeed(&format!("{TINY} --quiet --out run"));
    let result = scratch.evaluate("run --episodes 5");
    let keys: Vec<_> = result.as_object().expect("it is an object").keys().cloned().collect();
    assert_eq!(keys, ["episodes", "max_return", "mean_return", "min_return", "returns", "std_return"]);

    let returns: Vec<f64> = serde_json::from_value(result["returns"].clone()).expect("they are numbers");
    assert_eq!((result["episodes"].as_u64(), returns.len()), (Some(5), 5));
    let mean = returns.iter().sum::<f64>() / 5.0;
    let std = (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 5.0).sqrt();
    for (key, expected) in [
        ("mean_return", mean),
        ("std_return", std),
        ("min_return", returns.iter().copied().fold(f64::MAX, f64::min)),
        ("max_return", returns.iter().copied().fold(f64::MIN, f64::max)),
    ] {
        let value = result[key].as_f64().expect("it is a number");
        assert!((value - expected).abs() < 1e-9, "{key}: {value} instead of {expected}");
    }

    assert_eq!(scratch.evaluate("run/policy.safetensors --episodes 5"), result);
    for other in ["--seed 1", "--stochastic"] {
        assert_ne!(scratch.evaluate(&format!("run --episodes 5 {other}"))["returns"], result["returns"], "{other}");
    }
    let line = scratch.succeed("eval run --episodes 5");
    assert_eq!(line.lines().count(), 1);
    assert!(line.contains(&format!("mean return {mean:.1}")) && line.contains("5 episodes"), "{line}");
}

#[test]
fn evaluation_repeats_that_of_the_end_of_training() {
    let scratch = Scratch::new("repeat");
    scratch.succeed(&format!("{TINY} --quiet --seed 5 --out run"));
    let trained = scratch.column("run/metrics.csv", "evaluation_return").pop();
    let trained: f64 = trained.and_then(|cell| cell.parse().ok()).expect("the last row has an evaluation");
    let repeated = scratch.evaluate("run --seed 5")["mean_return"].as_f64().expect("it is a number");
    // The JSON reader of this test rounds in the last digit.
    assert!((repeated - trained).abs() < 1e-9, "{repeated} instead of {trained}");
}

/// Otherwise a policy that was chosen by its evaluations would be judged by the same episodes. No run has that seed.
#[test]
fn evaluation_has_other_episodes_than_training_unless_told_so() {
    let scratch = Scratch::new("unseen");
    scratch.succeed(&format!("{TINY} --quiet --keep-best --out run"));
    let by_default = scratch.evaluate("run --episodes 5");
    assert_ne!(scratch.evaluate("run --episodes 5 --seed 0"), by_default);
    assert_eq!(scratch.evaluate("run --episodes 5"), by_default);
    let seed = soft_actor_critic::actor::UNSEEN;
    assert_eq!(scratch.evaluate(&format!("run --episodes 5 --seed {seed}")), by_default);
    let output = scratch.sac(&format!("{TINY} --seed {seed}"));
    assert_eq!((output.status.code(), text(&output.stderr).contains("below 2⁶³")), (Some(2), true));
}

#[test]
fn the_policy_file_stands_on_its_own() {
    let scratch = Scratch::new("policy");
    scratch.succeed("pendulum --hidden 7,5 --batch 16 --steps 300 --quiet --out run");
    let bytes = scratch.read("run/policy.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("it is a safetensors file");
    let shapes: BTreeMap<_, _> = file.tensors().into_iter().map(|(name, t)| (name, t.shape().to_vec())).collect();
    let expected = [("trunk.0", 7, 3), ("trunk.1", 5, 7), ("mean", 1, 5), ("log_std", 1, 5)];
    let expected = expected.iter().flat_map(|&(name, outputs, inputs)| {
        [(format!("{name}.weight"), vec![outputs, inputs]), (format!("{name}.bias"), vec![outputs])]
    });
    assert_eq!(shapes, expected.collect());
    assert!(file.tensors().iter().all(|(_, tensor)| tensor.dtype() == Dtype::F32));

    let (_, header) = SafeTensors::read_metadata(&bytes).expect("it has a header");
    let metadata: BTreeMap<_, _> = header.metadata().iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected = [
        ("action_high", "2"),
        ("action_low", "-2"),
        ("activation", "relu"),
        ("environment", "pendulum"),
        ("format", "soft-actor-critic policy 1"),
        ("log_std", "clamp"),
        ("log_std_max", "2"),
        ("log_std_min", "-20"),
        ("mean", "raw"),
    ];
    assert_eq!(metadata, expected.into());

    // The action as a reader without this library would compute it.
    let values = |name: String| -> Vec<f32> {
        let data = file.tensor(&name).expect("its name was checked").data();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("these are four"))).collect()
    };
    let layer = |name: &str, input: &[f32]| -> Vec<f32> {
        let (weight, bias) = (values(format!("{name}.weight")), values(format!("{name}.bias")));
        let products = weight.chunks_exact(input.len()).map(|row| row.iter().zip(input).map(|(w, x)| w * x).sum());
        products.zip(bias).map(|(product, bias): (f32, f32)| product + bias).collect()
    };
    let relu = |values: Vec<f32>| values.into_iter().map(|x| x.max(0.0)).collect::<Vec<_>>();
    let observation = [0.6, -0.8, 3.0];
    let hidden = relu(layer("trunk.1", &relu(layer("trunk.0", &observation))));
    let expected = -2.0 + 0.5 * (layer("mean", &hidden)[0].tanh() + 1.0) * (2.0 - -2.0);
    let (_, mut actor) = policy_file::load(&scratch.path("run/policy.safetensors")).expect("it was just written");
    let mut action = [0.0];
    actor.act(&observation, None, &mut action);
    assert!((action[0] - expected).abs() < 1e-5, "{} instead of {expected}", action[0]);
}

#[test]
fn a_failed_training_is_told_in_one_line_and_leaves_a_run_that_evaluates() {
    let scratch = Scratch::new("failed");
    let output = scratch.sac(&format!("{TINY} --quiet --alpha 1e30 --out run"));
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("error: ") && error.lines().count() == 1, "{error}");
    assert!(error.contains("no longer finite at step") && error.contains("the temperature is 1.0e30"), "{error}");
    // It has not come to the end of an episode, so there is no curve to draw.
    assert!(scratch.files("run").iter().eq(RUN_FILES.iter().filter(|&&name| name != "curve.svg")));
    scratch.evaluate("run --episodes 2");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let scratch = Scratch::new("help");
    for (arguments, expected) in [("--help", "--steps"), ("eval --help", "--json"), ("--version", "sac ")] {
        assert!(scratch.succeed(arguments).contains(expected), "{arguments}");
    }
}

/// Polls for at most a minute; a child that goes on then is not left behind.
#[cfg(unix)]
fn wait_until(child: &mut Child, event: &str, mut happened: impl FnMut(&mut Child) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened(child) {
        if Instant::now() > deadline {
            child.kill().expect("it is a child of this test");
            panic!("{event}: not within a minute");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_the_run() {
    let scratch = Scratch::new("ctrl-c");
    // Enough steps for minutes, and for no line about progress until then.
    let training = "pendulum --hidden 8,8 --batch 16 --steps 10000000 --eval-every 0 --out run";
    let mut child = scratch.command(training).stderr(Stdio::piped()).spawn().expect("the program starts");
    let rows = || fs::read_to_string(scratch.path("run/metrics.csv")).map_or(0, |table| table.lines().count());
    wait_until(&mut child, "the first row", |_| rows() > 1);
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("every unix has kill").success());
    wait_until(&mut child, "the end", |child| child.try_wait().expect("it can be waited for").is_some());

    let output = child.wait_with_output().expect("it has ended");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("training on pendulum"), "{said}");
    assert!(lines[1].starts_with("interrupted: stopping at the next step of the environment;"), "{said}");
    let last = scratch.column("run/metrics.csv", "step").pop().expect("there was a row");
    assert_eq!(lines[2], format!("interrupted at step {last}; the run is saved, go on with: sac resume run"));
    assert_eq!(scratch.files("run"), RUN_FILES);
    scratch.evaluate("run --episodes 2");
}

/// A picture that cannot be drawn costs a run nothing else.
#[test]
fn a_run_ends_without_its_picture() {
    let scratch = Scratch::new("no-picture");
    scratch.succeed(&format!("{TINY} --quiet --out run"));
    fs::remove_file(scratch.path("run/curve.svg")).expect("it was just drawn");
    fs::create_dir(scratch.path("run/curve.svg")).expect("nothing is there");
    let output = scratch.sac("resume run --steps 400");
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("curve.svg cannot be written"), "{message}");
    assert!(message.contains("the run itself is saved"), "{message}");
    assert!(scratch.succeed("runs run").contains("finished"));
    fs::remove_dir(scratch.path("run/curve.svg")).expect("it is empty");
    scratch.succeed("resume run --quiet");
    assert!(scratch.path("run/curve.svg").is_file(), "a finished run is drawn where it was not");
}

/// Damaged runs are told, each in a line, and keep nothing else from being done.
#[test]
fn damaged_runs_among_others_are_told() {
    let scratch = Scratch::new("damaged");
    scratch.succeed(&format!("{TINY} --quiet --seeds 0..6 --out runs/many"));
    scratch.succeed(&format!("{TINY} --quiet --seeds 1..2 --out runs/other"));
    scratch.write("runs/many/seed-0/config.toml", "seed =");
    fs::remove_file(scratch.path("runs/many/seed-1/metrics.csv")).expect("it is there");
    fs::remove_file(scratch.path("runs/many/seed-2/config.toml")).expect("it is there");
    scratch.write("runs/many/seed-3/checkpoint/manifest", "{}");
    scratch.write("runs/many/seed-4/metrics.csv", "step,episode_return,evaluation_return\n200,1,\n");
    let told = |arguments: &str, expected: &[&str], last: &str| {
        let output = scratch.sac(arguments);
        let message = text(&output.stderr);
        assert_eq!((output.status.code(), message.lines().count()), (Some(1), expected.len() + 1), "{message}");
        for expected in expected {
            assert!(message.lines().any(|line| line.contains(expected)), "{arguments}: {expected}: {message}");
        }
        assert!(message.lines().last().is_some_and(|line| line.contains(last)), "{arguments}: {message}");
        text(&output.stdout)
    };
    let config = "error: runs/many/seed-0: the configuration runs/many/seed-0/config.toml cannot be used: line 1";
    let metrics = "error: runs/many/seed-1: runs/many/seed-1/metrics.csv cannot be read";
    let lost = "error: runs/many/seed-2: runs/many/seed-2 is no run directory, it has no config.toml";
    let manifest = "error: runs/many/seed-3: runs/many/seed-3/checkpoint/manifest is damaged";
    let listed = told("runs", &[config, metrics, lost, manifest], "4 runs have been left out, see above");
    let state = |run: &str| listed.lines().find(|line| line.starts_with(run)).and_then(|line| line.split("  ").last());
    assert_eq!(listed.lines().count(), 1 + 4, "{listed}");
    assert_eq!(
        [state("runs/many/seed-3"), state("runs/many/seed-5"), state("runs/other/seed-1")],
        [Some("damaged"), Some("finished"), Some("finished")]
    );
    told("plot runs", &[config, metrics, lost], "3 runs have been left out");
    let without = "runs/many/seed-4 has no evaluation yet; it is left out";
    let table = told("compare runs/many runs/other", &[config, metrics, lost, without], "3 runs have been left out");
    let counted = table.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
    assert!(counted.into_iter().any(|row| row == ["many", "2"]), "{table}");
    let names = [config, metrics, lost, manifest].map(|line| line.replace("runs/many/", "many/"));
    let [config, metrics, lost, manifest] = names.each_ref().map(|line| line.split(": ").nth(1).expect("its name"));
    let of_five = text(&scratch.read("runs/many/seed-5/config.toml"));
    scratch.write("runs/many/seed-5/config.toml", of_five.replace("gamma = 0.99\n", "gamma = 2\n"));
    let invalid = "many/seed-5: gamma is 2; it must be";
    let left_out = "left out, see above: 5 runs; mend that, and go on with: sac resume runs";
    told("resume runs --quiet", &[config, metrics, lost, manifest, invalid], left_out);
    let expected = [config, metrics, lost, manifest, "many/seed-4", invalid];
    let last = format!("1 of 2 runs failed, see above; go on with: sac resume runs; {left_out}");
    told("resume runs --quiet --steps 400", &expected, &last);
    assert_eq!(scratch.column("runs/other/seed-1/metrics.csv", "step").pop().as_deref(), Some("400"));
}

/// What stands in the place of the event file, and is none, stays.
#[test]
fn a_file_that_holds_no_events_is_not_overwritten() {
    let scratch = Scratch::new("events");
    scratch.succeed(&format!("{TINY} --quiet --out run"));
    scratch.write("run/events.out.tfevents.sac", "notes");
    let output = scratch.sac("resume run --steps 400");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("move it away"));
    assert_eq!(scratch.read("run/events.out.tfevents.sac"), b"notes");
    fs::remove_file(scratch.path("run/events.out.tfevents.sac")).expect("it is there");
    scratch.succeed("resume run --steps 400 --quiet");
}

/// Progress for scripts says what `metrics.csv` says, and nothing else is on standard output.
#[test]
fn progress_is_told_to_scripts() {
    let scratch = Scratch::new("json");
    let output = scratch.sac(&format!("{TINY} --log json --out run"));
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let events = text(&output.stdout);
    let events = events.lines().map(|line| serde_json::from_str(line).expect("it is JSON"));
    let of_kind = |kind| events.clone().filter(move |event: &Value| event["event"] == kind).collect::<Vec<_>>();
    let [begin, end] = ["begin", "end"].map(|kind| of_kind(kind)[0].clone());
    assert_eq!(
        (&begin["environment"], &begin["run"], &begin["steps"]),
        (&"pendulum".into(), &"run".into(), &300.into())
    );
    assert_eq!((&end["step"], &end["evaluation"]["episodes"]), (&300.into(), &100.into()));
    assert_eq!(end["status"], "finished");
    assert!(!of_kind("note").is_empty());
    for heading in ["step", "episode", "episode_return", "evaluation_return", "critic_loss", "entropy", "alpha"] {
        let told: Vec<_> = of_kind("row").iter().map(|row| row[heading].as_f64().unwrap_or(f64::NAN)).collect();
        let written = scratch.column("run/metrics.csv", heading);
        let written: Vec<f64> = written.iter().map(|cell| cell.parse().unwrap_or(f64::NAN)).collect();
        // Only the numbers themselves are parsed in two ways.
        let close = |(a, b): (&f64, &f64)| a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-14 * b.abs();
        assert!(
            told.len() == written.len() && told.iter().zip(&written).all(close),
            "{heading}: {told:?}, {written:?}"
        );
    }
    let failed = scratch.sac(&format!("{TINY} --alpha 1e30 --log json --out failed"));
    let told = text(&failed.stdout);
    let last = told.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok()).expect("it is JSON");
    assert_eq!((failed.status.code(), &last["event"], &last["status"]), (Some(1), &"end".into(), &"failed".into()));
    let resumed = scratch.succeed("resume run --steps 400 --log json");
    assert!(resumed.lines().any(|line| line.contains("\"begin\"") && line.contains("\"step\":300")), "{resumed}");
}

/// What two runs leave, but for times, is the same.
fn assert_same_run(scratch: &Scratch, one: &str, other: &str) {
    for file in ["config.toml", "metrics.csv", "policy.safetensors", "curve.svg"] {
        assert_eq!(scratch.read(&format!("{one}/{file}")), scratch.read(&format!("{other}/{file}")), "{one}, {file}");
    }
}

#[test]
fn several_seeds_are_trained_at_once() {
    let scratch = Scratch::new("seeds");
    let output = scratch.sac(&format!("{TINY} --seeds 5..8 --out many"));
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("3 runs: mean return"), "{told}");
    assert!(told.lines().any(|line| line.starts_with("seed-6: step     300  evaluation")), "{told}");
    for seed in [5, 6, 7] {
        scratch.succeed(&format!("{TINY} --quiet --seed {seed} --out alone-{seed}"));
        assert_same_run(&scratch, &format!("many/seed-{seed}"), &format!("alone-{seed}"));
    }
    assert!(!scratch.path("many/seed-8").exists());

    // Given more steps, each goes on; what is finished by then is left alone.
    scratch.succeed("resume many/seed-5 --steps 400 --quiet");
    let told = scratch.succeed("resume many --steps 400 --log json");
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let ended: Vec<_> = events.iter().filter(|event| event["event"] == "end").map(|event| &event["name"]).collect();
    assert!(ended.len() == 2 && ended.contains(&&"seed-6".into()) && ended.contains(&&"seed-7".into()), "{told}");
    scratch.succeed("resume alone-6 --steps 400 --quiet");
    assert_same_run(&scratch, "many/seed-6", "alone-6");
    assert_eq!(scratch.succeed("runs .").lines().count(), 1 + 6, "runs within a directory are listed as well");

    scratch.succeed(&format!("{TINY} --quiet --seeds 0..2"));
    assert!(scratch.path("runs/pendulum-1/seed-1/policy.safetensors").exists());
    fs::create_dir(scratch.path("empty")).expect("nothing is there");
    for (arguments, problem) in [
        (format!("{TINY} --seeds 3..3"), "A..B"),
        (format!("{TINY} --seeds 3"), "A..B"),
        (format!("{TINY} --seeds -1..3"), "A..B"),
        (format!("{TINY} --seeds 0..2 --device cuda:99 --out empty"), "--device cpu"),
        ("resume many --until-return NaN --steps 900".into(), "many/seed-5: until_return is NaN; it must be off or"),
        ("resume many --steps 399".into(), "many/seed-5: --steps 399 is fewer than the 400 that the run is to have"),
        ("resume many/seed-6 --steps 399".into(), "--steps 399 is fewer than the 400 that the run is to have"),
        (format!("{TINY} --seeds 0..2 --seed 1"), "cannot be used with"),
        (format!("{TINY} --seeds 9223372036854775807..9223372036854775809"), "seed is 9223372036854775808"),
        (format!("{TINY} --seeds 0..2 --out many"), "already holds files"),
        (format!("{TINY} --seeds 0..2 --device cuda:99 --out none"), "--device cpu"),
        (format!("{TINY} --seeds 0..2 --threads 1000 --out none"), "threads"),
        ("resume runs/pendulum-1/seed-0/checkpoint".into(), "is no run directory"),
    ] {
        let output = scratch.sac(&arguments);
        let message = text(&output.stderr);
        assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{arguments}: {message}");
        assert!(message.contains(problem), "{arguments}: {message}");
    }
    assert!(!scratch.path("none").exists() && !scratch.path("runs/pendulum-2").exists());

    // Those of several directories are told by their places, and what is wrong for all of them is told once.
    scratch.succeed(&format!("{TINY} --quiet --seeds 0..1 --out all/a"));
    scratch.succeed(&format!("{TINY} --quiet --seeds 0..1 --out all/b"));
    let message = text(&scratch.sac("resume all --steps 400 --device cuda:99").stderr);
    assert!(message.lines().count() == 1 && message.starts_with("error: the GPU cannot be used"), "{message}");
    let told = scratch.succeed("resume all --steps 400 --log json");
    let names: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let named = |name: &str| names.iter().filter(|event| event["event"] == "end" && event["name"] == name).count();
    assert_eq!((named("a/seed-0"), named("b/seed-0")), (1, 1), "{told}");
    assert!(scratch.path("empty").exists(), "it was there before");
}

/// Begins three runs one after another, and returns while the first is being trained.
#[cfg(unix)]
fn begin_three(scratch: &Scratch, training: &str) -> Child {
    let mut child = scratch.command(&format!("{training} --threads 1 --seeds 0..3 --out many"));
    let mut child = child.stderr(Stdio::piped()).spawn().expect("the program starts");
    let begun = scratch.path("many/seed-0/metrics.csv");
    wait_until(&mut child, "the first row", |_| fs::metadata(&begun).is_ok_and(|file| file.len() > 150));
    child
}

/// Those that have not been begun by then are begun when the group is resumed, as they would have been.
#[test]
#[cfg(unix)]
fn several_seeds_are_interrupted_or_killed_and_resumed() {
    let scratch = Scratch::new("seeds-interrupted");
    let training = "pendulum --hidden 8 --batch 16 --steps 3000 --eval-every 1000 --eval-episodes 1 --quiet";
    for seed in [0, 1, 2] {
        scratch.succeed(&format!("{training} --seed {seed} --out alone-{seed}"));
    }
    for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
        let mut child = begin_three(&scratch, training);
        let other = scratch.sac("resume many");
        assert_eq!(other.status.code(), Some(2));
        assert!(text(&other.stderr).contains("many: another process trains this group"), "{}", text(&other.stderr));
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().expect("unix has it").success());
        assert_eq!(child.wait().expect("it is a child of this test").code(), code);
        assert!(!scratch.path("many/seed-1").exists() && !scratch.path("many/seed-2").exists());
        // What a run leaves that is killed before its first checkpoint; and one of another's making.
        fs::create_dir_all(scratch.path("many/seed-1/checkpoint")).expect("nothing is there");
        scratch.write("many/seed-1/config.toml", "format = 1\nenvir");
        scratch.write("many/seed-1/metrics.csv", "step,epi");
        fs::create_dir(scratch.path("many/seed-2")).expect("nothing is there");
        scratch.write("many/seed-2/notes", "mine");
        let line = "error: many/seed-2: it is to be a run, but holds something else; move it away";
        for (arguments, last) in
            [("resume many --quiet", "error: left out, see above: 1 run; "), ("runs .", "error: 1 ")]
        {
            let output = scratch.sac(arguments);
            let told = text(&output.stderr).replace("./", "");
            assert_eq!((output.status.code(), told.lines().count()), (Some(1), 2), "{told}");
            assert!(told.starts_with(line) && told.lines().any(|line| line.starts_with(last)), "{told}");
        }
        assert_eq!(scratch.files("many/seed-2"), ["notes"], "what is not ours is left alone");
        fs::remove_dir_all(scratch.path("many/seed-2")).expect("it is there");
        scratch.succeed("resume many --quiet");
        for seed in [0, 1, 2] {
            assert_same_run(&scratch, &format!("many/seed-{seed}"), &format!("alone-{seed}"));
        }
        assert!(text(&scratch.sac("resume many").stderr).contains("are finished"));
        fs::remove_dir_all(scratch.path("many")).expect("it is there");
    }
}

#[test]
fn seeds_that_are_begun_later_begin_with_what_the_others_did() {
    let scratch = Scratch::new("seeds-later");
    scratch.succeed(&format!("{TINY} --quiet --out first"));
    scratch.succeed(&format!("{TINY} --quiet --seeds 0..3 --gamma 0.9 --init-from first --with-replay --out many"));
    let before = scratch.tree();
    fs::remove_dir_all(scratch.path("many/seed-1")).expect("it is there");
    scratch.succeed("resume many --quiet --threads 1");
    let after = scratch.tree();
    let with_times = |path: &Path| path.ends_with("timings.csv") || path.ends_with("events.out.tfevents.sac");
    assert!(before.iter().filter(|(path, _)| !with_times(path)).all(|(path, bytes)| after.get(path) == Some(bytes)));

    scratch.write("many/group.toml", text(&scratch.read("many/group.toml")).replace("0..3", "3..0"));
    let output = scratch.sac("resume many");
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
    assert!(message.contains("group.toml cannot be used: seeds is \"3..0\"; it is not of the form A..B"), "{message}");
}

/// Of the groups in a directory those go on that can, and each of the others is told in a line.
#[test]
fn a_group_that_cannot_go_on_keeps_no_other_from_it() {
    let scratch = Scratch::new("groups-closed");
    for group in ["a", "b", "c"] {
        scratch.succeed(&format!("{TINY} --quiet --seeds 0..2 --out all/{group}"));
    }
    let record = text(&scratch.read("all/a/group.toml"));
    for (wrong, line) in [
        (record.replace("batch_size = 16", "batch_size = 0"), "batch_size is 0; it must be"),
        (record.replace("\"cpu\"", "\"gpu\""), "device is \"gpu\"; it is none of auto, cpu, cuda"),
        ("seeds = ".into(), "line 1: string values must be quoted"),
        (record.replace("\"0..2\"", "2"), "invalid type: integer `2`, expected a string in `seeds`"),
    ] {
        scratch.write("all/a/group.toml", &wrong);
        let before = scratch.tree();
        let output = scratch.sac("resume all/a --steps 400");
        let told = text(&output.stderr);
        assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{told}");
        let (begins, mend) =
            ("error: all/a/group.toml cannot be used: ", "; mend it, or move it away: what has been begun");
        assert!(told.starts_with(begins) && told.contains(line) && told.contains(mend), "{told}");
        assert!(scratch.tree() == before);
    }
    let lock = fs::File::options().write(true).open(scratch.path("all/b/lock")).expect("it is there");
    lock.lock().expect("nobody has it");
    let output = scratch.sac("resume all --steps 400 --quiet");
    let told = text(&output.stderr);
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 3), "{told}");
    let expected = [
        "error: all/a/group.toml cannot be used",
        "error: all/b: another process",
        "error: left out, see above: 2 groups",
    ];
    assert!(told.lines().zip(expected).all(|(line, expected)| line.starts_with(expected)), "{told}");
    let last = |run: &str| scratch.column(&format!("all/{run}/metrics.csv"), "step").pop();
    assert_eq!(
        ["a/seed-0", "b/seed-1", "c/seed-0", "c/seed-1"].map(last),
        ["300", "300", "400", "400"].map(|n| Some(n.into()))
    );
    drop(lock);
    fs::remove_file(scratch.path("all/a/group.toml")).expect("it is there");
    scratch.succeed("resume all --steps 400 --quiet");
    assert_eq!(["a/seed-0", "b/seed-1"].map(last), ["400", "400"].map(|n| Some(n.into())));
}

/// What keeps all runs of a group from going on is told once, and what keeps them from being begun leaves nothing behind.
#[test]
fn what_is_wrong_with_a_whole_group_is_told_once() {
    let scratch = Scratch::new("groups-refused");
    for arguments in ["--device cuda --max-gradient-norm 1", "--device cuda:99 --hidden 8,8,8", "--precision tf32"] {
        let output = scratch.sac(&format!("{TINY} {arguments} --seeds 0..3"));
        let told = text(&output.stderr);
        assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{told}");
        assert_eq!(scratch.tree().len(), 1, "sac {arguments} leaves {:?}", scratch.tree().keys());
    }
    // What is found when the first of them begins.
    scratch.succeed("pendulum --hidden 4 --batch 16 --random-steps 16 --steps 20 --eval-every 0 --quiet --out other");
    let before = scratch.tree();
    let output = scratch.sac(&format!("{TINY} --seeds 0..3 --init-from other --out x/y/z"));
    let told = text(&output.stderr);
    assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{told}");
    assert!(scratch.tree() == before, "{:?}", scratch.tree().keys());

    scratch.succeed(&format!("{TINY} --quiet --seeds 0..3 --out all/many"));
    scratch.succeed(&format!("{TINY} --quiet --seeds 0..1 --out all/other"));
    let record = text(&scratch.read("all/many/group.toml"));
    for seed in 0..3 {
        fs::remove_dir_all(scratch.path(&format!("all/many/seed-{seed}"))).expect("it is there");
    }
    for (right, wrong, problem) in [
        ("device = \"cpu\"", "device = \"cuda:99\"", "the GPU cannot be used: "),
        (
            "environment = \"pendulum\"",
            "environment = \"moon\"",
            "there is no environment \"moon\"; there are: pendulum",
        ),
        ("with_replay", "init_from = \"nowhere\"\nwith_replay", "nowhere"),
    ] {
        scratch.write("all/many/group.toml", record.replace(right, wrong));
        for (directory, code, lines) in [("all/many", 2, 1), ("all", 1, 2)] {
            let output = scratch.sac(&format!("resume {directory} --quiet --steps 400"));
            let told = text(&output.stderr);
            assert_eq!((output.status.code(), told.lines().count()), (Some(code), lines), "{told}");
            assert!(told.contains(problem), "{told}");
        }
    }
    scratch.write("all/many/group.toml", record.replace("device = \"cpu\"", "device = \"cuda:99\""));
    scratch.succeed("resume all/many --device cpu --quiet");
}

/// Whatever stands in the place of a run is told; links that lead to the same are one.
#[test]
#[cfg(unix)]
fn links_among_runs_are_followed_once() {
    let scratch = Scratch::new("links");
    scratch.succeed(&format!("{TINY} --quiet --seeds 0..3 --out all/many"));
    let link = |to: &str, from: &str| {
        std::os::unix::fs::symlink(to, scratch.path(from)).expect("nothing is there");
    };
    link("many", "all/again");
    scratch.succeed("resume all --steps 400 --quiet");
    assert_eq!(scratch.succeed("runs all").lines().count(), 1 + 3);
    fs::remove_file(scratch.path("all/again")).expect("it is there");
    for file in ["all/many/seed-1", "all/many/seed-2"] {
        fs::remove_dir_all(scratch.path(file)).expect("it is there");
    }
    link("nowhere", "all/many/seed-1");
    scratch.write("all/many/seed-2", "a file");
    for command in ["resume all --quiet", "runs all", "compare all/many", "plot all"] {
        let output = scratch.sac(command);
        let told = text(&output.stderr);
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 3), "{told}");
        for (line, seed) in told.lines().zip([1, 2]) {
            let problem = format!("error: all/many/seed-{seed}: it is to be a run, but holds something else");
            assert!(line.starts_with(&problem), "{command}: {told}");
        }
    }
}

/// What is given to all runs of a group is not forgotten by those that an interruption comes before.
#[test]
#[cfg(unix)]
fn what_a_group_is_given_is_remembered() {
    let scratch = Scratch::new("seeds-given");
    scratch.succeed("pendulum --hidden 8 --batch 16 --steps 300 --seeds 0..3 --eval-every 0 --quiet --out many");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
    command.args("resume many --steps 5000 --threads 1 --quiet".split(' ')).current_dir(scratch.path(""));
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
    let given = |file: &str| fs::read_to_string(scratch.path(file)).is_ok_and(|text| text.contains("steps = 5000"));
    wait_until(&mut child, "what is given", |_| given("many/seed-2/config.toml"));
    child.kill().expect("it runs");
    child.wait().expect("it is a child of this test");
    assert!(given("many/group.toml"));
    scratch.succeed("resume many --quiet");
    let runs = scratch.succeed("runs many");
    assert_eq!(runs.matches("5000  5000").count(), 3, "{runs}");
}

/// A policy of which nothing else is left is not taken for a run that has not been begun.
#[test]
fn a_policy_is_never_begun_anew() {
    let scratch = Scratch::new("seeds-policy");
    scratch.succeed(&format!("{TINY} --quiet --seeds 0..2 --out many"));
    let policy = scratch.read("many/seed-1/policy.safetensors");
    for file in
        scratch.files("many/seed-1").iter().filter(|file| *file != "policy.safetensors" && *file != "config.toml")
    {
        let path = scratch.path(&format!("many/seed-1/{file}"));
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("it is there");
    }
    let output = scratch.sac("resume many --quiet");
    let message = text(&output.stderr);
    assert!(output.status.code() == Some(1) && message.contains("seed-1 has no checkpoint"), "{message}");
    assert!(scratch.read("many/seed-1/policy.safetensors") == policy);
}

/// A mistake that meets one of several seeds would meet the others as well, and that they have not been begun is told.
#[test]
#[cfg(unix)]
fn after_a_seed_that_cannot_begin_the_others_are_left_for_later() {
    let scratch = Scratch::new("seeds-stopped");
    let training = "pendulum --hidden 8 --batch 16 --steps 3000 --eval-every 1000 --eval-episodes 1 --quiet";
    let child = begin_three(&scratch, training);
    scratch.write("many/seed-1", "a file");
    let output = child.wait_with_output().expect("it is a child of this test");
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), message.lines().count()), (Some(1), 1), "{message}");
    assert!(message.starts_with("error: seed-1: many/seed-1 is no directory that can be read"), "{message}");
    assert!(message.contains("; 2 of 3 runs have not been begun, go on with: sac resume many"), "{message}");
    assert!(!scratch.path("many/seed-2").exists());
}

#[test]
fn groups_are_compared() {
    let scratch = Scratch::new("compare");
    for seed in [1, 2, 3] {
        scratch.succeed(&format!("{TINY} --quiet --seed {seed} --out new/{seed}"));
        scratch.succeed(&format!("{TINY} --quiet --seed {seed} --gamma 0.9 --out old/{seed}"));
    }
    // What counts is the last evaluation that every run has reached.
    let rows = |returns: &[f64]| {
        let row = |(i, value)| format!("{},{value},0\n", 100 * (i + 1));
        "step,evaluation_return,evaluation_std\n".to_string() + &returns.iter().enumerate().map(row).collect::<String>()
    };
    for (run, returns) in [
        ("new/1", &[0.0, 30.0, 99.0][..]),
        ("new/2", &[0.0, 40.0, 99.0]),
        ("new/3", &[0.0, 50.0]),
        ("old/1", &[0.0, 10.0]),
        ("old/2", &[0.0, 20.0]),
        ("old/3", &[0.0, 45.0]),
    ] {
        scratch.write(&format!("{run}/metrics.csv"), rows(returns));
    }
    let told = scratch.succeed("compare old new --json --out compare.svg");
    let json: Value = serde_json::from_str(&told).expect("it is JSON and nothing else");
    let (old, new) = (&json["scores"][0], &json["scores"][1]);
    assert_eq!((&old["step"], &new["returns"]), (&200.into(), &vec![30.0, 40.0, 50.0].into()));
    assert_eq!((&old["episodes"], &new["episodes"]), (&vec![10; 3].into(), &vec![10; 3].into()));
    assert_eq!((&old["mean"]["value"], &new["difference"]["value"]), (&25.0.into(), &15.0.into()));
    assert_eq!((&old["mean"]["low"], &old["mean"]["high"]), (&10.0.into(), &45.0.into()));
    assert_eq!((&old["difference"], &json["improvement"][0]["group"]), (&Value::Null, &"new".into()));
    let probability = json["improvement"][0]["probability"]["value"].as_f64().expect("it is a number");
    assert!((probability - 7.0 / 9.0).abs() < 1e-12, "{probability}");
    let picture = text(&scratch.read("compare.svg"));
    assert!(
        picture.contains("old (3 runs)") && picture.contains("mean at 200") && !picture.contains("NaN"),
        "{picture}"
    );
    let table = scratch.succeed("compare old new old/1");
    assert!(table.contains("pendulum at step 200") && table.contains("15.0 [") && table.contains("0.78 ["), "{table}");

    scratch.succeed(
        "mountain-car --hidden 8 --batch 16 --steps 300 --eval-every 300 --eval-episodes 1 --quiet --out new/car",
    );
    let both = scratch.succeed("compare old new");
    assert!(both.contains("mountain-car at step 300") && both.contains("0.78 ["), "{both}");

    // Rounds of seven environments go a little beyond the step that others end at.
    scratch.succeed(&format!("{TINY} --quiet --out one/0"));
    scratch.succeed(&format!("{TINY} --quiet --envs 7 --out seven/0"));
    let told = scratch.succeed("compare one seven --json");
    let json: Value = serde_json::from_str(&told).expect("it is JSON");
    let last =
        scratch.column("seven/0/metrics.csv", "evaluation_return").pop().and_then(|cell| cell.parse::<f64>().ok());
    let score = json["scores"][1]["returns"][0].as_f64();
    assert!(score.zip(last).is_some_and(|(score, last)| (score - last).abs() < 1e-9), "{told} instead of {last:?}");
    assert_eq!(json["scores"][0]["step"], 300);

    // How a run is watched makes no other group of it; but that evaluations differ in their lengths is told.
    scratch.succeed("pendulum --hidden 8,8 --batch 16 --steps 300 --eval-every 50 --eval-episodes 1 --keep-best --seed 9 --quiet --out one/9");
    scratch.succeed(
        "pendulum --hidden 8,8 --batch 16 --steps 600 --eval-every 100 --eval-episodes 1 --quiet --out long/0",
    );
    assert!(!scratch.succeed("compare one").contains("episodes are compared"));
    let told = scratch.succeed("compare one long");
    assert!(told.contains("evaluations of 1 and of up to 100 episodes are compared"), "{told}");

    scratch.succeed(&format!("{TINY} --quiet --seed 4 --out mixed/4"));
    scratch.succeed(&format!("{TINY} --quiet --seed 5 --lr 0.1 --out mixed/5"));
    scratch.succeed(&format!("{TINY} --quiet --seed 4 --out twice/4"));
    scratch.succeed(&format!("{TINY} --quiet --seed 4 --out twice/again"));
    scratch.succeed("pendulum --hidden 8 --batch 16 --steps 300 --eval-every 0 --quiet --out without/1");
    for (arguments, problem) in [
        ("compare nothing", "cannot be read"),
        ("compare old new/1/checkpoint", "holds no runs"),
        ("compare old mixed", "differ in more than their seeds"),
        ("compare twice", "both of seed 4"),
        ("compare old without", "without has no evaluation yet; wait for one, or leave it out"),
        ("compare old new old/../old", "old/../old is given twice; name each group once"),
        ("compare old new --out compare.svg", "is there already"),
        ("compare old new --out compare.gif", "let it end in .svg"),
    ] {
        let output = scratch.sac(arguments);
        let message = text(&output.stderr);
        assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{arguments}: {message}");
        assert!(message.contains(problem) && output.stdout.is_empty(), "{arguments}: {message}");
    }
}

#[test]
fn runs_are_drawn() {
    let scratch = Scratch::new("plot");
    for seed in [1, 2] {
        scratch.succeed(&format!("{TINY} --quiet --seed {seed} --out runs/a-{seed}"));
    }
    scratch.succeed(&format!("{TINY} --quiet --gamma 0.9 --out runs/b<&"));
    assert_eq!(scratch.succeed("plot runs/a-1"), "plot.svg\n");
    let one = text(&scratch.read("plot.svg"));
    assert_eq!(one, text(&scratch.read("runs/a-1/curve.svg")), "the picture of a run is the one it leaves behind");
    assert!(one.contains("pendulum, seed 1") && one.contains("entropy (nats)") && !one.contains("value loss"), "{one}");
    assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");

    for (group, gamma) in [("low", 0.5), ("high", 0.999)] {
        scratch.succeed(&format!("{TINY} --quiet --seeds 0..2 --gamma {gamma} --out groups/{group}"));
    }
    scratch.succeed("plot groups --out groups.svg");
    let groups = text(&scratch.read("groups.svg"));
    assert!(groups.contains("low/seed (2 runs)") && groups.contains("high/seed (2 runs)"), "{groups}");

    scratch.succeed("plot runs --out all.svg");
    let all = text(&scratch.read("all.svg"));
    assert!(all.contains("a (2 runs)") && all.contains("b&lt;&amp;") && all.contains("95 % bootstrap"), "{all}");

    scratch.succeed(&format!("{TINY} --quiet --seed 3 --init-from runs/a-1 --out begun-3"));
    assert!(text(&scratch.read("begun-3/config.toml")).starts_with("# begun with --init-from \"runs/a-1\""));
    scratch.succeed("plot runs/a-2 begun-3 --out begun.svg");
    assert!(!text(&scratch.read("begun.svg")).contains("runs)"), "a run from scratch and another are not averaged");

    scratch.succeed("pendulum --hidden 8 --batch 16 --steps 300 --eval-every 0 --quiet --out without");
    scratch.succeed("plot without --out without.svg");
    for (arguments, problem) in [
        ("plot runs/a-1", "plot.svg is there already"),
        ("plot runs/a-1 --out picture.gif", "let it end in .svg"),
        ("plot runs/a-1 --out nowhere/picture.svg", "cannot be written"),
        ("plot nothing", "cannot be read"),
        ("plot runs/a-1/checkpoint", "holds no runs"),
        ("plot runs/a-1 without --out both.svg", ""),
        ("plot runs/a-1 runs/../runs/a-1 --out twice.svg", ""),
    ] {
        let output = scratch.sac(arguments);
        let message = text(&output.stderr);
        let code = if problem.is_empty() { 0 } else { 2 };
        assert_eq!(
            (output.status.code(), message.lines().count()),
            (Some(code), code as usize / 2),
            "{arguments}: {message}"
        );
        assert!(message.contains(problem), "{arguments}: {message}");
    }
    assert!(!text(&scratch.read("twice.svg")).contains("runs)"), "the same run twice is one run");
    scratch.write("runs/b<&/metrics.csv", "step,episode_return\n");
    let output = scratch.sac("plot runs --out again.svg");
    assert!(output.status.success() && text(&output.stderr).contains("no return to draw"));
    assert_eq!(scratch.sac("plot runs/b<& --out alone.svg").status.code(), Some(2));
    scratch.write("runs/a-1/config.toml", "format = 2\n");
    for command in ["runs runs/a-1", "plot runs/a-1 --out other.svg"] {
        let output = scratch.sac(command);
        assert!(output.status.code() == Some(2) && text(&output.stderr).contains("format 2"), "{command}");
    }
}

/// Counts and widths as people type them, and the names that other programs give to options.
#[test]
fn words_and_numbers_are_understood_or_corrected() {
    let scratch = Scratch::new("words");
    scratch.succeed(
        "pendulum --steps 1e2 --random-steps 5_0 --first-update 6e1 --batch 8 --hidden 9,8 --eval-every 0 --out a",
    );
    let mut command =
        scratch.command("pendulum --steps 100 --random-steps 50 --first-update 60 --batch 8 --eval-every 0");
    let output = command.args(["--hidden", "9, 8", "--out", "my run"]).output().expect("the program starts");
    assert!(output.status.success());
    assert_eq!(scratch.read("a/metrics.csv"), scratch.read("my run/metrics.csv"));
    assert!(text(&output.stderr).ends_with("saved; evaluate it further with: sac eval 'my run'\n"));
    for (arguments, expected) in [
        (
            "pendulm",
            "there is no environment \"pendulm\"; is pendulum meant? There are: pendulum, mountain-car, and gym:ID",
        ),
        ("Pendulum-v1", "is pendulum or gym:Pendulum-v1 meant?"),
        ("HalfCheetah-v5", "is gym:HalfCheetah-v5 meant?"),
        ("nothing", "there is no environment \"nothing\"; there are: pendulum"),
        ("pendulum --batch-size 8", "unexpected argument '--batch-size' found; use --batch; see sac --help"),
        ("pendulum --learning_rate=1e-3", "use --lr;"),
        ("pendulum --buffer-size 100", "use --replay;"),
        ("pendulum --stepz 100", "a similar argument exists: '--steps';"),
        ("pendulum --steps 1.5", "it is not a whole number, as in 1000000 or 1e6"),
        ("pendulum --steps -1", "it is not a whole number"),
        ("pendulum --seed 1e30", "it is too large"),
        ("eval a --episodes 0", "it must be at least 1"),
    ] {
        let output = scratch.sac(arguments);
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{arguments}: {error}");
        assert!(error.contains(expected), "{arguments}: {expected:?}? {error}");
    }
}

/// However large or small they are.
#[test]
fn columns_of_numbers_do_not_touch() {
    let scratch = Scratch::new("columns");
    scratch
        .succeed("pendulum --steps 40 --random-steps 20 --batch 8 --hidden 8 --eval-every 20 --seeds 0..3 --out large");
    for seed in 0..3 {
        let file = format!("large/seed-{seed}/metrics.csv");
        let table = String::from_utf8(scratch.read(&file)).expect("it is text");
        let mut rows: Vec<Vec<String>> = table.lines().map(|row| row.split(',').map(String::from).collect()).collect();
        let column = rows[0].iter().position(|name| name == "evaluation_return").expect("it has one");
        for row in &mut rows[1..] {
            row[column] = format!("-{}", 10_f64.powi(30 + seed));
        }
        scratch.write(&file, rows.iter().map(|row| row.join(",") + "\n").collect::<String>());
    }
    let listed = scratch.succeed("runs large");
    let words: Vec<_> = listed.lines().nth(1).expect("it has rows").split_whitespace().collect();
    assert_eq!(words[5..], ["-1.00e30", "-1.00e30", "finished"]);
    let compared = scratch.succeed("compare large");
    let row = compared.lines().nth(1).expect("it has rows");
    let cells: Vec<_> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells.len(), 5, "{compared}");
    assert_eq!(cells[2], "-3.70e31 [-1.00e32, -1.00e30]", "{compared}");
    scratch.succeed("plot large --out large.svg");
}

/// Seeds that were measured at no common step are left out of a picture, and named; what else there is, is drawn.
#[test]
fn a_group_without_a_common_step_is_left_out_of_the_picture() {
    let scratch = Scratch::new("no-common-step");
    let options = "pendulum --hidden 8 --batch 16 --random-steps 20 --eval-every 1000 --final-episodes 1 --quiet";
    scratch.succeed(&format!("{options} --steps 40 --seed 0 --out runs/a-0"));
    scratch.succeed(&format!("{options} --steps 50 --seed 1 --out runs/a-1"));
    scratch.succeed(&format!("{options} --steps 40 --gamma 0.9 --out runs/b"));
    let drawn = scratch.sac("plot runs -o all.svg");
    assert_eq!((drawn.status.code(), text(&drawn.stdout)), (Some(0), "all.svg\n".into()));
    let said = text(&drawn.stderr);
    assert!(said.lines().count() == 2 && said.contains("runs/a-0 shares no step") && said.contains("it is left out"));
    let alone = scratch.sac("plot runs/a-0 runs/a-1 -o none.svg");
    assert_eq!(alone.status.code(), Some(2));
    assert!(text(&alone.stderr).contains("measured at no common step; draw them one by one"));
}

/// What cannot be written at the start leaves nothing that stands in the way of the next try.
#[cfg(unix)]
#[test]
fn a_failed_start_leaves_no_directory() {
    let scratch = Scratch::new("failed-start");
    for (seeds, out) in [("", "one/run"), ("--seeds 0..2", "many/group")] {
        let sac = env!("CARGO_BIN_EXE_sac");
        let command = format!("trap '' XFSZ; ulimit -f 0; exec '{sac}' {TINY} {seeds} --out {out}");
        let output = Command::new("sh").args(["-c", &command]).current_dir(&scratch.0).output().expect("there is sh");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("cannot be written"), "{}", text(&output.stderr));
        assert!(!scratch.path(out).parent().expect("it has one").exists(), "{out}");
        scratch.succeed(&format!("{TINY} {seeds} --quiet --out {out}"));
    }
}

/// A third signal ends the program though nobody reads what it prints.
#[cfg(unix)]
#[test]
fn a_third_interruption_ends_a_program_that_waits_for_its_reader() {
    let scratch = Scratch::new("blocked");
    let arguments = "pendulum --log json --hidden 8 --steps 10_000_000 --random-steps 10_000_000 --checkpoint-every 0";
    let mut command = scratch.command(&format!("{arguments} --first-update 10_000_000 --eval-every 0 --out run"));
    let mut sac = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let timings = scratch.path("run/timings.csv");
    let began = Instant::now();
    // The pipe is full once no row is added any more.
    let mut rows = 0;
    while began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(300));
        let now = fs::metadata(&timings).map_or(0, |file| file.len());
        if now > 0 && now == rows {
            break;
        }
        rows = now;
    }
    for _ in 0..3 {
        let sent = Command::new("kill").args(["-INT", &sac.id().to_string()]).status().expect("there is kill");
        assert!(sent.success());
        std::thread::sleep(Duration::from_millis(300));
    }
    let asked = Instant::now();
    let status = loop {
        match sac.try_wait().expect("it can be waited for") {
            Some(status) => break status,
            None if asked.elapsed() > Duration::from_secs(5) => {
                sac.kill().expect("it can be killed");
                panic!("it has not ended");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    assert_eq!(status.code(), Some(130));
}

/// Events that could not be written are no success.
#[cfg(target_os = "linux")]
#[test]
fn lost_events_are_told() {
    let scratch = Scratch::new("lost-events");
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let output = scratch.command(&format!("{TINY} --log json --out run")).stdout(full).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("standard output cannot be written") && said.lines().count() == 2, "{said}");
    assert!(scratch.path("run/policy.safetensors").exists());
}
