//! Why the program did not end well, in one line, and its exit code.

use crate::program::interruption;
use crate::program::output;
use anyhow::anyhow;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use soft_actor_critic::error::Error;
use std::process::ExitCode;

/// Why the program did not end well; each is told in one line.
pub enum Failure {
    /// Bad input. Nothing has been written.
    Input(anyhow::Error),
    /// Something failed on the way. What a run had until then is saved.
    Work(anyhow::Error),
    /// The user interrupted. The run is saved.
    Interrupted,
}

impl Failure {
    /// A bad input, unless it says that the user interrupted.
    pub fn input(error: impl Into<anyhow::Error>) -> Self {
        Self::unless_interrupted(error.into(), Self::Input)
    }

    /// A failure on the way, unless it says that the user interrupted.
    pub fn work(error: impl Into<anyhow::Error>) -> Self {
        Self::unless_interrupted(error.into(), Self::Work)
    }

    /// Prints it, unless the user knows it, and says with which exit code the program ends.
    pub fn report(&self) -> ExitCode {
        let (error, code) = match self {
            Self::Interrupted => return ExitCode::from(interruption::EXIT_CODE),
            Self::Work(error) => (error, 1),
            Self::Input(error) => (error, 2),
        };
        output::print_error(&format!("{error:#}"));
        ExitCode::from(code)
    }

    fn unless_interrupted(error: anyhow::Error, failure: fn(anyhow::Error) -> Self) -> Self {
        if error.downcast_ref() == Some(&Error::Interrupted) { Self::Interrupted } else { failure(error) }
    }
}

/// How a command ends.
pub type Outcome = std::result::Result<(), Failure>;

/// What clap has to say in one line, which names the argument, what is wrong with it, and what may be meant.
pub fn one_line(error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let problem = lines.join(" ").trim_start_matches("error: ").to_string();
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(name))) => Some(name.as_str()),
        _ => None,
    };
    let ours = unknown.and_then(option_of_others).map(|ours| format!("use {ours}"));
    let similar = || text.lines().find_map(|line| Some(line.trim().strip_prefix("tip: ")?.to_string()));
    let tip = ours.or_else(similar).map_or(String::new(), |tip| format!("; {tip}"));
    anyhow!("{problem}{tip}; see sac --help")
}

/// The option for what another program calls so.
fn option_of_others(name: &str) -> Option<&'static str> {
    const OTHERS: [(&str, &str); 18] = [
        ("--batch-size", "--batch"),
        ("--batchsize", "--batch"),
        ("--learning-rate", "--lr"),
        ("--policy-lr", "--lr"),
        ("--q-lr", "--lr"),
        ("--buffer-size", "--replay"),
        ("--replay-size", "--replay"),
        ("--total-timesteps", "--steps"),
        ("--timesteps", "--steps"),
        ("--n-timesteps", "--steps"),
        ("--learning-starts", "--random-steps"),
        ("--start-steps", "--random-steps"),
        ("--gradient-steps", "--utd"),
        ("--ent-coef", "--alpha"),
        ("--num-envs", "--envs"),
        ("--n-envs", "--envs"),
        ("--net-arch", "--hidden"),
        ("--env-id", "the environment's name without an option, as in sac pendulum"),
    ];
    let name = name.split('=').next().unwrap_or(name).replace('_', "-").to_lowercase();
    OTHERS.iter().find(|(other, _)| *other == name).map(|(_, ours)| *ours)
}
