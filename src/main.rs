//! The program `sac`, visible in one [`run`].
//!
//! Exit codes: 0 done, 1 training or an evaluation failed, 2 bad input and nothing written, 130 interrupted and saved; a
//! second interruption ends the program at once, with the policy of the last evaluation.

mod cli;
mod progress;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use cli::{Cli, Command, EvalArgs, PresetsArgs, TrainArgs};
use progress::{Progress, print};
use soft_actor_critic::actor::{Evaluation, evaluate};
use soft_actor_critic::config::Config;
use soft_actor_critic::env::{self, MakeEnv};
use soft_actor_critic::nn::gemm;
use soft_actor_critic::presets;
use soft_actor_critic::run::{MetricsFiles, RunDirectory, config_file, policy_file};
use soft_actor_critic::train::{Trainer, with_threads};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Why the program did not end well; each is told in one line.
enum Failure {
    /// Bad input. Nothing has been written.
    Input(anyhow::Error),
    /// Something failed on the way. What a run had until then is saved.
    Work(anyhow::Error),
    /// The user interrupted. The run is saved.
    Interrupted,
}

type Outcome = std::result::Result<(), Failure>;

fn main() -> ExitCode {
    let (error, code) = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Interrupted) => return ExitCode::from(130),
        Err(Failure::Work(error)) => (error, 1),
        Err(Failure::Input(error)) => (error, 2),
    };
    progress::print_error(&format!("{error:#}"));
    ExitCode::from(code)
}

fn run() -> Outcome {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => return print(&error.to_string()).map_err(Failure::Work),
        Err(error) => return Err(Failure::Input(one_line(&error))),
    };
    if let Some(choice) = std::env::var_os("SAC_GEMM")
        && !gemm::CHOICES.iter().any(|&known| choice == known)
    {
        return Err(Failure::Input(anyhow!("SAC_GEMM is {choice:?}; unset it, or say {}", gemm::CHOICES.join(", "))));
    }
    match (cli.command, cli.train) {
        (Some(Command::Eval(args)), _) => eval(&args),
        (Some(Command::Presets(args)), _) => list_presets(&args),
        (None, Some(args)) => train(&args),
        (None, None) => Err(Failure::Input(anyhow!("say what to train on, as in `sac pendulum`; see `sac --help`"))),
    }
}

/// `sac ENVIRONMENT`
fn train(args: &TrainArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let make_env = make_environment(&args.environment)?;
        let mut config = match (&args.config, &args.preset) {
            (Some(path), _) => config_file::read(path, &args.environment)?,
            (None, Some(name)) => config_file::parse(find_preset(name)?, &args.environment)?,
            (None, None) => Config::default(),
        };
        args.apply(&mut config);
        config.validate()?;
        if let Some(target) = args.until_return {
            anyhow::ensure!(!target.is_nan(), "--until-return is NaN; give it a number");
            anyhow::ensure!(config.eval_every > 0, "--until-return needs evaluations; raise --eval-every above 0");
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        ctrlc::set_handler(move || {
            // The second time, the user does not want to wait.
            if flag.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        })?;
        Ok((make_env, config, interrupted))
    };
    let (make_env, config, interrupted) = prepare().map_err(Failure::Input)?;
    with_threads(args.threads, || train_inside_pool(args, make_env, config, &interrupted))
        .map_err(|error| Failure::Input(error.into()))?
}

fn train_inside_pool(args: &TrainArgs, make_env: MakeEnv, config: Config, interrupted: &AtomicBool) -> Outcome {
    let mut device = None;
    let prepare = || -> Result<_> {
        let trainer = Trainer::with_learner(make_env, config, |config, observation_size, half_range| {
            let (learner, choice) = args.device.learner(config, observation_size, half_range)?;
            device = choice;
            Ok(learner)
        })?;
        let run = RunDirectory::create(args.out.as_deref(), &args.environment, trainer.config())?;
        Ok((trainer, run))
    };
    let (mut trainer, run) = prepare().map_err(Failure::Input)?;
    let save = |trainer: &mut Trainer| -> Result<()> { run.save_policy(&trainer.actor()?) };
    save(&mut trainer).map_err(Failure::Work)?;
    let mut files = MetricsFiles::create(&run).map_err(Failure::Work)?;
    let mut progress = Progress::new(args.quiet, &args.environment, run.path(), trainer.config());
    device.into_iter().for_each(|choice| progress.say(&choice));
    let started = Instant::now();
    let ended = training_loop(args, &mut trainer, &run, &mut files, &mut progress, started, interrupted);
    progress.close();

    let (steps, seconds) = (trainer.steps(), started.elapsed().as_secs_f64());
    let mut policy_is_lost = false;
    if !matches!(ended, Ok(End::Evaluated(_))) {
        // Cut short: what was learned and measured since the last evaluation is kept as well, unless what failed is the
        // device that has it.
        let saved = save(&mut trainer);
        files.write_rest(steps, started.elapsed(), trainer.last_metrics()).map_err(Failure::Work)?;
        policy_is_lost = saved.is_err();
        if ended.is_ok() {
            saved.map_err(Failure::Work)?;
        }
    }
    let path = run.path().display();
    let evaluation = match ended {
        Ok(End::Evaluated(evaluation)) => Some(evaluation),
        Ok(End::NotEvaluated) => None,
        Ok(End::Interrupted) => {
            progress.say(&format!("interrupted at step {steps}; the run is saved: sac eval {path}"));
            return Err(Failure::Interrupted);
        }
        Err(error) => {
            let policy = if policy_is_lost { ", its policy that of the last evaluation" } else { "" };
            let context = format!("training stopped, {path} holds the run until then{policy}");
            return Err(Failure::Work(error.context(context)));
        }
    };
    progress.say(&format!("{steps} steps in {seconds:.1} s"));
    if let Some(evaluation) = evaluation {
        progress.say(&format!("deterministic policy: {}", progress::describe(&evaluation)));
        if let Some(target) = args.until_return {
            let verdict = if evaluation.mean() >= target { "reached" } else { "not reached" };
            progress.say(&format!("return {target} {verdict} after {steps} steps and {seconds:.1} s"));
        }
    }
    progress.say(&format!("saved; evaluate it further with: sac eval {path}"));
    Ok(())
}

