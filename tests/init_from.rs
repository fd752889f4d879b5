//! Runs that begin with the networks of another run or of a file: what is taken over, what is not, and every refusal.
#![cfg(feature = "program")]

use safetensors::tensor::{Dtype, TensorView};
use soft_actor_critic::config::{Alpha, Bootstrap, Config, Heads};
use soft_actor_critic::env::{Bounds, Env, EnvError, Pendulum, Step};
use soft_actor_critic::error::Error;
use soft_actor_critic::run::{Begun, Checkpoints, InitFrom, RunDirectory, policy_file};
use soft_actor_critic::train::{Trainer, TrainerState};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A path in a folder of this test's own, at which there is nothing.
fn new_path(name: &str) -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("init-{}-{number}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

fn sac(arguments: &str, paths: &[(&str, &Path)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sac"));
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    paths.iter().for_each(|(option, path)| {
        command.arg(option).arg(path);
    });
    command
}

fn run(arguments: &str, paths: &[(&str, &Path)]) -> Output {
    sac(arguments, paths).output().expect("the program is there")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const SMALL: &str = "pendulum --hidden 5,4 --batch 8 --random-steps 10 --eval-every 0 --threads 1";

/// A run of 60 steps.
fn source(more: &str) -> PathBuf {
    let out = new_path("source");
    let output = run(&format!("{SMALL} --steps 60 {more}"), &[("--out", &out)]);
    assert!(output.status.success(), "{}", told(&output));
    out
}

fn config() -> Config {
    Config {
        policy_hidden: vec![5, 4],
        critic_hidden: vec![5, 4],
        batch_size: 8,
        random_steps: 10,
        steps: 30,
        ..Config::default()
    }
}

fn pendulum(config: Config) -> Trainer {
    Trainer::new(|| Box::new(Pendulum::new()), config).expect("it is valid")
}

fn begin(trainer: &mut Trainer, path: &Path, with_replay: bool) -> Result<Begun, Error> {
    InitFrom::open(path, with_replay)?.begin(trainer, "pendulum")
}

/// The last state of a run, and its transitions, oldest first.
fn last_of(path: &Path) -> (TrainerState, Vec<Vec<f32>>) {
    let (run, config) = RunDirectory::open(path).expect("it is a run");
    let (_, loaded) = Checkpoints::open(&run, &config).expect("it has a checkpoint");
    (loaded.state, transitions(&loaded.replay))
}

fn transitions(replay: &soft_actor_critic::replay::Replay) -> Vec<Vec<f32>> {
    let row = |t: usize| {
        let mut row = vec![0.0; replay.transition_size()];
        replay.write_transition(t % replay.capacity(), &mut row);
        row
    };
    (replay.pushed() - replay.len()..replay.pushed()).map(row).collect()
}

fn every_file(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("it is there").map(|entry| entry.expect("it is there").path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                every_file(&path)
            } else {
                [(path.clone(), fs::read(&path).expect("it is there"))].into()
            }
        })
        .collect()
}

#[test]
fn a_run_begins_with_the_networks_of_another() {
    for (kind, more) in
        ["", "--preset v-net-auto --first-update 20", "--preset split-policy --first-update 20"].iter().enumerate()
    {
        let path = source(more);
        let (_, theirs) = RunDirectory::open(&path).expect("it is a run");
        let ours = Config { seed: 7, steps: 30, gamma: 0.9, policy_learning_rate: 1e-5, ..theirs.clone() };
        let (other, _) = last_of(&path);
        let mut trainer = pendulum(ours);
        let fresh = trainer.save().expect("the CPU does not fail");
        let begun = begin(&mut trainer, &path, false).expect("they fit");
        let state = trainer.save().expect("the CPU does not fail");
        let tuned = theirs.alpha == Alpha::Auto;
        for (name, values) in &state.learner.vectors {
            let kept = name.contains(".adam_") || name == "log_alpha" && !tuned;
            let from = if kept { &fresh } else { &other };
            assert_eq!(Some(values.as_slice()), from.learner.get(name), "{kind}: {name}");
        }
        let adam = |state: &TrainerState| state.learner.get("policy.adam_first_moment").map(<[f32]>::to_vec);
        assert!(adam(&state) != adam(&other), "the other run has not learned");
        assert_eq!(state.learner.counts, fresh.learner.counts);
        assert_eq!(TrainerState { learner: fresh.learner.clone(), ..state.clone() }, fresh);
        let both = if tuned { "networks and α" } else { "networks" };
        let note = format!(
            "--init-from {}: {both} of its step 60; its configuration differs in gamma, policy_learning_rate",
            path.display()
        );
        assert_eq!(begun.note, note);

        let (_, mut old) = policy_file::load(&path.join(policy_file::NAME)).expect("it has a policy");
        let (mut one, mut two) = ([0.0], [0.0]);
        old.act(&[0.6, 0.8, -3.0], Some(&[0.3]), &mut one);
        trainer.actor().expect("the CPU does not fail").act(&[0.6, 0.8, -3.0], Some(&[0.3]), &mut two);
        assert_eq!(one, two);
        for _ in 0..30 {
            trainer.step().expect("it trains");
        }
    }
}

/// The newest transitions, as many as there is room for; then one for each step, the first of which begins an episode.
#[test]
fn a_memory_begins_with_that_of_another_run() {
    // Cut off in the midst of an episode, with a memory that has wrapped around.
    let path = source("--replay 45");
    let (_, old) = last_of(&path);
    assert_eq!(old.len(), 45);
    for (capacity, kept) in [(1000, 45), (50, 45), (20, 20)] {
        let mut trainer = pendulum(Config { replay_capacity: capacity, ..config() });
        let begun = begin(&mut trainer, &path, true).expect("they fit");
        assert!(begun.note.ends_with(&format!("; {kept} transitions")), "{}", begun.note);
        let first = trainer.save().expect("the CPU does not fail");
        assert_eq!(
            (first.preloaded, first.steps, trainer.replay().capacity()),
            (kept as u64, 0, capacity.min(30 + kept))
        );
        assert_eq!(transitions(trainer.replay()), old[45 - kept..]);
        for step in 1..=30 {
            // Learning begins where the configuration says, however much there is to learn from.
            assert_eq!(trainer.metrics().expect("the CPU does not fail").updates, (step as u64).saturating_sub(10));
            trainer.step().expect("it trains");
            let now = transitions(trainer.replay());
            let from_old = now.len() - step.min(capacity);
            assert_eq!(now[..from_old], old[45 - from_old..], "step {step}");
            if from_old > 0 {
                assert_eq!(now[from_old][..3], first.envs[0].observation);
            }
        }
    }
}

/// [`Pendulum`] with another range of actions.
struct Weak(Pendulum);

impl Env for Weak {
    fn observation_size(&self) -> usize {
        self.0.observation_size()
    }

    fn action_bounds(&self) -> Bounds {
        Bounds::new(vec![-1.0], vec![1.0]).expect("they are valid")
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        self.0.reset(seed)
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        self.0.step(action)
    }
}

#[test]
fn another_environment_of_the_same_shapes_is_told() {
    let path = source("");
    let mut trainer = Trainer::new(|| Box::new(Weak(Pendulum::new())), config()).expect("it is valid");
    let begun = InitFrom::open(&path, false).and_then(|it| it.begin(&mut trainer, "weak")).expect("they fit");
    let expected = "; it was trained on pendulum; its actions go from [-2.0] to [2.0], not from [-1.0] to [1.0]";
    assert!(begun.note.ends_with(expected), "{}", begun.note);
    assert!(begun.origin.contains("--init-from") && begun.origin.contains("at its step 60"), "{}", begun.origin);
    let refused =
        InitFrom::open(&path, true).and_then(|it| it.begin(&mut trainer, "weak")).map(|_| ()).expect_err("they differ");
    assert!(format!("{refused:#}").contains("leave --with-replay out"), "{refused:#}");
    // A temperature that is fixed here, or was there, is that of the configuration.
    let mut fixed = pendulum(Config { alpha: Alpha::Fixed(0.3), ..config() });
    begin(&mut fixed, &path, false).expect("they fit");
    assert_eq!(fixed.save().expect("the CPU does not fail").learner.get("log_alpha"), Some(&[0.0][..]));
}

type Named = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors of layers of these widths, with numbers that tell each from the next.
fn layers(widths: &[usize], name: impl Fn(usize) -> String, number: &mut f32) -> Named {
    let mut tensors = Named::new();
    for (l, pair) in widths.windows(2).enumerate() {
        for (part, shape) in [("weight", vec![pair[1], pair[0]]), ("bias", vec![pair[1]])] {
            let values = (0..shape.iter().product()).map(|_| {
                *number = (*number + 0.37) % 1.0;
                *number - 0.5
            });
            tensors.insert(format!("{}.{part}", name(l)), (shape, values.collect()));
        }
    }
    tensors
}

/// A policy with shared heads, critics and a value network for [`config`] on the pendulum.
fn tensors() -> Named {
    let mut number = 0.1;
    let mut all = layers(&[3, 5, 4], |l| format!("trunk.{l}"), &mut number);
    all.extend(layers(&[4, 1], |_| "mean".into(), &mut number));
    all.extend(layers(&[4, 1], |_| "log_std".into(), &mut number));
    for i in 0..2 {
        all.extend(layers(&[4, 5, 4, 1], |l| format!("critic.{i}.{l}"), &mut number));
    }
    all.extend(layers(&[3, 5, 4, 1], |l| format!("value.{l}"), &mut number));
    all
}

fn without(mut tensors: Named, start: &str) -> Named {
    tensors.retain(|name, _| !name.starts_with(start));
    tensors
}

/// Writes the file as PyTorch does, without this program.
fn write(tensors: &Named, metadata: Option<HashMap<String, String>>) -> PathBuf {
    let path = new_path("file").with_extension("safetensors");
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let data: Vec<_> = tensors.iter().map(|(name, (shape, values))| (name, shape.clone(), bytes(values))).collect();
    let views = data
        .iter()
        .map(|(name, shape, data)| (*name, TensorView::new(Dtype::F32, shape.clone(), data).expect("they fit")));
    fs::write(&path, safetensors::serialize(views, metadata).expect("it can be")).expect("it can be written");
    path
}

/// y = W·x + b after the hidden layers `name.0`…, and their ReLU, as PyTorch would have it.
fn forward(tensors: &Named, names: &[String], x: &[f32]) -> Vec<f32> {
    names.iter().enumerate().fold(x.to_vec(), |x, (l, name)| {
        let (weight, bias) = (&tensors[&format!("{name}.weight")].1, &tensors[&format!("{name}.bias")].1);
        let row = |(row, bias): (&[f32], &f32)| bias + row.iter().zip(&x).map(|(w, x)| w * x).sum::<f32>();
        let y = weight.chunks_exact(x.len()).zip(bias).map(row);
        y.map(|y| if l + 1 < names.len() { y.max(0.0) } else { y }).collect()
    })
}

/// The flat vector of a network: W `[in, out]` and b, layer after layer.
fn flat(tensors: &Named, names: &[String]) -> Vec<f32> {
    let layer = |name: &String| {
        let ((shape, weight), (_, bias)) = (&tensors[&format!("{name}.weight")], &tensors[&format!("{name}.bias")]);
        let transposed = (0..shape[1]).flat_map(|i| (0..shape[0]).map(move |o| weight[o * shape[1] + i]));
        transposed.chain(bias.iter().copied()).collect::<Vec<_>>()
    };
    names.iter().flat_map(layer).collect()
}

fn names(of: &str) -> Vec<String> {
    (0..3).map(|l| format!("{of}.{l}")).collect()
}

#[test]
fn a_run_begins_with_the_networks_of_a_file() {
    let all = tensors();
    for bootstrap in [Bootstrap::TargetQ, Bootstrap::ValueNetwork] {
        let with_value = bootstrap == Bootstrap::ValueNetwork;
        let all = if with_value { all.clone() } else { without(all.clone(), "value.") };
        let mut trainer = pendulum(Config { bootstrap, ..config() });
        let fresh = trainer.save().expect("the CPU does not fail");
        // PyTorch's own metadata say nothing.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let begun = begin(&mut trainer, &write(&all, Some(metadata)), false).expect("it fits");
        let parts = if with_value { "policy, critics, value network" } else { "policy, critics" };
        assert!(begun.note.ends_with(&format!(": {parts}")), "{}", begun.note);
        let state = trainer.save().expect("the CPU does not fail").learner;
        for (name, of) in [("q1", "critic.0"), ("q2", "critic.1")] {
            let expected = flat(&all, &names(of));
            assert_eq!(state.get(name), Some(expected.as_slice()));
            let target = (!with_value).then_some(expected.as_slice());
            assert_eq!(state.get(&format!("target_{name}")), target);
        }
        if with_value {
            let expected = flat(&all, &names("value"));
            assert_eq!((state.get("value"), state.get("target_value")), (Some(&expected[..]), Some(&expected[..])));
        }
        assert_eq!(state.counts, fresh.learner.counts);
        assert_eq!(state.get("log_alpha"), fresh.learner.get("log_alpha"));
        let (observation, noise) = ([0.6, -0.8, 2.0], 0.4);
        let head = |head: &str| forward(&all, &["trunk.0".into(), "trunk.1".into(), head.into()], &observation)[0];
        let expected = 2.0 * (head("mean") + head("log_std").exp() * noise).tanh();
        let mut action = [0.0];
        trainer.actor().expect("the CPU does not fail").act(&observation, Some(&[noise]), &mut action);
        assert!((action[0] - expected).abs() < 1e-5, "{action:?}, not {expected}");
    }
    // What is not there begins as ever, and is told.
    let policy = without(without(all, "value."), "critic.");
    let mut trainer = pendulum(Config { bootstrap: Bootstrap::ValueNetwork, ..config() });
    let fresh = trainer.save().expect("the CPU does not fail").learner;
    let begun = begin(&mut trainer, &write(&policy, None), false).expect("it fits");
    assert!(begun.note.ends_with(": policy; critics begin anew; the value network begins anew"), "{}", begun.note);
    let state = trainer.save().expect("the CPU does not fail").learner;
    assert!(state.get("policy") != fresh.get("policy"));
    for name in ["q1", "q2", "value", "target_value"] {
        assert_eq!(state.get(name), fresh.get(name), "{name}");
    }
}

/// Whatever this program has written itself serves, with what its metadata say.
#[test]
fn a_run_begins_with_a_policy_file() {
    for policy_heads in [Heads::Shared, Heads::Separate] {
        let ours = Config { policy_heads, ..config() };
        let actor = pendulum(Config { seed: 3, ..ours.clone() }).actor().expect("the CPU does not fail");
        let path = new_path("policy").with_extension("safetensors");
        policy_file::save(&path, "pendulum", &actor).expect("it can be written");
        let mut trainer = pendulum(ours.clone());
        let begun = begin(&mut trainer, &path, false).expect("it fits");
        assert!(begun.note.ends_with(": policy; critics begin anew"), "{}", begun.note);
        assert_eq!(trainer.actor().expect("the CPU does not fail").theta(), actor.theta());
        let activation = soft_actor_critic::nn::Activation::Tanh;
        let mut other = pendulum(Config { activation, log_std_max: 1.0, ..ours });
        let begun = begin(&mut other, &path, false).expect("it fits");
        assert!(begun.note.ends_with("; its metadata differ in activation, log_std_max"), "{}", begun.note);
    }
}

/// Networks go with what they see observations through, and what the new run observes is counted with that of the other.
#[test]
fn statistics_of_observations_are_taken_over() {
    let normalized = Config { normalize_observations: true, ..config() };
    let path = source("--normalize-observations");
    let (state, _) = last_of(&path);
    for from in [path.clone(), path.join(policy_file::NAME)] {
        let mut trainer = pendulum(normalized.clone());
        let begun = begin(&mut trainer, &from, false).expect("they fit");
        assert!(begun.note.contains("; statistics of 61 observations"), "{}", begun.note);
        assert!(state.normalizer.is_some());
        assert_eq!(trainer.replay().normalizer, state.normalizer);
        trainer.step().expect("it trains");
        assert_eq!(trainer.replay().normalizer.as_ref().map(|normalizer| normalizer.count()), Some(63.0));
        // Without them the same networks are others.
        let error = begin(&mut pendulum(config()), &from, false).map(|_| ()).expect_err("it is normalized").to_string();
        assert!(error.contains("see normalized observations; say --normalize-observations"), "{error}");
    }
    let error = begin(&mut pendulum(normalized), &source(""), false).map(|_| ()).expect_err("it is not").to_string();
    assert!(error.contains("see observations as they are; leave out --normalize-observations"), "{error}");
    // As PyTorch would write them, from statistics of Stable-Baselines3.
    let mut trainer = pendulum(Config { normalize_observations: true, ..config() });
    let policy = without(without(tensors(), "value."), "critic.");
    for (length, expected) in [(3, None), (2, Some("of another number of observation dimensions than 3"))] {
        let statistics = [("count", vec![7.0001]), ("mean", vec![0.5; length]), ("variance", vec![4.0; length])];
        let path = write_with_statistics(&policy, &statistics);
        match (begin(&mut trainer, &path, false), expected) {
            (Ok(begun), None) => {
                assert!(begun.note.ends_with("; statistics of 7.0001 observations"), "{}", begun.note);
                let names = ["trunk.0".into(), "trunk.1".into(), "mean".into()];
                let normalizer = trainer.replay().normalizer.clone().expect("it normalizes");
                let seen = |x: f32, i: usize| (x - normalizer.center()[i]) / normalizer.spread()[i];
                let expected = forward(&policy, &names, &[seen(0.6, 0), seen(-0.8, 1), seen(2.0, 2)])[0].tanh() * 2.0;
                let mut action = [0.0];
                trainer.actor().expect("the CPU does not fail").act(&[0.6, -0.8, 2.0], None, &mut action);
                assert!((action[0] - expected).abs() < 1e-5, "{action:?}, not {expected}");
            }
            (begun, expected) => {
                let error = begun.map(|_| ()).expect_err("they do not fit").to_string();
                assert!(error.contains(expected.expect("they fit")), "{error}");
            }
        }
    }
}

/// [`write`], with tensors of doubles besides.
fn write_with_statistics(tensors: &Named, statistics: &[(&str, Vec<f64>)]) -> PathBuf {
    let path = new_path("file").with_extension("safetensors");
    let singles = tensors.iter().map(|(name, (shape, values))| {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        (name.clone(), Dtype::F32, shape.clone(), data)
    });
    let doubles = statistics.iter().map(|(name, values)| {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (format!("observation.{name}"), Dtype::F64, vec![values.len()], data)
    });
    let data: Vec<_> = singles.chain(doubles).collect();
    let views = data
        .iter()
        .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).expect("they fit")));
    fs::write(&path, safetensors::serialize(views, None).expect("it can be")).expect("it can be written");
    path
}

