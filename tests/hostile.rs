//! Directories that come from a stranger, and commands that come upon each other: nothing outside a run is changed, nothing
//! is waited for, nothing large is read, and what a terminal would obey does not reach it.
//!
//! `SAC_REPEAT` in the environment sets how often each pair of commands is started at once, once if it is not set.
#![cfg(all(feature = "program", unix))]

use safetensors::SafeTensors;
use serde_json::{Value, json};
use soft_actor_critic::config::Config;
use soft_actor_critic::run::{Checked, RunDirectory};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

const OPTIONS: &str = "--batch 8 --hidden 8 --random-steps 10 --eval-every 20 --eval-episodes 1 --threads 1 --keep-best --checkpoint-every 20";

/// The files of [`template`].
const FILES: [&str; 11] = [
    "config.toml",
    "metrics.csv",
    "timings.csv",
    "events.out.tfevents.sac",
    "policy.safetensors",
    "best.safetensors",
    "curve.svg",
    "checkpoint/manifest",
    "checkpoint/lock",
    "checkpoint/replay-0.bin",
    "checkpoint/state-250.safetensors",
];

/// What may be done with the run `run`, which takes 250 steps: an episode and more.
const COMMANDS: [&str; 13] = [
    "resume run --threads 1",
    "resume run --threads 1 --steps 270",
    "resume . --threads 1 --steps 290",
    "eval run --episodes 1",
    "eval run --episodes 1 --best",
    "runs run",
    "runs .",
    "plot run --out picture.svg",
    "compare run",
    "export run --format onnx --out policy.onnx",
    "export run --format safetensors --out policy.safetensors",
    "pendulum --steps 12 OPTIONS --init-from run --with-replay --out begun --quiet",
    "pendulum --steps 12 OPTIONS --config run/config.toml --out configured --quiet",
];

/// A directory of one test, where its programs run, with a directory `inside` for them and another that they must leave alone.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("inside")).expect("the target directory can be written");
        fs::create_dir_all(path.join("outside")).expect("the target directory can be written");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A run of its own in `inside/run`, and nothing else there.
    fn renew(&self) {
        fs::remove_dir_all(self.path("inside")).expect("it can be written");
        fs::create_dir_all(self.path("inside")).expect("it can be written");
        copy(template(), &self.path("inside/run"));
    }

    fn start(&self, arguments: &str) -> Child {
        // What asks for gigabytes gets none.
        let limit = if cfg!(target_os = "linux") { "ulimit -v 3000000; " } else { "" };
        let mut command = Command::new("sh");
        let arguments = arguments.replace("OPTIONS", OPTIONS);
        command.args(["-c", &format!("{limit}exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_sac")]);
        command.current_dir(self.path("inside")).args(arguments.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    /// Runs it, which must end by itself within a minute, say what is wrong in a line if it fails, and change nothing outside.
    fn sac(&self, arguments: &str, what: &str) -> Output {
        let before = tree(&self.path("outside"));
        let output = end(self.start(arguments), arguments, what);
        assert!(tree(&self.path("outside")) == before, "{what}: {arguments} has changed what is outside");
        let told = text(&output.stderr);
        let most = most_lines(arguments);
        let errors = told.lines().filter(|line| line.starts_with("error: ")).count();
        match output.status.code() {
            Some(0) => assert_eq!(errors, 0, "{what}: {arguments}: {told}"),
            Some(1 | 2) => assert!((1..=most).contains(&errors), "{what}: {arguments}: {told}"),
            _ => panic!("{what}: {arguments}: {:?}, {told}", output.status),
        }
        let asks_too_much = ["out of memory", "allocate"].iter().any(|words| told.contains(words));
        assert!(!asks_too_much, "{what}: {arguments} has read too much: {told}");
        output
    }

    /// All commands, one after another, each upon what the one before has left; and how each ended.
    fn all(&self, what: &str) -> Vec<(&'static str, Output)> {
        COMMANDS.iter().map(|command| (*command, self.sac(command, what))).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A panic here would hide why the test failed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What looks at several runs has a line for each that it leaves out, and one for all.
fn most_lines(arguments: &str) -> usize {
    let of_one = ["resume run", "eval", "export", "render", "pendulum"];
    if of_one.iter().any(|start| arguments.starts_with(start)) { 1 } else { 2 }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

fn end(mut child: Child, arguments: &str, what: &str) -> Output {
    let started = Instant::now();
    while child.try_wait().expect("it is ours").is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().expect("it is ours");
            panic!("{what}: {arguments} has not ended after a minute");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("it is ours")
}

/// A run that nobody changes.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-template-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let arguments = format!("pendulum --steps 250 {OPTIONS} --quiet --out {}", path.display());
        let made = Command::new(env!("CARGO_BIN_EXE_sac")).args(arguments.split_whitespace()).status();
        assert!(made.expect("the program starts").success());
        let mut names: Vec<_> = tree(&path).into_keys().filter(|name| path.join(name).is_file()).collect();
        names.sort();
        let mut expected = FILES.map(PathBuf::from);
        expected.sort();
        assert_eq!(names, expected, "every file of a run has its cases here");
        path
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it can be written");
    for entry in fs::read_dir(from).expect("it is there") {
        let path = entry.expect("it can be listed").path();
        let to = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).expect("it can be copied");
        }
    }
}

type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// What is in a directory: files with their bytes, links with what they lead to.
fn tree(path: &Path) -> Tree {
    let mut tree = BTreeMap::new();
    let mut folders = vec![path.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it is there") {
            let entry = entry.expect("it can be listed");
            let (path_of, kind) = (entry.path(), entry.file_type().expect("it is there"));
            let content = if kind.is_symlink() {
                fs::read_link(&path_of).expect("it is a link").into_os_string().into_encoded_bytes()
            } else if kind.is_file() {
                fs::read(&path_of).expect("it can be read")
            } else {
                if kind.is_dir() {
                    folders.push(path_of.clone());
                }
                Vec::new()
            };
            tree.insert(path_of.strip_prefix(path).expect("it is inside").to_path_buf(), content);
        }
    }
    tree
}

