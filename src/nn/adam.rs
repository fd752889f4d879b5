//! Adam, Polyak averaging and the clipping of gradients, over flat parameter vectors.

use super::real::Real;
use super::simd::simd;
use super::threads::join;

/// Elements that one thread takes at a time.
const CHUNK: usize = 1 << 13;

/// Adam (Kingma and Ba, 2015) with PyTorch's semantics: ε is added to the bias-corrected root.
#[derive(Clone, Debug)]
pub struct Adam<T> {
    /// m, the running mean of the gradient, `[parameters]`.
    pub first_moment: Vec<T>,
    /// v, the running mean of its square, `[parameters]`.
    pub second_moment: Vec<T>,
    /// t, the number of steps taken.
    pub steps: u64,
    learning_rate: f64,
}

impl<T: Real> Adam<T> {
    /// β₁, the decay of the first moment.
    pub const BETA1: f64 = 0.9;
    /// β₂, the decay of the second moment.
    pub const BETA2: f64 = 0.999;
    /// ε, which keeps the division finite.
    pub const EPSILON: f64 = 1e-8;

    /// Adam for `parameters` parameters, before its first step.
    pub fn new(parameters: usize, learning_rate: f64) -> Self {
        Self {
            first_moment: vec![T::zero(); parameters],
            second_moment: vec![T::zero(); parameters],
            steps: 0,
            learning_rate,
        }
    }

    /// lr/(1−β₁ᵗ) and 1/√(1−β₂ᵗ), for the t-th step, counted from 1.
    fn factors(learning_rate: f64, t: u64) -> (T, T) {
        let t = t as f64;
        let inverse_root = (1.0 - Self::BETA2.powf(t)).sqrt().recip();
        (T::of(learning_rate / (1.0 - Self::BETA1.powf(t))), T::of(inverse_root))
    }

    /// m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)g²,  θ ← θ − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε).
    ///
    /// # Panics
    /// If `parameters` or `gradient` differ in length from what this was made for.
    pub fn step(&mut self, parameters: &mut [T], gradient: &[T]) {
        assert_eq!(parameters.len(), self.first_moment.len());
        assert_eq!(gradient.len(), self.first_moment.len());
        self.steps += 1;
        let (step, inverse_root) = Self::factors(self.learning_rate, self.steps);
        let factors = Factors { step, inverse_root };
        step_in_chunks(parameters, gradient, &mut self.first_moment, &mut self.second_moment, factors);
    }
}

/// What changes from one step to the next; see [`Adam::factors`].
#[derive(Clone, Copy)]
struct Factors<T> {
    step: T,
    inverse_root: T,
}

/// Where a vector is divided among threads: always there, so that a thread finds in its cache what it has written before.
fn middle(length: usize) -> usize {
    length.div_ceil(CHUNK) / 2 * CHUNK
}

fn step_in_chunks<T: Real>(theta: &mut [T], g: &[T], m: &mut [T], v: &mut [T], factors: Factors<T>) {
    if theta.len() <= CHUNK {
        return step_chunk(theta, g, m, v, factors);
    }
    let middle = middle(theta.len());
    let (theta, theta_rest) = theta.split_at_mut(middle);
    let (g, g_rest) = g.split_at(middle);
    let (m, m_rest) = m.split_at_mut(middle);
    let (v, v_rest) = v.split_at_mut(middle);
    join(|| step_in_chunks(theta, g, m, v, factors), || step_in_chunks(theta_rest, g_rest, m_rest, v_rest, factors));
}

