//! The program `sac`, visible in one [`run`].
//!
//! Exit codes: 0 done, 1 training or an evaluation failed, 2 bad input and nothing written, 130 interrupted and saved; a
//! second interruption ends the program at once, with the policy of the last evaluation.

mod cli;
mod progress;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use cli::{
    Cli, Command, CompareArgs, EnvArgs, EvalArgs, ExportArgs, Format, PlotArgs, PresetsArgs, PythonArgs, RenderArgs,
    ResumeArgs, RunsArgs, TrainArgs,
};
use progress::{Progress, print};
use serde_json::json;
use soft_actor_critic::actor::{Actor, Evaluation, evaluate};
use soft_actor_critic::config::Config;
use soft_actor_critic::device::{Device, Placed};
use soft_actor_critic::env::{self, Env, Gym};
use soft_actor_critic::error::Error;
use soft_actor_critic::export;
use soft_actor_critic::nn::gemm;
use soft_actor_critic::picture::{self, Film, plot};
use soft_actor_critic::presets;
use soft_actor_critic::run::checkpoint::{Checkpoints, Loaded};
use soft_actor_critic::run::{
    Comparison, InitFrom, MeasuredRun, MetricsFiles, RunDirectory, compare, config_file, list, policy_file,
};
use soft_actor_critic::statistics::Estimate;
use soft_actor_critic::train::{Best, Trainer, threads_for, with_threads};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Why the program did not end well; each is told in one line.
enum Failure {
    /// Bad input. Nothing has been written.
    Input(anyhow::Error),
    /// Something failed on the way. What a run had until then is saved.
    Work(anyhow::Error),
    /// The user interrupted. The run is saved.
    Interrupted,
}

impl Failure {
    fn input(error: impl Into<anyhow::Error>) -> Self {
        Self::Input(error.into())
    }

    fn work(error: impl Into<anyhow::Error>) -> Self {
        Self::Work(error.into())
    }
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
        Err(error) if !error.use_stderr() => return print(&error.to_string()).map_err(Failure::work),
        Err(error) => return Err(Failure::Input(one_line(&error))),
    };
    if let Some(choice) = std::env::var_os("SAC_GEMM")
        && !gemm::choices().any(|known| choice == known)
    {
        let choices: Vec<_> = gemm::choices().collect();
        let say = choices.join(", ");
        return Err(Failure::Input(anyhow!("SAC_GEMM is {choice:?}; unset it, or say what this processor has: {say}")));
    }
    match (cli.command, cli.train) {
        (Some(Command::Eval(args)), _) => eval(&args),
        (Some(Command::Render(args)), _) => render(&args),
        (Some(Command::Resume(args)), _) => resume(&args),
        (Some(Command::Export(args)), _) => export(&args).map_err(Failure::input),
        (Some(Command::Runs(args)), _) => list_runs(&args).map_err(Failure::input),
        (Some(Command::Plot(args)), _) => plot(&args).map_err(Failure::input),
        (Some(Command::Compare(args)), _) => compare_groups(&args).map_err(Failure::input),
        (Some(Command::Presets(args)), _) => list_presets(&args),
        (None, Some(args)) => train(&args, &cli.env_args, &cli.python),
        (None, None) => Err(Failure::Input(anyhow!("say what to train on, as in `sac pendulum`; see `sac --help`"))),
    }
}

