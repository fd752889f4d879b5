//! The learner for GPUs against that for the CPU, buffer by buffer, for every preset: here with its kernels run on the CPU
//! (`tests/host`), in `tests/gpu.rs` on a GPU.
#![cfg(all(feature = "program", target_os = "linux"))]

mod comparison;
mod host;

use comparison::{Case, batch_and_noise, cases, fused_cases};
use host::{Host, Shared};
use soft_actor_critic::config::Config;
use soft_actor_critic::env::Pendulum;
use soft_actor_critic::error::Error;
use soft_actor_critic::gpu::Gpu;
use soft_actor_critic::gpu::kernels::{self, KERNELS};
use soft_actor_critic::sac::cuda::Status;
use soft_actor_critic::sac::fused;
use soft_actor_critic::sac::{CpuLearner, CudaLearner, Learner};
use soft_actor_critic::train::Trainer;
use std::sync::{Arc, Mutex};

fn host() -> Option<Box<dyn Gpu>> {
    Host::new().map(|host| Box::new(host) as Box<dyn Gpu>)
}

#[test]
fn arguments_are_laid_out_as_the_kernels_have_them() {
    let Some(host) = Host::new() else { return };
    for (name, size) in KERNELS {
        assert_eq!(host.sizes()[name], *size, "{name}");
    }
    assert_eq!(host.sizes()["status"], size_of::<Status>());
}

#[test]
fn every_intermediate_agrees_with_the_cpu() {
    comparison::every_intermediate(host);
}

#[test]
fn gradients_and_parameters_agree_over_twenty_updates() {
    comparison::twenty_updates(host, CudaLearner::new, [7, 33].into_iter().flat_map(cases).collect());
}

#[test]
fn fused_updates_agree_over_twenty_updates() {
    comparison::twenty_updates(host, CudaLearner::new, [7, 33].into_iter().flat_map(fused_cases).collect());
}

#[test]
fn fused_intermediates_agree_with_those_layer_by_layer() {
    comparison::fused_intermediates(host);
}

#[test]
fn published_presets_agree_over_twenty_updates() {
    comparison::twenty_updates(host, CudaLearner::layer_by_layer, comparison::published());
}

#[test]
fn actions_agree_with_the_cpu() {
    comparison::actions(host);
}

#[test]
fn metrics_and_failures_agree_with_the_cpu() {
    comparison::failures(host);
}

#[test]
fn snapshots_go_from_one_learner_to_the_other() {
    let Some(gpu) = host() else { return };
    let Case { config, observation_size: o, half_range, .. } = cases(7).remove(0);
    let mut cpu = CpuLearner::<f32>::new(&config, o, &half_range);
    let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
    assert_eq!(cuda.snapshot().expect("it works"), cpu.snapshot(), "both begin alike");
    let (batch, noise) = batch_and_noise(&config, o, half_range.len(), 0);
    cpu.update(&batch, &noise);
    let snapshot = cpu.snapshot();
    cuda.restore(&snapshot).expect("it fits");
    assert_eq!(cuda.snapshot().expect("it works"), snapshot);
    let mut short = snapshot.clone();
    short.get_mut("q2").expect("every learner has it").pop();
    let error = cuda.restore(&short).expect_err("it does not fit").to_string();
    assert!(error.contains("q2 must have length"), "{error}");
    assert_eq!(cuda.snapshot().expect("it works"), snapshot, "nothing is changed");
}

#[test]
fn learning_is_an_update_with_what_is_drawn() {
    comparison::learning(host);
}

/// As `docs/cuda.md` says.
#[test]
fn an_update_by_the_defaults_is_31_launches_or_8_fused_ones() {
    let Some(gpu) = host() else { return };
    let cuda = CudaLearner::new(&Config::default(), 3, &[2.0], gpu).expect("it fits");
    assert_eq!(cuda.update_launches(true, false).len(), 31);
    assert_eq!(cuda.launches(true, true, false).len(), 8);
}

