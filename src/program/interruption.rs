//! What happens when the user interrupts: Ctrl-C, or SIGINT, SIGTERM and SIGHUP.
//!
//! The first time, everything stops at the next step of an environment and is saved. The second time, nothing waits for
//! an environment any more, and everything is saved as well. The third time, the program ends at once, and the last
//! checkpoint stays. As long as there is nothing to save, the first time ends the program.

use anyhow::Result;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The exit code of what was interrupted.
pub const EXIT_CODE: u8 = 130;

/// Signals are sent to the whole process, so that it has one of these.
static ASKED: AtomicBool = AtomicBool::new(false);
static ABANDON: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static COURSE: Mutex<Course> = Mutex::new(Course { times: 0, has_begun: false, say: None });

/// What an interruption has to know of the command.
struct Course {
    times: u32,
    has_begun: bool,
    say: Option<Say>,
}

/// Prints a line for the user.
type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// How long an interruption waits until its line is printed. Whoever reads it may have stopped to.
const PATIENCE: Duration = Duration::from_millis(100);

/// Heeds interruptions from now on.
pub fn catch() -> Result<()> {
    Ok(ctrlc::set_handler(interrupt)?)
}

/// From now on there is something to save, or to print. What an interruption does is printed with `say`.
pub fn begin(say: impl Fn(&str) + Send + Sync + 'static) {
    let mut course = course();
    course.has_begun = true;
    course.say = Some(Arc::new(say));
}

/// Whether the user has interrupted.
pub fn is_asked_for() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// What becomes true when environments are no longer to be waited for.
pub fn abandon() -> Arc<AtomicBool> {
    Arc::clone(&ABANDON)
}

fn course() -> MutexGuard<'static, Course> {
    COURSE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn interrupt() {
    let mut course = course();
    course.times += 1;
    if !course.has_begun || course.times > 2 {
        // While this has the course, nothing begins.
        exit(EXIT_CODE.into());
    }
    let (line, flag) = if course.times == 1 {
        (
            "interrupted: stopping at the next step of the environment; interrupt again to stop without waiting for it",
            &ASKED,
        )
    } else {
        ("interrupted again: not waiting for the environment; a third time ends the program at once", &**ABANDON)
    };
    let say = course.say.clone();
    drop(course);
    if let Some(say) = say {
        let (said, wait) = channel();
        thread::spawn(move || {
            say(line);
            let _ = said.send(());
        });
        // So that what the interruption leads to is printed after it.
        let _ = wait.recv_timeout(PATIENCE);
    }
    flag.store(true, Ordering::Relaxed);
}
