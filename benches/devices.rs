//! One update on the CPU beside one on an NVIDIA GPU, for batches from 256 to 16 384 and widths from 64 to 1024: the batch
//! drawn from 100 000 stored transitions, and all noise, included. On the GPU it is the fused update, and beside it the same
//! in tf32, and made layer by layer. A table in Markdown; the ratio tells when a GPU pays.
//!
//! `cargo bench --bench devices`, or with `-- quick` for batch 256 alone, with `-- cpu` or `-- cuda` for one side.
//! With `-- seeds` it is instead how many updates a second 1, 8, 64 and 256 agents make together, at batch 256 and 2 × 256.
//! `SAC_BENCH_THREADS` bounds the number of threads, which is otherwise that of a run of the same size.

mod common;

use common::STORED;
use ndarray::Array2;
use soft_actor_critic::config::{Config, Precision};
use soft_actor_critic::error::Error;
use soft_actor_critic::gpu::Gpu;
use soft_actor_critic::gpu::cuda::Cuda;
use soft_actor_critic::replay::Replay;
use soft_actor_critic::sac::cuda::Lesson;
use soft_actor_critic::sac::{CpuLearner, CudaLearner, Learner};
use soft_actor_critic::train::{threads_for, with_threads};
use std::time::{Duration, Instant};

const OBSERVATIONS: usize = 17;
const ACTIONS: usize = 6;
/// How long a measurement takes, at least, and how many parts it has, of which the median counts.
const LASTING: Duration = Duration::from_millis(600);
const PARTS: usize = 5;

/// Seconds for one call of `work`, which makes as many as it is told: the median of several measurements.
fn seconds(mut work: impl FnMut(usize) -> Result<(), Error>) -> Result<f64, Error> {
    work(2)?;
    let mut calls = 1;
    loop {
        let began = Instant::now();
        work(calls)?;
        if began.elapsed() > LASTING / PARTS as u32 {
            break;
        }
        calls *= 2;
    }
    let mut parts = Vec::new();
    for _ in 0..PARTS {
        let began = Instant::now();
        work(calls)?;
        parts.push(began.elapsed().as_secs_f64() / calls as f64);
    }
    parts.sort_by(f64::total_cmp);
    Ok(parts[PARTS / 2])
}

/// Seconds of one update, waiting only for the last, and of one action.
fn measure(learner: &mut dyn Learner, replay: &Replay) -> Result<(f64, f64), Error> {
    let mut update = 0;
    let learn = seconds(|calls| {
        for _ in 0..calls {
            learner.learn(replay, update)?;
            update += 1;
        }
        assert_eq!(learner.metrics()?.failure, None);
        Ok(())
    })?;
    let (observation, noise) = (Array2::from_elem((1, OBSERVATIONS), 0.1), Array2::from_elem((1, ACTIONS), 0.1));
    let mut action = Array2::zeros((1, ACTIONS));
    let act = seconds(|calls| {
        (0..calls).try_for_each(|_| learner.act(observation.view(), Some(noise.view()), action.view_mut()))
    })?;
    Ok((learn, act))
}

