//! `sac export`: a policy in a form that runs elsewhere.

use crate::program::failure::{Failure, Outcome};
use crate::program::output::{print, write_new};
use crate::program::policy::policy_path;
use anyhow::Result;
use clap::{Args, ValueEnum};
use soft_actor_critic::export;
use soft_actor_critic::run::policy_file;
use std::path::{Path, PathBuf};

/// What `sac export` writes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// A model for onnxruntime and the like
    Onnx,
    /// The file that a run holds: weights and what they mean
    Safetensors,
    /// A module of Rust, no_std, without dependencies
    Rust,
    /// A file of C99, without headers
    C,
}

/// `sac export`
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The run directory, or a policy file
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// The policy of the best evaluation, which a run with --keep-best has kept, instead of the last one
    #[arg(long)]
    pub best: bool,
    /// The form
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Format,
    /// The file to write, which must not be there [default: policy.onnx, .safetensors, .rs or .c]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The policy that samples, with its standard normal noise as an input, instead of the deterministic one
    #[arg(long)]
    pub stochastic: bool,
}

/// `sac export`
pub fn run(args: &ExportArgs) -> Outcome {
    export(args).map_err(Failure::input)
}

fn export(args: &ExportArgs) -> Result<()> {
    let path = policy_path(&args.path, args.best)?;
    let (environment, actor, copy) = policy_file::read(&path)?;
    let is_copy = matches!(args.format, Format::Safetensors);
    anyhow::ensure!(!(is_copy && args.stochastic), "a safetensors file has both policies; leave out --stochastic");
    let (extension, bytes) = match args.format {
        Format::Onnx => ("onnx", export::to_onnx(&actor, &environment, args.stochastic)),
        Format::Safetensors => ("safetensors", copy),
        Format::Rust => ("rs", export::to_rust(&actor, &environment, args.stochastic).into_bytes()),
        Format::C => ("c", export::to_c(&actor, &environment, args.stochastic).into_bytes()),
    };
    let out = args.out.clone().unwrap_or_else(|| Path::new("policy").with_extension(extension));
    write_new(&out, &bytes)?;
    print(&format!("{}\n", out.display()))
}
