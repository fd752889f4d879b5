//! `sac resume`: which runs of a directory go on, which begin, and which are left out.

use crate::program::agents::{Agents, Kind};
use crate::program::arguments::{PythonArgs, TrustArgs, count};
use crate::program::environment::make_environment;
use crate::program::failure::{Failure, Outcome};
use crate::program::interruption;
use crate::program::output::{print_error, quoted, quoted_path};
use crate::program::pool::{Budget, at_once};
use crate::program::progress::{Board, Log, Many};
use crate::program::session::{self, adapt, begin};
use crate::program::trust::{self, Named};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use soft_actor_critic::config::{Config, UntilReturn};
use soft_actor_critic::device::Device;
use soft_actor_critic::env::{self, Gym};
use soft_actor_critic::error::Error;
use soft_actor_critic::run::checkpoint::{Seen, look};
use soft_actor_critic::run::{Group, Listing, Plan, RunDirectory, group, is_run, leads_out, list};
use soft_actor_critic::session::{Changes, sizes};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// `sac resume`
#[derive(Args, Debug)]
pub struct ResumeArgs {
    /// The run directory, or a directory of runs, of which all that are not finished then go on; if --seeds has made
    /// it, those that had not begun begin
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// Environment steps to train for, in all, at least those that the run was begun with [default: those]
    #[arg(long, value_name = "N", value_parser = count::<u64>, allow_negative_numbers = true)]
    pub steps: Option<u64>,
    /// Where to train [default: where the run was trained]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
    /// Upper bound on threads, besides those that wait for the steps of several environments; 0 for one for each core.
    /// Small networks and batches use fewer, because more would be slower. Results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub threads: usize,
    /// Stop when the mean return of an evaluation reaches this: off, or a number. A run whose last evaluation has
    /// reached it is finished [default: that which the run was begun with]
    #[arg(long, value_name = "off|RETURN", allow_negative_numbers = true)]
    pub until_return: Option<UntilReturn>,
    /// Print errors only
    #[arg(long, conflicts_with = "log")]
    pub quiet: bool,
    /// How to tell of progress
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Log::Text)]
    pub log: Log,
    /// An environment that the files name, so that its module may be imported; needed once in a directory. Can be given
    /// several times
    #[arg(long = "env", value_name = "gym:MODULE:ID", help_heading = "Gymnasium")]
    pub envs: Vec<String>,
    /// What the files may make Python do.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What Python the environment runs in.
    #[command(flatten)]
    pub python: PythonArgs,
}

/// `sac resume`
pub fn run(args: &ResumeArgs) -> Outcome {
    interruption::catch().map_err(Failure::Input)?;
    let is_alone = is_run(&args.path) || !args.path.is_dir();
    let pending = if is_alone { None } else { Pending::find(args).map_err(Failure::Input)? };
    match pending {
        Some(pending) => pending.resume(args),
        None => {
            let prepare = || -> Result<_> {
                let (run, config) = RunDirectory::open(&args.path)?;
                args.check_trust([(args.path.as_path(), run.environment(), &config.env_args)])?;
                args.python.check([run.environment()])?;
                Ok(Board::new(args.quiet, args.log, None))
            };
            let board = prepare().map_err(Failure::Input)?;
            session::resume(&args.path, args.changes(), None, &args.python, args.threads, &board).map(drop)
        }
    }
}

/// A run of a directory that is to go on, or to begin.
struct Task {
    /// Its directory.
    pub path: PathBuf,
    /// What it is trained on.
    environment: String,
    /// What decides it if it is to begin.
    pub plan: Option<Plan>,
}

/// What there is to do in a directory that is no run itself.
struct Pending {
    /// Its groups, which are locked as long as this is here.
    groups: Vec<Group>,
    tasks: Vec<Task>,
    /// Groups that cannot be used, and runs that cannot go on, each told in a line.
    left_out: [Vec<String>; 2],
}

