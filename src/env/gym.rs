//! Environments of Gymnasium: each lives in a Python process of its own, and is spoken to through memory that both see, or where
//! there is none (other systems than Linux, other processors than x86-64) through pipes.
//!
//! The process runs `gym.py`, which stands beside this file and is part of the program. It greets when it has made the
//! environment, and then gives one answer to each request. All numbers are in little-endian, texts in UTF-8:
//!
//! | message | bytes |
//! |---|---|
//! | greeting | `sac-gym2`; O and A as `u32`; the lowest and the highest action, each A × `f32`; a length as `u32`, and as many bytes of text, a line for each of [`Env::notes`] |
//! | greeting of one that cannot be made | `sac-gym2`; 0 and a length as `u32`; as many bytes of text |
//! | request | what is asked for as `u32` (0 a step, 1 a reset, 2 a picture); `u32` 0; the seed as `u64`; the action, A × `f32` |
//! | answer to a step or a reset | `u32` 0; whether it has terminated, plus twice whether it is truncated, plus four times whether statistics of its episode follow, plus eight times whether numbers of its info do, as `u32`; the reward as `f64`; the observation, O × `f32`; the statistics, the return as `f64` and the length as `u64`; the length of all numbers in bytes as `u32`, and for each the length of its name as `u32`, the name, and the number as `f64` |
//! | answer that it has failed | `u32` 1; a length as `u32`; as many bytes as in the answer above to its end; as many bytes of text as that length |
//! | answer with a picture | `u32` 2; a length as `u32`; again as many bytes; width and height as `u32`, and the pixels as RGB, row by row from the top, all together of that length; none if that is 0 |
//!
//! The process ends when there are no more requests, which is when this end of its input is closed, and at once when there is
//! nobody left to read its answers.
//!
//! A step of many an environment takes less time than it takes to wake a process that sleeps. So both ends look into the memory
//! for what comes next for a short while before they sleep, and do so only if it came as soon as that the last time: an end that
//! waits for an update of the networks, or for a slow environment, leaves its core to others.

use self::channel::Channel;
use self::process::{Failure, Group, Process};
use super::{Abandoned, Bounds, Env, EnvError, EpisodeStatistics, Scene, Step};
use crate::error::Error;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

mod channel;
mod process;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod shared;

const SCRIPT: &str = include_str!("gym.py");
const MAGIC: &[u8] = b"sac-gym2";
const GREETING: usize = 16;
const HEAD: usize = 16;
const STATISTICS: usize = 16;

/// What is asked for.
const STEP: u32 = 0;
const RESET: u32 = 1;
const DRAW: u32 = 2;

/// What is answered.
const STATE: u32 = 0;
const FAILURE: u32 = 1;
const PICTURE: u32 = 2;

/// The largest text, and the largest picture, in bytes. What claims to be longer is no answer.
const LONGEST_TEXT: usize = 1 << 12;
const LONGEST_NUMBERS: usize = 1 << 14;
const LARGEST_PICTURE: usize = 1 << 28;

/// A process and what leads to it.
type Started = (Group, Box<dyn Channel>);

/// The most actions, and the most observations.
const MOST_ACTIONS: usize = 1 << 24;
const MOST_OBSERVATIONS: usize = 1 << 28;

/// What any Python begins with. No modules of the working directory are found, so that none of them stands in for one of
/// Python's own, for Gymnasium, or for what that would like to import; `gym.py` lets them in where the user has named one. A
/// Python that is too old for `gym.py` ends with [`TOO_OLD`](process::TOO_OLD).
const BEGIN: &str = "\
def begin():
    import sys
    if sys.version_info < (3, 9):
        sys.exit(77)
    sys.path[:] = [path for path in sys.path if path]
    import os
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:
        return
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]
begin()
";

/// And then the one that runs `gym.py`, which it reads from its standard input. The main module and its arguments are left as they
/// are where Python is started without a script.
const RUN: &str = "\
def run():
    import os, sys, types
    script = b''
    while len(script) < SIZE:
        part = os.read(0, SIZE - len(script))
        if not part:
            return
        script += part
    module = types.ModuleType('sac_gym')
    module.ARGUMENTS, sys.argv[:] = sys.argv[1:], ['']
    del sys.modules['__main__'].begin, sys.modules['__main__'].run
    exec(compile(script, '<gym.py>', 'exec'), module.__dict__)
run()
";

