//! The learner for GPUs against that for the CPU, buffer by buffer, for every preset: here with its kernels run on the CPU
//! (`tests/host`), in `tests/gpu.rs` on a GPU.
#![cfg(feature = "program")]

mod comparison;
mod host;

use comparison::{Case, batch_and_noise, cases};
use host::Host;
use ndarray::Array2;
use soft_actor_critic::config::Config;
use soft_actor_critic::env::Pendulum;
use soft_actor_critic::error::Error;
use soft_actor_critic::gpu::Gpu;
use soft_actor_critic::gpu::kernels::KERNELS;
use soft_actor_critic::replay::{Batch, Replay, Transition};
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::cuda::Status;
use soft_actor_critic::sac::{CpuLearner, CudaLearner, Learner, Noise};
use soft_actor_critic::train::Trainer;

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
    comparison::twenty_updates(host, [7, 33].into_iter().flat_map(cases).collect());
}

#[test]
fn published_presets_agree_over_twenty_updates() {
    comparison::twenty_updates(host, comparison::published());
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

/// A replay memory that has wrapped around, with ends of episodes of both kinds.
fn replay(capacity: usize, steps: usize, o: usize, a: usize) -> Replay {
    let mut replay = Replay::new(capacity, o, a).expect("it is small");
    push(&mut replay, 0..steps, o, a);
    replay
}

fn push(replay: &mut Replay, steps: std::ops::Range<usize>, o: usize, a: usize) {
    for t in steps {
        let observation = |t: usize| (0..o).map(|i| ((t * o + i) as f32 * 0.7).sin()).collect::<Vec<_>>();
        let action: Vec<_> = (0..a).map(|i| ((t * a + i) as f32 * 0.3).cos()).collect();
        replay.push(Transition {
            observation: &observation(t),
            action: &action,
            reward: (t as f32).cos(),
            next_observation: &observation(t + 1),
            terminated: t % 7 == 6,
            truncated: t % 11 == 10,
        });
    }
}

/// What is drawn is what the counter says, and learning is an update with it; also after the memory has wrapped around
/// between two updates.
#[test]
fn learning_is_an_update_with_what_is_drawn() {
    for Case { name, config, observation_size: o, half_range } in cases(9) {
        let Some(gpu) = host() else { return };
        let a = half_range.len();
        let config = Config { steps: 23, replay_capacity: 1000, seed: 3, ..config };
        let mut replay = replay(23, 10, o, a);
        let mut cpu = CpuLearner::<f32>::new(&config, o, &half_range);
        let mut cuda = CudaLearner::new(&config, o, &half_range, gpu).expect("it fits");
        for update in 0..4 {
            cuda.learn(&replay, update).expect("it works");
            let (rows, noise) = cuda.drawn().expect("it works");
            let mut words = Philox::new(3, Stream::Replay, update);
            for &row in &rows {
                let word = u64::from(rand::RngCore::next_u32(&mut words));
                assert_eq!(u64::from(row), (word * replay.len() as u64) >> 32, "{name}");
            }
            let mut words = Philox::new(3, Stream::Update, update);
            let mut uniform = || (f64::from(rand::RngCore::next_u32(&mut words) >> 8) + 0.5) / f64::from(1 << 24);
            for pair in noise.chunks(2) {
                let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
                for (&x, y) in pair.iter().zip([radius * angle.cos(), radius * angle.sin()]) {
                    assert!((f64::from(x) - y).abs() < 3e-6, "{name}: {x} must be {y}");
                }
            }
            let rows: Vec<usize> = rows.into_iter().map(|row| row as usize).collect();
            let mut batch = Batch::zeros(rows.len(), o, a);
            replay.gather(&rows, config.gamma as f32, &mut batch);
            let half = |from: usize| noise[from * rows.len() * a..][..rows.len() * a].to_vec();
            let half = |from| Array2::from_shape_vec((rows.len(), a), half(from)).expect("it has the shape");
            cpu.update(&batch, &Noise { next: half(0), current: half(1) });
            comparison::parameters_agree(&name, &mut cpu, &mut cuda, 1e-4);
            let steps = replay.pushed()..replay.pushed() + [3, 40, 1, 0][update as usize];
            push(&mut replay, steps, o, a);
        }
    }
}

/// As `docs/cuda.md` says.
#[test]
fn an_update_by_the_defaults_is_31_launches() {
    let Some(gpu) = host() else { return };
    let cuda = CudaLearner::new(&Config::default(), 3, &[2.0], gpu).expect("it fits");
    assert_eq!(cuda.update_launches(true, false).len(), 31);
}

/// Order of blocks and threads, which the host shuffles by the number of the launch, changes no bit.
#[test]
fn the_order_of_threads_changes_nothing() {
    for Case { name, config, observation_size: o, half_range } in cases(7) {
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
        || Box::new(Pendulum::new()),
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
