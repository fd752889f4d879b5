//! Environments of Gymnasium: each lives in a Python process of its own, and is spoken to through memory that both see, or where
//! there is none (other systems than Linux, other processors than x86-64) through pipes.
//!
//! The process runs `gym.py`, which stands beside this file and is part of the program. It greets when it has made the
//! environment, and then gives one answer to each request. All numbers are in little-endian, texts in UTF-8:
//!
//! | message | bytes |
//! |---|---|
//! | greeting | `sac-gym1`; O and A as `u32`; the lowest and the highest action, each A × `f32` |
//! | greeting of one that cannot be made | `sac-gym1`; 0 and a length as `u32`; as many bytes of text |
//! | request | what is asked for as `u32` (0 a step, 1 a reset, 2 a picture); `u32` 0; the seed as `u64`; the action, A × `f32` |
//! | answer to a step or a reset | `u32` 0; whether it has terminated, plus twice whether it is truncated, plus four times whether statistics of its episode follow, as `u32`; the reward as `f64`; the observation, O × `f32`; and then those, the return as `f64` and the length as `u64` |
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
use super::{Bounds, Env, EnvError, EpisodeStatistics, Scene, Step};
use crate::error::Error;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

mod channel;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod shared;

const SCRIPT: &str = include_str!("gym.py");
const MAGIC: &[u8] = b"sac-gym1";
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
const LARGEST_PICTURE: usize = 1 << 28;

/// How often it is looked whether an answer is overdue, in the time that one may take; and in how many times that time the
/// environment must have been made.
const LOOKS: u32 = 20;
const TIMES_TO_START: u32 = 5;

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// An environment of Gymnasium that is to be made.
#[derive(Clone, Debug, PartialEq)]
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
}

impl Default for Gym {
    fn default() -> Self {
        Self {
            id: String::new(),
            arguments: BTreeMap::new(),
            python: None,
            timeout: Duration::from_secs(60),
            draws: false,
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
        let (child, channel, python) = self.start()?;
        let shown = python.display();
        let cannot = |problem: String| Error::NoEnvironment(format!("gym:{} cannot be made: {problem}", self.id));
        let mut process = Process::new(child, channel, self.timeout).map_err(|error| cannot(error.to_string()))?;
        let read = |process: &mut Process| {
            let mut greeting = [0; GREETING];
            process.channel.read_exact(&mut greeting)?;
            let [observations, actions] = [8, 12].map(|at| u32_at(&greeting, at) as usize);
            let sensible = actions <= LONGEST_TEXT && observations < 1 << 28;
            if !greeting.starts_with(MAGIC) || actions == 0 || !sensible {
                return Err(ErrorKind::InvalidData.into());
            }
            let mut rest = vec![0; if observations == 0 { actions } else { 8 * actions }];
            process.channel.read_exact(&mut rest).map(|()| (observations, actions, rest))
        };
        let greeted = process.waiting(read);
        let (observation_size, actions, rest) =
            greeted.map_err(|error| cannot(format!("{}; see to {shown}", process.failure(error.kind()))))?;
        if observation_size == 0 {
            return Err(cannot(text(&rest)));
        }
        let (low, high) = rest.split_at(4 * actions);
        let bounds = Bounds::new(floats(low).collect(), floats(high).collect()).map_err(cannot)?;
        Ok(GymEnv {
            process,
            observation_size,
            request: vec![0; HEAD + 4 * actions],
            answer: vec![0; HEAD + 4 * observation_size],
            bounds,
            statistics: None,
            draws: self.draws,
            failure: None,
        })
    }

    /// The process, what leads to it, and its interpreter.
    fn start(&self) -> Result<(Child, Box<dyn Channel>, PathBuf), Error> {
        let command = |python: &Path| {
            let mut command = Command::new(python);
            command.args(["-c", SCRIPT, &self.id, if self.draws { "1" } else { "0" }]);
            command.args(self.arguments.iter().map(|(key, value)| format!("{key}={value}")));
            channel::spawn(command)
        };
        let ((child, channel), python) = start_python(self.python.as_deref(), command)?;
        Ok((child, channel, python))
    }

    /// Whether there is an interpreter, and Gymnasium in it.
    ///
    /// # Errors
    /// [`Error::NoEnvironment`] if there is not.
    pub fn check(python: Option<&Path>) -> Result<(), Error> {
        let import = |python: &Path| Command::new(python).args(["-c", "import gymnasium"]).output();
        let (output, python) = start_python(python, import)?;
        if output.status.success() {
            return Ok(());
        }
        let shown = python.display();
        Err(Error::NoEnvironment(format!(
            "the Python {shown} cannot import gymnasium; install it there (pip install gymnasium), or name another Python with \
             --python"
        )))
    }
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
/// failed, all others do. The state of an environment in Python cannot be told, so a run that is resumed begins a new episode.
pub struct GymEnv {
    process: Process,
    observation_size: usize,
    bounds: Bounds,
    /// Of the episode that the last step has ended, if the environment has told any.
    statistics: Option<EpisodeStatistics>,
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
            process.channel.write_all(request)?;
            process.channel.read_exact(answer)?;
            let (kind, detail) = (u32_at(answer, 0), u32_at(answer, 4));
            let length = detail as usize;
            let mut rest = |length| {
                let mut bytes = vec![0; length];
                process.channel.read_exact(&mut bytes).map(|()| bytes)
            };
            match kind {
                FAILURE if length <= LONGEST_TEXT => Ok(Err(text(&rest(length)?))),
                STATE if operation != DRAW && detail < 4 => Ok(Ok(Answer::State { ends: detail, statistics: None })),
                STATE if operation == STEP && detail < 8 => {
                    let told = rest(STATISTICS)?;
                    let [total_reward, length] = [0, 8].map(|at| u64_at(&told, at));
                    let statistics = EpisodeStatistics { total_reward: f64::from_bits(total_reward), length };
                    Ok(Ok(Answer::State { ends: detail, statistics: Some(statistics) }))
                }
                PICTURE if operation == DRAW && length <= LARGEST_PICTURE => Ok(Ok(Answer::Picture(rest(length)?))),
                _ => Err(ErrorKind::InvalidData.into()),
            }
        });
        let answered = answered.unwrap_or_else(|error| Err(self.process.failure(error.kind())));
        answered.map_err(|failure| {
            self.failure = Some(failure.clone());
            failure.into()
        })
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
        let Answer::State { ends, statistics } = self.ask(STEP, 0)? else {
            unreachable!("a picture was not asked for")
        };
        self.statistics = statistics;
        let reward = f64::from_bits(u64_at(&self.answer, 8));
        Ok(Step { observation: self.observation(), reward, terminated: ends & 1 != 0, truncated: ends & 2 != 0 })
    }

    fn episode_statistics(&self) -> Option<EpisodeStatistics> {
        self.statistics
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
    /// To a reset or a step. How the episode ends is told here, and what there was in it if the environment tells that; the rest
    /// stands in [`GymEnv::answer`].
    State { ends: u32, statistics: Option<EpisodeStatistics> },
    /// Width, height and pixels, or nothing.
    Picture(Vec<u8>),
}

