//! The learner for GPUs against that for the CPU, buffer by buffer, for every preset: here with its kernels run on the CPU
//! (`tests/host`), in `tests/gpu.rs` on a GPU.
#![cfg(all(feature = "program", target_os = "linux"))]

mod comparison;
mod host;

use comparison::{Case, F32, TF32, batch_and_noise, cases, fused_cases, tf32_cases};
use host::{Host, Shared};
use rand::Rng;
use rand_distr::StandardNormal;
use soft_actor_critic::config::{Config, Precision};
use soft_actor_critic::env::Pendulum;
use soft_actor_critic::error::Error;
use soft_actor_critic::gpu::Gpu;
use soft_actor_critic::gpu::kernels::{self, KERNELS, TILE};
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::cuda::Status;
use soft_actor_critic::sac::fused;
use soft_actor_critic::sac::{CpuLearner, CudaLearner, Learner};
use soft_actor_critic::train::Trainer;
use std::sync::{Arc, Mutex};

fn host() -> Option<Box<dyn Gpu>> {
    Host::new().map(|host| Box::new(host) as Box<dyn Gpu>)
}

fn tf32_host() -> Option<Box<dyn Gpu>> {
    Host::tf32().map(|host| Box::new(host) as Box<dyn Gpu>)
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
    comparison::twenty_updates(host, CudaLearner::new, [7, 33].into_iter().flat_map(cases).collect(), &F32);
}

#[test]
fn fused_updates_agree_over_twenty_updates() {
    comparison::twenty_updates(host, CudaLearner::new, [7, 33].into_iter().flat_map(fused_cases).collect(), &F32);
}

#[test]
fn updates_in_tf32_agree_over_twenty_updates() {
    let cases = [7, 33].into_iter().flat_map(tf32_cases).collect();
    comparison::twenty_updates(tf32_host, CudaLearner::new, cases, &TF32);
}

/// Two hundred updates from the same memory: what is seen in the last hundred of them is the same within 0.1 %.
#[test]
fn learning_in_tf32_goes_where_it_does_in_f32() {
    let learn = |host: Option<Host>| {
        let gpu = Box::new(host?);
        let (o, hidden) = (3, vec![32; 2]);
        let config = Config {
            batch_size: 32,
            policy_hidden: hidden.clone(),
            critic_hidden: hidden,
            steps: 1000,
            precision: gpu.precision(),
            ..Config::default()
        };
        let replay = comparison::replay(&config, 500, o, 1);
        let mut cuda = CudaLearner::new(&config, o, &[1.0], gpu).expect("it fits");
        let mut learn = |updates: std::ops::Range<u64>| {
            updates.for_each(|update| cuda.learn(&replay, update).expect("it works"));
            cuda.metrics().expect("it works")
        };
        let half = learn(0..100);
        learn(100..200).means_since(&half)
    };
    let (Some(f32), Some(tf32)) = (learn(Host::new()), learn(Host::tf32())) else { return };
    for (x, y) in [(f32.critic_loss, tf32.critic_loss), (f32.q, tf32.q), (f32.entropy, tf32.entropy)] {
        println!("{x} in f32, {y} in tf32");
        assert!((x - y).abs() <= 1e-3 * x.abs(), "{x} in f32, {y} in tf32");
    }
}

/// The product of tiles is that of what they hold, or in tf32 of that to 10 bits of mantissa, ties away from zero; what is no
/// number shows.
#[test]
fn products_of_tiles_are_those_of_their_elements() {
    let to_tf32 = |x: f32| f32::from_bits((x.to_bits() + 0x1000) & !0x1fff);
    let mut rng = Philox::new(5, Stream::Evaluation, 0);
    for (host, round) in [(Host::new(), (|x| x) as fn(f32) -> f32), (Host::tf32(), to_tf32)] {
        let Some(host) = host else { return };
        const TILES: usize = 3;
        let mut tiles =
            || -> Vec<f32> { (0..TILES * TILE * TILE).map(|_| rng.sample::<f32, _>(StandardNormal)).collect() };
        let (mut a, b) = (tiles(), tiles());
        // As near to one number of 10 bits as to the next.
        a[7] = f32::from_bits(0x3f80_1000);
        let found = host.product_of_tiles(&a, &b);
        for (i, j) in (0..TILE).flat_map(|i| (0..TILE).map(move |j| (i, j))) {
            let product = |k: usize| f64::from(round(a[k * TILE + i])) * f64::from(round(b[k * TILE + j]));
            let (sum, size) = (0..TILES * TILE).map(product).fold((0.0, 0.0), |(s, t), x| (s + x, t + x.abs()));
            let error = (f64::from(found[i * TILE + j]) - sum).abs() / size;
            assert!(error <= 1e-6, "{}: row {i}, column {j} is off by {error:.1e}", host.precision());
        }
        a[TILE + 3] = f32::NAN;
        let found = host.product_of_tiles(&a, &b);
        assert!((0..TILE * TILE).all(|e| found[e].is_nan() == (e / TILE == 3)), "{}", host.precision());
    }
}

#[test]
fn fused_intermediates_agree_with_those_layer_by_layer() {
    comparison::fused_intermediates(host);
}

#[test]
fn published_presets_agree_over_twenty_updates() {
    comparison::twenty_updates(host, CudaLearner::layer_by_layer, comparison::published(), &F32);
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
    let cases = [cases(7), fused_cases(39), tf32_cases(39)].into_iter().flatten();
    for Case { name, config, observation_size: o, half_range } in cases {
        let learn = |updates_before: u64| {
            let gpu = if config.precision == Precision::Tf32 { tf32_host()? } else { host()? };
            let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
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
