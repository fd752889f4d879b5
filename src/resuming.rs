//! `sac resume`: which runs of a directory go on, which begin, and which are left out.

use crate::cli::ResumeArgs;
use crate::progress::{Board, Many, print_error, quoted, quoted_path};
use crate::sharing::{Sharing, share};
use crate::training::{Common, NewRun, Share, at_once, begin, resume_one, sizes};
use crate::trust::{self, Named};
use crate::{Failure, Outcome, interruption, make_environment};
use anyhow::{Context, Result, anyhow};
use soft_actor_critic::config::Config;
use soft_actor_critic::device::Device;
use soft_actor_critic::env::{self, Gym};
use soft_actor_critic::error::Error;
use soft_actor_critic::run::checkpoint::{Seen, look};
use soft_actor_critic::run::{Group, Listing, Plan, RunDirectory, group, is_run, leads_out, list};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// `sac resume`
pub fn resume(args: &ResumeArgs) -> Outcome {
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
                Ok(Common { board: Board::new(args.quiet, args.log, None) })
            };
            resume_one(args, &args.path, None, args.threads, &prepare().map_err(Failure::Input)?).map(drop)
        }
    }
}

/// A run of a directory that is to go on, or to begin.
pub struct Task {
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
            plan.config = args.adapt(&plan.config).with_context(|| path.display().to_string())?;
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
            } else if !run.is_finished(&args.adapt(&run.config).with_context(|| run.path.display().to_string())?) {
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
            let (mut sharing, mut threads) = (Sharing::default(), None);
            if all > 0 {
                let share_of_all = Share::new(args.threads, all as u64)?;
                sharing = share(args, &mut self.tasks, |environment, config| {
                    sizes(make_environment(environment, &config.env_args, &args.python, false)?)
                })?;
                threads = Some(share_of_all.with(&sharing, all as u64));
            }
            let many = threads.map(|share| Many { root: &args.path, runs: all, at_once: share.runs });
            let board = Board::new(args.quiet, args.log, many);
            let common = Common { board };
            interruption::begin(common.board.sayer());
            args.remember(&mut self.groups, &self.tasks)?;
            Ok((sharing, threads, common))
        };
        let (sharing, threads, common) = prepare().map_err(Failure::input)?;
        self.left_out.iter().flatten().for_each(|line| print_error(line));
        let left_out = self.left_out(args);
        let Some(share) = threads else {
            let Some(problem) = left_out else {
                let shown = args.path.display();
                let line = format!("all runs in {shown} are finished; give them more --steps or --until-return");
                common.board.say(&line);
                return Ok(());
            };
            return Err(Failure::Work(anyhow!(problem)));
        };
        let paths: Vec<_> = self.tasks.iter().map(|task| task.path.as_path()).collect();
        let work = |number: usize, common: &Common| {
            let (Task { path, plan, .. }, learner) = (&self.tasks[number], sharing.take(number));
            let Some(plan) = plan else { return resume_one(args, path, learner, share.threads, common) };
            let prepare = || {
                let new = NewRun::prepare(plan.clone(), learner, &args.python, share.threads)?;
                group::clear_unbegun(path)?;
                Ok(new)
            };
            begin(prepare().map_err(Failure::Input)?, Some(path), common)
        };
        match (at_once(&args.path, &paths, false, share, &sharing, &common, work), left_out) {
            (Ok(()), Some(problem)) => Err(Failure::Work(anyhow!(problem))),
            (Err(Failure::Work(error)), Some(problem)) => Err(Failure::Work(anyhow!("{error:#}; {problem}"))),
            (outcome, _) => outcome,
        }
    }

    /// Looks, before any run goes on, for what is wrong for all of them, which is an error, and for what is wrong for all of a
    /// group that are to begin, which leaves it out.
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
            NewRun::prepare(plan.clone(), None, &args.python, args.threads).map(drop)
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

    /// Writes what all runs are to go on with to their files and to those of their groups, before any of them does: whatever
    /// comes between, the next command knows it. Nothing is written to a run that another process trains; that is told when
    /// it is to go on.
    fn remember(&self, groups: &mut [Group], tasks: &[Task]) -> Result<()> {
        // What is wrong with one of them keeps all of them as they are.
        let adapted =
            groups.iter().map(|group| self.adapt(group.config()).with_context(|| group.path().display().to_string()));
        let adapted = adapted.collect::<Result<Vec<_>>>()?;
        for (group, config) in groups.iter_mut().zip(adapted) {
            group.replace_config(config)?;
        }
        for Task { path, .. } in tasks.iter().filter(|task| task.plan.is_none()) {
            let Ok(_lock) = RunDirectory::open(path)?.0.lock() else { continue };
            let (run, begun_with) = RunDirectory::open(path)?;
            let config = self.adapt(&begun_with)?;
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

    /// A run that is to go on, with what configuration, and what its last checkpoint is; none if that cannot be known, which is
    /// told when it is to go on.
    pub fn look(&self, path: &Path) -> Option<(RunDirectory, Config, Seen)> {
        let (run, begun_with) = RunDirectory::open(path).ok()?;
        let config = self.adapt(&begun_with).ok()?;
        let seen = look(&run, &config, false).ok()?;
        Some((run, config, seen))
    }

    /// The configuration with which a run goes on.
    pub fn adapt(&self, config: &Config) -> Result<Config> {
        let (steps, begun_with) = (self.steps.unwrap_or(config.steps), config.steps);
        anyhow::ensure!(
            steps >= begun_with,
            "--steps {steps} is fewer than the {begun_with} that the run is to have; give it at least as many"
        );
        let until_return = self.until_return.unwrap_or(config.until_return);
        let config = Config { steps, until_return, ..config.clone() };
        config.validate()?;
        Ok(config)
    }
}
