//! Observations in units of their own spread: the running mean and variance of each dimension, as in the `VecNormalize` of
//! Stable-Baselines3.

use crate::nn::{Real, assert_shape};

/// The statistics of the observations so far, and what they make of one: (x − mean)/√(variance + ε), clipped to ±10.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalizer {
    count: f64,
    mean: Vec<f64>,
    variance: Vec<f64>,
    /// The mean and √(variance + ε) in the precision of what they are applied to.
    center: Vec<f32>,
    spread: Vec<f32>,
}

impl Normalizer {
    /// ε, which keeps the division finite.
    pub const EPSILON: f64 = 1e-8;
    /// The largest magnitude of what comes out.
    pub const LIMIT: f32 = 10.0;

    /// Before the first observation of so many dimensions; until then their mean counts as 0 and their variance as 1.
    pub fn new(observation_size: usize) -> Self {
        let (zeros, ones) = (vec![0.0; observation_size], vec![1.0; observation_size]);
        Self::from_statistics(0.0, zeros, ones).expect("these are statistics")
    }

    /// With the `mean` and the `variance`, both `[O]`, of `count` observations. Statistics that began with a share of an
    /// observation, as those of Stable-Baselines3 do, have a count with that share.
    ///
    /// # Errors
    /// If they cannot be statistics of finite `f32`; what is wrong with them.
    pub fn from_statistics(count: f64, mean: Vec<f64>, variance: Vec<f64>) -> Result<Self, String> {
        if mean.len() != variance.len() {
            return Err(format!("there are {} means and {} variances", mean.len(), variance.len()));
        }
        if !(0.0..=1e15).contains(&count) {
            return Err(format!("{count} is no number of observations"));
        }
        let mut normalizer =
            Self { count, center: vec![0.0; mean.len()], spread: vec![0.0; mean.len()], mean, variance };
        for i in 0..normalizer.mean.len() {
            normalizer.round(i);
            let (mean, variance) = (normalizer.mean[i], normalizer.variance[i]);
            let fits = variance >= 0.0 && normalizer.center[i].is_finite() && normalizer.spread[i].is_finite();
            if !fits {
                return Err(format!("dimension {i} cannot have the mean {mean} and the variance {variance}"));
            }
        }
        Ok(normalizer)
    }

    /// Takes in an observation, `[O]`, by Welford's recurrence.
    ///
    /// # Panics
    /// If it is of another length.
    pub fn add(&mut self, observation: &[f32]) {
        assert_shape("the observation", &[observation.len()], &[self.mean.len()]);
        self.count += 1.0;
        for (i, &x) in observation.iter().enumerate() {
            let before = f64::from(x) - self.mean[i];
            self.mean[i] += before / self.count;
            let after = f64::from(x) - self.mean[i];
            self.variance[i] += (before * after - self.variance[i]) / self.count;
            self.round(i);
        }
    }

    fn round(&mut self, i: usize) {
        self.center[i] = self.mean[i] as f32;
        self.spread[i] = (self.variance[i] + Self::EPSILON).sqrt() as f32;
    }

    /// Normalizes an observation, `[O]`, in place. What is not a number stays so.
    ///
    /// # Panics
    /// If it is of another length.
    pub fn apply<T: Real>(&self, observation: &mut [T]) {
        assert_shape("the observation", &[observation.len()], &[self.mean.len()]);
        let limit = T::of(Self::LIMIT.into());
        for ((x, &center), &spread) in observation.iter_mut().zip(&self.center).zip(&self.spread) {
            let z = (*x - T::of(center.into())) / T::of(spread.into());
            *x = if z > limit {
                limit
            } else if z < -limit {
                -limit
            } else {
                z
            };
        }
    }

    /// Number of observation dimensions, O.
    pub fn observation_size(&self) -> usize {
        self.mean.len()
    }

    /// How many observations there were.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Their mean, `[O]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Their variance, divided by their number, `[O]`.
    pub fn variance(&self) -> &[f64] {
        &self.variance
    }

    /// The mean as it is subtracted, `[O]`.
    pub fn center(&self) -> &[f32] {
        &self.center
    }

