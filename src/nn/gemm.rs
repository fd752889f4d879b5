//! Matrix products, and how work is divided among threads.
//!
//! `f32` products go to this crate's own kernel where the processor has AVX-512, or AVX2 with FMA, except those of few
//! columns; other large products go to `matrixmultiply`. Products with a thin side (a network's first and last layers, and
//! every layer when a single observation is acted upon) otherwise go to two vectorized loops, because packing would cost
//! more than it gains.
//!
//! Work is divided by shape, never by the number of threads, and no sum is ever split: the same inputs give the same
//! bits on any number of threads.

use super::finish::Finish;
use super::real::Real;
use super::simd::simd;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// What `SAC_GEMM` in the environment may ask for: the kernel with these registers, if the processor has them, or
/// `matrixmultiply` alone. It is for comparing them; without it the widest registers are taken.
pub const CHOICES: [&str; 3] = ["avx512", "avx2", "portable"];

/// A side of at most this many elements makes a product thin.
const THIN: usize = 8;
/// Columns of the result that [`thin_rows`] makes at a time.
const COLUMNS: usize = 256;
/// Partial sums that [`thin_dots`] keeps in registers.
const LANES: usize = 32;
/// Elements of B that are copied to the stack at a time where they do not lie as a loop wants them.
const PANEL: usize = 2048;
/// Fewest rows, and least work in multiplications, that are worth handing to another thread; the fewest columns are
/// [`Real::block_columns`].
const BLOCK_ROWS: usize = 256;
const BLOCK_WORK: usize = 1 << 19;

/// C ← A·B, finished as `finish` says; A is `[m, k]`, B is `[k, n]`, C is `[m, n]`, each of any strides, but the rows of a
/// C to be finished, and those of what finishes it, must be contiguous.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn product<T: Real>(a: ArrayView2<T>, b: ArrayView2<T>, c: ArrayViewMut2<T>, finish: Finish<T>) {
    let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
    assert_eq!(b.nrows(), k, "A is [{m}, {k}], so B must have {k} rows");
    assert_eq!(c.dim(), (m, n), "A·B is [{m}, {n}], and so must C be");
    finish.check(m, n);
    in_blocks(a, b, c, finish);
}

/// [`product`], block by block of C, in parallel. Few rows are divided by columns alone, because B, which is what has to
/// be packed, is divided with them.
fn in_blocks<T: Real>(a: ArrayView2<T>, b: ArrayView2<T>, c: ArrayViewMut2<T>, finish: Finish<T>) {
    let (m, k, n, block_columns) = (a.nrows(), a.ncols(), b.ncols(), T::block_columns());
    if m * k * n < 2 * BLOCK_WORK || m < 2 * BLOCK_ROWS && n < 2 * block_columns {
        return block(a, b, c, finish);
    }
    if m >= 2 * BLOCK_ROWS {
        let middle = m / BLOCK_ROWS / 2 * BLOCK_ROWS;
        let ((a_1, a_2), (c_1, c_2)) = (a.split_at(Axis(0), middle), c.split_at(Axis(0), middle));
        let (finish_1, finish_2) = (finish.rows(0..middle), finish.rows(middle..m));
        rayon::join(|| in_blocks(a_1, b, c_1, finish_1), || in_blocks(a_2, b, c_2, finish_2));
    } else {
        let middle = n / block_columns / 2 * block_columns;
        let ((b_1, b_2), (c_1, c_2)) = (b.split_at(Axis(1), middle), c.split_at(Axis(1), middle));
        let (finish_1, finish_2) = (finish.columns(0..middle), finish.columns(middle..n));
        rayon::join(|| in_blocks(a, b_1, c_1, finish_1), || in_blocks(a, b_2, c_2, finish_2));
    }
}

/// [`product`] by one thread.
fn block<T: Real>(a: ArrayView2<T>, b: ArrayView2<T>, mut c: ArrayViewMut2<T>, finish: Finish<T>) {
    let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
    // The kernel is fast for few rows and at any depth, so only few columns are left to the loops.
    if n > THIN && T::own_product(a, b, c.view_mut(), &finish) {
        return;
    }
    // There are finishes that the kernel leaves to others.
    let own = n > THIN && T::own_product(a, b, c.view_mut(), &Finish::Nothing);
    if !(own || thin(a, b, c.view_mut()) || thin(b.t(), a.t(), c.view_mut().reversed_axes())) {
        let strides = |s: &[isize]| [s[0], s[1]];
        let c_strides = strides(c.strides());
        // SAFETY: pointers and strides come from three live views of shapes that fit each other, and C, being borrowed
        // mutably, overlaps neither A nor B.
        unsafe {
            let (a, b) = ((a.as_ptr(), strides(a.strides())), (b.as_ptr(), strides(b.strides())));
            T::gemm(m, k, n, a, b, (c.as_mut_ptr(), c_strides));
        }
    }
    finish.apply(c);
}

/// Does the product if a loop of this file fits its shape and the way its matrices lie; says whether it did.
fn thin<T: Real>(a: ArrayView2<T>, b: ArrayView2<T>, c: ArrayViewMut2<T>) -> bool {
    let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
    match (a.to_slice(), b.to_slice()) {
        (_, Some(b)) if m <= THIN || k <= THIN => thin_rows(a, b, c),
        (_, None) if k <= THIN && k * n <= PANEL => {
            let mut panel = [T::zero(); PANEL];
            panel.iter_mut().zip(b).for_each(|(to, &from)| *to = from);
            thin_rows(a, &panel[..k * n], c);
        }
        (Some(a), _) if n <= THIN => thin_dots(a, b, c),
        _ => return false,
    }
    true
}

