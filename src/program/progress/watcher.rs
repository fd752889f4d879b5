//! What an evaluation, or an episode that is repeated, has to say while it goes on.

use crate::program::interruption;
use indicatif::ProgressBar;
use soft_actor_critic::actor::EvaluationProgress;
use soft_actor_critic::train::Activity;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Watches over what takes steps of an environment besides training: says how it goes on once that takes long, and
/// stops it when the user interrupts.
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

    /// The same, with a bar that says where it stands instead of lines; silent if it `shows_none` of it.
    pub fn on(self, bar: Option<ProgressBar>, shows_none: bool) -> Self {
        Self { bar, shows_none, ..self }
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
