//! Where the time of one update goes, and how close it comes to what the processor can do: `cargo bench --bench update_breakdown`.
//!
//! For each size a table of the phases of an update, with `SAC_BENCH_THREADS` threads, 2 if it is not set, and with one;
//! then the building blocks, on one thread, called again and again with all data in the cache: those of a critic and of
//! the tanh-Gaussian over one block of rows, and those of the steps over a critic's parameters. Times are medians over
//! rounds in which everything takes its turn, so what slows the processor slows all of it.
//!
//! - MFLOP: two for each multiplication and addition of the matrix products, thin ones included; nothing else is counted.
//! - peak: fused multiply-adds of the widest registers, on registers alone, in the same rounds; of all threads together.
//!   Where that is far from the peak of one thread times their number, the threads did not have a core each, and a table
//!   with several threads says little.
//! - MB: read and written. Stream: the rate of copying 8 MiB to 8 MiB, by each thread, before the rounds.
//! - bound: the products at the peak, and the bytes at the stream rate, which what stays in the cache may exceed.
//! - rest of update: `update` less the phases above, which is its steps (Adam, Polyak, packing) and metrics. "steps alone"
//!   are the same steps, right after, on parameters of their own.
//!
//! `-- --quick` measures for a tenth of the time. Without `--bench`, or with `--test`, one round shows that it runs.

#[path = "common/arguments.rs"]
mod arguments;
mod common;
#[path = "common/peak.rs"]
mod peak;
#[path = "common/size.rs"]
mod size;

use arguments::Arguments;
use ndarray::{Array1, Array2, Axis};
use peak::peak;
use size::Size;
use soft_actor_critic::nn::threads::{for_each, join};
use soft_actor_critic::nn::{Adam, Aligned, Network, Real, Theta, polyak, undivided};
use soft_actor_critic::replay::Batch;
use soft_actor_critic::rng::{Philox, Stream};
use soft_actor_critic::sac::{Learner, Noise};
use soft_actor_critic::train::with_threads;
use std::collections::HashMap;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where there is no number.
const NONE: f64 = f64::NAN;
/// How long the rounds of a table last.
const LASTING: Duration = Duration::from_secs(3);
const STREAM: usize = 8 << 20;
/// Calls that are timed together, of a building block and of a join.
const CALLS: usize = 10;
/// Of the products of an update over two hidden layers of H those that are `[H, H]`, if both critics go back in all rows
/// for the policy's loss, as frameworks have it. Here only the smaller one of each row does, which makes 15.
const SQUARE_PRODUCTS: f64 = 16.0;