/// `sac ENVIRONMENT`
fn train(args: &TrainArgs, EnvArgs { env_args }: &EnvArgs, python: &PythonArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let mut config = match (&args.config, &args.preset) {
            (Some(path), _) => config_file::read(path, &args.environment)?,
            (None, Some(name)) => config_file::parse(find_preset(name)?, &args.environment)?,
            (None, None) => Config::default(),
        };
        args.apply(&mut config);
        config.env_args.extend(env_args.iter().cloned());
        config.validate()?;
        check_target(args.until_return, &config)?;
        let make_env = make_environment(&args.environment, &config.env_args, python, false)?;
        let init_from = args.init_from.as_deref().map(|path| InitFrom::open(path, args.with_replay)).transpose()?;
        let (make_env, threads) = number_of_threads(args.threads, make_env, &config)?;
        Ok((make_env, config, threads, init_from, catch_interruptions()?))
    };
    let (make_env, config, threads, init_from, interrupted) = prepare().map_err(Failure::input)?;
    let begin = || -> Result<_> {
        let preloaded = init_from.as_ref().map_or(0, |init_from| init_from.preloaded(&config));
        let (mut trainer, placed) = make_trainer(make_env, config, args.device, preloaded)?;
        let begun = init_from.map(|init_from| init_from.begin(&mut trainer, &args.environment)).transpose()?;
        let origin = begun.as_ref().map(|begun| begun.origin.as_str());
        let run = RunDirectory::create(args.out.as_deref(), &args.environment, trainer.config(), origin)?;
        Ok((trainer, placed, begun, run))
    };
    let work = || {
        let (mut trainer, (device, note), begun, run) = begin().map_err(Failure::input)?;
        let open = |trainer: &mut Trainer| -> Result<_> {
            run.save_policy(&trainer.actor()?)?;
            let mut files = MetricsFiles::create(&run, trainer.config())?;
            let mut checkpoints = Checkpoints::create(&run, &device.to_string(), trainer.config().checkpoint_every)?;
            checkpoints.save(trainer, &mut files)?;
            run.sync()?;
            Ok((files, checkpoints))
        };
        let (files, checkpoints) = open(&mut trainer).map_err(Failure::work)?;
        let config = trainer.config();
        let place = run.path().display();
        let mut notes = vec![format!(
            "training on {}: {} steps, seed {}, into {place}",
            args.environment, config.steps, config.seed
        )];
        notes.extend(begun.map(|begun| begun.note));
        notes.extend(note);
        let progress = Progress::new(args.quiet, args.log, config, 0, &notes);
        let until_return = args.until_return;
        Session { trainer, run, files, checkpoints, progress, until_return, interrupted: &interrupted }.go_on()
    };
    with_threads(threads, work).map_err(Failure::input)?
}

/// `sac resume`
fn resume(args: &ResumeArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let (run, mut config) = RunDirectory::open(&args.path)?;
        let make_env = make_environment(run.environment(), &config.env_args, &args.python, false)?;
        let begun_with = config.steps;
        config.steps = args.steps.unwrap_or(config.steps);
        config.validate()?;
        check_target(args.until_return, &config)?;
        let (checkpoints, loaded) = Checkpoints::open(&run, &config)?;
        let step = loaded.state.steps;
        // At the end that it was begun with it is finished; anywhere else there must be something left to do.
        let left = step < config.steps || config.steps == begun_with;
        anyhow::ensure!(
            left,
            "the run is at step {step} already, and is to have {} steps; give it more --steps",
            config.steps
        );
        let (make_env, threads) = number_of_threads(args.threads, make_env, &config)?;
        Ok((run, config, begun_with, make_env, threads, checkpoints, loaded, catch_interruptions()?))
    };
    let (run, config, begun_with, make_env, threads, mut checkpoints, loaded, interrupted) =
        prepare().map_err(Failure::input)?;
    let place = run.path().display().to_string();
    let work = || {
        let begin = || -> Result<_> {
            let Loaded { state, replay, metrics, device, warning } = loaded;
            let (step, steps) = (state.steps, config.steps);
            let trained_on: Device = device.parse().map_err(|_| anyhow!("its device {device:?} is unknown"))?;
            let device = args.device.unwrap_or(trained_on);
            let (mut trainer, (device, note)) = make_trainer(make_env, config, device, state.preloaded)?;
            let episode_goes_on = trainer.restore(state, replay)?;
            let mut notes: Vec<_> = warning.into_iter().collect();
            notes.push(format!("resuming {place} from step {step} of {steps}"));
            notes.extend(note);
            if device != trained_on {
                notes.push(format!(
                    "the run was trained on {trained_on} until here; its results are no longer those of {trained_on}"
                ));
            }
            if !episode_goes_on {
                notes.push("the environment cannot be restored; a new episode begins".into());
            }
            checkpoints.set_device(&device.to_string());
            let files = MetricsFiles::reopen(&run, trainer.config(), metrics)?;
            if trainer.config().keep_best {
                // What came after the checkpoint need not come again, on another device for instance.
                run.save_best(trainer.best_actor().as_ref())?;
            }
            if begun_with != trainer.config().steps {
                run.replace_config(trainer.config())?;
            }
            Ok((trainer, files, notes))
        };
        let (trainer, files, notes) = begin().map_err(Failure::input)?;
        let progress = Progress::new(args.quiet, args.log, trainer.config(), trainer.steps(), &notes);
        if trainer.is_finished() {
            // It may have been killed while it took away what the last checkpoint leaves behind.
            checkpoints.finish().map_err(Failure::work)?;
            tell_of_picture(plot::save_curve(&run, trainer.config()), &run, &progress);
            progress.say(&format!("it is finished; give it more --steps, or evaluate it: sac eval {place}"));
            return Ok(());
        }
        let until_return = args.until_return;
        Session { trainer, run, files, checkpoints, progress, until_return, interrupted: &interrupted }.go_on()
    };
    with_threads(threads, work).map_err(Failure::input)?
}

