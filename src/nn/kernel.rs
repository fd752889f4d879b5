//! The product of `f32` matrices for AVX-512 and for AVX2 with FMA, and the choice between them and `matrixmultiply`.
//!
//! C is made in tiles of a few rows and two registers of columns, whose sums stay in registers while k goes by. Each
//! element of C is one chain of fused multiply-adds over k in ascending order, whichever tile it falls in and however wide
//! a register is: wherever rows or columns are split, and on either kind of processor, the bits are the same.

use super::finish::Finish;
use ndarray::{ArrayView2, ArrayViewMut2};

/// Whether this processor has what [`product`] needs, and `SAC_GEMM=portable` in the environment does not forbid it.
pub(super) fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::CHOSEN.is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// C ← A·B, finished as `finish` says, if this processor, the way the matrices lie and `finish` allow it; says whether
/// they do.
///
/// # Panics
/// If the shapes do not fit each other.
pub(super) fn product(a: ArrayView2<f32>, b: ArrayView2<f32>, c: ArrayViewMut2<f32>, finish: &Finish<f32>) -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::CHOSEN.is_some_and(|kind| x86::product(kind, a, b, c, finish));
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (a, b, c, finish);
        false
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ArrayView2, ArrayViewMut2, Finish};
    use crate::nn::Activation;
    use ndarray::{ArrayBase, Axis, Ix2, RawData};
    use std::arch::x86_64::*;
    use std::cell::RefCell;
    use std::sync::LazyLock;

    /// How much of k is gone through at a time: a panel of so many rows of B stays in the first-level cache.
    const DEPTH: usize = 256;
    /// Fewest tiles that must share a panel of B for it to be worth copying.
    const SHARING: usize = 4;
    /// Registers of columns in a tile.
    const REGISTERS: usize = 2;
    /// Registers of columns in a tile of a single row, where each has to wait for its own last sum; and in the panels of B
    /// that are packed together, because a row of B is read fastest in long pieces.
    const GROUP: usize = 8;

    /// A matrix by its first element, and the distances from one row to the next and from one column to the next.
    #[derive(Clone, Copy)]
    struct Matrix<P> {
        at: P,
        strides: [isize; 2],
    }

    impl<P> Matrix<P> {
        fn new<S: RawData<Elem = f32>>(at: P, array: &ArrayBase<S, Ix2>) -> Self {
            // Where there is but one row, or one column, its distance to the next is anything.
            let stride = |axis| if array.len_of(Axis(axis)) > 1 { array.strides()[axis] } else { 1 };
            Self { at, strides: [stride(0), stride(1)] }
        }

        fn t(self) -> Self {
            Self { strides: [self.strides[1], self.strides[0]], ..self }
        }
    }

    /// A [`Finish`] that tiles do themselves, told from the first element of C.
    #[derive(Clone, Copy)]
    enum Tail {
        Nothing,
        /// The bias of the first column, and whether a ReLU follows.
        Bias(*const f32, bool),
        /// h of a ReLU as [`Matrix`] has it, and which of its rows, unless they are those of C.
        Slope(*const f32, isize, Option<*const usize>),
    }

    /// [`multiply`] for one kind of processor.
    type Multiply =
        unsafe fn([usize; 3], Matrix<*const f32>, Matrix<*const f32>, Matrix<*mut f32>, Tail, &mut Packed) -> bool;

    /// [`tile`] for one kind of processor and one shape.
    type Tile = unsafe fn(&Job);

    /// C ← A·B of one tile, or C ← C + A·B: A is `[rows, depth]`, B is `[depth, registers]`, C is `[rows, width]`. Each
    /// pointer comes with the distance from one row to the next; with A that of columns, if it is transposed.
    struct Job {
        depth: usize,
        width: usize,
        a: (*const f32, isize),
        b: (*const f32, isize),
        c: (*mut f32, isize),
        accumulate: bool,
        tail: Tail,
    }

    /// A kind of register.
    #[derive(Clone, Copy, Debug)]
    pub(super) enum Kind {
        Avx512,
        Avx2,
    }

    /// The kinds that this processor has, widest first.
    pub(super) fn kinds() -> impl Iterator<Item = Kind> {
        let avx512 = is_x86_feature_detected!("avx512f").then_some(Kind::Avx512);
        let avx2 = (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Kind::Avx2);
        avx512.into_iter().chain(avx2)
    }

    /// The widest, or what `SAC_GEMM` in the environment names, `avx512` or `avx2`; none for `SAC_GEMM=portable`.
    pub(super) static CHOSEN: LazyLock<Option<Kind>> = LazyLock::new(|| {
        let wish = std::env::var("SAC_GEMM").ok();
        kinds().find(|kind| wish.as_ref().is_none_or(|wish| format!("{kind:?}").eq_ignore_ascii_case(wish)))
    });

    /// A register of floats, and the tiles that a processor with such registers makes.
    trait Register: Copy {
        /// Floats in a register.
        const LANES: usize;
        /// Most rows of a tile: with its columns, as many sums as leave registers for what they are made of.
        const ROWS: usize;
        /// Tiles of [`REGISTERS`] by whether A is transposed, by registers to a row less one, and by rows less one.
        const TILES: &'static [[&'static [Tile]; REGISTERS]; 2];
        /// The tile of one row and [`GROUP`], by whether A is transposed.
        const ONE_ROW: [Tile; 2];

        unsafe fn zero() -> Self;
        unsafe fn load(from: *const f32) -> Self;
        unsafe fn store(self, to: *mut f32);
        /// The first `count` floats, or all if there are fewer lanes; the others are zero.
        unsafe fn load_first(from: *const f32, count: usize) -> Self;
        /// Writes the first `count` floats, or all if there are fewer lanes.
        unsafe fn store_first(self, to: *mut f32, count: usize);
        /// The float at `from` in every lane.
        unsafe fn broadcast(from: *const f32) -> Self;
        unsafe fn add(self, b: Self) -> Self;
        /// max(self, 0), where NaN and −0 stay what they are.
        unsafe fn relu(self) -> Self;
        /// self where h > 0, else 0.
        unsafe fn keep_where_positive(self, h: Self) -> Self;
        /// self·b + c, rounded once.
        unsafe fn mul_add(self, b: Self, c: Self) -> Self;
        /// Writes the transpose of the `LANES` × `LANES` floats at `from`; each pointer comes with the distance between rows.
        unsafe fn transpose(from: (*const f32, isize), to: (*mut f32, isize));
    }

    /// Implements [`Register`] and `product` for a type, given the instructions of its processor.
    macro_rules! register {
        (
            $name:ident($vector:ty), $features:literal, $lanes:literal lanes, rows $($rows:literal)*,
            $zero:ident, $load:ident, $store:ident, $broadcast:ident, $add:ident, $mul_add:ident, $max:ident,
            $keep:ident, $transpose:ident, $load_first:ident, $store_first:ident
        ) => {
            #[derive(Clone, Copy)]
            struct $name($vector);

            impl $name {
                #[target_feature(enable = $features)]
                unsafe fn multiply(
                    sizes: [usize; 3],
                    a: Matrix<*const f32>,
                    b: Matrix<*const f32>,
                    c: Matrix<*mut f32>,
                    tail: Tail,
                    packed: &mut Packed,
                ) -> bool {
                    // SAFETY: the caller promises the same.
                    unsafe { multiply::<Self>(sizes, a, b, c, tail, packed) }
                }

                #[target_feature(enable = $features)]
                unsafe fn tile<const R: usize, const N: usize, const TRANSPOSED: bool>(job: &Job) {
                    // SAFETY: the caller promises the same.
                    unsafe { tile::<Self, R, N, TRANSPOSED>(job) }
                }
            }

            // SAFETY of the functions: callers are compiled for, and run on, a processor with these instructions, and
            // promise that there are as many floats as the instruction touches.
            #[allow(clippy::undocumented_unsafe_blocks)]
            impl Register for $name {
                const LANES: usize = $lanes;
                const ROWS: usize = [$($rows),*].len();
                const TILES: &'static [[&'static [Tile]; REGISTERS]; 2] = &[
                    [&[$(Self::tile::<$rows, 1, false>),*], &[$(Self::tile::<$rows, 2, false>),*]],
                    [&[$(Self::tile::<$rows, 1, true>),*], &[$(Self::tile::<$rows, 2, true>),*]],
                ];
                const ONE_ROW: [Tile; 2] =
                    [Self::tile::<1, GROUP, false>, Self::tile::<1, GROUP, true>];

                #[inline(always)]
                unsafe fn zero() -> Self {
                    Self(unsafe { $zero() })
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    Self(unsafe { $load(from) })
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    unsafe { $store(to, self.0) }
                }

                #[inline(always)]
                unsafe fn load_first(from: *const f32, count: usize) -> Self {
                    Self(unsafe { $load_first(from, count) })
                }

                #[inline(always)]
                unsafe fn store_first(self, to: *mut f32, count: usize) {
                    unsafe { $store_first(self.0, to, count) }
                }

                #[inline(always)]
                unsafe fn broadcast(from: *const f32) -> Self {
                    Self(unsafe { $broadcast(*from) })
                }

                #[inline(always)]
                unsafe fn add(self, b: Self) -> Self {
                    Self(unsafe { $add(self.0, b.0) })
                }

                #[inline(always)]
                unsafe fn relu(self) -> Self {
                    // The instruction gives its second operand if either is NaN, or both are zero.
                    Self(unsafe { $max($zero(), self.0) })
                }

                #[inline(always)]
                unsafe fn keep_where_positive(self, h: Self) -> Self {
                    Self(unsafe { $keep(self.0, h.0) })
                }

                #[inline(always)]
                unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                    Self(unsafe { $mul_add(self.0, b.0, c.0) })
                }

                #[inline(always)]
                unsafe fn transpose((from, from_step): (*const f32, isize), (to, to_step): (*mut f32, isize)) {
                    unsafe {
                        let mut rows = [$zero(); $lanes];
                        for (i, row) in rows.iter_mut().enumerate() {
                            *row = $load(from.offset(i as isize * from_step));
                        }
                        for (i, row) in $transpose(rows).into_iter().enumerate() {
                            $store(to.offset(i as isize * to_step), row);
                        }
                    }
                }
            }
        };
    }

    register! {
        Avx512(__m512), "avx512f", 16 lanes, rows 1 2 3 4 5 6 7 8 9 10 11 12,
        _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_add_ps, _mm512_fmadd_ps,
        _mm512_max_ps, keep_16, transposed_16, load_first_16, store_first_16
    }

    register! {
        Avx2(__m256), "avx2,fma", 8 lanes, rows 1 2 3 4 5 6,
        _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_add_ps, _mm256_fmadd_ps,
        _mm256_max_ps, keep_8, transposed_8, load_first_8, store_first_8
    }

    /// Panels of B, `[GROUP / REGISTERS, DEPTH, REGISTERS · LANES]`; they begin with a cache line, so that no load straddles
    /// two.
    #[repr(align(64))]
    struct Packed([f32; DEPTH * GROUP * 16]);

    thread_local! {
        static PACKED: RefCell<Box<Packed>> = RefCell::new(Box::new(Packed([0.0; _])));
    }

    /// [`super::product`] by one of the [`kinds`].
    pub(super) fn product(
        kind: Kind,
        a: ArrayView2<f32>,
        b: ArrayView2<f32>,
        mut c: ArrayViewMut2<f32>,
        finish: &Finish<f32>,
    ) -> bool {
        let multiply: Multiply = match kind {
            Kind::Avx512 => Avx512::multiply,
            Kind::Avx2 => Avx2::multiply,
        };
        let (m, k, n) = (a.nrows(), a.ncols(), b.ncols());
        assert_eq!((b.nrows(), c.dim()), (k, (m, n)));
        finish.check(m, n);
        let tail = match *finish {
            Finish::Nothing => Tail::Nothing,
            Finish::Bias(bias, None) => Tail::Bias(bias.as_ptr(), false),
            Finish::Bias(bias, Some(Activation::Relu)) => Tail::Bias(bias.as_ptr(), true),
            Finish::Slope { hidden, rows, activation: Activation::Relu } => {
                let Matrix { at, strides: [step, 1] } = Matrix::new(hidden.as_ptr(), &hidden) else { return false };
                Tail::Slope(at, step, rows.map(<[usize]>::as_ptr))
            }
            _ => return false,
        };
        let (a, b) = (Matrix::new(a.as_ptr(), &a), Matrix::new(b.as_ptr(), &b));
        let c = Matrix::new(c.as_mut_ptr(), &c);
        // SAFETY: `kind` has been found in the processor. Pointers and strides are those of live views
        // of the shapes checked above, of which C, being borrowed mutably, overlaps none.
        PACKED.with_borrow_mut(|packed| unsafe {
            // (A·B)ᵀ = Bᵀ·Aᵀ makes a C whose columns are contiguous one whose rows are.
            multiply([m, k, n], a, b, c, tail, packed)
                || matches!(tail, Tail::Nothing) && multiply([n, k, m], b.t(), a.t(), c.t(), tail, packed)
        })
    }

    /// C ← A·B, and then `tail`, if the rows of C, and the rows or columns of A and B, are contiguous; says whether so.
    ///
    /// # Safety
    /// A must be `[m, k]`, B `[k, n]` and C `[m, n]`, all within their allocations; C must overlap nothing else; `tail`
    /// must fit C; and it must be compiled for, and run on, a processor that has such registers.
    #[inline(always)]
    unsafe fn multiply<V: Register>(
        [m, k, n]: [usize; 3],
        a: Matrix<*const f32>,
        b: Matrix<*const f32>,
        c: Matrix<*mut f32>,
        tail: Tail,
        Packed(packed): &mut Packed,
    ) -> bool {
        if c.strides[1] != 1 || !a.strides.contains(&1) || !b.strides.contains(&1) {
            return false;
        }
        let packed = packed.as_mut_ptr();
        let (a_transposed, b_transposed) = (a.strides[1] != 1, b.strides[1] != 1);
        let a_step = a.strides[usize::from(a_transposed)];
        let (tiles, one_row) = (&V::TILES[usize::from(a_transposed)], V::ONE_ROW[usize::from(a_transposed)]);
        let strips = m.div_ceil(V::ROWS);
        let (panel, group) = (REGISTERS * V::LANES, GROUP * V::LANES);
        // Where k is 0 there still is one block, which sets C to zero.
        for first in (0..k.max(1)).step_by(DEPTH) {
            let depth = DEPTH.min(k - first);
            let last = first + depth == k;
            for start in (0..n).step_by(group) {
                let columns = group.min(n - start);
                // SAFETY: `first + depth` ≤ k, `start + columns` ≤ n and, below, `column + width` ≤ `columns` and
                // `row + rows` ≤ m, so all that is touched lies within the matrices that the caller vouches for.
                unsafe {
                    let job = |row: usize, column: usize, width: usize, b: (*const f32, isize)| Job {
                        depth,
                        width,
                        a: (a.at.offset(row as isize * a.strides[0] + first as isize * a.strides[1]), a_step),
                        b,
                        c: (c.at.offset(row as isize * c.strides[0] + column as isize), c.strides[0]),
                        accumulate: first > 0,
                        tail: if last { tail.at(row, column) } else { Tail::Nothing },
                    };
                    let at = b.at.offset(first as isize * b.strides[0] + start as isize * b.strides[1]);
                    if m == 1 && columns == group && !b_transposed {
                        one_row(&job(0, start, columns, (at, b.strides[0])));
                        continue;
                    }
                    let pack = b_transposed || strips >= SHARING || !columns.is_multiple_of(V::LANES);
                    if b_transposed {
                        transpose::<V>(depth, columns, (at, b.strides[1]), packed);
                    } else if pack {
                        copy::<V>(depth, columns, (at, b.strides[0]), packed);
                    }
                    for column in (0..columns).step_by(panel) {
                        let width = panel.min(columns - column);
                        let b = if pack {
                            (packed.add(column * DEPTH).cast_const(), panel as isize)
                        } else {
                            (at.add(column), b.strides[0])
                        };
                        for strip in 0..strips {
                            // The strips are as even as can be: a thin last one would leave the multipliers waiting.
                            let row = strip * m / strips;
                            let rows = (strip + 1) * m / strips - row;
                            tiles[(width - 1) / V::LANES][rows - 1](&job(row, start + column, width, b));
                        }
                    }
                }
            }
        }
        true
    }

    impl Tail {
        /// The same, told from an element of C.
        ///
        /// # Safety
        /// It must be an element of the C that this fits.
        #[inline(always)]
        unsafe fn at(self, row: usize, column: usize) -> Self {
            // SAFETY: a bias has a column, and h or `rows` a row, for each of C.
            unsafe {
                match self {
                    Self::Nothing => Self::Nothing,
                    Self::Bias(bias, relu) => Self::Bias(bias.add(column), relu),
                    Self::Slope(h, step, None) => Self::Slope(h.offset(row as isize * step).add(column), step, None),
                    Self::Slope(h, step, Some(rows)) => Self::Slope(h.add(column), step, Some(rows.add(row))),
                }
            }
        }
    }

    /// The `job`, with `R` rows, each of `N` registers of which all but the last are full.
    ///
    /// # Safety
    /// The matrices must be as the job tells, with `N` registers in a row of B, of which its `width` must need all; and the
    /// processor must have them.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)]
    unsafe fn tile<V: Register, const R: usize, const N: usize, const TRANSPOSED: bool>(job: &Job) {
        let &Job { depth, width, a: (a, a_step), b: (b, b_step), c: (c, c_step), accumulate, tail } = job;
        // SAFETY: indices stay below R, `depth` and N · LANES, and those of C and of what fits it below `width`.
        unsafe {
            let h_row = |i: usize| match tail {
                Tail::Slope(h, step, rows) => Some(h.offset(rows.map_or(i, |rows| *rows.add(i)) as isize * step)),
                _ => None,
            };
            let mut sums = [[V::zero(); N]; R];
            for i in 0..R {
                for v in 0..N {
                    // C is not needed before the end, nor is h, and by then they should be in the cache.
                    let c = c.offset(i as isize * c_step).add(v * V::LANES);
                    _mm_prefetch::<_MM_HINT_ET0>(c.cast());
                    if accumulate {
                        sums[i][v] = V::load_first(c, width - v * V::LANES);
                    }
                    if let Some(h) = h_row(i) {
                        _mm_prefetch::<_MM_HINT_T0>(h.add(v * V::LANES).cast());
                    }
                }
            }
            for p in 0..depth as isize {
                let mut row = [V::zero(); N];
                for v in 0..N {
                    row[v] = V::load(b.offset(p * b_step).add(v * V::LANES));
                }
                for i in 0..R {
                    let at = if TRANSPOSED { p * a_step + i as isize } else { i as isize * a_step + p };
                    let x = V::broadcast(a.offset(at));
                    for v in 0..N {
                        sums[i][v] = x.mul_add(row[v], sums[i][v]);
                    }
                }
            }
            match tail {
                Tail::Nothing => {}
                Tail::Bias(bias, relu) => {
                    for v in 0..N {
                        let bias = V::load_first(bias.add(v * V::LANES), width - v * V::LANES);
                        for i in 0..R {
                            let sum = sums[i][v].add(bias);
                            sums[i][v] = if relu { sum.relu() } else { sum };
                        }
                    }
                }
                Tail::Slope(..) => {
                    for i in 0..R {
                        let h = h_row(i).unwrap_unchecked();
                        for v in 0..N {
                            let h = V::load_first(h.add(v * V::LANES), width - v * V::LANES);
                            sums[i][v] = sums[i][v].keep_where_positive(h);
                        }
                    }
                }
            }
            for i in 0..R {
                for v in 0..N {
                    let c = c.offset(i as isize * c_step).add(v * V::LANES);
                    sums[i][v].store_first(c, width - v * V::LANES);
                }
            }
        }
    }

    /// Copies B, `[depth, columns]`, whose rows are contiguous and lie a step apart, to panels. What the last panel has
    /// beyond is left as it is: it is multiplied, and then dropped.
    ///
    /// # Safety
    /// B must be so and fit the panels, and the processor must have the registers.
    #[inline(always)]
    unsafe fn copy<V: Register>(depth: usize, columns: usize, (b, step): (*const f32, isize), packed: *mut f32) {
        let panel = REGISTERS * V::LANES;
        for p in 0..depth {
            for column in (0..columns).step_by(panel) {
                // SAFETY: p < `depth`, and columns stay below `columns`.
                unsafe {
                    let (from, to) = (b.offset(p as isize * step).add(column), packed.add(column * DEPTH + p * panel));
                    if columns - column >= panel {
                        for v in 0..REGISTERS {
                            V::load(from.add(v * V::LANES)).store(to.add(v * V::LANES));
                        }
                    } else {
                        to.copy_from_nonoverlapping(from, columns - column);
                    }
                }
            }
        }
    }

    /// Copies B, `[depth, columns]`, whose columns are contiguous and lie a step apart, to panels, as [`copy`] does.
    ///
    /// # Safety
    /// As for [`copy`].
    #[inline(always)]
    unsafe fn transpose<V: Register>(depth: usize, columns: usize, (b, step): (*const f32, isize), packed: *mut f32) {
        let panel = REGISTERS * V::LANES;
        for j in (0..columns).step_by(V::LANES) {
            for p in (0..depth).step_by(V::LANES) {
                let (rows, width) = (V::LANES.min(depth - p), V::LANES.min(columns - j));
                // SAFETY: `p + rows` ≤ `depth` and `j + width` ≤ `columns`.
                unsafe {
                    let from = b.offset(j as isize * step).add(p);
                    let to = packed.add(j / panel * panel * DEPTH + p * panel + j % panel);
                    if rows == V::LANES && width == V::LANES {
                        V::transpose((from, step), (to, panel as isize));
                    } else {
                        for (p, j) in (0..rows).flat_map(|p| (0..width).map(move |j| (p, j))) {
                            *to.add(p * panel + j) = *from.offset(j as isize * step).add(p);
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// There must be `count` floats, or as many as there are lanes; so with the three that follow.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn load_first_16(from: *const f32, count: usize) -> __m512 {
        // SAFETY: the caller promises the same.
        unsafe { _mm512_maskz_loadu_ps(first_16(count), from) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn store_first_16(x: __m512, to: *mut f32, count: usize) {
        // SAFETY: the caller promises the same.
        unsafe { _mm512_mask_storeu_ps(to, first_16(count), x) }
    }

    fn first_16(count: usize) -> u16 {
        ((1_u32 << count.min(16)) - 1) as u16
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load_first_8(from: *const f32, count: usize) -> __m256 {
        // SAFETY: the caller promises the same.
        unsafe { _mm256_maskload_ps(from, first_8(count)) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn store_first_8(x: __m256, to: *mut f32, count: usize) {
        // SAFETY: the caller promises the same.
        unsafe {
            // A masked store takes long on some processors.
            if count >= 8 { _mm256_storeu_ps(to, x) } else { _mm256_maskstore_ps(to, first_8(count), x) }
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn first_8(count: usize) -> __m256i {
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(8) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn keep_8(x: __m256, h: __m256) -> __m256 {
        _mm256_and_ps(x, _mm256_cmp_ps::<_CMP_GT_OQ>(h, _mm256_setzero_ps()))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn keep_16(x: __m512, h: __m512) -> __m512 {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(h, _mm512_setzero_ps()), x)
    }

    /// The transpose of 8 × 8 elements.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn transposed_8(rows: [__m256; 8]) -> [__m256; 8] {
        let (mut fours, mut columns) = (rows, rows);
        for (r, four) in rows.chunks_exact(4).zip(fours.chunks_exact_mut(4)) {
            let (x, y) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpacklo_ps(r[2], r[3]));
            let (z, w) = (_mm256_unpackhi_ps(r[0], r[1]), _mm256_unpackhi_ps(r[2], r[3]));
            (four[0], four[1]) = (_mm256_shuffle_ps::<0x44>(x, y), _mm256_shuffle_ps::<0xee>(x, y));
            (four[2], four[3]) = (_mm256_shuffle_ps::<0x44>(z, w), _mm256_shuffle_ps::<0xee>(z, w));
        }
        // Half h of fours[4r + c] is column 4h + c of the rows 4r to 4r + 3.
        for c in 0..4 {
            columns[c] = _mm256_permute2f128_ps::<0x20>(fours[c], fours[4 + c]);
            columns[4 + c] = _mm256_permute2f128_ps::<0x31>(fours[c], fours[4 + c]);
        }
        columns
    }

    /// The transpose of 16 × 16 elements.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn transposed_16(rows: [__m512; 16]) -> [__m512; 16] {
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::nn::Activation;
    use crate::rng::{Philox, Stream};
    use ndarray::{Array2, ShapeBuilder};
    use ndarray_rand::{RandomExt, rand_distr::StandardNormal};

    fn matrix(rng: &mut Philox, rows: usize, columns: usize, transposed: bool) -> Array2<f32> {
        let mut matrix = Array2::zeros((rows, columns).set_f(transposed));
        matrix.assign(&Array2::<f32>::random_using((rows, columns), StandardNormal, rng));
        matrix
    }

    /// Every layout and every finish, on every kind of register that this processor has, against one chain of fused
    /// multiply-adds an element: bit for bit, so that nothing depends on how a product is split.
    #[test]
    fn products_have_the_bits_of_a_plain_loop() {
        let kinds: Vec<_> = x86::kinds().collect();
        println!("registers: {kinds:?}");
        if kinds.is_empty() {
            println!(
                "skipped: the products of this crate's kernel, because this processor has neither AVX-512 nor AVX2"
            );
            assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        }
        let mut rng = Philox::new(0, Stream::Init, 0);
        let sizes = [1, 2, 13, 16, 31, 67];
        let all = sizes.into_iter().flat_map(|m| sizes.map(|k| sizes.map(|n| (m, k, n))).into_iter().flatten());
        let large = [(128, 256, 64), (50, 257, 48), (37, 600, 101), (1, 300, 64), (1, 40, 333), (7, 3, 300)];
        for (m, k, n) in all.chain(large) {
            let (mut a, b) = (matrix(&mut rng, m, k, false), matrix(&mut rng, k, n, false));
            let (bias, hidden) = (matrix(&mut rng, 1, n, false), matrix(&mut rng, m + 3, n, false));
            let rows: Vec<usize> = (0..m).map(|i| (i * 7 + 2) % (m + 3)).collect();
            a[[m / 2, k / 2]] = if n % 5 == 1 { f32::NAN } else { -0.0 };
            let sum = Array2::from_shape_fn((m, n), |(i, j)| (0..k).fold(0.0, |s, p| a[[i, p]].mul_add(b[[p, j]], s)));
            let biased = &sum + &bias;
            let masked = |row_of: &dyn Fn(usize) -> usize| {
                Array2::from_shape_fn((m, n), |(i, j)| if hidden[[row_of(i), j]] > 0.0 { sum[[i, j]] } else { 0.0 })
            };
            let bias = bias.as_slice().expect("a row");
            let slope = |hidden, rows| Finish::Slope { hidden, rows, activation: Activation::Relu };
            let finishes = [
                (Finish::Nothing, sum.clone()),
                (Finish::Bias(bias, None), biased.clone()),
                (Finish::Bias(bias, Some(Activation::Relu)), biased.mapv(|x| if x < 0.0 { 0.0 } else { x })),
                (slope(hidden.slice(ndarray::s![..m, ..]), None), masked(&|i| i)),
                (slope(hidden.view(), Some(&rows)), masked(&|i| rows[i])),
            ];
            let cases = kinds.iter().flat_map(|&kind| (0..8).map(move |layout| (kind, layout)));
            for ((kind, layout), (finish, expected)) in cases.flat_map(|case| finishes.iter().map(move |f| (case, f))) {
                let relaid = |matrix: &Array2<f32>, transposed: bool| {
                    let mut other = Array2::zeros(matrix.raw_dim().set_f(transposed));
                    other.assign(matrix);
                    other
                };
                let (a, b) = (relaid(&a, layout & 1 > 0), relaid(&b, layout & 2 > 0));
                let mut c = matrix(&mut rng, m, n, layout & 4 > 0);
                if !x86::product(kind, a.view(), b.view(), c.view_mut(), finish) {
                    assert!(layout & 4 > 0 && !matches!(finish, Finish::Nothing), "{kind:?}: {m} {k} {n} is refused");
                    continue;
                }
                let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
                assert!(c.iter().zip(expected).all(same), "{kind:?}: {m} {k} {n}, layout {layout}, {finish:?}");
            }
        }
    }
}
