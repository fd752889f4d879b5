//! The commands of the program, and the order of its help.

use crate::program::arguments::{EnvArgs, PythonArgs};
use crate::program::commands::{
    compare::CompareArgs, eval::EvalArgs, export::ExportArgs, plot::PlotArgs, presets::PresetsArgs, render::RenderArgs,
    resume::ResumeArgs, runs::RunsArgs, train::TrainArgs,
};
use clap::{Parser, Subcommand};

/// Soft Actor-Critic: train an agent on an environment, and evaluate it.
#[derive(Debug, Parser)]
#[command(name = "sac", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(
    override_usage = concat!(
        "sac ENVIRONMENT [OPTIONS]\n",
        "       sac eval DIR [OPTIONS]\n",
        "       sac resume DIR [OPTIONS]\n",
        "       sac render DIR [OPTIONS]\n",
        "       sac export DIR --format FORMAT [OPTIONS]\n",
        "       sac runs [DIR]\n",
        "       sac plot DIR... [OPTIONS]\n",
        "       sac compare DIR... [OPTIONS]\n",
        "       sac presets [NAME]"
    )
)]
#[command(after_help = "Environments: pendulum, mountain-car, and gym:ID for every one of Gymnasium with a Box of \
                  observations and of actions, as in gym:HalfCheetah-v5, or gym:MODULE:ID to import what registers it \
                  first")]
pub struct Cli {
    /// What to do instead of training.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to train.
    #[command(flatten)]
    pub train: Option<TrainArgs>,
    // These are not within the options above, because no options within options can be left out.
    /// What the environment is made with.
    #[command(flatten)]
    pub env_args: EnvArgs,
    /// What Python it runs in.
    #[command(flatten)]
    pub python: PythonArgs,
}

/// What the program does besides training.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Evaluate the policy of a run
    Eval(EvalArgs),
    /// Go on with a run that was interrupted, as if it had not been
    Resume(ResumeArgs),
    /// Film an episode of the policy of a run, as an animated GIF
    Render(RenderArgs),
    /// Write the policy of a run in a form that runs elsewhere
    Export(ExportArgs),
    /// List runs: steps, best and last return, and whether they are finished
    Runs(RunsArgs),
    /// Draw the learning curve and the losses of a run, or several runs in one picture
    Plot(PlotArgs),
    /// Compare groups of runs: means, interquartile means and their 95 % intervals
    Compare(CompareArgs),
    /// List the presets, or print one as TOML
    Presets(PresetsArgs),
}
