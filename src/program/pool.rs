//! Many runs of one command, on threads of their own.

use crate::program::agents::Agents;
use crate::program::failure::{Failure, Outcome};
use crate::program::interruption;
use crate::program::output::{name_within, print_error, quoted_path, short};
use crate::program::progress::Board;
use crate::program::session::Trained;
use anyhow::{Result, anyhow};
use soft_actor_critic::error::Error;
use soft_actor_critic::statistics::{estimate, mean};
use soft_actor_critic::train::MAX_THREADS;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How the threads of a command are shared between its runs.
#[derive(Clone, Copy)]
pub struct Budget {
    /// Runs at once.
    pub runs: usize,
    /// Threads of each.
    pub threads: usize,
}

impl Budget {
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
    pub fn with(self, agents: &Agents, all: u64) -> Self {
        match agents.runs() {
            0 => self,
            shared => {
                Self { runs: shared + self.runs.min(usize::try_from(all).unwrap_or(usize::MAX) - shared), threads: 1 }
            }
        }
    }
}

/// Does the work of the runs in a directory `root`, as many at once as there may be, and tells how they did together.
/// One that fails does not keep the others from going on, unless they are `alike` and it could not even be begun.
pub fn at_once(
    root: &Path,
    runs: &[&Path],
    alike: bool,
    budget: Budget,
    agents: &Agents,
    board: &Board,
    work: impl Fn(usize, &Board) -> Trained + Sync,
) -> Outcome {
    if let Some(note) = &agents.note {
        board.say(note);
    }
    let next = AtomicUsize::new(0);
    let ended: Vec<Mutex<Option<Trained>>> = runs.iter().map(|_| Mutex::new(None)).collect();
    let none_more = || {
        // Those that share a GPU with them do not wait for what is not begun.
        let first = next.swap(runs.len(), Ordering::Relaxed);
        (first..runs.len()).for_each(|number| drop(agents.take(number)));
    };
    let worker = || {
        while !interruption::is_asked_for() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(run) = runs.get(number) else { break };
            let trained = work(number, board);
            match &trained {
                Err(Failure::Input(_)) if alike => none_more(),
                Err(Failure::Input(error) | Failure::Work(error)) => {
                    let name = name_within(root, run);
                    board.suspend(|| print_error(&format!("{name}: {error:#}")));
                }
                Ok(_) | Err(Failure::Interrupted) => {}
            }
            board.end();
            *ended[number].lock().unwrap_or_else(PoisonError::into_inner) = Some(trained);
        }
        if interruption::is_asked_for() {
            none_more();
        }
    };
    let mut refused = None;
    std::thread::scope(|scope| {
        for _ in 0..budget.runs {
            if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, worker) {
                refused = Some(anyhow!("no more threads can be started ({error}); train fewer runs at once"));
                none_more();
                break;
            }
        }
    });
    board.close();
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
        _ => anyhow!("{}: {error:#}", name_within(root, run)),
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
        board.say(&format!(
            "{} runs: mean return {}, 95 % bootstrap interval {} to {}",
            returns.len(),
            short(over.value, 1),
            short(over.low, 1),
            short(over.high, 1)
        ));
    }
    if finished + failed < all {
        board.say(&format!("{finished} of {all} runs are finished; go on with: sac resume {quoted}"));
        return Err(Failure::Interrupted);
    }
    if failed > 0 {
        let problem = format!("{failed} of {all} runs failed, see above; go on with: sac resume {quoted}");
        return Err(Failure::Work(anyhow!(problem)));
    }
    board.say(&if alike && !returns.is_empty() {
        format!("saved; compare them with others: sac compare {quoted} DIR")
    } else {
        format!("saved; list them with: sac runs {quoted}")
    });
    Ok(())
}
