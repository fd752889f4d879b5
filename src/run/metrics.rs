//! `metrics.csv`, which is the same for the same configuration, and `timings.csv`, which never is.

use super::RunDirectory;
use super::checked::Checked;
use super::whole_file;
use crate::actor::Evaluation;
use crate::sac::Metrics;
use crate::train::Episode;
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

const METRICS_HEADER: &str = "step,episode,episode_length,episode_return,evaluation_return,evaluation_std,\
    critic_loss,value_loss,policy_loss,temperature_loss,alpha,entropy,q\n";
const TIMINGS_HEADER: &str = "step,seconds,steps_per_second\n";

/// The two files of measurements. Each row reaches the system when it is written, so an interrupted run loses none.
#[derive(Debug)]
pub struct MetricsFiles {
    metrics: Table,
    timings: Table,
    /// What the last row was told.
    last: Metrics,
    last_step: u64,
    /// What the run had taken when it was last interrupted.
    before: Duration,
}

/// Where the files of measurements stand at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// What `metrics.csv` is.
    pub metrics: Checked,
    /// What the last row was told, and at which step.
    pub last: Metrics,
    /// The step of the last row.
    pub last_step: u64,
}

#[derive(Debug)]
struct Table {
    path: PathBuf,
    file: File,
    content: Checked,
}

impl Table {
    fn create(path: PathBuf, header: &str) -> Result<Self> {
        let file = File::create_new(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        let mut table = Self { path, file, content: Checked::of(&[]) };
        table.write(header)?;
        Ok(table)
    }

    /// The table with nothing but the beginning that `content` tells.
    fn reopen(path: PathBuf, content: Checked) -> Result<Self> {
        let open = || {
            let file = OpenOptions::new().append(true).open(&path)?;
            file.set_len(content.bytes)?;
            Ok::<_, std::io::Error>(file)
        };
        let file = open().with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self { path, file, content })
    }

    fn write(&mut self, row: &str) -> Result<()> {
        self.file.write_all(row.as_bytes()).with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.content = self.content.and(row.as_bytes());
        Ok(())
    }
}

impl MetricsFiles {
    /// The name of the first file.
    pub const METRICS: &str = "metrics.csv";
    const TIMINGS: &str = "timings.csv";

    /// Two empty tables in a run directory.
    ///
    /// # Errors
    /// If they exist or cannot be written.
    pub fn create(run: &RunDirectory) -> Result<Self> {
        Ok(Self {
            metrics: Table::create(run.file(Self::METRICS), METRICS_HEADER)?,
            timings: Table::create(run.file(Self::TIMINGS), TIMINGS_HEADER)?,
            last: Metrics::default(),
            last_step: 0,
            before: Duration::ZERO,
        })
    }

    /// The tables as they were at a checkpoint; rows that came after it are taken away.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn reopen(run: &RunDirectory, position: Position) -> Result<Self> {
        let Position { metrics, last, last_step } = position;
        let path = run.file(Self::TIMINGS);
        // Times are never the same again, so whatever is left of them is taken.
        let unreadable = || format!("{} cannot be read", path.display());
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            bytes => bytes.with_context(unreadable)?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let rows = text.lines().skip(1).map_while(|row| {
            let mut cells = row.split(',');
            let (step, seconds) = (cells.next()?.parse::<u64>().ok()?, cells.next()?.parse::<f64>().ok()?);
            (step <= last_step).then_some((row, seconds))
        });
        let rows: Vec<_> = rows.collect();
        let seconds = rows.last().map_or(0.0, |&(_, seconds)| seconds);
        let text = TIMINGS_HEADER.to_string() + &rows.iter().map(|(row, _)| format!("{row}\n")).collect::<String>();
        whole_file::write(&path, text.as_bytes()).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self {
            metrics: Table::reopen(run.file(Self::METRICS), metrics)?,
            timings: Table::reopen(path, Checked::of(text.as_bytes()))?,
            last,
            last_step,
            before: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        })
    }

    /// How long the run has taken, after `elapsed` in this process.
    pub fn since_the_beginning(&self, elapsed: Duration) -> Duration {
        self.before + elapsed
    }

    /// Where they stand.
    pub fn position(&self) -> Position {
        Position { metrics: self.metrics.content, last: self.last, last_step: self.last_step }
    }

    /// Sees to it that `metrics.csv` is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sync(&self) -> Result<()> {
        self.metrics.file.sync_data().with_context(|| format!("{} cannot be written", self.metrics.path.display()))
    }

    /// Adds a last row where a run ends between two rows, with the means of the losses since.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_rest(&mut self, step: u64, elapsed: Duration, metrics: Metrics) -> Result<()> {
        if step > self.last_step {
            self.write(step, elapsed, None, None, metrics)?;
        }
        Ok(())
    }

    /// Adds a row to each table: at `step`, after `elapsed`, with the episode that ended there, the evaluation made
    /// there, and means of the losses since the row before, which it returns. A cell for which there is nothing is empty.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(
        &mut self,
        step: u64,
        elapsed: Duration,
        episode: Option<Episode>,
        evaluation: Option<&Evaluation>,
        metrics: Metrics,
    ) -> Result<Option<Metrics>> {
        let means = metrics.means_since(&self.last);
        (self.last, self.last_step) = (metrics, step);
        let cells = [
            Some(step.to_string()),
            episode.map(|e| e.number.to_string()),
            episode.map(|e| e.length.to_string()),
            episode.map(|e| e.total_reward.to_string()),
            evaluation.map(|e| e.mean().to_string()),
            evaluation.map(|e| e.std().to_string()),
            means.map(|m| m.critic_loss.to_string()),
            means.map(|m| m.value_loss.to_string()),
            means.filter(|m| m.policy_updates > 0).map(|m| m.policy_loss.to_string()),
            means.map(|m| m.temperature_loss.to_string()),
            means.map(|m| m.alpha.to_string()),
            means.map(|m| m.entropy.to_string()),
            means.map(|m| m.q.to_string()),
        ];
        let row = cells.map(Option::unwrap_or_default).join(",");
        self.metrics.write(&format!("{row}\n"))?;
        let seconds = self.since_the_beginning(elapsed).as_secs_f64();
        self.timings.write(&format!("{step},{seconds:.3},{:.1}\n", step as f64 / seconds.max(1e-9)))?;
        Ok(means)
    }
}
