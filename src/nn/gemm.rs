//! Matrix products, and how work is divided among threads.
//!
//! `f32` products go to this crate's AVX-512 kernel where there is AVX-512, except those of few columns; other large
//! products go to `matrixmultiply`. Products with a thin side (a network's first and last layers, and every layer when a
//! single observation is acted upon) otherwise go to two vectorized loops, because packing would cost more than it gains.
//!
//! Work is divided by shape, never by the number of threads, and no sum is ever split: the same inputs give the same
//! bits on any number of threads.

use super::real::Real;
use super::simd::simd;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// A side of at most this many elements makes a product thin.
const THIN: usize = 8;
/// Columns of the result that [`thin_rows`] keeps in registers.
const COLUMNS: usize = 64;
/// Partial sums that [`thin_dots`] keeps in registers.
const LANES: usize = 32;
/// Elements of B that are copied to the stack at a time where they do not lie as a loop wants them.
const PANEL: usize = 2048;
/// Fewest rows, and least work in multiplications, that are worth handing to another thread.
const BLOCK_ROWS: usize = 256;
const BLOCK_WORK: usize = 1 << 20;

/// C ← A·B, or C ← C + A·B if `accumulate`; A is `[m, k]`, B is `[k, n]`, C is `[m, n]`, each of any strides.
///
/// # Panics
/// If the shapes do not fit each other.
pub fn product<T: Real>(a: ArrayView2<T>, b: ArrayView2<T>, mut c: ArrayViewMut2<T>, accumulate: bool) {
    let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
    assert_eq!(b.nrows(), k, "A is [{m}, {k}], so B must have {k} rows");
    assert_eq!(c.dim(), (m, n), "A·B is [{m}, {n}], and so must C be");
    // The kernel packs nothing for few rows and is fast at any depth, so only few columns are left to the loops.
    let kernel_suits = n > THIN && T::gemm_takes_thin();
    if !kernel_suits
        && (thin(a, b, c.view_mut(), accumulate) || thin(b.t(), a.t(), c.view_mut().reversed_axes(), accumulate))
    {
        return;
    }
    let strides = |s: &[isize]| [s[0], s[1]];
    let beta = if accumulate { T::one() } else { T::zero() };
    let c_strides = strides(c.strides());
    // SAFETY: pointers and strides come from three live views of the shapes checked above, and C, being borrowed
    // mutably, overlaps neither A nor B.
    unsafe {
        let (a, b) = ((a.as_ptr(), strides(a.strides())), (b.as_ptr(), strides(b.strides())));
        T::gemm(m, k, n, a, b, beta, (c.as_mut_ptr(), c_strides));
    }
}

/// Does the product if a loop of this file fits its shape and the way its matrices lie; says whether it did.
fn thin<T: Real>(a: ArrayView2<T>, b: ArrayView2<T>, c: ArrayViewMut2<T>, accumulate: bool) -> bool {
    let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
    match (a.to_slice(), b.to_slice()) {
        (_, Some(b)) if m <= THIN || k <= THIN => thin_rows(a, b, c, accumulate),
        (_, None) if k <= THIN && k * n <= PANEL => {
            let mut panel = [T::zero(); PANEL];
            panel.iter_mut().zip(b).for_each(|(to, &from)| *to = from);
            thin_rows(a, &panel[..k * n], c, accumulate);
        }
        (Some(a), _) if n <= THIN => thin_dots(a, b, c, accumulate),
        _ => return false,
    }
    true
}

