//! The program `sac`: parses its arguments, runs a command, and prints in one line what failed.
//!
//! Exit codes: 0 done, or nothing left to do; 1 training or an evaluation failed, or runs of a directory cannot be used
//! and the rest is done; 2 bad input and nothing written; 130 interrupted and saved, see [`program::interruption`].

mod program;

use anyhow::anyhow;
use clap::Parser;
use program::cli::{Cli, Command};
use program::failure::{Failure, Outcome, one_line};
use program::{commands, output, variables};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run().and_then(|()| output::all_is_written().map_err(Failure::work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run() -> Outcome {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => return output::print(&error.to_string()).map_err(Failure::work),
        Err(error) => return Err(Failure::Input(one_line(&error))),
    };
    variables::check().map_err(Failure::Input)?;
    match (cli.command, cli.train) {
        (Some(Command::Eval(args)), _) => commands::eval::run(&args),
        (Some(Command::Render(args)), _) => commands::render::run(&args),
        (Some(Command::Resume(args)), _) => commands::resume::run(&args),
        (Some(Command::Export(args)), _) => commands::export::run(&args),
        (Some(Command::Runs(args)), _) => commands::runs::run(&args),
        (Some(Command::Plot(args)), _) => commands::plot::run(&args),
        (Some(Command::Compare(args)), _) => commands::compare::run(&args),
        (Some(Command::Presets(args)), _) => commands::presets::run(&args),
        (None, Some(args)) => commands::train::run(&args, &cli.env_args, &cli.python),
        (None, None) => Err(Failure::Input(anyhow!("say what to train on, as in `sac pendulum`; see `sac --help`"))),
    }
}
