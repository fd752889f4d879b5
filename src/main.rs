//! The program `sac`, visible in one [`run`].
//!
//! Exit codes: 0 done, or nothing left to do; 1 training or an evaluation failed, or runs of a directory cannot be used and
//! the rest is done; 2 bad input and nothing written; 130 interrupted and saved, see [`interruption`].

mod cli;
mod interruption;
mod progress;
mod resuming;
mod sharing;
mod training;
mod trust;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use cli::{
    Cli, Command, CompareArgs, EnvArgs, EvalArgs, ExportArgs, Format, PlotArgs, PresetsArgs, PythonArgs, RenderArgs,
    RunsArgs, TrustArgs,
};
use progress::{Watcher, print, short};
use serde_json::json;
use soft_actor_critic::actor::{Actor, Evaluation, EvaluationProgress, evaluate_watched};
use soft_actor_critic::env::{self, Env, Gym, Info};
use soft_actor_critic::error::Error;
use soft_actor_critic::export;
use soft_actor_critic::nn::gemm;
use soft_actor_critic::picture::{self, Film, plot};
use soft_actor_critic::presets;
use soft_actor_critic::run::{
    Comparison, Listing, MeasuredRun, RunDirectory, Summary, compare, is_run, list, policy_file,
};
use soft_actor_critic::statistics::Estimate;
use soft_actor_critic::train::Activity;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use trust::Named;

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
        Self::unless_interrupted(error.into(), Self::Input)
    }

    fn work(error: impl Into<anyhow::Error>) -> Self {
        Self::unless_interrupted(error.into(), Self::Work)
    }

    fn unless_interrupted(error: anyhow::Error, failure: fn(anyhow::Error) -> Self) -> Self {
        if error.downcast_ref() == Some(&Error::Interrupted) { Self::Interrupted } else { failure(error) }
    }
}

type Outcome = std::result::Result<(), Failure>;

fn main() -> ExitCode {
    let (error, code) = match run().and_then(|()| progress::all_is_written().map_err(Failure::work)) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Interrupted) => return ExitCode::from(interruption::EXIT_CODE),
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
    if let Some(choice) = std::env::var_os("SAC_CHANNEL")
        && choice != "pipes"
    {
        return Err(Failure::Input(anyhow!("SAC_CHANNEL is {choice:?}; unset it, or say pipes")));
    }
    match (cli.command, cli.train) {
        (Some(Command::Eval(args)), _) => eval(&args),
        (Some(Command::Render(args)), _) => render(&args),
        (Some(Command::Resume(args)), _) => resuming::resume(&args),
        (Some(Command::Export(args)), _) => export(&args).map_err(Failure::input),
        (Some(Command::Runs(args)), _) => list_runs(&args),
        (Some(Command::Plot(args)), _) => plot(&args),
        (Some(Command::Compare(args)), _) => compare_groups(&args),
        (Some(Command::Presets(args)), _) => list_presets(&args),
        (None, Some(args)) => training::train(&args, &cli.env_args, &cli.python),
        (None, None) => Err(Failure::Input(anyhow!("say what to train on, as in `sac pendulum`; see `sac --help`"))),
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
    interruption::begin(progress::write_line);
    let mut watcher = Watcher::new(progress::write_line);
    let mut ended = Vec::new();
    let watch = |progress: EvaluationProgress| {
        ended.clear();
        ended.extend_from_slice(progress.returns);
        watcher.watch(Activity::Evaluation(progress))
    };
    let evaluation = evaluate_watched(&mut actor, &mut *env, args.seed, args.episodes, args.stochastic, watch);
    if evaluation == Err(Error::Interrupted) {
        let (of, ended) = (args.episodes, Evaluation { returns: ended, info: Info::NONE });
        let so_far = if ended.returns.is_empty() { String::new() } else { format!(": {}", progress::describe(&ended)) };
        progress::write_line(&format!("interrupted after {} of {of} episodes{so_far}", ended.returns.len()));
    }
    let evaluation = evaluation.map_err(Failure::work)?;
    let text = if args.json { to_json(&evaluation).to_string() } else { progress::describe(&evaluation) };
    print(&(text + "\n")).map_err(Failure::work)
}

