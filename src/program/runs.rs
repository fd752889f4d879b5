//! Runs that a command reads, and what it leaves out of them.

use crate::program::failure::{Failure, Outcome};
use crate::program::output;
use anyhow::{Result, anyhow};
use soft_actor_critic::run::{Listing, MeasuredRun, list};
use std::path::PathBuf;

/// The runs in each of these directories that have measured a return in one of the `columns`, and how many cannot be
/// read. Those and the ones without `what` are told.
pub fn measured_runs(paths: &[PathBuf], columns: &[&str], what: &str) -> Result<(Vec<Vec<MeasuredRun>>, usize)> {
    let mut problems = 0;
    let mut groups = Vec::new();
    for path in paths {
        let Listing { runs, damaged } = list(path)?;
        anyhow::ensure!(
            !runs.is_empty() || !damaged.is_empty(),
            "{} holds no runs; name a run, or a directory of runs",
            path.display()
        );
        for (path, problem) in &damaged {
            output::print_error(&format!("{}: {problem}", path.display()));
        }
        problems += damaged.len();
        let runs = runs.iter().map(|run| MeasuredRun::open(&run.path)).collect::<Result<Vec<_>, _>>()?;
        let has = |run: &MeasuredRun| columns.iter().any(|column| !run.points(column).is_empty());
        let (with, without): (Vec<_>, Vec<_>) = runs.into_iter().partition(has);
        anyhow::ensure!(!with.is_empty(), "{} has no {what} yet; wait for one, or leave it out", path.display());
        for run in without {
            output::write_line(&format!("{} has no {what} yet; it is left out", run.directory().path().display()));
        }
        groups.push(with);
    }
    Ok((groups, problems))
}

/// Ends a command that has done what it could without so many runs that cannot be read, each of which has been told.
pub fn left_out(damaged: usize) -> Outcome {
    if damaged == 0 {
        return Ok(());
    }
    let runs = if damaged == 1 { "1 run has".into() } else { format!("{damaged} runs have") };
    Err(Failure::Work(anyhow!("{runs} been left out, see above; put back what is missing, or move them away")))
}
