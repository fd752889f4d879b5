//! A group of runs that differ in their seeds alone, as `sac ENVIRONMENT --seeds A..B` begins it: a directory that holds
//!
//! | file | content |
//! |---|---|
//! | `group.toml` | what decides all of them: a configuration as in `config.toml`, the seeds, the device, and what they begin with; written before the first begins, and anew when all are given other steps or another target |
//! | `seed-N/` | the run of seed N |
//! | `lock` | held by the process that trains them |

use super::events::EventsFile;
use super::{
    CONFIG, MetricsFiles, RUNS, checkpoint, config_file, distinct, ensure_empty, files, first_unused, is_run,
    leads_out, policy_file, taken, typed,
};
use crate::config::Config;
use crate::device::Device;
use crate::error::Error;
use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The name of the record.
const RECORD: &str = "group.toml";
/// The most runs of a group.
const MOST_RUNS: u64 = 10_000;

/// What decides a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The name of the environment.
    pub environment: String,
    /// What it learns with.
    pub config: Config,
    /// Where it is trained, as the user has said.
    pub device: Device,
    /// What it begins with, if that is not chance.
    pub init_from: Option<PathBuf>,
    /// Whether it begins with the replay memory of that as well.
    pub with_replay: bool,
}

impl Plan {
    /// A run on the CPU that begins with chance. `environment` is its name in files, whatever makes it.
    pub fn new(environment: &str, config: Config) -> Self {
        Self { environment: environment.into(), config, device: Device::Cpu, init_from: None, with_replay: false }
    }
}

/// What the record says besides the configuration.
#[derive(Serialize, Deserialize)]
struct Head {
    seeds: String,
    device: String,
    init_from: Option<PathBuf>,
    #[serde(default)]
    with_replay: bool,
}

/// Its keys.
const HEAD: [&str; 4] = ["seeds", "device", "init_from", "with_replay"];

/// The seeds from A to below B, written A..B.
///
/// # Errors
/// If the text is of another form, or if there are none or too many.
pub fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    match ends {
        Some(seeds) if !seeds.is_empty() && seeds.end - seeds.start <= MOST_RUNS => Ok(seeds),
        _ => Err(format!("it is not of the form A..B, for 1 to {MOST_RUNS} seeds from A to below B, as in 0..10")),
    }
}

/// The directory of a group, which this process trains alone.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    seeds: Range<u64>,
    plan: Plan,
    /// The directories that were made for it, the innermost first.
    made: Vec<PathBuf>,
    _lock: File,
}

impl Group {
    /// Makes the directory, `path`, which may not hold anything yet, or else the first unused `runs/ENVIRONMENT-N`, and
    /// writes the record. The seed of the plan does not count.
    ///
    /// # Errors
    /// If there is something in the directory already, or it cannot be made or written; nothing is overwritten.
    pub fn create(path: Option<&Path>, seeds: Range<u64>, plan: Plan) -> Result<Self, Error> {
        let mut made = files::missing(path.unwrap_or(Path::new(RUNS)));
        let create = || {
            let path = match path {
                Some(path) => ensure_empty(path).map(|()| path.to_path_buf())?,
                None => {
                    let path = first_unused(&plan.environment)?;
                    made.insert(0, path.clone());
                    path
                }
            };
            let unwritable =
                || format!("the directory {} cannot be written; choose another with --out", path.display());
            files::create_directories(&path).with_context(unwritable)?;
            let lock = checkpoint::lock(&path, "this group").with_context(unwritable)?;
            // Another process may have begun a group here since this one looked, and have ended.
            ensure!(!files::is_there(&path.join(RECORD)), taken(&path));
            let group = Self { path, seeds, plan, made: Vec::new(), _lock: lock };
            // The lock is removed by whoever holds it.
            group.write().inspect_err(|_| _ = fs::remove_file(group.path.join(checkpoint::LOCK)))?;
            Ok(group)
        };
        match typed(create) {
            Ok(group) => Ok(Self { made, ..group }),
            Err(error) => {
                files::remove_empty(&made);
                Err(error)
            }
        }
    }

