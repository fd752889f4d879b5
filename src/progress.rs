//! What the user sees: a bar and a small curve on a terminal, plain lines elsewhere, JSON for scripts, nothing when quiet.

use crate::interruption;
use anyhow::{Result, anyhow};
use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use serde_json::{Map, Value, json};
use soft_actor_critic::actor::{Evaluation, EvaluationProgress};
use soft_actor_critic::config::Config;
use soft_actor_critic::run::Row;
use soft_actor_critic::sac::{Metric, Metrics};
use soft_actor_critic::train::{Activity, Episode};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

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
    /// If the command may have more than one run, the directory that holds them; what is told of one begins with its name.
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
                Arc::new(Crowd { runs: runs as u64, bar, steps: AtomicU64::new(0), told: Mutex::new(Told::new()) })
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
        if let Some(bar) = self.crowd.as_ref().and_then(|crowd| crowd.bar.as_ref()) {
            bar.finish_and_clear();
        }
    }

    /// Writes without the bars in the way.
    pub fn suspend(&self, write: impl FnOnce()) {
        self.bars.suspend(write);
    }
}

/// What a run is called among others: its path inside the directory that holds them.
pub fn name_within(root: &Path, run: &Path) -> String {
    shown(&run.strip_prefix(root).unwrap_or(run).to_string_lossy().replace('\n', " "))
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

    /// After every step.
    pub fn step(&mut self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
        if let Some(crowd) = &self.crowd {
            crowd.advance(step - self.step, &self.bars);
        }
        self.step = step;
    }

    /// After every row of the metrics.
    pub fn row(&mut self, row: &Row) {
        if self.log == Log::Json {
            let cells = row.cells().into_iter().chain(row.timing().map(|(name, value)| (name, Some(value))));
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
            crowd.told().returns.extend(
                evaluation
                    .or(row.episode.as_ref().map(|episode| episode.total_reward))
                    .map(|value| (name.clone(), value)),
            );
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

    /// Takes the bar away.
    pub fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
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
        Watcher { shows_none: is_one_of_too_many, bar: self.bar.clone(), ..Watcher::new(self.warner()) }
    }

    /// One event for a script, which is told nothing else. Of several runs it says which is meant.
    pub fn event(&self, event: &Value) {
        if self.log == Log::Json {
            write_event(&named(event, self.name.as_deref()));
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

/// Watches over what takes steps of an environment besides training: says how it goes on once that takes long, and stops it when
/// the user interrupts.
pub struct Watcher {
    say: Box<dyn Fn(&str) + Send>,
    shows_none: bool,
    bar: Option<ProgressBar>,
    /// When it began, and when the next line is due.
    began: Instant,
    next: Duration,
    /// When the episode began.
    episode_began: Instant,
    has_named_the_limit: bool,
}

impl Watcher {
    /// Nothing is said of what takes less time.
    const LONG: Duration = Duration::from_secs(2);

    /// One whose lines are printed with `say`.
    pub fn new(say: impl Fn(&str) + Send + 'static) -> Self {
        Self {
            say: Box::new(say),
            shows_none: false,
            bar: None,
            began: Instant::now(),
            next: Self::LONG,
            episode_began: Instant::now(),
            has_named_the_limit: false,
        }
    }

    /// After each step.
    pub fn watch(&mut self, activity: Activity) -> ControlFlow<()> {
        match activity {
            Activity::Evaluation(EvaluationProgress { episodes, returns, steps }) => {
                if steps == 0 {
                    self.episode_began = Instant::now();
                    if returns.is_empty() {
                        (self.began, self.next) = (self.episode_began, Self::LONG);
                    }
                }
                self.show(|| format!("evaluation: episode {} of {episodes}, step {steps}", returns.len() + 1));
                self.name_the_limit(steps);
            }
            Activity::Repetition { steps, of } => {
                self.show(|| format!("repeating the episode that was interrupted: step {steps} of {of}"));
            }
        }
        if interruption::is_asked_for() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Prints a line after 2, 4, 8 seconds and so on; a bar says more often where it stands.
    fn show(&mut self, line: impl Fn() -> String) {
        let elapsed = self.began.elapsed();
        if elapsed < self.next || self.shows_none {
            return;
        }
        match &self.bar {
            Some(bar) => {
                bar.set_message(line());
                self.next = elapsed + Duration::from_millis(100);
            }
            None => {
                (self.say)(&line());
                self.next = 2 * elapsed;
            }
        }
    }

    /// Says once what to do about an episode that goes on and on.
    pub fn name_the_limit(&mut self, steps: u64) {
        const MANY: u64 = 10_000;
        const LONG: Duration = Duration::from_secs(60);
        let seldom = steps.is_multiple_of(64) && steps > 0 && !self.has_named_the_limit;
        if seldom && self.began.elapsed() >= Self::LONG && (steps >= MANY || self.episode_began.elapsed() >= LONG) {
            self.has_named_the_limit = true;
            (self.say)(&format!(
                "an episode has gone on for {steps} steps; an environment without a time limit gets one with \
                 --env-arg max_episode_steps=N"
            ));
        }
    }
}

/// All of many runs together.
struct Crowd {
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
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, steps: u64, step: u64) {
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
    fn advance(&self, steps: u64, bars: &MultiProgress) {
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
    fn end(&self, bars: &MultiProgress) {
        let mut told = self.told();
        told.ended += 1;
        if told.ended == self.runs && self.bar.is_none() {
            self.tell(&mut told, bars);
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

/// A curve as high as a line of text, between the least and the largest of its values.
fn curve<'a>(values: impl Iterator<Item = &'a f64> + Clone) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let low = values.clone().copied().fold(f64::INFINITY, f64::min);
    let high = values.clone().copied().fold(f64::NEG_INFINITY, f64::max);
    let height = |value: &f64| ((value - low) / (high - low).max(f64::MIN_POSITIVE) * 7.0).round();
    values.map(|value| HEIGHTS[height(value) as usize]).collect()
}

/// An evaluation in words.
pub fn describe(evaluation: &Evaluation) -> String {
    let [mean, std, min, max] =
        [evaluation.mean(), evaluation.std(), evaluation.min(), evaluation.max()].map(|value| short(value, 1));
    let episodes = evaluation.returns.len();
    const MOST: usize = 6;
    let all = evaluation.info.iter().map(|(name, mean)| format!("{name} {}", short(mean, 3)));
    let more = all.clone().count().saturating_sub(MOST);
    let more = (more > 0).then(|| format!("and {more} more"));
    let info = all.take(MOST).chain(more).collect::<Vec<_>>().join(", ");
    let info = if info.is_empty() { info } else { format!("; {info}") };
    format!("mean return {mean}, std {std}, min {min}, max {max}, over {episodes} episodes{info}")
}

/// A word as a shell reads it.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-+=:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A path in a command that is shown to be typed.
pub fn quoted_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    // Otherwise it would be an option.
    if text.starts_with('-') { quoted(&format!("./{text}")) } else { quoted(&text) }
}

/// A measured number in a few characters, however large.
pub fn short(value: f64, decimals: usize) -> String {
    if value.abs() < 1e7 { format!("{value:.decimals$}") } else { format!("{value:.2e}") }
}

/// What a text from a file or an environment can hold and a terminal would obey, or show in another order, is spelled out, in
/// the way of JSON.
pub fn shown(text: &str) -> String {
    let is_harmful = |c: char| {
        c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push(c),
            c if is_harmful(c) => shown += &format!("\\u{:04x}", u32::from(c)),
            c => shown.push(c),
        }
    }
    shown
}

/// Writes a result to standard output. A reader that has gone away is no error.
pub fn print(text: &str) -> Result<()> {
    match stdout().write_all(shown(text).as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn write_event(event: &Value) {
    if let Err(error) = print(&format!("{event}\n"))
        && LOST.set(error.to_string()).is_ok()
    {
        print_error(&format!("standard output cannot be written: {error}; the command goes on without"));
    }
}

/// Why events were lost, if some were.
static LOST: OnceLock<String> = OnceLock::new();

/// # Errors
/// If an event was lost, other than by a reader that has gone away.
pub fn all_is_written() -> Result<()> {
    match LOST.get() {
        Some(error) => Err(anyhow!("standard output could not be written: {error}; its events are not complete")),
        None => Ok(()),
    }
}

/// Writes an error as one line.
pub fn print_error(message: &str) {
    write_line(&format!("error: {message}"));
}

/// Writes a line to standard error.
pub fn write_line(line: &str) {
    // Nobody is left to be told if standard error is gone.
    let _ = writeln!(stderr(), "{}", shown(&line.replace('\n', " ")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use soft_actor_critic::env::Info;

    #[test]
    fn the_numbers_of_an_environment_are_shown_where_there_are_some() {
        let mut evaluation = Evaluation { returns: vec![1.0, 2.0], info: Info::NONE };
        assert_eq!(describe(&evaluation), "mean return 1.5, std 0.5, min 1.0, max 2.0, over 2 episodes");
        assert_eq!(crate::to_json(&evaluation).get("info"), None);
        evaluation.info = Info::new([("is_success", 0.9276), ("distance", 2.0)]);
        assert!(describe(&evaluation).ends_with("over 2 episodes; distance 2.000, is_success 0.928"));
        assert_eq!(crate::to_json(&evaluation)["info"], json!({ "is_success": 0.9276, "distance": 2.0 }));
    }

    #[test]
    fn what_a_terminal_obeys_is_spelled_out() {
        assert_eq!(shown("a\nb ä α▁ \u{1f600}"), "a\nb ä α▁ \u{1f600}");
        assert_eq!(
            shown("\x1b[2J\r\t\u{7f}\u{9b}\u{202e}\u{2069}"),
            "\\u001b[2J\\u000d\\u0009\\u007f\\u009b\\u202e\\u2069"
        );
    }

    #[test]
    fn the_small_curve_goes_from_the_lowest_to_the_highest() {
        assert_eq!(curve([-2.0, -1.5, 1.5, 0.0, 5.0].iter()), "▁▂▅▃█");
        assert_eq!(curve([3.0, 3.0].iter()), "▁▁");
        assert_eq!(curve([].iter()), "");
        assert_eq!(curve([f64::MIN, 0.0, f64::MAX].iter()).chars().count(), 3);
    }
}
