//! eˣ, eˣ − 1, log(1 + x), tanh and what is made of them, and 1/x, without the system's mathematical library.
//!
//! That library works on one scalar at a time and differs from system to system. These functions have no branches and
//! no calls, so that a loop over them is compiled to vector instructions, and consist of operations whose results IEEE
//! 754 prescribes, so that they give the same bits on every processor. That is for `f32`, where eˣ and 1/x err by less than
//! 1 unit in the last place, tanh and softplus by less than 2.5, and 1 − tanh² by less than 4. `f64`, which proves and need
//! not be fast, has the same formulas over the standard library's eˣ, eˣ − 1, log(1 + x) and 1/x.
//!
//! The polynomials are minimax fits of relative error, found by iteratively reweighted least squares on Chebyshev points,
//! the coefficients rounded to `f32` one after another, from the constant one on, and the others fitted anew each time.

use super::real::Real;
use std::f32::consts::LOG2_E;
use std::f64::consts::LN_2;

/// log 2, as a number of so few digits that its products with exponents are exact, and the rest.
const LN_2_HIGH: f32 = 0.693_145_75;
const LN_2_LOW: f32 = (LN_2 - LN_2_HIGH as f64) as f32;

/// A sum with it is rounded to an integer, which the lowest bits of the sum then hold.
const TO_INTEGER: f32 = 1.5 * (1 << 23) as f32;

/// (eʳ − 1, 2ᵏ, 2ˡ) with x = r + (k + l)·log 2 and |r| ≤ ½ log 2. Beyond the bounds, which NaN passes, eˣ is 0 or ∞ anyway.
#[inline(always)]
fn reduced(x: f32) -> (f32, f32, f32) {
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let sum = x * LOG2_E + TO_INTEGER;
    let integer = sum - TO_INTEGER;
    let r = (x - integer * LN_2_HIGH) - integer * LN_2_LOW;
    // (eʳ − 1 − r)/r², of relative error 5e-10 in eʳ − 1.
    let p = 0.000_197_607_83_f32;
    let p = p * r + 0.001_393_232;
    let p = p * r + 0.008_333_547;
    let p = p * r + 0.041_666_493;
    let p = p * r + 0.166_666_66;
    let p = p * r + 0.5;
    // One power of two would not do: results that overflow or are subnormal have exponents that no normal number has.
    let exponent = sum.to_bits().wrapping_sub(TO_INTEGER.to_bits()) as i32;
    let half = exponent >> 1;
    let power = |exponent: i32| f32::from_bits((exponent.wrapping_add(127) << 23) as u32);
    (r + r * r * p, power(half), power(exponent.wrapping_sub(half)))
}

/// eˣ; with subnormal results, 0 and ∞ where they belong.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let (less_one, power, other) = reduced(x);
    (1.0 + less_one) * power * other
}

/// eˣ − 1 for x ≤ 0.
#[inline(always)]
pub(super) fn exp_m1(x: f32) -> f32 {
    let (less_one, power, other) = reduced(x);
    less_one * (power * other) + (power * other - 1.0)
}

/// log(1 + x) for 0 ≤ x ≤ 1.
#[inline(always)]
pub(super) fn ln_1p(x: f32) -> f32 {
    // (log(1 + x) − x)/x², of relative error 5e-9 in log(1 + x).
    let p = -0.003_291_007_f32;
    let p = p * x + 0.020_088_26;
    let p = p * x - 0.057_460_267;
    let p = p * x + 0.106_613_61;
    let p = p * x - 0.153_449_76;
    let p = p * x + 0.196_921_21;
    let p = p * x - 0.249_580_2;
    let p = p * x + 0.333_304_64;
    let p = p * x - 0.499_999_3;
    x + x * x * p
}

