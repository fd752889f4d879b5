//! `metrics.csv`, which is the same for the same configuration, and `timings.csv`, which never is.

use super::RunDirectory;
use crate::actor::Evaluation;
use crate::sac::Metrics;
use crate::train::Episode;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Write;
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
}

#[derive(Debug)]
struct Table {
    path: PathBuf,
    file: File,
}

impl Table {
    fn create(path: PathBuf, header: &str) -> Result<Self> {
        let file = File::create_new(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        let mut table = Self { path, file };
        table.write(header)?;
        Ok(table)
    }

    fn write(&mut self, row: &str) -> Result<()> {
        self.file.write_all(row.as_bytes()).with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

impl MetricsFiles {
    /// Two empty tables in a run directory.
    ///
    /// # Errors
    /// If they exist or cannot be written.
    pub fn create(run: &RunDirectory) -> Result<Self> {
        Ok(Self {
            metrics: Table::create(run.file("metrics.csv"), METRICS_HEADER)?,
            timings: Table::create(run.file("timings.csv"), TIMINGS_HEADER)?,
            last: Metrics::default(),
            last_step: 0,
        })
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
        let seconds = elapsed.as_secs_f64();
        self.timings.write(&format!("{step},{seconds:.3},{:.1}\n", step as f64 / seconds.max(1e-9)))?;
        Ok(means)
    }
}
