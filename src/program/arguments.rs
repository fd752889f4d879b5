//! Values that options have, and the options that several commands have in common.

use clap::Args;
use soft_actor_critic::config::FirstUpdate;
use soft_actor_critic::env;
use std::path::PathBuf;

/// A whole number as people type it: 1000000, 1_000_000 or 1e6.
pub fn count<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let digits = text.trim().replace('_', "");
    let whole = |value: f64| value.fract() == 0.0 && (0.0..9e15).contains(&value);
    let number = digits.parse().ok().or_else(|| Some(digits.parse::<f64>().ok().filter(|&value| whole(value))? as u64));
    let is_large = digits.parse::<f64>().is_ok_and(|value| value > 1e15 && value.is_finite());
    let problem = if is_large { "it is too large" } else { "it is not a whole number, as in 1000000 or 1e6" };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| problem.into())
}

/// The step of the first update: auto, or a whole number.
pub fn first_update(text: &str) -> Result<FirstUpdate, String> {
    if text == "auto" { Ok(FirstUpdate::Auto) } else { count(text).map(FirstUpdate::Fixed) }
}

/// A whole number that is at least 1.
pub fn positive(text: &str) -> Result<u64, String> {
    count(text).and_then(|number| if number > 0 { Ok(number) } else { Err("it must be at least 1".into()) })
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = positive(text)?;
    if seconds <= 1_000_000 { Ok(seconds) } else { Err("it must be at most 1000000".into()) }
}

/// What an environment of Gymnasium is made with.
#[derive(Args, Debug)]
pub struct EnvArgs {
    /// An argument that gym:ID is made with. Its value is read as JSON or as Python (2, true, None, (1, 2)), any other
    /// is a text. Can be given several times
    #[arg(long = "env-arg", value_name = "KEY=VALUE", value_parser = key_and_value, help_heading = "Gymnasium")]
    pub env_args: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("it is not of the form KEY=VALUE".into()),
    }
}

/// What the files of a run may make Python do.
#[derive(Args, Debug)]
pub struct TrustArgs {
    /// Import the Python modules that the files name, and make environments with their arguments, though you have not
    /// named them in this directory before: only for files that you trust as a program that you run
    #[arg(long, help_heading = "Gymnasium")]
    pub trust: bool,
}

/// The Python that an environment of Gymnasium runs in.
#[derive(Args, Debug)]
pub struct PythonArgs {
    /// The interpreter that has Gymnasium and gym:ID [default: the active virtual environment's, else python3 on the
    /// path]
    #[arg(long, value_name = "PATH", help_heading = "Gymnasium")]
    pub python: Option<PathBuf>,
    /// How long a step or a reset of gym:ID may take; to be made, it may take five times as long [default: 60]
    #[arg(
        long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds, help_heading = "Gymnasium"
    )]
    pub env_timeout: Option<u64>,
}

impl PythonArgs {
    /// Refuses options that mean nothing to any of these environments.
    pub fn check<'a>(&self, environments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
        let mut environments = environments.into_iter();
        let given = self.python.is_some() || self.env_timeout.is_some();
        match environments.next() {
            Some(name)
                if given && env::gym_id(name).is_none() && !environments.any(|name| env::gym_id(name).is_some()) =>
            {
                anyhow::bail!("{name} needs no Python; leave out --python and --env-timeout")
            }
            _ => Ok(()),
        }
    }
}
