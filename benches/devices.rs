//! One update on the CPU beside one on an NVIDIA GPU, for batches from 256 to 4096 and widths from 64 to 1024: the batch
//! drawn from 100 000 stored transitions, and all noise, included. On the GPU it is the fused update, and beside it the same
//! in tf32, and made layer by layer. A table in Markdown; the ratio shows when a GPU pays. Without a GPU, or without the
//! feature `cuda`, a line says so and the table has the CPU's side alone.
//!
//! `cargo bench --bench devices`, with `-- full` for batch 16 384 too, which takes minutes on two cores, with `-- --quick` for
//! batch 256 alone, with `-- cpu` or `-- cuda` for one side. With `-- seeds` it is instead how many updates a second 1, 8, 64
//! and 256 agents make together, at batch 256 and 2 × 256. `SAC_BENCH_THREADS` bounds the number of threads, which is
//! otherwise that of a run of the same size.
//!
//! Without `--bench`, or with `--test`, one row shows that it runs.

#[path = "common/arguments.rs"]
mod arguments;
mod common;

#[cfg(feature = "cuda")]
#[path = "common/cuda.rs"]
mod cuda;
/// In place of `common/cuda.rs`: every function fails.
#[cfg(not(feature = "cuda"))]
mod cuda {
    use soft_actor_critic::config::{Config, Precision};
    use soft_actor_critic::error::Error;
    use soft_actor_critic::replay::Replay;
    use std::time::Duration;

    fn lacking<T>() -> Result<T, Error> {
        Err(Error::Device("this build lacks the feature `cuda`".into()))
    }

    pub fn name(_: Precision) -> Result<String, Error> {
        lacking()
    }

    pub fn one_agent(_: &Config, _: bool, _: &Replay, _: Duration) -> Result<(f64, f64), Error> {
        lacking()
    }

    pub fn many_agents(_: Duration) -> Result<(), Error> {
        lacking()
    }
}

use arguments::Arguments;
use common::STORED;
use ndarray::Array2;
use soft_actor_critic::config::{Config, Precision};
use soft_actor_critic::error::Error;
use soft_actor_critic::replay::Replay;
use soft_actor_critic::sac::{CpuLearner, Learner};
use soft_actor_critic::train::{threads_for, with_threads};
use std::time::{Duration, Instant};

const OBSERVATIONS: usize = 17;
const ACTIONS: usize = 6;
/// How long a measurement takes, at least, and how many parts it has, of which the median counts.
const LASTING: Duration = Duration::from_millis(600);
const PARTS: usize = 5;

/// Seconds for one call of `work`, which makes as many as it is told: the median of several measurements.
fn seconds(lasting: Duration, mut work: impl FnMut(usize) -> Result<(), Error>) -> Result<f64, Error> {
    work(2)?;
    let mut calls = 1;
    loop {
        let began = Instant::now();
        work(calls)?;
        if began.elapsed() > lasting / PARTS as u32 {
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
fn measure(learner: &mut dyn Learner, replay: &Replay, lasting: Duration) -> Result<(f64, f64), Error> {
    let mut update = 0;
    let learn = seconds(lasting, |calls| {
        for _ in 0..calls {
            learner.learn(replay, update)?;
            update += 1;
        }
        assert_eq!(learner.metrics()?.failure, None);
        Ok(())
    })?;
    let (observation, noise) = (Array2::from_elem((1, OBSERVATIONS), 0.1), Array2::from_elem((1, ACTIONS), 0.1));
    let mut action = Array2::zeros((1, ACTIONS));
    let act = seconds(lasting, |calls| {
        (0..calls).try_for_each(|_| learner.act(observation.view(), Some(noise.view()), action.view_mut()))
    })?;
    Ok((learn, act))
}

fn main() -> Result<(), Error> {
    let arguments = Arguments::read(&["full", "cpu", "cuda", "seeds"]);
    let (with_cpu, mut with_cuda) = (!arguments.has("cuda"), !arguments.has("cpu"));
    let lasting = arguments.lasting(LASTING);
    let threads =
        std::env::var("SAC_BENCH_THREADS").ok().map_or(0, |n| n.parse().expect("SAC_BENCH_THREADS: a number"));
    if with_cuda {
        match cuda::name(Precision::F32) {
            Ok(name) => println!("CUDA: {name}"),
            Err(error) => {
                println!("CUDA: not measured; {error}");
                with_cuda = false;
            }
        }
    }
    if arguments.has("seeds") {
        return if with_cuda { cuda::many_agents(lasting) } else { Ok(()) };
    }
    let tf32 = if with_cuda { cuda::name(Precision::Tf32).map(drop) } else { Ok(()) };
    if let Err(error) = &tf32 {
        println!("tf32: not measured; {error}");
    }
    println!("One update and one action, obs {OBSERVATIONS}, act {ACTIONS}, two hidden layers:\n");
    println!(
        "| batch | width | threads | CPU, update | CUDA, update | CPU / CUDA | in tf32 | layer by layer | CPU, action | CUDA, action |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let replay = common::replay(OBSERVATIONS, ACTIONS);
    let (batches, widths): (&[usize], &[usize]) = if !arguments.measures() {
        (&[256], &[64])
    } else if arguments.has("--quick") {
        (&[256], &[64, 256, 1024])
    } else if arguments.has("full") {
        (&[256, 1024, 4096, 16_384], &[64, 256, 1024])
    } else {
        (&[256, 1024, 4096], &[64, 256, 1024])
    };
    for &batch_size in batches {
        for &width in widths {
            let hidden = vec![width; 2];
            let config = Config {
                batch_size,
                policy_hidden: hidden.clone(),
                critic_hidden: hidden,
                steps: STORED as u64,
                ..Config::default()
            };
            let threads = threads_for(&config, OBSERVATIONS, ACTIONS, threads)?;
            let cpu = with_cpu
                .then(|| {
                    let mut cpu = CpuLearner::<f32>::new(&config, OBSERVATIONS, &[1.0; ACTIONS]);
                    with_threads(threads, || measure(&mut cpu, &replay, lasting))?
                })
                .transpose()?;
            let on_gpu = |fused, precision| {
                let config = Config { precision, ..config.clone() };
                cuda::one_agent(&config, fused, &replay, lasting)
            };
            let cuda = with_cuda.then(|| on_gpu(true, Precision::F32)).transpose()?;
            let with_tf32 = with_cuda && tf32.is_ok();
            let in_tf32 = with_tf32.then(|| on_gpu(true, Precision::Tf32)).transpose()?;
            let layer_by_layer = with_cuda.then(|| on_gpu(false, Precision::F32)).transpose()?;
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
