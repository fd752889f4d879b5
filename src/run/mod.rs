//! What a run leaves on disk: one directory with its configuration, its measurements and its policy.
//!
//! | file | content |
//! |---|---|
//! | `config.toml` | everything that decided the run; `--config` takes it back. What it began with, if that was the networks of another, is a comment at its head |
//! | `metrics.csv` | a row for each finished episode and each evaluation; the same bytes for the same configuration |
//! | `timings.csv` | the wall-clock time of the same rows |
//! | `events.out.tfevents.sac` | the same rows and times for TensorBoard, and the configuration as text |
//! | `curve.svg` | its learning curve and losses, drawn when training stops |
//! | `policy.safetensors` | the policy, replaced at each evaluation and at the end |
//! | `best.safetensors` | the policy of the best evaluation, where `keep_best` asks for it |
//! | `checkpoint/` | everything that `sac resume` needs; see [`checkpoint`] |
//!
//! Runs of several seeds that are begun together lie in a directory of their own, see [`group`].
//!
//! But for the times, all of it is the same however often a run was interrupted and resumed. A run that was given more steps
//! after its end keeps the rows of that end in `metrics.csv`.

mod checked;
pub mod checkpoint;
mod compare;
pub mod config_file;
mod events;
pub(crate) mod files;
pub mod group;
mod init_from;
mod list;
mod measured_run;
mod measurements;
mod metrics;
pub mod policy_file;
mod tensors_file;

pub use checked::Checked;
pub use checkpoint::Checkpoints;
pub use compare::{Comparison, EnvironmentScores, Scores, compare};
pub use group::{Group, Plan};
pub use init_from::{Begun, InitFrom};
pub use list::{Listing, Summary, is_run, list};
pub use measured_run::MeasuredRun;
pub use measurements::Measurements;
pub use metrics::{MetricsFiles, Position, Row};

use crate::actor::Actor;
use crate::config::Config;
use crate::env;
use crate::error::Error;
use anyhow::{Context, bail, ensure};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The name of the configuration in a run directory.
const CONFIG: &str = "config.toml";
/// Where runs are put that are given no directory.
const RUNS: &str = "runs";

/// What `work` says of files, as an [`Error`].
fn typed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> Result<T, Error> {
    Ok(work()?)
}

/// The paths, but for those that lead to what another before them leads to.
fn distinct(paths: impl IntoIterator<Item = PathBuf>) -> impl Iterator<Item = PathBuf> {
    let mut seen = BTreeSet::new();
    paths.into_iter().filter(move |path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())))
}

/// Whether a path in a directory leads out of it, over a symbolic link.
pub fn leads_out(directory: &Path, path: &Path) -> bool {
    matches!((directory.canonicalize(), path.canonicalize()), (Ok(directory), Ok(path)) if !path.starts_with(&directory))
}

/// A directory that belongs to one run.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    /// The lock of a new run, until its checkpoints take it.
    lock: Arc<Mutex<Option<File>>>,
    path: PathBuf,
    environment: String,
    /// The comments at the head of its configuration.
    heading: String,
}

impl RunDirectory {
    /// Makes the directory, locks the run, and writes `config.toml`. Without a `path` it becomes the first unused `runs/ENVIRONMENT-N`.
    /// If something besides the configuration decides the run, a comment at the head of the file says so, `origin`: one line.
    ///
    /// # Errors
    /// If there is something in the directory already, or it cannot be made or written, or if another process is about to
    /// begin a run there; nothing is overwritten.
    pub fn create(
        path: Option<&Path>,
        environment: &str,
        config: &Config,
        origin: Option<&str>,
    ) -> Result<Self, Error> {
        typed(|| {
            let path = match path {
                Some(path) => path.to_path_buf(),
                None => first_unused(environment)?,
            };
            let shown = path.display();
            ensure_empty(&path)?;
            let heading = origin.map_or(String::new(), |origin| format!("# {origin}\n"));
            let unwritable = || format!("the run directory {shown} cannot be written; choose another with --out");
            let made = files::missing(&path.join(checkpoint::FOLDER));
            let begin = || {
                files::create_directories(&path)?;
                let lock = checkpoint::lock_run(&path)?;
                // Another process may have begun a run here since this one looked.
                ensure!(!files::is_there(&path.join(CONFIG)), taken(&path));
                let lock = Arc::new(Mutex::new(Some(lock)));
                let run = Self { environment: environment.to_string(), path: path.clone(), heading, lock };
                let text = run.config_text(config)?;
                // The lock is removed by whoever holds it.
                files::write(&run.file(CONFIG), text.as_bytes()).inspect_err(|_| checkpoint::remove_lock(&path))?;
                Ok(run)
            };
            let begun: anyhow::Result<Self> = begin();
            begun.inspect_err(|_| files::remove_empty(&made)).with_context(unwritable)
        })
    }

