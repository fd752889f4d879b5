//! `metrics.csv`, which is the same for the same configuration, `timings.csv`, which never is, and both for TensorBoard.

use super::RunDirectory;
use super::checked::Checked;
use super::events::EventsFile;
use super::files;
use crate::actor::Evaluation;
use crate::config::Config;
use crate::error::Error;
use crate::sac::Metrics;
use crate::train::Episode;
use anyhow::Context;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What there is to tell at a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Environment steps taken.
    pub step: u64,
    /// The episode that ended there.
    pub episode: Option<Episode>,
    /// Mean and standard deviation of the returns of the evaluation made there.
    pub evaluation: Option<(f64, f64)>,
    /// Means over the updates since the row before.
    pub means: Option<Metrics>,
    /// What the run has taken until then.
    pub seconds: f64,
}

impl Row {
    /// The columns of `metrics.csv` after the step, by name; a cell for which there is nothing is none.
    pub fn cells(&self) -> [(&'static str, Option<f64>); 12] {
        let Self { episode, evaluation, means, .. } = self;
        [
            ("episode", episode.map(|e| e.number as f64)),
            ("episode_length", episode.map(|e| e.length as f64)),
            ("episode_return", episode.map(|e| e.total_reward)),
            ("evaluation_return", evaluation.map(|e| e.0)),
            ("evaluation_std", evaluation.map(|e| e.1)),
            ("critic_loss", means.map(|m| m.critic_loss)),
            ("value_loss", means.map(|m| m.value_loss)),
            ("policy_loss", means.filter(|m| m.policy_updates > 0).map(|m| m.policy_loss)),
            ("temperature_loss", means.map(|m| m.temperature_loss)),
            ("alpha", means.map(|m| m.alpha)),
            ("entropy", means.map(|m| m.entropy)),
            ("q", means.map(|m| m.q)),
        ]
    }

    /// The columns of `timings.csv` after the step, by name.
    pub fn timing(&self) -> [(&'static str, f64); 2] {
        [("seconds", self.seconds), ("steps_per_second", self.step as f64 / self.seconds.max(1e-9))]
    }

    fn header<T>(columns: impl IntoIterator<Item = (&'static str, T)>) -> String {
        columns.into_iter().fold("step".to_string(), |header, (name, _)| header + "," + name) + "\n"
    }

    /// The row without anything in it.
    pub(super) const EMPTY: Self = Self { step: 0, episode: None, evaluation: None, means: None, seconds: 0.0 };
}

/// The files of measurements. Each row reaches the system when it is written, so an interrupted run loses none.
#[derive(Debug)]
pub struct MetricsFiles {
    metrics: Table,
    timings: Table,
    events: EventsFile,
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
    fn create(path: PathBuf, header: &str) -> anyhow::Result<Self> {
        let file = File::create_new(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        let mut table = Self { path, file, content: Checked::of(&[]) };
        table.write(header)?;
        Ok(table)
    }

    /// The table with nothing but the beginning that `content` tells.
    fn reopen(path: PathBuf, content: Checked) -> anyhow::Result<Self> {
        let file = files::append(&path, content.bytes);
        let file = file.with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self { path, file, content })
    }

    fn write(&mut self, row: &str) -> anyhow::Result<()> {
        self.file.write_all(row.as_bytes()).with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.content = self.content.and(row.as_bytes());
        Ok(())
    }
}

impl MetricsFiles {
    /// The name of the first file.
    pub const METRICS: &str = "metrics.csv";
    /// The name of the second.
    pub(super) const TIMINGS: &str = "timings.csv";

    /// Empty tables in the directory of a run with this configuration.
    ///
    /// # Errors
    /// If they exist or cannot be written.
    pub fn create(run: &RunDirectory, config: &Config) -> Result<Self, Error> {
        Ok(Self {
            metrics: Table::create(run.file(Self::METRICS), &Row::header(Row::EMPTY.cells()))?,
            timings: Table::create(run.file(Self::TIMINGS), &Row::header(Row::EMPTY.timing()))?,
            events: EventsFile::open(run, config, 0)?,
            last: Metrics::default(),
            last_step: 0,
            before: Duration::ZERO,
        })
    }

    /// The tables as they were at a checkpoint; rows that came after it are taken away.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn reopen(run: &RunDirectory, config: &Config, position: Position) -> Result<Self, Error> {
        let Position { metrics, last, last_step } = position;
        let path = run.file(Self::TIMINGS);
        // Times are never the same again, so whatever is left of them is taken: as far as the rows in `metrics` can reach.
        let unreadable = || format!("{} cannot be read", path.display());
        let most = metrics.bytes.saturating_mul(8);
        let bytes = if files::is_there(&path) { files::read_start(&path, most) } else { Ok(Vec::new()) };
        let bytes = bytes.with_context(unreadable)?;
        let text = String::from_utf8_lossy(&bytes);
        let rows = text.lines().skip(1).map_while(|row| {
            let mut cells = row.split(',');
            let (step, seconds) = (cells.next()?.parse::<u64>().ok()?, cells.next()?.parse::<f64>().ok()?);
            (step <= last_step).then_some((row, seconds))
        });
        let rows: Vec<_> = rows.collect();
        let seconds = rows.last().map_or(0.0, |&(_, seconds)| seconds);
        let header = Row::header(Row::EMPTY.timing());
        let text = header + &rows.iter().map(|(row, _)| format!("{row}\n")).collect::<String>();
        files::write(&path, text.as_bytes()).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self {
            metrics: Table::reopen(run.file(Self::METRICS), metrics)?,
            timings: Table::reopen(path, Checked::of(text.as_bytes()))?,
            events: EventsFile::open(run, config, last_step)?,
            last,
            last_step,
            before: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        })
    }

    /// How long the run has taken, after `elapsed` in this process.
    pub fn since_the_beginning(&self, elapsed: Duration) -> Duration {
        self.before.saturating_add(elapsed)
    }

    /// Where they stand.
    pub fn position(&self) -> Position {
        Position { metrics: self.metrics.content, last: self.last, last_step: self.last_step }
    }

    /// Sees to it that what a resumed run goes on from is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sync(&self) -> Result<(), Error> {
        let unwritable = || format!("{} cannot be written", self.metrics.path.display());
        self.metrics.file.sync_data().with_context(unwritable)?;
        Ok(self.events.sync()?)
    }

