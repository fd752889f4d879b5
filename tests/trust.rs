//! What files may make Python do: nothing that the user has not said.
#![cfg(all(feature = "program", unix))]

use soft_actor_critic::run::policy_file;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with a run of a stranger, and a Python that writes down that it was started; it goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trust-{test}-{}", std::process::id()));
        fs::create_dir_all(path.join("elsewhere")).expect("the target directory can be written");
        let scratch = Self(path);
        let python = scratch.0.join("python");
        let script = format!("#!/bin/sh\ntouch '{}/started'\nexit 3\n", scratch.0.display());
        fs::write(&python, script).expect("the directory can be written");
        fs::set_permissions(&python, Permissions::from_mode(0o755)).expect("it has just been written");
        let small = "--steps 20 --random-steps 10 --batch 8 --hidden 8 --eval-every 0 --threads 1 --quiet";
        scratch.expect(&format!("pendulum {small} --out a/run"), 0, "");
        scratch.expect(&format!("pendulum {small} --out b/run"), 0, "");
        scratch
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn replace(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.file(name)).expect("it is there");
        assert!(text.contains(old), "{name}: {text}");
        fs::write(self.file(name), text.replace(old, new)).expect("it can be written");
    }

    /// Makes the runs those of another environment, of which the program learns from their files alone.
    fn disguise(&self, environment: &str, arguments: &str) {
        for run in ["a/run", "b/run"] {
            let config = format!("{run}/config.toml");
            self.replace(&config, "environment = \"pendulum\"", &format!("environment = {environment:?}"));
            let text = fs::read_to_string(self.file(&config)).expect("it is there");
            fs::write(self.file(&config), text + arguments).expect("it can be written");
            let policy = self.file(&format!("{run}/policy.safetensors"));
            let (_, actor) = policy_file::load(&policy).expect("the program has written it");
            policy_file::save(&policy, environment, &actor).expect("it can be written");
        }
    }

    fn run(&self, directory: &str, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
        command.current_dir(self.file(directory)).env("XDG_STATE_HOME", self.file("state"));
        command.args(arguments.split_whitespace()).output().expect("the program starts")
    }

    /// Runs the program, which ends with the code and a line that has the text, and says whether Python was started.
    fn expect(&self, arguments: &str, code: i32, text: &str) -> bool {
        self.expect_in("", arguments, code, text)
    }

    fn expect_in(&self, directory: &str, arguments: &str, code: i32, text: &str) -> bool {
        let output = self.run(directory, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {error}");
        assert!(error.contains(text) && error.lines().count() <= 1, "{arguments}: {error}");
        fs::remove_file(self.file("started")).is_ok()
    }

    /// Whether the program refuses with a line that ends with the command that is to be typed instead.
    fn refuses(&self, arguments: &str, addition: &str) {
        let command = format!("if you trust it: sac {arguments} {addition}\n");
        assert!(!self.expect(arguments, 2, &command), "{arguments}: Python was started");
    }

    /// Whether the program gets as far as Python, or as the checkpoint, which is not one of that environment.
    fn allows(&self, arguments: &str) {
        let output = self.run("", arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        let was_started = fs::remove_file(self.file("started")).is_ok();
        assert!(was_started || error.contains("checkpoint"), "{arguments}: {error}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What reads the name of an environment from files.
const COMMANDS: [&str; 5] = [
    "eval a/run --episodes 1 --python ./python",
    "eval a/run/policy.safetensors --episodes 1 --python ./python",
    "render a/run --python ./python",
    "resume a/run --steps 40 --python ./python",
    "resume a --steps 40 --python ./python",
];

#[test]
fn a_module_that_only_a_file_names_is_not_imported() {
    let scratch = Scratch::new("module");
    scratch.disguise("gym:evil:Evil-v0", "");
    for command in COMMANDS {
        scratch.refuses(command, "--env gym:evil:Evil-v0");
        // What the line says works, in a directory where nobody has said it before.
        for option in ["--env gym:evil:Evil-v0", "--trust"] {
            let _ = fs::remove_dir_all(scratch.file("state"));
            scratch.allows(&format!("{command} {option}"));
        }
        let _ = fs::remove_dir_all(scratch.file("state"));
    }
    scratch.expect("resume a --env gym:Evil-v0", 2, "no run to resume in a is trained on gym:Evil-v0; leave out --env");
}

#[test]
fn arguments_that_only_a_file_gives_reach_no_environment() {
    for environment in ["gym:Pendulum-v1", "gym:evil:Evil-v0"] {
        let scratch = Scratch::new(&format!("arguments-{}", environment.len()));
        scratch.disguise(environment, "\n[env_args]\ng = \"9.81; `reboot`\"\n");
        for command in COMMANDS {
            // A policy alone gives no arguments.
            if !command.contains("policy") {
                scratch.refuses(command, "--trust");
                assert!(!scratch.expect(command, 2, "'g=9.81; `reboot`', which you have not"));
                // With the environment alone, the arguments are not said.
                scratch.refuses(&format!("{command} --env {environment}"), "--trust");
            }
        }
        let given = "eval a/run --env-arg g=1 --python ./python";
        if environment == "gym:Pendulum-v1" {
            // What is given takes the place of what the file gives.
            scratch.allows(given);
        } else {
            scratch.refuses(given, "--env gym:evil:Evil-v0");
        }
        // As it is when a configuration is passed on.
        let train = format!("{environment} --config a/run/config.toml --python ./python");
        scratch.refuses(&train, "--trust");
        scratch.allows(&format!("{train} --trust"));
    }
}

#[test]
fn a_group_that_has_yet_to_begin_is_refused_as_well() {
    let scratch = Scratch::new("group");
    let record = fs::read_to_string(scratch.file("a/run/config.toml")).expect("it is there");
    let record = record.replace("environment = \"pendulum\"", "environment = \"gym:evil:Evil-v0\"");
    fs::create_dir(scratch.file("group")).expect("the directory can be written");
    fs::write(scratch.file("group/group.toml"), format!("seeds = \"0..2\"\ndevice = \"cpu\"\n{record}"))
        .expect("it can be");
    scratch.refuses("resume group --python ./python", "--env gym:evil:Evil-v0");
    scratch.allows("resume group --python ./python --env gym:evil:Evil-v0");
}

#[test]
fn what_the_user_has_said_is_known_in_that_directory_alone() {
    let scratch = Scratch::new("known");
    // The user trains; that the Python is of no use does not matter here.
    assert!(scratch.expect("gym:evil:Evil-v0 --env-arg g=1 --env-arg h=2 --python ./python", 2, "python"));
    scratch.disguise("gym:evil:Evil-v0", "\n[env_args]\ng = \"1\"\n");
    for command in COMMANDS {
        scratch.allows(command);
    }
    scratch.allows("eval a/run --env-arg render_mode=human --python ./python");
    let elsewhere = "eval ../a/run --python ../python";
    assert!(!scratch.expect_in("elsewhere", elsewhere, 2, &format!("if you trust it: sac {elsewhere} --trust")));
    scratch.replace("a/run/config.toml", "g = \"1\"", "g = \"2\"");
    scratch.refuses("eval a/run --python ./python", "--trust");
    // What is torn or of a stranger's making in the file is passed over.
    fs::write(scratch.file("state/soft-actor-critic/environments.jsonl"), "{\"directory\": \n\u{0}[]\n")
        .expect("it is there");
    scratch.refuses("eval b/run --python ./python", "--trust");
}

#[test]
fn a_policy_acts_in_the_environment_that_is_named() {
    let scratch = Scratch::new("chosen");
    scratch.expect("eval a/run --episodes 1 --env mountain-car", 2, "observation");
    scratch.disguise("gym:evil:Evil-v0", "\n[env_args]\ng = \"1\"\n");
    assert!(!scratch.expect("eval a/run --episodes 1 --env pendulum", 0, ""));
}