impl Pending {
    /// Looks for it; none if the directory holds no runs. What is wrong with a group keeps no other from going on.
    fn find(args: &ResumeArgs) -> Result<Option<Self>> {
        let (groups, mut closed) = Group::inside(&args.path);
        if let Some(own) = closed.iter().position(|(path, _)| *path == args.path) {
            return Err(closed.swap_remove(own).1.into());
        }
        let mut begins = Vec::new();
        for (path, mut plan) in groups.iter().flat_map(Group::runs).filter(|(path, _)| group::is_unbegun(path)) {
            plan.config = adapt(args.changes(), &plan.config).with_context(|| path.display().to_string())?;
            plan.device = args.device.unwrap_or(plan.device);
            begins.push(Task { path, environment: plan.environment.clone(), plan: Some(plan) });
        }
        let Listing { mut runs, mut damaged } = list(&args.path)?;
        // Another process may just have begun a run there.
        if is_run(&args.path) {
            return Ok(None);
        }
        // What goes on is written to.
        let problem = "a symbolic link leads to it, which is not followed out of the directory; resume it by itself";
        let outside =
            runs.extract_if(.., |run| leads_out(&args.path, &run.path)).map(|run| run.path).collect::<Vec<_>>();
        damaged.extend(outside.into_iter().map(|path| (path, Error::Files(problem.into()))));
        if runs.is_empty() && damaged.is_empty() && begins.is_empty() && closed.is_empty() {
            return Ok(None);
        }
        let goes_on = |path: &Path| {
            !begins.iter().any(|task| task.path == path) && !closed.iter().any(|(group, _)| path.starts_with(group))
        };
        runs.retain(|run| goes_on(&run.path));
        damaged.retain(|(path, _)| goes_on(path));
        let mut tasks = Vec::new();
        for run in runs {
            if let Some(problem) = run.problem.clone().or_else(|| run.config.validate().err()) {
                damaged.push((run.path, problem));
            } else if !run
                .is_finished(&adapt(args.changes(), &run.config).with_context(|| run.path.display().to_string())?)
            {
                tasks.push(Task { path: run.path, environment: run.environment, plan: None });
            }
        }
        tasks.extend(begins);
        let closed = closed.into_iter().map(|(_, problem)| problem.to_string()).collect();
        let damaged = damaged.into_iter().map(|(path, problem)| format!("{}: {problem}", path.display())).collect();
        Ok(Some(Self { groups, tasks, left_out: [closed, damaged] }))
    }

    /// Does it, with as many runs at once as there may be.
    fn resume(mut self, args: &ResumeArgs) -> Outcome {
        let mut prepare = || -> Result<_> {
            self.check(args)?;
            let all = self.tasks.len();
            let (mut agents, mut threads) = (Agents::default(), None);
            if all > 0 {
                let budget_of_all = Budget::new(args.threads, all as u64)?;
                agents = put_together(args, &mut self.tasks)?;
                threads = Some(budget_of_all.with(&agents, all as u64));
            }
            let many = threads.map(|budget| Many { root: &args.path, runs: all, at_once: budget.runs });
            let board = Board::new(args.quiet, args.log, many);
            interruption::begin(board.sayer());
            args.remember(&mut self.groups, &self.tasks)?;
            Ok((agents, threads, board))
        };
        let (agents, threads, board) = prepare().map_err(Failure::input)?;
        self.left_out.iter().flatten().for_each(|line| print_error(line));
        let left_out = self.left_out(args);
        let Some(budget) = threads else {
            let Some(problem) = left_out else {
                let shown = args.path.display();
                let line = format!("all runs in {shown} are finished; give them more --steps or --until-return");
                board.say(&line);
                return Ok(());
            };
            return Err(Failure::Work(anyhow!(problem)));
        };
        let paths: Vec<_> = self.tasks.iter().map(|task| task.path.as_path()).collect();
        let work = |number: usize, board: &Board| {
            let (Task { path, plan, .. }, learner) = (&self.tasks[number], agents.take(number));
            let Some(plan) = plan else {
                return session::resume(path, args.changes(), learner, &args.python, budget.threads, board);
            };
            let prepare = || {
                let new = session::prepare(plan.clone(), &args.python, budget.threads)?;
                group::clear_unbegun(path)?;
                Ok(new)
            };
            begin(prepare().map_err(Failure::Input)?, learner, Some(path), board)
        };
        match (at_once(&args.path, &paths, false, budget, &agents, &board, work), left_out) {
            (Ok(()), Some(problem)) => Err(Failure::Work(anyhow!(problem))),
            (Err(Failure::Work(error)), Some(problem)) => Err(Failure::Work(anyhow!("{error:#}; {problem}"))),
            (outcome, _) => outcome,
        }
    }

