//! A policy: whatever is loaded acts, is exported, and is saved and loaded as the same.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use soft_actor_critic::config::{Config, Heads};
use soft_actor_critic::env::MountainCar;
use soft_actor_critic::export::{to_c, to_onnx, to_rust};
use soft_actor_critic::run::policy_file;
use soft_actor_critic::train::Trainer;
use soft_actor_critic_fuzz::{Change, Pieces, own_path, stay_in_this_thread};
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Changed { policy: u8, changes: Vec<Change<'a>> },
    Bytes(&'a [u8]),
}

static PATH: LazyLock<PathBuf> = LazyLock::new(|| own_path("policy"));

/// Policies of each shape.
static POLICIES: LazyLock<Vec<Pieces>> = LazyLock::new(|| {
    stay_in_this_thread();
    let shapes = [(Heads::Shared, vec![2, 3]), (Heads::Separate, vec![2]), (Heads::Shared, vec![])];
    let policies = shapes.map(|(policy_heads, policy_hidden)| {
        let normalize_observations = policy_hidden.is_empty();
        let config =
            Config { policy_heads, policy_hidden, normalize_observations, replay_capacity: 300, ..Config::default() };
        let mut trainer = Trainer::new(|| Box::new(MountainCar::new()), config).expect("it is valid");
        let actor = trainer.actor().expect("it is on the CPU");
        policy_file::save(&PATH, "mountain-car", &actor).expect("the temporary directory can be written");
        Pieces::of(&fs::read(&*PATH).expect("it was just written"))
    });
    policies.into()
});

fuzz_target!(|input: Input| {
    let bytes = match input {
        Input::Changed { policy, changes } => POLICIES[usize::from(policy) % POLICIES.len()].changed(&changes).0,
        Input::Bytes(bytes) => bytes.to_vec(),
    };
    fs::write(&*PATH, bytes).expect("the temporary directory can be written");
    let (environment, mut actor) = match policy_file::load(&PATH) {
        Ok(loaded) => loaded,
        Err(error) => return assert!(!format!("{error:#}").contains('\n'), "{error:#}"),
    };
    let (observations, actions) = (actor.policy().observation_size(), actor.bounds().dimensions());
    assert!(observations > 0, "a policy of nothing");
    for noise in [None, Some(vec![0.5; actions])] {
        let stochastic = noise.is_some();
        actor.act(&vec![0.1; observations], noise.as_deref(), &mut vec![0.0; actions]);
        let _ = to_c(&actor, &environment, stochastic);
        let _ = to_rust(&actor, &environment, stochastic);
        let _ = to_onnx(&actor, &environment, stochastic);
    }
    policy_file::save(&PATH, &environment, &actor).expect("the temporary directory can be written");
    let saved = fs::read(&*PATH).expect("it was just written");
    let (again, other) = policy_file::load(&PATH).expect("it was just written");
    assert_eq!((&again, other.theta(), other.bounds()), (&environment, actor.theta(), actor.bounds()));
    assert_eq!(other.normalizer(), actor.normalizer());
    policy_file::save(&PATH, &again, &other).expect("the temporary directory can be written");
    assert!(fs::read(&*PATH).expect("it was just written") == saved);
});
