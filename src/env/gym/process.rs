//! The process of an environment, with all that the environment starts: watched while it is waited for, and ended as a whole.
//!
//! On Unix it leads a group of processes of its own. So Ctrl-C in a terminal reaches this program alone, and whatever the
//! environment has started ends with it, as long as that has not left the group. If this program is killed, `gym.py` sees it:
//! a small process of its own in the group reads from a pipe whose other end this program holds, and ends the group.

use super::channel::Channel;
use std::io::{ErrorKind, Result};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the watchman sleeps at most before he looks whether the process is to be abandoned.
const LOOK: Duration = Duration::from_millis(50);

/// How often it is looked whether an answer is overdue, in the time that one may take; and in how many times that time the
/// environment must have been made.
const LOOKS: u32 = 20;
const TIMES_TO_START: u32 = 5;

/// How much longer than its time the process is waited for when it closes the environment: it ends itself then, with a line.
const PATIENCE: Duration = Duration::from_secs(2);

/// With what exit code a Python ends that is too old.
pub const TOO_OLD: i32 = 77;

/// A process and its group.
pub struct Group {
    child: Child,
    /// Once it has ended, and its group with it.
    status: Option<ExitStatus>,
    /// While this is open, this program lives.
    #[cfg(unix)]
    _life: std::io::PipeWriter,
}

impl Group {
    /// Starts it as `spawn` does, given the command that `make` makes of the number of a file that stays open as long as this
    /// program lives, if there is one.
    pub fn start<T>(
        make: impl FnOnce(Option<i32>) -> Command,
        spawn: impl FnOnce(Command) -> Result<(Child, T)>,
    ) -> Result<(Self, T)> {
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            use std::os::unix::process::CommandExt;
            let (reader, _life) = std::io::pipe()?;
            let number = reader.as_raw_fd();
            let mut command = make(Some(number));
            command.process_group(0);
            let keep = move || {
                // SAFETY: the file is open until after the process has been started, and what is changed belongs to that.
                match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            };
            // SAFETY: all that is called between fork and exec is fcntl, which may be.
            unsafe { command.pre_exec(keep) };
            let (child, other) = spawn(command)?;
            drop(reader);
            Ok((Self { child, status: None, _life }, other))
        }
        #[cfg(not(unix))]
        {
            let (child, other) = spawn(make(None))?;
            Ok((Self { child, status: None }, other))
        }
    }

    /// How the process has ended, if it has; what is left of its group is then ended.
    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() && self.has_ended()? {
            self.kill_all();
            self.status = Some(self.child.wait()?);
        }
        Ok(self.status)
    }

    /// Ends the process and its group.
    fn kill(&mut self) {
        if self.status.is_none() {
            self.kill_all();
            self.status = self.child.wait().ok();
        }
    }

    /// Whether the process has ended. It is not reaped, so that the number of its group stays its own.
    #[cfg(unix)]
    fn has_ended(&mut self) -> Result<bool> {
        // SAFETY: all zeros are a value of this type, which belongs to C.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: it writes to `info` alone.
        if unsafe { libc::waitid(libc::P_PID, self.child.id(), &raw mut info, options) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the field is there after waitid, and zero if nothing has ended.
        Ok(unsafe { info.si_pid() } != 0)
    }

    #[cfg(not(unix))]
    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills what is left of the group. The process has not been reaped yet.
    fn kill_all(&mut self) {
        #[cfg(unix)]
        // SAFETY: it has no memory to do with. The group is the process's own, because that has not been reaped.
        unsafe {
            libc::kill(-(self.child.id() as i32), libc::SIGKILL);
        }
        // One that has ended already is as good.
        let _ = self.child.kill();
    }
}

/// A process, watched while an answer of it is waited for.
pub struct Process {
    group: Arc<Mutex<Group>>,
    pub channel: Box<dyn Channel>,
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
    /// Whether the process has been killed because nobody waits for it any more.
    abandoned: AtomicBool,
    /// Whether there is nothing left to watch.
    over: AtomicBool,
}

/// Why there is no answer.
pub enum Failure {
    /// What is wrong.
    Problem(String),
    /// Nobody waits for one any more.
    Abandoned,
}

