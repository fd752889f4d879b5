//! The program with `--device`, on a driver that only pretends to have GPUs (`tests/host/driver.cpp`).
#![cfg(all(feature = "program", target_os = "linux"))]

#[allow(dead_code, reason = "only the compiling is needed here")]
mod host;

use soft_actor_critic::config::Precision;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Runs `sac` with the pretended driver, something wrong with it, and a cache of its own.
fn sac(fault: &str, cache: &str, arguments: &[&str]) -> Option<Output> {
    Some(command(fault, cache, arguments)?.output().expect("it can be run"))
}

fn command(fault: &str, cache: &str, arguments: &[&str]) -> Option<Command> {
    static DRIVER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let driver = DRIVER.get_or_init(|| host::compile("driver.cpp", "libcuda.so", Precision::F32)).as_ref()?;
    Some(command_on(driver, fault, cache, arguments))
}

/// As [`sac`], with a driver whose kernels have products in tf32.
fn sac_in_tf32(fault: &str, cache: &str, arguments: &[&str]) -> Option<Output> {
    static DRIVER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let driver = DRIVER.get_or_init(|| host::compile("driver.cpp", "libcuda.so", Precision::Tf32)).as_ref()?;
    Some(command_on(driver, fault, cache, arguments).output().expect("it can be run"))
}