    /// Looks, before any run goes on, for what is wrong for all of them, which is an error, and for what is wrong for
    /// all of a group that are to begin, which leaves it out.
    fn check(&mut self, args: &ResumeArgs) -> Result<()> {
        let of_run = |task: &Task| match &task.plan {
            Some(plan) => Ok(plan.config.env_args.clone()),
            None => RunDirectory::open(&task.path).map(|(_, config)| config.env_args),
        };
        let arguments = self.tasks.iter().map(of_run).collect::<Result<Vec<_>, _>>()?;
        let named = self.tasks.iter().zip(&arguments);
        args.check_trust(named.map(|(task, arguments)| (task.path.as_path(), task.environment.as_str(), arguments)))?;
        let environments: BTreeSet<_> = self.tasks.iter().map(|task| task.environment.as_str()).collect();
        args.python.check(environments.iter().copied())?;
        if environments.iter().any(|name| env::gym_id(name).is_some()) {
            Gym::check(args.python.python.as_deref())?;
        }
        let mut devices = self.tasks.iter().filter_map(|task| args.device_of(task));
        if let Some(first) = devices.next()
            && devices.all(|device| device == first)
        {
            first.check()?;
        }
        let usable = |plan: &Plan| -> Result<()> {
            plan.device.check()?;
            session::prepare(plan.clone(), &args.python, args.threads).map(drop)
        };
        let Self { groups, tasks, left_out: [closed, _] } = self;
        for group in std::mem::take(groups) {
            let belongs = |task: &Task| task.plan.is_some() && task.path.starts_with(group.path());
            let first = tasks.iter().find(|task| belongs(task)).and_then(|task| task.plan.as_ref());
            match first.map_or(Ok(()), usable).with_context(|| group.path().display().to_string()) {
                Ok(()) => groups.push(group),
                Err(problem) if group.path() == args.path => return Err(problem),
                Err(problem) => {
                    closed.push(format!("{problem:#}"));
                    tasks.retain(|task| !task.path.starts_with(group.path()));
                }
            }
        }
        Ok(())
    }

    /// What there is to say at the end of all that has been left out; none if nothing has.
    fn left_out(&self, args: &ResumeArgs) -> Option<String> {
        let count = |(lines, what): (&Vec<String>, &str)| match lines.len() {
            0 => None,
            1 => Some(format!("1 {what}")),
            many => Some(format!("{many} {what}s")),
        };
        let counts: Vec<_> = self.left_out.iter().zip(["group", "run"]).filter_map(count).collect();
        let counts = counts.join(" and ");
        let mend = format!("mend that, and go on with: sac resume {}", quoted_path(&args.path));
        (!counts.is_empty()).then(|| format!("left out, see above: {counts}; {mend}"))
    }
}

impl ResumeArgs {
    /// What the runs do otherwise than they were begun with.
    fn changes(&self) -> Changes {
        Changes { steps: self.steps, until_return: self.until_return, device: self.device }
    }

    /// Refuses what runs, each with its environment and what that is made with, ask of Python and the user has not.
    fn check_trust<'a>(
        &self,
        runs: impl IntoIterator<Item = (&'a Path, &'a str, &'a BTreeMap<String, String>)>,
    ) -> Result<()> {
        let named = runs.into_iter().map(|(by, environment, arguments)| Named {
            by,
            environment,
            is_given: self.envs.iter().any(|given| given == environment),
            arguments,
            given: &[],
        });
        let named: Vec<_> = named.collect();
        if let Some(unused) = self.envs.iter().find(|given| named.iter().all(|named| named.environment != *given)) {
            let (unused, shown) = (quoted(unused), self.path.display());
            anyhow::bail!("no run to resume in {shown} is trained on {unused}; leave out --env {unused}");
        }
        trust::check(&named, self.trust.trust)
    }