#[test]
fn files_that_do_not_fit_are_refused_by_the_name_of_the_tensor() {
    type Change = fn(&mut Named);
    let cases: [(&str, Change); 9] = [
        ("lacks the tensor mean.bias, which must be F32 of shape [1]", |all| drop(all.remove("mean.bias"))),
        ("lacks the tensor critic.1.0.weight, which must be F32 of shape [5, 4]", |all| {
            *all = without(all.clone(), "critic.1")
        }),
        ("lacks the tensor critic.0.0.weight", |all| *all = without(all.clone(), "critic.0")),
        ("its tensor trunk.1.weight is F32 of shape [5, 4]; it must be F32 of shape [4, 5]", |all| {
            all.get_mut("trunk.1.weight").expect("it is there").0 = vec![5, 4]
        }),
        ("its tensor critic.0.0.bias is F32 of shape [5, 1]; it must be F32 of shape [5]", |all| {
            all.get_mut("critic.0.0.bias").expect("it is there").0 = vec![5, 1]
        }),
        ("its tensor log_std.weight has a value that is not finite; it must be F32 of shape [1, 4]", |all| {
            all.get_mut("log_std.weight").expect("it is there").1[2] = f32::NAN
        }),
        ("no network of this run has a tensor value.0.bias", |all| {
            all.extend(layers(&[3, 5], |l| format!("value.{l}"), &mut 0.0))
        }),
        ("no network of this run has a tensor critic.0.3.bias", |all| {
            all.insert("critic.0.3.bias".into(), (vec![1], vec![0.0]));
        }),
        ("no network of this run has a tensor extra (of shape [2])", |all| {
            all.insert("extra".into(), (vec![2], vec![0.0; 2]));
        }),
    ];
    for (expected, change) in cases {
        let mut all = without(tensors(), "value.");
        change(&mut all);
        let mut trainer = pendulum(config());
        let before = trainer.save().expect("the CPU does not fail");
        let error = begin(&mut trainer, &write(&all, None), false).map(|_| ()).expect_err(expected);
        let error = format!("{error:#}");
        assert!(error.contains(expected) && !error.contains('\n'), "{expected}: {error}");
        assert_eq!(trainer.save().expect("the CPU does not fail"), before, "{expected}");
    }
    // Every truncation, and every damage to the header, is an error or of no account; none makes a panic.
    let whole = fs::read(write(&without(tensors(), "value."), None)).expect("it was just written");
    let path = new_path("damaged").with_extension("safetensors");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    let cut = (0..whole.len()).step_by(7).map(|length| whole[..length].to_vec());
    let flipped = (0..header).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let mut trainer = pendulum(config());
    for (number, damaged) in cut.chain(flipped).enumerate() {
        fs::write(&path, &damaged).expect("it can be written");
        let begun = begin(&mut trainer, &path, false);
        assert!(damaged.len() == whole.len() || begun.is_err(), "{number}");
        assert!(begun.map_or_else(|error| !format!("{error:#}").contains('\n'), |_| true), "{number}");
    }
    // Of the type that PyTorch calls double.
    let mut bytes = whole.clone();
    let data = safetensors::SafeTensors::deserialize(&whole).expect("it is one");
    let views: Vec<_> = data
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let doubles: Vec<u8> = view.data().chunks(4).flat_map(|_| 0.5_f64.to_le_bytes()).collect();
            (name, view.shape().to_vec(), doubles)
        })
        .collect();
    let views = views
        .iter()
        .map(|(name, shape, data)| (name, TensorView::new(Dtype::F64, shape.clone(), data).expect("they fit")));
    bytes.clone_from(&safetensors::serialize(views, None).expect("it can be"));
    fs::write(&path, bytes).expect("it can be written");
    let error = begin(&mut trainer, &path, false).map(|_| ()).expect_err("it is of another type");
    assert!(
        format!("{error:#}").contains("its tensor trunk.0.weight is F64 of shape [5, 3]; it must be F32"),
        "{error:#}"
    );
}