    /// Writes the record.
    fn write(&self) -> anyhow::Result<()> {
        let Self { path, seeds, plan, .. } = self;
        let head = Head {
            seeds: format!("{}..{}", seeds.start, seeds.end),
            device: plan.device.to_string(),
            init_from: plan.init_from.clone(),
            with_replay: plan.with_replay,
        };
        let config = Config { seed: seeds.start, ..plan.config.clone() };
        let head = toml::to_string(&head).context("what the runs begin with has no TOML form")?;
        let text = head + &config_file::to_toml(&plan.environment, &config)?;
        let file = path.join(RECORD);
        files::write(&file, text.as_bytes())
            .with_context(|| format!("{} cannot be written; see to its permissions and to the disk", file.display()))
    }

    /// What its runs learn with, but for their seeds.
    pub fn config(&self) -> &Config {
        &self.plan.config
    }

    /// Replaces what its runs learn with, if that is something else.
    ///
    /// # Errors
    /// If the record cannot be written; it is then as before.
    pub fn replace_config(&mut self, config: Config) -> Result<(), Error> {
        if self.plan.config == config {
            return Ok(());
        }
        self.plan.config = config;
        typed(|| self.write())
    }

    /// The group of a directory; none if it has no record.
    ///
    /// # Errors
    /// If the record cannot be used, or if another process trains the group.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        typed(|| {
            let file = path.join(RECORD);
            if !files::is_there(&file) {
                return Ok(None);
            }
            let shown = file.display();
            let mend = "mend it, or move it away: what has been begun then goes on without it";
            let read = || parse(&files::read_text(&file, files::MOST_OF_CONFIG)?);
            let (seeds, plan) = read().map_err(|problem| anyhow!("{shown} cannot be used: {problem:#}; {mend}"))?;
            let _lock = checkpoint::lock(path, "this group").with_context(|| path.display().to_string())?;
            Ok(Some(Self { path: path.to_path_buf(), seeds, plan, made: Vec::new(), _lock }))
        })
    }

    /// The groups inside a directory: that of its own record, and those of directories in it, unless a link
    /// [leads out](leads_out) to one; and the directories of those
    /// that [cannot be opened](Self::open), with why.
    pub fn inside(directory: &Path) -> (Vec<Self>, Vec<(PathBuf, Error)>) {
        let inside = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut paths: Vec<_> = inside.collect();
        paths.sort();
        let (mut groups, mut closed) = (Vec::new(), Vec::new());
        for path in distinct([directory.to_path_buf()].into_iter().chain(paths)) {
            let opened = if leads_out(directory, &path) { Ok(None) } else { Self::open(&path) };
            match opened {
                Ok(group) => groups.extend(group),
                Err(problem) => closed.push((path, problem)),
            }
        }
        (groups, closed)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the environment.
    pub fn environment(&self) -> &str {
        &self.plan.environment
    }

    /// Each run: its directory, and what decides it.
    pub fn runs(&self) -> impl Iterator<Item = (PathBuf, Plan)> {
        self.seeds.clone().map(|seed| {
            let config = Config { seed, ..self.plan.config.clone() };
            (run_of(&self.path, seed), Plan { config, ..self.plan.clone() })
        })
    }

    /// Takes the record away again, and the directories that were made for it, where no run has been begun.
    pub fn withdraw_if_empty(self) {
        if self.runs().any(|(path, _)| path.exists()) {
            return;
        }
        // What cannot be taken away does no harm.
        let _ = fs::remove_file(self.path.join(RECORD));
        let _ = fs::remove_file(self.path.join(checkpoint::LOCK));
        files::remove_empty(&self.made);
    }
}

/// The directory of a run.
fn run_of(group: &Path, seed: u64) -> PathBuf {
    group.join(format!("seed-{seed}"))
}

