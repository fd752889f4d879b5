//! `sac runs`: a table of runs.

use crate::program::failure::{Failure, Outcome};
use crate::program::output::{columns, print, print_error, short};
use crate::program::runs::left_out;
use anyhow::anyhow;
use clap::Args;
use soft_actor_critic::run::{Listing, Summary, list};
use std::path::PathBuf;

/// `sac runs`
#[derive(Args, Debug)]
pub struct RunsArgs {
    /// The directory that holds them
    #[arg(value_name = "DIR", default_value = "runs")]
    pub path: PathBuf,
}

/// `sac runs`
pub fn run(args: &RunsArgs) -> Outcome {
    let Listing { runs, damaged } = list(&args.path).map_err(Failure::input)?;
    if runs.is_empty() && damaged.is_empty() {
        let path = args.path.display();
        return Err(Failure::Input(anyhow!("{path} holds no runs; train one, or name another directory")));
    }
    let heading = ["run", "environment", "seed", "steps", "of", "best", "last", "state"].map(String::from);
    let cell = |value: Option<f64>| value.map_or("-".into(), |value| short(value, 1));
    let row = |run: &Summary| {
        let state = match run.problem {
            Some(_) => "damaged",
            None if run.is_finished(&run.config) => "finished",
            None => "unfinished",
        };
        [
            run.path.display().to_string(),
            run.environment.clone(),
            run.config.seed.to_string(),
            run.steps.to_string(),
            run.config.steps.to_string(),
            cell(run.best_and_last.map(|both| both.0)),
            cell(run.best_and_last.map(|both| both.1)),
            state.into(),
        ]
    };
    let rows: Vec<_> = std::iter::once(heading).chain(runs.iter().map(row)).collect();
    let text = columns(&rows, 2..7);
    let problems = runs.iter().filter_map(|run| run.problem.as_ref().map(|problem| (&run.path, problem)));
    let problems: Vec<_> = problems.chain(damaged.iter().map(|(path, problem)| (path, problem))).collect();
    for (path, problem) in &problems {
        print_error(&format!("{}: {problem}", path.display()));
    }
    print(&text).map_err(Failure::work)?;
    left_out(problems.len())
}
