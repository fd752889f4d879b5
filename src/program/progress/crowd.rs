//! The progress of many runs together, where there are too many for a bar each.

use crate::program::output::{short, write_line};
use indicatif::{MultiProgress, ProgressBar};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// All of many runs together.
pub struct Crowd {
    /// Those that have not begun included.
    runs: u64,
    bar: Option<ProgressBar>,
    /// Taken by all of them, those before they were resumed included.
    steps: AtomicU64,
    told: Mutex<Told>,
}

/// What is known of them.
struct Told {
    begun: u64,
    ended: u64,
    /// That those which have begun are to take, and what each of the others is thought to.
    planned: u64,
    each: u64,
    /// The last return of each.
    returns: BTreeMap<String, f64>,
    /// When a line was last told, and at which step.
    last: (Instant, u64),
}

impl Told {
    fn new() -> Self {
        Self { begun: 0, ended: 0, planned: 0, each: 0, returns: BTreeMap::new(), last: (Instant::now(), 0) }
    }
}

impl Crowd {
    /// So many runs, none of which has begun, shown on a bar if there is one.
    pub fn new(runs: u64, bar: Option<ProgressBar>) -> Self {
        Self { runs, bar, steps: AtomicU64::new(0), told: Mutex::new(Told::new()) }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of them begins at `step` of its `steps`.
    pub fn begin(&self, steps: u64, step: u64) {
        let mut told = self.told();
        (told.begun, told.planned, told.each) = (told.begun + 1, told.planned + steps, steps);
        told.last.1 += step;
        let taken = self.steps.fetch_add(step, Ordering::Relaxed) + step;
        if let Some(bar) = &self.bar {
            bar.set_length(self.all_steps(&told));
            bar.set_position(taken);
        }
    }

    fn all_steps(&self, told: &Told) -> u64 {
        told.planned + self.runs.saturating_sub(told.begun) * told.each
    }

    /// Counts steps; on a terminal the bar shows them every now and then, elsewhere every tenth of all is a line.
    pub fn advance(&self, steps: u64, bars: &MultiProgress) {
        /// The bar is drawn anew after so many steps of a run, on average.
        const OFTEN: u64 = 20;
        let taken = self.steps.fetch_add(steps, Ordering::Relaxed) + steps;
        let every = match &self.bar {
            Some(_) => OFTEN * self.runs,
            None => 1,
        };
        if taken / every == (taken - steps) / every {
            return;
        }
        let mut told = self.told();
        let all = self.all_steps(&told);
        let at = told.last.1;
        match &self.bar {
            Some(bar) => {
                bar.set_position(taken);
                bar.set_message(self.state(&told, bar.per_sec()));
            }
            // What is taken on a device comes in stretches, whose own speed says nothing.
            None if taken >= at + all.div_ceil(10)
                && taken < all
                && told.last.0.elapsed() >= Duration::from_secs(1) =>
            {
                self.tell(&mut told, bars);
            }
            None => {}
        }
    }

    /// One of them has ended; the last line is told with the last of them.
    pub fn end(&self, bars: &MultiProgress) {
        let mut told = self.told();
        told.ended += 1;
        if told.ended == self.runs && self.bar.is_none() {
            self.tell(&mut told, bars);
        }
    }

    /// The last return of the run called `name`.
    pub fn note_return(&self, name: &str, value: f64) {
        self.told().returns.insert(name.into(), value);
    }

    /// Takes the bar away.
    pub fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn tell(&self, told: &mut Told, bars: &MultiProgress) {
        let taken = self.steps.load(Ordering::Relaxed);
        let (since, at) = std::mem::replace(&mut told.last, (Instant::now(), taken));
        let speed = taken.saturating_sub(at) as f64 / since.elapsed().as_secs_f64().max(1e-9);
        let line = format!("step {taken} of {}  {}", self.all_steps(told), self.state(told, speed));
        bars.suspend(|| write_line(&line));
    }

    fn state(&self, told: &Told, speed: f64) -> String {
        let returns = || told.returns.values().copied();
        let returns = match told.returns.len() {
            0 => String::new(),
            many => format!(
                "  last returns: mean {}, {} to {}",
                short(returns().sum::<f64>() / many as f64, 1),
                short(returns().fold(f64::INFINITY, f64::min), 1),
                short(returns().fold(f64::NEG_INFINITY, f64::max), 1)
            ),
        };
        format!("{} of {} runs ended  {speed:.0} steps/s{returns}", told.ended, self.runs)
    }
}