/// An environment of Gymnasium that is to be made.
#[derive(Clone, Debug)]
pub struct Gym {
    /// What `gymnasium.make` is given: an identifier, or `module:identifier` where a module that registers it is to be
    /// imported first.
    pub id: String,
    /// Its other arguments, by their names. A value is the text of JSON, or any other text for that text itself.
    pub arguments: BTreeMap<String, String>,
    /// The Python interpreter. By default that of the active virtual environment, or else the one on the path.
    pub python: Option<PathBuf>,
    /// How long a reset or a step may take; to be made, it may take five times as long. Default 60 s.
    pub timeout: Duration,
    /// Whether it is made with `render_mode="rgb_array"`, for [`Env::render`]. Default no.
    pub draws: bool,
    /// Once this is true, nothing waits for the environment any more: its process is ended, and what waits for it fails with
    /// [`Abandoned`].
    pub abandon: Option<Arc<AtomicBool>>,
}

impl Default for Gym {
    fn default() -> Self {
        Self {
            id: String::new(),
            arguments: BTreeMap::new(),
            python: None,
            timeout: Duration::from_secs(60),
            draws: false,
            abandon: None,
        }
    }
}

impl Gym {
    /// Starts a process that makes the environment.
    ///
    /// # Errors
    /// [`Error::NoEnvironment`] if there is no interpreter, if it has no Gymnasium, if that cannot make the environment, or
    /// if its actions or observations are such that nothing here could learn them.
    pub fn make(&self) -> Result<GymEnv, Error> {
        let ((group, channel), python) = self.start()?;
        let shown = python.display();
        let cannot = |problem: String| Error::NoEnvironment(format!("gym:{} cannot be made: {problem}", self.id));
        let process = Process::new(group, channel, self.timeout, self.abandon.clone());
        let problem =
            |error: &std::io::Error| if has_no_more_files(error) { NO_MORE_FILES.into() } else { error.to_string() };
        let mut process = process.map_err(|error| cannot(problem(&error)))?;
        let read = |process: &mut Process| {
            let channel = &mut process.channel;
            let mut greeting = [0; GREETING];
            channel.read_exact(&mut greeting)?;
            let [observations, actions] = [8, 12].map(|at| u32_at(&greeting, at) as usize);
            let most = if observations == 0 { LONGEST_TEXT } else { MOST_ACTIONS };
            let is_sensible = (1..=most).contains(&actions) && observations <= MOST_OBSERVATIONS;
            if !greeting.starts_with(MAGIC) || !is_sensible {
                return Err(ErrorKind::InvalidData.into());
            }
            if observations == 0 {
                return Ok((0, bytes(channel, actions)?, Vec::new()));
            }
            let bounds = bytes(channel, 8 * actions)?;
            Ok((observations, bounds, text_after_length(channel)?))
        };
        let greeted = process.waiting(read);
        let (observation_size, rest, notes) = greeted.map_err(|error| match process.failure(error.kind()) {
            Failure::Problem(problem) => cannot(format!("{problem}; see to {shown}")),
            Failure::Abandoned => Error::Interrupted,
        })?;
        if observation_size == 0 {
            return Err(cannot(text(&rest)));
        }
        let (low, high) = rest.split_at(rest.len() / 2);
        let bounds = Bounds::new(floats(low).collect(), floats(high).collect()).map_err(cannot)?;
        let notes = String::from_utf8_lossy(&notes).lines().map(|note| text(note.as_bytes())).collect();
        Ok(GymEnv {
            process,
            observation_size,
            request: vec![0; HEAD + 4 * bounds.dimensions()],
            answer: vec![0; HEAD + 4 * observation_size],
            bounds,
            statistics: None,
            info: Vec::new(),
            notes,
            draws: self.draws,
            failure: None,
        })
    }

    /// The process, what leads to it, and its interpreter.
    fn start(&self) -> Result<(Started, PathBuf), Error> {
        let seconds = self.timeout.as_secs_f64().to_string();
        start_python(self.python.as_deref(), |python| {
            let command = |life: Option<i32>| {
                let mut command = python_command(python, &RUN.replace("SIZE", &SCRIPT.len().to_string()));
                command.arg(life.map_or("-".into(), |number| number.to_string())).arg(&seconds);
                command.args([if self.draws { "1" } else { "0" }, &self.id]);
                command.args(self.arguments.iter().map(|(key, value)| format!("{key}={value}")));
                command
            };
            Group::start(command, |command| channel::spawn(command, SCRIPT.as_bytes()))
        })
    }

