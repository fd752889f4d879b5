//! One run of the program: begun or resumed with the library's [`session`](soft_actor_critic::session), and what the
//! user is told of it.

use crate::program::agents::{Agents, Kind};
use crate::program::arguments::PythonArgs;
use crate::program::environment::make_environment;
use crate::program::failure::Failure;
use crate::program::interruption;
use crate::program::output::{describe, quoted_path, short, to_json};
use crate::program::progress::{Board, Progress, Watcher};
use anyhow::{Result, anyhow};
use serde_json::json;
use soft_actor_critic::actor::Evaluation;
use soft_actor_critic::config::{Config, UntilReturn};
use soft_actor_critic::error::Error;
use soft_actor_critic::run::{Plan, RunDirectory};
use soft_actor_critic::sac::AgentLearner;
use soft_actor_critic::session::{Changes, End, Ended, NewRun, SavedRun, Session};
use soft_actor_critic::train::{Best, with_threads};
use std::ops::Range;
use std::path::Path;

/// What a run ends with when nothing failed: the evaluation at its last step, if there was one.
pub type Trained = std::result::Result<Option<Evaluation>, Failure>;

/// What a run needs that is to begin.
pub fn prepare(plan: Plan, python: &PythonArgs, most_threads: usize) -> Result<NewRun> {
    // That is told before what its environment may lack.
    plan.config.validate()?;
    let make_env = make_environment(&plan.environment, &plan.config.env_args, python, false)?;
    Ok(NewRun::prepare(plan, make_env, most_threads)?)
}

/// Learners for a new run and the others of its group, which have these seeds, where they can share a GPU.
pub fn share(new: NewRun, seeds: Range<u64>) -> Result<(NewRun, Agents)> {
    let (new, observation_size, half_range) = new.sizes()?;
    let Plan { environment, config, device, .. } = new.plan();
    device.check_config(config, half_range.len())?;
    device.check()?;
    let kind = Kind::new(environment, config, *device, new.preloaded());
    let agents = Agents::new(&kind, &seeds.collect::<Vec<_>>(), observation_size, &half_range)?;
    Ok((new, agents))
}

/// Begins a run in a directory, or in one of its own choice, and trains it, with the learner if it shares one with
/// others.
pub fn begin(new: NewRun, learner: Option<AgentLearner>, out: Option<&Path>, board: &Board) -> Trained {
    let work = |new: NewRun| {
        let begin = || -> Result<_, Error> {
            let made = new.make(learner)?;
            interruption::begin(board.sayer());
            if interruption::is_asked_for() {
                return Err(Error::Interrupted);
            }
            let run = made.create(out)?;
            Ok((made, run))
        };
        let (made, run) = begin().map_err(Failure::input)?;
        let session = made.begin(run).map_err(Failure::work)?;
        let (config, run) = (session.trainer().config(), session.run());
        let (environment, place) = (run.environment(), run.path().display());
        let beginning =
            format!("training on {environment}: {} steps, seed {}, into {place}", config.steps, config.seed);
        let progress = board.progress(run.path(), config, 0, &beginning, session.notes());
        train(session, progress)
    };
    with_threads(new.threads(), || work(new)).map_err(Failure::input)?
}

/// The configuration with which a run goes on that was begun with `config`.
pub fn adapt(changes: Changes, config: &Config) -> Result<Config> {
    let (steps, begun_with) = (changes.steps.unwrap_or(config.steps), config.steps);
    anyhow::ensure!(
        steps >= begun_with,
        "--steps {steps} is fewer than the {begun_with} that the run is to have; give it at least as many"
    );
    Ok(changes.adapt(config)?)
}

/// Resumes a run, with the learner if it shares one with others.
pub fn resume(
    path: &Path,
    changes: Changes,
    learner: Option<AgentLearner>,
    python: &PythonArgs,
    most_threads: usize,
    board: &Board,
) -> Trained {
    let open = || -> Result<_> {
        let (run, begun_with) = RunDirectory::open(path)?;
        let make_env = make_environment(run.environment(), &begun_with.env_args, python, false)?;
        adapt(changes, &begun_with)?;
        let saved = SavedRun::open(path, changes, make_env, most_threads)?;
        let (step, steps) = (saved.step(), saved.config().steps);
        anyhow::ensure!(
            saved.can_go_on(),
            "the run is at step {step} already, and is to have {steps} steps; give it more --steps"
        );
        Ok(saved)
    };
    let work = |saved: SavedRun| {
        let resume = || -> Result<_, Error> {
            let mut watcher = Watcher::new(board.sayer());
            let restored = saved.restore(learner, move |activity| watcher.watch(activity))?;
            interruption::begin(board.sayer());
            restored.resume()
        };
        let session = resume().map_err(Failure::input)?;
        let (config, step, path) = (session.trainer().config(), session.trainer().steps(), session.run().path());
        let beginning = format!("resuming {} from step {step} of {}", path.display(), config.steps);
        let progress = board.progress(path, config, step, &beginning, session.notes());
        train(session, progress)
    };
    let saved = open().map_err(Failure::input)?;
    with_threads(saved.threads(), || work(saved)).map_err(Failure::input)?
}

