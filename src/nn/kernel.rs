//! The product of `f32` matrices for AVX-512 and for AVX2 with FMA, and the choice between them and `matrixmultiply`.
//!
//! B is read as it is if its rows are contiguous. Otherwise it is read in panels, of as many columns as a tile has: either it
//! has been packed before, as transposed weights are once a step, or it is packed on the way. C is made in tiles of a few
//! rows and two registers of columns, whose sums stay in registers while k goes by. Each element of C is one chain of fused
//! multiply-adds over k in ascending order, whichever tile it falls in and however wide a register is: wherever rows or
//! columns are split, and on either kind of processor, the bits are the same. Only a C of few columns may be made of inner
//! products instead, each of 32 such chains.

use super::gemm::{Factor, Product};
use ndarray::ArrayView2;

/// Does `product` if this processor, the way its matrices lie and its finish allow it; says whether they do.
pub(super) fn product(product: &mut Product<f32>) -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86::CHOSEN.is_some_and(|kind| x86::product(kind, product));
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = product;
        false
    }
}

/// Floats that [`pack`] writes for a B of `[k, n]`; none if nothing here would read them.
pub(super) fn packed_len(k: usize, n: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    return x86::CHOSEN.map_or(0, |kind| x86::packed_len(kind, k, n));
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (k, n);
        0
    }
}

