//! `sac compare`: groups of runs against each other.

use crate::program::failure::{Failure, Outcome};
use crate::program::output::{self, columns, print, write_picture};
use crate::program::runs::{left_out, measured_runs};
use anyhow::Result;
use clap::Args;
use serde_json::json;
use soft_actor_critic::picture::plot;
use soft_actor_critic::run::{Comparison, MeasuredRun, compare};
use soft_actor_critic::statistics::Estimate;
use std::path::PathBuf;

/// `sac compare`
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// A directory of runs that differ in their seeds alone for each group, or a run; others are compared with the
    /// first
    #[arg(value_name = "DIR", required = true)]
    pub groups: Vec<PathBuf>,
    /// Draw them into this file, which must not be there; its extension says whether it becomes an SVG or a PNG
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print JSON, with the return of every run
    #[arg(long)]
    pub json: bool,
}

/// `sac compare`
pub fn run(args: &CompareArgs) -> Outcome {
    let compare = || -> Result<_> {
        let (runs, damaged) = measured_runs(&args.groups, &[MeasuredRun::EVALUATION], "evaluation")?;
        let comparison = compare(args.groups.iter().cloned().zip(runs).collect())?;
        if let Some(out) = &args.out {
            write_picture(out, &plot::comparison(&comparison)?)?;
        }
        if args.json {
            print(&format!("{}\n", comparison_to_json(&comparison)))?;
        } else {
            let written = args.out.as_ref().map_or(String::new(), |out| format!("{}\n", out.display()));
            print(&(written + &table(&comparison)))?;
        }
        Ok(damaged)
    };
    left_out(compare().map_err(Failure::Input)?)
}

fn table(comparison: &Comparison) -> String {
    let short = |value: f64| output::short(value, 1);
    let interval =
        |Estimate { value, low, high }: Estimate| format!("{} [{}, {}]", short(value), short(low), short(high));
    let first = &comparison.groups[0];
    let mut text = String::new();
    for scores in &comparison.environments {
        let heading = format!("{} at step {}", scores.environment, scores.step);
        let names = ["runs", "mean return", "interquartile mean"].map(String::from);
        let mut rows = vec![[vec![heading], names.to_vec(), vec![format!("less {first}")]].concat()];
        for (name, scores) in comparison.groups.iter().zip(&scores.groups) {
            let Some(scores) = scores else { continue };
            let difference = scores.difference.map_or("-".into(), interval);
            let (mean, iqm) = (interval(scores.mean), interval(scores.interquartile_mean));
            rows.push(vec![name.clone(), scores.values.len().to_string(), mean, iqm, difference]);
        }
        text += &columns(&rows, 1..2);
        let (least, most) = scores.episodes();
        if least < most {
            text += &format!(
                "evaluations of {least} and of up to {most} episodes are compared: those at a run's last step \
                 have more\n"
            );
        }
        text += "\n";
    }
    for (name, estimate) in comparison.groups[1..].iter().zip(&comparison.improvement) {
        if let Some(Estimate { value, low, high }) = estimate {
            text += &format!(
                "a run of {name} is better than one of {first} with probability {value:.2} [{low:.2}, {high:.2}]\n"
            );
        }
    }
    text + "in brackets: 95 % bootstrap intervals, drawn anew within each group and environment\n"
}

fn comparison_to_json(comparison: &Comparison) -> serde_json::Value {
    let estimate = |Estimate { value, low, high }: Estimate| json!({ "value": value, "low": low, "high": high });
    let environments = comparison.environments.iter().flat_map(|environment| {
        comparison.groups.iter().zip(&environment.groups).filter_map(move |(name, scores)| {
            let scores = scores.as_ref()?;
            Some(json!({
                "environment": environment.environment, "step": environment.step, "group": name,
                "seeds": scores.runs.iter().map(|run| run.config().seed).collect::<Vec<_>>(),
                "returns": scores.values, "episodes": scores.episodes, "mean": estimate(scores.mean),
                "interquartile_mean": estimate(scores.interquartile_mean),
                "difference": scores.difference.map(estimate),
            }))
        })
    });
    let improvement = comparison.groups[1..].iter().zip(&comparison.improvement);
    let improvement = improvement.map(|(name, value)| json!({ "group": name, "probability": value.map(estimate) }));
    json!({
        "scores": environments.collect::<Vec<_>>(), "improvement": improvement.collect::<Vec<_>>(),
    })
}