/// What a record says.
fn parse(text: &str) -> anyhow::Result<(Range<u64>, Plan)> {
    let (head, config): (toml::Table, toml::Table) =
        config_file::table(text)?.into_iter().partition(|(key, _)| HEAD.contains(&key.as_str()));
    let head = Head::deserialize(head).map_err(|error| anyhow!("{}", error.to_string().trim().replace('\n', " ")))?;
    let seeds = parse_seeds(&head.seeds).map_err(|problem| anyhow!("seeds is {:?}; {problem}", head.seeds))?;
    let device = head.device.parse().map_err(|problem| anyhow!("device is {:?}; {problem}", head.device))?;
    let (environment, config) = config_file::parse_with_environment(&config.to_string())?;
    Config { seed: seeds.end - 1, ..config.clone() }.validate()?;
    let Head { init_from, with_replay, .. } = head;
    Ok((seeds, Plan { environment, config, device, init_from, with_replay }))
}

/// Whether no run has been begun in a directory, or was killed there before its first checkpoint: nothing is lost then if
/// it is begun anew.
pub fn is_unbegun(run: &Path) -> bool {
    // A link is something, wherever it leads.
    if !files::is_directory(run) {
        return !files::is_there(run);
    }
    let Ok(entries) = fs::read_dir(run) else { return false };
    let has_no_rows = |path: PathBuf| files::read_text(&path, 1 << 16).is_ok_and(|table| table.lines().count() <= 1);
    let is = |name: &str, file: &str| name == file || Path::new(name) == files::temporary(Path::new(file));
    entries.flatten().all(|entry| match entry.file_name().to_str() {
        Some(name) if is(name, CONFIG) || name == EventsFile::NAME => true,
        // By itself it is what somebody has kept of a run.
        Some(name) if is(name, policy_file::NAME) => files::is_directory(&run.join(checkpoint::FOLDER)),
        Some(MetricsFiles::METRICS | MetricsFiles::TIMINGS) => has_no_rows(entry.path()),
        Some(checkpoint::FOLDER) => {
            files::is_directory(&entry.path()) && !files::is_there(&entry.path().join(checkpoint::MANIFEST))
        }
        _ => false,
    })
}

/// What stands in the places of runs of a group, and is neither a run nor what one has left that is yet to begin; nothing
/// where there is no record that can be read.
pub fn strangers(group: &Path) -> Vec<(PathBuf, Error)> {
    let seeds =
        files::read_text(&group.join(RECORD), files::MOST_OF_CONFIG).ok().and_then(|text| Some(parse(&text).ok()?.0));
    let runs = seeds.into_iter().flatten().map(|seed| run_of(group, seed));
    let tell = |path| (path, Error::Files("it is to be a run, but holds something else; move it away".into()));
    runs.filter(|path| !is_run(path) && !is_unbegun(path)).map(tell).collect()
}

/// Takes away what a run has left that was killed before its first checkpoint.
///
/// # Errors
/// If a run has been begun there, or it cannot be taken away.
pub fn clear_unbegun(run: &Path) -> Result<(), Error> {
    typed(|| {
        let shown = run.display();
        let ensure_unbegun = || -> anyhow::Result<()> {
            ensure!(is_unbegun(run), "{shown} holds a run; resume that by itself");
            Ok(())
        };
        ensure_unbegun()?;
        let take_away = || {
            // The policy first: without the rest of a run it is what somebody has kept of one.
            let policy = run.join(policy_file::NAME);
            files::remove(&files::temporary(&policy))?;
            files::remove(&policy)?;
            fs::remove_dir_all(run)
        };
        if files::is_there(run) {
            // Another process may be about to begin it.
            let _lock = checkpoint::lock_run(run)?;
            ensure_unbegun()?;
            take_away().with_context(|| format!("{shown} cannot be taken away; see to its permissions"))?;
        }
        Ok(())
    })
}
