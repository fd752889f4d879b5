//! An update allocates nothing of its own. What `matrixmultiply` allocates inside, one packing buffer a product, is
//! bounded here as well.

use soft_actor_critic::config::Config;
use soft_actor_critic::replay::{Batch, Replay, Transition};
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::{CpuLearner, Learner, Noise};
use soft_actor_critic::train::with_threads;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Allocations and reallocations by any thread.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of `updates` updates, drawing the batch and the noise included, and of as many actions.
fn allocations(hidden: usize, threads: usize, updates: u64) -> u64 {
    let (o, a, batch_size) = (3, 1, 256);
    let hidden = vec![hidden; 2];
    let config = Config { batch_size, policy_hidden: hidden.clone(), critic_hidden: hidden, ..Config::default() };
    with_threads(threads, || {
        let mut learner = CpuLearner::<f32>::new(&config, o, &[1.0]);
        let mut replay = Replay::new(1000, o, a).expect("it fits");
        for _ in 0..1000 {
            let (observation, next_observation) = (&[0.1, 0.2, 0.3], &[0.2, 0.3, 0.4]);
            let (terminated, truncated) = (false, false);
            let transition =
                Transition { observation, action: &[0.5], reward: 1.0, next_observation, terminated, truncated };
            replay.push(transition);
        }
        let (mut rows, mut batch, mut noise) =
            (vec![0; batch_size], Batch::zeros(batch_size, o, a), Noise::zeros(batch_size, a));
        let observation = batch.observation.row(0).insert_axis(ndarray::Axis(0)).to_owned();
        let mut action = ndarray::Array2::zeros((1, a));
        let mut work = |updates: std::ops::Range<u64>| {
            for update in updates {
                replay.sample(&mut Philox::new(0, Stream::Replay, update), &mut rows);
                replay.gather(&rows, 0.99, 1, &mut batch);
                noise.fill(&mut Philox::new(0, Stream::Update, update));
                learner.update(&batch, &noise);
                learner.act(observation.view(), None, action.view_mut()).expect("it runs on the CPU");
            }
        };
        // The first updates grow rayon's queues and the scratch memory of each thread.
        work(0..20);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        work(20..20 + updates);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    })
    .expect("there are threads")
}

/// Whether products go to this crate's own kernel.
fn has_own_kernel() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has_registers = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    let has_registers = cfg!(target_arch = "aarch64");
    has_registers && std::env::var_os("SAC_GEMM").is_none_or(|choice| choice != "portable")
}

#[test]
fn an_update_allocates_nothing_of_its_own() {
    let updates = 50;
    for threads in [1, 2] {
        // Every product of so narrow a network is made by our own loops.
        let found = allocations(8, threads, updates);
        println!("{threads} threads, hidden 8: {found} allocations in {updates} updates");
        assert_eq!(found, 0);
        // `matrixmultiply` packs in a buffer of its own for each large product; our kernel does not. Two blocks of rows go
        // eight times forward and five times back, and three weights have gradients of each, in four parts.
        let bound = if has_own_kernel() { 0 } else { 2 * (8 + 5 + 3 * 4) * updates };
        let found = allocations(256, threads, updates);
        println!("{threads} threads, hidden 256: {found} allocations in {updates} updates");
        assert!(found <= bound);
    }
}