/// Seconds of what takes its turn in each round.
#[derive(Default)]
struct Times(HashMap<&'static str, Vec<f64>>);

impl Times {
    /// Does `work` so many times, and takes down the mean time.
    fn time(&mut self, name: &'static str, calls: usize, mut work: impl FnMut()) {
        let began = Instant::now();
        (0..calls).for_each(|_| work());
        self.0.entry(name).or_default().push(began.elapsed().as_secs_f64() / calls as f64);
    }

    /// The median of one of them.
    fn of(&mut self, name: &str) -> f64 {
        let all = self.0.get_mut(name).expect("it has been timed");
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }
}

/// FLOPs of a pass forward, which are those of the gradients too, and of one backward.
fn flops(network: &Network, rows: usize) -> (f64, f64) {
    let of = |skip| network.layers().iter().skip(skip).map(|layer| (2 * rows * layer.weight.len()) as f64).sum();
    (of(0), of(1))
}

/// Bytes that are read and written in packing the weights of a network.
fn packing(network: &Network) -> f64 {
    let layers = network.layers().iter().skip(1);
    let bytes = layers.map(|layer| match f32::packed_len(layer.outputs, layer.inputs) {
        0 => 0,
        packed => 4 * (layer.weight.len() + packed),
    });
    bytes.sum::<usize>() as f64
}

/// Bytes of Adam's step, which reads θ, its gradient and two moments and writes all but the gradient; and of Polyak's.
fn stepping(network: &Network) -> (f64, f64) {
    ((4 * 7 * network.parameters()) as f64, (4 * 3 * network.parameters()) as f64)
}

/// Online and target parameters of a network, Adam, and a gradient.
struct Steps(Theta<f32>, Theta<f32>, Adam<f32>, Aligned<f32>);

impl Steps {
    fn new(network: &Network) -> Self {
        let values: Vec<f32> = (0..network.parameters()).map(|i| (i * 37 % 101) as f32 / 1000.0 - 0.05).collect();
        let theta = |back| Theta::new(&values, [network], back);
        let adam = Adam::new(values.len(), 1e-9);
        Self(theta(true), theta(false), adam, Aligned::from(values.as_slice()))
    }

    fn step(&mut self, follow: bool) {
        let Self(online, target, adam, gradient) = self;
        adam.step(online.values_mut(), gradient);
        online.pack();
        if follow {
            polyak(target.values_mut(), online, 0.01);
        }
    }
}

/// The columns of all tables; what is not a number is not shown.
struct Columns {
    /// Seconds of what is all, FLOP/s, B/s.
    whole: f64,
    peak: f64,
    stream: f64,
}

impl Columns {
    fn line(&self, name: &str, seconds: f64, flops: f64, bytes: f64) {
        let bound: f64 = [flops / self.peak, bytes / self.stream].into_iter().filter(|bound| bound.is_finite()).sum();
        let cell = |value: f64, decimals, unit| {
            if value.is_finite() { format!("{value:.decimals$}{unit}") } else { "-".into() }
        };
        println!(
            "{name:<22}{:>9.2}{:>9}{:>9}{:>9}{:>9}{:>8}{:>8}{:>10}",
            seconds * 1e6,
            cell(100.0 * seconds / self.whole, 1, " %"),
            cell(flops / 1e6, 2, ""),
            cell(flops / seconds / 1e9, 1, ""),
            cell(100.0 * flops / seconds / self.peak, 1, " %"),
            cell(bytes / 1e6, 2, ""),
            cell(bytes / seconds / 1e9, 1, ""),
            cell(if bound > 0.0 { bound * 1e6 } else { NONE }, 1, ""),
        );
    }
}

/// A join whose halves run on two threads: the first waits for the second to begin.
fn hand_over() {
    let begun = AtomicBool::new(false);
    let wait = || {
        while !begun.load(Ordering::Acquire) {
            spin_loop();
        }
    };
    join(wait, || begun.store(true, Ordering::Release));
}

/// The table of the phases; what is returned are the seconds of an update.
fn phases(size: Size, threads: usize, lasting: Duration) -> f64 {
    let (replay, mut learner, peak) = (common::replay(size.obs, size.act), size.learner(), peak());
    let (mut batch, mut noise) = (Batch::zeros(size.batch, size.obs, size.act), Noise::zeros(size.batch, size.act));
    let (policy, critic) = (learner.policy().networks[0].clone(), learner.critic().clone());
    let [mut q1, mut q2, mut actor] = [&critic, &critic, &policy].map(Steps::new);
    let (mut times, mut rows, mut all) = (Times::default(), vec![0; size.batch], vec![(); threads]);

    let mut buffers = vec![(vec![1_u8; STREAM], vec![0_u8; STREAM]); threads];
    for _ in 0..if lasting.is_zero() { 1 } else { 50 } {
        times.time("stream", 1, || for_each(&mut buffers[..], &|_, (from, to)| black_box(to).copy_from_slice(from)));
    }
    drop(buffers);
    let (began, mut updates) = (Instant::now(), 0);
    while updates == 0 || began.elapsed() < lasting {
        times.time("peak of one", 1, peak.burst);
        times.time("peak", 1, || for_each(&mut all[..], &|_, ()| (peak.burst)()));
        times.time("learn", 1, || learner.learn(&replay, updates).expect("it runs on the CPU"));
        times.time("drawing", 1, || {
            let draw = || {
                replay.sample(&mut Philox::new(1, Stream::Replay, updates), &mut rows);
                replay.gather(&rows, 0.99, 1, &mut batch);
            };
            join(draw, || noise.fill(&mut Philox::new(1, Stream::Update, updates)));
        });
        times.time("update", 1, || learner.update(&batch, &noise));
        let alpha = learner.alpha();
        times.time("sample_actions", 1, || learner.sample_actions(&batch, &noise));
        times.time("critic_loss", 1, || _ = black_box(learner.critic_loss(alpha, &batch)));
        times.time("evaluate_actions", 1, || learner.evaluate_actions(&batch));
        times.time("policy_loss", 1, || _ = black_box(learner.policy_loss(alpha, &noise)));
        times.time("temperature_loss", 1, || _ = black_box(learner.temperature_loss()));
        times.time("steps alone", 1, || {
            join(|| q1.step(true), || q2.step(true));
            actor.step(false);
        });
        times.time("join", CALLS, || _ = join(|| black_box(1), || black_box(2)));
        if threads > 1 {
            times.time("hand-over", CALLS, hand_over);
        }
        updates += 1;
    }
    assert_eq!(learner.metrics().failure, None);

    let (update, learn) = (times.of("update"), times.of("learn"));
    let (rate, stream) =
        (threads as f64 * peak.flops / times.of("peak"), (threads * 2 * STREAM) as f64 / times.of("stream"));
    let one = peak.flops / times.of("peak of one");
    let ((p, p_back), (q, q_back)) = (flops(&policy, size.batch), flops(&critic, size.batch));
    // Each row goes back through one of the twins, down to the action.
    let to_action = (2 * size.batch * size.act * size.hidden) as f64;
    let products = [2.0 * p, 2.0 * (3.0 * q + q_back), 2.0 * q, q_back + to_action + p_back + p];
    let (adam, follow) = stepping(&critic);
    let bytes = 2.0 * (adam + follow + packing(&critic)) + stepping(&policy).0 + packing(&policy);
    println!(
        "threads: {threads}; peak {:.0} GFLOP/s, of one thread {:.0}; stream {:.1} GB/s; {updates} rounds",
        rate / 1e9,
        one / 1e9,
        stream / 1e9
    );
    println!("{:<22}       µs of update   MFLOP  GFLOP/s  of peak      MB    GB/s  bound µs", "");
    let columns = Columns { whole: update, peak: rate, stream };
    columns.line("drawing", times.of("drawing"), NONE, NONE);
    let names = ["sample_actions", "critic_loss", "evaluate_actions", "policy_loss", "temperature_loss"];
    let mut rest = update;
    for (name, flops) in names.into_iter().zip(products.into_iter().chain([NONE])) {
        rest -= times.of(name);
        columns.line(name, times.of(name), flops, NONE);
    }
    let total = products.iter().sum();
    columns.line("rest of update", rest, NONE, bytes);
    columns.line("update", update, total, bytes);
    columns.line("learn", learn, total, bytes);
    columns.line("steps alone", times.of("steps alone"), NONE, bytes);
    columns.line("join of nothing", times.of("join"), NONE, NONE);
    if threads > 1 {
        columns.line("join handed over", times.of("hand-over"), NONE, NONE);
    }
    if size.hidden == 256 {
        let square = SQUARE_PRODUCTS * (2 * size.batch * size.hidden * size.hidden) as f64;
        let share = 100.0 * square / learn / rate;
        println!("==> {:.0} MFLOP × {:.1} updates/s (learn) = {share:.1} % of the peak", square / 1e6, learn.recip());
    }
    update
}

/// The table of the building blocks.
fn blocks(size: Size, lasting: Duration) {
    let (learner, peak) = (size.learner(), peak());
    let (critic, distribution) = (learner.critic(), learner.policy().distribution);
    // As a batch is divided for the cache.
    let (rows, act) = (size.batch / size.batch.div_ceil(128), size.act);
    let Steps(mut theta, mut target, mut adam, gradient) = Steps::new(critic);
    let (mut pass, mut d_theta) = (critic.pass::<f32>(&undivided(rows)), gradient.clone());
    let mut x = Array2::zeros((rows, critic.inputs()));
    x.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 17) as f32 / 8.0 - 1.0);
    pass.blocks_mut()[0].d_y.view_mut().fill(0.01);
    let (y, noise) = (Array2::from_elem((rows, 2 * act), 0.1_f32), Array2::from_elem((rows, act), 0.3));
    let (mut d_y, mut action, mut log_prob) = (y.clone(), noise.clone(), Array1::from_elem(rows, 0.1));
    let (mean, log_std) = y.view().split_at(Axis(1), act);
    let (mut times, began) = (Times::default(), Instant::now());
    while times.0.is_empty() || began.elapsed() < lasting {
        times.time("peak", 1, peak.burst);
        times.time("Network::forward", CALLS, || critic.forward(theta.weights(0), &[&x], &mut pass));
        times.time("Network::backward", CALLS, || critic.backward(theta.weights(0), &mut pass));
        times.time("Network::gradient", CALLS, || critic.gradient(pass.blocks(), &mut d_theta));
        let sample = || distribution.sample(mean, log_std, noise.view(), action.view_mut(), log_prob.view_mut());
        times.time("TanhGaussian::sample", CALLS, sample);
        let back = || {
            let (d_mean, d_log_std) = d_y.view_mut().split_at(Axis(1), act);
            let (d_action, d_log_prob) = (action.view(), log_prob.view());
            distribution.sample_backward(mean, log_std, noise.view(), d_action, d_log_prob, d_mean, d_log_std);
        };
        times.time("its sample_backward", CALLS, back);
        times.time("Adam::step", CALLS, || adam.step(theta.values_mut(), &gradient));
        times.time("polyak", CALLS, || polyak(target.values_mut(), &theta, 0.01));
        times.time("Theta::pack", CALLS, || theta.pack());
    }
    let ((forward, backward), (step, follow)) = (flops(critic, rows), stepping(critic));
    let columns = Columns { whole: NONE, peak: peak.flops / times.of("peak"), stream: NONE };
    println!("building blocks, on one thread: {rows} rows; peak {:.0} GFLOP/s", columns.peak / 1e9);
    for (name, flops, bytes) in [
        ("Network::forward", forward, NONE),
        ("Network::backward", backward, NONE),
        ("Network::gradient", forward, NONE),
        ("TanhGaussian::sample", NONE, NONE),
        ("its sample_backward", NONE, NONE),
        ("Adam::step", NONE, step),
        ("polyak", NONE, follow),
        ("Theta::pack", NONE, packing(critic)),
    ] {
        columns.line(name, times.of(name), flops, bytes);
    }
}

fn main() {
    let lasting = Arguments::read(&[]).lasting(LASTING);
    let threads =
        std::env::var("SAC_BENCH_THREADS").ok().map_or(2, |n| n.parse().expect("SAC_BENCH_THREADS: a number"));
    assert!(threads > 0, "SAC_BENCH_THREADS: at least 1");
    println!("peak of {}", peak().registers);
    for size in [
        Size { obs: 3, act: 1, batch: 256, hidden: 256 },
        Size { obs: 17, act: 6, batch: 256, hidden: 256 },
        Size { obs: 3, act: 1, batch: 100, hidden: 64 },
    ] {
        println!("\nobs{}/act{}/b{}/h{}", size.obs, size.act, size.batch, size.hidden);
        let measure = |threads| with_threads(threads, || phases(size, threads, lasting));
        let update = measure(threads).expect("the system gives threads");
        if threads > 1 {
            let ratio = measure(1).expect("the system gives a thread") / update;
            println!("update with 1 thread takes {ratio:.2} times as long as with {threads}");
        }
        with_threads(1, || blocks(size, lasting)).expect("the system gives a thread");
    }
}