simd! {
    /// C\[i, ·] ← Σₖ A\[i, k]·B\[k, ·]: adds up rows of B, which is given in row-major order.
    fn thin_rows<T>(a: ArrayView2<T>, b: &[T], c: ArrayViewMut2<T>, accumulate: bool) {
        let (n, mut c) = (c.ncols(), c);
        for (a, mut c) in a.rows().into_iter().zip(c.rows_mut()) {
            let mut first = 0;
            while first < n {
                let width = COLUMNS.min(n - first);
                let mut sums = [T::zero(); COLUMNS];
                let rows = a.iter().zip(b.chunks_exact(n).map(|b| &b[first..first + width]));
                if width == COLUMNS {
                    // The sums stay in registers because their number is known here.
                    for (&x, b) in rows {
                        (0..COLUMNS).for_each(|j| sums[j] += x * b[j]);
                    }
                } else {
                    for (&x, b) in rows {
                        sums.iter_mut().zip(b).for_each(|(sum, &y)| *sum += x * y);
                    }
                }
                match c.as_slice_mut() {
                    Some(c) if accumulate => c[first..].iter_mut().zip(&sums).for_each(|(c, &sum)| *c += sum),
                    Some(c) => c[first..first + width].copy_from_slice(&sums[..width]),
                    None if accumulate => c.iter_mut().skip(first).zip(&sums).for_each(|(c, &sum)| *c += sum),
                    None => c.iter_mut().skip(first).zip(&sums).for_each(|(c, &sum)| *c = sum),
                }
                first += width;
            }
        }
    }
}

simd! {
    /// C\[i, j] ← A\[i, ·] · B\[·, j]: inner products with the rows of A, which is given in row-major order.
    fn thin_dots<T>(a: &[T], b: ArrayView2<T>, c: ArrayViewMut2<T>, accumulate: bool) {
        let (k, n, mut c) = (b.nrows(), b.ncols(), c);
        if n == 0 {
            return;
        }
        let depth = PANEL / n / LANES * LANES;
        let mut panel = [T::zero(); PANEL];
        if !accumulate {
            c.fill(T::zero());
        }
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

/// Calls `work(first_row, rows)` for blocks of the rows of `c`, in parallel where a block is worth handing over.
///
/// `row_work` is the work that one row takes, in multiplications. The blocks depend on it and on the shape alone.
pub fn for_row_blocks<T: Real, F: Fn(usize, ArrayViewMut2<T>) + Sync>(c: ArrayViewMut2<T>, row_work: usize, work: F) {
    fn split<T: Real, F>(first: usize, c: ArrayViewMut2<T>, block: usize, work: &F)
    where
        F: Fn(usize, ArrayViewMut2<T>) + Sync,
    {
        let blocks = c.nrows().div_ceil(block);
        if blocks <= 1 {
            return work(first, c);
        }
        let middle = blocks / 2 * block;
        let (top, bottom) = c.split_at(Axis(0), middle);
        rayon::join(|| split(first, top, block, work), || split(first + middle, bottom, block, work));
    }
    let block = BLOCK_ROWS.max(BLOCK_WORK / row_work.max(1));
    split(0, c, block, &work);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};
    use ndarray::{Array2, ShapeBuilder};
    use ndarray_rand::{RandomExt, rand_distr::StandardNormal};

    fn naive(a: &Array2<f64>, b: &Array2<f64>, c: &Array2<f64>, accumulate: bool) -> Array2<f64> {
        Array2::from_shape_fn(c.dim(), |(i, j)| {
            let sum: f64 = (0..a.ncols()).map(|p| a[[i, p]] * b[[p, j]]).sum();
            if accumulate { c[[i, j]] + sum } else { sum }
        })
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
                let accumulate = (m + k + n) % 2 == 0;
                let expected = naive(&a, &b, &c, accumulate);
                product(a.view(), b.view(), c.view_mut(), accumulate);
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

    #[test]
    fn row_blocks_cover_every_row_once() {
        for rows in [0, 1, 255, 256, 257, 300, 1000] {
            let mut c = Array2::<f32>::zeros((rows, 2));
            for_row_blocks(c.view_mut(), BLOCK_WORK, |first, mut block| {
                block.rows_mut().into_iter().enumerate().for_each(|(i, mut row)| row += (first + i) as f32);
            });
            assert!(c.rows().into_iter().enumerate().all(|(i, row)| row.iter().all(|&x| x == i as f32)));
        }
    }
}