#[test]
fn the_program_tells_what_does_not_fit_and_writes_nothing() {
    let path = source("");
    let other_heads = new_path("heads").with_extension("toml");
    fs::write(&other_heads, "policy_heads = \"separate\"\npolicy_hidden = [5, 4]\ncritic_hidden = [5, 4]")
        .expect("it can be written");
    let empty = new_path("empty");
    fs::create_dir_all(&empty).expect("it can be made");
    let without_checkpoint = source("");
    fs::remove_dir_all(without_checkpoint.join("checkpoint")).expect("it is there");
    let policy = path.join(policy_file::NAME);
    let nothing = new_path("nothing");
    let text = path.join("config.toml");
    let small = "pendulum --hidden 5,4";
    type Paths<'a> = &'a [(&'a str, &'a Path)];
    let cases: [(&str, Paths, &str); 12] = [
        (small, &[("--init-from", &nothing)], "give --init-from a run directory or a .safetensors file"),
        (small, &[("--init-from", &empty)], "is no run directory"),
        (small, &[("--init-from", &without_checkpoint)], "has no checkpoint; name a run that has one"),
        (small, &[("--init-from", &text)], "is no safetensors file"),
        ("pendulum --with-replay", &[], "--init-from"),
        ("pendulum --with-replay --hidden 5,4", &[("--init-from", &policy)], "leave --with-replay out"),
        ("pendulum --hidden 8", &[("--init-from", &path)], "give this run critic_hidden = [5, 4]"),
        ("pendulum", &[("--config", &other_heads), ("--init-from", &path)], "give this run policy_heads = \"shared\""),
        (
            "pendulum --preset v-net-auto --hidden 5,4",
            &[("--init-from", &path)],
            "give this run bootstrap = \"target-q\"",
        ),
        ("mountain-car --hidden 5,4", &[("--init-from", &path)], "3 observation and 1 action dimensions, not 2 and 1"),
        ("mountain-car --hidden 5,4 --with-replay", &[("--init-from", &path)], "3 observation and 1 action dimensions"),
        (
            "mountain-car --hidden 5,4",
            &[("--init-from", &policy)],
            "trunk.0.weight is F32 of shape [5, 3]; it must be F32 of shape [5, 2]",
        ),
    ];
    let before = every_file(&path);
    for (arguments, paths, expected) in cases {
        let out = new_path("refused");
        let paths: Vec<_> = paths.iter().copied().chain([("--out", out.as_path())]).collect();
        let output = run(&format!("{arguments} --steps 9 --batch 8 --random-steps 3 --first-update auto"), &paths);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{expected}: {told}");
        assert!(told.contains(expected) && told.trim().lines().count() == 1, "{expected}: {told}");
        assert!(!out.exists(), "{expected}");
    }
    let out = new_path("begun");
    let output =
        run(&format!("{SMALL} --steps 20 --gamma 0.9 --with-replay"), &[("--init-from", &path), ("--out", &out)]);
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("networks and α of its step 60; its configuration differs in gamma; 60 transitions"),
        "{told}"
    );
    assert!(before == every_file(&path), "the other run has changed");
}