fn command_on(driver: &Path, fault: &str, cache: &str, arguments: &[&str]) -> Command {
    let folder = driver.parent().expect("it is in a folder");
    // What the system knows besides stays known, NVRTC above all.
    let libraries = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let libraries = std::env::join_paths([folder.to_path_buf()].into_iter().chain(std::env::split_paths(&libraries)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
    command.args(arguments).current_dir(new_folder("work"));
    command.env("LD_LIBRARY_PATH", libraries.expect("no path has a colon"));
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join(cache));
    command.env("FAKE_CUDA", fault);
    command
}

/// An empty folder that no other test has.
fn new_folder(name: &str) -> PathBuf {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cuda-{}-{name}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("it can be made");
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A small run into `out`, whose updates are made layer by layer.
fn small<'a>(out: &'a str, device: &'a str) -> Vec<&'a str> {
    small_of("8,8", out, device)
}

/// A small run into `out` with these hidden layers.
fn small_of<'a>(hidden: &'a str, out: &'a str, device: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["pendulum", "--device", device, "--out", out, "--steps", "420", "--hidden", hidden];
    arguments.extend(["--batch", "8", "--eval-every", "100", "--eval-episodes", "1"]);
    arguments
}

#[test]
fn a_run_on_a_gpu_learns_saves_and_repeats_itself() {
    let outs = [new_folder("a"), new_folder("b")];
    for out in &outs {
        let Some(output) = sac("", "cache-run", &small(out.to_str().expect("it is text"), "cuda:1")) else { return };
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(told.contains("device: Fake GPU 1, kernels "), "{told}");
    }
    let read = |out: &Path, name: &str| std::fs::read(out.join(name)).expect("every run has it");
    for name in ["metrics.csv", "policy.safetensors", "config.toml"] {
        assert_eq!(read(&outs[0], name), read(&outs[1], name), "{name}");
    }
    let metrics = text(&read(&outs[0], "metrics.csv"));
    assert!(metrics.lines().count() > 5 && !metrics.contains("NaN"), "{metrics}");
    // Another begins with its networks and its memory, which the device has room for, and goes on from its end; with several
    // environments and returns over several steps.
    let (first, out) = (outs[0].to_str().expect("it is text"), new_folder("c"));
    let out = out.to_str().expect("it is text");
    let several = ["--envs", "3", "--n-step", "3", "--utd", "0.5"];
    let begin = [&small(out, "cuda:1")[..], &["--init-from", first, "--with-replay"], &several].concat();
    for arguments in [&begin[..], &["resume", out, "--steps", "500"]] {
        let Some(output) = sac("", "cache-run", arguments) else { return };
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let run = outs[0].to_str().expect("it is text");
    let output = sac("", "cache-run", &["eval", run, "--episodes", "1"]).expect("there is a driver");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// A run that fails on a GPU goes on there, and ends as one that never failed; layer by layer, fused, and with the environment
/// there as well, which is nothing that keeps it from going on elsewhere.
#[test]
fn a_run_on_a_gpu_is_resumed_exactly() {
    for (hidden, envs, fault, updates) in [
        ("8,8", "1", "launch 9000", "; updates layer by layer\n"),
        ("32,32", "2", "launch 2500", "; fused updates\n"),
        ("32,32", "1", "launch 2500", "; fused updates; the whole run is on the device\n"),
    ] {
        let small_of = |hidden, out, device| [small_of(hidden, out, device), vec!["--envs", envs]].concat();
        let outs = [new_folder("whole"), new_folder("resumed")];
        let [whole, resumed] = [&outs[0], &outs[1]].map(|out| out.to_str().expect("it is text"));
        let Some(output) = sac("", "cache-run", &small_of(hidden, whole, "cuda:1")) else { return };
        assert!(output.status.success(), "{}", text(&output.stderr));
        let with_checkpoints = |out| [small_of(hidden, out, "cuda:1"), vec!["--checkpoint-every", "90"]].concat();
        let output = sac(fault, "cache-run", &with_checkpoints(resumed)).expect("there is a driver");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let output = sac("", "cache-run", &["resume", resumed]).expect("there is a driver");
        let told = text(&output.stderr);
        assert!(output.status.success() && told.contains("device: Fake GPU 1") && told.contains(updates), "{told}");
        for name in ["metrics.csv", "policy.safetensors"] {
            let read = |out: &Path| std::fs::read(out.join(name)).expect("every run has it");
            assert!(read(&outs[0]) == read(&outs[1]), "{name}");
        }
        let elsewhere = ["resume", resumed, "--steps", "450", "--device", "cpu"];
        let output = sac("", "cache-run", &elsewhere).expect("there is a driver");
        let told = text(&output.stderr);
        assert!(output.status.success() && told.contains("its results are no longer those of cuda:1"), "{told}");
    }
}

/// A small run into `out` in tf32, whose updates are fused.
fn small_in_tf32<'a>(out: &'a str, device: &'a str) -> Vec<&'a str> {
    [small_of("32,32", out, device), vec!["--precision", "tf32"]].concat()
}

/// In tf32 a run trains, fails and is resumed as in f32, with kernels of its own; where something of it is missing, one line says
/// so before anything is written.
#[test]
fn a_run_in_tf32_is_one_on_a_gpu_that_has_it() {
    let refused = |fault: &str, hidden: &str, device: &str, mend: &str| {
        let out = new_folder("tf32").join("run");
        let run = small_of(hidden, out.to_str().expect("it is text"), device);
        let output = sac_in_tf32(fault, "cache-run", &[&run[..], &["--precision", "tf32"]].concat())?;
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{fault} {device}: {told}");
        assert!(told.contains(mend) && told.trim().lines().count() == 1, "{fault} {device}: {told}");
        assert!(!out.exists(), "{fault} {device}");
        Some(())
    };
    let of_the_cpu = "precision is tf32, which the CPU does not have; say --device cuda, or --precision f32";
    for (fault, hidden, device, mend) in [
        ("turing", "32,32", "cuda", "Fake GPU 0 is of compute capability 7.5, and tf32 takes 8.0; say --precision f32"),
        ("", "8,8", "cuda", "precision is tf32, which only fused updates have"),
        ("", "32,32", "cpu", of_the_cpu),
        ("", "32,32", "auto", of_the_cpu),
    ] {
        let Some(()) = refused(fault, hidden, device, mend) else { return };
    }
    if soft_actor_critic::gpu::compile::nvrtc().is_none() {
        refused("", "32,32", "cuda", "tf32 takes NVRTC, and there is none; install it").expect("there is a driver");
        assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        println!("skipped: runs in tf32, because there is no NVRTC");
        return;
    }
    refused("refuse", "32,32", "cuda", "the driver refuses the kernels").expect("there is a driver");
    let outs = [new_folder("tf32-whole"), new_folder("tf32-resumed"), new_folder("tf32-not")];
    let [whole, resumed, in_f32] = [&outs[0], &outs[1], &outs[2]].map(|out| out.to_str().expect("it is text"));
    let output = sac_in_tf32("", "cache-run", &small_in_tf32(whole, "cuda")).expect("there is a driver");
    let told = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && told.contains("; fused updates in tf32"), "{told}");
    let with_checkpoints = [small_in_tf32(resumed, "cuda"), vec!["--checkpoint-every", "90"]].concat();
    let output = sac_in_tf32("launch 2500", "cache-run", &with_checkpoints).expect("there is a driver");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let driver = |arguments: &[&str]| sac_in_tf32("", "cache-run", arguments).expect("there is a driver");
    let output = driver(&["resume", resumed]);
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("; fused updates in tf32"), "{told}");
    let output = driver(&["resume", resumed, "--steps", "430", "--device", "cpu"]);
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains(of_the_cpu), "{told}");
    let output = sac("", "cache-run", &small_of("32,32", in_f32, "cuda")).expect("there is a driver");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let read = |out: &Path, name: &str| std::fs::read(out.join(name)).expect("every run has it");
    for name in ["metrics.csv", "policy.safetensors"] {
        assert!(read(&outs[0], name) == read(&outs[1], name), "{name}");
        assert!(read(&outs[0], name) != read(&outs[2], name), "{name}");
    }
    assert!(text(&read(&outs[0], "config.toml")).contains("precision = \"tf32\""));
}