    /// √(variance + ε) as it divides, `[O]`.
    pub fn spread(&self) -> &[f32] {
        &self.spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};
    use rand::Rng;

    /// Observations of dimensions that differ in everything.
    fn observations(count: usize) -> Vec<[f32; 4]> {
        let mut rng = Philox::new(0, Stream::Environment, 0);
        let mut x = || rng.random_range(-1.0_f32..1.0);
        (0..count).map(|_| [x(), 1e6 + x(), 1e-3 * x(), 7.0]).collect()
    }

    /// Against two passes over all of them.
    #[test]
    fn the_statistics_are_those_of_all_observations() {
        let all = observations(10_000);
        let mut normalizer = Normalizer::new(4);
        for (n, observation) in all.iter().enumerate() {
            normalizer.add(observation);
            if ![0, 1, 99, 9_999].contains(&n) {
                continue;
            }
            let seen = &all[..=n];
            for i in 0..4 {
                let column = || seen.iter().map(|observation| f64::from(observation[i]));
                let mean = column().sum::<f64>() / seen.len() as f64;
                let variance = column().map(|x| (x - mean).powi(2)).sum::<f64>() / seen.len() as f64;
                approx::assert_relative_eq!(normalizer.mean()[i], mean, max_relative = 1e-12, epsilon = 1e-15);
                approx::assert_relative_eq!(normalizer.variance()[i], variance, max_relative = 1e-9, epsilon = 1e-18);
            }
            assert_eq!(normalizer.count(), seen.len() as f64);
        }
        let mut mid = [0.0_f64, 1e6 + 2.0, 0.0, 7.0];
        normalizer.apply(&mut mid);
        let expected = |i: usize, x: f64| (x - normalizer.mean()[i]) / (normalizer.variance()[i] + 1e-8).sqrt();
        approx::assert_relative_eq!(mid[0], expected(0, 0.0), max_relative = 1e-4);
        assert!((mid[1] - expected(1, 1e6 + 2.0)).abs() < 0.1, "f32 has a sixteenth around a million");
        approx::assert_relative_eq!(mid[2], expected(2, 0.0), max_relative = 1e-4);
        assert_eq!(mid[3], 0.0, "a dimension that never changes");
    }

    #[test]
    fn what_comes_out_is_bounded() {
        let mut normalizer = Normalizer::new(2);
        for x in [f32::MAX, -f32::MAX, f32::MAX] {
            normalizer.add(&[x, 0.5]);
        }
        let mut observation = [-f32::MAX, 1e30];
        normalizer.apply(&mut observation);
        assert!(observation[0].is_finite() && observation[0] < -0.5, "{observation:?}");
        assert_eq!(observation[1], 10.0);
        let mut wrong = [f32::NAN, -3.0];
        normalizer.apply(&mut wrong);
        assert!(wrong[0].is_nan() && wrong[1] == -10.0);
    }

    #[test]
    fn what_is_saved_goes_on_as_it_was() {
        let all = observations(50);
        let mut normalizer = Normalizer::new(4);
        all[..20].iter().for_each(|observation| normalizer.add(observation));
        let (mean, variance) = (normalizer.mean().to_vec(), normalizer.variance().to_vec());
        let mut again = Normalizer::from_statistics(normalizer.count(), mean, variance).expect("they were just saved");
        for observation in &all[20..] {
            normalizer.add(observation);
            again.add(observation);
        }
        assert_eq!(normalizer, again);
    }

    #[test]
    fn numbers_that_are_no_statistics_are_refused() {
        for (count, mean, variance) in [
            (f64::NAN, 0.0, 1.0),
            (-1.0, 0.0, 1.0),
            (1.0, f64::NAN, 1.0),
            (1.0, 1e39, 1.0),
            (1.0, 0.0, -1.0),
            (1.0, 0.0, f64::NAN),
            (1.0, 0.0, 1e80),
        ] {
            assert!(Normalizer::from_statistics(count, vec![mean], vec![variance]).is_err());
        }
        assert!(Normalizer::from_statistics(1.0, vec![0.0], vec![]).is_err());
    }
}
