//! The tanh-Gaussian: a = tanh(u), u = μ + σ·ε, ε ~ N(0, I), with its exact log-probability.
//!
//! log π(a) = Σ over dimensions of [ −ε²/2 − log σ − ½ log 2π − 2(log 2 − u − softplus(−2u)) ]
//!
//! It is computed from u. It never goes through atanh and never adds a small number inside a logarithm, so it is exact
//! where tanh saturates. Reference: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905,
//! appendix C; log(1 − tanh²u) = 2(log 2 − u − softplus(−2u)) is an identity.

use super::real::Real;
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Zip};

/// How the network's raw output becomes log σ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogStd {
    /// The raw output, limited to `min..=max`; the gradient is zero beyond the bounds and whole at them.
    Clamp {
        /// Lower bound of log σ.
        min: f64,
        /// Upper bound of log σ.
        max: f64,
    },
    /// min + ½(max − min)(tanh(raw) + 1).
    Tanh {
        /// Lower bound of log σ.
        min: f64,
        /// Upper bound of log σ.
        max: f64,
    },
}

impl LogStd {
    /// log σ of a raw output.
    #[inline]
    fn forward<T: Real>(self, raw: T) -> T {
        match self {
            // Comparisons, unlike min and max, let NaN through.
            Self::Clamp { min, .. } if raw < T::of(min) => T::of(min),
            Self::Clamp { max, .. } if raw > T::of(max) => T::of(max),
            Self::Clamp { .. } => raw,
            Self::Tanh { min, max } => T::of(min) + T::of(0.5 * (max - min)) * (raw.tanh() + T::one()),
        }
    }

    /// ∂ log σ / ∂ raw.
    #[inline]
    fn slope<T: Real>(self, raw: T) -> T {
        match self {
            Self::Clamp { min, max } if raw < T::of(min) || raw > T::of(max) => T::zero(),
            Self::Clamp { .. } => T::one(),
            Self::Tanh { min, max } => T::of(0.5 * (max - min)) * one_minus_tanh_squared(raw),
        }
    }
}

/// How the network's raw output becomes μ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "program", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Mean {
    /// The raw output.
    Raw,
    /// tanh(raw), so that the deterministic action stays within ±tanh 1 = ±0.76.
    Tanh,
}

impl Mean {
    /// μ of a raw output.
    #[inline]
    fn forward<T: Real>(self, raw: T) -> T {
        match self {
            Self::Raw => raw,
            Self::Tanh => raw.tanh(),
        }
    }

    /// ∂μ / ∂ raw.
    #[inline]
    fn slope<T: Real>(self, raw: T) -> T {
        match self {
            Self::Raw => T::one(),
            Self::Tanh => one_minus_tanh_squared(raw),
        }
    }
}

/// The distribution over actions in \[−1, 1]^A; `A` below is the number of action dimensions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TanhGaussian {
    /// How μ is formed.
    pub mean: Mean,
    /// How log σ is formed.
    pub log_std: LogStd,
}

impl TanhGaussian {
    /// a = tanh(μ + σ·ε), and log π(a) as the file's head gives it.
    ///
    /// `raw_mean`, `raw_log_std`, `noise` (ε) and `action` are `[B, A]`; `log_prob` is `[B]`.
    pub fn sample<T: Real>(
        &self,
        raw_mean: ArrayView2<T>,
        raw_log_std: ArrayView2<T>,
        noise: ArrayView2<T>,
        mut action: ArrayViewMut2<T>,
        mut log_prob: ArrayViewMut1<T>,
    ) {
        let (half, two) = (T::of(0.5), T::of(2.0));
        let half_log_two_pi = T::of(0.5 * (2.0 * std::f64::consts::PI).ln());
        let log_two = T::of(std::f64::consts::LN_2);
        for (row, log_prob) in log_prob.iter_mut().enumerate() {
            let mut sum = T::zero();
            Zip::from(action.row_mut(row))
                .and(raw_mean.row(row))
                .and(raw_log_std.row(row))
                .and(noise.row(row))
                .for_each(|action, &raw_mean, &raw, &noise| {
                    let log_std = self.log_std.forward(raw);
                    let u = self.mean.forward(raw_mean) + log_std.exp() * noise;
                    *action = u.tanh();
                    sum += -half * noise * noise - log_std - half_log_two_pi;
                    sum -= two * (log_two - u - softplus(-two * u));
                });
            *log_prob = sum;
        }
    }

    /// The backward pass of [`Self::sample`] with ε held fixed; needs what that was given, not what it returned.
    ///
    /// Given ∂L/∂a as `d_action` `[B, A]` and ∂L/∂log π as `d_log_prob` `[B]`:
    /// - ∂L/∂u = ∂L/∂a·(1 − tanh²u) + ∂L/∂log π·2 tanh u
    /// - ∂L/∂raw = ∂L/∂u·∂μ/∂raw overwrites `d_raw_mean` `[B, A]`
    /// - ∂L/∂raw = (∂L/∂u·σε − ∂L/∂log π)·∂ log σ/∂raw overwrites `d_raw_log_std` `[B, A]`
    #[allow(clippy::too_many_arguments)]
    pub fn sample_backward<T: Real>(
        &self,
        raw_mean: ArrayView2<T>,
        raw_log_std: ArrayView2<T>,
        noise: ArrayView2<T>,
        d_action: ArrayView2<T>,
        d_log_prob: ArrayView1<T>,
        mut d_raw_mean: ArrayViewMut2<T>,
        mut d_raw_log_std: ArrayViewMut2<T>,
    ) {
        let two = T::of(2.0);
        for (row, &d_log_prob) in d_log_prob.iter().enumerate() {
            for column in 0..raw_mean.ncols() {
                let at = [row, column];
                let raw = raw_log_std[at];
                let scaled_noise = self.log_std.forward(raw).exp() * noise[at];
                let u = self.mean.forward(raw_mean[at]) + scaled_noise;
                let d_u = d_action[at] * one_minus_tanh_squared(u) + d_log_prob * two * u.tanh();
                d_raw_mean[at] = d_u * self.mean.slope(raw_mean[at]);
                d_raw_log_std[at] = (d_u * scaled_noise - d_log_prob) * self.log_std.slope(raw);
            }
        }
    }