/// Links at every file, with what belongs there behind them, and with nothing: neither is followed.
#[test]
fn links_at_files_are_not_followed() {
    let scratch = Scratch::new("links");
    for (file, there) in FILES.iter().flat_map(|file| [(file, true), (file, false)]) {
        scratch.renew();
        let (inside, outside) = (scratch.path("inside/run").join(file), scratch.path("outside/file"));
        let _ = fs::remove_file(&outside);
        if there {
            fs::copy(&inside, &outside).expect("it can be copied");
        }
        fs::remove_file(&inside).expect("it is there");
        symlink("../".repeat(file.split('/').count() + 1) + "outside/file", &inside).expect("nothing is there");
        let what = format!("{file} is a link to {}", if there { "what it was" } else { "nothing" });
        for (command, output) in scratch.all(&what) {
            // Pictures and policies are replaced whole, and with them the link.
            let is_replaced = matches!(*file, "curve.svg" | "policy.safetensors" | "best.safetensors");
            let told = text(&output.stderr);
            if command.starts_with("resume") && !is_replaced {
                assert!(!output.status.success() && told.contains("symbolic link"), "{what}: {command}: {told}");
            }
        }
    }
}

/// Links under the names that a run gives to files before they are whole.
#[test]
fn links_at_temporary_files_are_not_followed() {
    let scratch = Scratch::new("temporary");
    scratch.renew();
    for file in FILES {
        let outside = scratch.path("outside").join(file.replace('/', "-"));
        fs::write(&outside, "kept").expect("it can be written");
        let temporary = scratch.path("inside/run").join(file).with_extension("tmp");
        if temporary.symlink_metadata().is_err() {
            symlink(&outside, temporary).expect("nothing is there");
        }
    }
    // What the next checkpoints will be called.
    for file in ["replay-1.bin", "state-260.safetensors", "state-270.safetensors", "state-280.safetensors"] {
        let outside = scratch.path("outside").join(file);
        fs::write(&outside, "kept").expect("it can be written");
        symlink(&outside, scratch.path("inside/run/checkpoint").join(file)).expect("nothing is there");
    }
    for (command, output) in scratch.all("links at temporary files") {
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    }
}

