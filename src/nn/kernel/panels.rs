//! Panels of B: so many columns as a tile has, row after row.

use super::multiply::Matrix;
use super::register::{Compiled, Register};
use std::cell::RefCell;

/// How much of k is gone through at a time: a panel of so many rows of B stays in the first-level cache.
pub(super) const DEPTH: usize = 256;
/// Registers of columns in a tile of a single row, where each has to wait for its own last sum; and in the panels of B
/// that are packed together, because a row of B is read fastest in long pieces.
pub(super) const GROUP: usize = 8;

/// Panels of B, `[GROUP / REGISTERS, DEPTH, REGISTERS · LANES]`; they begin with a cache line, so that no load straddles
/// two. There is room for the widest registers, whichever are used: how a narrow product is formed depends on that.
#[repr(align(64))]
pub(super) struct Packed(pub(super) [f32; DEPTH * GROUP * 16]);

thread_local! {
    pub(super) static PACKED: RefCell<Packed> = const { RefCell::new(Packed([0.0; _])) };
}

/// Copies B, `[depth, columns]`, to panels of so many rows, the first `depth` of which are written. What the last panel
/// has beyond the columns is multiplied, and then dropped.
///
/// # Safety
/// B's rows or columns must be contiguous, there must be room, and the processor must have the registers.
#[inline(always)]
pub(super) unsafe fn fill<V: Compiled>(
    [depth, columns]: [usize; 2],
    b: Matrix<*const f32>,
    (panels, rows): (*mut f32, usize),
) {
    let (panel, group) = (V::REGISTERS * V::LANES, GROUP * V::LANES);
    let to = |p: usize, column: usize| panels.wrapping_add(column / panel * panel * rows + p * panel + column % panel);
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