/// A run that moves to a GPU says so, and stays there.
#[test]
fn a_run_that_moves_to_another_device_stays_there() {
    let out = new_folder("moving");
    let run = out.to_str().expect("it is text");
    let Some(output) = sac("", "cache-run", &small(run, "cpu")) else { return };
    assert!(output.status.success(), "{}", text(&output.stderr));
    let resume = |options: &[&str]| {
        let output = sac("", "cache-run", &[&["resume", run], options].concat()).expect("there is a driver");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let moved = resume(&["--steps", "430", "--device", "cuda:1"]);
    assert!(moved.contains("the run was trained on cpu until here") && moved.contains("Fake GPU 1"), "{moved}");
    let stayed = resume(&["--steps", "440"]);
    assert!(stayed.contains("Fake GPU 1") && !stayed.contains("until here"), "{stayed}");
}

/// What is wrong before training: exit code 2, one line that names the mend, and nothing written.
#[test]
fn a_gpu_that_cannot_be_used_is_told_before_anything_is_written() {
    let cases = [
        ("no-device", "cuda", "the driver finds no device; say --device cpu"),
        ("old-driver", "cuda", "its driver supports CUDA 11.4 at most; update it to one for CUDA 12"),
        ("old-device", "cuda", "Fake GPU 0 is of compute capability 6.0, below 7.5; say --device cpu"),
        ("refuse", "cuda", "the driver refuses the kernels (CUDA_ERROR_INVALID_IMAGE); install NVRTC"),
        ("memory 1000", "cuda", "MiB of memory left; free it, or say --device cpu"),
        ("memory 20000", "cuda", "a replay memory of 420 transitions do not fit there"),
        ("", "cuda:2", "there is no device 2 among its 2; say --device cuda:0, cuda:1, cpu or auto"),
        ("", "cuda:x", "it is none of auto, cpu, cuda and cuda:N"),
        ("", "gpu", "it is none of auto, cpu, cuda and cuda:N"),
    ];
    for (fault, device, mend) in cases {
        let out = new_folder("none").join("run");
        let Some(output) = sac(fault, "cache-faults", &small(out.to_str().expect("it is text"), device)) else {
            return;
        };
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{fault} {device}: {told}");
        assert!(told.contains(mend) && told.trim().lines().count() == 1, "{fault} {device}: {told}");
        assert!(!out.exists(), "{fault} {device}");
    }
}

/// A GPU that fails during training: exit code 1, and the run is there, with a policy that acts.
#[test]
fn a_gpu_that_fails_leaves_the_run() {
    let out = new_folder("failing");
    let run = out.to_str().expect("it is text");
    let Some(output) = sac("launch 9000", "cache-run", &small(run, "cuda")) else { return };
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("launching kernels failed (CUDA_ERROR_ILLEGAL_ADDRESS)"), "{told}");
    assert!(told.contains("holds the run until then, its policy the one saved last"), "{told}");
    let metrics = std::fs::read_to_string(out.join("metrics.csv")).expect("it is there");
    assert!(metrics.lines().count() > 2, "{metrics}");
    let output = sac("", "cache-run", &["eval", run, "--episodes", "1"]).expect("there is a driver");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The faster one is taken, and both times are told; a GPU that cannot be used is the reason to take the CPU.
#[test]
fn auto_says_what_it_takes_and_why() {
    for (fault, why) in [("", "device: the CPU; a step takes "), ("no-device", "the driver finds no device")] {
        let out = new_folder("auto");
        let Some(output) = sac(fault, "cache-run", &small(out.to_str().expect("it is text"), "auto")) else { return };
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(told.contains(why) && told.contains("device: the CPU"), "{told}");
    }
}

/// Kernels are compiled once, and taken from the cache after that, unless that is spoilt; a driver that refuses them gets
/// the PTX.
#[test]
fn compiled_kernels_are_kept() {
    let cache = format!("cache-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&cache).join("soft-actor-critic");
    let origin = |fault: &str| {
        let out = new_folder("cache");
        let output = sac(fault, &cache, &small(out.to_str().expect("it is text"), "cuda"))?;
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{told}");
        let (_, after) = told.split_once("device: Fake GPU 0, ").unwrap_or_else(|| panic!("{told}"));
        let (origin, _) = after.split_once("; updates").unwrap_or_else(|| panic!("{told}"));
        Some(origin.to_string())
    };
    let Some(first) = origin("") else { return };
    if soft_actor_critic::gpu::compile::nvrtc().is_none() {
        assert_eq!(first, "kernels compiled by the driver");
        assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        println!("skipped: the cache, because there is no NVRTC");
        return;
    }
    assert!(first.starts_with("kernels compiled by NVRTC "), "{first}");
    assert_eq!(origin("").as_deref(), Some("kernels from the cache"));
    let files: Vec<_> =
        std::fs::read_dir(&folder).expect("it is there").map(|entry| entry.expect("it is there").path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let whole = std::fs::read(file).expect("it is there");
    std::fs::write(file, &whole[..whole.len() / 2]).expect("it can be written");
    assert_eq!(origin(""), Some(first));
    assert_eq!(std::fs::read(file).expect("it is there"), whole);
    assert_eq!(origin("old-cubin").as_deref(), Some("kernels compiled by the driver"));
    // Those in tf32 are others.
    for origin in ["kernels compiled by NVRTC ", "kernels from the cache"] {
        let out = new_folder("cache");
        let run = small_in_tf32(out.to_str().expect("it is text"), "cuda");
        let told = text(&sac_in_tf32("", &cache, &run).expect("there is a driver").stderr);
        assert!(told.contains(origin), "{told}");
    }
}

/// Runs that differ in their seeds alone share a GPU, which is told once, and each leaves what it leaves by itself; also where
/// they are interrupted, each wherever it then is, and resumed together.
#[test]
fn seeds_at_once_on_a_gpu_are_each_as_alone() {
    let folder = new_folder("seeds");
    let at = |name: &str| folder.join(name).to_str().expect("it is text").to_string();
    let same = |left: &str, right: &str| {
        for name in ["metrics.csv", "policy.safetensors"] {
            let read = |folder: &str| std::fs::read(Path::new(folder).join(name)).expect("every run has it");
            assert!(read(left) == read(right), "{left} and {right} differ in {name}");
        }
    };
    fn small<'a>(out: &'a str, hidden: &'a str) -> Vec<&'a str> {
        let mut arguments = vec!["pendulum", "--device", "cuda:1", "--out", out, "--hidden", hidden, "--steps", "210"];
        arguments.extend(["--random-steps", "120", "--batch", "8", "--eval-every", "50", "--eval-episodes", "1"]);
        arguments
    }
    for seed in ["0", "1", "2"] {
        let out = at(&format!("alone-{seed}"));
        let arguments = [small(&out, "32,32"), vec!["--seed", seed]].concat();
        let Some(output) = sac("", "cache-run", &arguments) else { return };
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let note = "fused updates, of all 3 runs at once";
    let together = at("together");
    let arguments = [small(&together, "32,32"), vec!["--seeds", "0..3"]].concat();
    let output = sac("", "cache-run", &arguments).expect("there is a driver");
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("device: Fake GPU 1").count(), 1, "{told}");
    assert!(told.contains(note) && told.contains("seed-2: training on pendulum"), "{told}");
    // The device fails all of them, and where they then stand they go on.
    let resumed = at("resumed");
    let arguments = [small(&resumed, "32,32"), vec!["--seeds", "0..3", "--checkpoint-every", "30"]].concat();
    let output = sac("launch 700", "cache-run", &arguments).expect("there is a driver");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("3 of 3 runs failed") && told.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{told}");
    let output = sac("", "cache-run", &["resume", &resumed]).expect("there is a driver");
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains(note), "{told}");
    assert_eq!(told.matches("device: Fake GPU 1").count(), 1, "{told}");
    // Interrupted, they stand at different steps.
    let interrupted = at("interrupted");
    let arguments = [small(&interrupted, "32,32"), vec!["--seeds", "0..3", "--quiet"]].concat();
    let mut child = command("", "cache-run", &arguments).expect("there is a driver").spawn().expect("it can be run");
    let rows =
        || std::fs::read_to_string(format!("{interrupted}/seed-1/metrics.csv")).map_or(0, |text| text.lines().count());
    while rows() < 4 {
        assert!(child.try_wait().expect("it is a child of this test").is_none(), "it was to be interrupted");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("every unix has kill").success());
    assert_eq!(child.wait().expect("it is a child of this test").code(), Some(130));
    let output = sac("", "cache-run", &["resume", &interrupted]).expect("there is a driver");
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains(note), "{told}");
    for seed in 0..3 {
        let alone = at(&format!("alone-{seed}"));
        for group in [&together, &resumed, &interrupted] {
            same(&alone, &format!("{group}/seed-{seed}"));
        }
    }
    // Where the environment stays with the host, they act and learn together all the same.
    let (cars, car) = (at("cars"), at("car"));
    for (out, which, seeds) in [(&cars, "--seeds", "3..6"), (&car, "--seed", "4")] {
        let mut arguments = vec!["mountain-car", "--device", "cuda:1", "--out", out, which, seeds, "--steps", "50"];
        arguments.extend(["--random-steps", "25", "--batch", "8", "--hidden", "32,32", "--eval-every", "0"]);
        let output = sac("", "cache-run", &arguments).expect("there is a driver");
        let told = text(&output.stderr);
        assert!(output.status.success() && told.contains("fused updates") && !told.contains("whole run"), "{told}");
    }
    same(&car, &format!("{cars}/seed-4"));
    // Layer by layer each has a learner of its own.
    let out = at("layers");
    let arguments = [small(&out, "8,8"), vec!["--seeds", "0..2"]].concat();
    let output = sac("", "cache-run", &arguments).expect("there is a driver");
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("updates layer by layer") && !told.contains("at once"), "{told}");
}

