//! `sac ENVIRONMENT`, and what `sac resume` has in common with it: one run, or several at once in one process.

use crate::cli::{EnvArgs, PythonArgs, ResumeArgs, TrainArgs};
use crate::progress::{self, Board, Many, Progress, Watcher, print_error, quoted_path, short};
use crate::sharing::{Kind, Sharing, learner_config};
use crate::trust::{self, Named};
use crate::{Failure, MakeEnv, Outcome, find_preset, interruption, make_environment, to_json};
use anyhow::{Result, anyhow};
use serde_json::json;
use soft_actor_critic::actor::Evaluation;
use soft_actor_critic::config::{Config, UntilReturn};
use soft_actor_critic::device::{Device, Placed};
use soft_actor_critic::error::Error;
use soft_actor_critic::picture::plot;
use soft_actor_critic::run::checkpoint::{Checkpoints, Loaded};
use soft_actor_critic::run::{Group, InitFrom, Measurements, MetricsFiles, Plan, RunDirectory, config_file};
use soft_actor_critic::sac::{AgentLearner, Metrics};
use soft_actor_critic::statistics::{estimate, mean};
use soft_actor_critic::train::{Best, MAX_THREADS, Trainer, threads_for, with_threads};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What all runs of one command have in common.
pub struct Common {
    /// Where their progress is told.
    pub board: Board,
}

/// What a run ends with when nothing failed: the evaluation at its last step, if there was one.
pub type Trained = std::result::Result<Option<Evaluation>, Failure>;

/// A run that is ready to begin.
pub struct NewRun {
    plan: Plan,
    make_env: MakeEnv,
    threads: usize,
    init_from: Option<InitFrom>,
    /// If it shares one with others.
    learner: Option<AgentLearner>,
}

impl NewRun {
    /// Makes what the plan wants, but for the learner.
    pub fn prepare(
        plan: Plan,
        learner: Option<AgentLearner>,
        python: &PythonArgs,
        most_threads: usize,
    ) -> Result<Self> {
        plan.config.validate()?;
        let make_env = make_environment(&plan.environment, &plan.config.env_args, python, false)?;
        let init_from = plan.init_from.as_deref().map(|path| InitFrom::open(path, plan.with_replay)).transpose()?;
        let (make_env, threads) = number_of_threads(most_threads, make_env, &plan.config)?;
        Ok(Self { plan, make_env, threads, init_from, learner })
    }

    /// Learners for it and the others of its group, where they can share a GPU.
    fn share(mut self, seeds: Range<u64>) -> Result<(Self, Sharing)> {
        let Plan { environment, config, device, .. } = &self.plan;
        let preloaded = self.init_from.as_ref().map_or(0, |init_from| init_from.preloaded(config));
        let (make_env, observation_size, half_range) = sizes(self.make_env)?;
        self.make_env = make_env;
        device.check_config(config, half_range.len())?;
        device.check()?;
        let kind = Kind::new(environment, config, *device, preloaded);
        let sharing = Sharing::new(&kind, &seeds.collect::<Vec<_>>(), observation_size, &half_range)?;
        Ok((self, sharing))
    }
}

