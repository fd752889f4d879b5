//! The tanh-Gaussian: a = tanh(u), u = μ + σ·ε, ε ~ N(0, I), with its exact log-probability.
//!
//! log π(a) = Σ over dimensions of [ −ε²/2 − log σ − ½ log 2π − 2(log 2 − u − softplus(−2u)) ]
//!
//! It is computed from u. It never goes through atanh and never adds a small number inside a logarithm, so it is exact
//! where tanh saturates. Reference: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905,
//! appendix C; log(1 − tanh²u) = 2(log 2 − u − softplus(−2u)) is an identity.

use super::elementary::{one_minus_tanh_squared, softplus, tanh};
use super::real::Real;
use super::simd::simd;
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, s};
use std::ops::Range;

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
    #[inline(always)]
    fn forward<T: Real>(self, raw: T) -> T {
        match self {
            // Comparisons, unlike min and max, let NaN through.
            Self::Clamp { min, .. } if raw < T::of(min) => T::of(min),
            Self::Clamp { max, .. } if raw > T::of(max) => T::of(max),
            Self::Clamp { .. } => raw,
            Self::Tanh { min, max } => T::of(min) + T::of(0.5 * (max - min)) * (tanh(raw) + T::one()),
        }
    }

    /// ∂ log σ / ∂ raw.
    #[inline(always)]
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
    #[inline(always)]
    fn forward<T: Real>(self, raw: T) -> T {
        match self {
            Self::Raw => raw,
            Self::Tanh => tanh(raw),
        }
    }

    /// ∂μ / ∂ raw.
    #[inline(always)]
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
        let shape = raw_mean.dim();
        assert!([raw_log_std.dim(), noise.dim(), action.dim(), (log_prob.len(), shape.1)] == [shape; 4]);
        log_prob.fill(T::zero());
        if shape.0 * shape.1 < LANES {
            // A single action is sampled sooner than its blocks are made.
            for (at, action) in action.indexed_iter_mut() {
                let term;
                (*action, term) = self.sample_one(raw_mean[at], raw_log_std[at], noise[at]);
                log_prob[at.0] += term;
            }
            return;
        }
        let [mut means, mut log_stds, mut noises, mut actions, mut terms] = [[T::zero(); BLOCK]; 5];
        for block in blocks(shape) {
            block.copy(&mut means).assign(&block.of(raw_mean));
            block.copy(&mut log_stds).assign(&block.of(raw_log_std));
            block.copy(&mut noises).assign(&block.of(noise));
            sample(*self, block.padded_length(), &means, &log_stds, &noises, &mut actions, &mut terms);
            block.of_mut(&mut action).assign(&block.copy(&mut actions));
            let mut log_prob = log_prob.slice_mut(s![block.rows.clone()]);
            block.copy(&mut terms).rows().into_iter().for_each(|terms| log_prob += &terms);
        }
    }

    /// (a, its dimension's term of log π(a)) from raw μ, raw log σ and ε of one dimension.
    #[inline(always)]
    fn sample_one<T: Real>(self, raw_mean: T, raw_log_std: T, noise: T) -> (T, T) {
        let (half, two) = (T::of(0.5), T::of(2.0));
        let half_log_two_pi = T::of(0.5 * (2.0 * std::f64::consts::PI).ln());
        let log_two = T::of(std::f64::consts::LN_2);
        let log_std = self.log_std.forward(raw_log_std);
        let u = self.mean.forward(raw_mean) + log_std.exponential() * noise;
        let gaussian = -half * noise * noise - log_std - half_log_two_pi;
        (tanh(u), gaussian - two * (log_two - u - softplus(-two * u)))
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
        let shape = raw_mean.dim();
        assert!([raw_log_std.dim(), noise.dim(), d_action.dim(), (d_log_prob.len(), shape.1)] == [shape; 4]);
        assert!([d_raw_mean.dim(), d_raw_log_std.dim()] == [shape; 2]);
        let [mut means, mut log_stds, mut noises, mut d_actions, mut d_log_probs] = [[T::zero(); BLOCK]; 5];
        for block in blocks(shape) {
            block.copy(&mut means).assign(&block.of(raw_mean));
            block.copy(&mut log_stds).assign(&block.of(raw_log_std));
            block.copy(&mut noises).assign(&block.of(noise));
            block.copy(&mut d_actions).assign(&block.of(d_action));
            block.copy(&mut d_log_probs).assign(&d_log_prob.slice(s![block.rows.clone()]));
            sample_backward(*self, block.padded_length(), &mut means, &mut log_stds, &noises, &d_actions, &d_log_probs);
            block.of_mut(&mut d_raw_mean).assign(&block.copy(&mut means));
            block.of_mut(&mut d_raw_log_std).assign(&block.copy(&mut log_stds));
        }
    }

    /// (∂L/∂ raw μ, ∂L/∂ raw log σ) of one dimension.
    #[inline(always)]
    fn sample_one_backward<T: Real>(self, raw_mean: T, raw_log_std: T, noise: T, d_action: T, d_log_prob: T) -> (T, T) {
        let scaled_noise = self.log_std.forward(raw_log_std).exponential() * noise;
        let u = self.mean.forward(raw_mean) + scaled_noise;
        let d_u = d_action * one_minus_tanh_squared(u) + d_log_prob * T::of(2.0) * tanh(u);
        let d_log_std = d_u * scaled_noise - d_log_prob;
        (d_u * self.mean.slope(raw_mean), d_log_std * self.log_std.slope(raw_log_std))
    }

    /// The deterministic action tanh(μ); `raw_mean` and `action` are `[B, A]`.
    pub fn mode<T: Real>(&self, raw_mean: ArrayView2<T>, mut action: ArrayViewMut2<T>) {
        assert_eq!(raw_mean.dim(), action.dim());
        if action.len() < LANES {
            action.zip_mut_with(&raw_mean, |action, &raw| *action = tanh(self.mean.forward(raw)));
            return;
        }
        let mut values = [T::zero(); BLOCK];
        for block in blocks(raw_mean.dim()) {
            block.copy(&mut values).assign(&block.of(raw_mean));
            mode(*self, block.padded_length(), &mut values);
            block.of_mut(&mut action).assign(&block.copy(&mut values));
        }
    }
}

