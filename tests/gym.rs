//! Environments in Python: what goes through to them and back, what is refused, and whatever an environment does to its process.
#![cfg(all(feature = "program", unix))]

use rand::Rng;
use serde_json::Value;
use soft_actor_critic::actor::Actor;
use soft_actor_critic::config::Config;
use soft_actor_critic::env::{Abandoned, Bounds, Env, EpisodeStatistics, Gym, GymEnv, Pendulum, Scene, Step};
use soft_actor_critic::error::Error;
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::run::policy_file;
use soft_actor_critic::sac::Policy;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A directory of one test, and in it a Python that knows `tests/gym/sac_envs.py`; it goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    /// None if there is no Python with Gymnasium, `PYTHON` or else `python3`, and then the test is skipped.
    fn new(test: &str) -> Option<Self> {
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        let has = Command::new(&python).args(["-c", "import gymnasium, numpy"]).output();
        if !has.is_ok_and(|output| output.status.success()) {
            println!("skipped: {python} has no Gymnasium; pip install gymnasium");
            assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
            return None;
        }
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gym-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the target directory can be written");
        let scratch = Self(path);
        let (modules, shown) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gym"), scratch.0.display());
        scratch.script("python", &format!(
            "export PYTHONPATH='{}'${{PYTHONPATH:+:$PYTHONPATH}} PYTHONDONTWRITEBYTECODE=1 PROCESSES='{shown}/processes'\nexec {python} \"$@\"",
            modules.display()
        ));
        Some(scratch)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A program of the shell.
    fn script(&self, name: &str, commands: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{commands}\n")).expect("the target directory can be written");
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it has just been written");
    }

    fn sac(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
        // What the user has said is remembered there.
        command.env("XDG_STATE_HOME", self.path("state"));
        command.current_dir(&self.0).args(arguments.split_whitespace());
        command
    }

    fn output(&self, arguments: &str) -> Output {
        self.sac(arguments).output().expect("the program starts")
    }

    fn succeed(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// An environment of the module.
    fn make(&self, id: &str, arguments: &[(&str, &str)], draws: bool) -> Result<GymEnv, String> {
        let arguments = arguments.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        let (id, python) = (format!("sac_envs:{id}"), Some(self.path("python")));
        Gym { id, arguments, python, draws, ..Gym::default() }.make().map_err(|error| error.to_string())
    }

    /// Waits until every process has ended that an environment `Failing` has lived in; in vain after ten seconds.
    fn no_process_is_left(&self) -> bool {
        let lives = |process: &str| {
            let state = Command::new("ps").args(["-o", "stat=", "-p", process]).output().expect("there is a ps");
            !matches!(text(&state.stdout).trim().chars().next(), None | Some('Z'))
        };
        let asked = Instant::now();
        while self.read("processes").lines().any(lives) {
            if asked.elapsed() > Duration::from_secs(10) {
                return false;
            }
            sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last line of what a program has said on its standard error.
fn last_line(output: &Output) -> String {
    text(&output.stderr).lines().last().unwrap_or_default().to_string()
}

#[test]
fn actions_and_observations_of_any_shape_and_type_go_through_whatever_is_printed_meanwhile() {
    let Some(scratch) = Scratch::new("echo") else { return };
    let mut env = scratch
        .make("Echo-v0", &[("offset", "-2.5"), ("name", "a b=c"), ("note", "null")], true)
        .expect("it can be made");
    assert_eq!(env.observation_size(), 4);
    let bounds = env.action_bounds();
    assert_eq!((bounds.low(), bounds.high()), (&[-1.0, 0.0, 0.1][..], &[1.0, 10.0, 0.3][..]));
    for (seed, seen) in [(7 << 20, 7.0 / 2048.0), (u64::MAX, 1.0), (1 << 31, 0.0)] {
        assert_eq!(env.reset(seed).expect("it answers"), [0.0, 0.0, -2.5, seen]);
        // The last ones are beyond its bounds, because those are of f64.
        for (step, action) in [[-1.0, 0.25, 0.2], [1.0, 10.0, 0.3], [0.5, 0.0, 0.1]].into_iter().enumerate() {
            let Step { observation, reward, terminated, truncated } = env.step(&action).expect("it answers");
            assert_eq!(observation, [action[0], action[1], action[2], 0.25]);
            assert_eq!((reward, terminated, truncated), (step as f64 + 1.0, step == 2, step > 0));
            let picture = Scene::Pixels { width: 2, height: 1, rgb: vec![255, 0, 0, 0, 0, step as u8 + 1] };
            assert_eq!(env.render(&action).expect("it answers"), Some(picture));
        }
    }
    let mut invisible = scratch.make("Echo-v0", &[], false).expect("it can be made");
    invisible.reset(0).expect("it answers");
    assert_eq!(invisible.render(&[0.0; 3]).expect("it answers"), None);
}

#[test]
fn what_is_longer_than_one_piece_goes_through() {
    let Some(scratch) = Scratch::new("large") else { return };
    let mut env = scratch.make("Large-v0", &[], true).expect("it can be made");
    let seen = |value: usize| (0..30_000).map(|index| (index + value) as f32 / 65_536.0).collect::<Vec<_>>();
    for seed in 0..3 {
        assert_eq!(env.reset(seed).expect("it answers"), seen(0));
        for step in 1..=7 {
            assert_eq!(env.step(&[0.5]).expect("it answers").observation, seen(step));
            let rgb = (0..3 * 257 * 301).map(|index| (index + step) as u8).collect();
            let picture = Scene::Pixels { width: 301, height: 257, rgb };
            assert_eq!(env.render(&[]).expect("it answers"), Some(picture));
        }
    }
}

/// Pipes are for systems and processors on which no memory is shared, so elsewhere they have to be asked for.
#[test]
fn a_run_is_the_same_through_pipes() {
    let Some(scratch) = Scratch::new("pipes") else { return };
    let options = "--hidden 8 --batch 8 --random-steps 8 --replay 100 --eval-every 20 --steps 60 --python ./python";
    for (out, channel) in [("shared", None), ("pipes", Some(("SAC_CHANNEL", "pipes")))] {
        let mut command = scratch.sac(&format!("gym:sac_envs:Large-v0 {options} --out {out}"));
        let output = command.envs(channel).output().expect("the program starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(scratch.read("shared/metrics.csv"), scratch.read("pipes/metrics.csv"));
}

#[test]
fn what_cannot_be_learned_or_made_is_told_in_one_line_that_names_the_mend() {
    let Some(scratch) = Scratch::new("refused") else { return };
    let flatten = "wrap it in gymnasium.wrappers.FlattenObservation";
    for (id, arguments, expected) in [
        (
            "Spaces-v0",
            &[("actions", "discrete")][..],
            "Discrete(3), and only a Box of floats will do; choose a variant",
        ),
        ("Spaces-v0", &[("actions", "whole")], "int32), and only a Box of floats will do"),
        ("Spaces-v0", &[("actions", "infinite")], "without finite bounds; give it some"),
        ("Spaces-v0", &[("actions", "huge")], "without finite bounds; give it some"),
        ("Spaces-v0", &[("actions", "scalar")], "give both at least one dimension"),
        ("Spaces-v0", &[("actions", "point")], "ranges from 1 to 1"),
        (
            "Spaces-v0",
            &[("actions", "narrow")],
            "from 1.0 to 1.000000001 in dimension [1], which is one number in float32; wrap it in",
        ),
        ("Spaces-v0", &[("observations", "discrete")], flatten),
        ("Spaces-v0", &[("observations", "dictionary")], flatten),
        ("Spaces-v0", &[("observations", "scalar")], "give both at least one dimension"),
        ("Echo-v7", &[], "VersionNotFound: "),
        ("Nothing-v0", &[], "NameNotFound: Environment `Nothing` doesn't exist"),
        (
            "Nothing-v0",
            &[],
            "An ID is one that gymnasium.pprint_registry() prints, as in gym:Pendulum-v1; say gym:MODULE:ID",
        ),
        ("Eco-v0", &[], "Did you mean: `Echo`?"),
        ("x/Echo-v0", &[], "NamespaceNotFound: Namespace x not found"),
        ("refuse-v0", &[("a", "[1, {\"b\": null}]")], "ValueError: made with {'a': [1, {'b': None}]}"),
    ] {
        let error = scratch.make(id, arguments, false).err().unwrap_or_else(|| panic!("{id} {arguments:?} was made"));
        assert!(error.starts_with(&format!("gym:sac_envs:{id} cannot be made: ")), "{error}");
        assert!(error.contains(expected) && !error.contains('\n'), "{expected:?}? {error}");
    }
    assert!(scratch.make("Spaces-v0", &[], false).is_ok());

    scratch.script("babbling", "echo what comes from a shell that has something to say of itself; cat >/dev/null");
    scratch.script("truncating", "exec 2>/dev/null\necho what is written > /proc/self/fd/1");
    scratch.script("ending", "exit 7");
    scratch.script("bare", "export PYTHONPATH=/nowhere\nexec python3 -S \"$@\"");
    for (arguments, expected) in [
        ("gym:nowhere:Echo-v0 --python ./python", "ModuleNotFoundError: No module named 'nowhere'"),
        ("gym:nowhere:Echo-v0 --python ./python", "or put the folder that holds it into PYTHONPATH"),
        (
            "gym:sac_envs:Echo-v0 --env-arg mass=2 --python ./python",
            "TypeError: Echo.__init__() got an unexpected keyword argument 'mass'; change what --env-arg says",
        ),
        (
            "gym:sac_envs:Spaces-v0 --env-arg max_episode_steps=-3 --python ./python",
            "`max_episode_steps` to be positive, actually: -3; change what --env-arg says",
        ),
        ("gym:", "gym: names no environment; say gym:ID, as in gym:Pendulum-v1, or gym:MODULE:ID"),
        ("gym:sac_envs:", "gym:sac_envs: names no environment; say gym:ID"),
        ("gym:Echo-v0 --python missing/python", "there is no Python called missing/python; name one with --python"),
        ("gym:Echo-v0 --python ./sac_envs", "there is no Python called"),
        ("gym:Echo-v0 --python ./babbling", "what its process wrote is no answer"),
        ("gym:Echo-v0 --python ./truncating", "cannot be made: its process ended (exit status: "),
        ("gym:Echo-v0 --python ./ending", "its process ended (exit status: 7); see to ./ending"),
        ("gym:Echo-v0 --python ./bare", "has no module gymnasium; install it there (pip install gymnasium)"),
        ("gym:Echo-v0 --env-arg a", "'--env-arg <KEY=VALUE>': it is not of the form KEY=VALUE"),
        ("gym:Echo-v0 --env-timeout 0", "--env-timeout"),
        ("pendulum --env-arg a=1", "pendulum takes no arguments; leave out --env-arg"),
        ("gymnasium", "there is no environment \"gymnasium\"; there are: pendulum, mountain-car, and gym:ID"),
    ] {
        let output = scratch.output(arguments);
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{arguments}: {error}");
        assert!(error.contains(expected), "{arguments}: {expected:?}? {error}");
    }
    assert!(!scratch.path("runs").exists());

    // What fails inside the environment's own code is told with the place.
    let output = scratch.output("gym:sac_envs:refuse-v0 --env-arg a=1 --python ./python");
    let error = text(&output.stderr);
    assert!(output.status.code() == Some(2) && error.contains("Traceback") && error.contains("sac_envs.py"), "{error}");

    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 20 --eval-every 0 --quiet --python ./python";
    scratch.succeed(&format!("gym:sac_envs:Echo-v0 --seeds 0..2 --out many {options}"));
    for (python, expected) in [("missing", "there is no Python called missing"), ("./bare", "cannot import gymnasium")]
    {
        let output = scratch.output(&format!("resume many --steps 30 --python {python}"));
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{python}: {error}");
        assert!(error.contains(expected), "{error}");
    }
}

/// Where there are no evaluations, there is no process for them.
#[test]
fn an_environment_that_is_not_needed_is_not_made() {
    let Some(scratch) = Scratch::new("needed") else { return };
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 20 --quiet --python ./python";
    for (every, processes) in [("0", 1), ("20", 3)] {
        scratch.succeed(&format!("gym:sac_envs:Failing-v0 --eval-every {every} --out every-{every} {options}"));
        assert_eq!(scratch.read("processes").lines().count(), processes);
    }
}

#[test]
fn the_interpreter_is_that_of_the_active_environment_or_the_one_on_the_path() {
    let Some(scratch) = Scratch::new("interpreter") else { return };
    for folder in ["virtual/bin", "conda/bin", "path", "empty"] {
        fs::create_dir_all(scratch.path(folder)).expect("the target directory can be written");
    }
    for (number, name) in ["virtual/bin/python", "conda/bin/python", "path/python"].iter().enumerate() {
        scratch.script(name, &format!("exit {}", number + 3));
    }
    let said = |variables: &[(&str, &str)]| {
        let mut command = scratch.sac("gym:Echo-v0");
        command.env_remove("VIRTUAL_ENV").env_remove("CONDA_PREFIX").env("PATH", scratch.path("empty"));
        let variables = variables.iter().map(|&(name, folder)| (name, scratch.path(folder)));
        last_line(&command.envs(variables).output().expect("the program starts"))
    };
    let (virtual_env, conda, path) = (("VIRTUAL_ENV", "virtual"), ("CONDA_PREFIX", "conda"), ("PATH", "path"));
    for (variables, expected) in [
        (&[path, conda, virtual_env][..], "(exit status: 3)"),
        (&[path, conda], "(exit status: 4)"),
        (&[path], "(exit status: 5); see to python"),
        (&[], "there is no Python called python3 or python; name one with --python"),
        (&[path, ("VIRTUAL_ENV", "empty")], "empty/bin/python; name one with --python"),
    ] {
        assert!(said(variables).contains(expected), "{expected:?}? {}", said(variables));
    }
}

/// Where rewards are changed outside of what counts them, they are learned from, and what has been counted is reported.
#[test]
fn statistics_of_episodes_are_those_of_the_environment() {
    let Some(scratch) = Scratch::new("statistics") else { return };
    let mut env = scratch.make("Counted-v0", &[], false).expect("it can be made");
    for _ in 0..2 {
        env.reset(0).expect("it answers");
        for (reward, told) in [(10.0, None), (10.0, Some(EpisodeStatistics { total_reward: 3.0, length: 3 }))] {
            assert_eq!(env.step(&[0.5]).expect("it answers").reward, reward);
            assert_eq!(env.episode_statistics(), told);
        }
    }
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 20 --eval-episodes 2 --envs 2 \
                   --log json --python ./python";
    let told = scratch.succeed(&format!("gym:sac_envs:Counted-v0 {options} --eval-every 10"));
    let rows: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let of = |key: &str| rows.iter().filter_map(|row| row.get(key)?.as_f64()).collect::<Vec<_>>();
    assert_eq!((of("episode_return"), of("episode_length")), (vec![3.0; 10], vec![3.0; 10]), "{told}");
    assert_eq!(of("evaluation_return"), [3.0; 2]);

    let returns = |of: &str| {
        let told = scratch.succeed(&format!("gym:sac_envs:Counted-v0 {of} {options} --eval-every 0"));
        told.lines().find(|line| line.contains("\"row\"")).unwrap_or_default().to_string()
    };
    // A limit around what counts ends an episode of which that does not know the end.
    let limited = returns("--env-arg max_episode_steps=1");
    assert!(limited.contains(r#""episode_length":1,"episode_return":1.0"#), "{limited}");
    // What nobody counts, or tells in part, is the sum of rewards.
    for told in ["null", r#"{"episode":{"r":1}}"#, r#"{"episode":[]}"#] {
        let told = returns(&format!("--env-arg counts=false --env-arg told={told}"));
        assert!(told.contains(r#""episode_length":2,"episode_return":20.0"#), "{told}");
    }
    for (told, expected) in [
        ("dict(r=numpy.array([1.5]),l=numpy.array([4]))", Ok(r#""episode_length":4,"episode_return":1.5"#)),
        ("dict(r=numpy.float32(-1),l=2.0)", Ok(r#""episode_length":2,"episode_return":-1.0"#)),
        ("dict(r=float('nan'),l=1)", Err("the return that it tells of its episode is NaN, not a finite f32; mend")),
        ("dict(r=1e300,l=1)", Err("the return that it tells of its episode is 1e300, not a finite f32; mend")),
        ("dict(r=0,l=-1)", Err("the statistics of its episode are (0, -1), not a return and a length; mend")),
        ("dict(r=None,l=1)", Err("the statistics of its episode are (None, 1), not a return and a length; mend")),
        ("dict(r=numpy.ones(2),l=1)", Err("the statistics of its episode are (array([1., 1.]), 1), not a return")),
    ] {
        let told = format!("--env-arg told={told}");
        match expected {
            Ok(row) => assert!(returns(&told).contains(row), "{told}: {}", returns(&told)),
            Err(problem) => {
                let output = scratch.output(&format!("gym:sac_envs:Counted-v0 {told} {options} --eval-every 0"));
                let last = last_line(&output);
                assert!(output.status.code() == Some(1) && last.contains("failed at step 2: "), "{last}");
                assert!(last.contains(problem), "{last}");
            }
        }
    }
}

/// What a run was begun with need not be said again, and the same configuration gives the same run.
#[test]
fn a_run_keeps_what_its_environment_is_made_with() {
    let Some(scratch) = Scratch::new("run") else { return };
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 41 --eval-every 20 --quiet --python ./python";
    scratch.succeed(&format!("gym:sac_envs:Echo-v0 --env-arg offset=3 --env-arg name=true=1 {options}"));
    let config = scratch.read("runs/Echo-v0-1/config.toml");
    assert!(config.contains("environment = \"gym:sac_envs:Echo-v0\"\n"), "{config}");
    assert!(config.ends_with("\n[env_args]\nname = \"true=1\"\noffset = \"3\"\n"), "{config}");
    scratch.succeed(&format!("gym:sac_envs:Echo-v0 --config runs/Echo-v0-1/config.toml --env-arg name=b {options}"));
    assert!(scratch.read("runs/Echo-v0-2/config.toml").ends_with("\n[env_args]\nname = \"b\"\noffset = \"3\"\n"));
    assert_eq!(scratch.read("runs/Echo-v0-1/metrics.csv"), scratch.read("runs/Echo-v0-2/metrics.csv"));

    // The return of an episode tells nothing of the offset, but an environment that is made anew says its name.
    for command in ["eval", "render", "resume"] {
        let options = if command == "resume" { "--steps 45" } else { "" };
        let output = scratch.output(&format!("{command} runs/Echo-v0-1 {options} --python ./python"));
        let error = text(&output.stderr);
        assert!(output.status.success() && error.contains("made true=1\n"), "{command}: {error}");
        // It repeats its episode.
        assert!(!error.contains("a new episode begins"), "{error}");
    }
    assert!(scratch.path("Echo-v0.gif").exists());
    let output = scratch.output("eval runs/Echo-v0-1/policy.safetensors --env-arg name=c --python ./python");
    assert!(output.status.success() && text(&output.stderr).contains("made c\n"), "{}", text(&output.stderr));
}

/// The environment of `docs/your-own-environment.md`, as it stands there.
#[test]
fn the_documented_environment_is_trained() {
    let Some(scratch) = Scratch::new("documented") else { return };
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/your-own-environment.md"));
    let page = page.expect("it is there");
    let blocks: Vec<_> = page.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    fs::write(scratch.path("cart.py"), blocks.concat()).expect("the target directory can be written");
    let options = "--env-arg mass=2 --env-arg max_episode_steps=20 --hidden 8 --batch 8 --random-steps 8 --steps 50 \
                   --eval-every 0 --python ./python";
    for id in ["Cart-v0", "FlatCart-v0"] {
        scratch.succeed(&format!("gym:cart:{id} {options}"));
    }
    assert!(
        scratch
            .read("runs/Cart-v0-1/config.toml")
            .ends_with("\n[env_args]\nmass = \"2\"\nmax_episode_steps = \"20\"\n")
    );
    scratch.succeed("render runs/Cart-v0-1 --size 64 --python ./python");
    assert!(scratch.read("runs/Cart-v0-1/metrics.csv").contains("\n20,1,20,"));
}

/// The two agree as long as both see the same: on 100 episodes from the same start states, with a policy that acts on what
/// each of them shows.
#[test]
fn pendulum_is_the_same_as_the_built_in_one() {
    let Some(scratch) = Scratch::new("pendulum") else { return };
    let mut theirs = scratch.make("Exact-v0", &[], false).expect("it can be made");
    let config = Config { policy_hidden: vec![16], ..Config::default() };
    let policy = Policy::new(&config, 3, 1);
    let theta = policy.initial(&config, &mut Philox::new(1, Stream::Init, 0));
    let mut actor = Actor::new(policy, theta, Pendulum::new().action_bounds());
    let (mut alike, mut worst) = (0, 0.0_f64);
    for seed in 0..100 {
        let start = theirs.reset(seed).expect("it answers");
        let mut ours = Pendulum::at(start[3].into(), start[4].into());
        let mut seen = [start[..3].to_vec(), start[..3].to_vec()];
        let mut returns = [0.0; 2];
        for step in 1..=200 {
            let mut torques = [[0.0]; 2];
            for (observation, torque) in seen.iter().zip(&mut torques) {
                actor.act(observation, None, torque);
            }
            let steps = [theirs.step(&torques[0]), ours.step(&torques[1])].map(|step| step.expect("it answers"));
            for i in 0..2 {
                returns[i] += steps[i].reward;
                seen[i] = steps[i].observation[..3].to_vec();
                assert_eq!((steps[i].terminated, steps[i].truncated), (false, step == 200));
            }
        }
        let error = (returns[0] - returns[1]).abs();
        alike += u32::from(error <= 1e-3);
        worst = worst.max(error);
    }
    println!("{alike} of 100 returns are within 1e-3 of each other, the worst are {worst:.1e} apart");
    assert!(alike >= 99);
}

/// However a process fails, the run is saved right before the step that failed, the program says why and ends, and what it has
/// started ends with it.
#[test]
fn a_run_outlives_every_failure_of_its_environment() {
    let Some(scratch) = Scratch::new("failures") else { return };
    let ways = [
        ("throw", "step: ValueError: a problem in two lines; mend"),
        ("kill", "step: its process ended (signal: 9 (SIGKILL))"),
        ("hang", "step: it has not answered for 3 s (--env-timeout"),
        ("exit", "step: its process ended (exit status: 3)"),
        // It has forked another, which lives on for a while.
        ("leave", "step: its process ended (signal: 9 (SIGKILL))"),
        // What another says that it has forked is not its answer.
        ("fork", "step: ValueError: a problem in two lines; mend"),
        ("babble", "step: what its process wrote is no answer"),
        ("reset", "reset: RuntimeError: no more of this; mend"),
        ("shape", "step: ValueError: its observation has the shape (1,) instead of (2,)"),
        ("nan", "element 1 of its observation is NaN"),
    ];
    // Each way through shared memory and through pipes, or as many as the user wants.
    let failures =
        std::env::var("SAC_FAILURES").map_or(2 * ways.len(), |number| number.parse().expect("it is a number"));
    let options = "--hidden 8 --batch 8 --random-steps 8 --eval-every 0 --steps 100000 --out run";
    let mut rng = Philox::new(0, Stream::Environment, 0);
    let mut done = 0;
    for failure in 0..failures {
        let (way, expected) = ways[failure % ways.len()];
        let at: u64 = rng.random_range(1..300);
        let arguments =
            if failure == 0 { format!("gym:sac_envs:Failing-v0 {options}") } else { "resume run".to_string() };
        let mut command = scratch.sac(&format!("{arguments} --env-timeout 3 --python ./python"));
        let pipes = failure / ways.len() % 2 == 1;
        command.env("FAIL", format!("{way} {at}")).envs(pipes.then_some(("SAC_CHANNEL", "pipes")));
        let output = command.output().expect("the program starts");
        let (error, last) = (text(&output.stderr), last_line(&output));
        assert_eq!(output.status.code(), Some(1), "{way}: {error}");
        // An episode has 20 steps, and a reset fails at the end of one; each run begins a new one.
        let failed = done + if way == "reset" { at.div_ceil(20) * 20 } else { at };
        let expected = format!("the environment failed at step {failed}: {expected}");
        assert!(last.contains(&expected), "{way}: {expected:?}? {error}");
        assert!(
            last.starts_with("error: training stopped, run holds the run until then, go on with `sac resume run`: ")
        );
        assert!(error.contains("Traceback") || !expected.contains("Error: "), "{way}: {error}");
        if failure > 0 {
            assert!(error.contains(&format!("resuming run from step {done} of 100000")), "{done}: {error}");
        }
        done = if way == "reset" { failed } else { failed - 1 };
        assert!(scratch.no_process_is_left(), "{way}");
    }
    let config = scratch.read("run/config.toml").replace("steps = 100000\n", &format!("steps = {}\n", done + 50));
    fs::write(scratch.path("run/config.toml"), config).expect("it is there");
    let output = scratch.output("resume run --python ./python");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(scratch.no_process_is_left());
}

/// The memory of a run holds actions of the bounds that its environment had, and its networks have its sizes.
#[test]
fn a_run_does_not_go_on_in_an_environment_that_has_changed() {
    let Some(scratch) = Scratch::new("changed") else { return };
    let options = "--steps 40 --hidden 8 --batch 8 --random-steps 10 --eval-every 0 --threads 1 --quiet";
    scratch.succeed(&format!("gym:sac_envs:Changing-v0 {options} --out run --python ./python"));
    let before = [scratch.read("run/config.toml"), scratch.read("run/metrics.csv")];
    let ranges = "it is for actions from [-1.0] to [1.0], not from [-10.0] to [10.0]";
    for (name, value, problem) in [
        ("H", "10", ranges),
        ("A", "2", "it is for 2 observation and 1 action dimensions, of which there are 2 and 2"),
        ("O", "3", "it is for 2 observation and 1 action dimensions, of which there are 3 and 1"),
    ] {
        let mut command = scratch.sac("resume run --steps 80 --threads 1 --python ./python");
        let output = command.env(name, value).output().expect("the program starts");
        let error = format!(
            "error: the run does not fit the environment: {problem}; change the environment back, or begin a new run"
        );
        assert_eq!((output.status.code(), text(&output.stderr).trim()), (Some(2), error.as_str()));
        assert_eq!([scratch.read("run/config.toml"), scratch.read("run/metrics.csv")], before);
    }
    let new = format!("gym:sac_envs:Changing-v0 {options} --out new --python ./python --init-from run --with-replay");
    let output = scratch.sac(&new).env("H", "10").output().expect("the program starts");
    let told = text(&output.stderr);
    assert!(
        output.status.code() == Some(2) && told.contains("its actions go from [-1.0] to [1.0], not from"),
        "{told}"
    );
    scratch.succeed("resume run --steps 80 --threads 1 --quiet --python ./python");
}

#[test]
fn a_process_ends_with_the_program_even_if_it_hangs() {
    let Some(scratch) = Scratch::new("killed") else { return };
    let mut command = scratch.sac("gym:sac_envs:Failing-v0 --out run --quiet --python ./python");
    let mut sac = command.env("FAIL", "hang 5").stderr(Stdio::null()).spawn().expect("the program starts");
    while !scratch.path("processes.hangs").exists() {
        assert!(sac.try_wait().expect("it is ours").is_none(), "the program has ended");
        sleep(Duration::from_millis(10));
    }
    sac.kill().expect("it is ours");
    sac.wait().expect("it is ours");
    assert!(scratch.no_process_is_left());
}

/// A script that starts a Python without becoming it can be killed, and the Python lives on.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn a_hang_behind_a_script_is_ended() {
    let Some(scratch) = Scratch::new("behind") else { return };
    scratch.script("script", "./python \"$@\"\ntrue");
    let options = "--hidden 8 --batch 8 --eval-every 0 --out run --env-timeout 3 --python ./script";
    let mut command = scratch.sac(&format!("gym:sac_envs:Failing-v0 {options}"));
    let output = command.env("FAIL", "hang 5").output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(last_line(&output).contains("it has not answered for 3 s"), "{}", text(&output.stderr));
    assert!(scratch.no_process_is_left());
}

/// A terminal interrupts all that it has started.
#[test]
fn an_interrupted_run_is_saved_though_the_environment_is_interrupted_as_well() {
    let Some(scratch) = Scratch::new("interrupted") else { return };
    let options = "--hidden 8 --batch 8 --eval-every 0 --steps 1000000 --log json --out run --python ./python";
    let mut command = scratch.sac(&format!("gym:sac_envs:Failing-v0 {options}"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let sac = command.spawn().expect("the program starts");
    let metrics = scratch.path("run/metrics.csv");
    while !fs::read_to_string(&metrics).is_ok_and(|rows| rows.lines().count() > 1) {
        sleep(Duration::from_millis(10));
    }
    let group = format!("-{}", sac.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().expect("there is a kill").success());
    let output = sac.wait_with_output().expect("it is ours");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("\"status\":\"interrupted\""));
    assert!(!text(&output.stderr).contains("Traceback"), "{}", text(&output.stderr));
    assert!(scratch.no_process_is_left());
}

/// The arguments of a run on an environment that is told apart by its seed and its steps, takes its time, and has no way to save
/// itself.
fn slow_run(out: &str) -> String {
    format!(
        "gym:sac_envs:Slow-v0 --hidden 8 --batch 8 --random-steps 8 --steps 60 --eval-every 20 --eval-episodes 6 \
         --final-episodes 8 --checkpoint-every 7 --quiet --threads 1 --python ./python --out {out}"
    )
}

/// Whatever the instant at which it is interrupted, a run ends at once and goes on as if it had not been: in an episode, which is
/// repeated, or in an evaluation, which is made again. `SAC_INTERRUPTIONS` sets how often, 4 times if it is not set.
#[test]
fn interrupted_runs_in_python_go_on_as_if_they_had_not_been() {
    let Some(scratch) = Scratch::new("random-instants") else { return };
    let number = std::env::var("SAC_INTERRUPTIONS").map_or(4, |number| number.parse().expect("it is a number"));
    let began = Instant::now();
    scratch.succeed(&slow_run("alone"));
    let duration = began.elapsed();
    let mut rng = Philox::new(0, Stream::Environment, 5);
    let (mut interrupted, mut resumed, mut took, mut runs) = (0, 0, Vec::new(), 0);
    while interrupted < number {
        runs += 1;
        let (out, mut arguments) = (format!("run-{runs}"), slow_run(&format!("run-{runs}")));
        loop {
            let mut command = scratch.sac(&arguments);
            let child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
            sleep(duration.mul_f64(rng.random_range(0.1..0.7)));
            let signal = ["-INT", "-TERM"][rng.random_range(0..2)];
            let sent = Instant::now();
            let _ = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
            let output = child.wait_with_output().expect("it is ours");
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.code(), Some(130), "{signal}: {}", text(&output.stderr));
            took.push(sent.elapsed());
            interrupted += 1;
            if scratch.path(&out).join("checkpoint/manifest").exists() {
                resumed += 1;
                arguments = format!("resume {out} --quiet --threads 1 --python ./python");
            }
        }
        for name in ["metrics.csv", "policy.safetensors"] {
            let [one, other] = ["alone", &out].map(|run| fs::read(scratch.path(run).join(name)).expect("it is there"));
            assert!(one == other, "{out}: {name} differs");
        }
    }
    took.sort();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{interrupted} times, {resumed} of them with something to save, ended within {median:?} (median), {slowest:?} (all): \
         identical"
    );
    // A machine that does other work takes longer now and then.
    assert!(resumed > 0 && median < Duration::from_secs(1), "{median:?}");
}

/// The first interruption waits for the step that the environment takes, the second does not, and loses nothing either.
#[test]
fn a_second_interruption_does_not_wait_for_the_environment() {
    let Some(scratch) = Scratch::new("twice") else { return };
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 50 --threads 1 --checkpoint-every 20 --eval-episodes 2 \
                   --final-episodes 2 --python ./python";
    for (every, fails, during) in
        [("0", "hang 33", "interrupted at step 32"), ("30", "hang 33", "in the evaluation at step 30")]
    {
        let _ = fs::remove_file(scratch.path("processes.hangs"));
        scratch.succeed(&format!("gym:sac_envs:Failing-v0 {options} --eval-every {every} --quiet --out alone-{every}"));
        let mut command =
            scratch.sac(&format!("gym:sac_envs:Failing-v0 {options} --eval-every {every} --out run-{every}"));
        let mut sac = command.env("FAIL", fails).stderr(Stdio::piped()).spawn().expect("the program starts");
        while !scratch.path("processes.hangs").exists() {
            sleep(Duration::from_millis(10));
        }
        let interrupt = || {
            let sent = Command::new("kill").args(["-INT", &sac.id().to_string()]).status().expect("there is kill");
            assert!(sent.success());
            sleep(Duration::from_millis(300));
        };
        interrupt();
        interrupt();
        let asked = Instant::now();
        while sac.try_wait().expect("it is ours").is_none() {
            assert!(asked.elapsed() < Duration::from_secs(30), "it waits for the environment");
            sleep(Duration::from_millis(10));
        }
        let output = sac.wait_with_output().expect("it is ours");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{error}");
        assert!(error.contains("\ninterrupted again: not waiting for the environment;"), "{error}");
        assert!(last_line(&output).contains(during), "{error}");
        assert!(scratch.no_process_is_left());
        scratch.succeed(&format!("resume run-{every} --quiet --threads 1 --python ./python"));
        for name in ["metrics.csv", "policy.safetensors"] {
            let [one, other] = ["alone", "run"].map(|run| scratch.path(&format!("{run}-{every}/{name}")));
            assert!(fs::read(one).expect("it is there") == fs::read(other).expect("it is there"), "{during}: {name}");
        }
    }
}

/// An environment that does not answer as it did begins a new episode, and one that fails is not asked to repeat that.
#[test]
fn what_cannot_be_repeated_begins_a_new_episode() {
    let Some(scratch) = Scratch::new("repeated") else { return };
    let options = "--hidden 8 --batch 8 --random-steps 8 --eval-every 0 --threads 1 --python ./python";
    for (id, repeats) in [("Slow-v0", true), ("Unseeded-v0", false)] {
        for envs in ["1", "2"] {
            let out = format!("{id}-{envs}");
            // Not the end of an episode.
            scratch.succeed(&format!("gym:sac_envs:{id} {options} --envs {envs} --steps 36 --quiet --out {out}"));
            let output = scratch.output(&format!("resume {out} --steps 60 --python ./python"));
            let error = text(&output.stderr);
            assert!(output.status.success(), "{error}");
            assert_eq!(!error.contains("a new episode begins"), repeats, "{out}: {error}");
        }
    }
    scratch.succeed(&format!("gym:sac_envs:Slow-v0 {options} --envs 2 --steps 60 --quiet --out whole"));
    let rows = |run: &str| scratch.read(&format!("{run}/metrics.csv"));
    let last = |rows: String| rows.lines().last().map(|row| row.split(',').take(4).collect::<Vec<_>>().join(","));
    assert_eq!(last(rows("whole")), last(rows("Slow-v0-2")));
}

/// An evaluation that fails says so, and the run goes on from its checkpoint with that evaluation.
#[test]
fn a_failed_evaluation_is_made_again() {
    let Some(scratch) = Scratch::new("evaluation") else { return };
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 50 --eval-every 30 --eval-episodes 2 --quiet \
                   --checkpoint-every 20 --final-episodes 2 --threads 1";
    scratch.succeed(&format!("gym:sac_envs:Failing-v0 {options} --out alone --python ./python"));
    // The first of its processes is that of its evaluations, or learns the sizes; the others live on.
    let mut command = scratch.sac(&format!("gym:sac_envs:Failing-v0 {options} --out run --python ./python"));
    let output = command.env("FAIL", "throw 33").output().expect("the program starts");
    let last = last_line(&output);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(
        last.starts_with(
            "error: the evaluation at step 30 failed, run holds the run until there, go on from step 30 with \
             `sac resume run`: episode 2 of the evaluation failed at its step 13: step: ValueError: a problem"
        ),
        "{last}"
    );
    scratch.succeed("resume run --threads 1 --python ./python");
    for name in ["metrics.csv", "policy.safetensors"] {
        let [one, other] = ["alone", "run"].map(|run| fs::read(scratch.path(run).join(name)).expect("it is there"));
        assert!(one == other, "{name} differs");
    }
}

/// Evaluations by themselves, and films, end when they are interrupted.
#[test]
fn evaluations_and_films_without_an_end_are_interrupted() {
    let Some(scratch) = Scratch::new("endless") else { return };
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 20 --eval-every 0 --quiet --python ./python";
    scratch.succeed(&format!("gym:sac_envs:Endless-v0 {options} --out run"));
    for (arguments, expected) in [
        ("eval run --json --episodes 3 --env-arg first=5", "interrupted after 1 of 3 episodes: mean return 5.0,"),
        ("eval run", "interrupted after 0 of 100 episodes"),
        ("render run --out film.gif --size 64", "interrupted; nothing is written"),
    ] {
        let mut command = scratch.sac(&format!("{arguments} --env-arg started=started --python ./python"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let asked = Instant::now();
        while !scratch.path("started").exists() && asked.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(10));
        }
        fs::remove_file(scratch.path("started")).expect("it has taken many steps");
        let sent = Instant::now();
        assert!(
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("there is kill").success()
        );
        let output = child.wait_with_output().expect("it is ours");
        assert!(sent.elapsed() < Duration::from_secs(1), "{arguments}: {:?}", sent.elapsed());
        assert_eq!(output.status.code(), Some(130), "{arguments}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "");
        assert!(last_line(&output).starts_with(expected), "{expected:?}? {}", text(&output.stderr));
        assert!(!scratch.path("film.gif").exists());
    }
}

/// Whatever lies in the working directory, it takes the place of nothing of Python's, nor of Gymnasium.
#[test]
fn modules_of_the_working_directory_are_found_last() {
    let Some(scratch) = Scratch::new("shadows") else { return };
    for module in ["json", "random", "os", "encodings", "numpy", "gymnasium", "sitecustomize", "multiprocessing", "ast"]
    {
        let code = format!("open('imported-{module}', 'w').close()\nraise ImportError('a stranger')\n");
        fs::write(scratch.path(&format!("{module}.py")), code).expect("the target directory can be written");
    }
    fs::write(
        scratch.path("here.py"),
        "import gymnasium\nfrom sac_envs import Answers\ngymnasium.register('Here-v0', Answers)\n",
    )
    .expect("the target directory can be written");
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 20 --quiet --eval-episodes 1 --python ./python";
    scratch.succeed(&format!("gym:here:Here-v0 --seeds 0..1 --out many {options}"));
    scratch.succeed("resume many --steps 30 --quiet --python ./python");
    scratch.succeed("eval many/seed-0 --episodes 1 --python ./python");
    // What Gymnasium would like to import, and is not installed, is not taken from there either.
    for module in ["jax", "pygame", "Box2D", "here_is_one"] {
        let code = format!("open('imported-{module}', 'w').close()\nraise ImportError('a stranger')\n");
        fs::write(scratch.path(&format!("{module}.py")), code).expect("the target directory can be written");
    }
    for id in ["phys2d/Pendulum-v0", "LunarLanderContinuous-v3", "CarRacing-v3"] {
        scratch.output(&format!("gym:{id} --out other {options}"));
    }
    let imported = fs::read_dir(&scratch.0).expect("it is there").flatten().map(|entry| entry.file_name());
    let imported: Vec<_> = imported.filter(|name| name.to_string_lossy().starts_with("imported")).collect();
    assert!(imported.is_empty(), "{imported:?}");
}

#[test]
fn an_environment_sees_the_main_module_and_arguments_of_a_plain_python() {
    let Some(scratch) = Scratch::new("main") else { return };
    for channel in [None, Some(("SAC_CHANNEL", "pipes"))] {
        let mut command = scratch.sac("gym:sac_envs:arguments-v0 --env-arg a=1 --python ./python");
        let output = command.envs(channel).output().expect("the program starts");
        let expected = "ValueError: given {'a': 1}, argv [''], main [], last path False";
        assert!(last_line(&output).contains(expected), "{}", text(&output.stderr));
    }
}

/// JSON and Python's own literals are values, plain words are texts, and what is almost a value is refused.
#[test]
fn arguments_are_read_as_python_would() {
    let Some(scratch) = Scratch::new("literals") else { return };
    for (argument, value) in [
        ("true", "True"),
        ("False", "False"),
        ("None", "None"),
        ("null", "None"),
        (".5", "0.5"),
        ("1_000", "1000"),
        ("(1, 2)", "(1, 2)"),
        ("[1, {\"b\": null}]", "[1, {'b': None}]"),
        ("nan", "nan"),
        ("-inf", "-inf"),
        ("1e3", "1000.0"),
        ("\"False\"", "'False'"),
        ("a word", "'a word'"),
        ("rgb_array", "'rgb_array'"),
        ("", "''"),
    ] {
        let error = scratch.make("refuse-v0", &[("a", argument)], false).err().expect("it refuses");
        assert!(error.contains(&format!("made with {{'a': {value}}}")), "{argument}: {error}");
    }
    for argument in ["TRUE", "none", "(1, 2", "[1,", "{a}"] {
        let error = scratch.make("refuse-v0", &[("a", argument)], false).err().expect("it refuses");
        let expected = format!("--env-arg a={argument} is no value of JSON or Python; write it as in True");
        assert!(error.contains(&expected), "{argument}: {error}");
    }
}

#[test]
fn numbers_and_flags_are_whatever_is_one() {
    let Some(scratch) = Scratch::new("scalars") else { return };
    let step = |arguments: &[(&str, &str)]| -> Result<(Step, Vec<(String, f64)>), String> {
        let arguments: Vec<_> = arguments.iter().map(|&(key, value)| (key, format!("{value:?}"))).collect();
        let arguments: Vec<_> = arguments.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let mut env = scratch.make("Answers-v0", &arguments, false)?;
        env.reset(0).map_err(|error| error.to_string())?;
        let step = env.step(&[0.0]).map_err(|error| error.to_string())?;
        Ok((step, env.info().to_vec()))
    };
    for reward in
        ["2", "2.0", "True + 1", "numpy.float32(2)", "numpy.array(2)", "numpy.array([2.0])", "numpy.ones((1, 1)) * 2"]
    {
        assert_eq!(step(&[("reward", reward)]).expect(reward).0.reward, 2.0, "{reward}");
    }
    for flag in ["True", "1", "numpy.bool_(True)", "numpy.array([True])"] {
        let (step, _) = step(&[("terminated", flag), ("truncated", flag)]).expect(flag);
        assert!(step.terminated && step.truncated, "{flag}");
    }
    for (quantity, value, expected) in [
        ("reward", "None", "its reward is None of the type NoneType, not a number"),
        ("reward", "'1'", "its reward is '1' of the type str, not a number"),
        ("reward", "numpy.zeros(2)", "its reward is array([0., 0.]) of the type ndarray, not a number"),
        ("terminated", "None", "its terminated is None of the type NoneType, not true or false"),
        ("truncated", "'no'", "its truncated is 'no' of the type str, not true or false"),
        ("observation", "'far'", "its observation is 'far' of the type str, not numbers of the shape (2,)"),
        ("observation", "['a', 'b']", "its observation is ['a', 'b'] of the type list, not numbers"),
    ] {
        let error = step(&[(quantity, value)]).expect_err(value);
        assert!(error.contains(expected), "{value}: {error}");
    }
    let info = "dict(is_success=True, far=numpy.float32(0.5), one=numpy.array([3]), words='x', many=[1, 2], bad=float('nan'), \
                episode=1, _own=2, **{'a,b\\n\"c': 4})";
    let (_, numbers) = step(&[("info", info)]).expect("it answers");
    let expected = [("is_success", 1.0), ("far", 0.5), ("one", 3.0), ("a,b \"c", 4.0)];
    assert_eq!(numbers, expected.map(|(name, number)| (name.to_string(), number)));
    let (_, many) = step(&[("info", "{str(i): i for i in range(100)}")]).expect("it answers");
    assert_eq!((many.len(), &many[31]), (32, &("31".to_string(), 31.0)));
    // What is measured beside learning never ends it.
    for odd in [
        "{'a': type('R', (), {'__repr__': lambda self: 1 / 0})(), 'b': 2}",
        "{type('K', (), {'__str__': lambda self: 1 / 0})(): 1, 'b': 2}",
        "{'a': type('A', (), {'__array__': lambda *_: 1 / 0})(), 'b': 2}",
    ] {
        assert_eq!(step(&[("info", odd)]).expect(odd).1, [("b".to_string(), 2.0)], "{odd}");
    }
    let without = "type('D', (dict,), {'items': lambda self: 1 / 0})(b=2)";
    assert_eq!(step(&[("info", without)]).expect(without).1, []);
}

#[test]
fn numbers_of_info_become_columns() {
    let Some(scratch) = Scratch::new("info") else { return };
    let options =
        "--hidden 8 --batch 8 --random-steps 8 --steps 20 --eval-every 10 --eval-episodes 2 --python ./python";
    let mut command = scratch.sac(&format!("gym:sac_envs:Answers-v0 {options} --final-episodes 2 --out run"));
    let output = command.args(["--env-arg", r#"info="{'is_success': True, 'name': 'x'}""#]).output();
    let output = output.expect("the program starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let metrics = scratch.read("run/metrics.csv");
    let (header, rows) = metrics.split_once('\n').expect("it has rows");
    assert!(header.ends_with(",q,info.is_success,evaluation.is_success"), "{header}");
    assert!(rows.starts_with("1,1,1,") && rows.lines().next().is_some_and(|row| row.ends_with(",1,")), "{rows}");
    assert_eq!(rows.lines().filter(|row| row.ends_with(",1,1")).count(), 2, "{rows}");
    let output = scratch.sac("eval run --episodes 3 --python ./python").output().expect("the program starts");
    assert!(text(&output.stdout).trim_end().ends_with("over 3 episodes; is_success 1.000"), "{}", text(&output.stdout));
}

/// A terminal observation is not learned from; any other must be finite.
#[test]
fn a_terminal_observation_need_not_be_finite() {
    let Some(scratch) = Scratch::new("terminal") else { return };
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 20 --eval-every 0 --quiet --python ./python";
    let run = |flags: &str| {
        let observation = "--env-arg observation=\"numpy.array([numpy.nan,1])\"";
        let mut command = scratch.sac(&format!("gym:sac_envs:Answers-v0 {options} {flags}"));
        command.args(["--env-arg", observation.trim_start_matches("--env-arg ")]);
        command.output().expect("the program starts")
    };
    let output = run("--env-arg terminated=\"True\" --normalize-observations --out ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = run("--env-arg terminated=\"False\" --out goes-on");
    assert!(last_line(&output).contains("element 0 of its observation is NaN"), "{}", text(&output.stderr));
}

/// An episode depends on its seed alone, whichever random numbers the environment uses.
#[test]
fn random_numbers_of_the_whole_process_follow_from_the_seed() {
    let Some(scratch) = Scratch::new("random") else { return };
    let first = |seeds: &[u64]| {
        let mut env = scratch.make("Answers-v0", &[], false).expect("it can be made");
        seeds.iter().map(|&seed| env.reset(seed).expect("it answers")).collect::<Vec<_>>()
    };
    let (one, other) = (first(&[1, 2, 1]), first(&[2]));
    assert_eq!((&one[0], &one[1]), (&one[2], &other[0]));
    assert!(one[0] != one[1] && one[0][0] != one[1][0] && one[0][1] != one[1][1]);
}

#[test]
fn what_a_user_should_know_is_said_once() {
    let Some(scratch) = Scratch::new("notes") else { return };
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 20 --eval-every 0 --python ./python";
    let limit = |id: &str| {
        format!(
            "gym:sac_envs:{id} has no time limit that Gymnasium knows of; if an episode may last forever, set one: \
             --env-arg max_episode_steps=N"
        )
    };
    let said = |arguments: &str| text(&scratch.output(arguments).stderr);
    let output = said(&format!("gym:sac_envs:Normed-v0 --envs 2 --out normed {options}"));
    let learned = "gym:sac_envs:Normed-v0 is wrapped in Normed, whose statistics start again in evaluations and after a \
                   resume; remove it, and use --normalize-observations instead";
    for note in [learned, &limit("Normed-v0")] {
        assert_eq!(output.matches(note).count(), 1, "{output}");
    }
    let output = said("resume normed --steps 30 --python ./python");
    assert!(output.contains(learned), "{output}");
    let output = said(&format!("gym:Pendulum-v1 --out pendulum {options}"));
    assert!(output.contains("training on gym:Pendulum-v1") && !output.contains("time limit"), "{output}");
}

#[test]
fn a_limit_of_open_files_is_named() {
    let Some(scratch) = Scratch::new("files") else { return };
    let options = "--envs 12 --hidden 8 --batch 8 --random-steps 8 --steps 24 --eval-every 0 --python ./python";
    let sac = format!("ulimit -n 24; exec {} gym:sac_envs:Answers-v0 {options}", env!("CARGO_BIN_EXE_sac"));
    let output = Command::new("sh").args(["-c", &sac]).current_dir(&scratch.0).output().expect("there is a shell");
    let last = last_line(&output);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(last.contains("more files would be open than the system allows; allow more (ulimit -n)"), "{last}");
    assert!(!scratch.path("runs").exists());
}

#[test]
fn there_may_be_very_many_actions() {
    let Some(scratch) = Scratch::new("wide") else { return };
    let mut env = scratch.make("Wide-v0", &[], false).expect("it can be made");
    env.reset(0).expect("it answers");
    let action: Vec<f32> = (0..9000).map(|i| i as f32 / 9000.0).collect();
    assert_eq!(env.step(&action).expect("it answers").observation, action);
}

#[test]
fn a_python_that_is_too_old_is_refused_in_one_line() {
    let Some(scratch) = Scratch::new("old") else { return };
    // It has the version of another.
    scratch.script(
        "old",
        "first=$1 code=$2; shift 2; exec ./python \"$first\" \"import sys; sys.version_info = (3, 8)\n$code\" \"$@\"",
    );
    let options = "--hidden 8 --batch 8 --random-steps 8 --steps 20 --eval-every 0 --quiet --python ./python";
    scratch.succeed(&format!("gym:sac_envs:Answers-v0 --seeds 0..1 --out many {options}"));
    for arguments in ["gym:sac_envs:Answers-v0", "resume many --steps 30"] {
        let output = scratch.output(&format!("{arguments} --python ./old"));
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains("older than 3.9; name a newer one with --python"), "{error}");
    }
}

/// However it ends, whatever it has started ends with it.
#[test]
fn processes_of_an_environment_end_with_it() {
    let Some(scratch) = Scratch::new("parent") else { return };
    let options =
        "--hidden 8 --batch 8 --random-steps 8 --steps 40 --eval-every 0 --quiet --env-timeout 1 --python ./python";
    for channel in ["shared", "pipes"] {
        for (way, code) in
            [("never", Some(0)), ("throw", Some(1)), ("hang", Some(1)), ("hang_in_c", Some(1)), ("kill", Some(1))]
        {
            let mut command = scratch.sac(&format!("gym:sac_envs:Parent-v0 {options} --out {channel}-{way}"));
            command.env("FAIL", format!("{way} 5")).envs((channel == "pipes").then_some(("SAC_CHANNEL", "pipes")));
            let output = command.output().expect("the program starts");
            assert_eq!(output.status.code(), code, "{way}: {}", text(&output.stderr));
            assert!(scratch.no_process_is_left(), "{channel} {way}");
        }
        for way in ["hang", "hang_in_c"] {
            let _ = fs::remove_file(scratch.path("processes.hangs"));
            let mut command = scratch.sac(&format!("gym:sac_envs:Parent-v0 {options} --out {channel}-killed-{way}"));
            command.env("FAIL", format!("{way} 5")).envs((channel == "pipes").then_some(("SAC_CHANNEL", "pipes")));
            let mut sac = command.stderr(Stdio::null()).spawn().expect("the program starts");
            while !scratch.path("processes.hangs").exists() {
                assert!(sac.try_wait().expect("it is ours").is_none(), "the program has ended");
                sleep(Duration::from_millis(10));
            }
            sac.kill().expect("it is ours");
            sac.wait().expect("it is ours");
            assert!(scratch.no_process_is_left(), "{channel} {way}, the program killed");
        }
    }
    // The environment, its children by Popen, fork (two) and spawn, and the child of a child.
    assert_eq!(scratch.read("processes").lines().count(), 14 * 6);
}

#[test]
fn an_environment_has_the_time_that_it_takes_to_close() {
    let Some(scratch) = Scratch::new("closing") else { return };
    let close = |seconds: &str| {
        let mut command = scratch.sac("eval policy.safetensors --episodes 1 --env-timeout 4 --python ./python");
        command.args(["--env", "gym:sac_envs:Closing-v0", "--env-arg", &format!("seconds={seconds}")]);
        command.args(["--env-arg", "max_episode_steps=1"]).output().expect("the program starts")
    };
    let policy = Policy::new(&Config { policy_hidden: vec![4], ..Config::default() }, 1, 1);
    let bounds = Bounds::new(vec![-1.0], vec![1.0]).expect("they are a range");
    let actor = Actor::new(policy.clone(), vec![0.0; policy.parameters()], bounds);
    policy_file::save(&scratch.path("policy.safetensors"), "gym:sac_envs:Closing-v0", &actor)
        .expect("it can be written");
    let output = close("2.5");
    let error = text(&output.stderr);
    assert!(error.contains("is closing; waiting for it up to 4 s (--env-timeout)"), "{error}");
    assert!(!error.contains("has not closed") && scratch.path("closed").exists(), "{error}");
    fs::remove_file(scratch.path("closed")).expect("it is there");
    let error = text(&close("1000").stderr);
    assert!(error.contains("has not closed after 4 s (--env-timeout); it is ended"), "{error}");
}

/// Nobody waits for an environment that is abandoned, whatever it does.
#[test]
fn an_environment_is_abandoned_at_once() {
    let Some(scratch) = Scratch::new("abandoned") else { return };
    let abandon = Arc::new(AtomicBool::new(false));
    let (python, arguments) = (Some(scratch.path("hanging")), BTreeMap::new());
    scratch.script("hanging", "export FAIL='hang 3'\nexec ./python \"$@\"");
    scratch.script("hanging", &format!("export FAIL='hang 3'\nexec {} \"$@\"", scratch.path("python").display()));
    let gym = Gym {
        id: "sac_envs:Failing-v0".into(),
        python,
        arguments,
        abandon: Some(Arc::clone(&abandon)),
        ..Gym::default()
    };
    let mut env = gym.make().expect("it can be made");
    env.reset(0).expect("it answers");
    let waiting = std::thread::spawn(move || {
        (0..3).find_map(|_| env.step(&[0.0]).err()).map(|error| (error.is::<Abandoned>(), env.step(&[0.0]).is_err()))
    });
    while !scratch.path("processes.hangs").exists() {
        sleep(Duration::from_millis(10));
    }
    let asked = Instant::now();
    abandon.store(true, Ordering::Relaxed);
    assert_eq!(waiting.join().expect("it does not panic"), Some((true, true)));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert!(scratch.no_process_is_left());
    assert_eq!(gym.make().err(), Some(Error::Interrupted));
}