/// `sac ENVIRONMENT`
pub fn train(args: &TrainArgs, EnvArgs { env_args }: &EnvArgs, python: &PythonArgs) -> Outcome {
    let prepare = || -> Result<_> {
        let mut config = match (&args.config, &args.preset) {
            (Some(path), _) => config_file::read(path, &args.environment)?,
            (None, Some(name)) => config_file::parse(find_preset(name)?, &args.environment)?,
            (None, None) => Config::default(),
        };
        python.check([args.environment.as_str()])?;
        args.apply(&mut config);
        config.env_args.extend(env_args.iter().cloned());
        let named = Named {
            by: args.config.as_deref().unwrap_or(Path::new(&args.environment)),
            environment: &args.environment,
            is_given: true,
            arguments: &config.env_args,
            given: env_args,
        };
        trust::check(&[named], args.trust)?;
        let seeds = args.seeds.clone();
        let share = seeds.as_ref().map(|seeds| Share::new(args.threads, seeds.end - seeds.start)).transpose()?;
        if let Some(Range { start, end }) = seeds {
            // Whatever is wrong with one of them is found before the first begins.
            Config { seed: end - 1, ..config.clone() }.validate()?;
            config.seed = start;
        }
        let plan = Plan {
            environment: args.environment.clone(),
            config,
            device: args.device,
            init_from: match (&args.init_from, &seeds) {
                // A group may be resumed from elsewhere.
                (Some(path), Some(_)) => Some(std::path::absolute(path)?),
                (path, _) => path.clone(),
            },
            with_replay: args.with_replay,
        };
        let mut first = NewRun::prepare(plan, None, python, share.map_or(args.threads, |share| share.threads))?;
        let mut sharing = Sharing::default();
        if let Some(seeds) = &seeds {
            (first, sharing) = first.share(seeds.clone())?;
        }
        Ok((seeds.zip(share), first, sharing))
    };
    interruption::catch().map_err(Failure::input)?;
    let (many, mut first, sharing) = prepare().map_err(Failure::input)?;
    let common = |many: Option<Many>| Common { board: Board::new(args.quiet, args.log, many) };
    let Some((seeds, share)) = many else {
        return begin(first, args.out.as_deref(), &common(None)).map(drop);
    };
    let share = share.with(&sharing, seeds.end - seeds.start);
    first.learner = sharing.take(0);
    interruption::begin(Board::new(args.quiet, args.log, None).sayer());
    let group = Group::create(args.out.as_deref(), seeds, first.plan.clone()).map_err(Failure::input)?;
    let runs: Vec<_> = group.runs().collect();
    let paths: Vec<_> = runs.iter().map(|(path, _)| path.as_path()).collect();
    let first = Mutex::new(Some(first));
    let common = common(Some(Many { root: group.path(), runs: runs.len(), at_once: share.runs }));
    interruption::begin(common.board.sayer());
    let outcome = at_once(group.path(), &paths, true, share, &sharing, &common, |number, common| {
        // The first run has been prepared already, and the others are not all to be in memory before their time.
        let prepared = first.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| number == 0);
        let (path, plan) = &runs[number];
        let prepare = || NewRun::prepare(plan.clone(), sharing.take(number), python, share.threads);
        begin(prepared.map_or_else(prepare, Ok).map_err(Failure::input)?, Some(path), common)
    });
    group.withdraw_if_empty();
    outcome
}

/// How the threads of a command are shared between its runs.
#[derive(Clone, Copy)]
pub struct Share {
    /// Runs at once.
    pub runs: usize,
    /// Threads of each.
    pub threads: usize,
}

