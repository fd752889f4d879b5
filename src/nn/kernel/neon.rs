//! The registers of ARM: NEON.

use super::Kind;
use super::register::{LEAST_LANES, PARTS, Register, compile};
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

/// See [`super::kinds`].
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    is_aarch64_feature_detected!("neon").then_some(Neon::KIND).into_iter()
}

// Of the 32 registers the sums of a tile take 24, and a row of B 4. More columns and fewer rows than elsewhere: there is a
// load for each row and, since B's come in pairs, half a load for each register of columns.
compile!(Neon, "neon", "neon", rows 1 2 3 4 5 6, registers [1 2 3 4], together 2);

#[derive(Clone, Copy)]
struct Neon(float32x4_t);

/// An instruction that prefetches, which touches nothing, and for which stable Rust has no function.
macro_rules! prefetch {
    ($what:literal, $at:expr) => {
        asm!(concat!("prfm ", $what, ", [{}]"), in(reg) $at.addr(), options(nomem, nostack, preserves_flags))
    };
}

// SAFETY of the functions: callers are compiled for, and run on, a processor with these instructions, and promise that there
// are as many floats as are touched.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Register for Neon {
    const LANES: usize = 4;
    const MASKS: bool = false;
    const STEPS: usize = 1;
    const PREFETCHES: bool = true;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(unsafe { vdupq_n_f32(0.0) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        unsafe { if count >= 4 { Self::load(from) } else { Self(load_less_than_4(from, count)) } }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        unsafe { if count >= 4 { self.store(to) } else { store_less_than_4(self.0, to, count) } }
    }

    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> Self {
        Self(unsafe { vld1q_dup_f32(from) })
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Self(unsafe { vaddq_f32(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // The instruction for a maximum would make 0 of −0; bits are cleared where x < 0 instead.
        Self(unsafe { vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(self.0), vcltzq_f32(self.0))) })
    }

    #[inline(always)]
    unsafe fn keep_where_positive(self, h: Self) -> Self {
        Self(unsafe { vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(self.0), vcgtzq_f32(h.0))) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(unsafe { vfmaq_f32(c.0, self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn sums<const R: usize>(rows: &[[Self; PARTS / LEAST_LANES]; R]) -> [f32; R] {
        rows.map(|parts| unsafe {
            let mut parts = parts.map(|x| x.0);
            for half in [4, 2, 1] {
                for i in 0..half {
                    parts[i] = vaddq_f32(parts[i], parts[i + half]);
                }
            }
            vpadds_f32(vadd_f32(vget_low_f32(parts[0]), vget_high_f32(parts[0])))
        })
    }

    #[inline(always)]
    unsafe fn transpose((from, from_step): (*const f32, isize), (to, to_step): (*mut f32, isize)) {
        unsafe {
            let row = |i: isize| vld1q_f32(from.offset(i * from_step));
            let (x, y, z, w) = (row(0), row(1), row(2), row(3));
            // Two by two: the even columns of two rows, and the odd ones.
            let (even, odd) = (vtrn1q_f32(x, y), vtrn2q_f32(x, y));
            let (more_even, more_odd) = (vtrn1q_f32(z, w), vtrn2q_f32(z, w));
            let pairs = [even, more_even, odd, more_odd].map(|x| vreinterpretq_f64_f32(x));
            let columns = [
                vtrn1q_f64(pairs[0], pairs[1]),
                vtrn1q_f64(pairs[2], pairs[3]),
                vtrn2q_f64(pairs[0], pairs[1]),
                vtrn2q_f64(pairs[2], pairs[3]),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                vst1q_f32(to.offset(i as isize * to_step), vreinterpretq_f32_f64(column));
            }
        }
    }

    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        unsafe { prefetch!("pldl1keep", from) }
    }

    #[inline(always)]
    unsafe fn prefetch_to_write(to: *const f32) {
        unsafe { prefetch!("pstl1keep", to) }
    }

    #[inline(always)]
    unsafe fn prefetch_early(from: *const f32) {
        unsafe { prefetch!("pldl2keep", from) }
    }
}

/// There are no masks, so it takes a branch for each count; and a call, so that tiles stay short enough for the compiler to
/// keep all sums in registers.
///
/// # Safety
/// There must be `count` floats; so with the one that follows.
#[target_feature(enable = "neon")]
#[cold]
#[inline(never)]
unsafe fn load_less_than_4(from: *const f32, count: usize) -> float32x4_t {
    let none = vdupq_n_f32(0.0);
    // SAFETY: the caller promises the same.
    unsafe {
        match count {
            0 => none,
            1 => vld1q_lane_f32::<0>(from, none),
            2 => vcombine_f32(vld1_f32(from), vget_low_f32(none)),
            _ => vld1q_lane_f32::<2>(from.add(2), vcombine_f32(vld1_f32(from), vget_low_f32(none))),
        }
    }
}

#[target_feature(enable = "neon")]
#[cold]
#[inline(never)]
unsafe fn store_less_than_4(x: float32x4_t, to: *mut f32, count: usize) {
    // SAFETY: the caller promises the same.
    unsafe {
        match count {
            0 => {}
            1 => vst1q_lane_f32::<0>(to, x),
            2 => vst1_f32(to, vget_low_f32(x)),
            _ => {
                vst1_f32(to, vget_low_f32(x));
                vst1q_lane_f32::<2>(to.add(2), x);
            }
        }
    }
}