simd! {
    /// [`TanhGaussian::sample_one`] for the first `length` elements.
    fn sample<T>(
        distribution: TanhGaussian,
        length: usize,
        raw_mean: &[T; BLOCK],
        raw_log_std: &[T; BLOCK],
        noise: &[T; BLOCK],
        action: &mut [T; BLOCK],
        log_prob: &mut [T; BLOCK],
    ) {
        for i in 0..length.min(BLOCK) {
            (action[i], log_prob[i]) = distribution.sample_one(raw_mean[i], raw_log_std[i], noise[i]);
        }
    }
}

simd! {
    /// [`TanhGaussian::sample_one_backward`] for the first `length` elements; the gradients overwrite the raw outputs.
    fn sample_backward<T>(
        distribution: TanhGaussian,
        length: usize,
        mean: &mut [T; BLOCK],
        log_std: &mut [T; BLOCK],
        noise: &[T; BLOCK],
        d_action: &[T; BLOCK],
        d_log_prob: &[T; BLOCK],
    ) {
        for i in 0..length.min(BLOCK) {
            (mean[i], log_std[i]) =
                distribution.sample_one_backward(mean[i], log_std[i], noise[i], d_action[i], d_log_prob[i]);
        }
    }
}

simd! {
    /// a = tanh(μ) overwrites the first `length` raw outputs.
    fn mode<T>(distribution: TanhGaussian, length: usize, values: &mut [T; BLOCK]) {
        for value in &mut values[..length] {
            *value = tanh(distribution.mean.forward(*value));
        }
    }
}

/// Number of elements that are copied to where they are contiguous, whatever their strides, to be computed in vectors.
const BLOCK: usize = 256;

