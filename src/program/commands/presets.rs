//! `sac presets`: the presets that `--preset` takes.

use crate::program::failure::{Failure, Outcome};
use crate::program::output::print;
use anyhow::{Context, Result};
use clap::Args;
use soft_actor_critic::presets;

/// `sac presets`
#[derive(Args, Debug)]
pub struct PresetsArgs {
    /// The preset to print
    pub name: Option<String>,
}

/// `sac presets`
pub fn run(args: &PresetsArgs) -> Outcome {
    let text = match &args.name {
        Some(name) => find_preset(name).map_err(Failure::input)?.to_string(),
        None => presets::PRESETS.map(|(name, text)| format!("{name:14}{}\n", presets::summary(text))).concat(),
    };
    print(&text).map_err(Failure::work)
}

/// The text of the preset called `name`.
pub fn find_preset(name: &str) -> Result<&'static str> {
    let known = || presets::PRESETS.map(|(name, _)| name).join(", ");
    presets::preset(name).with_context(|| format!("there is no preset {name:?}; known are {}", known()))
}