/// A link in place of the folder, and links to runs: a directory that is resumed has no way out of it.
#[test]
fn links_at_directories_do_not_lead_out() {
    let scratch = Scratch::new("folders");
    scratch.renew();
    fs::rename(scratch.path("inside/run/checkpoint"), scratch.path("outside/checkpoint")).expect("it is there");
    symlink("../../outside/checkpoint", scratch.path("inside/run/checkpoint")).expect("nothing is there");
    for (command, output) in scratch.all("the folder is a link") {
        let told = text(&output.stderr);
        let refused = !output.status.success() && told.contains("a symbolic link is not followed");
        assert!(refused || !command.starts_with("resume"), "{command}: {told}");
    }

    scratch.renew();
    fs::rename(scratch.path("inside/run"), scratch.path("outside/run")).expect("it is there");
    symlink("../outside/run", scratch.path("inside/run")).expect("nothing is there");
    let output = scratch.sac("resume . --steps 290", "the run is a link");
    assert!(text(&output.stderr).contains("a symbolic link leads to it"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
    // What a user names is what is meant.
    let before = tree(&scratch.path("outside"));
    let output = end(scratch.start("resume run --steps 290 --threads 1"), "resume run", "the run is a link");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(tree(&scratch.path("outside")) != before);

    // The places of the runs of a group: one that is begun, and an empty directory in which one could be.
    let scratch = Scratch::new("seeds");
    scratch.sac("pendulum --seeds 0..2 --steps 40 OPTIONS --quiet --out group", "a group");
    fs::rename(scratch.path("inside/group/seed-0"), scratch.path("outside/seed-0")).expect("it is there");
    fs::create_dir(scratch.path("outside/empty")).expect("nothing is there");
    fs::remove_dir_all(scratch.path("inside/group/seed-1")).expect("it is there");
    symlink("../../outside/seed-0", scratch.path("inside/group/seed-0")).expect("nothing is there");
    symlink("../../outside/empty", scratch.path("inside/group/seed-1")).expect("nothing is there");
    for directory in ["group", "."] {
        let arguments = format!("resume {directory} --steps 60 --quiet");
        let before = tree(&scratch.path("outside"));
        let output = end(scratch.start(&arguments), &arguments, "seeds are links");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(tree(&scratch.path("outside")) == before, "{arguments}");
    }
    // A group as a whole.
    fs::rename(scratch.path("inside/group"), scratch.path("outside/group")).expect("it is there");
    symlink("../outside/group", scratch.path("inside/group")).expect("nothing is there");
    let before = tree(&scratch.path("outside"));
    for arguments in ["resume . --steps 60 --quiet", "runs ."] {
        end(scratch.start(arguments), arguments, "a group is a link");
        assert!(tree(&scratch.path("outside")) == before, "{arguments}");
    }
}

/// Pipes in place of files, on which nobody writes: none is waited for.
#[test]
fn pipes_are_refused() {
    let scratch = Scratch::new("pipes");
    for file in FILES.iter().chain(&["group.toml", "lock"]) {
        scratch.renew();
        let is_of_group = ["group.toml", "lock"].contains(file);
        let path = if is_of_group { scratch.path("inside") } else { scratch.path("inside/run") }.join(file);
        let _ = fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(&path).status().expect("there is a mkfifo").success());
        scratch.all(&format!("{file} is a pipe"));
    }
    for arguments in [
        "pendulum --config pipe --out new",
        "pendulum --init-from pipe --out new",
        "eval pipe",
        "export pipe --format c",
        "render pipe",
    ] {
        let pipe = scratch.path("inside/pipe");
        if !pipe.exists() {
            assert!(Command::new("mkfifo").arg(&pipe).status().expect("there is a mkfifo").success());
        }
        assert_eq!(scratch.sac(arguments, "a pipe").status.code(), Some(2), "{arguments}");
    }
}

/// Files that say they are large, and have nothing, or nothing after what belongs there.
#[test]
fn large_files_are_not_read() {
    const LARGE: u64 = 6 << 30;
    let scratch = Scratch::new("large");
    for (file, keeps) in FILES.iter().chain(&["group.toml"]).flat_map(|file| [(file, true), (file, false)]) {
        scratch.renew();
        let is_of_group = *file == "group.toml";
        let path = if is_of_group { scratch.path("inside") } else { scratch.path("inside/run") }.join(file);
        let opened = if keeps && !is_of_group { File::options().write(true).open(&path) } else { File::create(&path) };
        opened.and_then(|file| file.set_len(LARGE)).expect("it takes no room");
        let what = format!("{file} has 6 GiB, {} zeros", if keeps { "after what it was all" } else { "all" });
        let outputs = scratch.all(&what);
        if file.contains("replay-0") && keeps {
            // Beyond what the manifest says, nothing is looked at.
            for (command, output) in outputs {
                assert!(output.status.success(), "{what}: {command}: {}", text(&output.stderr));
            }
        }
    }
    // A manifest that says so does not make a file of transitions longer than they are.
    scratch.renew();
    let manifest = scratch.path("inside/run/checkpoint/manifest");
    let written = fs::read_to_string(&manifest).expect("it is there");
    let mut said: Value = serde_json::from_str(written.lines().next().expect("it has lines")).expect("it is JSON");
    said["current"]["replay"]["0"] = json!(Checked { bytes: LARGE, crc32: 0 });
    let line = said.to_string();
    fs::write(&manifest, format!("{line}\n{:08x}\n", Checked::of(line.as_bytes()).crc32)).expect("it can be written");
    let replay = File::create(scratch.path("inside/run/checkpoint/replay-0.bin"));
    replay.and_then(|file| file.set_len(LARGE)).expect("it takes no room");
    let output = scratch.sac("resume run --steps 270", "the manifest names 6 GiB");
    assert!(text(&output.stderr).contains("replay-0.bin has another length"), "{}", text(&output.stderr));
    // Files that the user names.
    let large = File::create(scratch.path("inside/large"));
    large.and_then(|file| file.set_len(LARGE)).expect("it takes no room");
    for arguments in ["pendulum --config large --out new", "pendulum --init-from large --out new", "eval large"] {
        assert_eq!(scratch.sac(arguments, "a large file").status.code(), Some(2), "{arguments}");
    }
    let header = br#"{"a":{"dtype":"U8","shape":[6442450926],"data_offsets":[0,6442450926]}}"#;
    let start = [&(header.len() as u64).to_le_bytes(), &header[..]].concat();
    fs::write(scratch.path("inside/large"), start).expect("it can be written");
    let large = File::options().write(true).open(scratch.path("inside/large"));
    large.and_then(|file| file.set_len(LARGE)).expect("it takes no room");
    for arguments in ["pendulum --init-from large --out new", "eval large"] {
        assert_eq!(scratch.sac(arguments, "a large tensor").status.code(), Some(2), "{arguments}");
    }
}

/// Other names of the files of a run, as a backup by hard links has them: a run goes on, and they keep what they have.
#[test]
fn other_names_of_files_keep_what_they_have() {
    let scratch = Scratch::new("names");
    scratch.renew();
    for file in FILES {
        let outside = scratch.path("outside").join(file.replace('/', "-"));
        fs::hard_link(scratch.path("inside/run").join(file), outside).expect("nothing is there");
    }
    for (command, output) in scratch.all("all files have other names") {
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    }
}

/// Everything that is printed, but for the ends of lines.
fn harmful(output: &Output) -> Option<char> {
    let told = text(&output.stdout) + &text(&output.stderr);
    told.chars().find(|&c| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)))
}

