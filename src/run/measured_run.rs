//! A run and what it has measured, as pictures and comparisons take it.

use super::{Measurements, RunDirectory, config_file};
use crate::config::Config;
use crate::error::Error;
use std::path::Path;

/// A run whose measurements have been read.
#[derive(Clone, Debug)]
pub struct MeasuredRun {
    directory: RunDirectory,
    config: Config,
    measured: Measurements,
}

impl MeasuredRun {
    /// The column of `metrics.csv` with the mean returns of evaluations.
    pub const EVALUATION: &str = "evaluation_return";
    /// The column with the returns of training episodes.
    pub const EPISODE: &str = "episode_return";

    /// The run in a directory; it may be training at this moment.
    ///
    /// # Errors
    /// If there is none, or if it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (directory, config) = RunDirectory::open(path)?;
        Self::read(directory, config)
    }

    /// The run of this directory and configuration.
    ///
    /// # Errors
    /// If its measurements cannot be read.
    pub fn read(directory: RunDirectory, config: Config) -> Result<Self, Error> {
        Ok(Self { measured: Measurements::read(&directory)?, directory, config })
    }

    /// Its directory.
    pub fn directory(&self) -> &RunDirectory {
        &self.directory
    }

    /// What it learns with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The step of its last row.
    pub fn last_step(&self) -> f64 {
        self.measured.last_step()
    }

    /// The steps at which there is something in a column of `metrics.csv`, and what it is.
    pub fn points(&self, column: &str) -> Vec<(f64, f64)> {
        self.measured.points(column)
    }

    /// Whether a return has been measured.
    pub fn has_returns(&self) -> bool {
        [Self::EVALUATION, Self::EPISODE].iter().any(|column| !self.points(column).is_empty())
    }

    /// What runs of one group have in common: everything but the seed, how long they are trained, and how they are watched.
    ///
    /// # Errors
    /// If it cannot be written as TOML.
    pub fn group(&self) -> Result<String, Error> {
        self.directory.config_text(&config_file::of_learning(&self.config))
    }

    /// The name of its directory.
    pub fn name(&self) -> String {
        name_of(self.directory.path())
    }

    /// The name of the directory around its own.
    pub fn parent_name(&self) -> String {
        let path = std::path::absolute(self.directory.path()).unwrap_or_default();
        name_of(path.parent().unwrap_or(&path))
    }
}

/// What a path ends with, without the characters that no SVG may hold.
pub(super) fn name_of(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_default();
    path.file_name().unwrap_or_default().to_string_lossy().replace(char::is_control, "?")
}