    /// Adds a last row where a run ends between two rows, with the means of the losses since, and returns it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_rest(&mut self, step: u64, elapsed: Duration, metrics: Metrics) -> Result<Option<Row>, Error> {
        (step > self.last_step).then(|| self.write_row(step, elapsed, None, None, metrics)).transpose()
    }

    /// Adds a row to each table for each of the `episodes` that ended at `step`, after `elapsed`. The first has the means of the
    /// losses since the row before, and the last the evaluation made there, for which there is a row in any case. Returns
    /// the rows.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(
        &mut self,
        step: u64,
        elapsed: Duration,
        episodes: &[Episode],
        evaluation: Option<&Evaluation>,
        metrics: Metrics,
    ) -> Result<Vec<Row>, Error> {
        let count = episodes.len().max(evaluation.iter().len());
        let row = |i| {
            let evaluation = evaluation.filter(|_| i + 1 == count);
            self.write_row(step, elapsed, episodes.get(i).copied(), evaluation, metrics)
        };
        (0..count).map(row).collect()
    }

    fn write_row(
        &mut self,
        step: u64,
        elapsed: Duration,
        episode: Option<Episode>,
        evaluation: Option<&Evaluation>,
        metrics: Metrics,
    ) -> Result<Row, Error> {
        let means = metrics.means_since(&self.last);
        (self.last, self.last_step) = (metrics, step);
        let evaluation = evaluation.map(|e| (e.mean(), e.std()));
        let seconds = self.since_the_beginning(elapsed).as_secs_f64();
        let row = Row { step, episode, evaluation, means, seconds };
        let cells = row.cells().map(|(_, value)| value.map_or(String::new(), |value| value.to_string()));
        self.metrics.write(&format!("{step},{}\n", cells.join(",")))?;
        let [(_, seconds), (_, per_second)] = row.timing();
        self.timings.write(&format!("{step},{seconds:.3},{per_second:.1}\n"))?;
        self.events.write(&row)?;
        Ok(row)
    }
}
