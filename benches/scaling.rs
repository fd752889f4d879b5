//! One update on the CPU by number of threads, for batches, widths and depths: `cargo bench --bench scaling`.
//!
//! Drawing the batch from 100 000 stored transitions, and all noise, is included; obs 17, act 6, from one thread to one for
//! each core, or to `SAC_BENCH_THREADS`. In each round every number of threads takes its turn with the same learner, so
//! what slows the processor slows all of them. Times are medians over the rounds, and so are speed-ups, each over one thread
//! in the same round. The peak, fused multiply-adds on registers alone by as many threads, is measured in the rounds too.
//! Rounds in which threads had to wait for a core, because something else ran there, are left out; only Linux tells of that.
//!
//! `-- full` measures more sizes. `-- docs/scaling.md` writes the table into that file, in place of all that follows the
//! heading [`HEADING`] in it, and a picture beside it, `.svg`; otherwise both go into the target directory, as do the numbers
//! in any case, `scaling.csv`.
//!
//! Without `--bench`, as under `cargo test --benches`, one round of one size shows that it runs.

mod common;
#[path = "common/peak.rs"]
mod peak;

use common::STORED;
use peak::{Peak, peak};
use plotters::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use soft_actor_critic::config::Config;
use soft_actor_critic::nn::threads::{for_each, run};
use soft_actor_critic::replay::Replay;
use soft_actor_critic::sac::{CpuLearner, Learner, cost};
use soft_actor_critic::train::threads_for;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const OBSERVATIONS: usize = 17;
const ACTIONS: usize = 6;
/// How long the rounds of a size last, at least, and the fewest of them; and how long the updates of one number of threads
/// in a round, at least.
const LASTING: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_millis(8);
/// The share of the time for which threads may wait for a core.
const WAITING: f64 = 0.02;
/// What more threads may lose against fewer.
const TOLERANCE: f64 = 1.05;
/// Where a file's table begins.
const HEADING: &str = "## Measured";

/// Transitions in a batch, width and number of hidden layers.
#[derive(Clone, Copy)]
struct Size {
    batch: usize,
    width: usize,
    depth: usize,
}

impl Size {
    fn config(self) -> Config {
        let hidden = vec![self.width; self.depth];
        let (policy_hidden, critic_hidden) = (hidden.clone(), hidden);
        Config { batch_size: self.batch, policy_hidden, critic_hidden, steps: STORED as u64, ..Config::default() }
    }
}

/// What one number of threads has shown.
struct Measured {
    threads: usize,
    /// Of an update.
    seconds: f64,
    /// How many times as fast as one thread.
    speed_up: f64,
    /// FLOP/s of an update as a share of the peak of as many threads; not a number where the peak is not known.
    of_peak: f64,
}

/// What a size has shown.
struct Row {
    size: Size,
    flops: f64,
    /// The number of threads that a run of this size gets.
    chosen: usize,
    measured: Vec<Measured>,
    /// Whether threads had to wait for a core even in the rounds that count.
    disturbed: bool,
}

impl Row {
    /// The most that one of the numbers up to the chosen one loses against a smaller one, as a ratio of times.
    fn worst(&self) -> f64 {
        let run = self.measured.iter().filter(|measured| measured.threads <= self.chosen);
        let (mut worst, mut best): (f64, f64) = (0.0, 0.0);
        for speed_up in run.map(|measured| measured.speed_up) {
            worst = worst.max(best / speed_up);
            best = best.max(speed_up);
        }
        worst
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One, two, four and so on, and as many as there may be.
fn numbers_of_threads() -> Vec<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = std::env::var("SAC_BENCH_THREADS")
        .ok()
        .map_or(cores, |n| n.parse::<usize>().expect("SAC_BENCH_THREADS: a number").clamp(1, cores));
    let doubled = std::iter::successors(Some(1), |threads| Some(2 * threads));
    doubled.take_while(|&threads| threads < most).chain([most]).collect()
}

/// One number of threads in one round.
struct Turn {
    /// Of an update.
    seconds: f64,
    /// Of a burst of the peak on each thread.
    burst: f64,
    /// For which share of the time a thread waited for a core; 0 where the system does not tell.
    waiting: f64,
}

/// Seconds for which the threads that there are have waited for a core, in all.
fn waited() -> f64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0.0 };
    let of_one = |thread: fs::DirEntry| -> Option<f64> {
        let nanoseconds = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        nanoseconds.split_whitespace().nth(1)?.parse().ok()
    };
    threads.flatten().filter_map(of_one).sum::<f64>() / 1e9
}

