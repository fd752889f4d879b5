//! What the user sees: a bar on a terminal, plain lines elsewhere, nothing when quiet.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use soft_actor_critic::actor::Evaluation;
use soft_actor_critic::config::Config;
use soft_actor_critic::sac::Metrics;
use soft_actor_critic::train::Episode;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::time::Instant;

/// The progress of one training run, on standard error.
pub struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    /// The last episode's return, and the last means of the losses.
    episode_return: Option<f64>,
    means: Option<Metrics>,
    /// When a plain line was last written, and at which step.
    last_line: (Instant, u64),
    /// Steps from one plain line to the next where there are no evaluations.
    line_every: u64,
}

impl Progress {
    /// Announces the run, which stands at `step`, with a line for each of `notes`.
    pub fn new(quiet: bool, config: &Config, step: u64, notes: &[String]) -> Self {
        let bar = (!quiet && stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{bar:20} {pos}/{len} steps, {per_sec:.0} {msg}");
            ProgressBar::new(config.steps).with_style(style.expect("the template is valid")).with_position(step)
        });
        let line_every = if config.eval_every > 0 { u64::MAX } else { config.steps.div_ceil(10) };
        let progress =
            Self { quiet, bar, episode_return: None, means: None, last_line: (Instant::now(), step), line_every };
        notes.iter().for_each(|note| progress.say(note));
        progress
    }

    /// After every step.
    pub fn step(&mut self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    /// After every row of the metrics.
    pub fn row(
        &mut self,
        step: u64,
        episode: Option<Episode>,
        evaluation: Option<&Evaluation>,
        means: Option<Metrics>,
    ) {
        self.episode_return = episode.map(|e| e.total_reward).or(self.episode_return);
        self.means = means.or(self.means);
        if let Some(bar) = &self.bar {
            bar.set_message(self.state());
        }
        let (since, at) = self.last_line;
        if evaluation.is_none() && step - at < self.line_every {
            return;
        }
        let speed = (step - at) as f64 / since.elapsed().as_secs_f64().max(1e-9);
        let evaluation = evaluation.map_or(String::new(), |e| format!("evaluation {:8.1}  ", e.mean()));
        self.say(&format!("step {step:7}  {evaluation}{}  {speed:.0} steps/s", self.state()));
        self.last_line = (Instant::now(), step);
    }

    fn state(&self) -> String {
        let mut state = self.episode_return.map_or(String::new(), |r| format!("episode {r:8.1}"));
        if let Some(m) = &self.means {
            state += &format!(
                "  α {:.3}  entropy {:6.2}  Q {:8.2}  losses: critic {:.3}",
                m.alpha, m.entropy, m.q, m.critic_loss
            );
            // What is exactly zero is not there: no value network, a fixed temperature.
            if m.value_loss != 0.0 {
                state += &format!(", value {:.3}", m.value_loss);
            }
            if m.policy_updates > 0 {
                state += &format!(", policy {:.2}", m.policy_loss);
            }
            if m.temperature_loss != 0.0 {
                state += &format!(", temperature {:.3}", m.temperature_loss);
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

    /// One line for the user, above the bar if there is one.
    pub fn say(&self, line: &str) {
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.println(line),
            None => write_line(line),
        }
    }
}

/// An evaluation in words.
pub fn describe(evaluation: &Evaluation) -> String {
    format!(
        "mean return {:.1}, std {:.1}, min {:.1}, max {:.1}, over {} episodes",
        evaluation.mean(),
        evaluation.std(),
        evaluation.min(),
        evaluation.max(),
        evaluation.returns.len()
    )
}

/// Writes a result to standard output. A reader that has gone away is no error.
pub fn print(text: &str) -> Result<()> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes an error as one line.
pub fn print_error(message: &str) {
    write_line(&format!("error: {message}"));
}

fn write_line(line: &str) {
    // Nobody is left to be told if standard error is gone.
    let _ = writeln!(stderr(), "{line}");
}