/// Whatever the widths of both networks, one line names those of both that differ, and how to have them.
#[test]
fn other_widths_are_told_of_both_networks_with_their_mend() {
    let with_hidden = |policy: &[usize], critic: &[usize]| Config {
        policy_hidden: policy.to_vec(),
        critic_hidden: critic.to_vec(),
        ..config()
    };
    let alike = source("");
    let unlike = new_path("unlike");
    let file = new_path("unlike").with_extension("toml");
    fs::write(&file, "policy_hidden = [5, 4]\ncritic_hidden = [6]").expect("it can be written");
    let begun = run(
        "pendulum --batch 8 --random-steps 10 --steps 60 --eval-every 0",
        &[("--config", &file), ("--out", &unlike)],
    );
    assert!(begun.status.success(), "{}", told(&begun));
    let both = write(&without(tensors(), "value."), None);
    let policy = write(&without(without(tensors(), "value."), "critic."), None);
    let mut number = 0.1;
    let mut narrow = without(without(tensors(), "value."), "critic.");
    for i in 0..2 {
        narrow.extend(layers(&[4, 6, 1], |l| format!("critic.{i}.{l}"), &mut number));
    }
    let narrow = write(&narrow, None);

    let policy_of_8 = "policy_hidden = [5, 4], not [8]";
    let (critic_of_8, option) = ("critic_hidden = [5, 4], not [8]", " (--hidden 5,4)");
    let (critic_of_6, in_file) = ("critic_hidden = [6], not [8]", " (in a TOML file given to --config)");
    let cases = [
        (&alike, with_hidden(&[8], &[8]), vec![policy_of_8, critic_of_8], option),
        (&alike, with_hidden(&[5, 4], &[8]), vec![critic_of_8], option),
        (&unlike, with_hidden(&[8], &[8]), vec![policy_of_8, critic_of_6], in_file),
        (&both, with_hidden(&[8], &[8]), vec![policy_of_8, critic_of_8], option),
        (&both, with_hidden(&[8], &[5, 4]), vec![policy_of_8], option),
        (&policy, with_hidden(&[8], &[8]), vec![policy_of_8], option),
        (&narrow, with_hidden(&[8], &[8]), vec![policy_of_8, critic_of_6], in_file),
    ];
    for (path, config, networks, mend) in cases {
        let error = begin(&mut pendulum(config), path, false).map(drop).expect_err("they differ").to_string();
        assert!(networks.iter().all(|network| error.contains(network)), "{error}");
        assert_eq!(error.matches(", not [").count(), networks.len(), "{error}");
        assert!(error.ends_with(mend) && !error.contains('\n'), "{error}");
    }
    // What is said is what is needed.
    for path in [&alike, &both, &policy] {
        begin(&mut pendulum(with_hidden(&[5, 4], &[5, 4])), path, false).expect("it fits");
    }
    begin(&mut pendulum(with_hidden(&[5, 4], &[6])), &narrow, false).expect("it fits");
}

/// A process that does not outlive the test, however that ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// A run is read again and again while it trains and takes away its older checkpoints.
#[test]
fn a_run_that_is_being_trained_serves() {
    let path = new_path("in-training");
    let more = format!("{SMALL} --steps 1000000 --checkpoint-every 5 --replay 50");
    let child = sac(&more, &[("--out", &path)]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _child = Killed(child.expect("the program is there"));
    while !path.join("checkpoint/manifest").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let read = |_| {
        let mut trainer = pendulum(config());
        begin(&mut trainer, &path, true).map(|begun| begun.note)
    };
    let notes: Result<Vec<_>, _> = (0..200).map(read).collect();
    let notes = notes.expect("each of them can be read");
    assert!(notes.first() != notes.last(), "it does not train");
    assert!(!notes.iter().any(|note| note.contains("damaged")), "a checkpoint is not whole");
}