/// What a terminal obeys, in everything of a file that is printed.
#[test]
fn what_a_terminal_obeys_is_not_printed() {
    /// Clears the screen; the same in one character; turns the order of what follows round.
    const EVIL: &str = "\u{1b}[2J\u{9b}2J\u{202e}\u{7}";
    let scratch = Scratch::new("terminal");
    let escaped: String = EVIL.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
    let check = |what: &str| {
        for (command, output) in scratch.all(what) {
            assert_eq!(harmful(&output), None, "{what}: {command}");
        }
        let picture = fs::read_to_string(scratch.path("inside/picture.svg")).unwrap_or_default();
        assert!(!picture.contains(|c: char| c.is_control() && c != '\n'), "{what}: no SVG may hold that");
    };
    let config = scratch.path("inside/run/config.toml");
    let read = || fs::read_to_string(&config).expect("it is there");
    let changes: [(&str, &dyn Fn() -> String); 7] = [
        ("the environment", &|| read().replace("\"pendulum\"", &format!("\"{escaped}\""))),
        ("the environment and its module", &|| read().replace("\"pendulum\"", &format!("\"gym:{escaped}:A-v0\""))),
        ("an argument", &|| format!("{}\n[env_args]\n\"{escaped}\" = \"{escaped}\"\n", read())),
        ("a key", &|| format!("\"{escaped}\" = 1\n{}", read())),
        ("a value", &|| read().replace("activation = \"relu\"", &format!("activation = \"{escaped}\""))),
        ("the format", &|| read().replace("format = 1", &format!("format = \"{escaped}\""))),
        ("what is no TOML", &|| format!("{EVIL} = {EVIL}\n{}", read())),
    ];
    for (what, change) in changes {
        scratch.renew();
        let changed = change();
        assert!(changed != read());
        fs::write(&config, &changed).expect("it can be written");
        check(what);
        // The same of a group.
        let head = "seeds = \"0..2\"\ndevice = \"cpu\"\n";
        fs::write(scratch.path("inside/group.toml"), format!("{head}{changed}")).expect("it can be written");
        let output = scratch.sac("resume . --threads 1", what);
        assert_eq!(harmful(&output), None, "{what} of a group");
    }
    for head in ["seeds = \"EVIL\"\ndevice = \"cpu\"\n", "seeds = \"0..1\"\ndevice = \"EVIL\"\n", "\"EVIL\" = 1\n"] {
        scratch.renew();
        fs::write(scratch.path("inside/group.toml"), head.replace("EVIL", &escaped)).expect("it can be written");
        check("group.toml");
    }

    // Metadata of a policy, and names of tensors.
    scratch.renew();
    let bytes = fs::read(template().join("policy.safetensors")).expect("it is there");
    let policy = SafeTensors::deserialize(&bytes).expect("it is whole");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("it is whole");
    let metadata = header.metadata().clone().expect("it has some");
    let write = |metadata: HashMap<String, String>, rename: &dyn Fn(&str) -> String| {
        let tensors = policy.tensors().into_iter().map(|(name, tensor)| (rename(&name), tensor));
        let bytes = safetensors::serialize(tensors, Some(metadata)).expect("the names differ");
        fs::write(scratch.path("inside/run/policy.safetensors"), &bytes).expect("it can be written");
        fs::write(scratch.path("inside/evil.safetensors"), &bytes).expect("it can be written");
    };
    let check_policy = |what: &str| {
        for arguments in [
            "eval run --episodes 1",
            "export run --format c --out new.c",
            "export run --format rust --out new.rs",
            "pendulum --steps 12 OPTIONS --init-from evil.safetensors --quiet --out new",
            "pendulum --steps 12 OPTIONS --init-from run --quiet --out new",
        ] {
            for out in ["new", "new.c", "new.rs"] {
                let out = scratch.path("inside").join(out);
                let _ = fs::remove_file(&out).or_else(|_| fs::remove_dir_all(&out));
            }
            assert_eq!(harmful(&scratch.sac(arguments, what)), None, "{what}: {arguments}");
        }
    };
    for key in metadata.keys() {
        let mut changed = metadata.clone();
        changed.insert(key.clone(), EVIL.into());
        write(changed, &|name| name.into());
        check_policy(&format!("the {key} of a policy"));
    }
    write(metadata.clone(), &|name| name.replace("mean", EVIL));
    check_policy("names of tensors");
    let header = format!(r#"{{"{escaped}":{{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}}}"#);
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    fs::write(scratch.path("inside/run/policy.safetensors"), &bytes).expect("it can be written");
    fs::write(scratch.path("inside/evil.safetensors"), &bytes).expect("it can be written");
    check_policy("a header");

    // Names of directories, and of what is told to scripts.
    scratch.renew();
    fs::rename(scratch.path("inside/run"), scratch.path("inside").join(EVIL)).expect("it is there");
    fs::create_dir_all(scratch.path("inside").join(format!("{EVIL}{EVIL}"))).expect("it can be written");
    fs::write(scratch.path("inside").join(format!("{EVIL}{EVIL}/config.toml")), "").expect("it can be written");
    for arguments in [
        "runs .",
        "plot . --out p.svg",
        "compare .",
        "resume . --steps 290",
        "resume . --steps 300 --log json",
        "eval .",
    ] {
        let output = end(scratch.start(arguments), arguments, "names of directories");
        assert_eq!(harmful(&output), None, "{arguments}");
        text(&output.stdout).lines().filter(|line| line.starts_with('{')).for_each(|line| {
            serde_json::from_str::<Value>(line).expect("it is still JSON");
        });
    }
}

/// While another process has the lock of a run, no command changes anything in it, nor in what is about to become a run.
#[test]
fn nothing_is_written_without_the_lock() {
    let scratch = Scratch::new("locked");
    scratch.renew();
    let (run, _) = RunDirectory::open(&scratch.path("inside/run")).expect("it is a run");
    let lock = run.lock().expect("nobody trains it");
    let before = tree(&scratch.path("inside/run"));
    let writers = COMMANDS.iter().filter(|command| command.starts_with("resume"));
    for command in writers.chain(&["resume run --steps 300 --device cpu"]) {
        let output = scratch.sac(command, "the run is locked");
        let told = text(&output.stderr);
        assert!(!output.status.success() && told.contains("another process trains this run"), "{command}: {told}");
        assert!(tree(&scratch.path("inside/run")) == before, "{command}");
    }
    drop(lock);
    assert!(scratch.sac("resume run --steps 270", "the run is free again").status.success());

    // A new run is locked before it has anything that makes it one, and a group begins none there.
    fs::create_dir(scratch.path("inside/group")).expect("nothing is there");
    let head = "seeds = \"0..1\"\ndevice = \"cpu\"\n";
    let config = fs::read_to_string(template().join("config.toml")).expect("it is there");
    fs::write(scratch.path("inside/group/group.toml"), format!("{head}{config}")).expect("it can be written");
    let new = RunDirectory::create(Some(&scratch.path("inside/group/seed-0")), "pendulum", &Config::default(), None)
        .expect("nothing is there");
    let before = tree(new.path());
    for command in ["resume group", "pendulum --out group/seed-0"] {
        let output = scratch.sac(command, "the run is being begun");
        assert!(!output.status.success(), "{command}");
        assert!(tree(new.path()) == before, "{command}");
    }
    drop(new);
    assert!(scratch.sac("resume group --quiet", "nobody begins it").status.success());
}

/// Files of a run but for its times and its lock.
fn content(run: &Path) -> Tree {
    let mut content = if run.exists() { tree(run) } else { BTreeMap::new() };
    content.retain(|name, _| {
        !["timings.csv", "events.out.tfevents.sac", "checkpoint/lock"].iter().any(|n| name == Path::new(n))
    });
    content
}

/// Of those that begin a run in one directory at the same moment, one does, and the others take nothing away from it.
#[test]
fn one_of_several_begins_a_run() {
    let scratch = Scratch::new("beginners");
    for attempt in 0..300 {
        let path = scratch.path(&format!("run-{attempt}"));
        let begun: Vec<_> = thread::scope(|scope| {
            let begin = || RunDirectory::create(Some(&path), "pendulum", &Config::default(), None);
            let beginners: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
            beginners.into_iter().map(|beginner| beginner.join().expect("nothing panics")).collect()
        });
        let errors: Vec<_> = begun.iter().filter_map(|begun| begun.as_ref().err()).map(ToString::to_string).collect();
        let fits = |error: &String| error.contains("already holds files") || error.contains("another process trains");
        assert!(errors.len() == 3 && errors.iter().all(fits), "{attempt}: {errors:?}");
        assert!(path.join("config.toml").exists() && path.join("checkpoint/lock").exists());
    }
}

/// Every pair of commands at once, upon a run, upon one that is not finished, and upon nothing: what is left is what one of
/// them leaves, or both one after the other.
#[test]
fn two_commands_at_once_leave_what_one_after_the_other_leaves() {
    const PAIRED: [&str; 9] = [
        "pendulum --steps 250 --seed 0 OPTIONS --quiet --out run",
        "pendulum --steps 250 --seed 1 OPTIONS --quiet --out run",
        "resume run --threads 1 --quiet",
        "resume run --threads 1 --quiet --steps 270",
        "resume . --threads 1 --quiet --steps 290",
        "eval run --episodes 1",
        "runs run",
        "export run --format c --out policy.c",
        "plot run --out picture.svg",
    ];
    let repeat = std::env::var("SAC_REPEAT").map_or(1, |times| times.parse().expect("it is a number"));
    let scratch = Scratch::new("pairs");
    let renew = |begin: &str| {
        scratch.renew();
        match begin {
            "nothing" => fs::remove_dir_all(scratch.path("inside/run")).expect("it is there"),
            "an unfinished run" => {
                let config = scratch.path("inside/run/config.toml");
                let text = fs::read_to_string(&config).expect("it is there");
                fs::write(&config, text.replace("steps = 250", "steps = 260")).expect("it can be written");
            }
            _ => (),
        }
    };
    // By what has been done one after the other.
    let mut known: HashMap<(&str, Vec<&str>), Tree> = HashMap::new();
    for begin in ["nothing", "a run", "an unfinished run"] {
        for (i, one) in PAIRED.iter().enumerate() {
            for other in &PAIRED[i..] {
                let writes =
                    |command: &str| !["eval", "runs", "export", "plot"].iter().any(|word| command.starts_with(word));
                if !writes(one) && !writes(other) {
                    continue;
                }
                let orders = [vec![*one], vec![*other], vec![*one, *other], vec![*other, *one]];
                let possible = orders.map(|commands| {
                    let commands: Vec<_> = commands.into_iter().filter(|command| writes(command)).collect();
                    let content = known.entry((begin, commands.clone())).or_insert_with(|| {
                        renew(begin);
                        commands.iter().for_each(|command| drop(end(scratch.start(command), command, begin)));
                        content(&scratch.path("inside/run"))
                    });
                    content.clone()
                });
                for _ in 0..repeat {
                    renew(begin);
                    let what = format!("{begin}: {one} and {other}");
                    let started = [one, other].map(|command| scratch.start(command));
                    for (child, command) in started.into_iter().zip([one, other]) {
                        let output = end(child, command, &what);
                        let told = text(&output.stderr);
                        let most = most_lines(command);
                        let lines = told.lines().filter(|line| line.starts_with("error: ")).count();
                        match output.status.code() {
                            Some(0) => assert_eq!(lines, 0, "{what}: {command}: {told}"),
                            Some(1 | 2) => assert!((1..=most).contains(&lines), "{what}: {command}: {told}"),
                            code => panic!("{what}: {command}: {code:?}: {told}"),
                        }
                    }
                    let left = content(&scratch.path("inside/run"));
                    if !possible.contains(&left) {
                        let names = |content: &Tree| content.keys().cloned().collect::<Vec<_>>();
                        let differs = |name: &&PathBuf| possible.iter().all(|one| one.get(*name) != left.get(*name));
                        let differ: Vec<_> = left.keys().filter(differs).collect();
                        panic!("{what}: {:?} is left, in which {differ:?} differ", names(&left));
                    }
                }
            }
        }
    }
}