impl Process {
    /// Once `abandon` is true, the process is killed, whatever it does.
    pub fn new(
        group: Group,
        channel: Box<dyn Channel>,
        timeout: Duration,
        abandon: Option<Arc<AtomicBool>>,
    ) -> Result<Self> {
        let hang_up = channel.hang_up()?;
        let (group, watch) = (Arc::new(Mutex::new(group)), Arc::new(Watch::default()));
        let watchman = {
            let (group, watch) = (Arc::clone(&group), Arc::clone(&watch));
            thread::spawn(move || watch.keep(&group, timeout, abandon.as_deref(), hang_up))
        };
        Ok(Self { group, channel, watch, watchman: Some(watchman), timeout })
    }

    /// Does what waits for the process, and is watched over meanwhile.
    pub fn waiting<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let watch = Arc::clone(&self.watch);
        watch.exchanges.fetch_add(1, Ordering::Relaxed);
        let done = work(self);
        watch.exchanges.fetch_add(1, Ordering::Relaxed);
        done
    }

    /// Ends the process after an answer has failed to come in this way, and returns why it did.
    pub fn failure(&mut self, kind: ErrorKind) -> Failure {
        if kind == ErrorKind::InvalidData {
            lock(&self.group).kill();
            return Failure::Problem(
                "what its process wrote is no answer; keep its standard output free until it has begun".into(),
            );
        }
        let status = self.end();
        if self.watch.abandoned.load(Ordering::Relaxed) {
            return Failure::Abandoned;
        }
        if self.watch.overdue.load(Ordering::Relaxed) {
            let starting = self.watch.exchanges.load(Ordering::Relaxed) <= 2;
            let times = if starting { TIMES_TO_START } else { 1 };
            let seconds = (self.timeout * times).as_secs_f64();
            return Failure::Problem(format!(
                "it has not answered for {seconds} s (--env-timeout says how long it may take)"
            ));
        }
        Failure::Problem(match status {
            Some(status) if status.code() == Some(TOO_OLD) => {
                "its Python is older than 3.9; name a newer one with --python".into()
            }
            Some(status) => format!("its process ended ({status})"),
            None => "its process does not answer any more".into(),
        })
    }

    /// Ends the process: asks it to by closing its requests, and kills it if it has not closed the environment in time.
    fn end(&mut self) -> Option<ExitStatus> {
        self.channel.close();
        let asked = Instant::now();
        while asked.elapsed() < self.timeout + PATIENCE {
            match lock(&self.group).try_wait() {
                Ok(None) => {}
                ended => return ended.ok().flatten(),
            }
            thread::sleep(Duration::from_millis(1));
        }
        lock(&self.group).kill();
        None
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
    /// Kills the process when an answer is overdue, or when it is abandoned. What is counted are looks and not time, so that an
    /// answer is not taken for overdue after both processes have been stopped for a while.
    fn keep(&self, group: &Mutex<Group>, timeout: Duration, abandon: Option<&AtomicBool>, hang_up: impl FnOnce()) {
        let (mut last, mut looks) = (0, 0);
        let looks_in_time = LOOKS.max((timeout.as_secs_f64() / LOOK.as_secs_f64()).ceil().min(1e8) as u32);
        while !self.over.load(Ordering::Relaxed) {
            thread::park_timeout(timeout / looks_in_time);
            let exchange = self.exchanges.load(Ordering::Relaxed);
            let waits = exchange % 2 == 1 && exchange == last;
            (last, looks) = (exchange, if waits { looks + 1 } else { 0 });
            let times = if exchange == 1 { TIMES_TO_START } else { 1 };
            let abandoned = abandon.is_some_and(|abandon| abandon.load(Ordering::Relaxed));
            if abandoned || looks >= looks_in_time * times {
                // One that has ended by itself, and is only reaped late, has not been killed.
                self.abandoned.store(abandoned, Ordering::Relaxed);
                self.overdue.store(!abandoned, Ordering::Relaxed);
                lock(group).kill();
                hang_up();
                return;
            }
        }
    }
}

fn lock(group: &Mutex<Group>) -> MutexGuard<'_, Group> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}
