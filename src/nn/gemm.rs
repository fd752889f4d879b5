//! Matrix products, and how work is divided among threads.
//!
//! `f32` products go to this crate's own kernel where the processor has AVX-512, AVX2 with FMA, or NEON; other large products
//! go to `matrixmultiply`. Products with a thin side (a network's first and last layers, and every layer when a single observation
//! is acted upon) otherwise go to two vectorized loops, because packing would cost more than it gains.
//!
//! Work is divided by shape, never by the number of threads, and no sum is ever split: the same inputs give the same
//! bits on any number of threads.

use super::epilogue::Epilogue;
use super::kernel;
use super::real::Real;
use super::simd::simd;
use super::threads::join;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// What `SAC_GEMM` in the environment may ask for: the kernel with one of the kinds of registers that this processor has, or
/// `portable` for `matrixmultiply` alone, which any other word means as well. It is for comparing them; without it the widest
/// registers are taken.
pub fn choices() -> impl Iterator<Item = &'static str> {
    kernel::names().chain(["portable"])
}

/// A side of at most this many elements makes a product thin.
const THIN: usize = 8;
/// Columns of the result that [`thin_rows`] makes at a time.
const COLUMNS: usize = 64;
/// Partial sums of [`dot`].
const LANES: usize = 32;
/// Elements of B that are copied to the stack at a time where they do not lie as a loop wants them.
const PANEL: usize = 2048;
/// Fewest rows and columns, and least work in multiplications, that are worth handing to another thread.
const SPLIT_ROWS: usize = 256;
pub(crate) const SPLIT_COLUMNS: usize = 256;
const SPLIT_WORK: usize = 1 << 19;

/// B of a product, `[k, n]`, of any strides, and perhaps the same as the kernel reads it.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a, T> {
    /// B
    pub matrix: ArrayView2<'a, T>,
    /// What [`Real::pack`] has made of it.
    pub panels: Option<&'a [T]>,
}

impl<'a, T> From<ArrayView2<'a, T>> for Factor<'a, T> {
    fn from(matrix: ArrayView2<'a, T>) -> Self {
        Self { matrix, panels: None }
    }
}

/// C ← A·B, or C ← C + A·B, and what comes with it.
#[derive(Debug)]
pub struct Product<'a, T> {
    /// A, `[m, k]`, of any strides.
    pub a: ArrayView2<'a, T>,
    /// B, `[k, n]`.
    pub b: Factor<'a, T>,
    /// C, `[m, n]`, of any strides without an epilogue; else its rows, and those of the epilogue, are contiguous.
    pub c: ArrayViewMut2<'a, T>,
    /// Whether the product is added to C.
    pub accumulate: bool,
    /// What is done to C in the end.
    pub epilogue: Epilogue<'a, T>,
}

impl<'a, T: Real> Product<'a, T> {
    /// Asserts that the shapes fit each other, and gives m, k and n.
    pub(super) fn check(&self) -> [usize; 3] {
        let (m, k, n) = (self.a.nrows(), self.a.ncols(), self.b.matrix.ncols());
        assert_eq!(self.b.matrix.nrows(), k, "A is [{m}, {k}], so B must have {k} rows");
        assert_eq!(self.c.dim(), (m, n), "A·B is [{m}, {n}], and so must C be");
        self.epilogue.check(m, n);
        [m, k, n]
    }

    /// Those of the first rows of C, and those of the others.
    fn split_rows(self, middle: usize) -> (Self, Self) {
        let Self { a, b, c, accumulate, epilogue } = self;
        let (a_1, a_2) = a.split_at(Axis(0), middle);
        let (epilogue_1, epilogue_2) = (epilogue.rows(0..middle), epilogue.rows(middle..c.nrows()));
        let (c_1, c_2) = c.split_at(Axis(0), middle);
        (
            Self { a: a_1, b, c: c_1, accumulate, epilogue: epilogue_1 },
            Self { a: a_2, b, c: c_2, accumulate, epilogue: epilogue_2 },
        )
    }