/// The mean of `calls` updates.
fn turn(learner: &mut CpuLearner, replay: &Replay, pool: &ThreadPool, calls: usize, peak: &Peak) -> Turn {
    let turn = || {
        let mut update = 0;
        let mut learn = |calls| {
            for _ in 0..calls {
                learner.learn(replay, update).expect("it runs on the CPU");
                update += 1;
            }
        };
        // Short updates are warmed up, long ones need not be.
        learn(calls / 4);
        let began = Instant::now();
        learn(calls);
        let (seconds, began) = (began.elapsed().as_secs_f64() / calls as f64, Instant::now());
        for_each(&mut vec![(); pool.current_num_threads()][..], &|_, ()| (peak.burst)());
        (seconds, began.elapsed().as_secs_f64())
    };
    // A thread that waits tells of it when it runs again, which all of them do before this is over.
    let (waited_before, began) = (waited(), Instant::now());
    let (seconds, burst) = run(pool, turn);
    Turn { seconds, burst, waiting: (waited() - waited_before) / began.elapsed().as_secs_f64() }
}

fn measure(size: Size, pools: &[ThreadPool], replay: &Replay, lasting: Duration) -> Row {
    let (config, peak) = (size.config(), peak());
    let mut learner = CpuLearner::new(&config, OBSERVATIONS, &[1.0; ACTIONS]);
    let mut once = || turn(&mut learner, replay, &pools[pools.len() - 1], 1, &peak).seconds;
    // The first one meets with memory that it has never touched.
    once();
    let calls = (TURN.as_secs_f64() / once()).ceil() as usize;
    let (mut rounds, began) = (Vec::new(), Instant::now());
    while rounds.is_empty() || !lasting.is_zero() && (rounds.len() < ROUNDS || began.elapsed() < lasting) {
        let mut one_turn = |pool: &ThreadPool| turn(&mut learner, replay, pool, calls, &peak);
        // No number of threads always comes first.
        let round: Vec<_> = if rounds.len() % 2 == 0 {
            pools.iter().map(one_turn).collect()
        } else {
            let mut round: Vec<_> = pools.iter().rev().map(&mut one_turn).collect();
            round.reverse();
            round
        };
        rounds.push(round);
    }
    assert_eq!(learner.metrics().failure, None);
    let waiting = |round: &[Turn]| round.iter().map(|turn| turn.waiting).fold(0.0, f64::max);
    rounds.sort_by(|one, other| waiting(one).total_cmp(&waiting(other)));
    let undisturbed = rounds.partition_point(|round| waiting(round) <= WAITING);
    rounds.truncate(undisturbed.max(ROUNDS));

    let flops = cost::flops(&config, OBSERVATIONS, ACTIONS);
    let of = |(i, pool): (usize, &ThreadPool)| {
        let threads = pool.current_num_threads();
        let seconds = median(rounds.iter().map(|round| round[i].seconds));
        let burst = median(rounds.iter().map(|round| round[i].burst));
        Measured {
            threads,
            seconds,
            speed_up: median(rounds.iter().map(|round| round[0].seconds / round[i].seconds)),
            of_peak: flops / seconds / (threads as f64 * peak.flops / burst),
        }
    };
    let chosen = threads_for(&config, OBSERVATIONS, ACTIONS, 0).expect("there is no bound");
    Row {
        size,
        flops,
        chosen,
        measured: pools.iter().enumerate().map(of).collect(),
        disturbed: undisturbed < rounds.len(),
    }
}

/// The table in Markdown, and what to say of it.
fn table(rows: &[Row]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    write!(text, "| batch | width | depth | MFLOP |")?;
    for &Measured { threads, .. } in &rows[0].measured {
        write!(text, " {threads}: µs |{} of peak |", if threads > 1 { " speed-up |" } else { "" })?;
    }
    let columns = 5 + 2 * rows[0].measured.len() + (rows[0].measured.len() - 1);
    writeln!(text, " chosen |\n|{}", "---:|".repeat(columns))?;
    for Row { size, flops, chosen, measured, .. } in rows {
        let Size { batch, width, depth } = size;
        write!(text, "| {batch} | {width} | {depth} | {:.*} |", if *flops < 1e8 { 1 } else { 0 }, flops / 1e6)?;
        for &Measured { threads, seconds, speed_up, of_peak } in measured {
            write!(text, " {:.*} |", if seconds < 1e-3 { 1 } else { 0 }, 1e6 * seconds)?;
            if threads > 1 {
                write!(text, " {speed_up:.2} |")?;
            }
            let percent = if of_peak.is_finite() { format!("{:.0} %", 100.0 * of_peak) } else { "–".into() };
            write!(text, " {percent} |")?;
        }
        writeln!(text, " {chosen} |")?;
    }
    let worst = rows.iter().map(Row::worst).fold(0.0, f64::max);
    let disturbed = rows.iter().filter(|row| row.disturbed).count();
    let slower = rows.iter().filter(|row| row.worst() > TOLERANCE).count();
    writeln!(
        text,
        "\nUp to the number chosen, more threads are slower than fewer by more than {:.0} % in {slower} of {} sizes; the worst \
         takes {worst:.2} times as long. In {disturbed} of them threads had to wait for a core.",
        100.0 * (TOLERANCE - 1.0),
        rows.len()
    )?;
    Ok(text)
}