impl Share {
    /// As many runs at once as there may be threads, and more threads for each where there are fewer runs.
    pub fn new(most: usize, runs: u64) -> Result<Self, Error> {
        if most > MAX_THREADS {
            return Err(Error::Threads { threads: most });
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let all = if most == 0 { cores } else { most.min(cores) };
        let runs = usize::try_from(runs).unwrap_or(usize::MAX).min(all);
        Ok(Self { runs, threads: all / runs })
    }

    /// The same where some of `all` runs share a GPU: those are all at once.
    pub fn with(self, sharing: &Sharing, all: u64) -> Self {
        match sharing.runs() {
            0 => self,
            shared => {
                Self { runs: shared + self.runs.min(usize::try_from(all).unwrap_or(usize::MAX) - shared), threads: 1 }
            }
        }
    }
}

/// Does the work of the runs in a directory `root`, as many at once as there may be, and tells how they did together. One that
/// fails does not keep the others from going on, unless they are `alike` and it could not even be begun.
pub fn at_once(
    root: &Path,
    runs: &[&Path],
    alike: bool,
    share: Share,
    sharing: &Sharing,
    common: &Common,
    work: impl Fn(usize, &Common) -> Trained + Sync,
) -> Outcome {
    if let Some(note) = &sharing.note {
        common.board.say(note);
    }
    let next = AtomicUsize::new(0);
    let ended: Vec<Mutex<Option<Trained>>> = runs.iter().map(|_| Mutex::new(None)).collect();
    let none_more = || {
        // Those that share a GPU with them do not wait for what is not begun.
        let first = next.swap(runs.len(), Ordering::Relaxed);
        (first..runs.len()).for_each(|number| drop(sharing.take(number)));
    };
    let worker = || {
        while !interruption::is_asked_for() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(run) = runs.get(number) else { break };
            let trained = work(number, common);
            match &trained {
                Err(Failure::Input(_)) if alike => none_more(),
                Err(Failure::Input(error) | Failure::Work(error)) => {
                    let name = progress::name_within(root, run);
                    common.board.suspend(|| print_error(&format!("{name}: {error:#}")));
                }
                Ok(_) | Err(Failure::Interrupted) => {}
            }
            common.board.end();
            *ended[number].lock().unwrap_or_else(PoisonError::into_inner) = Some(trained);
        }
        if interruption::is_asked_for() {
            none_more();
        }
    };
    let mut refused = None;
    std::thread::scope(|scope| {
        for _ in 0..share.runs {
            if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, worker) {
                refused = Some(anyhow!("no more threads can be started ({error}); train fewer runs at once"));
                none_more();
                break;
            }
        }
    });
    common.board.close();
    let (all, quoted) = (runs.len(), quoted_path(root));
    let (mut returns, mut finished, mut failed, mut begun, mut bad_input) = (Vec::new(), 0, 0, 0, None);
    for (run, trained) in runs.iter().zip(ended) {
        match trained.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(Ok(evaluation)) => {
                (finished, begun) = (finished + 1, begun + 1);
                returns.extend(evaluation.map(|evaluation| evaluation.mean()));
            }
            Some(Err(Failure::Input(error))) if alike => bad_input = bad_input.or(Some((run, error))),
            Some(Err(Failure::Input(_) | Failure::Work(_))) => (failed, begun) = (failed + 1, begun + 1),
            Some(Err(Failure::Interrupted)) => begun += 1,
            // After a bad input, or after an interruption.
            None => {}
        }
    }
    let bad_input = bad_input.map(|(run, error)| match begun {
        0 => error,
        _ => anyhow!("{}: {error:#}", progress::name_within(root, run)),
    });
    if let Some(error) = bad_input.or(refused.filter(|_| begun < all)) {
        let left = all - begun;
        return Err(match begun {
            0 => Failure::Input(error),
            _ => Failure::Work(anyhow!(
                "{error:#}; {left} of {all} runs have not been begun, go on with: sac resume {quoted}"
            )),
        });
    }
    // Runs that are resumed together need have nothing else in common.
    if alike && returns.len() > 1 {
        let over = estimate(&[&returns], |strata| mean(&strata[0]));
        common.board.say(&format!(
            "{} runs: mean return {}, 95 % bootstrap interval {} to {}",
            returns.len(),
            short(over.value, 1),
            short(over.low, 1),
            short(over.high, 1)
        ));
    }
    if finished + failed < all {
        common.board.say(&format!("{finished} of {all} runs are finished; go on with: sac resume {quoted}"));
        return Err(Failure::Interrupted);
    }
    if failed > 0 {
        let problem = format!("{failed} of {all} runs failed, see above; go on with: sac resume {quoted}");
        return Err(Failure::Work(anyhow!(problem)));
    }
    common.board.say(&if alike && !returns.is_empty() {
        format!("saved; compare them with others: sac compare {quoted} DIR")
    } else {
        format!("saved; list them with: sac runs {quoted}")
    });
    Ok(())
}

