//! One update and one action on the CPU: the batch drawn from 100 000 stored transitions, and all noise, included. For a
//! GPU beside it see `benches/devices.rs`.
//!
//! `cargo bench --bench update`; with `-- update/cpu` only some. `SAC_BENCH_THREADS` sets the number of threads, 2 if it is
//! not set.

mod common;
#[path = "common/size.rs"]
mod size;

use criterion::{BenchmarkId, Criterion};
use ndarray::Array2;
use size::Size;
use soft_actor_critic::sac::Learner;
use soft_actor_critic::train::with_threads;
use std::time::Duration;

fn update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    for size in [
        Size { obs: 3, act: 1, batch: 256, hidden: 256 },
        Size { obs: 17, act: 6, batch: 256, hidden: 256 },
        Size { obs: 3, act: 1, batch: 100, hidden: 64 },
    ] {
        let Size { obs, act, batch: batch_size, hidden } = size;
        let (mut learner, replay) = (size.learner(), common::replay(obs, act));
        let mut updates = 0;
        let id = BenchmarkId::new("cpu", format!("obs{obs}-act{act}-b{batch_size}-h{hidden}"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                learner.learn(&replay, updates).expect("it runs on the CPU");
                updates += 1;
            });
        });
    }
}

fn act(criterion: &mut Criterion) {
    for (obs, act, hidden) in [(3, 1, 256), (17, 6, 256), (3, 1, 64)] {
        let mut learner = Size { obs, act, batch: 256, hidden }.learner();
        let observation = Array2::from_elem((1, obs), 0.1);
        let (noise, mut action) = (Array2::from_elem((1, act), 0.1), Array2::zeros((1, act)));
        criterion.bench_function(&format!("act/cpu/obs{obs}-act{act}-h{hidden}"), |bencher| {
            bencher.iter(|| learner.act(observation.view(), Some(noise.view()), action.view_mut()));
        });
    }
}

fn main() {
    let threads =
        std::env::var("SAC_BENCH_THREADS").ok().map_or(2, |n| n.parse().expect("SAC_BENCH_THREADS: a number"));
    let run = || {
        let mut criterion = Criterion::default()
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(5))
            .sample_size(50)
            .configure_from_args();
        update(&mut criterion);
        act(&mut criterion);
        criterion.final_summary();
    };
    with_threads(threads, run).expect("the system gives threads");
}