    /// Whether there is an interpreter, and Gymnasium in it.
    ///
    /// # Errors
    /// [`Error::NoEnvironment`] if there is not.
    pub fn check(python: Option<&Path>) -> Result<(), Error> {
        let import = |python: &Path| python_command(python, "import gymnasium\n").stdin(Stdio::null()).output();
        let (output, python) = start_python(python, import)?;
        let shown = python.display();
        match output.status.code() {
            Some(0) => return Ok(()),
            Some(process::TOO_OLD) => {
                let problem = format!("the Python {shown} is older than 3.9; name a newer one with --python");
                return Err(Error::NoEnvironment(problem));
            }
            _ => {}
        }
        Err(Error::NoEnvironment(format!(
            "the Python {shown} cannot import gymnasium; install it there (pip install gymnasium), or name another Python with \
             --python"
        )))
    }
}

/// A Python that runs `code`, without the modules of the working directory; see [`BEGIN`].
fn python_command(python: &Path, code: &str) -> Command {
    let mut command = Command::new(python);
    command.arg("-c").arg(format!("{BEGIN}{code}"));
    // An empty part stands for the working directory, and would come first even before Python has begun.
    if let Some(paths) = std::env::var_os("PYTHONPATH") {
        let paths = std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty());
        match std::env::join_paths(paths) {
            Ok(paths) if !paths.is_empty() => command.env("PYTHONPATH", paths),
            _ => command.env_remove("PYTHONPATH"),
        };
    }
    command
}

/// What to do where an environment needs more files than may be open.
const NO_MORE_FILES: &str = "more files would be open than the system allows; allow more (ulimit -n), or train in fewer environments \
                             at once (--envs, or --threads for many runs)";

/// Whether the system refuses to open any more files.
fn has_no_more_files(error: &std::io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    cfg!(unix) && matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// What `start` makes of the interpreter that is asked for, or of the first of those by default that is there; and its path.
fn start_python<T>(python: Option<&Path>, start: impl Fn(&Path) -> std::io::Result<T>) -> Result<(T, PathBuf), Error> {
    let environment = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().find_map(environment);
    let candidates = match (python, active) {
        (Some(python), _) => vec![python.to_path_buf()],
        (None, Some(place)) if cfg!(windows) && place.join("Scripts").exists() => {
            vec![place.join("Scripts/python")]
        }
        (None, Some(place)) if cfg!(windows) => vec![place.join("python")],
        (None, Some(place)) => vec![place.join("bin/python")],
        (None, None) => vec!["python3".into(), "python".into()],
    };
    for python in &candidates {
        match start(python) {
            Ok(started) => return Ok((started, python.clone())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if has_no_more_files(&error) => return Err(Error::NoEnvironment(NO_MORE_FILES.into())),
            Err(error) => {
                let shown = python.display();
                return Err(Error::NoEnvironment(format!(
                    "the Python {shown} cannot be started ({error}); name another with --python"
                )));
            }
        }
    }
    let names: Vec<_> = candidates.iter().map(|python| python.display().to_string()).collect();
    Err(Error::NoEnvironment(format!("there is no Python called {}; name one with --python", names.join(" or "))))
}

/// An environment of Gymnasium.
///
/// A seed is folded to 31 bits, which is what every generator takes that an environment may use. Once a reset or a step has
/// failed, all others do. It cannot be saved, so a run that is resumed repeats the steps of its episode.
pub struct GymEnv {
    process: Process,
    observation_size: usize,
    bounds: Bounds,
    /// Of the episode that the last step has ended, if the environment has told any.
    statistics: Option<EpisodeStatistics>,
    /// Of the same episode.
    info: Vec<(String, f64)>,
    notes: Vec<String>,
    draws: bool,
    request: Vec<u8>,
    answer: Vec<u8>,
    failure: Option<String>,
}

impl GymEnv {
    /// Sends the request, whose action stands in its place, and waits for the answer.
    fn ask(&mut self, operation: u32, seed: u64) -> Result<Answer, EnvError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone().into());
        }
        self.request[..4].copy_from_slice(&operation.to_le_bytes());
        self.request[8..16].copy_from_slice(&seed.to_le_bytes());
        let (request, answer) = (&self.request, &mut self.answer);
        let answered = self.process.waiting(|process| {
            let channel = &mut process.channel;
            channel.write_all(request)?;
            channel.read_exact(answer)?;
            let (kind, detail) = (u32_at(answer, 0), u32_at(answer, 4));
            let length = detail as usize;
            match kind {
                FAILURE if length <= LONGEST_TEXT => Ok(Err(text(&bytes(channel, length)?))),
                STATE if operation == RESET && detail < 4 || operation == STEP && detail < 16 => {
                    let mut state = State { ends: detail, statistics: None, info: Vec::new() };
                    if detail & 4 != 0 {
                        let told = bytes(channel, STATISTICS)?;
                        let [total_reward, length] = [0, 8].map(|at| u64_at(&told, at));
                        let total_reward = f64::from_bits(total_reward);
                        state.statistics = Some(EpisodeStatistics { total_reward, length });
                    }
                    if detail & 8 != 0 {
                        state.info = numbers(&text_after_length(channel)?).ok_or(ErrorKind::InvalidData)?;
                    }
                    Ok(Ok(Answer::State(state)))
                }
                PICTURE if operation == DRAW && length <= LARGEST_PICTURE => {
                    Ok(Ok(Answer::Picture(bytes(channel, length)?)))
                }
                _ => Err(ErrorKind::InvalidData.into()),
            }
        });
        let failure = match answered {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(problem)) => problem,
            Err(error) => match self.process.failure(error.kind()) {
                Failure::Problem(problem) => problem,
                Failure::Abandoned => return Err(Abandoned.into()),
            },
        };
        self.failure = Some(failure.clone());
        Err(failure.into())
    }

    fn observation(&self) -> Vec<f32> {
        floats(&self.answer[HEAD..]).collect()
    }
}