/// Begins a run in a directory, or in one of its own choice, and trains it.
pub fn begin(new: NewRun, out: Option<&Path>, common: &Common) -> Trained {
    let NewRun { plan: Plan { environment, config, device, .. }, make_env, threads, init_from, learner } = new;
    let begin = || -> Result<_> {
        let preloaded = init_from.as_ref().map_or(0, |init_from| init_from.preloaded(&config));
        let (mut trainer, placed) = make_trainer(make_env, config, device, preloaded, learner)?;
        let begun = init_from.map(|init_from| init_from.begin(&mut trainer, &environment)).transpose()?;
        let origin = begun.as_ref().map(|begun| begun.origin.as_str());
        interruption::begin(common.board.sayer());
        if interruption::is_asked_for() {
            return Err(Error::Interrupted.into());
        }
        let run = RunDirectory::create(out, &environment, trainer.config(), origin)?;
        Ok((trainer, placed, begun, run))
    };
    let work = || {
        let (mut trainer, (device, note), begun, run) = begin().map_err(Failure::input)?;
        let open = |trainer: &mut Trainer| -> Result<_> {
            let mut files = MetricsFiles::create(&run, trainer.config())?;
            let mut checkpoints = Checkpoints::create(&run, &device.to_string(), trainer.config().checkpoint_every)?;
            // Before the first checkpoint, with which the run counts as begun, and has a policy.
            run.save_policy(&trainer.actor()?)?;
            checkpoints.save(trainer, &mut files)?;
            run.sync()?;
            Ok((files, checkpoints))
        };
        let (files, checkpoints) = open(&mut trainer).map_err(Failure::work)?;
        let config = trainer.config();
        let place = run.path().display();
        let beginning =
            format!("training on {environment}: {} steps, seed {}, into {place}", config.steps, config.seed);
        let notes = begun.map(|begun| begun.note).into_iter().chain(note);
        let notes: Vec<_> = notes.chain(trainer.notes().iter().cloned()).collect();
        let progress = common.board.progress(run.path(), config, 0, &beginning, &notes);
        Session { trainer, run, files, checkpoints, progress, evaluation_episode: None }.go_on()
    };
    with_threads(threads, work).map_err(Failure::input)?
}

/// Goes on with one run.
pub fn resume_one(
    args: &ResumeArgs,
    path: &Path,
    learner: Option<AgentLearner>,
    most_threads: usize,
    common: &Common,
) -> Trained {
    let prepare = || -> Result<_> {
        let (run, begun_with) = RunDirectory::open(path)?;
        let make_env = make_environment(run.environment(), &begun_with.env_args, &args.python, false)?;
        let config = args.adapt(&begun_with)?;
        let (checkpoints, loaded) = Checkpoints::open(&run, &config)?;
        // Until the run was locked, another process may have given it more steps.
        let is_same = RunDirectory::open(path)?.1 == begun_with;
        anyhow::ensure!(is_same, "another process has just changed {}; resume it again", path.display());
        let step = loaded.state.steps;
        // At the end that it was begun with it is finished; anywhere else there must be something left to do.
        let left = step < config.steps || config.steps == begun_with.steps;
        anyhow::ensure!(
            left,
            "the run is at step {step} already, and is to have {} steps; give it more --steps",
            config.steps
        );
        // A row of an evaluation that is still to be made is written again.
        let last_return =
            Measurements::read(&run)?.evaluation_at(step).filter(|_| loaded.state.before_evaluation.is_none());
        let has_reached = last_return.is_some_and(|value| config.is_reached_by(value));
        let (make_env, threads) = number_of_threads(most_threads, make_env, &config)?;
        Ok((run, config, begun_with, has_reached, make_env, threads, checkpoints, loaded))
    };
    let (run, config, begun_with, has_reached, make_env, threads, mut checkpoints, loaded) =
        prepare().map_err(Failure::input)?;
    let (place, quoted) = (run.path().display().to_string(), quoted_path(run.path()));
    let work = || {
        let begin = || -> Result<_> {
            let Loaded { state, replay, metrics, device, warning } = loaded;
            let (step, steps) = (state.steps, config.steps);
            let trained_on: Device = device.parse().map_err(|_| anyhow!("its device {device:?} is unknown"))?;
            let device = args.device.unwrap_or(trained_on);
            let (mut trainer, (device, note)) = make_trainer(make_env, config, device, state.preloaded, learner)?;
            let mut watcher = Watcher::new(common.board.sayer());
            trainer.watch(move |activity| watcher.watch(activity));
            let episodes_go_on = trainer.restore(state, replay)?;
            let mut notes: Vec<_> = warning.into_iter().collect();
            notes.extend(note);
            notes.extend(trainer.notes().iter().cloned());
            let beginning = format!("resuming {place} from step {step} of {steps}");
            if device != trained_on {
                notes.push(format!(
                    "the run was trained on {trained_on} until here; its results are no longer those of {trained_on}"
                ));
            }
            if !episodes_go_on {
                notes.push(
                    "the episode cannot be repeated: the environment does not answer as it did, or the replay memory no \
                     longer holds all of it; a new episode begins"
                        .into(),
                );
            }
            interruption::begin(common.board.sayer());
            checkpoints.set_device(&device.to_string());
            let files = MetricsFiles::reopen(&run, trainer.config(), metrics)?;
            if trainer.config().keep_best {
                // What came after the checkpoint need not come again, on another device for instance.
                run.save_best(trainer.best_actor().as_ref())?;
            }
            if begun_with != *trainer.config() {
                run.replace_config(trainer.config())?;
            }
            Ok((trainer, files, beginning, notes))
        };
        let (trainer, files, beginning, notes) = begin().map_err(Failure::input)?;
        let progress = common.board.progress(run.path(), trainer.config(), trainer.steps(), &beginning, &notes);
        if trainer.is_finished() && !trainer.evaluation_is_due() || has_reached {
            // It may have been killed while it took away what the last checkpoint leaves behind.
            checkpoints.finish().map_err(Failure::work)?;
            tell_of_picture(plot::save_curve(&run, trainer.config()), &run, &progress);
            let mend =
                if has_reached { "go on with --until-return off or a higher one" } else { "give it more --steps" };
            progress.say(&format!("it is finished; {mend}, or evaluate it: sac eval {quoted}"));
            return Ok(None);
        }
        Session { trainer, run, files, checkpoints, progress, evaluation_episode: None }.go_on()
    };
    with_threads(threads, work).map_err(Failure::input)?
}