/// Seconds of one update of all agents, waiting only for the last, and of a step of all of them: an action and an update each, with
/// what is seen of it.
fn measure_together(learner: &mut CudaLearner, replay: &Replay) -> Result<(f64, f64), Error> {
    (0..learner.agents()).try_for_each(|agent| learner.mirror(agent, replay))?;
    let mut update = 0;
    let mut learn = |learner: &mut CudaLearner| {
        let stored = replay.len() as u64;
        let lessons: Vec<_> = (0..learner.agents()).map(|agent| Lesson { agent, update, stored }).collect();
        update += 1;
        learner.learn_together(&lessons)
    };
    let updates = seconds(|calls| {
        (0..calls).try_for_each(|_| learn(learner))?;
        assert!(learner.metrics_of_all()?.iter().all(|metrics| metrics.failure.is_none()));
        Ok(())
    })?;
    let (observation, noise) = (Array2::from_elem((1, OBSERVATIONS), 0.1), Array2::from_elem((1, ACTIONS), 0.1));
    let steps = seconds(|calls| {
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

/// The table of many agents.
fn many_agents() -> Result<(), Error> {
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
            measure_together(&mut learner, &replay)
        };
        let cells = |measured: Result<(f64, f64), Error>| match measured {
            Ok((update, step)) => format!("{:.0} | {:.0}", agents as f64 / update, agents as f64 / step),
            Err(error) => format!("{error} | —"),
        };
        println!("| {agents} | {} | {} |", cells(measured(Precision::F32)), cells(measured(Precision::Tf32)));
    }
    Ok(())
}

/// [`CudaLearner::new`], or [`CudaLearner::layer_by_layer`].
type Make = fn(&Config, usize, &[f32], Box<dyn Gpu>) -> Result<CudaLearner, Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let (with_cpu, mut with_cuda) = (!asked("cuda"), !asked("cpu"));
    let threads =
        std::env::var("SAC_BENCH_THREADS").ok().map_or(0, |n| n.parse().expect("SAC_BENCH_THREADS: a number"));
    if with_cuda {
        match Cuda::open(0, Precision::F32) {
            Ok(gpu) => println!("CUDA: {}", gpu.name()),
            Err(error) => {
                println!("CUDA: not measured; {error}");
                with_cuda = false;
            }
        }
    }
    if asked("seeds") {
        return if with_cuda { many_agents() } else { Ok(()) };
    }
    let tf32 = if with_cuda { Cuda::open(0, Precision::Tf32).map(drop) } else { Ok(()) };
    if let Err(error) = &tf32 {
        println!("tf32: not measured; {error}");
    }
    println!("One update and one action, obs {OBSERVATIONS}, act {ACTIONS}, two hidden layers:\n");
    println!(
        "| batch | width | threads | CPU, update | CUDA, update | CPU / CUDA | in tf32 | layer by layer | CPU, action | CUDA, action |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let replay = common::replay(OBSERVATIONS, ACTIONS);
    let batches: &[usize] = if asked("quick") { &[256] } else { &[256, 1024, 4096, 16_384] };
    for &batch_size in batches {
        for width in [64, 256, 1024] {
            let hidden = vec![width; 2];
            let config = Config {
                batch_size,
                policy_hidden: hidden.clone(),
                critic_hidden: hidden,
                steps: STORED as u64,
                ..Config::default()
            };
            let half_range = [1.0; ACTIONS];
            let threads = threads_for(&config, OBSERVATIONS, ACTIONS, threads)?;
            let cpu = with_cpu
                .then(|| {
                    let mut cpu = CpuLearner::<f32>::new(&config, OBSERVATIONS, &half_range);
                    with_threads(threads, || measure(&mut cpu, &replay))?
                })
                .transpose()?;
            let on_gpu = |make: Make, precision| {
                let gpu = Box::new(Cuda::open(0, precision)?);
                let config = Config { precision, ..config.clone() };
                measure(&mut make(&config, OBSERVATIONS, &half_range, gpu)?, &replay)
            };
            let cuda = with_cuda.then(|| on_gpu(CudaLearner::new, Precision::F32)).transpose()?;
            let with_tf32 = with_cuda && tf32.is_ok();
            let in_tf32 = with_tf32.then(|| on_gpu(CudaLearner::new, Precision::Tf32)).transpose()?;
            let layer_by_layer = with_cuda.then(|| on_gpu(CudaLearner::layer_by_layer, Precision::F32)).transpose()?;
            let cell = |seconds: Option<f64>| seconds.map_or("—".into(), |s| format!("{:.1} µs", 1e6 * s));
            let ratio = cpu.zip(cuda).map_or("—".into(), |(cpu, cuda)| format!("{:.2}", cpu.0 / cuda.0));
            println!(
                "| {batch_size} | {width} | {threads} | {} | {} | {ratio} | {} | {} | {} | {} |",
                cell(cpu.map(|m| m.0)),
                cell(cuda.map(|m| m.0)),
                cell(in_tf32.map(|m| m.0)),
                cell(layer_by_layer.map(|m| m.0)),
                cell(cpu.map(|m| m.1)),
                cell(cuda.map(|m| m.1))
            );
        }
    }
    Ok(())
}