    /// Those of the first columns of C, and those of the others; `middle` is a multiple of [`SPLIT_COLUMNS`].
    fn split_columns(self, middle: usize) -> (Self, Self) {
        let Self { a, b: Factor { matrix, panels }, c, accumulate, epilogue } = self;
        let (panels_1, panels_2) = panels.map(|panels| panels.split_at(middle * matrix.nrows())).unzip();
        let (b_1, b_2) = matrix.split_at(Axis(1), middle);
        let (epilogue_1, epilogue_2) = (epilogue.columns(0..middle), epilogue.columns(middle..c.ncols()));
        let (c_1, c_2) = c.split_at(Axis(1), middle);
        let (b_1, b_2) = (Factor { matrix: b_1, panels: panels_1 }, Factor { matrix: b_2, panels: panels_2 });
        (
            Self { a, b: b_1, c: c_1, accumulate, epilogue: epilogue_1 },
            Self { a, b: b_2, c: c_2, accumulate, epilogue: epilogue_2 },
        )
    }

    /// Does it, in parallel where that is worth it. Few rows are divided by columns alone, because B, which may have to be
    /// packed, is divided with them.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn run(mut self) {
        let [m, k, n] = self.check();
        if m * k * n < 2 * SPLIT_WORK {
            return self.run_here();
        }
        let halves = if m >= 2 * SPLIT_ROWS {
            self.split_rows(m / SPLIT_ROWS / 2 * SPLIT_ROWS)
        } else if n >= 2 * SPLIT_COLUMNS {
            self.split_columns(n / SPLIT_COLUMNS / 2 * SPLIT_COLUMNS)
        } else {
            return self.run_here();
        };
        join(|| halves.0.run(), || halves.1.run());
    }

    /// Does it on this thread.
    fn run_here(&mut self) {
        if T::own_product(self) {
            return;
        }
        // There are epilogues that the kernel leaves to others.
        let epilogue = std::mem::replace(&mut self.epilogue, Epilogue::Nothing);
        if !T::own_product(self) {
            self.run_elsewhere();
        }
        epilogue.apply(self.c.view_mut());
    }

    /// Does it without the kernel, and without the epilogue.
    fn run_elsewhere(&mut self) {
        let (a, b, accumulate) = (self.a, self.b.matrix, self.accumulate);
        let c = &mut self.c;
        if thin(a, b, c.view_mut(), accumulate) || thin(b.t(), a.t(), c.view_mut().reversed_axes(), accumulate) {
            return;
        }
        let strides = |s: &[isize]| [s[0], s[1]];
        let c_strides = strides(c.strides());
        // SAFETY: pointers and strides come from three live views of shapes that fit each other, and C, being borrowed
        // mutably, overlaps neither A nor B.
        unsafe {
            let (a_at, b_at) = ((a.as_ptr(), strides(a.strides())), (b.as_ptr(), strides(b.strides())));
            T::gemm([a.nrows(), a.ncols(), b.ncols()], a_at, b_at, (c.as_mut_ptr(), c_strides), accumulate);
        }
    }
}

/// C ← A·B and `epilogue`; see [`Product`].
///
/// # Panics
/// If the shapes do not fit each other.
pub fn product<'a, T: Real>(
    a: ArrayView2<'a, T>,
    b: impl Into<Factor<'a, T>>,
    c: ArrayViewMut2<'a, T>,
    epilogue: Epilogue<'a, T>,
) {
    Product { a, b: b.into(), c, accumulate: false, epilogue }.run();
}

/// Does the product if a loop of this file fits its shape and the way its matrices lie; says whether it did.
fn thin<T: Real>(a: ArrayView2<T>, b: ArrayView2<T>, mut c: ArrayViewMut2<T>, accumulate: bool) -> bool {
    let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
    let has_rows = |matrix: ArrayView2<T>| matrix.ncols() <= 1 || matrix.strides()[1] == 1;
    let dots = has_rows(a) && (1..=THIN).contains(&n);
    let rows = (m <= THIN || k <= THIN) && (has_rows(b) || k * n <= PANEL);
    if !(dots || rows) {
        return false;
    }
    if !accumulate {
        c.fill(T::zero());
    }
    let mut panel = [T::zero(); PANEL];
    if dots {
        let depth = PANEL / n / LANES * LANES;
        for (a, b) in a.axis_chunks_iter(Axis(1), depth).zip(b.axis_chunks_iter(Axis(0), depth)) {
            // Column after column.
            panel.iter_mut().zip(b.t()).for_each(|(to, &from)| *to = from);
            thin_dots(a, &panel[..b.len()], c.view_mut());
        }
    } else if has_rows(b) {
        thin_rows(a, b, c);
    } else {
        panel.iter_mut().zip(b).for_each(|(to, &from)| *to = from);
        thin_rows(a, ArrayView2::from_shape((k, n), &panel[..k * n]).expect("it has as many elements"), c);
    }
    true
}