impl Env for GymEnv {
    fn observation_size(&self) -> usize {
        self.observation_size
    }

    fn action_bounds(&self) -> Bounds {
        self.bounds.clone()
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, EnvError> {
        self.ask(RESET, seed & 0x7fff_ffff)?;
        Ok(self.observation())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, EnvError> {
        assert_eq!(action.len(), self.bounds.dimensions());
        for (bytes, value) in self.request[HEAD..].as_chunks_mut().0.iter_mut().zip(action) {
            *bytes = value.to_le_bytes();
        }
        let Answer::State(State { ends, statistics, info }) = self.ask(STEP, 0)? else {
            unreachable!("a picture was not asked for")
        };
        (self.statistics, self.info) = (statistics, info);
        let reward = f64::from_bits(u64_at(&self.answer, 8));
        Ok(Step { observation: self.observation(), reward, terminated: ends & 1 != 0, truncated: ends & 2 != 0 })
    }

    fn episode_statistics(&self) -> Option<EpisodeStatistics> {
        self.statistics
    }

    fn info(&self) -> &[(String, f64)] {
        &self.info
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn render(&mut self, _: &[f32]) -> Result<Option<Scene>, EnvError> {
        if !self.draws {
            return Ok(None);
        }
        match self.ask(DRAW, 0)? {
            Answer::Picture(bytes) if bytes.len() >= 8 => {
                let [width, height] = [0, 4].map(|at| u32_at(&bytes, at));
                Ok(Some(Scene::Pixels { width, height, rgb: bytes[8..].to_vec() }))
            }
            _ => Ok(None),
        }
    }
}

/// What has been answered.
enum Answer {
    /// To a reset or a step.
    State(State),
    /// Width, height and pixels, or nothing.
    Picture(Vec<u8>),
}

/// How the episode ends, and what there was in it if the environment gives that; the rest stands in [`GymEnv::answer`].
struct State {
    ends: u32,
    statistics: Option<EpisodeStatistics>,
    info: Vec<(String, f64)>,
}

fn bytes(channel: &mut Box<dyn Channel>, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    channel.read_exact(&mut bytes).map(|()| bytes)
}

/// A length, and as many bytes; a text or what has names, so that there are not many.
fn text_after_length(channel: &mut Box<dyn Channel>) -> std::io::Result<Vec<u8>> {
    let length = u32_at(&bytes(channel, 4)?, 0) as usize;
    if length > LONGEST_NUMBERS { Err(ErrorKind::InvalidData.into()) } else { bytes(channel, length) }
}

/// Numbers by their names; none if the bytes are something else.
fn numbers(mut bytes: &[u8]) -> Option<Vec<(String, f64)>> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (number, rest) = rest.split_first_chunk()?;
        numbers.push((text(name), f64::from_le_bytes(*number)));
        bytes = rest;
    }
    Some(numbers)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("it has four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("it has eight bytes"))
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes))
}

/// A text from outside, in one line.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}
