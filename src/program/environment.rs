//! Makes the environment that a command or a run names.

use crate::program::arguments::PythonArgs;
use crate::program::interruption;
use anyhow::{Context, Result};
use soft_actor_critic::env::{self, Gym};
use soft_actor_critic::session::MakeEnv;
use std::collections::BTreeMap;
use std::time::Duration;

/// How to make the environment called `name`, with what it takes, and so that it can be drawn if it `draws`.
pub fn make_environment(
    name: &str,
    arguments: &BTreeMap<String, String>,
    PythonArgs { python, env_timeout }: &PythonArgs,
    draws: bool,
) -> Result<MakeEnv> {
    if let Some(id) = env::gym_id(name) {
        let is_named = !id.is_empty() && !id.ends_with(':');
        anyhow::ensure!(is_named, "{name} names no environment; say gym:ID, as in gym:Pendulum-v1, or gym:MODULE:ID");
        let (id, arguments, python) = (id.to_string(), arguments.clone(), python.clone());
        let timeout = Duration::from_secs(env_timeout.unwrap_or(60));
        let gym = Gym { id, arguments, python, timeout, draws, abandon: Some(interruption::abandon()) };
        return Ok(Box::new(move || Ok(Box::new(gym.make()?))));
    }
    let make = env::built_in(name).with_context(|| no_environment(name))?;
    anyhow::ensure!(arguments.is_empty(), "{name} takes no arguments; leave out --env-arg, or env_args in the file");
    Ok(Box::new(move || Ok(make())))
}

/// Why there is no built-in environment of this name, and which may be meant.
fn no_environment(name: &str) -> String {
    let known: Vec<_> = env::BUILT_IN.iter().map(|(name, _)| *name).collect();
    let is_versioned = |name: &str| {
        let version = name.rsplit_once("-v").map_or("", |(_, version)| version);
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
    };
    let stem = name.rsplit_once("-v").map_or(name, |(stem, _)| stem).to_lowercase().replace('_', "-");
    let near = known.iter().map(|known| (strsim::jaro_winkler(known, &stem), known)).filter(|(near, _)| *near > 0.85);
    let near = near.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, known)| known.to_string());
    let meant: Vec<_> = near.into_iter().chain(is_versioned(name).then(|| format!("gym:{name}"))).collect();
    let meant = if meant.is_empty() { String::new() } else { format!("; is {} meant?", meant.join(" or ")) };
    let known = known.join(", ");
    match meant.as_str() {
        "" => format!("there is no environment {name:?}; there are: {known}, and gym:ID"),
        meant => format!("there is no environment {name:?}{meant} There are: {known}, and gym:ID"),
    }
}