/// The number of threads for a run. That takes an environment, which is then the first to be made.
fn number_of_threads(most: usize, mut make_env: MakeEnv, config: &Config) -> Result<(MakeEnv, usize)> {
    let env = make_env()?;
    let threads = threads_for(config, env.observation_size(), env.action_bounds().dimensions(), most)?;
    let mut first = Some(env);
    Ok((Box::new(move || first.take().map_or_else(&mut make_env, Ok)), threads))
}

fn check_target(until_return: Option<f64>, config: &Config) -> Result<()> {
    if let Some(target) = until_return {
        anyhow::ensure!(!target.is_nan(), "--until-return is NaN; give it a number");
        anyhow::ensure!(config.eval_every > 0, "--until-return needs evaluations; raise --eval-every above 0");
    }
    Ok(())
}

/// What becomes true when the user interrupts.
fn catch_interruptions() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || {
        // The second time, the user does not want to wait.
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    Ok(interrupted)
}

/// A trainer before its first step, whose replay memory will begin with so many transitions; where it trains, and what
/// there is to tell about that.
fn make_trainer(
    make_env: MakeEnv,
    config: Config,
    device: Device,
    preloaded: u64,
) -> Result<(Trainer, (Device, Option<String>))> {
    let mut place = None;
    let trainer = Trainer::with_learner(make_env, config, |config, observation_size, half_range| {
        // A learner's memory has room for a transition for each step, and for those besides.
        let steps = config.steps.next_multiple_of(config.envs as u64).saturating_add(preloaded);
        let config = &Config { steps, ..config.clone() };
        let Placed { learner, device, note } = device.learner(config, observation_size, half_range)?;
        place = Some((device, note));
        Ok(learner)
    })?;
    Ok((trainer, place.expect("a trainer has a learner")))
}

/// Without the picture in its directory nothing of a run is lost, so that a failure is told and no more.
fn tell_of_picture(drawn: Result<(), Error>, run: &RunDirectory, progress: &Progress) {
    if let Err(error) = drawn {
        let path = run.path().display();
        progress.say(&format!("{error}; the run itself is saved, draw it elsewhere with: sac plot {path}"));
    }
}

/// How training ended when what has been learned is whole.
enum End {
    /// With an evaluation at the last step.
    Evaluated(Evaluation),
    /// With no evaluation at the last step.
    NotEvaluated,
    /// By the user.
    Interrupted,
    /// By the environment, between two steps.
    EnvironmentFailed(Error),
}

/// A run that is being trained.
struct Session<'a> {
    trainer: Trainer,
    run: RunDirectory,
    files: MetricsFiles,
    checkpoints: Checkpoints,
    progress: Progress,
    until_return: Option<f64>,
    interrupted: &'a AtomicBool,
}

