//! What becomes of a product once its sums are complete: bias and activation on the way forward, the slope of the
//! activation on the way back.

use super::elementary::tanh;
use super::real::Real;
use super::simd::simd;
use ndarray::{ArrayView2, ArrayViewMut2, s};
use std::ops::Range;

/// φ, what a hidden layer does to the sum it has formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "program", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// tanh x
    Tanh,
}

/// What is done to C = A·B, `[m, n]`.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a, T> {
    /// Nothing.
    Nothing,
    /// cᵢⱼ ← φ(cᵢⱼ + bⱼ), with b `[n]` and no φ in a last layer.
    Bias(&'a [T], Option<Activation>),
    /// cᵢⱼ ← cᵢⱼ·φ′(hᵢⱼ), where φ′ is told from h = φ(·); if there are `rows` `[m]`, row `rows[i]` of h belongs to row i
    /// of C.
    Slope {
        /// h, `[m, n]`, or `[any, n]` with `rows`.
        hidden: ArrayView2<'a, T>,
        /// The rows of h.
        rows: Option<&'a [usize]>,
        /// φ.
        activation: Activation,
    },
}

impl<T: Real> Epilogue<'_, T> {
    /// Asserts that this fits a C of `[m, n]`.
    pub(super) fn check(&self, m: usize, n: usize) {
        match *self {
            Self::Nothing => {}
            Self::Bias(bias, _) => assert_eq!(bias.len(), n),
            Self::Slope { hidden, rows: None, .. } => assert_eq!(hidden.dim(), (m, n)),
            Self::Slope { hidden, rows: Some(rows), .. } => {
                assert_eq!((rows.len(), hidden.ncols()), (m, n));
                assert!(rows.iter().all(|&row| row < hidden.nrows()));
            }
        }
    }

    /// What belongs to some of the rows of C.
    pub(super) fn rows(&self, range: Range<usize>) -> Self {
        match *self {
            Self::Slope { hidden, rows: None, activation } => {
                Self::Slope { hidden: hidden.slice_move(s![range, ..]), rows: None, activation }
            }
            Self::Slope { hidden, rows: Some(rows), activation } => {
                Self::Slope { hidden, rows: Some(&rows[range]), activation }
            }
            every_row => every_row,
        }
    }

    /// What belongs to some of the columns of C.
    pub(super) fn columns(&self, range: Range<usize>) -> Self {
        match *self {
            Self::Nothing => Self::Nothing,
            Self::Bias(bias, activation) => Self::Bias(&bias[range], activation),
            Self::Slope { hidden, rows, activation } => {
                Self::Slope { hidden: hidden.slice_move(s![.., range]), rows, activation }
            }
        }
    }

    /// Does it to `c`, whose rows are contiguous.
    pub(super) fn apply(&self, mut c: ArrayViewMut2<T>) {
        if let Self::Nothing = self {
            return;
        }
        for (i, mut c) in c.rows_mut().into_iter().enumerate() {
            let c = c.as_slice_mut().expect("rows are contiguous");
            match *self {
                Self::Nothing => {}
                Self::Bias(bias, activation) => add_bias_and_activate(c, bias, activation),
                Self::Slope { hidden, rows, activation } => {
                    let hidden = hidden.row(rows.map_or(i, |rows| rows[i]));
                    times_slope(c, hidden.to_slice().expect("rows are contiguous"), activation);
                }
            }
        }
    }
}

simd! {
    /// c ← φ(c + b) for one row.
    fn add_bias_and_activate<T>(c: &mut [T], bias: &[T], activation: Option<Activation>) {
        match activation {
            Some(Activation::Relu) => c.iter_mut().zip(bias).for_each(|(c, &b)| *c = relu(*c + b)),
            Some(Activation::Tanh) => c.iter_mut().zip(bias).for_each(|(c, &b)| *c = tanh(*c + b)),
            None => c.iter_mut().zip(bias).for_each(|(c, &b)| *c += b),
        }
    }
}

/// max(x, 0), but NaN stays NaN, so that a network never hides one.
#[inline(always)]
fn relu<T: Real>(x: T) -> T {
    if x < T::zero() { T::zero() } else { x }
}

simd! {
    /// δ ← δ·φ′, from h = φ(·), for one row.
    fn times_slope<T>(delta: &mut [T], hidden: &[T], activation: Activation) {
        match activation {
            Activation::Relu => {
                delta.iter_mut().zip(hidden).for_each(|(d, &h)| *d = if h > T::zero() { *d } else { T::zero() });
            }
            Activation::Tanh => delta.iter_mut().zip(hidden).for_each(|(d, &h)| *d *= T::one() - h * h),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    /// NaN is not hidden on the way forward, and nothing passes on the way back where h is zero, as half of them are.
    #[test]
    fn a_relu_keeps_nan_and_passes_nothing_where_it_is_zero() {
        let mut c = array![[f32::NAN, -2.0, 0.5, 1.0]];
        Epilogue::Bias(&[1.0, 1.0, -1.0, 1.0], Some(Activation::Relu)).apply(c.view_mut());
        assert!(c[[0, 0]].is_nan());
        assert_eq!(c.slice(s![0, 1..]), array![0.0, 0.0, 2.0]);

        let (hidden, mut c) = (array![[1.0, 1.0, 1.0, 1.0], [0.0, -0.0, f32::NAN, 2.0]], array![[3.0, 4.0, 5.0, 6.0]]);
        let (hidden, rows, activation) = (hidden.view(), Some(&[1][..]), Activation::Relu);
        Epilogue::Slope { hidden, rows, activation }.apply(c.view_mut());
        assert_eq!(c, array![[0.0, 0.0, 0.0, 6.0]]);
    }
}