fn to_json(evaluation: &Evaluation) -> serde_json::Value {
    let mut object = json!({
        "episodes": evaluation.returns.len(),
        "mean_return": evaluation.mean(),
        "std_return": evaluation.std(),
        "min_return": evaluation.min(),
        "max_return": evaluation.max(),
        "returns": evaluation.returns,
    });
    if !evaluation.info.is_empty() {
        object["info"] = evaluation.info.iter().map(|(name, mean)| (name.to_string(), json!(mean))).collect();
    }
    object
}

/// `sac render`
fn render(args: &RenderArgs) -> Outcome {
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
    interruption::begin(progress::write_line);
    let film = Film { seed: args.seed, stochastic: args.stochastic, fps: args.fps, width: args.size };
    let mut watcher = Watcher::new(progress::write_line);
    let gif = picture::record(&mut actor, &mut *env, film, |frames| {
        watcher.watch(Activity::Evaluation(EvaluationProgress { episodes: 1, returns: &[], steps: frames }))
    });
    if gif == Err(Error::Interrupted) {
        progress::write_line("interrupted; nothing is written");
    }
    let gif = gif.map_err(Failure::work)?;
    write_new(&out, &gif).map_err(Failure::input)?;
    print(&format!("{}\n", out.display())).map_err(Failure::work)
}

/// `sac export`
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

fn taken(out: &Path) -> anyhow::Error {
    anyhow!("{} is there already; choose another file with --out", out.display())
}

/// Writes a result to a file that must not be there yet, whole or not at all.
fn write_new(out: &Path, bytes: &[u8]) -> Result<()> {
    let shown = out.display();
    let write = |mut file: File| file.write_all(bytes).inspect_err(|_| drop(std::fs::remove_file(out)));
    File::create_new(out).and_then(write).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => taken(out),
        _ => anyhow!("{shown} cannot be written ({error}); choose another file with --out"),
    })
}

/// Ends a command that has done what it could without so many runs that cannot be read, each of which has been told.
fn left_out(damaged: usize) -> Outcome {
    if damaged == 0 {
        return Ok(());
    }
    let runs = if damaged == 1 { "1 run has".into() } else { format!("{damaged} runs have") };
    Err(Failure::Work(anyhow!("{runs} been left out, see above; put back what is missing, or move them away")))
}

/// `sac runs`
fn list_runs(args: &RunsArgs) -> Outcome {
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
        progress::print_error(&format!("{}: {problem}", path.display()));
    }
    print(&text).map_err(Failure::work)?;
    left_out(problems.len())
}

/// The runs in each of these directories that have measured a return in one of the `columns`, and how many cannot be read. Those
/// and the ones without `what` are told.
fn measured_runs(paths: &[PathBuf], columns: &[&str], what: &str) -> Result<(Vec<Vec<MeasuredRun>>, usize)> {
    let mut problems = 0;
    let mut groups = Vec::new();
    for path in paths {
        let Listing { runs, damaged } = list(path)?;
        anyhow::ensure!(
            !runs.is_empty() || !damaged.is_empty(),
            "{} holds no runs; name a run, or a directory of runs",
            path.display()
        );
        for (path, problem) in &damaged {
            progress::print_error(&format!("{}: {problem}", path.display()));
        }
        problems += damaged.len();
        let runs = runs.iter().map(|run| MeasuredRun::open(&run.path)).collect::<Result<Vec<_>, _>>()?;
        let has = |run: &MeasuredRun| columns.iter().any(|column| !run.points(column).is_empty());
        let (with, without): (Vec<_>, Vec<_>) = runs.into_iter().partition(has);
        anyhow::ensure!(!with.is_empty(), "{} has no {what} yet; wait for one, or leave it out", path.display());
        for run in without {
            progress::write_line(&format!("{} has no {what} yet; it is left out", run.directory().path().display()));
        }
        groups.push(with);
    }
    Ok((groups, problems))
}

