//! Groups of runs against each other: how well each does, and how sure that is.

use super::measured_run::name_of;
use super::{MeasuredRun, list};
use crate::error::Error;
use crate::statistics::{Estimate, estimate, interquartile_mean, mean, probability_of_improvement};
use anyhow::{bail, ensure};
use std::path::{Path, PathBuf};

/// What there is to say of several groups; the first is the one that the others are compared with.
#[derive(Debug)]
pub struct Comparison {
    /// The names of the groups.
    pub groups: Vec<String>,
    /// One for each environment, in the order in which the groups have them.
    pub environments: Vec<EnvironmentScores>,
    /// For each group but the first, the probability that a run of it does better than one of the first on the same
    /// environment: the mean over the environments that both have, none if there are none. Samples are drawn anew within each
    /// group and environment.
    pub improvement: Vec<Option<Estimate>>,
}

/// How the groups do on one environment.
#[derive(Debug)]
pub struct EnvironmentScores {
    /// The environment.
    pub environment: String,
    /// The step at which runs are compared: the last evaluation of the one that has got least far.
    pub step: f64,
    /// One for each group, where it has runs on this environment.
    pub groups: Vec<Option<Scores>>,
}

/// How one group does on one environment.
#[derive(Debug)]
pub struct Scores {
    /// Its runs, by seed.
    pub runs: Vec<MeasuredRun>,
    /// The score of each: the mean return of its last evaluation until then.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: Estimate,
    /// Their interquartile mean.
    pub interquartile_mean: Estimate,
    /// Their mean less that of the first group, if this is another and that has runs here.
    pub difference: Option<Estimate>,
}

/// Compares the runs in one directory with those in others; a directory may be a single run.
///
/// # Errors
/// If a directory has no runs, or one without an evaluation; if a group has two runs of one seed, or runs that differ in more
/// than their seeds, on one environment.
pub fn compare(paths: &[PathBuf]) -> Result<Comparison, Error> {
    let groups: Vec<_> = paths.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
    let mut names: Vec<String> = Vec::new();
    for path in paths {
        let short = name_of(path);
        // Directories may be called the same in different places.
        let taken = paths.iter().filter(|other| name_of(other) == short).count() > 1;
        names.push(if taken { path.display().to_string().replace(char::is_control, "?") } else { short });
    }
    let mut environments: Vec<EnvironmentScores> = Vec::new();
    for run in groups.iter().flatten() {
        let environment = run.directory().environment();
        if environments.iter().all(|known| known.environment != environment) {
            environments.push(scores(environment, &groups)?);
        }
    }
    let improvement = (1..groups.len()).map(|group| improvement(&environments, group)).collect();
    Ok(Comparison { groups: names, environments, improvement })
}

/// The runs of a group.
fn open(path: &Path) -> Result<Vec<MeasuredRun>, Error> {
    let mut runs = Vec::new();
    for summary in list(path)? {
        let (run, shown) = (MeasuredRun::open(&summary.path)?, summary.path.display());
        if run.points(MeasuredRun::EVALUATION).is_empty() {
            return Err(Error::Files(format!("{shown} has no evaluation yet; wait for one, or compare it later")));
        }
        runs.push(run);
    }
    if runs.is_empty() {
        return Err(Error::Files(format!("{} holds no runs; name a run, or a directory of runs", path.display())));
    }
    runs.sort_by_key(|run| run.config().seed);
    Ok(runs)
}

/// How the groups do on an environment that at least one of them has.
fn scores(environment: &str, groups: &[Vec<MeasuredRun>]) -> Result<EnvironmentScores, Error> {
    let here = |group: &Vec<MeasuredRun>| -> Vec<MeasuredRun> {
        group.iter().filter(|run| run.directory().environment() == environment).cloned().collect()
    };
    let groups: Vec<Vec<MeasuredRun>> = groups.iter().map(here).collect();
    groups.iter().try_for_each(|runs| check(environment, runs))?;
    let last = |run: &MeasuredRun| run.points(MeasuredRun::EVALUATION).last().map_or(0.0, |point| point.0);
    let step = groups.iter().flatten().map(last).fold(f64::INFINITY, f64::min);
    let score = |run: &MeasuredRun| {
        let points = run.points(MeasuredRun::EVALUATION);
        // What is due at a step comes after the round of environments that reaches it.
        let round = run.config().envs as f64;
        let until = points.partition_point(|point| point.0 < step + round);
        // One that evaluates seldom may have its first only later.
        points[until.max(1) - 1].1
    };
    let values: Vec<Vec<f64>> = groups.iter().map(|runs| runs.iter().map(score).collect()).collect();
    let scores = groups.into_iter().enumerate().map(|(i, runs)| {
        (!runs.is_empty()).then(|| Scores {
            runs,
            mean: estimate(&[&values[i]], |strata| mean(&strata[0])),
            interquartile_mean: estimate(&[&values[i]], |strata| interquartile_mean(&strata[0])),
            difference: (i > 0 && !values[0].is_empty())
                .then(|| estimate(&[&values[i], &values[0]], |strata| mean(&strata[0]) - mean(&strata[1]))),
            values: values[i].clone(),
        })
    });
    Ok(EnvironmentScores { environment: environment.to_string(), step, groups: scores.collect() })
}

/// Whether these are runs of different seeds and nothing else.
fn check(environment: &str, runs: &[MeasuredRun]) -> Result<(), Error> {
    let different = || -> anyhow::Result<()> {
        for pair in runs.windows(2) {
            let [one, other] = [&pair[0], &pair[1]].map(|run| run.directory().path().display());
            if pair[0].config().seed == pair[1].config().seed {
                let seed = pair[0].config().seed;
                bail!("{one} and {other} are both of seed {seed} on {environment}; put them in groups of their own");
            }
            let same = pair[0].group()? == pair[1].group()?;
            ensure!(same, "{one} and {other} differ in more than their seeds; put them in groups of their own");
        }
        Ok(())
    };
    Ok(different()?)
}

/// How probably a run of a group does better than one of the first.
fn improvement(environments: &[EnvironmentScores], group: usize) -> Option<Estimate> {
    let pairs = environments.iter().filter_map(|scores| {
        let (ours, theirs) = (scores.groups[group].as_ref()?, scores.groups[0].as_ref()?);
        Some([ours.values.as_slice(), theirs.values.as_slice()])
    });
    let strata: Vec<&[f64]> = pairs.flatten().collect();
    (!strata.is_empty()).then(|| {
        estimate(&strata, |strata| {
            let each = strata.chunks(2).map(|pair| probability_of_improvement(&pair[0], &pair[1]));
            mean(&each.collect::<Vec<_>>())
        })
    })
}
