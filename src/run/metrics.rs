//! `metrics.csv`, which is the same for the same configuration, `timings.csv`, which never is, and both for TensorBoard.

use super::checked::Checked;
use super::events::EventsFile;
use super::{RunDirectory, files, typed};
use crate::actor::Evaluation;
use crate::config::Config;
use crate::env::{Info, MAX_INFO};
use crate::error::Error;
use crate::sac::{Metric, Metrics, Per};
use crate::train::Episode;
use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the columns of an environment's numbers begin with: those of episodes, and the means over an evaluation's.
const PREFIXES: [&str; 2] = ["info.", "evaluation."];

/// What there is to tell at a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Environment steps taken.
    pub step: u64,
    /// The episode that ended there.
    pub episode: Option<Episode>,
    /// Mean and standard deviation of the returns of the evaluation made there.
    pub evaluation: Option<(f64, f64)>,
    /// The numbers of the environment, by column: `info.NAME` of the episode, and `evaluation.NAME` for the means over the
    /// evaluation's episodes.
    pub info: Vec<(String, f64)>,
    /// Means over the updates since the row before.
    pub means: Option<Metrics>,
    /// What the run has taken until then.
    pub seconds: f64,
}

impl Row {
    /// The columns of `metrics.csv` after the step that every run has, by name; a cell for which there is nothing is none.
    pub fn cells(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        let Self { episode, evaluation, means, .. } = self;
        let outcomes = [
            ("episode", episode.as_ref().map(|e| e.number as f64)),
            ("episode_length", episode.as_ref().map(|e| e.length as f64)),
            ("episode_return", episode.as_ref().map(|e| e.total_reward)),
            ("evaluation_return", evaluation.map(|e| e.0)),
            ("evaluation_std", evaluation.map(|e| e.1)),
        ];
        let has = |means: &&Metrics, metric: Metric| metric.per() != Per::PolicyUpdate || means.policy_updates > 0;
        let measured = Metric::ALL.into_iter().map(move |metric| {
            (metric.name(), means.as_ref().filter(|means| has(means, metric)).map(|means| means[metric]))
        });
        outcomes.into_iter().chain(measured)
    }

    /// The columns of `timings.csv` after the step, by name.
    pub fn timing(&self) -> [(&'static str, f64); 2] {
        [("seconds", self.seconds), ("steps_per_second", self.step as f64 / self.seconds.max(1e-9))]
    }

    fn header<T>(columns: impl IntoIterator<Item = (&'static str, T)>) -> String {
        columns.into_iter().fold("step".to_string(), |header, (name, _)| header + "," + name) + "\n"
    }

    /// The row without anything in it.
    pub(super) const EMPTY: Self =
        Self { step: 0, episode: None, evaluation: None, info: Vec::new(), means: None, seconds: 0.0 };
}

/// The files of measurements. Each row reaches the system when it is written, so an interrupted run loses none.
#[derive(Debug)]
pub struct MetricsFiles {
    metrics: Table,
    /// The columns of `metrics.csv` after those that every run has.
    columns: Vec<String>,
    timings: Table,
    events: EventsFile,
    /// What the last row was told.
    last: Metrics,
    last_step: u64,
    /// What the run had taken when it was last interrupted.
    before: Duration,
}

/// Where the files of measurements stand at a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Position {
    /// What `metrics.csv` is.
    pub metrics: Checked,
    /// Its columns after those that every run has, as [`Row::info`] names them.
    pub columns: Vec<String>,
    /// What the last row was told, and at which step.
    pub last: Metrics,
    /// The step of the last row.
    pub last_step: u64,
}

impl Position {
    /// Whether `metrics.csv` is what it was at this position, but for later rows, and columns that came with them.
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        self.metrics.check(path).or_else(|problem| if self.narrowed(path).is_ok() { Ok(()) } else { Err(problem) })
    }

    /// `metrics.csv` as it was at this position: without later rows, and without columns that came with them.
    fn narrowed(&self, path: &Path) -> Result<Vec<u8>, Error> {
        const LONGEST_ROW: u64 = 1 << 16;
        typed(|| {
            let width = 1 + Row::EMPTY.cells().count() + self.columns.len();
            let (mut bytes, mut row) = (Vec::new(), Vec::new());
            let mut read = || {
                let mut file = BufReader::new(files::reader(path)?);
                while (bytes.len() as u64) < self.metrics.bytes
                    && file.by_ref().take(LONGEST_ROW).read_until(b'\n', &mut row)? > 0
                {
                    if !row.ends_with(b"\n") {
                        break;
                    }
                    let mut commas = row.iter().enumerate().filter(|&(_, &byte)| byte == b',').map(|(at, _)| at);
                    if let Some(end) = commas.nth(width - 1) {
                        row.truncate(end);
                        row.push(b'\n');
                    }
                    bytes.append(&mut row);
                }
                Ok::<_, io::Error>(())
            };
            read().with_context(|| format!("{} cannot be read", path.display()))?;
            ensure!(Checked::of(&bytes) == self.metrics, "{} is damaged", path.display());
            Ok(bytes)
        })
    }

