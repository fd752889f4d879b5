//! What the user sees: a bar and a small curve on a terminal, plain lines elsewhere, JSON for scripts, nothing when
//! quiet.

mod crowd;
mod watcher;

pub use watcher::Watcher;

use crate::program::interruption;
use crate::program::output::{name_within, short, write_event, write_line};
use clap::ValueEnum;
use crowd::Crowd;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use serde_json::{Map, Value, json};
use soft_actor_critic::config::Config;
use soft_actor_critic::run::Row;
use soft_actor_critic::sac::{Metric, Metrics};
use soft_actor_critic::session::Observer;
use soft_actor_critic::train::Episode;
use std::collections::VecDeque;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// For people: on standard error, a bar on a terminal and plain lines elsewhere
    Text,
    /// For scripts: on standard output, an object of JSON on each line
    Json,
}

/// Where the progress of the runs of a command is told.
pub struct Board {
    log: Log,
    quiet: bool,
    /// If the command may have more than one run, the directory that holds them; what is told of one begins with its
    /// name.
    root: Option<PathBuf>,
    /// The bars of all of them.
    bars: MultiProgress,
    /// Where there are too many for a bar each.
    crowd: Option<Arc<Crowd>>,
}

/// The runs of a command that may have more than one.
#[derive(Clone, Copy)]
pub struct Many<'a> {
    /// The directory that holds them.
    pub root: &'a Path,
    /// How many there are.
    pub runs: usize,
    /// And how many of them at once.
    pub at_once: usize,
}

/// The most runs at once of which each is told by itself.
const MOST_BARS: usize = 8;

impl Board {
    /// A board with nothing on it, for one run or for many.
    pub fn new(quiet: bool, log: Log, many: Option<Many>) -> Self {
        let bars = MultiProgress::new();
        let crowd =
            many.filter(|many| many.at_once > MOST_BARS && log == Log::Text && !quiet).map(|Many { runs, .. }| {
                let template = "{bar:20} {pos}/{len} steps, {eta} left\n{wide_msg}";
                let style = ProgressStyle::with_template(template).expect("the template is valid");
                let bar = stderr().is_terminal().then(|| bars.add(ProgressBar::new(0)).with_style(style));
                Arc::new(Crowd::new(runs as u64, bar))
            });
        Self { log, quiet, root: many.map(|many| many.root.to_path_buf()), bars, crowd }
    }

    /// Announces the run in the directory `run`, which stands at `step`: how it begins, and a line for each of `notes`.
    pub fn progress(&self, run: &Path, config: &Config, step: u64, beginning: &str, notes: &[String]) -> Progress {
        let name = self.root.as_ref().map(|root| name_within(root, run));
        let own_bar = !self.quiet && self.log == Log::Text && self.crowd.is_none() && stderr().is_terminal();
        let bar = own_bar.then(|| {
            let template = match name {
                None => "{bar:20} {pos}/{len} steps, {speed}, {eta} left  {prefix}\n{wide_msg}",
                Some(_) => "{run} {bar:20} {pos}/{len} steps, {speed}, {eta} left  {prefix}",
            };
            let style = ProgressStyle::with_template(template).expect("the template is valid");
            let speed = |state: &ProgressState, w: &mut dyn std::fmt::Write| {
                // There is room for it, or there is nobody to be told.
                let _ = write!(w, "{:.0} steps/s", state.per_sec());
            };
            let shown = name.clone().unwrap_or_default();
            let run = move |_: &ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = write!(w, "{shown}");
            };
            let style = style.with_key("speed", speed).with_key("run", run);
            self.bars.add(ProgressBar::new(config.steps)).with_style(style).with_position(step)
        });
        let line_every = if config.eval_every > 0 { u64::MAX } else { config.steps.div_ceil(10) };
        let (returns, last_line) = (VecDeque::new(), (Instant::now(), step));
        let (log, quiet) = (self.log, self.quiet);
        let crowd = self.crowd.clone();
        if let Some(crowd) = &crowd {
            crowd.begin(config.steps, step);
        }
        let bars = self.bars.clone();
        let progress =
            Progress { log, quiet, name, bar, bars, crowd, step, returns, means: None, last_line, line_every };
        progress.say(beginning);
        notes.iter().for_each(|note| progress.warn(note));
        progress
    }

    /// One line for the user that is about no single run.
    pub fn say(&self, line: &str) {
        self.sayer()(line);
    }

    /// What prints such a line.
    pub fn sayer(&self) -> impl Fn(&str) + Send + 'static {
        let (log, quiet, bars) = (self.log, self.quiet, self.bars.clone());
        move |line| match log {
            Log::Json => write_event(&json!({ "event": "note", "text": line })),
            Log::Text if quiet => {}
            Log::Text => bars.suspend(|| write_line(line)),
        }
    }

    /// One of many runs has ended, be it before it was announced.
    pub fn end(&self) {
        if let Some(crowd) = &self.crowd {
            crowd.end(&self.bars);
        }
    }

    /// Takes away what shows all runs together.
    pub fn close(&self) {
        if let Some(crowd) = &self.crowd {
            crowd.close();
        }
    }

    /// Writes without the bars in the way.
    pub fn suspend(&self, write: impl FnOnce()) {
        self.bars.suspend(write);
    }
}

