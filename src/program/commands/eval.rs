//! `sac eval`: the returns of a policy.

use crate::program::arguments::{EnvArgs, PythonArgs, TrustArgs, count, positive};
use crate::program::failure::{Failure, Outcome};
use crate::program::interruption;
use crate::program::output::{describe, print, to_json, write_line};
use crate::program::policy::{Chosen, environment_of, policy_path};
use crate::program::progress::Watcher;
use anyhow::Result;
use clap::Args;
use soft_actor_critic::actor::{Evaluation, EvaluationProgress, UNSEEN, evaluate_watched};
use soft_actor_critic::env::Info;
use soft_actor_critic::error::Error;
use soft_actor_critic::run::policy_file;
use soft_actor_critic::train::Activity;
use std::path::PathBuf;

/// `sac eval`
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// The run directory, or a policy file
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// The policy of the best evaluation, which a run with --keep-best has kept, instead of the last one
    #[arg(long)]
    pub best: bool,
    /// Episodes to run
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    pub episodes: u64,
    /// Seed of the start states, and of the noise. That of the run repeats the evaluations of its training [default:
    /// 2^63, the seed of no run, so that the policy is not judged by the episodes that --keep-best has chosen it by]
    #[arg(long, value_name = "N", default_value_t = UNSEEN, hide_default_value = true, value_parser = count::<u64>)]
    pub seed: u64,
    /// Sample actions instead of taking the deterministic ones
    #[arg(long)]
    pub stochastic: bool,
    /// Print JSON, with the return of every episode
    #[arg(long)]
    pub json: bool,
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

/// `sac eval`
pub fn run(args: &EvalArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let (environment, actor) = policy_file::load(&policy_path(&args.path, args.best)?)?;
        let chosen = Chosen {
            path: &args.path,
            env: args.env.as_deref(),
            env_args: &args.env_args,
            trust: &args.trust,
            python: &args.python,
        };
        let env = environment_of(&environment, &actor, chosen, false)?;
        Ok((actor, env))
    };
    interruption::catch().map_err(Failure::input)?;
    let (mut actor, mut env) = prepare().map_err(Failure::input)?;
    interruption::begin(write_line);
    let mut watcher = Watcher::new(write_line);
    let mut ended = Vec::new();
    let watch = |progress: EvaluationProgress| {
        ended.clear();
        ended.extend_from_slice(progress.returns);
        watcher.watch(Activity::Evaluation(progress))
    };
    let evaluation = evaluate_watched(&mut actor, &mut *env, args.seed, args.episodes, args.stochastic, watch);
    if evaluation == Err(Error::Interrupted) {
        let (of, ended) = (args.episodes, Evaluation { returns: ended, info: Info::NONE });
        let so_far = if ended.returns.is_empty() { String::new() } else { format!(": {}", describe(&ended)) };
        write_line(&format!("interrupted after {} of {of} episodes{so_far}", ended.returns.len()));
    }
    let evaluation = evaluation.map_err(Failure::work)?;
    let text = if args.json { to_json(&evaluation).to_string() } else { describe(&evaluation) };
    print(&(text + "\n")).map_err(Failure::work)
}