impl Session<'_> {
    /// Trains to the end, and leaves the run as it then is.
    fn go_on(mut self) -> Outcome {
        let started = Instant::now();
        let Config { steps, seed, .. } = *self.trainer.config();
        let (run, environment, step) = (self.run.path(), self.run.environment(), self.trainer.steps());
        self.progress.event(&json!({
            "event": "begin", "run": run, "environment": environment, "seed": seed, "step": step, "steps": steps,
        }));
        let ended = self.train(started);
        self.progress.close();

        let (steps, elapsed) = (self.trainer.steps(), started.elapsed());
        let mut policy_is_lost = false;
        if !matches!(ended, Ok(End::Evaluated(_))) {
            // Cut short: what was learned and measured since the last evaluation is kept as well, unless what failed is
            // the device that has it.
            let saved = self.save_policy();
            policy_is_lost = saved.is_err();
            let between_steps = matches!(ended, Ok(End::Interrupted | End::EnvironmentFailed(_)));
            let checkpointed = if between_steps { self.checkpoint() } else { Ok(()) };
            let written = self.files.write_rest(steps, elapsed, self.trainer.last_metrics());
            if let Ok(Some(row)) = &written {
                self.progress.row(row);
            }
            if ended.is_ok() {
                saved.and(checkpointed).and(written.map(drop)).map_err(Failure::work)?;
            }
        }
        let seconds = self.files.since_the_beginning(elapsed).as_secs_f64();
        let (progress, config) = (&self.progress, self.trainer.config().clone());
        let end = |status: &str, evaluation: Option<&Evaluation>| {
            let drawn = plot::save_curve(&self.run, &config);
            // Where more has failed than a picture, that is told alone.
            if status != "failed" {
                tell_of_picture(drawn, &self.run, progress);
            }
            progress.event(&json!({
                "event": "end", "status": status, "run": self.run.path(), "step": steps, "seconds": seconds,
                "evaluation": evaluation.map(to_json),
            }));
        };
        let path = self.run.path().display();
        let evaluation = match ended {
            Ok(End::Evaluated(evaluation)) => Some(evaluation),
            Ok(End::NotEvaluated) => None,
            Ok(End::Interrupted) => {
                progress.say(&format!("interrupted at step {steps}; the run is saved, go on with: sac resume {path}"));
                end("interrupted", None);
                return Err(Failure::Interrupted);
            }
            Ok(End::EnvironmentFailed(error)) => {
                end("failed", None);
                let context =
                    format!("training stopped, {path} holds the run until then, go on with `sac resume {path}`");
                return Err(Failure::Work(anyhow::Error::from(error).context(context)));
            }
            Err(error) => {
                end("failed", None);
                let policy = if policy_is_lost { ", its policy the one saved last" } else { "" };
                let context = format!("training stopped, {path} holds the run until then{policy}");
                return Err(Failure::Work(error.context(context)));
            }
        };
        let last = self.checkpoints.save(&mut self.trainer, &mut self.files);
        last.and_then(|()| self.checkpoints.finish()).map_err(Failure::work)?;
        end("finished", evaluation.as_ref());
        progress.say(&format!("{steps} steps in {seconds:.1} s"));
        if let Some(evaluation) = evaluation {
            progress.say(&format!("deterministic policy: {}", progress::describe(&evaluation)));
            if let Some(target) = self.until_return {
                let verdict = if evaluation.mean() >= target { "reached" } else { "not reached" };
                progress.say(&format!("return {target} {verdict} after {steps} steps and {seconds:.1} s"));
            }
        }
        if let Some(Best { step, mean_return, .. }) = self.trainer.best() {
            progress.say(&format!(
                "best evaluation: mean return {mean_return:.1} at step {step}; evaluate it further with: sac eval {path} --best"
            ));
        }
        progress.say(&format!("saved; evaluate it further with: sac eval {path}"));
        Ok(())
    }

    fn train(&mut self, started: Instant) -> Result<End> {
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(End::Interrupted);
            }
            if self.checkpoints.is_due(&self.trainer) {
                self.checkpoint()?;
            }
            let episodes = match self.trainer.step() {
                Err(error @ Error::Environment { .. }) => return Ok(End::EnvironmentFailed(error)),
                stepped => stepped?,
            };
            if self.trainer.evaluation_is_due() {
                // An evaluation can be long, and what was learned must not depend on its end.
                self.save_policy()?;
            }
            let evaluation = self.trainer.evaluate_if_due()?;
            let step = self.trainer.steps();
            if self.trainer.best().is_some_and(|best| best.step == step) {
                self.run.save_best(self.trainer.best_actor().as_ref())?;
            }
            if !episodes.is_empty() || evaluation.is_some() {
                let metrics = self.trainer.metrics()?;
                let rows = self.files.write(step, started.elapsed(), &episodes, evaluation.as_ref(), metrics)?;
                rows.iter().for_each(|row| self.progress.row(row));
            }
            self.progress.step(step);
            let reached = |evaluation: &Evaluation| self.until_return.is_some_and(|target| evaluation.mean() >= target);
            if let Some(evaluation) = evaluation {
                if self.trainer.is_finished() || reached(&evaluation) {
                    return Ok(End::Evaluated(evaluation));
                }
            } else if self.trainer.is_finished() {
                return Ok(End::NotEvaluated);
            }
        }
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        self.checkpoints.save(&mut self.trainer, &mut self.files)
    }

    fn save_policy(&mut self) -> Result<(), Error> {
        self.run.save_policy(&self.trainer.actor()?)
    }
}