/// The progress of one training run.
pub struct Progress {
    log: Log,
    quiet: bool,
    /// What it is called, if there are others.
    name: Option<String>,
    bar: Option<ProgressBar>,
    /// That and those of the others.
    bars: MultiProgress,
    /// If it is one of too many.
    crowd: Option<Arc<Crowd>>,
    step: u64,
    /// The last returns of episodes, for the small curve.
    returns: VecDeque<f64>,
    /// The last means of the losses.
    means: Option<Metrics>,
    /// When a plain line was last written, and at which step.
    last_line: (Instant, u64),
    /// Steps from one plain line to the next where there are no evaluations.
    line_every: u64,
}

/// How many episodes the small curve shows.
const CURVE: usize = 32;

impl Progress {
    /// Whether it is one of several that are told of.
    pub fn is_one_of_many(&self) -> bool {
        self.name.is_some()
    }

    fn state(&self) -> String {
        let mut state = self.returns.front().map_or(String::new(), |r| format!("episode {:>8}", short(*r, 1)));
        if let Some(m) = &self.means {
            state += &format!(
                "  α {}  entropy {:>6}  Q {:>8}  losses: critic {}",
                short(m[Metric::Alpha], 3),
                short(m[Metric::Entropy], 2),
                short(m[Metric::Q], 2),
                short(m[Metric::CriticLoss], 3)
            );
            // What is exactly zero is not there: no value network, a fixed temperature.
            if m[Metric::ValueLoss] != 0.0 {
                state += &format!(", value {}", short(m[Metric::ValueLoss], 3));
            }
            if m.policy_updates > 0 {
                state += &format!(", policy {}", short(m[Metric::PolicyLoss], 2));
            }
            if m[Metric::TemperatureLoss] != 0.0 {
                state += &format!(", temperature {}", short(m[Metric::TemperatureLoss], 3));
            }
        }
        state
    }

    /// One line for the user about the usual course of a run, which is not told of each of too many.
    pub fn say(&self, line: &str) {
        if self.crowd.is_none() {
            self.warn(line);
        }
    }

    /// One line for the user, above the bars if there are some.
    pub fn warn(&self, line: &str) {
        self.warner()(line);
    }

    /// What prints such a line.
    fn warner(&self) -> impl Fn(&str) + Send + 'static {
        let (log, quiet, name, bars) = (self.log, self.quiet, self.name.clone(), self.bars.clone());
        move |line| {
            if log == Log::Json {
                return write_event(&named(&json!({ "event": "note", "text": line }), name.as_deref()));
            }
            let line = name.as_ref().map_or(line.to_string(), |name| format!("{name}: {line}"));
            if !quiet {
                bars.suspend(|| write_line(&line));
            }
        }
    }

    /// What watches over the evaluations of the run.
    pub fn watcher(&self) -> Watcher {
        let is_one_of_too_many = self.crowd.is_some();
        Watcher::new(self.warner()).on(self.bar.clone(), is_one_of_too_many)
    }

    /// One event for a script, which is told nothing else. Of several runs it says which is meant.
    pub fn event(&self, event: &Value) {
        if self.log == Log::Json {
            write_event(&named(event, self.name.as_deref()));
        }
    }
}

