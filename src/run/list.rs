//! What runs there are, and how they do.

use super::{CONFIG, Measurements, RunDirectory, checkpoint};
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
    /// The seed.
    pub seed: u64,
    /// Steps made, of those that were asked for.
    pub steps: (u64, u64),
    /// The best mean return of an evaluation, and the last.
    pub best_and_last: Option<(f64, f64)>,
}

impl Summary {
    /// Whether nothing is left to be done.
    pub fn is_finished(&self) -> bool {
        self.steps.0 >= self.steps.1
    }
}

/// The runs inside a directory, and inside directories in it that are none themselves, as those of `--seeds`; or that one run
/// itself. By name.
///
/// # Errors
/// If the directory cannot be read.
pub fn list(directory: &Path) -> Result<Vec<Summary>, Error> {
    // What is wrong with the run that was asked for is told; others are passed over.
    if directory.join(CONFIG).exists() {
        RunDirectory::open(directory)?;
        return Ok(summarize(directory).into_iter().collect());
    }
    let shown = directory.display();
    let entries =
        fs::read_dir(directory).with_context(|| format!("{shown} cannot be read; name a directory of runs"))?;
    let paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let (runs, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.join(CONFIG).exists());
    let inside = others.iter().filter_map(|path| fs::read_dir(path).ok()).flatten();
    let inside = inside.filter_map(|entry| Some(entry.ok()?.path()));
    let mut runs: Vec<_> = runs.into_iter().chain(inside).filter_map(|path| summarize(&path)).collect();
    runs.sort_by_key(|run| natural(&run.path));
    Ok(runs)
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

/// What a directory tells of a run; none if it is not one.
fn summarize(path: &Path) -> Option<Summary> {
    let (run, config) = RunDirectory::open(path).ok()?;
    let measured = Measurements::read(&run).unwrap_or_default();
    let returns = measured.points("evaluation_return").into_iter().map(|(_, value)| value);
    let best_and_last = returns
        .fold(None, |known: Option<(f64, f64)>, value| Some((known.map_or(value, |(best, _)| best.max(value)), value)));
    // What is not in the last checkpoint will be made again.
    let steps = checkpoint::last_step(&run).unwrap_or(measured.last_step() as u64);
    Some(Summary {
        environment: run.environment().to_string(),
        path: path.to_path_buf(),
        seed: config.seed,
        steps: (steps, config.steps),
        best_and_last,
    })
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