simd! {
    /// C\[i, ·] ← Σₖ A\[i, k]·B\[k, ·]: adds up rows of B, which is given in row-major order.
    fn thin_rows<T>(a: ArrayView2<T>, b: &[T], c: ArrayViewMut2<T>) {
        let (n, mut c) = (c.ncols(), c);
        for (a, mut c) in a.rows().into_iter().zip(c.rows_mut()) {
            let mut first = 0;
            while first < n {
                let width = COLUMNS.min(n - first);
                let mut sums = [T::zero(); COLUMNS];
                let rows = a.iter().zip(b.chunks_exact(n).map(|b| &b[first..first + width]));
                if width == COLUMNS {
                    // A number known to the compiler is worth a loop of its own.
                    for (&x, b) in rows {
                        (0..COLUMNS).for_each(|j| sums[j] += x * b[j]);
                    }
                } else {
                    for (&x, b) in rows {
                        sums.iter_mut().zip(b).for_each(|(sum, &y)| *sum += x * y);
                    }
                }
                match c.as_slice_mut() {
                    Some(c) => c[first..first + width].copy_from_slice(&sums[..width]),
                    None => c.iter_mut().skip(first).zip(&sums).for_each(|(c, &sum)| *c = sum),
                }
                first += width;
            }
        }
    }
}

simd! {
    /// C\[i, j] ← A\[i, ·] · B\[·, j]: inner products with the rows of A, which is given in row-major order.
    fn thin_dots<T>(a: &[T], b: ArrayView2<T>, c: ArrayViewMut2<T>) {
        let (k, n, mut c) = (b.nrows(), b.ncols(), c);
        if n == 0 {
            return;
        }
        let depth = PANEL / n / LANES * LANES;
        let mut panel = [T::zero(); PANEL];
        c.fill(T::zero());
        for (p, b) in b.axis_chunks_iter(Axis(0), depth).enumerate() {
            let depth_here = b.nrows();
            panel.iter_mut().zip(b.t()).for_each(|(to, &from)| *to = from);
            for (a, mut c) in a.chunks_exact(k).zip(c.rows_mut()) {
                let a = &a[p * depth..][..depth_here];
                for (b, c) in panel.chunks_exact(depth_here).zip(c.iter_mut()) {
                    let mut sums = [T::zero(); LANES];
                    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
                    let tail = a_chunks.remainder().iter().zip(b_chunks.remainder());
                    for (a, b) in a_chunks.zip(b_chunks) {
                        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (&x, &y))| *sum += x * y);
                    }
                    sums.iter_mut().zip(tail).for_each(|(sum, (&x, &y))| *sum += x * y);
                    let mut half = LANES / 2;
                    while half > 0 {
                        for lane in 0..half {
                            sums[lane] += sums[lane + half];
                        }
                        half /= 2;
                    }
                    *c += sums[0];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};
    use ndarray::{Array2, ShapeBuilder};
    use ndarray_rand::{RandomExt, rand_distr::StandardNormal};

    fn naive(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
        Array2::from_shape_fn((a.nrows(), b.ncols()), |(i, j)| (0..a.ncols()).map(|p| a[[i, p]] * b[[p, j]]).sum())
    }

    /// Every path, every layout of A, B and C, sizes that include 0, 1, primes, and both sides of each constant.
    #[test]
    fn products_match_the_naive_sum() {
        let mut rng = Philox::new(0, Stream::Init, 0);
        let sizes = [0, 1, 2, 7, 8, 9, 31, 33, 65, 131];
        let mut worst: f64 = 0.0;
        for (m, k, n) in triples(&sizes).chain([(1, 700, 5), (3, 5, 600), (257, 300, 8), (9, 3000, 3)]) {
            for layout in 0..8 {
                let mut matrix = |rows: usize, columns: usize, transposed: bool| {
                    let values = Array2::<f64>::random_using((rows, columns), StandardNormal, &mut rng);
                    let mut array = Array2::zeros((rows, columns).set_f(transposed));
                    array.assign(&values);
                    array
                };
                let (a, b) = (matrix(m, k, layout & 1 > 0), matrix(k, n, layout & 2 > 0));
                let mut c = matrix(m, n, layout & 4 > 0);
                let expected = naive(&a, &b);
                product(a.view(), b.view(), c.view_mut(), Finish::Nothing);
                let scale = (k as f64).sqrt().max(1.0);
                let error = (&c - &expected).iter().fold(0.0, |worst: f64, e| worst.max(e.abs() / scale));
                assert!(error <= 1e-13, "[{m}, {k}]·[{k}, {n}], layout {layout}: error {error:.1e}");
                worst = worst.max(error);
            }
        }
        println!("worst error of a product: {worst:.1e}");
    }

    fn triples(sizes: &[usize]) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        sizes.iter().flat_map(move |&m| sizes.iter().flat_map(move |&k| sizes.iter().map(move |&n| (m, k, n))))
    }
}
