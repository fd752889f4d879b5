//! What is told of several runs together: means and how certain they are, after Agarwal et al., "Deep reinforcement learning
//! at the edge of the statistical precipice", NeurIPS 2021.
//!
//! Every interval is a percentile bootstrap: the middle 95 % of what samples give that are as large as the values and are
//! drawn from them with replacement. The samples are the same every time.

use crate::rng::{Philox, Stream};
use rand::Rng;

/// The mean.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The interquartile mean: that of what is left when the smallest and the largest quarter, each rounded down to whole values,
/// are left out. Of three values it is the mean.
pub fn interquartile_mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let left_out = sorted.len() / 4;
    mean(&sorted[left_out..sorted.len() - left_out])
}

/// The probability that a value of `ours` is larger than one of `theirs`, where equal ones count half: the probability of
/// improvement.
pub fn probability_of_improvement(ours: &[f64], theirs: &[f64]) -> f64 {
    let score = |a: &f64, b: &f64| match a.total_cmp(b) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    let wins: f64 = ours.iter().flat_map(|a| theirs.iter().map(move |b| score(a, b))).sum();
    wins / (ours.len() * theirs.len()) as f64
}

/// A number and its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Of the values themselves.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// `statistic` of some strata, and its interval: every sample draws anew within each stratum, never across them.
///
/// # Panics
/// If there is an empty stratum.
pub fn estimate(strata: &[&[f64]], statistic: impl Fn(&[Vec<f64>]) -> f64) -> Estimate {
    const SAMPLES: usize = 1000;
    let own: Vec<Vec<f64>> = strata.iter().map(|values| values.to_vec()).collect();
    let mut rng = Philox::new(0, Stream::Evaluation, 0);
    let mut sample = own.clone();
    let mut results: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            for (drawn, values) in sample.iter_mut().zip(strata) {
                drawn.iter_mut().for_each(|drawn| *drawn = values[rng.random_range(0..values.len())]);
            }
            statistic(&sample)
        })
        .collect();
    results.sort_by(f64::total_cmp);
    let outside = SAMPLES / 40;
    Estimate { value: statistic(&own), low: results[outside], high: results[SAMPLES - 1 - outside] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quarters_at_both_ends_are_left_out() {
        assert_eq!(interquartile_mean(&[100.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(interquartile_mean(&[9.0, 1.0, 2.0]), 4.0);
        assert_eq!(interquartile_mean(&[7.0, 1.0, 2.0, 3.0, -50.0]), 2.0);
    }

    #[test]
    fn improvement_counts_pairs() {
        assert_eq!(probability_of_improvement(&[2.0, 3.0], &[1.0, 2.0]), 0.875);
        assert_eq!(probability_of_improvement(&[1.0], &[2.0, 3.0, 4.0]), 0.0);
    }

    /// The mean of n values has a standard deviation of σ/√n, and 95 % of a normal distribution lie within 1.96 of them; two
    /// strata that differ in their means alone make none of it wider.
    #[test]
    fn the_interval_holds_the_middle_of_the_means() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let half = 1.96 * (9999.0_f64 / 12.0 / 100.0).sqrt();
        let Estimate { value, low, high } = estimate(&[&values], |strata| mean(&strata[0]));
        assert_eq!(value, 49.5);
        assert!((low - (49.5 - half)).abs() < 1.0 && (high - (49.5 + half)).abs() < 1.0, "{low} to {high}");
        let far: Vec<f64> = values.iter().map(|value| value + 1e6).collect();
        let both = estimate(&[&values, &far], |strata| (mean(&strata[0]) + mean(&strata[1])) / 2.0);
        let half = half / 2.0_f64.sqrt();
        assert!(
            (both.low - (500_049.5 - half)).abs() < 1.0 && (both.high - (500_049.5 + half)).abs() < 1.0,
            "{both:?}"
        );
        let same = estimate(&[&[2.0, 2.0]], |strata| mean(&strata[0]));
        assert_eq!(same, Estimate { value: 2.0, low: 2.0, high: 2.0 });
    }
}
