//! What can go wrong with data from outside. Mistakes in shapes inside the program are assertions.

use std::fmt;

/// An error of the core, worded as one line that names the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A hyper-parameter, or a combination of them, that makes no sense.
    Config(String),
    /// An environment that cannot be made.
    NoEnvironment(String),
    /// An environment failed, or returned what it must not.
    Environment {
        /// Steps taken so far in training.
        step: u64,
        /// What went wrong.
        problem: String,
    },
    /// An episode of an evaluation failed: its environment, or the policy in it.
    Evaluation {
        /// Which episode of the evaluation, counted from 1.
        episode: u64,
        /// Steps taken so far in that episode.
        step: u64,
        /// What went wrong, and what to do about it.
        problem: String,
    },
    /// What was being done was stopped before its end, as whoever started it had asked for.
    Interrupted,
    /// A policy that was made for another environment.
    Policy(String),
    /// A run whose environment had other sizes or other action bounds than the one it is to go on in.
    OtherEnvironment(String),
    /// A quantity of the learner stopped being a finite number.
    NonFinite {
        /// Environment steps taken so far.
        step: u64,
        /// Which quantity it was.
        quantity: &'static str,
        /// What is likely to help.
        advice: String,
    },
    /// The replay memory does not fit.
    Memory {
        /// The capacity that was asked for.
        transitions: usize,
    },
    /// More threads than there can be.
    Threads {
        /// The number that was asked for.
        threads: usize,
    },
    /// A GPU that is not there, or that fails.
    Device(String),
    /// A snapshot that does not fit the learner it is restored into.
    Snapshot(String),
    /// A file or a directory that the system does not let be read or written.
    Io {
        /// What the system says.
        kind: std::io::ErrorKind,
        /// What was to be done.
        problem: String,
    },
    /// What is in files, or is to be put into them: damaged, of another version, of another run or of something else, already
    /// there, impossible to draw.
    Files(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Config(problem) | Self::NoEnvironment(problem) | Self::Io { problem, .. } | Self::Files(problem) => {
                f.write_str(problem)
            }
            Self::Environment { step, problem } => {
                write!(f, "the environment failed at step {step}: {problem}; mend the environment")
            }
            Self::Evaluation { episode, step, problem } => {
                write!(f, "episode {episode} of the evaluation failed at its step {step}: {problem}")
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::Policy(problem) => {
                write!(f, "the policy does not fit the environment: {problem}; give another policy")
            }
            Self::OtherEnvironment(problem) => {
                write!(
                    f,
                    "the run does not fit the environment: {problem}; change the environment back, or begin a new run"
                )
            }
            Self::NonFinite { step, quantity, advice } => {
                write!(f, "the {quantity} is no longer finite at step {step}; {advice}")
            }
            Self::Memory { transitions } => {
                write!(f, "a replay memory of {transitions} transitions does not fit; lower replay_capacity (--replay)")
            }
            Self::Threads { threads } => {
                write!(f, "{threads} threads cannot be started; lower the number (--threads), at most 256")
            }
            Self::Device(problem) => write!(f, "the GPU cannot be used: {problem}"),
            Self::Snapshot(problem) => write!(f, "the snapshot does not fit this learner: {problem}"),
        }
    }
}

impl std::error::Error for Error {}

/// What happens on the way to files is told with its circumstances; here it becomes one of the errors above. Those that are
/// not about files, or configurations in them, stay what they are.
#[cfg(feature = "program")]
impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        let problem = format!("{error:#}");
        let system = || error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
        match error.downcast_ref() {
            Some(&Self::Io { kind, .. }) => Self::Io { kind, problem },
            Some(Self::Config(_)) => Self::Config(problem),
            Some(Self::Files(_)) => Self::Files(problem),
            Some(other) => other.clone(),
            None => match system() {
                Some(cause) => Self::Io { kind: cause.kind(), problem },
                None => Self::Files(problem),
            },
        }
    }
}

#[cfg(all(test, feature = "program"))]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn what_is_told_on_the_way_is_kept_with_the_kind() {
        let through = |error: anyhow::Error| Error::from(error.context("b").context("a"));
        let missing = || std::io::Error::new(ErrorKind::NotFound, "c");
        assert_eq!(through(missing().into()), Error::Io { kind: ErrorKind::NotFound, problem: "a: b: c".into() });
        let typed = Error::from(anyhow::Error::from(missing()));
        assert_eq!(through(typed.into()), Error::Io { kind: ErrorKind::NotFound, problem: "a: b: c".into() });
        assert_eq!(through(Error::Files("c".into()).into()).to_string(), "a: b: c");
        assert_eq!(through(anyhow::anyhow!("c")), Error::Files("a: b: c".into()));
        let device = Error::Device("c".into());
        assert_eq!(through(device.clone().into()), device);
    }
}