/// `sac presets`
fn list_presets(args: &PresetsArgs) -> Outcome {
    let text = match &args.name {
        Some(name) => find_preset(name).map_err(Failure::input)?.to_string(),
        None => presets::PRESETS.map(|(name, text)| format!("{name:14}{}\n", presets::summary(text))).concat(),
    };
    print(&text).map_err(Failure::work)
}

fn find_preset(name: &str) -> Result<&'static str> {
    let known = || presets::PRESETS.map(|(name, _)| name).join(", ");
    presets::preset(name).with_context(|| format!("there is no preset {name:?}; known are {}", known()))
}

/// `sac eval`
fn eval(args: &EvalArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let (environment, actor) = policy_file::load(&policy_path(&args.path, args.best)?)?;
        let env = environment_of(&environment, &actor, &args.path, &args.env_args, &args.python, false)?;
        Ok((actor, env))
    };
    let (mut actor, mut env) = prepare().map_err(Failure::input)?;
    let mut work = || -> Result<()> {
        let evaluation = evaluate(&mut actor, &mut *env, args.seed, args.episodes, args.stochastic)?;
        if args.json {
            print(&format!("{}\n", to_json(&evaluation)))
        } else {
            print(&format!("{}\n", progress::describe(&evaluation)))
        }
    };
    work().map_err(Failure::work)
}

fn to_json(evaluation: &Evaluation) -> serde_json::Value {
    json!({
        "episodes": evaluation.returns.len(),
        "mean_return": evaluation.mean(),
        "std_return": evaluation.std(),
        "min_return": evaluation.min(),
        "max_return": evaluation.max(),
        "returns": evaluation.returns,
    })
}

/// `sac render`
fn render(args: &RenderArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let (environment, actor) = policy_file::load(&policy_path(&args.path, args.best)?)?;
        let out = args.out.clone().unwrap_or_else(|| format!("{}.gif", env::file_name(&environment)).into());
        // An episode takes its time.
        anyhow::ensure!(!out.exists(), taken(&out));
        let env = environment_of(&environment, &actor, &args.path, &args.env_args, &args.python, true)?;
        Ok((actor, env, out))
    };
    let (mut actor, mut env, out) = prepare().map_err(Failure::input)?;
    let film = Film { seed: args.seed, stochastic: args.stochastic, fps: args.fps, width: args.size };
    let gif = picture::record(&mut actor, &mut *env, film).map_err(Failure::work)?;
    write_new(&out, &gif).map_err(Failure::input)
}

