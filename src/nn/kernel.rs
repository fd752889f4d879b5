//! The product of `f32` matrices for AVX-512, and the choice between it and `matrixmultiply`.
//!
//! C is made in tiles of at most 12 rows by 32 columns, which stay in registers while k goes by. Each element of C is one
//! chain of fused multiply-adds over k in ascending order, whichever tile it falls in: wherever rows or columns are
//! split, the bits stay the same.

/// Whether [`sgemm`] is fast for few rows and for small k as well: the tiles need no packing there.
pub(super) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return *avx512::AVAILABLE;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// C ← α·A·B + β·C, as `matrixmultiply::sgemm`: A is `[m, k]`, B is `[k, n]`, C is `[m, n]`, each followed by its row and
/// column stride.
///
/// # Safety
/// The pointers and strides must describe matrices that lie wholly within their allocations, and C must not overlap A, B
/// or itself.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn sgemm(
    m: usize,
    k: usize,
    n: usize,
    alpha: f32,
    a: *const f32,
    rsa: isize,
    csa: isize,
    b: *const f32,
    rsb: isize,
    csb: isize,
    beta: f32,
    c: *mut f32,
    rsc: isize,
    csc: isize,
) {
    #[cfg(target_arch = "x86_64")]
    if alpha == 1.0 && (beta == 0.0 || beta == 1.0) && available() {
        use avx512::{Matrix, product};
        let (a, b) = (Matrix { at: a, strides: [rsa, csa] }, Matrix { at: b, strides: [rsb, csb] });
        // SAFETY: AVX-512F has been detected, and the caller promises the rest.
        let done = unsafe {
            // (A·B)ᵀ = Bᵀ·Aᵀ makes a C whose columns are contiguous one whose rows are.
            product(m, k, n, a, b, beta == 1.0, Matrix { at: c, strides: [rsc, csc] })
                || product(n, k, m, b.t(), a.t(), beta == 1.0, Matrix { at: c, strides: [csc, rsc] })
        };
        if done {
            return;
        }
    }
    // SAFETY: the caller promises what `matrixmultiply` asks for.
    unsafe { matrixmultiply::sgemm(m, k, n, alpha, a, rsa, csa, b, rsb, csb, beta, c, rsc, csc) }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;
    use std::cell::RefCell;
    use std::sync::LazyLock;

    /// Floats in a register.
    const LANES: usize = 16;
    /// Most rows and columns of a tile: 24 registers of sums, which leaves room for what they are made of.
    const ROWS: usize = 12;
    const COLUMNS: usize = 2 * LANES;
    /// How much of k is gone through at a time: a panel of so many rows of B stays in the first-level cache.
    const DEPTH: usize = 256;
    /// Fewest tiles that must share a panel of B for it to be worth copying.
    const SHARING: usize = 4;

    /// Whether the processor has AVX-512, unless `SAC_GEMM=portable` in the environment says to do without.
    pub(super) static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        is_x86_feature_detected!("avx512f") && std::env::var_os("SAC_GEMM").is_none_or(|value| value != "portable")
    });

    /// A row of a panel; it begins with a cache line, so that no load straddles two.
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Row([f32; COLUMNS]);

    thread_local! {
        /// A panel of B, `[DEPTH, COLUMNS]`, once a thread has needed one.
        static PANEL: RefCell<Vec<Row>> = const { RefCell::new(Vec::new()) };
    }

    #[derive(Clone, Copy)]
    pub(super) struct Matrix<P> {
        pub(super) at: P,
        /// From one row to the next, and from one column to the next.
        pub(super) strides: [isize; 2],
    }

    impl<P> Matrix<P> {
        pub(super) fn t(self) -> Self {
            Self { strides: [self.strides[1], self.strides[0]], ..self }
        }
    }

    /// C ← A·B, or C ← C + A·B, if the rows of C, and the rows or columns of A and B, are contiguous; says whether so.
    ///
    /// # Safety
    /// As for [`super::sgemm`]; and the processor must have AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn product(
        m: usize,
        k: usize,
        n: usize,
        a: Matrix<*const f32>,
        b: Matrix<*const f32>,
        accumulate: bool,
        c: Matrix<*mut f32>,
    ) -> bool {
        if c.strides[1] != 1 || !a.strides.contains(&1) || !b.strides.contains(&1) {
            return false;
        }
        let (a_transposed, b_transposed) = (a.strides[1] != 1, b.strides[1] != 1);
        let a_step = a.strides[usize::from(a_transposed)];
        let strips = m.div_ceil(ROWS);
        PANEL.with_borrow_mut(|panel| {
            panel.resize(DEPTH, Row([0.0; COLUMNS]));
            // Where k is 0 there still is one block, which sets C to zero.
            for first in (0..k.max(1)).step_by(DEPTH) {
                let depth = DEPTH.min(k - first);
                for column in (0..n).step_by(COLUMNS) {
                    let width = COLUMNS.min(n - column);
                    // SAFETY: `first + depth` ≤ k, `column + width` ≤ n and, below, `row + rows` ≤ m, so all that is
                    // touched lies within the matrices that the caller vouches for; a panel has room for `DEPTH` rows.
                    unsafe {
                        let mut b_here = b.at.offset(first as isize * b.strides[0] + column as isize * b.strides[1]);
                        let mut b_step = b.strides[0];
                        if b_transposed || strips >= SHARING {
                            let pack = if b_transposed { transpose } else { copy };
                            pack(depth, width, b_here, b.strides[usize::from(b_transposed)], panel);
                            (b_here, b_step) = (panel.as_ptr().cast(), COLUMNS as isize);
                        }
                        let tiles = &TILES[usize::from(a_transposed)][(width - 1) / LANES];
                        for strip in 0..strips {
                            // The strips are as even as can be: a thin last one would leave the multipliers waiting.
                            let row = strip * m / strips;
                            let rows = (strip + 1) * m / strips - row;
                            let a_here = a.at.offset(row as isize * a.strides[0] + first as isize * a.strides[1]);
                            let c_here = c.at.offset(row as isize * c.strides[0] + column as isize);
                            let (b, add) = ((b_here, b_step), accumulate || first > 0);
                            tiles[rows - 1](depth, width, (a_here, a_step), b, add, (c_here, c.strides[0]));
                        }
                    }
                }
            }
        });
        true
    }

    type Tile = unsafe fn(usize, usize, (*const f32, isize), (*const f32, isize), bool, (*mut f32, isize));

    macro_rules! tiles {
        ($registers:literal, $transposed:literal) => {
            tiles!($registers, $transposed, 1 2 3 4 5 6 7 8 9 10 11 12)
        };
        ($registers:literal, $transposed:literal, $($rows:literal)*) => {
            [$(tile::<$rows, $registers, $transposed>),*]
        };
    }

    /// [`tile`] by whether A is transposed, by registers to a row, and by rows.
    static TILES: [[[Tile; ROWS]; 2]; 2] = [[tiles!(1, false), tiles!(2, false)], [tiles!(1, true), tiles!(2, true)]];

    /// A tile of C: `R` rows, each of `V` registers of which all but the last are full, `width` elements together.
    ///
    /// A pointer comes with the distance from one row to the next; with A that of columns, if it is `TRANSPOSED`.
    ///
    /// # Safety
    /// A must be `[R, depth]`, B `[depth, width]` and C `[R, width]`, as these pointers and distances describe them;
    /// `width` must need `V` registers; and the processor must have AVX-512F.
    #[target_feature(enable = "avx512f")]
    #[allow(clippy::needless_range_loop)]
    unsafe fn tile<const R: usize, const V: usize, const TRANSPOSED: bool>(
        depth: usize,
        width: usize,
        (a, a_step): (*const f32, isize),
        (b, b_step): (*const f32, isize),
        accumulate: bool,
        (c, c_step): (*mut f32, isize),
    ) {
        let last = u16::MAX >> (V * LANES - width);
        let mask = |v: usize| if v + 1 < V { u16::MAX } else { last };
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        // SAFETY: indices stay below R and `depth`, and masks keep columns below `width`.
        unsafe {
            let c_at = |i: usize, v: usize| c.offset(i as isize * c_step).add(v * LANES);
            for i in 0..R {
                for v in 0..V {
                    // C is not needed before the end, and by then it should be in the cache.
                    _mm_prefetch::<_MM_HINT_ET0>(c_at(i, v).cast());
                    if accumulate {
                        sums[i][v] = _mm512_maskz_loadu_ps(mask(v), c_at(i, v));
                    }
                }
            }
            for p in 0..depth as isize {
                let mut row = [_mm512_setzero_ps(); V];
                for v in 0..V {
                    row[v] = _mm512_maskz_loadu_ps(mask(v), b.offset(p * b_step).add(v * LANES));
                }
                for i in 0..R {
                    let at = if TRANSPOSED { p * a_step + i as isize } else { i as isize * a_step + p };
                    let x = _mm512_set1_ps(*a.offset(at));
                    for v in 0..V {
                        sums[i][v] = _mm512_fmadd_ps(x, row[v], sums[i][v]);
                    }
                }
            }
            for i in 0..R {
                for v in 0..V {
                    _mm512_mask_storeu_ps(c_at(i, v), mask(v), sums[i][v]);
                }
            }
        }
    }

    /// Copies B, `[depth, width]`, whose rows are contiguous and lie `step` apart, to a panel.
    ///
    /// # Safety
    /// B must be so, `depth` and `width` must not exceed those of a panel, and the processor must have AVX-512F.
    #[target_feature(enable = "avx512f")]
    unsafe fn copy(depth: usize, width: usize, b: *const f32, step: isize, panel: &mut [Row]) {
        let masks = [u16::MAX >> LANES.saturating_sub(width), (u32::MAX >> (COLUMNS - width) >> LANES) as u16];
        for (p, row) in panel[..depth].iter_mut().enumerate() {
            for (v, to) in row.0.chunks_exact_mut(LANES).enumerate() {
                // SAFETY: p < `depth`, the mask keeps columns below `width`, and `to` is one aligned register.
                unsafe {
                    let from = b.offset(p as isize * step).wrapping_add(v * LANES);
                    _mm512_store_ps(to.as_mut_ptr(), _mm512_maskz_loadu_ps(masks[v], from));
                }
            }
        }
    }

    /// Copies B, `[depth, width]`, whose columns are contiguous and lie `step` apart, to a panel.
    ///
    /// # Safety
    /// As for [`copy`].
    #[target_feature(enable = "avx512f")]
    unsafe fn transpose(depth: usize, width: usize, b: *const f32, step: isize, panel: &mut [Row]) {
        for first in (0..depth).step_by(LANES) {
            let mask = u16::MAX >> LANES.saturating_sub(depth - first);
            for column in (0..width).step_by(LANES) {
                let mut square = [_mm512_setzero_ps(); LANES];
                for (j, column) in (column..width.min(column + LANES)).enumerate() {
                    // SAFETY: `column` < `width`, and the mask keeps rows below `depth`.
                    square[j] = unsafe { _mm512_maskz_loadu_ps(mask, b.offset(column as isize * step).add(first)) };
                }
                for (row, x) in panel[first..].iter_mut().zip(transposed(square)) {
                    // SAFETY: half a row of a panel is one aligned register.
                    unsafe { _mm512_store_ps(row.0[column..][..LANES].as_mut_ptr(), x) };
                }
            }
        }
    }

    /// The transpose of 16 × 16 elements.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn transposed(rows: [__m512; LANES]) -> [__m512; LANES] {
        let (mut fours, mut columns) = (rows, rows);
        for (r, four) in rows.chunks_exact(4).zip(fours.chunks_exact_mut(4)) {
            let (x, y) = (_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpacklo_ps(r[2], r[3]));
            let (z, w) = (_mm512_unpackhi_ps(r[0], r[1]), _mm512_unpackhi_ps(r[2], r[3]));
            (four[0], four[1]) = (_mm512_shuffle_ps::<0x44>(x, y), _mm512_shuffle_ps::<0xee>(x, y));
            (four[2], four[3]) = (_mm512_shuffle_ps::<0x44>(z, w), _mm512_shuffle_ps::<0xee>(z, w));
        }
        // Quarter q of fours[4r + c] is column 4q + c of the rows 4r to 4r + 3.
        for c in 0..4 {
            let (x, y, z, w) = (fours[c], fours[4 + c], fours[8 + c], fours[12 + c]);
            let (even, more_even) = (_mm512_shuffle_f32x4::<0x88>(x, y), _mm512_shuffle_f32x4::<0x88>(z, w));
            let (odd, more_odd) = (_mm512_shuffle_f32x4::<0xdd>(x, y), _mm512_shuffle_f32x4::<0xdd>(z, w));
            columns[c] = _mm512_shuffle_f32x4::<0x88>(even, more_even);
            columns[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, more_odd);
            columns[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, more_even);
            columns[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, more_odd);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};
    use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, ShapeBuilder};
    use ndarray_rand::{RandomExt, rand_distr::StandardNormal};

    fn product(a: ArrayView2<f32>, b: ArrayView2<f32>, mut c: ArrayViewMut2<f32>, accumulate: bool) {
        assert_eq!((a.nrows(), a.ncols(), b.ncols()), (c.nrows(), b.nrows(), c.ncols()));
        let ([m, k, n], beta) = ([a.nrows(), a.ncols(), b.ncols()], f32::from(u8::from(accumulate)));
        let [a_s, b_s, c_s] = [a.strides(), b.strides(), c.strides()].map(|s| [s[0], s[1]]);
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // SAFETY: three live views of fitting shapes, the last of them borrowed mutably.
        unsafe { sgemm(m, k, n, 1.0, a, a_s[0], a_s[1], b, b_s[0], b_s[1], beta, c, c_s[0], c_s[1]) }
    }

    fn matrix(rng: &mut Philox, rows: usize, columns: usize, transposed: bool) -> Array2<f32> {
        let mut matrix = Array2::zeros((rows, columns).set_f(transposed));
        matrix.assign(&Array2::<f32>::random_using((rows, columns), StandardNormal, rng));
        matrix
    }

    /// Every layout of A, B and C against sums in `f64`; and C split in four anywhere against C made at once.
    #[test]
    fn products_are_right_and_the_same_however_they_are_split() {
        if !available() {
            println!("skipped: how products are split, because this processor has no AVX-512 (or SAC_GEMM=portable)");
            assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        }
        let mut rng = Philox::new(0, Stream::Init, 0);
        let sizes = [0, 1, 2, 13, 16, 31, 67];
        let all = sizes.into_iter().flat_map(|m| sizes.map(|k| sizes.map(|n| (m, k, n))).into_iter().flatten());
        for (m, k, n) in all.chain([(128, 256, 64), (50, 257, 48), (37, 600, 101)]) {
            for layout in 0..16 {
                let (a, b) = (matrix(&mut rng, m, k, layout & 1 > 0), matrix(&mut rng, k, n, layout & 2 > 0));
                let (before, accumulate) = (matrix(&mut rng, m, n, layout & 4 > 0), layout & 8 > 0);
                let mut whole = before.clone();
                product(a.view(), b.view(), whole.view_mut(), accumulate);
                let mut exact = a.mapv(f64::from).dot(&b.mapv(f64::from));
                if accumulate {
                    exact += &before.mapv(f64::from);
                }
                let close = |x: f32, y: f64| (f64::from(x) - y).abs() <= 1e-5 * (k as f64).max(1.0).sqrt();
                assert!(whole.iter().zip(&exact).all(|(&x, &y)| close(x, y)), "{m} {k} {n}, layout {layout}");
                // `matrixmultiply` makes no such promise.
                if !available() {
                    continue;
                }
                let (row, column) = (m * 2 / 5, n / 3);
                let (mut split, (a_1, a_2)) = (before, a.view().split_at(Axis(0), row));
                let (b_1, b_2) = b.view().split_at(Axis(1), column);
                let (top, bottom) = split.view_mut().split_at(Axis(0), row);
                for (a, c) in [(a_1, top), (a_2, bottom)] {
                    let (left, right) = c.split_at(Axis(1), column);
                    product(a, b_1, left, accumulate);
                    product(a, b_2, right, accumulate);
                }
                let same = whole.iter().zip(&split).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same, "{m} {k} {n}, layout {layout}: split at {row}, {column}");
            }
        }
    }
}
