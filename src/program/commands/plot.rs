//! `sac plot`: learning curves as a picture.

use crate::program::failure::{Failure, Outcome};
use crate::program::output::{print, write_line, write_picture};
use crate::program::runs::{left_out, measured_runs};
use anyhow::Result;
use clap::Args;
use soft_actor_critic::picture::plot;
use soft_actor_critic::run::MeasuredRun;
use std::path::PathBuf;

/// `sac plot`
#[derive(Args, Debug)]
pub struct PlotArgs {
    /// Run directories, or directories that hold them; runs that differ in their seeds alone become one curve
    #[arg(value_name = "DIR", required = true)]
    pub paths: Vec<PathBuf>,
    /// The file to write, which must not be there; its extension says whether it becomes an SVG or a PNG
    #[arg(short, long, value_name = "FILE", default_value = "plot.svg")]
    pub out: PathBuf,
}

/// `sac plot`
pub fn run(args: &PlotArgs) -> Outcome {
    let draw = || -> Result<_> {
        let columns = [MeasuredRun::EVALUATION, MeasuredRun::EPISODE];
        let (runs, damaged) = measured_runs(&args.paths, &columns, "return to draw")?;
        let runs = runs.concat();
        let (svg, without) =
            if let [run] = runs.as_slice() { (plot::run(run)?, Vec::new()) } else { plot::groups(&runs)? };
        for run in without {
            let path = run.directory().path().display();
            write_line(&format!("{path} shares no step with the other seeds of its group; it is left out"));
        }
        write_picture(&args.out, &svg)?;
        print(&format!("{}\n", args.out.display()))?;
        Ok(damaged)
    };
    left_out(draw().map_err(Failure::Input)?)
}