    /// The directory of a run that has been begun, and its configuration.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path) -> Result<(Self, Config), Error> {
        typed(|| {
            let shown = path.display();
            let file = path.join(CONFIG);
            let is_run = files::is_there(&file);
            ensure!(is_run, "{shown} is no run directory, it has no {CONFIG}; give one that `sac` has made");
            let shown = file.display();
            let text = files::read_text(&file, files::MOST_OF_CONFIG)
                .with_context(|| format!("the configuration {shown} cannot be read"))?;
            let parsed = config_file::parse_with_environment(&text);
            let (environment, config) = parsed.with_context(|| format!("the configuration {shown} cannot be used"))?;
            let heading =
                text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
            Ok((Self { path: path.to_path_buf(), environment, heading, lock: Arc::default() }, config))
        })
    }

    /// What `config.toml` says for a configuration.
    pub(crate) fn config_text(&self, config: &Config) -> Result<String, Error> {
        Ok(self.heading.clone() + &config_file::to_toml(&self.environment, config)?)
    }

    /// Replaces the configuration, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn replace_config(&self, config: &Config) -> Result<(), Error> {
        typed(|| {
            let text = self.config_text(config)?;
            let file = self.file(CONFIG);
            files::write(&file, text.as_bytes()).with_context(|| format!("{} cannot be written", file.display()))
        })
    }

    /// Sees to it that the names in the directory are on the disk.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn sync(&self) -> Result<(), Error> {
        typed(|| {
            files::sync_directory(&self.path).with_context(|| format!("{} cannot be written", self.path.display()))
        })
    }

    /// Makes this process the only one that writes into the run, as long as the file that is returned lives.
    ///
    /// # Errors
    /// If another process does.
    pub fn lock(&self) -> Result<File, Error> {
        typed(|| checkpoint::lock_run(&self.path))
    }

    /// The lock of a new run.
    fn take_lock(&self) -> Option<File> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The name of the environment.
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Replaces the policy, whole or not at all. A policy that is no longer finite never replaces one that is.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_policy(&self, actor: &Actor) -> Result<(), Error> {
        if actor.theta().iter().any(|value| !value.is_finite()) {
            return Ok(());
        }
        policy_file::save(&self.file(policy_file::NAME), &self.environment, actor)
    }

    /// Replaces the policy of the best evaluation, whole or not at all, or takes it away where there is none.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_best(&self, actor: Option<&Actor>) -> Result<(), Error> {
        let file = self.file(policy_file::BEST);
        match actor {
            Some(actor) => policy_file::save(&file, &self.environment, actor),
            None => typed(|| files::remove(&file).with_context(|| format!("{} cannot be taken away", file.display()))),
        }
    }
}

/// Whether nothing stands in the way of a directory with new files.
fn ensure_empty(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let has_control = path.to_string_lossy().contains(char::is_control);
    ensure!(!has_control, "{path:?} has a control character in it; choose another directory with --out");
    match fs::read_dir(path) {
        Ok(mut entries) => ensure!(entries.next().is_none(), taken(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(_) => bail!("{shown} is no directory that can be read; choose another with --out"),
    }
    Ok(())
}

fn taken(path: &Path) -> String {
    let shown = path.display();
    format!("{shown} already holds files, which will not be overwritten; choose another directory with --out")
}

/// Makes the first `runs/ENVIRONMENT-N` that is not there yet; of several programs at once, each gets its own.
fn first_unused(environment: &str) -> anyhow::Result<PathBuf> {
    let make = |n| {
        let path = Path::new(RUNS).join(format!("{}-{n}", env::file_name(environment)));
        files::create_directories(Path::new(RUNS)).and_then(|()| fs::create_dir(&path))?;
        files::sync_directory(Path::new(RUNS)).map(|()| path)
    };
    (1..)
        .map(make)
        .find(|made| !made.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists))
        .expect("there are enough numbers")
        .context("no run directory can be made in runs; choose another place with --out")
}