simd! {
    /// C\[i, ·] ← C\[i, ·] + Σₖ A\[i, k]·B\[k, ·]: adds up rows of B, which are contiguous.
    fn thin_rows<T>(a: ArrayView2<T>, b: ArrayView2<T>, c: ArrayViewMut2<T>) {
        let (n, mut c) = (c.ncols(), c);
        for (a, mut c) in a.rows().into_iter().zip(c.rows_mut()) {
            for first in (0..n).step_by(COLUMNS) {
                let width = COLUMNS.min(n - first);
                let mut sums = [T::zero(); COLUMNS];
                sums.iter_mut().zip(c.iter().skip(first)).for_each(|(sum, &c)| *sum = c);
                for (&x, b) in a.iter().zip(b.rows()) {
                    let b = &b.to_slice().expect("rows are contiguous")[first..first + width];
                    if let Ok(b) = <&[T; COLUMNS]>::try_from(b) {
                        // A number known to the compiler lets the sums stay in registers.
                        for j in 0..COLUMNS {
                            sums[j] += x * b[j];
                        }
                    } else {
                        sums.iter_mut().zip(b).for_each(|(sum, &y)| *sum += x * y);
                    }
                }
                c.iter_mut().skip(first).zip(&sums).for_each(|(c, &sum)| *c = sum);
            }
        }
    }
}

simd! {
    /// C\[i, j] ← C\[i, j] + A\[i, ·] · B\[·, j]: inner products of the rows of A, which are contiguous, with the columns of B,
    /// given in column-major order.
    fn thin_dots<T>(a: ArrayView2<T>, b: &[T], c: ArrayViewMut2<T>) {
        let mut c = c;
        for (a, mut c) in a.rows().into_iter().zip(c.rows_mut()) {
            let a = a.to_slice().expect("rows are contiguous");
            for (b, c) in b.chunks_exact(a.len()).zip(&mut c) {
                *c += dot(a, b);
            }
        }
    }
}

