//! What files may make Python do: import a module, and give arguments to what makes an environment.
//!
//! Both can run any code, so neither happens because a file says so. The user says it on the command line, by
//! `sac gym:MODULE:ID`, `--env`, `--env-arg` or `--trust`. What the user has said is remembered for the working
//! directory, in a file of the user's own and not in the run: runs can be evaluated and resumed where they were made,
//! and a run from elsewhere brings no trust along. `docs/run.md` says why this is safe.

use crate::program::output::quoted;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use soft_actor_critic::env;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The most bytes of the file that are read.
const MOST_BYTES: u64 = 1 << 24;

/// What makes an environment: a line of the file of what the user has said.
#[derive(PartialEq, Serialize, Deserialize)]
struct Said {
    /// The working directory, where Python looks for modules as well.
    directory: String,
    environment: String,
    arguments: BTreeMap<String, String>,
}

/// An environment that files name.
pub struct Named<'a> {
    /// The run or the file.
    pub by: &'a Path,
    /// Its name.
    pub environment: &'a str,
    /// Whether the name stands on the command line.
    pub is_given: bool,
    /// All arguments that it is to be made with.
    pub arguments: &'a BTreeMap<String, String>,
    /// Those of them that stand on the command line.
    pub given: &'a [(String, String)],
}

impl Named<'_> {
    /// The module that must be imported, if there is one.
    fn module(&self) -> Option<&str> {
        env::gym_id(self.environment)?.split_once(':').map(|(module, _)| module)
    }

    /// The arguments whose values come from a file.
    fn unnamed(&self) -> impl Iterator<Item = (&String, &String)> {
        self.arguments.iter().filter(|(key, _)| self.given.iter().all(|(given, _)| given != *key))
    }

    /// Whether the user has said all that comes from a file, here and before.
    fn is_known(&self, known: &[Said]) -> bool {
        let Some(here) = self.said() else { return false };
        known.iter().any(|said| {
            let same = (&said.directory, &said.environment) == (&here.directory, &here.environment);
            same && self.unnamed().all(|(key, value)| said.arguments.get(key) == Some(value))
        })
    }

    fn said(&self) -> Option<Said> {
        let directory = std::env::current_dir().and_then(fs::canonicalize).ok()?.to_str()?.to_string();
        Some(Said { directory, environment: self.environment.to_string(), arguments: self.arguments.clone() })
    }
}

/// Refuses what files name and the user has not said, before any of it is made, unless the user trusts the files.
/// Remembers what the user has said.
///
/// # Errors
/// A line with the command that says it.
pub fn check(all: &[Named], trust: bool) -> Result<()> {
    let known = if trust { Vec::new() } else { read() };
    let unsaid: Vec<_> = all.iter().filter(|named| !trust && !named.is_known(&known)).collect();
    if let Some(named) = unsaid.iter().find(|named| named.unnamed().next().is_some()) {
        let (by, command) = (named.by.display(), command_line());
        let module = named.module().map_or(String::new(), |module| format!("the Python module {module} and "));
        let arguments: Vec<_> = named.unnamed().map(|(key, value)| quoted(&format!("{key}={value}"))).collect();
        let arguments = arguments.join(" ");
        bail!("{by} asks for {module}{arguments}, which you have not; if you trust it: {command} --trust");
    }
    let ungiven = || unsaid.iter().filter(|named| !named.is_given);
    if let Some((first, module)) = ungiven().find_map(|named| Some((named, named.module()?))) {
        let (by, command) = (first.by.display(), command_line());
        let names: BTreeSet<_> =
            ungiven().filter(|named| named.module().is_some()).map(|named| named.environment).collect();
        let options: String = names.into_iter().map(|name| format!(" --env {}", quoted(name))).collect();
        bail!("{by} asks for the Python module {module}, which you have not; if you trust it: {command}{options}");
    }
    all.iter().filter(|named| named.module().is_some() || !named.arguments.is_empty()).for_each(remember);
    Ok(())
}

/// Where it is remembered what the user has said: `soft-actor-critic/environments.jsonl` in the user's directory for
/// the state of programs.
fn file() -> Option<PathBuf> {
    let directory = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = directory("XDG_STATE_HOME").or_else(|| {
        if cfg!(windows) { directory("LOCALAPPDATA") } else { Some(directory("HOME")?.join(".local/state")) }
    });
    Some(state?.join("soft-actor-critic").join("environments.jsonl"))
}

/// What has been remembered. What cannot be read has not been said.
fn read() -> Vec<Said> {
    let mut text = String::new();
    let read = file().and_then(|path| File::open(path).ok()?.take(MOST_BYTES).read_to_string(&mut text).ok());
    if read.is_none() {
        return Vec::new();
    }
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Remembers it. Where that cannot be, the user says it again the next time.
fn remember(named: &Named) {
    let Some((path, said)) = file().zip(named.said()) else { return };
    if read().contains(&said) {
        return;
    }
    let write = || -> Result<()> {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let line = format!("{}\n", serde_json::to_string(&said)?);
        // In one piece, because other processes add lines too.
        Ok(OpenOptions::new().create(true).append(true).open(&path)?.write_all(line.as_bytes())?)
    };
    let _ = write();
}

/// The command that the user has typed.
fn command_line() -> String {
    let arguments = std::env::args_os().skip(1).map(|argument| quoted(&argument.to_string_lossy()));
    ["sac".to_string()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
}
