//! What runs there are, and how they do.

use super::{CONFIG, MeasuredRun, Measurements, MetricsFiles, RunDirectory, checkpoint, distinct, files, group};
use crate::config::Config;
use crate::error::Error;
use anyhow::Context;
use std::fs;
use std::path::{Path, PathBuf};

/// A run, as its files tell of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its directory.
    pub path: PathBuf,
    /// The environment.
    pub environment: String,
    /// What it learns with.
    pub config: Config,
    /// Steps made.
    pub steps: u64,
    /// The best mean return of an evaluation, and the last.
    pub best_and_last: Option<(f64, f64)>,
    /// The mean return of the evaluation at the last of those steps, if there was one.
    pub last_return: Option<f64>,
    /// Whether the evaluation at that step is still to be made.
    pub before_evaluation: bool,
    /// Why it cannot be resumed: what is wrong with what names its checkpoint.
    pub problem: Option<Error>,
}

impl Summary {
    /// Whether nothing would be left to be done with this configuration.
    pub fn is_finished(&self, config: &Config) -> bool {
        self.steps >= config.steps && !self.before_evaluation
            || self.last_return.is_some_and(|value| config.is_reached_by(value))
    }

    /// What a directory tells of the run in it.
    fn of(path: &Path) -> Result<Self, Error> {
        let (run, config) = RunDirectory::open(path)?;
        let (checkpoint, problem) = match checkpoint::last_place(&run) {
            Ok(place) => (place, None),
            Err(problem) => (None, Some(problem)),
        };
        // One that has just begun has measured nothing yet.
        let has_begun = checkpoint.is_some() || files::is_there(&run.file(MetricsFiles::METRICS));
        let measured = if has_begun { Measurements::read(&run)? } else { Measurements::default() };
        let returns = measured.points(MeasuredRun::EVALUATION).into_iter().map(|(_, value)| value);
        let best_and_last = returns.fold(None, |known: Option<(f64, f64)>, value| {
            Some((known.map_or(value, |(best, _)| best.max(value)), value))
        });
        // What is not in the last checkpoint will be made again.
        let (steps, before_evaluation) = checkpoint.unwrap_or((measured.last_step() as u64, false));
        Ok(Self {
            environment: run.environment().to_string(),
            path: path.to_path_buf(),
            last_return: measured.evaluation_at(steps).filter(|_| !before_evaluation),
            before_evaluation,
            config,
            steps,
            best_and_last,
            problem,
        })
    }
}

/// The runs inside a directory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Those that can be read, by name.
    pub runs: Vec<Summary>,
    /// The directories of the others, and what is wrong with them; and what stands in the places of runs of a group.
    pub damaged: Vec<(PathBuf, Error)>,
}

/// Whether a directory is that of a run, be it damaged.
pub fn is_run(path: &Path) -> bool {
    files::is_there(&path.join(CONFIG)) || files::is_there(&path.join(checkpoint::FOLDER).join(checkpoint::MANIFEST))
}

/// The runs inside a directory, and inside directories in it that are none themselves, as those of `--seeds`; or that one run
/// itself.
///
/// # Errors
/// If the directory, or that one run, cannot be read.
pub fn list(directory: &Path) -> Result<Listing, Error> {
    if is_run(directory) {
        return Ok(Listing { runs: vec![Summary::of(directory)?], damaged: Vec::new() });
    }
    let shown = directory.display();
    let entries =
        fs::read_dir(directory).with_context(|| format!("{shown} cannot be read; name a directory of runs"))?;
    let paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let (mut paths, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| is_run(path));
    let strangers = others.iter().map(PathBuf::as_path).chain([directory]).flat_map(group::strangers);
    let inside = others.iter().filter_map(|path| fs::read_dir(path).ok()).flatten();
    paths.extend(inside.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_run(path)));
    paths.sort_by_key(|path| natural(path));
    let mut listing = Listing { runs: Vec::new(), damaged: strangers.collect() };
    for path in distinct(paths) {
        match Summary::of(&path) {
            Ok(run) => listing.runs.push(run),
            Err(problem) => listing.damaged.push((path, problem)),
        }
    }
    listing.damaged.sort_by_key(|(path, _)| natural(path));
    Ok(listing)
}

/// A name with its numbers as numbers, so that run 10 comes after run 9.
fn natural(path: &Path) -> Vec<(String, u64)> {
    let name = path.to_string_lossy();
    let mut parts = vec![(String::new(), String::new())];
    for character in name.chars() {
        let (text, digits) = parts.last_mut().expect("there is always one");
        match (character.is_ascii_digit(), digits.is_empty()) {
            (true, _) => digits.push(character),
            (false, true) => text.push(character),
            (false, false) => parts.push((character.into(), String::new())),
        }
    }
    parts.into_iter().map(|(text, digits)| (text, digits.parse().unwrap_or(u64::MAX))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["runs/a-10", "runs/a-9", "runs/b-1", "runs/a-9-2", "runs/a"].map(PathBuf::from);
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["runs/a", "runs/a-9", "runs/a-9-2", "runs/a-10", "runs/b-1"].map(PathBuf::from));
    }
}