/// Writes B, of which rows or columns must be contiguous, as [`product`] reads it.
///
/// # Panics
/// If `panels` is not as long as [`packed_len`] says.
pub(super) fn pack(b: ArrayView2<f32>, panels: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(kind) = *x86::CHOSEN {
        return x86::pack(kind, b, panels);
    }
    assert!(panels.is_empty(), "nothing reads panels of {:?}", b.dim());
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ArrayView2, Factor, Product};
    use crate::nn::Activation;
    use crate::nn::finish::Finish;
    use ndarray::{ArrayBase, Axis, Ix2, RawData};
    use std::arch::x86_64::*;
    use std::cell::RefCell;
    use std::sync::LazyLock;

    /// How much of k is gone through at a time: a panel of so many rows of B stays in the first-level cache.
    const DEPTH: usize = 256;
    /// Registers of columns in a tile.
    const REGISTERS: usize = 2;
    /// Registers of columns in a tile of a single row, where each has to wait for its own last sum; and in the panels of B
    /// that are packed together, because a row of B is read fastest in long pieces.
    const GROUP: usize = 8;
    /// A C of at most this many columns is made of inner products, or as the transpose of a C of so few rows.
    const NARROW: usize = 8;
    /// With a k of at most this, little is done in a tile but to write it; so C is written row by row.
    const SHALLOW: usize = 8;
    /// With a k of at least this, there is so much to multiply that caches should be told what comes next.
    const DEEP: usize = 128;
    /// Partial sums of an inner product.
    const PARTS: usize = 32;
    /// Floats in a cache line.
    const LINE: isize = 16;
    /// Rows of A whose inner products are formed together.
    const TOGETHER: usize = 4;

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

    /// B by its elements, and, if it has been packed, by its panels.
    #[derive(Clone, Copy)]
    struct Right {
        matrix: Matrix<*const f32>,
        panels: Option<*const f32>,
    }

    /// C ← A·B or C ← C + A·B, and then `tail`.
    struct Task {
        sizes: [usize; 3],
        a: Matrix<*const f32>,
        b: Right,
        c: Matrix<*mut f32>,
        accumulate: bool,
        tail: Tail,
    }

    /// [`multiply`] for one kind of processor.
    type Multiply = unsafe fn(&Task, &mut Packed) -> bool;

    /// [`tile`] for one kind of processor and one shape.
    type Tile = unsafe fn(&Job);

    /// C ← A·B of one tile, or C ← C + A·B: A is `[rows, depth]`, B is `[depth, registers]`, C is `[rows, width]`. Each
    /// pointer comes with the distance from one row to the next; with A that of columns, if it is transposed.
    struct Job {
        depth: usize,
        /// What should be in the second-level cache soon: a cache line for each step of k, and the distance to the next.
        ahead: (*const f32, isize),
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
        /// Tiles of one row, by whether A is transposed, and by registers less one.
        const ONE_ROW: [[Tile; GROUP]; 2];

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
        /// The sum of [`PARTS`] floats: the first half and the second are added, and so on with what is left.
        unsafe fn sum(parts: &[Self]) -> f32;
        /// Writes the transpose of the `LANES` × `LANES` floats at `from`; each pointer comes with the distance between rows.
        unsafe fn transpose(from: (*const f32, isize), to: (*mut f32, isize));
    }

    /// The tiles of one row of a type, for A as it is or transposed.
    macro_rules! one_row {
        ($register:ty, $transposed:literal) => {
            [
                <$register>::tile::<1, 1, $transposed>,
                <$register>::tile::<1, 2, $transposed>,
                <$register>::tile::<1, 3, $transposed>,
                <$register>::tile::<1, 4, $transposed>,
                <$register>::tile::<1, 5, $transposed>,
                <$register>::tile::<1, 6, $transposed>,
                <$register>::tile::<1, 7, $transposed>,
                <$register>::tile::<1, GROUP, $transposed>,
            ]
        };
    }

    /// Implements [`Register`] and `product` for a type, given the instructions of its processor.
    macro_rules! register {
        (
            $name:ident($vector:ty), $features:literal, $lanes:literal lanes, rows $($rows:literal)*,
            $zero:ident, $load:ident, $store:ident, $broadcast:ident, $add:ident, $mul_add:ident, $max:ident,
            $keep:ident, $transpose:ident, $load_first:ident, $store_first:ident, $sum:ident
        ) => {
            #[derive(Clone, Copy)]
            struct $name($vector);

            impl $name {
                #[target_feature(enable = $features)]
                unsafe fn multiply(task: &Task, packed: &mut Packed) -> bool {
                    // SAFETY: the caller promises the same.
                    unsafe { narrow::<Self>(task, packed) || multiply::<Self>(task, packed) }
                }

                #[target_feature(enable = $features)]
                unsafe fn pack(sizes: [usize; 2], b: Matrix<*const f32>, panels: *mut f32) {
                    // SAFETY: the caller promises the same.
                    unsafe { fill::<Self>(sizes, b, (panels, sizes[0])) }
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
                const ONE_ROW: [[Tile; GROUP]; 2] = [one_row!(Self, false), one_row!(Self, true)];

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
                unsafe fn sum(parts: &[Self]) -> f32 {
                    unsafe { $sum(std::array::from_fn(|i| parts[i].0)) }
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
        _mm512_max_ps, keep_16, transposed_16, load_first_16, store_first_16, sum_16
    }

    register! {
        Avx2(__m256), "avx2,fma", 8 lanes, rows 1 2 3 4 5 6,
        _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_add_ps, _mm256_fmadd_ps,
        _mm256_max_ps, keep_8, transposed_8, load_first_8, store_first_8, sum_8
    }

    /// Panels of B, `[GROUP / REGISTERS, DEPTH, REGISTERS · LANES]`; they begin with a cache line, so that no load straddles
    /// two.
    #[repr(align(64))]
    struct Packed([f32; DEPTH * GROUP * 16]);

    thread_local! {
        static PACKED: RefCell<Packed> = const { RefCell::new(Packed([0.0; _])) };
    }

    /// [`super::packed_len`] for one of the [`kinds`].
    pub(super) fn packed_len(kind: Kind, k: usize, n: usize) -> usize {
        let panel = REGISTERS
            * match kind {
                Kind::Avx512 => Avx512::LANES,
                Kind::Avx2 => Avx2::LANES,
            };
        k * n.next_multiple_of(panel)
    }

    /// [`super::pack`] for one of the [`kinds`].
    pub(super) fn pack(kind: Kind, b: ArrayView2<f32>, panels: &mut [f32]) {
        let (k, n) = b.dim();
        assert_eq!(panels.len(), packed_len(kind, k, n));
        let b = Matrix::new(b.as_ptr(), &b);
        assert!(b.strides.contains(&1), "rows or columns of B are contiguous");
        // SAFETY: `kind` has been found in the processor. B is a live view, and there are as many floats as its panels take.
        unsafe {
            match kind {
                Kind::Avx512 => Avx512::pack([k, n], b, panels.as_mut_ptr()),
                Kind::Avx2 => Avx2::pack([k, n], b, panels.as_mut_ptr()),
            }
        }
    }

    /// [`super::product`] by one of the [`kinds`].
    pub(super) fn product(kind: Kind, product: &mut Product<f32>) -> bool {
        let multiply: Multiply = match kind {
            Kind::Avx512 => Avx512::multiply,
            Kind::Avx2 => Avx2::multiply,
        };
        let [m, k, n] = product.check();
        let Product { a, b: Factor { matrix: b, panels }, c, accumulate, finish } = product;
        assert!(panels.is_none_or(|panels| panels.len() == packed_len(kind, k, n)));
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
        let task = Task {
            sizes: [m, k, n],
            a: Matrix::new(a.as_ptr(), a),
            b: Right { matrix: Matrix::new(b.as_ptr(), b), panels: panels.map(<[f32]>::as_ptr) },
            c: Matrix::new(c.as_mut_ptr(), c),
            accumulate: *accumulate,
            tail,
        };
        // SAFETY: `kind` has been found in the processor. Pointers and strides are those of live views
        // of the shapes checked above, of which C, being borrowed mutably, overlaps none.
        PACKED.with_borrow_mut(|packed| unsafe { multiply(&task, packed) })
    }

    /// Does `task` if the rows of C, and the rows or columns of A and B, are contiguous; says whether so.
    ///
    /// # Safety
    /// A must be `[m, k]`, B `[k, n]`, with panels as [`pack`] makes them if there are any, and C `[m, n]`, all within their
    /// allocations; C must overlap nothing else; the tail must fit C; and it must be compiled for, and run on, a processor
    /// that has such registers.
    #[inline(always)]
    unsafe fn multiply<V: Register>(task: &Task, Packed(packed): &mut Packed) -> bool {
        let &Task { sizes: [m, k, n], a, b, c, accumulate, tail } = task;
        let Right { matrix: b, panels } = b;
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
            let mut start = 0;
            while start < n {
                // B is read as it is if its rows are contiguous and fill registers; what is left over is packed.
                let as_it_is = !b_transposed && panels.is_none() && n - start >= V::LANES;
                let columns = group.min(if as_it_is { (n - start) / V::LANES * V::LANES } else { n - start });
                // SAFETY: `first + depth` ≤ k, `start + columns` ≤ n and, below, `column + width` ≤ `columns` and
                // `row + rows` ≤ m, so all that is touched lies within the matrices that the caller vouches for.
                unsafe {
                    let job = |row: usize, column: usize, width: usize, b: (*const f32, isize), ahead| Job {
                        depth,
                        ahead,
                        width,
                        a: (a.at.offset(row as isize * a.strides[0] + first as isize * a.strides[1]), a_step),
                        b,
                        c: (c.at.offset(row as isize * c.strides[0] + column as isize), c.strides[0]),
                        accumulate: accumulate || first > 0,
                        tail: if last { tail.at(row, column) } else { Tail::Nothing },
                    };
                    let at = b.at.wrapping_offset(first as isize * b.strides[0] + start as isize * b.strides[1]);
                    if m == 1 && as_it_is {
                        one_row[columns / V::LANES - 1](&job(
                            0,
                            start,
                            columns,
                            (at, b.strides[0]),
                            (at, b.strides[0]),
                        ));
                        start += columns;
                        continue;
                    }
                    // The panels of these columns, and how many rows each of them has.
                    let panels = match panels {
                        Some(panels) => Some((panels.add(start * k + first * panel), k)),
                        None if as_it_is => None,
                        None => {
                            fill::<V>([depth, columns], Matrix { at, ..b }, (packed, DEPTH));
                            Some((packed.cast_const(), DEPTH))
                        }
                    };
                    let panels_here = columns.div_ceil(panel);
                    for i in 0..panels_here * strips {
                        let (i, strip) =
                            if k <= SHALLOW { (i % panels_here, i / panels_here) } else { (i / strips, i % strips) };
                        let column = i * panel;
                        let width = panel.min(columns - column);
                        let b = match panels {
                            Some((panels, rows)) => (panels.add(column * rows), panel as isize),
                            None => (at.add(column), b.strides[0]),
                        };
                        // The strips are as even as can be: a thin last one would leave the multipliers waiting.
                        let row = strip * m / strips;
                        let rows = (strip + 1) * m / strips - row;
                        // The first two strips bring what the next columns need, a line in each step of k.
                        let line = strip.min(1) as isize;
                        let ahead = match panels {
                            Some((_, rows)) => {
                                (b.0.wrapping_offset((panel * rows) as isize + line * LINE * depth as isize), LINE)
                            }
                            None => (b.0.wrapping_offset(panel as isize + line * LINE), b.1),
                        };
                        tiles[(width - 1) / V::LANES][rows - 1](&job(row, start + column, width, b, ahead));
                    }
                }
                start += columns;
            }
        }
        true
    }

    /// Does `task` if C is narrow, and nothing but a bias follows; says whether so.
    ///
    /// # Safety
    /// As for [`multiply`].
    #[inline(always)]
    unsafe fn narrow<V: Register>(task: &Task, packed: &mut Packed) -> bool {
        let &Task { sizes: [m, k, n], a, b: Right { matrix: b, .. }, c, accumulate, tail } = task;
        if n > NARROW || matches!(tail, Tail::Slope(..)) {
            return false;
        }
        let at = |b: Matrix<*const f32>, p: usize, j: usize| {
            b.at.wrapping_offset(p as isize * b.strides[0] + j as isize * b.strides[1])
        };
        let c_at = |i: usize, j: usize| c.at.wrapping_offset(i as isize * c.strides[0] + j as isize * c.strides[1]);
        // SAFETY: all indices stay below m, k and n, and there is room for the k · n floats of B, or for `width` columns.
        unsafe {
            if a.strides[1] == 1 && k * n <= packed.0.len() {
                // Column after column.
                let columns = packed.0.as_mut_ptr();
                if n > 1 || b.strides[0] != 1 {
                    for (p, j) in (0..k).flat_map(|p| (0..n).map(move |j| (p, j))) {
                        *columns.add(j * k + p) = *at(b, p, j);
                    }
                }
                let rows = |first: usize| a.at.offset(first as isize * a.strides[0]);
                let mut sums = [0.0; TOGETHER];
                for j in 0..n {
                    let column = if n > 1 || b.strides[0] != 1 { columns.add(j * k).cast_const() } else { b.at };
                    for first in (0..m).step_by(TOGETHER) {
                        let count = TOGETHER.min(m - first);
                        match count {
                            TOGETHER => sums = inner::<V, TOGETHER>(k, (rows(first), a.strides[0]), column),
                            _ => (0..count).for_each(|i| {
                                [sums[i]] = inner::<V, 1>(k, (rows(first + i), a.strides[0]), column);
                            }),
                        }
                        for (i, sum) in sums[..count].iter().enumerate() {
                            let sum = if accumulate { *c_at(first + i, j) + sum } else { *sum };
                            *c_at(first + i, j) = match tail {
                                Tail::Bias(bias, relu) => match sum + *bias.add(j) {
                                    sum if relu && sum < 0.0 => 0.0,
                                    sum => sum,
                                },
                                _ => sum,
                            };
                        }
                    }
                }
            } else if matches!(tail, Tail::Nothing) && n == 1 && c.strides[0] == 1 {
                let (a, b) = (b.t(), Right { matrix: a.t(), panels: None });
                if !multiply::<V>(&Task { sizes: [n, k, m], a, b, c: c.t(), ..*task }, packed) {
                    return false;
                }
            } else if matches!(tail, Tail::Nothing) {
                // As its transpose, by way of a matrix whose rows are contiguous.
                const WIDTH: usize = 256;
                let mut transposed = [0.0; NARROW * WIDTH];
                for first in (0..m).step_by(WIDTH) {
                    let width = WIDTH.min(m - first);
                    let elements = || (0..width).flat_map(|i| (0..n).map(move |j| (i, j)));
                    if accumulate {
                        elements().for_each(|(i, j)| transposed[j * WIDTH + i] = *c_at(first + i, j));
                    }
                    let a = Matrix { at: a.at.offset(first as isize * a.strides[0]), ..a };
                    let task = Task {
                        sizes: [n, k, width],
                        a: b.t(),
                        b: Right { matrix: a.t(), panels: None },
                        c: Matrix { at: transposed.as_mut_ptr(), strides: [WIDTH as isize, 1] },
                        ..*task
                    };
                    if !multiply::<V>(&task, packed) {
                        return false;
                    }
                    elements().for_each(|(i, j)| *c_at(first + i, j) = transposed[j * WIDTH + i]);
                }
            } else {
                return false;
            }
        }
        true
    }

    /// The inner products of `R` rows of A, `k` long and a step apart, with a column of B.
    ///
    /// # Safety
    /// There must be as many floats, and the processor must have the registers.
    #[inline(always)]
    unsafe fn inner<V: Register, const R: usize>(k: usize, (a, step): (*const f32, isize), b: *const f32) -> [f32; R] {
        let registers = PARTS / V::LANES;
        // SAFETY: floats beyond k are not read, and zeros take their place.
        unsafe {
            let mut parts = [[V::zero(); PARTS / 8]; R];
            for p in (0..k).step_by(PARTS) {
                for v in 0..registers {
                    let start = p + v * V::LANES;
                    let b = V::load_first(b.wrapping_add(start), k.saturating_sub(start));
                    for (i, parts) in parts.iter_mut().enumerate() {
                        let a = a.wrapping_offset(i as isize * step).wrapping_add(start);
                        parts[v] = V::load_first(a, k.saturating_sub(start)).mul_add(b, parts[v]);
                    }
                }
            }
            std::array::from_fn(|i| V::sum(&parts[i][..registers]))
        }
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
        let &Job { depth, ahead, width, a: (a, a_step), b: (b, b_step), c: (c, c_step), accumulate, tail } = job;
        // SAFETY: indices stay below R, `depth` and N · LANES, and those of C and of what fits it below `width`.
        unsafe {
            let h_row = |i: usize| match tail {
                Tail::Slope(h, step, rows) => Some(h.offset(rows.map_or(i, |rows| *rows.add(i)) as isize * step)),
                _ => None,
            };
            let mut sums = [[V::zero(); N]; R];
            if accumulate {
                for i in 0..R {
                    for v in 0..N {
                        let c = c.offset(i as isize * c_step).add(v * V::LANES);
                        sums[i][v] = V::load_first(c, width - v * V::LANES);
                    }
                }
            }
            if depth >= DEEP {
                // C is not needed before the end, nor is h, and by then they should be in the cache.
                for i in 0..R {
                    for v in 0..N {
                        _mm_prefetch::<_MM_HINT_ET0>(c.offset(i as isize * c_step).add(v * V::LANES).cast());
                    }
                }
                if let Tail::Slope(..) = tail {
                    for i in 0..R {
                        for v in 0..N {
                            _mm_prefetch::<_MM_HINT_T0>(h_row(i).unwrap_unchecked().add(v * V::LANES).cast());
                        }
                    }
                }
            }
            for p in 0..depth as isize {
                let mut row = [V::zero(); N];
                for v in 0..N {
                    row[v] = V::load(b.offset(p * b_step).add(v * V::LANES));
                }
                _mm_prefetch::<_MM_HINT_T1>(ahead.0.wrapping_offset(p * ahead.1).cast());
                if TRANSPOSED {
                    _mm_prefetch::<_MM_HINT_T0>(a.wrapping_offset(p * a_step + LINE).cast());
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

    /// Copies B, `[depth, columns]`, to panels of so many rows, the first `depth` of which are written. What the last panel
    /// has beyond the columns is multiplied, and then dropped.
    ///
    /// # Safety
    /// B's rows or columns must be contiguous, there must be room, and the processor must have the registers.
    #[inline(always)]
    unsafe fn fill<V: Register>(
        [depth, columns]: [usize; 2],
        b: Matrix<*const f32>,
        (panels, rows): (*mut f32, usize),
    ) {
        let (panel, group) = (REGISTERS * V::LANES, GROUP * V::LANES);
        let to =
            |p: usize, column: usize| panels.wrapping_add(column / panel * panel * rows + p * panel + column % panel);
        if b.strides[1] != 1 {
            for j in (0..columns).step_by(V::LANES) {
                for p in (0..depth).step_by(V::LANES) {
                    let (rows, width) = (V::LANES.min(depth - p), V::LANES.min(columns - j));
                    // SAFETY: `p + rows` ≤ `depth` and `j + width` ≤ `columns`.
                    unsafe {
                        let from = b.at.wrapping_offset(j as isize * b.strides[1]).wrapping_add(p);
                        if rows == V::LANES && width == V::LANES {
                            V::transpose((from, b.strides[1]), (to(p, j), panel as isize));
                        } else {
                            for (p_here, j_here) in (0..rows).flat_map(|p| (0..width).map(move |j| (p, j))) {
                                *to(p + p_here, j + j_here) = *from.offset(j_here as isize * b.strides[1]).add(p_here);
                            }
                        }
                    }
                }
            }
            return;
        }
        for start in (0..columns).step_by(group) {
            // SAFETY: registers begin before `columns`, and only what lies before it is read.
            unsafe {
                let from = b.at.add(start);
                if columns - start >= group {
                    copy::<V, GROUP>(depth, group, (from, b.strides[0]), |p, v| to(p, start + v * V::LANES));
                    continue;
                }
                for column in (start..columns).step_by(V::LANES) {
                    let (from, width) = (b.at.add(column), columns - column);
                    copy::<V, 1>(depth, width, (from, b.strides[0]), |p, _| to(p, column));
                }
            }
        }
    }

    /// Copies `N` registers of each of `depth` rows, which lie a step apart, to where `to` says for row and register. Only the
    /// last register may reach beyond `width`.
    ///
    /// # Safety
    /// As for [`fill`].
    #[inline(always)]
    unsafe fn copy<V: Register, const N: usize>(
        depth: usize,
        width: usize,
        (from, step): (*const f32, isize),
        to: impl Fn(usize, usize) -> *mut f32,
    ) {
        for (p, v) in (0..depth).flat_map(|p| (0..N).map(move |v| (p, v))) {
            let at = from.wrapping_offset(p as isize * step).wrapping_add(v * V::LANES);
            // SAFETY: the caller promises the same.
            unsafe { V::load_first(at, width - v * V::LANES).store(to(p, v)) };
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

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn sum_16(parts: [__m512; PARTS / 16]) -> f32 {
        let x = _mm512_add_ps(parts[0], parts[1]);
        let upper = _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b1110>(x, x));
        sum_of_8(_mm256_add_ps(_mm512_castps512_ps256(x), upper))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn sum_8(parts: [__m256; PARTS / 8]) -> f32 {
        let (lower, upper) = (_mm256_add_ps(parts[0], parts[2]), _mm256_add_ps(parts[1], parts[3]));
        sum_of_8(_mm256_add_ps(lower, upper))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn sum_of_8(x: __m256) -> f32 {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
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
    use crate::nn::finish::Finish;
    use crate::rng::{Philox, Stream};
    use ndarray::{Array2, ShapeBuilder, s};
    use ndarray_rand::{RandomExt, rand_distr::StandardNormal};

    fn matrix(rng: &mut Philox, rows: usize, columns: usize, transposed: bool) -> Array2<f32> {
        let mut matrix = Array2::zeros((rows, columns).set_f(transposed));
        matrix.assign(&Array2::<f32>::random_using((rows, columns), StandardNormal, rng));
        matrix
    }

    fn relaid(matrix: &Array2<f32>, transposed: bool) -> Array2<f32> {
        let mut other = Array2::zeros(matrix.raw_dim().set_f(transposed));
        other.assign(matrix);
        other
    }

    /// The kinds of registers that this processor has; none only where that is allowed.
    fn kinds() -> Vec<x86::Kind> {
        let kinds: Vec<_> = x86::kinds().collect();
        println!("registers: {kinds:?}");
        if kinds.is_empty() {
            println!(
                "skipped: the products of this crate's kernel, because this processor has neither AVX-512 nor AVX2"
            );
            assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        }
        kinds
    }

    /// c + A·B as the kernel forms it: a chain of fused multiply-adds; but 32 of them, added in pairs, for an `inner` product,
    /// which a narrow C is made of if the rows of A are contiguous, and no slope follows.
    fn plain(a: &Array2<f32>, b: &Array2<f32>, c: &Array2<f32>, inner: bool) -> Array2<f32> {
        let k = a.ncols();
        Array2::from_shape_fn(c.dim(), |(i, j)| {
            if !inner {
                return (0..k).fold(c[[i, j]], |sum, p| a[[i, p]].mul_add(b[[p, j]], sum));
            }
            let part = |part| (part..k).step_by(32).fold(0.0, |sum, p| a[[i, p]].mul_add(b[[p, j]], sum));
            let mut parts: Vec<f32> = (0..32).map(part).collect();
            while parts.len() > 1 {
                let upper = parts.split_off(parts.len() / 2);
                parts.iter_mut().zip(upper).for_each(|(part, upper)| *part += upper);
            }
            c[[i, j]] + parts[0]
        })
    }

    /// Every layout and every finish, B packed before and on the way, added to C or not, on every kind of register that
    /// this processor has: bit for bit as [`plain`], so that nothing depends on how a product is split.
    #[test]
    fn products_have_the_bits_of_a_plain_loop() {
        let kinds = kinds();
        let mut rng = Philox::new(0, Stream::Init, 0);
        let sizes = [0, 1, 2, 13, 16, 31, 67];
        let all = sizes.into_iter().flat_map(|m| sizes.map(|k| sizes.map(|n| (m, k, n))).into_iter().flatten());
        let large =
            [(128, 256, 64), (50, 257, 48), (37, 600, 101), (1, 300, 64), (1, 40, 333), (7, 3, 300), (300, 70, 7)];
        for (m, k, n) in all.chain(large) {
            let (mut a, b) = (matrix(&mut rng, m, k, false), matrix(&mut rng, k, n, false));
            let (bias, hidden) = (matrix(&mut rng, 1, n, false), matrix(&mut rng, m + 3, n, false));
            let rows: Vec<usize> = (0..m).map(|i| (i * 7 + 2) % (m + 3)).collect();
            if m * k > 0 {
                a[[m / 2, k / 2]] = if n % 5 == 1 { f32::NAN } else { -0.0 };
            }
            let before = matrix(&mut rng, m, n, false);
            let bias_slice = bias.as_slice().expect("a row");
            let cases = kinds.iter().flat_map(|&kind| (0..32).map(move |layout| (kind, layout)));
            for (kind, layout) in cases {
                let (a, b) = (relaid(&a, layout & 1 > 0), relaid(&b, layout & 2 > 0));
                let (packed, accumulate) = (layout & 8 > 0, layout & 16 > 0);
                let start = if accumulate { before.clone() } else { Array2::zeros((m, n)) };
                let sum = plain(&a, &b, &start, n <= 8 && (layout & 1 == 0 || k <= 1 || m == 1));
                let (biased, chain) = (&sum + &bias, plain(&a, &b, &start, false));
                let masked = |row_of: &dyn Fn(usize) -> usize| {
                    Array2::from_shape_fn(
                        (m, n),
                        |(i, j)| if hidden[[row_of(i), j]] > 0.0 { chain[[i, j]] } else { 0.0 },
                    )
                };
                let mut panels = crate::nn::Aligned::zeros(x86::packed_len(kind, k, n));
                if packed {
                    x86::pack(kind, b.view(), &mut panels);
                }
                let activation = Activation::Relu;
                let relu = biased.mapv(|x| if x < 0.0 { 0.0 } else { x });
                for (i, expected) in
                    [sum.clone(), biased, relu, masked(&|i| i), masked(&|i| rows[i])].iter().enumerate()
                {
                    // What C holds before matters only to what is added to it.
                    let mut c = relaid(&before, layout & 4 > 0);
                    let finish = match i {
                        0 => Finish::Nothing,
                        1 => Finish::Bias(bias_slice, None),
                        2 => Finish::Bias(bias_slice, Some(activation)),
                        3 => Finish::Slope { hidden: hidden.slice(s![..m, ..]), rows: None, activation },
                        _ => Finish::Slope { hidden: hidden.view(), rows: Some(&rows), activation },
                    };
                    let b = Factor { matrix: b.view(), panels: packed.then_some(&*panels) };
                    let (a, c_here) = (a.view(), c.view_mut());
                    if !x86::product(kind, &mut Product { a, b, c: c_here, accumulate, finish }) {
                        assert!(m * n == 0 || layout & 4 > 0, "{kind:?}: {m} {k} {n}, layout {layout}, {i} is refused");
                        continue;
                    }
                    let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
                    let wrong = c.iter().zip(expected).position(|pair| !same(pair));
                    assert!(wrong.is_none(), "{kind:?}: {m} {k} {n}, layout {layout}, finish {i}: {wrong:?}");
                }
            }
        }
    }
}
