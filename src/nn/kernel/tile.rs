//! A tile of C: a few rows and a few registers of columns, whose sums stay in registers while k goes by.

use super::register::Register;

/// With a k of at least this, there is so much to multiply that caches should be told what comes next.
const DEEP: usize = 128;
/// Floats in a cache line.
pub(super) const LINE: isize = 16;

/// [`tile`] for one kind of register and one shape.
pub(super) type Tile = unsafe fn(&Job);

/// C ← A·B of one tile, or C ← C + A·B: A is `[rows, depth]`, B is `[depth, registers]`, C is `[rows, width]`. Each
/// pointer comes with the distance from one row to the next; with A that of columns, if it is transposed.
pub(super) struct Job {
    pub(super) depth: usize,
    /// What should be in the second-level cache soon: a cache line for each step of k, and the distance to the next. Read
    /// where [`Register::PREFETCHES`] says so.
    pub(super) ahead: (*const f32, isize),
    pub(super) width: usize,
    pub(super) a: (*const f32, isize),
    pub(super) b: (*const f32, isize),
    pub(super) c: (*mut f32, isize),
    pub(super) accumulate: bool,
    pub(super) epilogue: RawEpilogue,
}

/// An [`Epilogue`](crate::nn::epilogue::Epilogue) that tiles apply themselves; its pointers begin at the first element of C.
#[derive(Clone, Copy)]
pub(super) enum RawEpilogue {
    Nothing,
    /// The bias of the first column, and whether a ReLU follows.
    Bias(*const f32, bool),
    /// h of a ReLU as [`Matrix`](super::multiply::Matrix) has it, and which of its rows, unless they are those of C.
    Slope(*const f32, isize, Option<*const usize>),
}

impl RawEpilogue {
    /// The same, told from an element of C.
    ///
    /// # Safety
    /// It must be an element of the C that this fits.
    #[inline(always)]
    pub(super) unsafe fn at(self, row: usize, column: usize) -> Self {
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
pub(super) unsafe fn tile<V: Register, const R: usize, const N: usize, const TRANSPOSED: bool>(job: &Job) {
    let &Job { depth, width, c: (c, c_step), accumulate, epilogue, .. } = job;
    // SAFETY: indices stay below R, `depth` and N · LANES, and those of C and of what fits it below `width`.
    unsafe {
        let h_row = |i: usize| match epilogue {
            RawEpilogue::Slope(h, step, rows) => Some(h.offset(rows.map_or(i, |rows| *rows.add(i)) as isize * step)),
            _ => None,
        };
        let mut sums = [[V::zero(); N]; R];
        if accumulate {
            for i in 0..R {
                for v in 0..N {
                    let c = c.offset(i as isize * c_step).add(v * V::LANES);
                    sums[i][v] = load::<V, N>(c, width, v);
                }
            }
        }
        if depth >= DEEP {
            // C is not needed before the end, nor is h, and by then they should be in the cache.
            for i in 0..R {
                for v in 0..N {
                    V::prefetch_to_write(c.offset(i as isize * c_step).add(v * V::LANES));
                }
            }
            if let RawEpilogue::Slope(..) = epilogue {
                for i in 0..R {
                    for v in 0..N {
                        V::prefetch(h_row(i).unwrap_unchecked().add(v * V::LANES));
                    }
                }
            }
        }
        let whole = depth / V::STEPS * V::STEPS;
        for first in (0..whole).step_by(V::STEPS) {
            for p in first..first + V::STEPS {
                step::<V, R, N, TRANSPOSED>(job, p as isize, &mut sums);
            }
        }
        for p in whole..depth {
            step::<V, R, N, TRANSPOSED>(job, p as isize, &mut sums);
        }
        match epilogue {
            RawEpilogue::Nothing => {}
            RawEpilogue::Bias(bias, relu) => {
                for v in 0..N {
                    let bias = load::<V, N>(bias.add(v * V::LANES), width, v);
                    for i in 0..R {
                        let sum = sums[i][v].add(bias);
                        sums[i][v] = if relu { sum.relu() } else { sum };
                    }
                }
            }
            RawEpilogue::Slope(..) => {
                for i in 0..R {
                    let h = h_row(i).unwrap_unchecked();
                    for v in 0..N {
                        let h = load::<V, N>(h.add(v * V::LANES), width, v);
                        sums[i][v] = sums[i][v].keep_where_positive(h);
                    }
                }
            }
        }
        for i in 0..R {
            for v in 0..N {
                let c = c.offset(i as isize * c_step).add(v * V::LANES);
                store::<V, N>(sums[i][v], c, width, v);
            }
        }
    }
}

/// Adds to the sums the products of column `p` of A with row `p` of B.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
#[allow(clippy::needless_range_loop)]
unsafe fn step<V: Register, const R: usize, const N: usize, const TRANSPOSED: bool>(
    job: &Job,
    p: isize,
    sums: &mut [[V; N]; R],
) {
    let &Job { ahead, a: (a, a_step), b: (b, b_step), .. } = job;
    // SAFETY: the caller promises the same.
    unsafe {
        let mut row = [V::zero(); N];
        for v in 0..N {
            row[v] = V::load(b.offset(p * b_step).add(v * V::LANES));
        }
        if V::PREFETCHES {
            V::prefetch_early(ahead.0.wrapping_offset(p * ahead.1));
            if TRANSPOSED {
                V::prefetch(a.wrapping_offset(p * a_step + LINE));
            }
        }
        for i in 0..R {
            let at = if TRANSPOSED { p * a_step + i as isize } else { i as isize * a_step + p };
            let x = V::broadcast(a.offset(at));
            for v in 0..N {
                sums[i][v] = x.mul_add(row[v], sums[i][v]);
            }
        }
    }
}

/// Register `v` of `N`, of which all but the last are full, of a row of so many floats.
///
/// # Safety
/// As for [`tile`]; so with the one that follows.
#[inline(always)]
unsafe fn load<V: Register, const N: usize>(from: *const f32, width: usize, v: usize) -> V {
    // SAFETY: the caller promises the same.
    unsafe { if !V::MASKS && v + 1 < N { V::load(from) } else { V::load_first(from, width - v * V::LANES) } }
}

#[inline(always)]
unsafe fn store<V: Register, const N: usize>(x: V, to: *mut f32, width: usize, v: usize) {
    // SAFETY: the caller promises the same.
    unsafe { if !V::MASKS && v + 1 < N { x.store(to) } else { x.store_first(to, width - v * V::LANES) } }
}