/// More runs than there is room for bars are told of together, in a tenth of their steps each; too many for the memory of the
/// GPU are told before anything is written.
#[test]
fn a_crowd_on_a_gpu_is_told_of_as_one() {
    let out = new_folder("crowd").join("runs");
    let run = out.to_str().expect("it is text");
    let mut arguments = vec!["pendulum", "--device", "cuda", "--out", run, "--steps", "40", "--hidden", "32,32"];
    arguments.extend(["--batch", "8", "--random-steps", "20", "--eval-every", "20", "--eval-episodes", "1"]);
    arguments.extend(["--seeds", "5..15"]);
    let Some(output) = sac("memory 900000", "cache-run", &arguments) else { return };
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("10 agents with replay memories of 40 transitions do not fit there"), "{told}");
    assert!(
        told.contains("train fewer at a time (--seeds)") && told.trim().lines().count() == 1 && !out.exists(),
        "{told}"
    );
    let output = sac("", "cache-run", &arguments).expect("there is a driver");
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("fused updates, of all 10 runs at once"), "{told}");
    assert!(told.contains("step 400 of 400  10 of 10 runs ended"), "{told}");
    assert!(told.contains("10 runs: mean return") && !told.contains("seed-5"), "{told}");
    assert!(told.lines().count() < 16, "{told}");
    for seed in 5..15 {
        assert!(out.join(format!("seed-{seed}/policy.safetensors")).exists(), "{seed}");
    }
}