simd! {
    fn step_chunk<T>(theta: &mut [T], g: &[T], m: &mut [T], v: &mut [T], factors: Factors<T>) {
        let (beta1, beta2, epsilon) = (T::of(Adam::<T>::BETA1), T::of(Adam::<T>::BETA2), T::of(Adam::<T>::EPSILON));
        // Where a gradient stays zero, as behind a dead ReLU, a moment would fade into the subnormal numbers, which
        // processors compute many times slower. So small a moment moves no parameter.
        let smallest = T::min_positive_value() / T::epsilon();
        let fade = |moment: T| if moment.abs() < smallest { T::zero() } else { moment };
        for (((theta, &g), m), v) in theta.iter_mut().zip(g).zip(m).zip(v) {
            *m = fade((T::one() - beta1).mul_add(g - *m, *m));
            *v = fade(beta2.mul_add(*v, (T::one() - beta2) * (g * g)));
            let denominator = v.sqrt().mul_add(factors.inverse_root, epsilon);
            *theta = (-factors.step * *m).mul_add(denominator.reciprocal(), *theta);
        }
    }
}

/// g ← g + its partial sum over the rows of another thread; both `[parameters]`.
///
/// # Panics
/// If they differ in length.
pub fn accumulate<T: Real>(gradient: &mut [T], partial: &[T]) {
    assert_eq!(gradient.len(), partial.len());
    if gradient.len() <= CHUNK {
        return add(gradient, partial);
    }
    let middle = middle(gradient.len());
    let (gradient, gradient_rest) = gradient.split_at_mut(middle);
    let (partial, partial_rest) = partial.split_at(middle);
    join(|| accumulate(gradient, partial), || accumulate(gradient_rest, partial_rest));
}

simd! {
    fn add<T>(to: &mut [T], from: &[T]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to += from;
        }
    }
}

/// g ← g·min(1, bound/(‖g‖₂ + 10⁻⁶)), `gradient` being g, `[parameters]`: what PyTorch's `clip_grad_norm_` does. The norm is
/// summed in `f64`, in an order that nothing changes.
pub fn clip_norm<T: Real>(gradient: &mut [T], bound: f64) {
    let mut squares = [0.0; LANES];
    sum_squares(gradient, &mut squares);
    let factor = bound / (squares.iter().sum::<f64>().sqrt() + 1e-6);
    // One that is not a number, as the norm then is, stays for Adam to meet.
    if factor < 1.0 {
        scale(gradient, T::of(factor));
    }
}

/// Sums that [`sum_squares`] makes beside each other, because one alone would wait for itself at every element.
const LANES: usize = 16;

simd! {
    /// Adds Σg² to `sums`, each of which takes one element in so many.
    fn sum_squares<T>(g: &[T], sums: &mut [f64; LANES]) {
        let (chunks, rest) = g.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, g) in sums.iter_mut().zip(chunk) {
                *sum = g.as_f64().mul_add(g.as_f64(), *sum);
            }
        }
        for (sum, g) in sums.iter_mut().zip(rest) {
            *sum = g.as_f64().mul_add(g.as_f64(), *sum);
        }
    }
}

simd! {
    fn scale<T>(values: &mut [T], factor: T) {
        for value in values {
            *value *= factor;
        }
    }
}

