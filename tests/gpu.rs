//! What `tests/parity.rs` shows with kernels on the CPU, on a GPU. Without one the tests say that they are skipped;
//! `SAC_REQUIRE_GPU` in the environment makes that a failure.
#![cfg(feature = "program")]

mod comparison;

use comparison::{Case, F32, Make, TF32, batch_and_noise, cases, fused_cases, replay, tf32_cases};
use soft_actor_critic::config::Precision;
use soft_actor_critic::gpu::Gpu;
use soft_actor_critic::gpu::cuda::Cuda;
use soft_actor_critic::sac::{CudaLearner, Learner};

fn gpu() -> Option<Box<dyn Gpu>> {
    open(Precision::F32)
}

fn tf32_gpu() -> Option<Box<dyn Gpu>> {
    open(Precision::Tf32)
}

fn open(precision: Precision) -> Option<Box<dyn Gpu>> {
    match Cuda::open(0, precision) {
        Ok(gpu) => Some(Box::new(gpu)),
        Err(error) => {
            println!("skipped: {error}");
            assert!(std::env::var_os("SAC_REQUIRE_GPU").is_none(), "SAC_REQUIRE_GPU allows no skipping");
            None
        }
    }
}

#[test]
fn every_intermediate_agrees_with_the_cpu() {
    comparison::every_intermediate(gpu);
}

#[test]
fn gradients_and_parameters_agree_over_twenty_updates() {
    comparison::twenty_updates(gpu, CudaLearner::new, [7, 33, 256].into_iter().flat_map(cases).collect(), &F32);
}

#[test]
fn fused_updates_agree_over_twenty_updates() {
    comparison::twenty_updates(gpu, CudaLearner::new, [7, 33].into_iter().flat_map(fused_cases).collect(), &F32);
}

#[test]
fn updates_in_tf32_agree_over_twenty_updates() {
    let cases = [7, 33].into_iter().flat_map(tf32_cases).collect();
    comparison::twenty_updates(tf32_gpu, CudaLearner::new, cases, &TF32);
}

#[test]
fn fused_intermediates_agree_with_those_layer_by_layer() {
    comparison::fused_intermediates(gpu);
}

#[test]
fn published_presets_agree_over_twenty_updates() {
    for make in [CudaLearner::new as Make, CudaLearner::layer_by_layer] {
        comparison::twenty_updates(gpu, make, comparison::published(), &F32);
    }
}

#[test]
fn actions_agree_with_the_cpu() {
    comparison::actions(gpu);
}

#[test]
fn metrics_and_failures_agree_with_the_cpu() {
    comparison::failures(gpu);
}

#[test]
fn a_run_on_the_device_is_made_of_its_steps() {
    comparison::pendulum(gpu);
}

#[test]
fn learning_is_an_update_with_what_is_drawn() {
    comparison::learning(gpu);
}

#[test]
fn agents_that_learn_together_learn_as_each_does_alone() {
    comparison::together(gpu);
}

/// Twice the same updates, twice the same bits; the last ones drawn on the device and replayed from a recording.
#[test]
fn updates_repeat_themselves() {
    let cases = [cases(256), fused_cases(256), tf32_cases(256)].into_iter().flatten();
    for Case { name, config, observation_size: o, half_range } in cases {
        let learn = || {
            let mut cuda = CudaLearner::new(&config, o, &half_range, open(config.precision)?).expect("it fits");
            for number in 0..20 {
                let (batch, noise) = batch_and_noise(&config, o, half_range.len(), number);
                cuda.update(&batch, &noise).expect("it works");
            }
            let replay = replay(&config, 900, o, half_range.len());
            (0..20).for_each(|update| cuda.learn(&replay, update).expect("it works"));
            Some(cuda.snapshot().expect("it works"))
        };
        assert_eq!(learn(), learn(), "{name}");
    }
}
