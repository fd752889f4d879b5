//! The policy that a command uses, and the environment that it acts in.

use crate::program::arguments::{EnvArgs, PythonArgs, TrustArgs};
use crate::program::environment::make_environment;
use crate::program::trust::{self, Named};
use anyhow::{Context, Result};
use soft_actor_critic::actor::Actor;
use soft_actor_critic::env::{self, Env};
use soft_actor_critic::run::{RunDirectory, is_run, list, policy_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The policy file of a run directory, the one of its best evaluation if that is wanted, or the file itself.
pub fn policy_path(path: &Path, best: bool) -> Result<PathBuf> {
    if path.is_dir()
        && !is_run(path)
        && let Some(run) = list(path)?.runs.first()
    {
        let (shown, run) = (path.display(), run.path.display());
        anyhow::bail!("{shown} is no run, but holds some; name one of them, as in {run}");
    }
    if !best {
        return match path.is_dir() {
            true => Ok(path.join(policy_file::NAME)),
            // The user may name a file by a link.
            false if path.is_symlink() => {
                path.canonicalize().with_context(|| format!("{} leads nowhere", path.display()))
            }
            false => Ok(path.to_path_buf()),
        };
    }
    let shown = path.display();
    anyhow::ensure!(path.is_dir(), "{shown} is no run directory; name one, or leave out --best");
    let file = path.join(policy_file::BEST);
    anyhow::ensure!(file.exists(), "{shown} has no {}; train with --keep-best, or leave out --best", policy_file::BEST);
    Ok(file)
}

/// What `sac eval` and `sac render` say of the environment to act in.
pub struct Chosen<'a> {
    pub path: &'a Path,
    pub env: Option<&'a str>,
    pub env_args: &'a EnvArgs,
    pub trust: &'a TrustArgs,
    pub python: &'a PythonArgs,
}

/// The environment for the policy of a run directory or a policy file, which calls it `named`.
pub fn environment_of(named: &str, actor: &Actor, chosen: Chosen, draws: bool) -> Result<Box<dyn Env>> {
    let Chosen { path, env, env_args: EnvArgs { env_args }, trust: TrustArgs { trust }, python } = chosen;
    let name = env.unwrap_or(named);
    // A policy alone does not say what its environment was made with.
    let is_run = name == named && env::gym_id(name).is_some() && path.is_dir();
    let mut arguments = if is_run { RunDirectory::open(path)?.1.env_args } else { BTreeMap::new() };
    arguments.extend(env_args.iter().cloned());
    let named = Named { by: path, environment: name, is_given: env.is_some(), arguments: &arguments, given: env_args };
    trust::check(&[named], *trust)?;
    python.check([name])?;
    let env = make_environment(name, &arguments, python, draws)?()?;
    actor.fits(&*env)?;
    Ok(env)
}