/// Order of blocks and threads, which the host shuffles by the number of the launch, changes no bit.
#[test]
fn the_order_of_threads_changes_nothing() {
    for Case { name, config, observation_size: o, half_range } in [cases(7), fused_cases(39)].into_iter().flatten() {
        let learn = |updates_before: u64| {
            let mut cuda = CudaLearner::new(&config, o, &half_range, host()?).expect("it fits");
            let start = cuda.snapshot().expect("it works");
            let (batch, noise) = batch_and_noise(&config, o, half_range.len(), 5);
            (0..updates_before).for_each(|_| cuda.update(&batch, &noise).expect("it works"));
            cuda.restore(&start).expect("it fits");
            cuda.update(&batch, &noise).expect("it works");
            Some(cuda.snapshot().expect("it works"))
        };
        assert_eq!(learn(0), learn(1), "{name}");
    }
}

/// Agents whose memory lies one behind the other take a fused update together, each with the bits that it has alone.
#[test]
fn agents_that_learn_together_learn_as_each_does_alone() {
    const AGENTS: usize = 3;
    for Case { name, config, observation_size: o, half_range } in fused_cases(39).drain(..3) {
        let Some(one) = Host::new() else { return };
        let replay = comparison::replay(&config, 50, o, half_range.len());
        let shared = Shared(Arc::new(Mutex::new(one.in_one_piece(1 << 21))));
        let make = |agent: usize, gpu: Box<dyn Gpu>| {
            let config = Config { seed: config.seed + agent as u64, ..config.clone() };
            let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
            cuda.learn(&replay, 0).expect("it works");
            cuda
        };
        let mut together: Vec<_> = (0..AGENTS).map(|agent| make(agent, Box::new(shared.clone()))).collect();
        let arguments: Vec<_> =
            together.iter().map(|cuda| cuda.fused_arguments(true, false).expect("it is fused")).collect();
        let agent_bytes = arguments[1].status.0 - arguments[0].status.0;
        assert_eq!(arguments[2].memory.0 - arguments[1].memory.0, agent_bytes, "they lie at equal distances");
        let launches = fused::launches(kernels::Fused { agent_bytes, ..arguments[0] }, AGENTS);
        // SAFETY: the memory of all of them is that of one host.
        unsafe { together[0].run(&launches) }.expect("it works");
        let mut all = Vec::new();
        for (agent, cuda) in together.iter_mut().enumerate() {
            let mut alone = make(agent, host().expect("there is a compiler"));
            let launches = alone.launches(true, true, false);
            // SAFETY: they are its own.
            unsafe { alone.run(&launches) }.expect("it works");
            let found = cuda.snapshot().expect("it works");
            assert!(found == alone.snapshot().expect("it works"), "{name}: agent {agent}");
            assert!(!all.contains(&found), "{name}: agent {agent} has the seed of another");
            all.push(found);
        }
    }
}

#[test]
fn too_little_memory_names_the_replay() {
    let Some(host) = Host::new() else { return };
    let config = Config { policy_hidden: vec![4], critic_hidden: vec![4], batch_size: 4, ..Config::default() };
    let result = CudaLearner::new(&config, 3, &[1.0], Box::new(host.with_memory(10_000)));
    let error = result.err().expect("it does not fit").to_string();
    assert!(error.contains("a replay memory of 10000 transitions") && error.contains("--replay"), "{error}");
}

/// A device that fails while training is an error of the step, and of every step that follows.
#[test]
fn a_device_that_fails_ends_training() {
    let Some(host) = Host::new() else { return };
    let hidden = vec![5];
    let config = Config {
        policy_hidden: hidden.clone(),
        critic_hidden: hidden,
        batch_size: 4,
        random_steps: 4,
        steps: 20,
        ..Config::default()
    };
    let mut trainer = Trainer::with_learner(
        || Ok(Box::new(Pendulum::new())),
        config,
        |config, o, half_range| {
            Ok(Box::new(CudaLearner::new(config, o, half_range, Box::new(host.that_fails_at(200)))?))
        },
    )
    .expect("it begins");
    let mut steps = 0;
    let error = loop {
        match trainer.step() {
            Ok(_) => steps += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Device(_)), "{error}");
    assert!((5..20).contains(&steps) && trainer.steps() >= steps, "{steps}");
    assert!(trainer.step().is_err());
}