simd! {
    /// Polyak averaging: θ̄ ← θ̄ + τ(θ − θ̄), `target` being θ̄ and `online` θ, both `[parameters]`.
    pub fn polyak<T>(target: &mut [T], online: &[T], tau: T) {
        for (target, &online) in target.iter_mut().zip(online) {
            *target += tau * (online - *target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adam's first step is lr·sign(g) for any size of g, because both moments are corrected for their start at zero.
    #[test]
    fn the_first_step_has_the_length_of_the_learning_rate() {
        let gradient: Vec<f64> = (0..100_000).map(|i| if i % 7 == 0 { 1e-3 } else { -5.0 }).collect();
        let mut theta = vec![1.0; gradient.len()];
        Adam::new(theta.len(), 0.01).step(&mut theta, &gradient);
        for (theta, g) in theta.iter().zip(&gradient) {
            approx::assert_relative_eq!(*theta, 1.0 - 0.01 * g.signum(), max_relative = 1e-6);
        }
    }

    /// Moments of a gradient that has become zero end at zero instead of among the slow subnormal numbers.
    #[test]
    fn moments_that_fade_become_zero() {
        let mut adam = Adam::<f32>::new(1, 1e-3);
        let mut theta = [1.0];
        adam.step(&mut theta, &[1e-3]);
        for _ in 0..200_000 {
            adam.step(&mut theta, &[0.0]);
            assert!(!adam.first_moment[0].is_subnormal() && !adam.second_moment[0].is_subnormal());
        }
        assert_eq!((adam.first_moment[0], adam.second_moment[0]), (0.0, 0.0));
        assert!(theta[0].is_finite());
    }

    /// What PyTorch does with gradients at the ends of the range: NaN only from NaN and ∞.
    #[test]
    fn extreme_gradients_move_parameters_as_a_division_would() {
        for (gradient, expected) in [
            (f32::NAN, f32::NAN),
            (f32::INFINITY, f32::NAN),
            // Its square overflows, and m/∞ = 0.
            (3e38, 1.0),
            (1e25, 1.0),
            (1e18, 0.999),
            (1e-30, 1.0),
            (0.0, 1.0),
        ] {
            let (mut adam, mut theta) = (Adam::<f32>::new(1, 1e-3), [1.0]);
            adam.step(&mut theta, &[gradient]);
            assert!(theta[0] == expected || theta[0].is_nan() && expected.is_nan(), "{gradient:e} gives {}", theta[0]);
        }
    }

    /// Wherever a vector is divided.
    #[test]
    fn partial_sums_of_a_gradient_are_added() {
        for length in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let partial: Vec<f64> = (0..length).map(|i| i as f64).collect();
            let mut gradient = vec![0.5; length];
            accumulate(&mut gradient, &partial);
            assert!(gradient.iter().zip(&partial).all(|(sum, i)| *sum == i + 0.5));
        }
    }

    /// Against plain sums, whatever is left over behind the lanes.
    #[test]
    fn a_gradient_is_scaled_down_to_the_bound_on_its_norm() {
        let norm = |gradient: &[f64]| gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        for length in [1, LANES - 1, LANES, 3 * LANES + 5, 100_000] {
            let gradient: Vec<f64> = (0..length).map(|i| ((i * i) as f64).sin() - 0.3).collect();
            let mut within = gradient.clone();
            clip_norm(&mut within, norm(&gradient) * 1.01 + 1e-6);
            assert_eq!(within, gradient);
            for bound in [1e-9, 0.01 * norm(&gradient), 0.99 * norm(&gradient)] {
                let mut clipped = gradient.clone();
                clip_norm(&mut clipped, bound);
                let factor = bound / (norm(&gradient) + 1e-6);
                for (clipped, g) in clipped.iter().zip(&gradient) {
                    approx::assert_relative_eq!(*clipped, factor * g, max_relative = 1e-12);
                }
                let mut single: Vec<f32> = gradient.iter().map(|&g| g as f32).collect();
                clip_norm(&mut single, bound);
                for (single, clipped) in single.iter().zip(&clipped) {
                    approx::assert_relative_eq!(f64::from(*single), *clipped, max_relative = 1e-6);
                }
            }
        }
    }

    /// Squares that leave the range of `f32` do not leave that of the sum; what is no number stays for all to see.
    #[test]
    fn extreme_gradients_are_clipped_as_others_are() {
        let mut large = [3e38_f32, 0.0, -3e38];
        clip_norm(&mut large, 1.0);
        approx::assert_relative_eq!(large[..], [0.5_f32.sqrt(), 0.0, -0.5_f32.sqrt()][..], max_relative = 1e-6);
        for wrong in [f32::NAN, f32::INFINITY] {
            let mut gradient = [1.0, wrong];
            clip_norm(&mut gradient, 1.0);
            assert!(gradient[1].is_nan());
        }
    }

    #[test]
    fn polyak_moves_by_tau() {
        let mut target = [1.0, 2.0];
        polyak(&mut target, &[3.0, 0.0], 0.25);
        assert_eq!(target, [1.5, 1.5]);
    }
}
