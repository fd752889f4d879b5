//! Exported policies against the program's own actions: C and Rust by this machine's compilers, ONNX by onnxruntime.
#![cfg(feature = "program")]

use rand::Rng;
use rand_distr::StandardNormal;
use soft_actor_critic::actor::Actor;
use soft_actor_critic::config::{Config, Heads, LogStdForm};
use soft_actor_critic::env::Bounds;
use soft_actor_critic::export::{to_c, to_onnx, to_rust};
use soft_actor_critic::nn::{Activation, Mean};
use soft_actor_critic::normalizer::Normalizer;
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::Policy;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const OBSERVATIONS: usize = 5;
const ACTIONS: usize = 3;
const SAMPLES: usize = 10_000;

/// Policies of every form, with weights large enough that some actions reach their bounds, which differ by dimension.
fn actors() -> Vec<Actor> {
    let form = |hidden: &[usize], activation, policy_heads, mean, log_std| Config {
        policy_hidden: hidden.to_vec(),
        activation,
        policy_heads,
        mean,
        log_std,
        log_std_min: -4.0,
        log_std_max: 1.0,
        ..Config::default()
    };
    let configs = [
        form(&[33, 17], Activation::Relu, Heads::Shared, Mean::Raw, LogStdForm::Clamp),
        form(&[256, 256], Activation::Relu, Heads::Shared, Mean::Raw, LogStdForm::Tanh),
        form(&[7], Activation::Tanh, Heads::Separate, Mean::Tanh, LogStdForm::Tanh),
        form(&[], Activation::Relu, Heads::Shared, Mean::Raw, LogStdForm::Clamp),
    ];
    let actor = |(i, config): (usize, &Config)| {
        let policy = Policy::new(config, OBSERVATIONS, ACTIONS);
        let mut rng = Philox::new(i as u64, Stream::Init, 0);
        let mut theta: Vec<f32> = policy.initial(config, &mut rng);
        theta.iter_mut().for_each(|value| *value *= 2.5);
        let bounds = Bounds::new(vec![-2.0, 0.0, -0.3], vec![2.0, 10.0, 0.1]).expect("they are ranges");
        Actor::new(policy, theta, bounds)
    };
    let mut actors: Vec<_> = configs.iter().enumerate().map(actor).collect();
    // Some that see observations normalized; those of one dimension are often beyond the limit.
    let normalized = [0, 2].map(|i: usize| {
        let mean = vec![0.3, -1.0, 2.0, 0.0, 0.7];
        let normalizer = Normalizer::from_statistics(100.0, mean, vec![4.0, 0.5, 30.0, 0.03, 1.0]);
        actors[i].clone().with_normalizer(Some(normalizer.expect("they are statistics")))
    });
    actors.extend(normalized);
    actors
}

/// Observations and noise, row by row.
fn inputs() -> (Vec<f32>, Vec<f32>) {
    let mut rng = Philox::new(5, Stream::Evaluation, 0);
    let mut normal = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.sample(StandardNormal)).collect() };
    (normal(SAMPLES * OBSERVATIONS).into_iter().map(|x| 2.0 * x).collect(), normal(SAMPLES * ACTIONS))
}

/// The program's own actions.
fn expected(actor: &Actor, stochastic: bool) -> Vec<f32> {
    let mut actor = actor.clone();
    let (observations, noise) = inputs();
    let mut actions = vec![0.0; SAMPLES * ACTIONS];
    let rows = observations.chunks(OBSERVATIONS).zip(noise.chunks(ACTIONS)).zip(actions.chunks_mut(ACTIONS));
    for ((observation, noise), action) in rows {
        actor.act(observation, stochastic.then_some(noise), action);
    }
    actions
}