/// 1/x for 10⁻³⁷ ≤ x ≤ 10³⁷, and 0 for an x beyond: sooner than a division, which a processor does not begin before it is
/// nearly done with the last.
#[inline(always)]
pub(super) fn reciprocal(x: f32) -> f32 {
    // The exponent changes its sign, and the fraction is replaced by the line that errs least; Newton's step, y + y·(1 − x·y),
    // squares an error of 12 % three times.
    let y = f32::from_bits(0x7ef3_11c3_u32.wrapping_sub(x.to_bits()));
    let y = y.mul_add((-x).mul_add(y, 1.0), y);
    let y = y.mul_add((-x).mul_add(y, 1.0), y);
    let y = y.mul_add((-x).mul_add(y, 1.0), y);
    // Comparisons, unlike min and max, let NaN through.
    if x > 1e37 { 0.0 } else { y }
}

// With z = e^(−2|u|), which is computed once where more than one of these is needed:

/// tanh u = ±(1 − z)/(1 + z).
#[inline(always)]
pub(super) fn tanh<T: Real>(u: T) -> T {
    let x = -(T::of(-2.0) * u).abs();
    (x.exponential_less_one() / (T::one() + x.exponential())).copysign(u)
}

/// 1 − tanh²u = 4z/(1 + z)²: to full precision where tanh u rounds to ±1.
#[inline(always)]
pub(super) fn one_minus_tanh_squared<T: Real>(u: T) -> T {
    let z = (-(T::of(-2.0) * u).abs()).exponential();
    let one_plus_z = T::one() + z;
    T::of(4.0) * z / (one_plus_z * one_plus_z)
}

/// log(1 + eˣ), without overflow for any x.
#[inline(always)]
pub(super) fn softplus<T: Real>(x: T) -> T {
    (-x.abs()).exponential().log_one_plus() + if x < T::zero() { T::zero() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::simd::simd;

    simd! {
        /// Each function of each element.
        fn all<T>(of: &[T], to: &mut [[T; 5]]) {
            of.iter().zip(to).for_each(|(&x, to)| {
                *to = [x.exponential(), tanh(x), one_minus_tanh_squared(x), softplus(x), x.reciprocal()];
            });
        }
    }

    /// |value − exact| in units in the last place of `exact`.
    fn ulp(value: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        if nearest == value || nearest.is_nan() && value.is_nan() {
            return 0.0;
        }
        let unit = 2.0_f64.powi((exact.abs().log2().floor() as i32).max(-126) - 23);
        (f64::from(value) - exact).abs() / unit
    }

    /// Every 1009th number there is, and the ends.
    #[test]
    fn functions_are_close_everywhere_and_have_the_same_bits_in_vectors() {
        let ends = [0.0, -0.0, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let mut numbers = ends.into_iter().chain((0..=u32::MAX).step_by(1009).map(f32::from_bits));
        let (mut x, mut vectors, mut worst) = ([0.0; 4096], [[0.0; 5]; 4096], [0.0_f64; 5]);
        loop {
            let count = x.iter_mut().zip(&mut numbers).map(|(x, number)| *x = number).count();
            if count == 0 {
                break;
            }
            all(&x[..count], &mut vectors);
            for (&x, vector) in x[..count].iter().zip(vectors) {
                let scalar = [exp(x), tanh(x), one_minus_tanh_squared(x), softplus(x), reciprocal(x)];
                let y = f64::from(x);
                let exact = [y.exp(), y.tanh(), y.cosh().powi(-2), softplus(y), if y > 1e37 { 0.0 } else { y.recip() }];
                for i in 0..if x < 1e-37 { 4 } else { 5 } {
                    assert!(scalar[i].to_bits() == vector[i].to_bits() || scalar[i].is_nan() && vector[i].is_nan());
                    let error = ulp(scalar[i], exact[i]);
                    assert!(
                        error < [1.0, 2.5, 4.0, 2.5, 1.0][i],
                        "{i}: {x:e} gives {:e}, not {:e}",
                        scalar[i],
                        exact[i]
                    );
                    worst[i] = worst[i].max(error);
                }
                assert!(x.is_nan() || tanh(-x).to_bits() == (-tanh(x)).to_bits() && tanh(x).abs() <= 1.0);
            }
        }
        println!("worst errors of exp, tanh, 1 − tanh², softplus, 1/x in units in the last place: {worst:.2?}");
    }
}