    /// The deterministic action tanh(μ); `raw_mean` and `action` are `[B, A]`.
    pub fn mode<T: Real>(&self, raw_mean: ArrayView2<T>, mut action: ArrayViewMut2<T>) {
        Zip::from(&mut action).and(&raw_mean).for_each(|action, &raw| *action = self.mean.forward(raw).tanh());
    }
}

/// log(1 + eˣ), without overflow for any x.
#[inline]
fn softplus<T: Real>(x: T) -> T {
    (-x.abs()).exp().ln_1p() + if x < T::zero() { T::zero() } else { x }
}

/// 1 − tanh²u = 4z/(1 + z)² with z = e^(−2|u|): to full precision where tanh u rounds to ±1.
#[inline]
fn one_minus_tanh_squared<T: Real>(u: T) -> T {
    let z = (T::of(-2.0) * u.abs()).exp();
    let one_plus_z = T::one() + z;
    T::of(4.0) * z / (one_plus_z * one_plus_z)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};
    use ndarray::{Array1, Array2, arr2};
    use ndarray_rand::{RandomExt, rand_distr::StandardNormal};

    const CLAMP: TanhGaussian = TanhGaussian { mean: Mean::Raw, log_std: LogStd::Clamp { min: -20.0, max: 2.0 } };

    /// log π of the action tanh(u), for a one-dimensional policy.
    fn log_prob_at(u: f64, mean: f64, log_std: f64) -> f64 {
        let (mut action, mut log_prob) = (Array2::zeros((1, 1)), Array1::zeros(1));
        let noise = (u - mean) / log_std.exp();
        let scalar = |x: f64| arr2(&[[x]]);
        CLAMP.sample(
            scalar(mean).view(),
            scalar(log_std).view(),
            scalar(noise).view(),
            action.view_mut(),
            log_prob.view_mut(),
        );
        log_prob[0]
    }

    /// ∫ f(a) π(a) da with a = tanh u, da = (1 − tanh²u) du, by the trapezoid rule over u (it converges exponentially
    /// for a smooth function that vanishes at both ends).
    fn expectation(mean: f64, log_std: f64, f: impl Fn(f64) -> f64) -> f64 {
        let std = log_std.exp();
        let points = 20_000;
        let step = 24.0 * std / points as f64;
        (0..=points)
            .map(|i| mean - 12.0 * std + i as f64 * step)
            .map(|u| {
                let log_prob = log_prob_at(u, mean, log_std);
                log_prob.exp() * u.cosh().powi(-2) * f(log_prob) * step
            })
            .sum()
    }

    #[test]
    fn the_density_integrates_to_one() {
        let mut worst: f64 = 0.0;
        for mean in [-3.0, -0.5, 0.0, 1.0, 5.0] {
            for log_std in [-5.0, -1.0, 0.0, 1.0, 2.0] {
                worst = worst.max((expectation(mean, log_std, |_| 1.0) - 1.0).abs());
            }
        }
        println!("worst |∫π − 1|: {worst:.1e}");
        assert!(worst < 1e-9);
    }

    #[test]
    fn the_sampled_entropy_agrees_with_quadrature() {
        let samples = 200_000;
        for (mean, log_std) in [(0.0, 0.0), (1.5, -1.0), (-0.3, 1.0), (4.0, 0.5)] {
            let noise =
                Array2::<f64>::random_using((samples, 1), StandardNormal, &mut Philox::new(7, Stream::Action, 0));
            let (mut action, mut log_prob) = (Array2::zeros((samples, 1)), Array1::zeros(samples));
            CLAMP.sample(
                Array2::from_elem((samples, 1), mean).view(),
                Array2::from_elem((samples, 1), log_std).view(),
                noise.view(),
                action.view_mut(),
                log_prob.view_mut(),
            );
            let sampled = -log_prob.mean().expect("there are samples");
            let standard_error = log_prob.std(1.0) / (samples as f64).sqrt();
            let exact = expectation(mean, log_std, |log_prob| -log_prob);
            let errors = (sampled - exact).abs() / standard_error;
            println!(
                "entropy at μ {mean}, log σ {log_std}: {sampled:.4} sampled, {exact:.4} exact, {errors:.2} standard errors"
            );
            assert!(errors < 4.0);
        }
    }

    #[test]
    fn saturated_actions_keep_a_finite_log_probability() {
        for u in [-50.0, 50.0, 400.0] {
            assert!(log_prob_at(u, u, 0.0).is_finite());
            let (mut action, mut log_prob) = (Array2::<f32>::zeros((1, 1)), Array1::zeros(1));
            let mean = arr2(&[[u as f32]]);
            let zero = arr2(&[[0.0_f32]]);
            CLAMP.sample(mean.view(), zero.view(), zero.view(), action.view_mut(), log_prob.view_mut());
            assert!(log_prob[0].is_finite() && action[[0, 0]].abs() <= 1.0);
        }
    }
}