/// `sac plot`
fn plot(args: &PlotArgs) -> Outcome {
    let draw = || -> Result<_> {
        let columns = [MeasuredRun::EVALUATION, MeasuredRun::EPISODE];
        let (runs, damaged) = measured_runs(&args.paths, &columns, "return to draw")?;
        let runs = runs.concat();
        let (svg, without) =
            if let [run] = runs.as_slice() { (plot::run(run)?, Vec::new()) } else { plot::groups(&runs)? };
        for run in without {
            let path = run.directory().path().display();
            progress::write_line(&format!("{path} shares no step with the other seeds of its group; it is left out"));
        }
        write_picture(&args.out, &svg)?;
        print(&format!("{}\n", args.out.display()))?;
        Ok(damaged)
    };
    left_out(draw().map_err(Failure::Input)?)
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
fn compare_groups(args: &CompareArgs) -> Outcome {
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
    let short = |value: f64| progress::short(value, 1);
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
                "evaluations of {least} and of up to {most} episodes are compared: those at a run's last step have more\n"
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

/// Rows of cells as columns, of which those of `numbers` end at their right.
fn columns<R: AsRef<[String]>>(rows: &[R], numbers: Range<usize>) -> String {
    let count = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let length = |cell: &String| cell.chars().count();
    let width = |i: usize| rows.iter().filter_map(|row| row.as_ref().get(i)).map(length).max().unwrap_or(0);
    let widths: Vec<_> = (0..count).map(width).collect();
    let line = |row: &R| {
        let cells =
            row.as_ref().iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match numbers.contains(&i) {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
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

/// What `sac eval` and `sac render` say of the environment to act in.
struct Chosen<'a> {
    path: &'a Path,
    env: Option<&'a str>,
    env_args: &'a EnvArgs,
    trust: &'a TrustArgs,
    python: &'a PythonArgs,
}

/// The environment for the policy of a run directory or a policy file, which calls it `named`.
fn environment_of(named: &str, actor: &Actor, chosen: Chosen, draws: bool) -> Result<Box<dyn Env>> {
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

/// The policy file of a run directory, the one of its best evaluation if that is wanted, or the file itself.
fn policy_path(path: &Path, best: bool) -> Result<PathBuf> {
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
        let is_named = !id.is_empty() && !id.ends_with(':');
        anyhow::ensure!(is_named, "{name} names no environment; say gym:ID, as in gym:Pendulum-v1, or gym:MODULE:ID");
        let (id, arguments, python) = (id.to_string(), arguments.clone(), python.clone());
        let timeout = Duration::from_secs(env_timeout.unwrap_or(60));
        let gym = Gym { id, arguments, python, timeout, draws, abandon: Some(interruption::abandon()) };
        return Ok(Box::new(move || Ok(Box::new(gym.make()?))));
    }
    let make = env::built_in(name).with_context(|| no_environment(name))?;
    anyhow::ensure!(arguments.is_empty(), "{name} takes no arguments; leave out --env-arg, or env_args in the file");
    Ok(Box::new(move || Ok(make())))
}

/// Why there is no built-in environment of this name, and which may be meant.
fn no_environment(name: &str) -> String {
    let known: Vec<_> = env::BUILT_IN.iter().map(|(name, _)| *name).collect();
    let is_versioned = |name: &str| {
        let version = name.rsplit_once("-v").map_or("", |(_, version)| version);
        !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit())
    };
    let stem = name.rsplit_once("-v").map_or(name, |(stem, _)| stem).to_lowercase().replace('_', "-");
    let near = known.iter().map(|known| (strsim::jaro_winkler(known, &stem), known)).filter(|(near, _)| *near > 0.85);
    let near = near.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, known)| known.to_string());
    let meant: Vec<_> = near.into_iter().chain(is_versioned(name).then(|| format!("gym:{name}"))).collect();
    let meant = if meant.is_empty() { String::new() } else { format!("; is {} meant?", meant.join(" or ")) };
    let known = known.join(", ");
    match meant.as_str() {
        "" => format!("there is no environment {name:?}; there are: {known}, and gym:ID"),
        meant => format!("there is no environment {name:?}{meant} There are: {known}, and gym:ID"),
    }
}

/// What clap has to say in one line, which names the argument, what is wrong with it, and what may be meant.
fn one_line(error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let problem = lines.join(" ").trim_start_matches("error: ").to_string();
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(name))) => Some(name.as_str()),
        _ => None,
    };
    let ours = unknown.and_then(cli::option_of_others).map(|ours| format!("use {ours}"));
    let similar = || text.lines().find_map(|line| Some(line.trim().strip_prefix("tip: ")?.to_string()));
    let tip = ours.or_else(similar).map_or(String::new(), |tip| format!("; {tip}"));
    anyhow!("{problem}{tip}; see sac --help")
}
