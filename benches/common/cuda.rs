//! What `benches/devices.rs` measures on an NVIDIA GPU.

use crate::{ACTIONS, OBSERVATIONS, common, measure, seconds};
use common::STORED;
use ndarray::Array2;
use soft_actor_critic::config::{Config, Precision};
use soft_actor_critic::error::Error;
use soft_actor_critic::gpu::Gpu;
use soft_actor_critic::gpu::cuda::Cuda;
use soft_actor_critic::replay::Replay;
use soft_actor_critic::sac::CudaLearner;
use soft_actor_critic::sac::cuda::UpdateRequest;
use std::time::Duration;

/// The name of the GPU, if it can compute in this precision.
pub fn name(precision: Precision) -> Result<String, Error> {
    Ok(Cuda::open(0, precision)?.name().to_string())
}

/// Seconds of one update, fused or made layer by layer, and of one action.
pub fn one_agent(config: &Config, fused: bool, replay: &Replay, lasting: Duration) -> Result<(f64, f64), Error> {
    let make = if fused { CudaLearner::new } else { CudaLearner::layer_by_layer };
    let gpu = Box::new(Cuda::open(0, config.precision)?);
    measure(&mut make(config, OBSERVATIONS, &[1.0; ACTIONS], gpu)?, replay, lasting)
}

/// Seconds of one update of all agents, waiting only for the last, and of a step of all of them: an action and an update
/// each, with what is seen of it.
fn measure_together(learner: &mut CudaLearner, replay: &Replay, lasting: Duration) -> Result<(f64, f64), Error> {
    (0..learner.agents()).try_for_each(|agent| learner.mirror(agent, replay))?;
    let mut update = 0;
    let mut learn = |learner: &mut CudaLearner| {
        let stored = replay.len() as u64;
        let requests: Vec<_> = (0..learner.agents()).map(|agent| UpdateRequest { agent, update, stored }).collect();
        update += 1;
        learner.learn_together(&requests)
    };
    let updates = seconds(lasting, |calls| {
        (0..calls).try_for_each(|_| learn(learner))?;
        assert!(learner.metrics_of_all()?.iter().all(|metrics| metrics.failure.is_none()));
        Ok(())
    })?;
    let (observation, noise) = (Array2::from_elem((1, OBSERVATIONS), 0.1), Array2::from_elem((1, ACTIONS), 0.1));
    let steps = seconds(lasting, |calls| {
        (0..calls).try_for_each(|_| {
            for agent in 0..learner.agents() {
                learner.observe(agent, observation.view(), Some(noise.view()))?;
            }
            learner.act_together(1, true)?;
            learn(learner)?;
            learner.metrics_of_all().map(drop)
        })
    })?;
    Ok((updates, steps))
}

/// Prints the table of many agents.
pub fn many_agents(lasting: Duration) -> Result<(), Error> {
    println!(
        "Updates a second, and steps with an action each, of all agents together, obs {OBSERVATIONS}, act {ACTIONS}:\n"
    );
    println!("| agents | updates/s | steps/s | updates/s in tf32 | steps/s in tf32 |");
    println!("|---|---|---|---|---|");
    let replay = common::replay(OBSERVATIONS, ACTIONS);
    for agents in [1, 8, 64, 256] {
        let measured = |precision| -> Result<_, Error> {
            let config = Config { steps: STORED as u64, precision, ..Config::default() };
            let (seeds, gpu) = ((0..agents).collect::<Vec<_>>(), Box::new(Cuda::open(0, precision)?));
            let mut learner = CudaLearner::of_seeds(&config, &seeds, OBSERVATIONS, &[1.0; ACTIONS], gpu)?;
            measure_together(&mut learner, &replay, lasting)
        };
        let cells = |measured: Result<(f64, f64), Error>| match measured {
            Ok((update, step)) => format!("{:.0} | {:.0}", agents as f64 / update, agents as f64 / step),
            Err(error) => format!("{error} | —"),
        };
        println!("| {agents} | {} | {} |", cells(measured(Precision::F32)), cells(measured(Precision::Tf32)));
    }
    Ok(())
}