/// Σ aᵢbᵢ by a number of partial sums, which are then added in pairs.
#[inline(always)]
fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    #[inline(always)]
    fn halve<T: Real, const N: usize, const HALF: usize>(sums: [T; N]) -> [T; HALF] {
        std::array::from_fn(|i| sums[i] + sums[i + HALF])
    }
    let mut sums = [T::zero(); LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter_mut().zip(a_rest.iter().zip(b_rest)).for_each(|(sum, (&x, &y))| *sum += x * y);
    halve::<T, 2, 1>(halve::<T, 4, 2>(halve::<T, 8, 4>(halve::<T, 16, 8>(halve::<T, LANES, 16>(sums)))))[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Activation;
    use crate::rng::{Philox, Stream};
    use ndarray::{Array2, ShapeBuilder};
    use ndarray_rand::{RandomExt, rand_distr::StandardNormal};

    fn naive(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
        Array2::from_shape_fn((a.nrows(), b.ncols()), |(i, j)| (0..a.ncols()).map(|p| a[[i, p]] * b[[p, j]]).sum())
    }

    /// The same matrix, column-major if it is to be transposed, else row-major.
    fn laid<T: Real>(matrix: &Array2<T>, transposed: bool) -> Array2<T> {
        let mut other = Array2::zeros(matrix.raw_dim().set_f(transposed));
        other.assign(matrix);
        other
    }

    /// Every path, every layout of A, B and C, sizes that include 0, 1, primes, and both sides of each constant.
    #[test]
    fn products_match_the_naive_sum() {
        let mut rng = Philox::new(0, Stream::Init, 0);
        let sizes = [0, 1, 2, 7, 8, 9, 31, 33, 65, 131];
        let mut worst: f64 = 0.0;
        for (m, k, n) in triples(&sizes).chain([(1, 700, 5), (3, 5, 600), (257, 300, 8), (9, 3000, 3)]) {
            let mut matrix = |rows, columns| Array2::<f64>::random_using((rows, columns), StandardNormal, &mut rng);
            let (a, b, before) = (matrix(m, k), matrix(k, n), matrix(m, n));
            let expected = naive(&a, &b);
            for layout in 0..8 {
                let (a, b) = (laid(&a, layout & 1 > 0), laid(&b, layout & 2 > 0));
                let mut c = laid(&before, layout & 4 > 0);
                product(a.view(), b.view(), c.view_mut(), Epilogue::Nothing);
                let scale = (k as f64).sqrt().max(1.0);
                // In this order NaN is the largest.
                let error = (&c - &expected).iter().map(|e| e.abs() / scale).max_by(f64::total_cmp).unwrap_or(0.0);
                assert!(error <= 1e-13, "[{m}, {k}]·[{k}, {n}], layout {layout}: error {error:.1e}");
                worst = worst.max(error);
            }
        }
        println!("worst error of a product: {worst:.1e}");
    }

    /// Products that are added to C, by the loops of this file and by `matrixmultiply`, which `f32` has where its own kernel
    /// does not go.
    fn sums_match_plain_loops<T: Real>(tolerance: f64) {
        let mut rng = Philox::new(1, Stream::Init, 0);
        let mut worst: f64 = 0.0;
        let sizes =
            [(3, 0, 5), (1, 1, 1), (5, 7, 1), (20, 31, 8), (31, 20, 9), (17, 300, 64), (9, 600, 67), (600, 9, 33)];
        for (m, k, n) in sizes {
            let mut matrix =
                |rows, columns| Array2::random_using((rows, columns), StandardNormal, &mut rng).mapv(T::of);
            let (a, b, before) = (matrix(m, k), matrix(k, n), matrix(m, n));
            let wide = |array: &Array2<T>| array.mapv(T::as_f64);
            let product = naive(&wide(&a), &wide(&b));
            for layout in 0..16 {
                let (a, b) = (laid(&a, layout & 1 > 0), laid(&b, layout & 2 > 0));
                let mut c = laid(&before, layout & 4 > 0);
                let accumulate = layout & 8 > 0;
                // What was there before matters only to what is added to it.
                let kept = if accumulate { 1.0 } else { 0.0 };
                let expected = wide(&c) * kept + &product;
                let (a, b, c_here) = (a.view(), b.view().into(), c.view_mut());
                Product { a, b, c: c_here, accumulate, epilogue: Epilogue::Nothing }.run_elsewhere();
                let error = (wide(&c) - expected).iter().map(|e| e.abs()).max_by(f64::total_cmp).unwrap_or(0.0);
                let error = error / (k as f64).sqrt().max(1.0);
                assert!(error <= tolerance, "[{m}, {k}]·[{k}, {n}], layout {layout}: error {error:.1e}");
                worst = worst.max(error);
            }
        }
        println!("worst error of a sum: {worst:.1e}");
    }

    /// A product that is divided by rows or columns has the bits of one that is not, with all that comes with it.
    #[test]
    fn divided_products_have_the_same_bits() {
        let mut rng = Philox::new(2, Stream::Init, 0);
        for (m, k, n) in [(1030, 40, 70), (40, 70, 1030)] {
            let mut matrix = |rows, columns| Array2::<f32>::random_using((rows, columns), StandardNormal, &mut rng);
            let (a, b, c, hidden) = (matrix(m, k), matrix(k, n), matrix(m, n), matrix(m, n));
            let bias = hidden.row(0).to_vec();
            let rows: Vec<usize> = (0..m).map(|i| i * 7 % m).collect();
            let mut panels = crate::nn::Aligned::zeros(f32::packed_len(k, n));
            if !panels.is_empty() {
                f32::pack(b.view(), &mut panels);
            }
            for case in 0..16 {
                let result = |divided: bool| {
                    let mut c = c.clone();
                    let (hidden, activation) = (hidden.view(), Activation::Relu);
                    let epilogue = match case % 4 {
                        0 => Epilogue::Nothing,
                        1 => Epilogue::Bias(&bias, Some(activation)),
                        2 => Epilogue::Slope { hidden, rows: None, activation },
                        _ => Epilogue::Slope { hidden, rows: Some(&rows), activation },
                    };
                    let panels = Some(&*panels).filter(|panels| case / 4 % 2 > 0 && !panels.is_empty());
                    let (a, b) = (a.view(), Factor { matrix: b.view(), panels });
                    let mut product = Product { a, b, c: c.view_mut(), accumulate: case / 8 > 0, epilogue };
                    if divided {
                        product.run()
                    } else {
                        product.run_here()
                    }
                    c
                };
                assert_eq!(result(true), result(false), "[{m}, {k}]·[{k}, {n}], case {case}");
            }
        }
    }

    #[test]
    fn sums_match_plain_loops_in_both_precisions() {
        sums_match_plain_loops::<f64>(1e-14);
        sums_match_plain_loops::<f32>(5e-6);
    }

    fn triples(sizes: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        sizes.iter().flat_map(move |&m| sizes.iter().flat_map(move |&k| sizes.iter().map(move |&n| (m, k, n))))
    }
}
