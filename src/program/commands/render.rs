//! `sac render`: a film of an episode.

use crate::program::arguments::{EnvArgs, PythonArgs, TrustArgs, count};
use crate::program::failure::{Failure, Outcome};
use crate::program::interruption;
use crate::program::output::{print, taken, write_line, write_new};
use crate::program::policy::{Chosen, environment_of, policy_path};
use crate::program::progress::Watcher;
use anyhow::Result;
use clap::Args;
use soft_actor_critic::actor::{EvaluationProgress, UNSEEN};
use soft_actor_critic::env;
use soft_actor_critic::error::Error;
use soft_actor_critic::picture::{self, Film};
use soft_actor_critic::run::policy_file;
use soft_actor_critic::train::Activity;
use std::path::PathBuf;

/// `sac render`
#[derive(Args, Debug)]
pub struct RenderArgs {
    /// The run directory, or a policy file
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// The policy of the best evaluation, which a run with --keep-best has kept, instead of the last one
    #[arg(long)]
    pub best: bool,
    /// The file to write, which must not be there [default: ENVIRONMENT.gif]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Seed of the start state, and of the noise: that of the first episode of `sac eval` [default: 2^63, as there]
    #[arg(long, value_name = "N", default_value_t = UNSEEN, hide_default_value = true, value_parser = count::<u64>)]
    pub seed: u64,
    /// Sample actions instead of taking the deterministic ones
    #[arg(long)]
    pub stochastic: bool,
    /// Steps of the environment shown in a second, from 1 to 50
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub fps: u16,
    /// Width of the picture, from 64 to 2048; its height is larger by what the numbers and actions need
    #[arg(long, value_name = "PIXELS", default_value_t = 400, value_parser = clap::value_parser!(u16).range(64..=2048))]
    pub size: u16,
    /// The environment to act in [default: the one that the file names, whose module is imported only if you have named
    /// it in this directory before]
    #[arg(long, value_name = "ENVIRONMENT")]
    pub env: Option<String>,
    /// What the files may make Python do.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What the environment is made with, besides what the run says.
    #[command(flatten)]
    pub env_args: EnvArgs,
    /// What Python it runs in.
    #[command(flatten)]
    pub python: PythonArgs,
}

/// `sac render`
pub fn run(args: &RenderArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let (environment, actor) = policy_file::load(&policy_path(&args.path, args.best)?)?;
        let out = args.out.clone().unwrap_or_else(|| format!("{}.gif", env::file_name(&environment)).into());
        // An episode takes its time.
        anyhow::ensure!(!out.exists(), taken(&out));
        let chosen = Chosen {
            path: &args.path,
            env: args.env.as_deref(),
            env_args: &args.env_args,
            trust: &args.trust,
            python: &args.python,
        };
        let env = environment_of(&environment, &actor, chosen, true)?;
        Ok((actor, env, out))
    };
    interruption::catch().map_err(Failure::input)?;
    let (mut actor, mut env, out) = prepare().map_err(Failure::input)?;
    interruption::begin(write_line);
    let film = Film { seed: args.seed, stochastic: args.stochastic, fps: args.fps, width: args.size };
    let mut watcher = Watcher::new(write_line);
    let gif = picture::record(&mut actor, &mut *env, film, |frames| {
        watcher.watch(Activity::Evaluation(EvaluationProgress { episodes: 1, returns: &[], steps: frames }))
    });
    if gif == Err(Error::Interrupted) {
        write_line("interrupted; nothing is written");
    }
    let gif = gif.map_err(Failure::work)?;
    write_new(&out, &gif).map_err(Failure::input)?;
    print(&format!("{}\n", out.display())).map_err(Failure::work)
}