/// Asserts that no action is further than 1e-5 of its range from the program's, and returns the furthest.
fn compare(actor: &Actor, actions: &[f32], stochastic: bool, what: &str) -> f32 {
    let expected = expected(actor, stochastic);
    let ranges = actor.bounds().high().iter().zip(actor.bounds().low()).map(|(high, low)| high - low);
    let ranges: Vec<f32> = ranges.collect();
    assert_eq!(actions.len(), expected.len());
    let errors = actions.iter().zip(&expected).zip(ranges.iter().cycle()).map(|((x, y), range)| (x - y).abs() / range);
    let worst = errors.fold(0.0, |worst: f32, error| if error > worst || error.is_nan() { error } else { worst });
    assert!(worst <= 1e-5, "{what} differs by {worst:.1e} of the range");
    worst
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("export-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).expect("it can be made");
    folder
}

/// Runs a compiler and expects it to be content; false, with a word about it, if there is none.
fn compiles(command: &mut Command) -> bool {
    let Ok(output) = command.output() else {
        println!("skipped: there is no {:?}", command.get_program());
        assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        return false;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// Calls `run(observations, noise, actions, samples)` of a library.
fn run(library: &Path) -> Vec<f32> {
    type Run = unsafe extern "C" fn(*const f32, *const f32, *mut f32, usize);
    let (observations, noise) = inputs();
    let mut actions = vec![f32::NAN; SAMPLES * ACTIONS];
    // SAFETY: the library was made from what the tests below wrote, and the arrays are of the lengths that it expects.
    unsafe {
        let library = libloading::Library::new(library).expect("it has just been built");
        let run = library.get::<Run>("run").expect("it has this function");
        run(observations.as_ptr(), noise.as_ptr(), actions.as_mut_ptr(), SAMPLES);
    }
    actions
}

#[test]
fn c_acts_as_the_program_does() {
    let folder = folder("c");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    for (i, actor) in actors().iter().enumerate() {
        for stochastic in [false, true] {
            let (source, object) = (folder.join("policy.c"), folder.join("policy.o"));
            fs::write(&source, to_c(actor, "a test", stochastic)).expect("it can be written");
            let strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-O1", "-fPIC"];
            if !compiles(Command::new(&compiler).args(strict).arg("-c").arg(&source).arg("-o").arg(&object)) {
                return;
            }
            let noise = if stochastic { "noise + i * 3, " } else { "" };
            let caller = format!(
                "#include <stddef.h>\n#include \"policy.c\"\n\
                 void run(const float *observations, const float *noise, float *actions, size_t samples) {{\n\
                 (void)noise;\n\
                 for (size_t i = 0; i < samples; i++) policy_act(observations + i * 5, {noise}actions + i * 3);\n}}\n"
            );
            let (file, library) = (folder.join("caller.c"), folder.join(format!("policy-{i}-{stochastic}.so")));
            fs::write(&file, caller).expect("it can be written");
            assert!(compiles(
                Command::new(&compiler).args(["-O1", "-shared", "-fPIC"]).arg(&file).arg("-o").arg(&library)
            ));
            let worst = compare(actor, &run(&library), stochastic, &format!("C, policy {i}"));
            println!("C, policy {i}, stochastic {stochastic}: {worst:.1e} of the range");
        }
    }
}

#[test]
fn rust_acts_as_the_program_does() {
    let folder = folder("rust");
    for (i, actor) in actors().iter().enumerate() {
        for stochastic in [false, true] {
            fs::write(folder.join("policy.rs"), to_rust(actor, "a test", stochastic)).expect("it can be written");
            let core = folder.join("core.rs");
            fs::write(&core, "#![no_std]\n#![deny(warnings)]\npub mod policy;\n").expect("it can be written");
            let rustc = || {
                let mut command = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()));
                command.args(["--edition", "2021", "-C", "opt-level=1", "--out-dir"]).arg(&folder);
                command
            };
            if !compiles(rustc().args(["--crate-type", "lib"]).arg(&core)) {
                return;
            }
            let noise = if stochastic { ", noise.try_into().unwrap()" } else { "" };
            let caller = format!(
                "mod policy;\n#[no_mangle]\n\
                 pub unsafe extern \"C\" fn run(observations: *const f32, noise: *const f32, actions: *mut f32, samples: usize) {{\n\
                 for i in 0..samples {{\n\
                 let observation = std::slice::from_raw_parts(observations.add(i * 5), 5);\n\
                 let noise = std::slice::from_raw_parts(noise.add(i * 3), 3);\n\
                 let _ = &noise;\n\
                 let action = policy::act(observation.try_into().unwrap(){noise});\n\
                 std::slice::from_raw_parts_mut(actions.add(i * 3), 3).copy_from_slice(&action);\n}}\n}}\n"
            );
            let name = format!("caller_{i}_{stochastic}");
            let file = folder.join(format!("{name}.rs"));
            fs::write(&file, caller).expect("it can be written");
            assert!(compiles(rustc().args(["--crate-type", "cdylib"]).arg(&file)));
            let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
            let actions = run(&folder.join(format!("{prefix}{name}{suffix}")));
            let worst = compare(actor, &actions, stochastic, &format!("Rust, policy {i}"));
            println!("Rust, policy {i}, stochastic {stochastic}: {worst:.1e} of the range");
        }
    }
}

/// onnxruntime itself reads the model; `PYTHON` names the interpreter that has it.
#[test]
fn onnxruntime_acts_as_the_program_does() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import onnxruntime, numpy"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} has no onnxruntime; pip install onnxruntime");
        assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        return;
    }
    let folder = folder("onnx");
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let (observations, noise) = inputs();
    fs::write(folder.join("observations"), bytes(&observations)).expect("it can be written");
    fs::write(folder.join("noise"), bytes(&noise)).expect("it can be written");
    let script = "
import sys, numpy, onnxruntime
folder, stochastic = sys.argv[1], sys.argv[2] == 'true'
read = lambda name, width: numpy.fromfile(folder + '/' + name, numpy.float32).reshape(-1, width)
session = onnxruntime.InferenceSession(folder + '/policy.onnx')
inputs = {'observation': read('observations', 5)}
if stochastic:
    inputs['noise'] = read('noise', 3)
assert [i.name for i in session.get_inputs()] == list(inputs)
session.run(['action'], inputs)[0].tofile(folder + '/actions')
assert session.run(None, {name: rows[:1] for name, rows in inputs.items()})[0].shape == (1, 3)
";
    for (i, actor) in actors().iter().enumerate() {
        for stochastic in [false, true] {
            fs::write(folder.join("policy.onnx"), to_onnx(actor, "a test", stochastic)).expect("it can be written");
            let place = folder.to_str().expect("it is text");
            assert!(compiles(Command::new(&python).args(["-c", script, place, &stochastic.to_string()])));
            let actions = fs::read(folder.join("actions")).expect("it has been written");
            let (actions, _) = actions.as_chunks::<4>();
            let actions: Vec<f32> = actions.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            let worst = compare(actor, &actions, stochastic, &format!("ONNX, policy {i}"));
            println!("ONNX, policy {i}, stochastic {stochastic}: {worst:.1e} of the range");
        }
    }
}
