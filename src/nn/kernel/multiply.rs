//! How a product is divided: into tiles, or, where C is narrow, into inner products.

use super::panels::{DEPTH, GROUP, Packed, fill};
use super::register::{Compiled, LEAST_LANES, PARTS, Register};
use super::tile::{Job, LINE, RawEpilogue};
use ndarray::{ArrayBase, Axis, Ix2, RawData};

/// A C of at most this many columns is made of inner products, or as the transpose of a C of so few rows.
const NARROW: usize = 8;
/// With a k of at most this, little is done in a tile but to write it; so C is written row by row.
const SHALLOW: usize = 8;

/// A matrix by its first element, and the distances from one row to the next and from one column to the next.
#[derive(Clone, Copy)]
pub(super) struct Matrix<P> {
    pub(super) at: P,
    pub(super) strides: [isize; 2],
}

impl<P> Matrix<P> {
    pub(super) fn new<S: RawData<Elem = f32>>(at: P, array: &ArrayBase<S, Ix2>) -> Self {
        // Where there is but one row, or one column, its distance to the next is anything.
        let stride = |axis| if array.len_of(Axis(axis)) > 1 { array.strides()[axis] } else { 1 };
        Self { at, strides: [stride(0), stride(1)] }
    }

    fn t(self) -> Self {
        Self { strides: [self.strides[1], self.strides[0]], ..self }
    }
}

/// B by its elements, and, if it has been packed, by its panels.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub(super) matrix: Matrix<*const f32>,
    pub(super) panels: Option<*const f32>,
}

/// C ← A·B or C ← C + A·B, and then `epilogue`.
pub(super) struct Task {
    pub(super) sizes: [usize; 3],
    pub(super) a: Matrix<*const f32>,
    pub(super) b: Right,
    pub(super) c: Matrix<*mut f32>,
    pub(super) accumulate: bool,
    pub(super) epilogue: RawEpilogue,
}

/// Does `task` if the rows of C, and the rows or columns of A and B, are contiguous; says whether so.
///
/// # Safety
/// A must be `[m, k]`, B `[k, n]`, with panels as [`pack`](super::pack) makes them if there are any, and C `[m, n]`, all
/// within their allocations; C must overlap nothing else; the epilogue must fit C; and it must be compiled for, and run on, a
/// processor that has such registers.
#[inline(always)]
pub(super) unsafe fn multiply<V: Compiled>(task: &Task, Packed(packed): &mut Packed) -> bool {
    let &Task { sizes: [m, k, n], a, b, c, accumulate, epilogue } = task;
    let Right { matrix: b, panels } = b;
    if c.strides[1] != 1 || !a.strides.contains(&1) || !b.strides.contains(&1) {
        return false;
    }
    let packed = packed.as_mut_ptr();
    let (a_transposed, b_transposed) = (a.strides[1] != 1, b.strides[1] != 1);
    let a_step = a.strides[usize::from(a_transposed)];
    let tiles = V::TILES[usize::from(a_transposed)];
    let strips = m.div_ceil(V::ROWS);
    let (panel, group) = (V::REGISTERS * V::LANES, GROUP * V::LANES);
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
                    a: (a.at.wrapping_offset(row as isize * a.strides[0] + first as isize * a.strides[1]), a_step),
                    b,
                    c: (c.at.wrapping_offset(row as isize * c.strides[0] + column as isize), c.strides[0]),
                    accumulate: accumulate || first > 0,
                    epilogue: if last { epilogue.at(row, column) } else { RawEpilogue::Nothing },
                };
                let at = b.at.wrapping_offset(first as isize * b.strides[0] + start as isize * b.strides[1]);
                if m == 1 && as_it_is {
                    tiles[0][columns / V::LANES - 1](&job(0, start, columns, (at, b.strides[0]), (at, b.strides[0])));
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
                    tiles[rows - 1][(width - 1) / V::LANES](&job(row, start + column, width, b, ahead));
                }
            }
            start += columns;
        }
    }
    true
}

