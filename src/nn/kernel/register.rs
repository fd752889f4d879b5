//! What the kernel asks of a register, and how it is compiled for one.

use super::tile::Tile;

/// Partial sums of an inner product.
pub(super) const PARTS: usize = 32;

/// Floats in the narrowest register.
pub(super) const LEAST_LANES: usize = 4;

/// A register of floats.
///
/// # Safety of its functions
/// There must be as many floats as they touch, and they must be compiled for, and run on, a processor that has the register.
pub(super) trait Register: Copy {
    /// Floats in a register.
    const LANES: usize;
    /// Whether part of a register is read and written as fast as all of it, by a mask.
    const MASKS: bool;
    /// Steps of k that a tile takes before it asks whether there are more. A tile of few registers spends many of its
    /// instructions on that, and on computing addresses; but with too many steps, addresses no longer fit the registers.
    const STEPS: usize;
    /// Whether tiles tell caches in each step of k what comes next: worth an instruction where a step has many.
    const PREFETCHES: bool;

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
    /// Of each row the sum of the first [`PARTS`] floats: the first half and the second are added, and so on with what is left.
    unsafe fn sums<const R: usize>(rows: &[[Self; PARTS / LEAST_LANES]; R]) -> [f32; R];
    /// Writes the transpose of the `LANES` × `LANES` floats at `from`; each pointer comes with the distance between rows.
    unsafe fn transpose(from: (*const f32, isize), to: (*mut f32, isize));
    /// Brings what will soon be read to the first-level cache; touches nothing, as the two that follow.
    unsafe fn prefetch(from: *const f32);
    /// Brings what will soon be written to the first-level cache.
    unsafe fn prefetch_to_write(to: *const f32);
    /// Brings what will be read later to the second-level cache.
    unsafe fn prefetch_early(from: *const f32);
}

/// A register with the tiles that are compiled for it.
pub(super) trait Compiled: Register {
    /// Most rows of a tile: with its columns, as many sums as leave registers for what they are made of.
    const ROWS: usize;
    /// Most registers of columns in a tile of more than one row.
    const REGISTERS: usize;
    /// Tiles by whether A is transposed, by rows less one, and by registers to a row less one: up to [`Self::REGISTERS`],
    /// or, with a single row, [`GROUP`](super::panels::GROUP).
    const TILES: [&'static [&'static [Tile]]; 2];
}

/// Compiles the kernel for a register with the features that it needs, and makes it a [`Kind`](super::Kind) of that name;
/// with the rows and registers of its tiles, and how many rows [`narrow`](super::multiply::narrow) takes together.
macro_rules! compile {
    (
        $register:ident, $name:literal, $features:literal,
        rows 1 $($rows:literal)*, registers $registers:tt, together $together:literal
    ) => {
        impl $register {
            pub(super) const KIND: super::Kind = super::Kind {
                name: $name,
                panel: <Self as super::register::Compiled>::REGISTERS * <Self as super::register::Register>::LANES,
                multiply: Self::multiply,
                pack: Self::pack,
            };

            #[target_feature(enable = $features)]
            unsafe fn multiply(task: &super::Task, packed: &mut super::Packed) -> bool {
                use super::multiply::{multiply, narrow};
                // SAFETY: the caller promises the same.
                unsafe { narrow::<Self, $together>(task, packed) || multiply::<Self>(task, packed) }
            }

            #[target_feature(enable = $features)]
            unsafe fn pack(sizes: [usize; 2], b: super::Matrix<*const f32>, panels: *mut f32) {
                // SAFETY: the caller promises the same.
                unsafe { super::panels::fill::<Self>(sizes, b, (panels, sizes[0])) }
            }

            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize, const N: usize, const TRANSPOSED: bool>(job: &super::tile::Job) {
                // SAFETY: the caller promises the same.
                unsafe { super::tile::tile::<Self, R, N, TRANSPOSED>(job) }
            }
        }

        impl super::register::Compiled for $register {
            const ROWS: usize = [1, $($rows),*].len();
            const REGISTERS: usize = super::register::compile!(@count $registers);
            const TILES: [&'static [&'static [super::tile::Tile]]; 2] = [
                super::register::compile!(@tiles false, $registers, $($rows)*),
                super::register::compile!(@tiles true, $registers, $($rows)*),
            ];
        }
    };
    (@count [$($registers:literal)*]) => { [$($registers),*].len() };
    (@tiles $transposed:literal, $registers:tt, $($rows:literal)*) => {
        &[
            super::register::compile!(@row $transposed, 1, [1 2 3 4 5 6 7 8]),
            $(super::register::compile!(@row $transposed, $rows, $registers)),*
        ]
    };
    (@row $transposed:literal, $rows:literal, [$($registers:literal)*]) => {
        &[$(Self::tile::<$rows, $registers, $transposed>),*]
    };
}

pub(super) use compile;