    /// Whether a run can have these columns after those that every run has.
    pub(super) fn are_columns(columns: &[String]) -> bool {
        let of = |prefix: &str| columns.iter().filter(|column| column.starts_with(prefix)).count();
        let is_clean = |name: &str| Info::new([(name, 0.0)]).get(name).is_some();
        let is_column =
            |column: &String| PREFIXES.iter().filter_map(|prefix| column.strip_prefix(prefix)).any(is_clean);
        columns.iter().all(is_column)
            && columns.iter().collect::<BTreeSet<_>>().len() == columns.len()
            && PREFIXES.iter().all(|prefix| of(prefix) <= MAX_INFO)
    }
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

    /// The table with nothing but this content, in place of what is there.
    fn replace(path: PathBuf, content: &[u8]) -> anyhow::Result<Self> {
        files::write(&path, content).with_context(|| format!("{} cannot be written", path.display()))?;
        Self::reopen(path, Checked::of(content))
    }

    /// Adds columns, which are empty in all rows until now.
    fn widen(&mut self, columns: &[String]) -> anyhow::Result<()> {
        let narrow = self.content.read(&self.path)?;
        let mut wide = Vec::new();
        for (number, row) in narrow.split_inclusive(|&byte| byte == b'\n').enumerate() {
            wide.extend_from_slice(row.trim_ascii_end());
            for column in columns {
                wide.push(b',');
                wide.extend_from_slice(if number == 0 { column.as_bytes() } else { &[] });
            }
            wide.push(b'\n');
        }
        *self = Self::replace(self.path.clone(), &wide)?;
        Ok(())
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
            columns: Vec::new(),
            timings: Table::create(run.file(Self::TIMINGS), &Row::header(Row::EMPTY.timing()))?,
            events: EventsFile::open(run, config, 0)?,
            last: Metrics::default(),
            last_step: 0,
            before: Duration::ZERO,
        })
    }

    /// The tables as they were at a checkpoint; rows and columns that came after it are taken away.
    ///
    /// # Errors
    /// If they cannot be written, or `metrics.csv` is not what it was.
    pub fn reopen(run: &RunDirectory, config: &Config, position: Position) -> Result<Self, Error> {
        let path = run.file(Self::METRICS);
        let metrics = match position.metrics.check(&path) {
            Ok(()) => Table::reopen(path, position.metrics)?,
            Err(_) => Table::replace(path.clone(), &position.narrowed(&path)?)?,
        };
        let Position { columns, last, last_step, .. } = position;
        let path = run.file(Self::TIMINGS);
        // Times are never the same again, so whatever is left of them is taken: as far as the rows in `metrics` can reach.
        let unreadable = || format!("{} cannot be read", path.display());
        let most = metrics.content.bytes.saturating_mul(8);
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
        Ok(Self {
            metrics,
            columns,
            timings: Table::replace(path, text.as_bytes())?,
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
        let (metrics, columns) = (self.metrics.content, self.columns.clone());
        Position { metrics, columns, last: self.last, last_step: self.last_step }
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
            self.write_row(step, elapsed, episodes.get(i).cloned(), evaluation, metrics)
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
        let info = self.columns_of([episode.as_ref().map(|e| &e.info), evaluation.map(|e| &e.info)])?;
        let means = metrics.means_since(&self.last);
        (self.last, self.last_step) = (metrics, step);
        let evaluation = evaluation.map(|e| (e.mean(), e.std()));
        let seconds = self.since_the_beginning(elapsed).as_secs_f64();
        let row = Row { step, episode, evaluation, info, means, seconds };
        let info = |column| row.info.iter().find(|(known, _)| known == column).map(|&(_, value)| value);
        let values = row.cells().map(|(_, value)| value).chain(self.columns.iter().map(info));
        let cells = values.map(|value| value.map_or(",".into(), |value| format!(",{value}")));
        self.metrics.write(&format!("{step}{}\n", cells.collect::<String>()))?;
        let [(_, seconds), (_, per_second)] = row.timing();
        self.timings.write(&format!("{step},{seconds:.3},{per_second:.1}\n"))?;
        self.events.write(&row)?;
        Ok(row)
    }
    /// Names the columns of the numbers of an episode and of an evaluation. Makes those that are not there yet, as long as there
    /// may be more; the other numbers are left out.
    fn columns_of(&mut self, info: [Option<&Info>; 2]) -> anyhow::Result<Vec<(String, f64)>> {
        let (mut columns, mut numbers) = (self.columns.clone(), Vec::new());
        for (prefix, info) in PREFIXES.into_iter().zip(info) {
            for (name, value) in info.into_iter().flat_map(Info::iter) {
                let column = format!("{prefix}{name}");
                if !columns.contains(&column) {
                    if columns.iter().filter(|column| column.starts_with(prefix)).count() == MAX_INFO {
                        continue;
                    }
                    columns.push(column.clone());
                }
                numbers.push((column, value));
            }
        }
        if columns.len() > self.columns.len() {
            self.metrics.widen(&columns[self.columns.len()..])?;
            self.columns = columns;
        }
        Ok(numbers)
    }
}