/// Does `task` if C is narrow, and nothing but a bias follows; says whether so. `TOGETHER` is how many rows of A have their
/// inner products formed at once.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
pub(super) unsafe fn narrow<V: Compiled, const TOGETHER: usize>(task: &Task, packed: &mut Packed) -> bool {
    let &Task { sizes: [m, k, n], a, b: Right { matrix: b, .. }, c, accumulate, epilogue } = task;
    if n > NARROW || matches!(epilogue, RawEpilogue::Slope(..)) {
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
                    if count == TOGETHER {
                        sums = inner::<V, TOGETHER>(k, (rows(first), a.strides[0]), column);
                    } else {
                        for (i, sum) in sums[..count].iter_mut().enumerate() {
                            [*sum] = inner::<V, 1>(k, (rows(first + i), a.strides[0]), column);
                        }
                    }
                    for (i, sum) in sums[..count].iter().enumerate() {
                        let sum = if accumulate { *c_at(first + i, j) + sum } else { *sum };
                        *c_at(first + i, j) = match epilogue {
                            RawEpilogue::Bias(bias, relu) => match sum + *bias.add(j) {
                                sum if relu && sum < 0.0 => 0.0,
                                sum => sum,
                            },
                            _ => sum,
                        };
                    }
                }
            }
        } else if matches!(epilogue, RawEpilogue::Nothing) && n == 1 && c.strides[0] == 1 {
            let (a, b) = (b.t(), Right { matrix: a.t(), panels: None });
            if !multiply::<V>(&Task { sizes: [n, k, m], a, b, c: c.t(), ..*task }, packed) {
                return false;
            }
        } else if matches!(epilogue, RawEpilogue::Nothing) {
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
    let whole = k / PARTS * PARTS;
    // SAFETY: floats beyond k are not read, and zeros take their place.
    unsafe {
        let mut parts = [[V::zero(); PARTS / LEAST_LANES]; R];
        for p in (0..whole).step_by(PARTS) {
            add_products((a.wrapping_add(p), step), b.wrapping_add(p), &mut parts, |from, _| V::load(from));
        }
        if whole < k && V::MASKS {
            let load = |from, start| V::load_first(from, (k - whole).saturating_sub(start));
            add_products((a.wrapping_add(whole), step), b.wrapping_add(whole), &mut parts, load);
        } else if whole < k {
            let mut left = ([[0.0; PARTS]; R], [0.0; PARTS]);
            for (i, left) in left.0.iter_mut().enumerate() {
                a.offset(i as isize * step).add(whole).copy_to_nonoverlapping(left.as_mut_ptr(), k - whole);
            }
            b.add(whole).copy_to_nonoverlapping(left.1.as_mut_ptr(), k - whole);
            let rows = (left.0.as_ptr().cast(), PARTS as isize);
            add_products(rows, left.1.as_ptr(), &mut parts, |from, _| V::load(from));
        }
        V::sums(&parts)
    }
}

/// Adds the products of the next [`PARTS`] floats of each row of A and of the column of B; `load` reads a register of them,
/// and is told how many come before.
///
/// # Safety
/// `load` must be able to read them, and the processor must have the registers.
#[inline(always)]
unsafe fn add_products<V: Register, const R: usize>(
    (a, step): (*const f32, isize),
    b: *const f32,
    parts: &mut [[V; PARTS / LEAST_LANES]; R],
    load: impl Fn(*const f32, usize) -> V,
) {
    for v in 0..PARTS / V::LANES {
        let start = v * V::LANES;
        let b = load(b.wrapping_add(start), start);
        for (i, parts) in parts.iter_mut().enumerate() {
            let a = load(a.wrapping_offset(i as isize * step).wrapping_add(start), start);
            // SAFETY: the caller promises the register.
            parts[v] = unsafe { a.mul_add(b, parts[v]) };
        }
    }
}