/// `sac presets`
fn list_presets(args: &PresetsArgs) -> Outcome {
    let text = match &args.name {
        Some(name) => find_preset(name).map_err(Failure::Input)?.to_string(),
        None => presets::PRESETS.map(|(name, text)| format!("{name:14}{}\n", presets::summary(text))).concat(),
    };
    print(&text).map_err(Failure::Work)
}

fn find_preset(name: &str) -> Result<&'static str> {
    let known = || presets::PRESETS.map(|(name, _)| name).join(", ");
    presets::preset(name).with_context(|| format!("there is no preset {name:?}; known are {}", known()))
}

/// How training ended when nothing failed.
enum End {
    /// With an evaluation at the last step.
    Evaluated(Evaluation),
    /// With no evaluation at the last step.
    NotEvaluated,
    /// By the user.
    Interrupted,
}

fn training_loop(
    args: &TrainArgs,
    trainer: &mut Trainer,
    run: &RunDirectory,
    files: &mut MetricsFiles,
    progress: &mut Progress,
    started: Instant,
    interrupted: &AtomicBool,
) -> Result<End> {
    loop {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(End::Interrupted);
        }
        let episode = trainer.step()?;
        if trainer.evaluation_is_due() {
            // An evaluation can be long, and what was learned must not depend on its end.
            run.save_policy(&trainer.actor()?)?;
        }
        let evaluation = trainer.evaluate_if_due()?;
        if episode.is_some() || evaluation.is_some() {
            let elapsed = started.elapsed();
            let means = files.write(trainer.steps(), elapsed, episode, evaluation.as_ref(), trainer.metrics()?)?;
            progress.row(trainer.steps(), episode, evaluation.as_ref(), means);
        }
        progress.step(trainer.steps());
        let reached = |evaluation: &Evaluation| args.until_return.is_some_and(|target| evaluation.mean() >= target);
        if let Some(evaluation) = evaluation {
            if trainer.is_finished() || reached(&evaluation) {
                return Ok(End::Evaluated(evaluation));
            }
        } else if trainer.is_finished() {
            return Ok(End::NotEvaluated);
        }
    }
}

/// `sac eval`
fn eval(args: &EvalArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let path = if args.path.is_dir() { args.path.join(policy_file::NAME) } else { args.path.clone() };
        let (environment, actor) = policy_file::load(&path)?;
        let env = make_environment(&environment)?();
        actor.fits(&*env)?;
        Ok((actor, env))
    };
    let (mut actor, mut env) = prepare().map_err(Failure::Input)?;
    let mut work = || -> Result<()> {
        let evaluation = evaluate(&mut actor, &mut *env, args.seed, args.episodes, args.stochastic)?;
        if args.json {
            let json = serde_json::json!({
                "episodes": args.episodes,
                "mean_return": evaluation.mean(),
                "std_return": evaluation.std(),
                "min_return": evaluation.min(),
                "max_return": evaluation.max(),
                "returns": evaluation.returns,
            });
            print(&format!("{json}\n"))
        } else {
            print(&format!("{}\n", progress::describe(&evaluation)))
        }
    };
    work().map_err(Failure::Work)
}

fn make_environment(name: &str) -> Result<MakeEnv> {
    let known = || env::BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    env::built_in(name).with_context(|| format!("there is no environment {name:?}; there are: {}", known()))
}

/// The first line of what clap has to say, which names the argument and what is wrong with it.
fn one_line(error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    anyhow!("{}; see sac --help", lines.join(" ").trim_start_matches("error: "))
}
