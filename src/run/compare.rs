//! Groups of runs against each other: how well each does, and how sure that is.

use super::MeasuredRun;
use super::measured_run::name_of;
use crate::error::Error;
use crate::statistics::{Estimate, estimate, interquartile_mean, mean, probability_of_improvement};
use anyhow::{bail, ensure};
use std::fs;
use std::mem;
use std::path::PathBuf;

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
    pub step: u64,
    /// One for each group, where it has runs on this environment.
    pub groups: Vec<Option<Scores>>,
}

impl EnvironmentScores {
    /// The least and the largest number of episodes of the evaluations that are compared.
    pub fn episodes(&self) -> (u64, u64) {
        let all = || self.groups.iter().flatten().flat_map(|scores| scores.episodes.iter().copied());
        (all().min().unwrap_or(0), all().max().unwrap_or(0))
    }
}

/// How one group does on one environment.
#[derive(Debug)]
pub struct Scores {
    /// Its runs, by seed.
    pub runs: Vec<MeasuredRun>,
    /// The score of each: the mean return of its last evaluation until then.
    pub values: Vec<f64>,
    /// The number of episodes of each of those evaluations.
    pub episodes: Vec<u64>,
    /// Their mean.
    pub mean: Estimate,
    /// Their interquartile mean.
    pub interquartile_mean: Estimate,
    /// Their mean less that of the first group, if this is another and that has runs here.
    pub difference: Option<Estimate>,
}

/// Compares the runs of one directory with those of others, each of which has an evaluation at least; a directory may be a
/// single run.
///
/// # Errors
/// If a directory is given twice; if a group has two runs of one seed, or runs that differ in more than their seeds, on one
/// environment.
pub fn compare(groups: Vec<(PathBuf, Vec<MeasuredRun>)>) -> Result<Comparison, Error> {
    let (paths, mut groups): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
    groups.iter_mut().for_each(|runs| runs.sort_by_key(|run| run.config().seed));
    let mut names: Vec<String> = Vec::new();
    for (i, path) in paths.iter().enumerate() {
        let same = |other: &PathBuf| fs::canonicalize(other).ok() == fs::canonicalize(path).ok();
        if paths[..i].iter().any(same) {
            let problem = format!("{} is given twice; name each group once", path.display());
            return Err(Error::Files(problem));
        }
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
        let (points, config) = (run.points(MeasuredRun::EVALUATION), run.config());
        // What is due at a step comes after the round of environments that reaches it.
        let until = points.partition_point(|point| point.0 < step + config.envs as f64);
        // One that evaluates seldom may have its first only later.
        let (at, value) = points[until.max(1) - 1];
        (value, if at < config.steps as f64 { config.eval_episodes } else { config.final_episodes })
    };
    let (values, mut episodes): (Vec<Vec<f64>>, Vec<Vec<u64>>) =
        groups.iter().map(|runs| runs.iter().map(score).unzip()).unzip();
    let scores = groups.into_iter().enumerate().map(|(i, runs)| {
        (!runs.is_empty()).then(|| Scores {
            runs,
            mean: estimate(&[&values[i]], |strata| mean(&strata[0])),
            interquartile_mean: estimate(&[&values[i]], |strata| interquartile_mean(&strata[0])),
            difference: (i > 0 && !values[0].is_empty())
                .then(|| estimate(&[&values[i], &values[0]], |strata| mean(&strata[0]) - mean(&strata[1]))),
            values: values[i].clone(),
            episodes: mem::take(&mut episodes[i]),
        })
    });
    Ok(EnvironmentScores { environment: environment.to_string(), step: step as u64, groups: scores.collect() })
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