/// The number of threads for a run.
fn number_of_threads(most: usize, make_env: MakeEnv, config: &Config) -> Result<(MakeEnv, usize)> {
    let (make_env, observation_size, half_range) = sizes(make_env)?;
    Ok((make_env, threads_for(config, observation_size, half_range.len(), most)?))
}

/// The number of observation dimensions, and half the range of each action dimension. That takes an environment, which is then
/// the first to be made.
pub fn sizes(mut make_env: MakeEnv) -> Result<(MakeEnv, usize, Vec<f32>)> {
    let env = make_env()?;
    let (observation_size, half_range) = (env.observation_size(), env.action_bounds().half_range());
    let mut first = Some(env);
    Ok((Box::new(move || first.take().map_or_else(&mut make_env, Ok)), observation_size, half_range))
}

/// A trainer before its first step, whose replay memory will begin with so many transitions, with its own learner unless it has
/// one that is shared; where it trains, and what there is to tell about that.
fn make_trainer(
    make_env: MakeEnv,
    config: Config,
    device: Device,
    preloaded: u64,
    shared: Option<AgentLearner>,
) -> Result<(Trainer, (Device, Option<String>))> {
    let mut place = None;
    let mut trainer = Trainer::with_learner(make_env, config, |config, observation_size, half_range| {
        if let Some(learner) = shared {
            place = Some((device, None));
            return Ok(Box::new(learner));
        }
        let config = &learner_config(config, preloaded);
        let Placed { learner, device, note } = device.learner(config, observation_size, half_range)?;
        place = Some((device, note));
        Ok(learner)
    })?;
    let (device, note): (Device, Option<String>) = place.expect("a trainer has a learner");
    let whole = if trainer.is_on_device() { "; the whole run is on the device" } else { "" };
    Ok((trainer, (device, note.map(|note| note + whole))))
}