fn csv(rows: &[Row]) -> Result<String, std::fmt::Error> {
    let mut text = String::from("batch,width,depth,flops,chosen,threads,seconds,speed_up,share_of_peak\n");
    for Row { size: Size { batch, width, depth }, flops, chosen, measured, .. } in rows {
        for Measured { threads, seconds, speed_up, of_peak } in measured {
            writeln!(
                text,
                "{batch},{width},{depth},{flops},{chosen},{threads},{seconds:.4e},{speed_up:.4},{of_peak:.4}"
            )?;
        }
    }
    Ok(text)
}

/// Speed-up and share of the peak over the work of an update; a number of threads that is not chosen is a ring.
fn picture(path: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    const COLORS: [RGBColor; 5] = [
        RGBColor(0, 114, 178),
        RGBColor(213, 94, 0),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(230, 159, 0),
    ];
    type Value = fn(&Measured) -> f64;
    let panels: [(&str, Value, _); 2] = [
        ("speed-up over one thread", |measured| measured.speed_up, SeriesLabelPosition::LowerRight),
        ("% of the peak of as many threads", |measured| 100.0 * measured.of_peak, SeriesLabelPosition::UpperLeft),
    ];
    let area = SVGBackend::new(path, (900, 380)).into_drawing_area();
    area.fill(&WHITE)?;
    let work = |row: &Row| row.flops / 1e6;
    let (least, most) = rows.iter().map(work).fold((f64::MAX, 0.0_f64), |(a, b), w| (a.min(w), b.max(w)));
    for ((title, value, free), area) in panels.into_iter().zip(area.split_evenly((1, 2))) {
        let values = || rows.iter().flat_map(|row| &row.measured).map(value).filter(|value| value.is_finite());
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 16))
            .margin(8)
            .margin_right(20)
            .x_label_area_size(40)
            .y_label_area_size(44)
            .build_cartesian_2d((least / 2.0..most * 2.0).log_scale(), 0.0..1.1 * values().fold(1.0, f64::max))?;
        chart
            .configure_mesh()
            .label_style(("sans-serif", 12))
            .x_desc("MFLOP of an update")
            .bold_line_style(BLACK.mix(0.1))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (i, &Measured { threads, .. }) in rows[0].measured.iter().enumerate() {
            let color = COLORS[i % COLORS.len()];
            let points = rows.iter().map(|row| {
                let filled = threads <= row.chosen;
                let style = if filled { color.filled() } else { color.stroke_width(1) };
                Circle::new((work(row), value(&row.measured[i])), 3, style)
            });
            let label = if threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
            chart.draw_series(points)?.label(label).legend(move |(x, y)| Circle::new((x + 9, y), 3, color.filled()));
        }
        chart
            .configure_series_labels()
            .position(free)
            .background_style(WHITE.mix(0.8))
            .label_font(("sans-serif", 12))
            .draw()?;
    }
    Ok(area.present()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let measuring = asked("--bench") && !asked("--test");
    let given = arguments.iter().find(|argument| argument.ends_with(".md")).map(PathBuf::from);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = given.unwrap_or_else(|| target.join("scaling.md"));

    let (batches, widths, depths): (&[usize], &[usize], &[usize]) = if !measuring {
        (&[64], &[32], &[1])
    } else if asked("full") {
        (&[64, 128, 256, 512, 1024, 2048, 4096], &[32, 64, 128, 256, 512, 1024], &[1, 2, 3, 4])
    } else {
        (&[64, 256, 1024, 4096], &[32, 64, 256, 1024], &[1, 2, 4])
    };
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build();
    let pools = numbers_of_threads().into_iter().map(pool).collect::<Result<Vec<_>, _>>()?;
    let replay = common::replay(OBSERVATIONS, ACTIONS);
    let lasting = if measuring { LASTING } else { Duration::ZERO };
    let mut rows = Vec::new();
    for &batch in batches {
        for &width in widths {
            for &depth in depths {
                rows.push(measure(Size { batch, width, depth }, &pools, &replay, lasting));
                eprint!("\r{} of {} sizes", rows.len(), batches.len() * widths.len() * depths.len());
            }
        }
    }
    eprintln!();

    let table = table(&rows)?;
    println!("peak: {}\n\n{table}", peak().registers);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let before = before.split(HEADING).next().unwrap_or_default();
    fs::write(&path, format!("{before}{HEADING}\n\n{table}"))?;
    picture(&path.with_extension("svg"), &rows)?;
    let numbers = target.join("scaling.csv");
    fs::write(&numbers, csv(&rows)?)?;
    println!("{}\n{}", path.display(), numbers.display());
    Ok(())
}