impl Observer for Progress {
    fn is_interrupted(&mut self) -> bool {
        interruption::is_asked_for()
    }

    fn step(&mut self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
        if let Some(crowd) = &self.crowd {
            crowd.advance(step - self.step, &self.bars);
        }
        self.step = step;
    }

    fn row(&mut self, row: &Row) {
        if self.log == Log::Json {
            let cells = row.cells().chain(row.timing().map(|(name, value)| (name, Some(value))));
            let known = cells.filter_map(|(name, value)| Some((name.to_string(), json!(value?))));
            let info = row.info.iter().map(|(name, value)| (name.clone(), json!(value)));
            let mut object: Map<_, _> = known.chain(info).collect();
            object.extend([("event".into(), json!("row")), ("step".into(), json!(row.step))]);
            if let Some(Episode { number, length, .. }) = &row.episode {
                object.extend([("episode".into(), json!(number)), ("episode_length".into(), json!(length))]);
            }
            return self.event(&Value::Object(object));
        }
        if let (Some(crowd), Some(name)) = (&self.crowd, &self.name) {
            let evaluation = row.evaluation.map(|(mean, _)| mean);
            let value = evaluation.or(row.episode.as_ref().map(|episode| episode.total_reward));
            value.into_iter().for_each(|value| crowd.note_return(name, value));
            return;
        }
        if let Some(episode) = &row.episode {
            self.returns.truncate(CURVE - 1);
            self.returns.push_front(episode.total_reward);
        }
        self.means = row.means.or(self.means);
        if let Some(bar) = &self.bar {
            bar.set_prefix(curve(self.returns.iter().rev()));
            bar.set_message(self.state());
        }
        let (since, at) = self.last_line;
        if row.evaluation.is_none() && row.step - at < self.line_every {
            return;
        }
        let speed = (row.step - at) as f64 / since.elapsed().as_secs_f64().max(1e-9);
        let evaluation =
            row.evaluation.map_or(String::new(), |(mean, _)| format!("evaluation {:>8}  ", short(mean, 1)));
        self.say(&format!("step {:7}  {evaluation}{}  {speed:.0} steps/s", row.step, self.state()));
        self.last_line = (Instant::now(), row.step);
    }

    fn long_evaluation(&mut self, episodes: u64, seconds: f64, is_last: bool) {
        let (what, option) = if is_last {
            ("the evaluation at the end", "--final-episodes")
        } else {
            ("the evaluation", "--eval-episodes")
        };
        self.say(&format!("{what} has {episodes} episodes and takes about {seconds:.0} s ({option})"));
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// An event of the run of this name among several, or of the only one.
fn named(event: &Value, name: Option<&str>) -> Value {
    let mut event = event.clone();
    if let (Some(name), Value::Object(event)) = (name, &mut event) {
        event.insert("name".into(), json!(name));
    }
    event
}

/// A curve as high as a line of text, between the least and the largest of its values.
fn curve<'a>(values: impl Iterator<Item = &'a f64> + Clone) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let low = values.clone().copied().fold(f64::INFINITY, f64::min);
    let high = values.clone().copied().fold(f64::NEG_INFINITY, f64::max);
    let height = |value: &f64| ((value - low) / (high - low).max(f64::MIN_POSITIVE) * 7.0).round();
    values.map(|value| HEIGHTS[height(value) as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_curve_goes_from_the_lowest_to_the_highest() {
        assert_eq!(curve([-2.0, -1.5, 1.5, 0.0, 5.0].iter()), "▁▂▅▃█");
        assert_eq!(curve([3.0, 3.0].iter()), "▁▁");
        assert_eq!(curve([].iter()), "");
        assert_eq!(curve([f64::MIN, 0.0, f64::MAX].iter()).chars().count(), 3);
    }
}