/// Without the picture in its directory nothing of a run is lost, so that a failure is told and no more.
fn tell_of_picture(drawn: Result<(), Error>, run: &RunDirectory, progress: &Progress) {
    if let Err(error) = drawn {
        let quoted = quoted_path(run.path());
        progress.warn(&format!("{error}; the run itself is saved, draw it elsewhere with: sac plot {quoted}"));
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
    /// By the evaluation after the last step.
    EvaluationFailed(Error),
}

/// A run that is being trained.
struct Session {
    trainer: Trainer,
    run: RunDirectory,
    files: MetricsFiles,
    checkpoints: Checkpoints,
    progress: Progress,
    /// How long an episode of the last evaluation took.
    evaluation_episode: Option<Duration>,
}

impl Session {
    /// Trains to the end, and leaves the run as it then is.
    fn go_on(mut self) -> Trained {
        let started = Instant::now();
        let Config { steps, seed, .. } = *self.trainer.config();
        let (run, environment, step) = (self.run.path(), self.run.environment(), self.trainer.steps());
        self.progress.event(&json!({
            "event": "begin", "run": run, "environment": environment, "seed": seed, "step": step, "steps": steps,
        }));
        let mut watcher = self.progress.watcher();
        self.trainer.watch(move |activity| watcher.watch(activity));
        let ended = self.train(started);
        self.progress.close();

        let (steps, elapsed) = (self.trainer.steps(), started.elapsed());
        let mut policy_is_lost = false;
        if !matches!(ended, Ok(End::Evaluated(_))) {
            // Cut short: what was learned and measured since the last evaluation is kept as well, unless what failed is
            // the device that has it.
            let saved = self.save_policy();
            policy_is_lost = saved.is_err();
            let is_between_steps =
                matches!(ended, Ok(End::Interrupted | End::EnvironmentFailed(_) | End::EvaluationFailed(_)));
            let checkpointed = if is_between_steps { self.checkpoint() } else { Ok(()) };
            let written = self.write_rest(steps, elapsed);
            if ended.is_ok() {
                saved.and(checkpointed).and(written).map_err(Failure::work)?;
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
        let (path, quoted) = (self.run.path().display(), quoted_path(self.run.path()));
        let evaluation = match ended {
            Ok(End::Evaluated(evaluation)) => Some(evaluation),
            Ok(End::NotEvaluated) => None,
            Ok(End::Interrupted) => {
                let mend = if progress.is_one_of_many() { "" } else { &format!(", go on with: sac resume {quoted}") };
                let during = if self.trainer.evaluation_is_due() { " in the evaluation" } else { "" };
                progress.say(&format!("interrupted{during} at step {steps}; the run is saved{mend}"));
                end("interrupted", None);
                return Err(Failure::Interrupted);
            }
            Ok(End::EnvironmentFailed(error)) => {
                end("failed", None);
                let context =
                    format!("training stopped, {path} holds the run until then, go on with `sac resume {quoted}`");
                return Err(Failure::Work(anyhow::Error::from(error).context(context)));
            }
            Ok(End::EvaluationFailed(error)) => {
                end("failed", None);
                let context = format!(
                    "the evaluation at step {steps} failed, {path} holds the run until there, go on from step {steps} with \
                     `sac resume {quoted}`"
                );
                return Err(Failure::Work(anyhow::Error::from(error).context(context)));
            }
            Err(error) => {
                end("failed", None);
                let policy = if policy_is_lost { ", its policy the one saved last" } else { "" };
                // What is not finite would not be so the next time either.
                let diverged = matches!(error.downcast_ref(), Some(soft_actor_critic::error::Error::NonFinite { .. }));
                let mend =
                    if diverged { "" } else { &format!("; mend what is wrong, and go on with `sac resume {quoted}`") };
                let context = format!("training stopped, {path} holds the run until then{policy}{mend}");
                return Err(Failure::Work(error.context(context)));
            }
        };
        let last = self.checkpoints.save(&mut self.trainer, &mut self.files);
        last.and_then(|()| self.checkpoints.finish()).map_err(Failure::work)?;
        end("finished", evaluation.as_ref());
        progress.say(&format!("{steps} steps in {seconds:.1} s"));
        if let Some(evaluation) = &evaluation {
            progress.say(&format!("deterministic policy: {}", progress::describe(evaluation)));
            if let UntilReturn::Fixed(target) = config.until_return {
                let verdict = if config.is_reached_by(evaluation.mean()) { "reached" } else { "not reached" };
                progress.say(&format!("return {target} {verdict} after {steps} steps and {seconds:.1} s"));
            }
        }
        if let Some(Best { step, mean_return, .. }) = self.trainer.best() {
            progress.say(&format!(
                "best evaluation: mean return {} at step {step}; evaluate it further with: sac eval {quoted} --best",
                short(*mean_return, 1)
            ));
        }
        if !progress.is_one_of_many() {
            progress.say(&format!("saved; evaluate it further with: sac eval {quoted}"));
        }
        Ok(evaluation)
    }

    fn train(&mut self, started: Instant) -> Result<End> {
        // What a run has still to do at the step that it goes on from.
        let mut ended = if self.trainer.ended().is_empty() && !self.trainer.evaluation_is_due() {
            None
        } else {
            self.after_step(started)?
        };
        loop {
            if let Some(ended) = ended {
                return Ok(ended);
            }
            if interruption::is_asked_for() {
                return Ok(End::Interrupted);
            }
            if self.checkpoints.is_due(&self.trainer) {
                self.checkpoint()?;
            }
            let most = self.checkpoints.steps_until_due(&self.trainer);
            match self.trainer.advance(most) {
                Err(Error::Interrupted) => return Ok(End::Interrupted),
                Err(error @ Error::Environment { .. }) => return Ok(End::EnvironmentFailed(error)),
                stepped => stepped?,
            };
            ended = self.after_step(started)?;
        }
    }

    /// Makes the evaluation that is due after a step, if one is, and writes what has happened there. Returns how training has
    /// ended, if it has.
    fn after_step(&mut self, started: Instant) -> Result<Option<End>> {
        let step = self.trainer.steps();
        self.progress.step(step);
        let evaluation = match self.evaluate_if_due() {
            Err(Error::Interrupted) => return Ok(Some(End::Interrupted)),
            Err(error @ Error::Evaluation { .. }) => return Ok(Some(End::EvaluationFailed(error))),
            evaluated => evaluated?,
        };
        if self.trainer.best().is_some_and(|best| best.step == step) {
            self.run.save_best(self.trainer.best_actor().as_ref())?;
        }
        if !self.trainer.ended().is_empty() || evaluation.is_some() {
            let metrics = self.trainer.metrics()?;
            self.write(started.elapsed(), evaluation.as_ref(), metrics)?;
        }
        Ok(match evaluation {
            Some(evaluation)
                if self.trainer.is_finished() || self.trainer.config().is_reached_by(evaluation.mean()) =>
            {
                Some(End::Evaluated(evaluation))
            }
            None if self.trainer.is_finished() => Some(End::NotEvaluated),
            _ => None,
        })
    }

    fn evaluate_if_due(&mut self) -> Result<Option<Evaluation>, Error> {
        /// From when on an evaluation is not made before there is a checkpoint, and from when on it is announced.
        const SAVED: f64 = 1.0;
        const ANNOUNCED: f64 = 2.0;
        if !self.trainer.evaluation_is_due() {
            return Ok(None);
        }
        let episodes = self.trainer.episodes_of_evaluation();
        let seconds = self.evaluation_episode.map(|duration| duration.as_secs_f64() * episodes as f64);
        // An evaluation can be long, and what was learned must not depend on its end.
        self.save_policy()?;
        if seconds.is_none_or(|seconds| seconds >= SAVED) {
            self.checkpoint()?;
        }
        if let Some(seconds) = seconds.filter(|&seconds| seconds >= ANNOUNCED) {
            let (what, option) = if self.trainer.is_finished() {
                ("the evaluation at the end", "--final-episodes")
            } else {
                ("the evaluation", "--eval-episodes")
            };
            self.progress.say(&format!("{what} has {episodes} episodes and takes about {seconds:.0} s ({option})"));
        }
        let began = Instant::now();
        let evaluation = self.trainer.evaluate_if_due()?;
        self.evaluation_episode = Some(began.elapsed().div_f64(episodes as f64));
        Ok(evaluation)
    }

    /// Writes rows for the episodes that ended with the last step, and for its evaluation.
    fn write(&mut self, elapsed: Duration, evaluation: Option<&Evaluation>, metrics: Metrics) -> Result<(), Error> {
        let rows = self.files.write(self.trainer.steps(), elapsed, self.trainer.ended(), evaluation, metrics)?;
        rows.iter().for_each(|row| self.progress.row(row));
        Ok(())
    }

    /// Writes the last rows of a run that has been cut short.
    fn write_rest(&mut self, step: u64, elapsed: Duration) -> Result<(), Error> {
        let metrics = self.trainer.last_metrics();
        if self.trainer.evaluation_is_due() {
            self.write(elapsed, None, metrics)?;
        }
        if let Some(row) = self.files.write_rest(step, elapsed, metrics)? {
            self.progress.row(&row);
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        self.checkpoints.save(&mut self.trainer, &mut self.files)
    }

    fn save_policy(&mut self) -> Result<(), Error> {
        self.run.save_policy(&self.trainer.actor()?)
    }
}
