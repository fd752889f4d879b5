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

/// Ordinary observations, one element of each of which is no number or far from any that occurs; and noise.
fn extreme_inputs() -> (Vec<f32>, Vec<f32>) {
    let extremes = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38, -1e38];
    let (mut observations, mut noise) = inputs();
    let rows = extremes.len() * OBSERVATIONS;
    observations.truncate(rows * OBSERVATIONS);
    noise.truncate(rows * ACTIONS);
    for (i, observation) in observations.chunks_mut(OBSERVATIONS).enumerate() {
        observation[i % OBSERVATIONS] = extremes[i / OBSERVATIONS];
    }
    (observations, noise)
}

/// The program's own actions.
fn expected(actor: &Actor, (observations, noise): &(Vec<f32>, Vec<f32>), stochastic: bool) -> Vec<f32> {
    let mut actor = actor.clone();
    let mut actions = vec![0.0; noise.len()];
    let rows = observations.chunks(OBSERVATIONS).zip(noise.chunks(ACTIONS)).zip(actions.chunks_mut(ACTIONS));
    for ((observation, noise), action) in rows {
        actor.act(observation, stochastic.then_some(noise), action);
    }
    actions
}

/// Asserts that no action is further than 1e-5 of its range from the program's, and returns the furthest. What is not a
/// number must be none in both.
fn compare(actor: &Actor, inputs: &(Vec<f32>, Vec<f32>), actions: &[f32], stochastic: bool, what: &str) -> f32 {
    let expected = expected(actor, inputs, stochastic);
    let ranges = actor.bounds().high().iter().zip(actor.bounds().low()).map(|(high, low)| high - low);
    let ranges: Vec<f32> = ranges.collect();
    assert_eq!(actions.len(), expected.len());
    let error = |((x, y), range): ((&f32, &f32), &f32)| {
        if x.is_nan() && y.is_nan() { 0.0 } else { (x - y).abs() / range }
    };
    let errors = actions.iter().zip(&expected).zip(ranges.iter().cycle()).map(error);
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
fn run(library: &Path, (observations, noise): &(Vec<f32>, Vec<f32>)) -> Vec<f32> {
    type Run = unsafe extern "C" fn(*const f32, *const f32, *mut f32, usize);
    let mut actions = vec![f32::MAX; noise.len()];
    // SAFETY: the library was made from what the tests below wrote, and the arrays are of the lengths that it expects.
    unsafe {
        let library = libloading::Library::new(library).expect("it has just been built");
        let run = library.get::<Run>("run").expect("it has this function");
        run(observations.as_ptr(), noise.as_ptr(), actions.as_mut_ptr(), noise.len() / ACTIONS);
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
            let inputs = inputs();
            let worst = compare(actor, &inputs, &run(&library, &inputs), stochastic, &format!("C, policy {i}"));
            println!("C, policy {i}, stochastic {stochastic}: {worst:.1e} of the range");
        }
    }
}

/// NaN, infinities and numbers near them: NaN stays NaN, and nothing that C leaves undefined happens, as far as the
/// compiler can watch over it.
#[test]
fn c_acts_at_extremes_as_the_program_does() {
    let folder = folder("c-extremes");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let (file, program) = (folder.join("main.c"), folder.join("main"));
    let compile = |watch: &[&str]| {
        let mut command = Command::new(&compiler);
        command.arg("-O1").args(watch).arg(&file).arg("-o").arg(&program);
        command
    };
    let watch = ["-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all"];
    fs::write(&file, "int main(void) { return 0; }\n").expect("it can be written");
    if !compiles(&mut compile(&[])) {
        return;
    }
    let is_watched = compile(&watch).output().is_ok_and(|output| output.status.success());
    if !is_watched {
        println!("{compiler} has no sanitizer of undefined behaviour; only the actions are compared");
    }
    let watch = if is_watched { &watch[..] } else { &[] };
    let inputs = extreme_inputs();
    let rows = inputs.0.chunks(OBSERVATIONS).zip(inputs.1.chunks(ACTIONS));
    // In hexadecimal, which keeps every bit.
    let bits: Vec<_> = rows.flat_map(|(observation, noise)| observation.iter().chain(noise)).collect();
    let bits: Vec<_> = bits.iter().map(|value| format!("0x{:08x}u", value.to_bits())).collect();
    for (i, actor) in actors().iter().enumerate() {
        for stochastic in [false, true] {
            fs::write(folder.join("policy.c"), to_c(actor, "a test", stochastic)).expect("it can be written");
            let noise = if stochastic { "row + 5, " } else { "" };
            let caller = format!(
                "#include <stdio.h>\n#include <string.h>\n#include \"policy.c\"\n\
                 static const unsigned inputs[][8] = {{{}}};\n\
                 int main(void) {{\n\
                 for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {{\n\
                 float row[8], action[3];\nunsigned bits[3];\n\
                 memcpy(row, inputs[i], sizeof row);\n\
                 policy_act(row, {noise}action);\n\
                 memcpy(bits, action, sizeof bits);\n\
                 printf(\"%u %u %u\\n\", bits[0], bits[1], bits[2]);\n}}\nreturn 0;\n}}\n",
                bits.join(", ")
            );
            fs::write(&file, caller).expect("it can be written");
            assert!(compiles(&mut compile(watch)));
            let output = Command::new(&program).output().expect("it has just been built");
            assert!(output.status.success(), "policy {i}: {}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("it prints numbers");
            let actions = text.split_whitespace().map(|bits| f32::from_bits(bits.parse().expect("it is a number")));
            let actions: Vec<f32> = actions.collect();
            compare(actor, &inputs, &actions, stochastic, &format!("C, policy {i} at extremes"));
        }
    }
    // Not all of these actions are finite, or nothing would have been shown.
    assert!(expected(&actors()[0], &inputs, false).iter().any(|action| action.is_nan()));
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
            let (library, inputs) = (folder.join(format!("{prefix}{name}{suffix}")), inputs());
            let worst = compare(actor, &inputs, &run(&library, &inputs), stochastic, &format!("Rust, policy {i}"));
            let extremes = extreme_inputs();
            compare(actor, &extremes, &run(&library, &extremes), stochastic, &format!("Rust, policy {i} at extremes"));
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
    let inputs = inputs();
    let (observations, noise) = &inputs;
    fs::write(folder.join("observations"), bytes(observations)).expect("it can be written");
    fs::write(folder.join("noise"), bytes(noise)).expect("it can be written");
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
            let worst = compare(actor, &inputs, &actions, stochastic, &format!("ONNX, policy {i}"));
            println!("ONNX, policy {i}, stochastic {stochastic}: {worst:.1e} of the range");
        }
    }
}