/// A process, watched while an answer of it is waited for.
struct Process {
    child: Arc<Mutex<Child>>,
    channel: Box<dyn Channel>,
    watch: Arc<Watch>,
    watchman: Option<JoinHandle<()>>,
    timeout: Duration,
}

/// What the thread that waits for an answer and the one that watches tell each other.
#[derive(Default)]
struct Watch {
    /// Twice the answers that have come, plus one while one is waited for.
    exchanges: AtomicU64,
    /// Whether one was overdue, and the process has been killed for it.
    overdue: AtomicBool,
    /// Whether there is nothing left to watch.
    over: AtomicBool,
}

impl Process {
    fn new(child: Child, channel: Box<dyn Channel>, timeout: Duration) -> std::io::Result<Self> {
        let hang_up = channel.hang_up()?;
        let (child, watch) = (Arc::new(Mutex::new(child)), Arc::new(Watch::default()));
        let watchman = {
            let (child, watch) = (Arc::clone(&child), Arc::clone(&watch));
            thread::spawn(move || watch.keep(&child, timeout, hang_up))
        };
        Ok(Self { child, channel, watch, watchman: Some(watchman), timeout })
    }

    /// Does what waits for the process, and is watched over meanwhile.
    fn waiting<T>(&mut self, work: impl FnOnce(&mut Self) -> std::io::Result<T>) -> std::io::Result<T> {
        let watch = Arc::clone(&self.watch);
        watch.exchanges.fetch_add(1, Ordering::Relaxed);
        let done = work(self);
        watch.exchanges.fetch_add(1, Ordering::Relaxed);
        done
    }

    /// Ends the process after an answer has failed to come in this way, and says why it did.
    fn failure(&mut self, kind: ErrorKind) -> String {
        if kind == ErrorKind::InvalidData {
            self.kill();
            return "what its process wrote is no answer".into();
        }
        let status = self.end();
        if self.watch.overdue.load(Ordering::Relaxed) {
            let starting = self.watch.exchanges.load(Ordering::Relaxed) <= 2;
            let times = if starting { TIMES_TO_START } else { 1 };
            let seconds = (self.timeout * times).as_secs_f64();
            return format!("it has not answered for {seconds} s (--env-timeout says how long it may take)");
        }
        match status {
            Some(status) => format!("its process ended ({status})"),
            None => "its process does not answer any more".into(),
        }
    }

    /// Ends the process: asks it to by closing its requests, and kills it if it has not ended after some time.
    fn end(&mut self) -> Option<ExitStatus> {
        self.channel.close();
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            match lock(&self.child).try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                ended => return ended.ok().flatten(),
            }
        }
        self.kill();
        None
    }

    fn kill(&self) {
        let mut child = lock(&self.child);
        // One that has ended already is as good.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        self.watch.over.store(true, Ordering::Relaxed);
        if let Some(watchman) = self.watchman.take() {
            watchman.thread().unpark();
            // It does nothing that could panic.
            let _ = watchman.join();
        }
    }
}

impl Watch {
    /// Kills the process when an answer is overdue. What is counted are looks and not time, so that an answer is not taken
    /// for overdue after both processes have been stopped for a while.
    fn keep(&self, child: &Mutex<Child>, timeout: Duration, hang_up: impl FnOnce()) {
        let (mut last, mut looks) = (0, 0);
        while !self.over.load(Ordering::Relaxed) {
            thread::park_timeout(timeout / LOOKS);
            let exchange = self.exchanges.load(Ordering::Relaxed);
            let waits = exchange % 2 == 1 && exchange == last;
            (last, looks) = (exchange, if waits { looks + 1 } else { 0 });
            let times = if exchange == 1 { TIMES_TO_START } else { 1 };
            if looks >= LOOKS * times {
                self.overdue.store(true, Ordering::Relaxed);
                // It has ended, or it is ended now.
                let _ = lock(child).kill();
                hang_up();
                return;
            }
        }
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
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