/// Number of elements in the widest vectors.
const LANES: usize = 16;

/// Some of the rows and columns of a matrix, [`BLOCK`] elements at most. They are copied column after column: a batch has
/// more rows than columns.
struct Block {
    rows: Range<usize>,
    columns: Range<usize>,
}

/// The blocks of a matrix of so many rows and columns; those of the same rows come in the order of their columns.
fn blocks((rows, columns): (usize, usize)) -> impl Iterator<Item = Block> {
    let width = columns.clamp(1, BLOCK);
    let height = BLOCK / width;
    (0..rows).step_by(height).flat_map(move |row| {
        (0..columns).step_by(width).map(move |column| Block {
            rows: row..rows.min(row + height),
            columns: column..columns.min(column + width),
        })
    })
}

impl Block {
    /// The transpose of this block of `matrix`.
    fn of<'a, T>(&self, matrix: ArrayView2<'a, T>) -> ArrayView2<'a, T> {
        matrix.slice_move(s![self.rows.clone(), self.columns.clone()]).reversed_axes()
    }

    /// The transpose of this block of `matrix`.
    fn of_mut<'a, T>(&self, matrix: &'a mut ArrayViewMut2<T>) -> ArrayViewMut2<'a, T> {
        matrix.slice_mut(s![self.rows.clone(), self.columns.clone()]).reversed_axes()
    }

    /// Where the transpose of this block is contiguous.
    fn copy<'a, T>(&self, elements: &'a mut [T; BLOCK]) -> ArrayViewMut2<'a, T> {
        let shape = (self.columns.len(), self.rows.len());
        ArrayViewMut2::from_shape(shape, &mut elements[..shape.0 * shape.1]).expect("they are as many")
    }

    /// Number of elements in whole vectors; what the last one has beyond the block is computed and ignored.
    fn padded_length(&self) -> usize {
        (self.rows.len() * self.columns.len()).next_multiple_of(LANES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};
    use ndarray::{Array1, Array2, Axis, arr2};
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

    #[test]
    fn every_shape_has_the_bits_of_single_elements() {
        let tanh = TanhGaussian { mean: Mean::Tanh, log_std: LogStd::Tanh { min: -20.0, max: 2.0 } };
        for ((b, a), head) in [(1, 1), (300, 1), (50, 7), (3, 300)].into_iter().zip([CLAMP, tanh, CLAMP, tanh]) {
            let mut philox = Philox::new(7, Stream::Action, 0);
            let mut normal = |columns| Array2::<f32>::random_using((b, columns), StandardNormal, &mut philox);
            let (both, noise, d_action, mut d_both, mut action) =
                (normal(2 * a), normal(a), normal(a), normal(2 * a), normal(a));
            let (d_log_prob, mut log_prob) = (normal(1).column(0).to_owned(), Array1::zeros(b));
            let (mean, log_std) = both.view().split_at(Axis(1), a);
            let (d_mean, d_log_std) = d_both.view_mut().split_at(Axis(1), a);
            head.sample(mean, log_std, noise.view(), action.view_mut(), log_prob.view_mut());
            head.sample_backward(mean, log_std, noise.view(), d_action.view(), d_log_prob.view(), d_mean, d_log_std);
            let mut mode = Array2::zeros((b, a));
            head.mode(mean, mode.view_mut());
            for row in 0..b {
                let mut sum = 0.0;
                for column in 0..a {
                    let at = [row, column];
                    let (expected, term) = head.sample_one(mean[at], log_std[at], noise[at]);
                    sum += term;
                    assert_eq!(action[at], expected);
                    assert_eq!(mode[at], super::tanh(head.mean.forward(mean[at])));
                    let expected =
                        head.sample_one_backward(mean[at], log_std[at], noise[at], d_action[at], d_log_prob[row]);
                    assert_eq!((d_both[at], d_both[[row, a + column]]), expected);
                }
                assert_eq!(log_prob[row], sum);
            }
        }
    }
}