/// Trains a run to its end, and tells how that went.
fn train(mut session: Session, mut progress: Progress) -> Trained {
    let has_reached = session.has_reached();
    if !session.is_finished() {
        let (run, trainer) = (session.run(), session.trainer());
        let Config { steps, seed, .. } = *trainer.config();
        progress.event(&json!({
            "event": "begin", "run": run.path(), "environment": run.environment(), "seed": seed,
            "step": trainer.steps(), "steps": steps,
        }));
        let mut watcher = progress.watcher();
        session.watch(move |activity| watcher.watch(activity));
    }
    let Ended { end, trainer, run, seconds, picture } = session.train(&mut progress).map_err(Failure::work)?;
    let (steps, config) = (trainer.steps(), trainer.config());
    let (path, quoted) = (run.path().display(), quoted_path(run.path()));
    let tell_of_picture = || {
        // Without it nothing of a run is lost, so that a failure is told and no more.
        if let Err(error) = &picture {
            progress.warn(&format!("{error}; the run itself is saved, draw it elsewhere with: sac plot {quoted}"));
        }
    };
    let tell_end = |status: &str, evaluation: Option<&Evaluation>| {
        // Where more has failed than a picture, that is told alone.
        if status != "failed" {
            tell_of_picture();
        }
        progress.event(&json!({
            "event": "end", "status": status, "run": run.path(), "step": steps, "seconds": seconds,
            "evaluation": evaluation.map(to_json),
        }));
    };
    let fail = |error: Error, context: String| {
        tell_end("failed", None);
        Err(Failure::Work(anyhow!(error).context(context)))
    };
    let evaluation = match end {
        End::Finished(evaluation) => evaluation,
        End::WasFinished => {
            tell_of_picture();
            let mend =
                if has_reached { "go on with --until-return off or a higher one" } else { "give it more --steps" };
            progress.say(&format!("it is finished; {mend}, or evaluate it: sac eval {quoted}"));
            return Ok(None);
        }
        End::Interrupted => {
            let mend = if progress.is_one_of_many() { "" } else { &format!(", go on with: sac resume {quoted}") };
            let during = if trainer.evaluation_is_due() { " in the evaluation" } else { "" };
            progress.say(&format!("interrupted{during} at step {steps}; the run is saved{mend}"));
            tell_end("interrupted", None);
            return Err(Failure::Interrupted);
        }
        End::EnvironmentFailed(error) => {
            let context =
                format!("training stopped, {path} holds the run until then, go on with `sac resume {quoted}`");
            return fail(error, context);
        }
        End::EvaluationFailed(error) => {
            let context = format!(
                "the evaluation at step {steps} failed, {path} holds the run until there, go on from step {steps} with \
                 `sac resume {quoted}`"
            );
            return fail(error, context);
        }
        End::Failed { error, policy_is_saved } => {
            let policy = if policy_is_saved { "" } else { ", its policy the one saved last" };
            // What is not finite would not be so the next time either.
            let diverged = matches!(error, Error::NonFinite { .. });
            let fix = if diverged { "" } else { &format!("; fix that, and go on with `sac resume {quoted}`") };
            return fail(error, format!("training stopped, {path} holds the run until then{policy}{fix}"));
        }
    };
    tell_end("finished", evaluation.as_ref());
    progress.say(&format!("{steps} steps in {seconds:.1} s"));
    if let Some(evaluation) = &evaluation {
        progress.say(&format!("deterministic policy: {}", describe(evaluation)));
        if let UntilReturn::Fixed(target) = config.until_return {
            let verdict = if config.is_reached_by(evaluation.mean()) { "reached" } else { "not reached" };
            progress.say(&format!("return {target} {verdict} after {steps} steps and {seconds:.1} s"));
        }
    }
    if let Some(Best { step, mean_return, .. }) = trainer.best() {
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