    /// Writes what all runs are to go on with to their files and to those of their groups, before any of them does:
    /// whatever comes between, the next command knows it. Nothing is written to a run that another process trains; that
    /// is told when it is to go on.
    fn remember(&self, groups: &mut [Group], tasks: &[Task]) -> Result<()> {
        // What is wrong with one of them keeps all of them as they are.
        let adapted = groups
            .iter()
            .map(|group| adapt(self.changes(), group.config()).with_context(|| group.path().display().to_string()));
        let adapted = adapted.collect::<Result<Vec<_>>>()?;
        for (group, config) in groups.iter_mut().zip(adapted) {
            group.replace_config(config)?;
        }
        for Task { path, .. } in tasks.iter().filter(|task| task.plan.is_none()) {
            let Ok(_lock) = RunDirectory::open(path)?.0.lock() else { continue };
            let (run, begun_with) = RunDirectory::open(path)?;
            let config = adapt(self.changes(), &begun_with)?;
            if config != begun_with {
                run.replace_config(&config)?;
            }
        }
        Ok(())
    }

    /// Where a run is to be trained; none if that cannot be known.
    fn device_of(&self, Task { path, plan, .. }: &Task) -> Option<Device> {
        match plan {
            Some(plan) => Some(plan.device),
            None => self.device.or_else(|| self.look(path)?.2.device.parse().ok()),
        }
    }

    /// A run that is to go on, with what configuration, and what its last checkpoint is; none if that cannot be known,
    /// which is told when it is to go on.
    fn look(&self, path: &Path) -> Option<(RunDirectory, Config, Seen)> {
        let (run, begun_with) = RunDirectory::open(path).ok()?;
        let config = adapt(self.changes(), &begun_with).ok()?;
        let seen = look(&run, &config, false).ok()?;
        Some((run, config, seen))
    }
}

/// Puts the runs that can share a GPU before all others: those of the same kind as the first that is trained on one.
fn put_together(args: &ResumeArgs, tasks: &mut Vec<Task>) -> Result<Agents> {
    let kinds: Vec<_> = tasks.iter().map(|task| kind_of(args, task)).collect();
    let on_gpu = |kind: &&(Kind, u64)| matches!(kind.0.device, Device::Cuda(_));
    let Some((kind, _)) = kinds.iter().flatten().find(on_gpu).cloned() else { return Ok(Agents::default()) };
    let shares = |known: &Option<(Kind, u64)>| known.as_ref().is_some_and(|(other, _)| *other == kind);
    let seeds: Vec<_> = kinds.iter().filter(|known| shares(known)).flatten().map(|(_, seed)| *seed).collect();
    if seeds.len() < 2 {
        return Ok(Agents::default());
    }
    let make_env = make_environment(&kind.environment, &kind.config.env_args, &args.python, false)?;
    let (_, observation_size, half_range) = sizes(make_env)?;
    let agents = Agents::new(&kind, &seeds, observation_size, &half_range)?;
    if agents.runs() > 0 {
        let mut known = kinds.iter();
        let (first, others): (Vec<_>, Vec<_>) = tasks.drain(..).partition(|_| known.next().is_some_and(shares));
        tasks.extend(first.into_iter().chain(others));
    }
    Ok(agents)
}

/// The kind of a run that is to go on, or to begin, and its seed; none if it cannot be known, which is told when it is
/// to go on, or does not matter.
fn kind_of(args: &ResumeArgs, Task { path, plan, .. }: &Task) -> Option<(Kind, u64)> {
    if let Some(Plan { environment, config, device, with_replay, .. }) = plan {
        // What the memory of another run holds is known too late.
        return (!with_replay).then(|| (Kind::new(environment, config, *device, 0), config.seed));
    }
    if !matches!(args.device, None | Some(Device::Cuda(_))) {
        return None;
    }
    let (run, config, seen) = args.look(path)?;
    let device = args.device.or_else(|| seen.device.parse().ok())?;
    Some((Kind::new(run.environment(), &config, device, seen.state.preloaded), config.seed))
}