/// `sac export`
fn export(args: &ExportArgs) -> Result<()> {
    let path = policy_path(&args.path, args.best)?;
    let (environment, actor) = policy_file::load(&path)?;
    let is_copy = matches!(args.format, Format::Safetensors);
    anyhow::ensure!(!(is_copy && args.stochastic), "a safetensors file has both policies; leave out --stochastic");
    let (extension, bytes) = match args.format {
        Format::Onnx => ("onnx", export::to_onnx(&actor, &environment, args.stochastic)),
        Format::Safetensors => ("safetensors", std::fs::read(&path)?),
        Format::Rust => ("rs", export::to_rust(&actor, &environment, args.stochastic).into_bytes()),
        Format::C => ("c", export::to_c(&actor, &environment, args.stochastic).into_bytes()),
    };
    let out = args.out.clone().unwrap_or_else(|| Path::new("policy").with_extension(extension));
    write_new(&out, &bytes)
}

fn taken(out: &Path) -> anyhow::Error {
    anyhow!("{} is there already; choose another file with --out", out.display())
}

/// Writes a result to a file that must not be there yet, whole or not at all, and says so.
fn write_new(out: &Path, bytes: &[u8]) -> Result<()> {
    let shown = out.display();
    let write = |mut file: File| file.write_all(bytes).inspect_err(|_| drop(std::fs::remove_file(out)));
    File::create_new(out).and_then(write).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => taken(out),
        _ => anyhow!("{shown} cannot be written ({error}); choose another file with --out"),
    })?;
    print(&format!("{shown}\n"))
}

/// `sac runs`
fn list_runs(args: &RunsArgs) -> Result<()> {
    let runs = list(&args.path)?;
    anyhow::ensure!(!runs.is_empty(), "{} holds no runs; train one, or name another directory", args.path.display());
    let width = runs.iter().map(|run| run.path.display().to_string().chars().count()).max().unwrap_or(0);
    let mut text = format!(
        "{:width$}  {:14} {:>6} {:>10} {:>10} {:>9} {:>9}  state\n",
        "run", "environment", "seed", "steps", "of", "best", "last"
    );
    for run in &runs {
        let cell = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
        let (best, last) = (cell(run.best_and_last.map(|both| both.0)), cell(run.best_and_last.map(|both| both.1)));
        let state = if run.is_finished() { "finished" } else { "unfinished" };
        let (path, (steps, of)) = (run.path.display().to_string(), run.steps);
        text += &format!(
            "{path:width$}  {:14} {:>6} {steps:>10} {of:>10} {best:>9} {last:>9}  {state}\n",
            run.environment, run.seed
        );
    }
    print(&text)
}

/// `sac plot`
fn plot(args: &PlotArgs) -> Result<()> {
    let mut runs = Vec::new();
    for path in &args.paths {
        let listed = list(path)?;
        anyhow::ensure!(!listed.is_empty(), "{} holds no runs; name a run, or a directory of runs", path.display());
        for summary in &listed {
            match MeasuredRun::open(&summary.path) {
                Ok(run) => runs.push(run),
                // One that has just begun does not keep the others from being drawn.
                Err(error) if listed.len() > 1 => progress::write_line(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    anyhow::ensure!(!runs.is_empty(), "none of these runs has a return to draw; wait for the end of an episode");
    let svg = if let [run] = runs.as_slice() { plot::run(run)? } else { plot::groups(&runs)? };
    write_picture(&args.out, &svg)
}

/// Writes a picture in the form that the name of the file says.
fn write_picture(out: &Path, svg: &str) -> Result<()> {
    let extension = out.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "svg" => write_new(out, svg.as_bytes()),
        "png" => write_new(out, &picture::to_png(svg)?),
        _ => anyhow::bail!("{} is no name of a picture; let it end in .svg or .png", out.display()),
    }
}

/// `sac compare`
fn compare_groups(args: &CompareArgs) -> Result<()> {
    let comparison = compare(&args.groups)?;
    if let Some(out) = &args.out {
        write_picture(out, &plot::comparison(&comparison)?)?;
    }
    if args.json { print(&format!("{}\n", comparison_to_json(&comparison))) } else { print(&table(&comparison)) }
}

fn table(comparison: &Comparison) -> String {
    let interval = |Estimate { value, low, high }: Estimate| format!("{value:.1} [{low:.1}, {high:.1}]");
    let first = &comparison.groups[0];
    let width = |heading: &str| {
        comparison
            .groups
            .iter()
            .map(String::as_str)
            .chain([heading])
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut text = String::new();
    for scores in &comparison.environments {
        let heading = format!("{} at step {}", scores.environment, scores.step);
        let width = width(&heading);
        text += &format!("{heading:width$}  runs  {:28}{:28}less {first}\n", "mean return", "interquartile mean");
        for (name, scores) in comparison.groups.iter().zip(&scores.groups) {
            let Some(scores) = scores else { continue };
            let (mean, iqm) = (interval(scores.mean), interval(scores.interquartile_mean));
            let difference = scores.difference.map_or("-".into(), interval);
            text += &format!("{name:width$}  {:>4}  {mean:28}{iqm:28}{difference}\n", scores.values.len());
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
                "returns": scores.values, "mean": estimate(scores.mean),
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

/// The environment called `name` for the policy of a run directory or a policy file.
fn environment_of(
    name: &str,
    actor: &Actor,
    path: &Path,
    EnvArgs { env_args }: &EnvArgs,
    python: &PythonArgs,
    draws: bool,
) -> Result<Box<dyn Env>> {
    // A policy alone does not say what its environment was made with.
    let is_run = env::gym_id(name).is_some() && path.is_dir();
    let mut arguments = if is_run { RunDirectory::open(path)?.1.env_args } else { BTreeMap::new() };
    arguments.extend(env_args.iter().cloned());
    let env = make_environment(name, &arguments, python, draws)?()?;
    actor.fits(&*env)?;
    Ok(env)
}

/// The policy file of a run directory, the one of its best evaluation if that is wanted, or the file itself.
fn policy_path(path: &Path, best: bool) -> Result<PathBuf> {
    if !best {
        return Ok(if path.is_dir() { path.join(policy_file::NAME) } else { path.to_path_buf() });
    }
    let shown = path.display();
    anyhow::ensure!(path.is_dir(), "{shown} is no run directory; name one, or leave out --best");
    let file = path.join(policy_file::BEST);
    anyhow::ensure!(file.exists(), "{shown} has no {}; train with --keep-best, or leave out --best", policy_file::BEST);
    Ok(file)
}

/// What makes the environment of a run, as often as it is called.
type MakeEnv = Box<dyn FnMut() -> Result<Box<dyn Env>, Error> + Send>;

/// How to make the environment called `name`, with what it takes, and so that it can be drawn if it `draws`.
fn make_environment(
    name: &str,
    arguments: &BTreeMap<String, String>,
    PythonArgs { python, env_timeout }: &PythonArgs,
    draws: bool,
) -> Result<MakeEnv> {
    if let Some(id) = env::gym_id(name) {
        let (id, arguments, python) = (id.to_string(), arguments.clone(), python.clone());
        let gym = Gym { id, arguments, python, timeout: Duration::from_secs(*env_timeout), draws };
        return Ok(Box::new(move || Ok(Box::new(gym.make()?))));
    }
    let known = || env::BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let make = env::built_in(name)
        .with_context(|| format!("there is no environment {name:?}; there are: {}, and gym:ID", known()))?;
    anyhow::ensure!(arguments.is_empty(), "{name} takes no arguments; leave out --env-arg, or env_args in the file");
    Ok(Box::new(move || Ok(make())))
}

/// The first line of what clap has to say, which names the argument and what is wrong with it.
fn one_line(error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    anyhow!("{}; see sac --help", lines.join(" ").trim_start_matches("error: "))
}
