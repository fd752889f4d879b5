//! The registers of x86: AVX-512, and AVX2 with FMA.

use super::Kind;
use super::register::{LEAST_LANES, PARTS, Register, compile};
use std::arch::x86_64::*;

/// See [`super::kinds`].
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    let avx512 = is_x86_feature_detected!("avx512f").then_some(Avx512::KIND);
    let avx2 = (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2::KIND);
    avx512.into_iter().chain(avx2)
}

// Of the 32 registers of AVX-512, and of the 16 of AVX2, the sums of a tile take 24 and 12.
compile!(Avx512, "avx512", "avx512f", rows 1 2 3 4 5 6 7 8 9 10 11 12, registers [1 2], together 4);
compile!(Avx2, "avx2", "avx2,fma", rows 1 2 3 4 5 6, registers [1 2], together 4);

/// Implements [`Register`] for a type, given its instructions.
macro_rules! register {
    (
        $name:ident($vector:ty), $lanes:literal lanes, $steps:literal steps, prefetches $prefetches:literal,
        $zero:ident, $load:ident, $store:ident, $broadcast:ident, $add:ident, $mul_add:ident, $max:ident,
        $keep:ident, $transpose:ident, $load_first:ident, $store_first:ident, $sums:ident
    ) => {
        #[derive(Clone, Copy)]
        struct $name($vector);

        // SAFETY of the functions: callers are compiled for, and run on, a processor with these instructions, and
        // promise that there are as many floats as the instruction touches.
        #[allow(clippy::undocumented_unsafe_blocks)]
        impl Register for $name {
            const LANES: usize = $lanes;
            const MASKS: bool = true;
            const STEPS: usize = $steps;
            const PREFETCHES: bool = $prefetches;

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
            unsafe fn sums<const R: usize>(rows: &[[Self; PARTS / LEAST_LANES]; R]) -> [f32; R] {
                unsafe { $sums(std::array::from_fn(|i| std::array::from_fn(|v| rows[i][v].0))) }
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

            #[inline(always)]
            unsafe fn prefetch(from: *const f32) {
                unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
            }

            #[inline(always)]
            unsafe fn prefetch_to_write(to: *const f32) {
                unsafe { _mm_prefetch::<_MM_HINT_ET0>(to.cast()) }
            }

            #[inline(always)]
            unsafe fn prefetch_early(from: *const f32) {
                unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
            }
        }
    };
}

register! {
    Avx512(__m512), 16 lanes, 1 steps, prefetches true,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_max_ps, keep_16, transposed_16, load_first_16, store_first_16, sums_16
}

register! {
    Avx2(__m256), 8 lanes, 4 steps, prefetches false,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_add_ps, _mm256_fmadd_ps,
    _mm256_max_ps, keep_8, transposed_8, load_first_8, store_first_8, sums_8
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
fn sums_16<const R: usize>(rows: [[__m512; PARTS / 16]; R]) -> [f32; R] {
    let rows = rows.map(|[x, y]| _mm512_add_ps(x, y));
    let mut sums = [0.0; R];
    for (rows, sums) in rows.chunks_exact(4).zip(sums.chunks_exact_mut(4)) {
        // Halves of two rows at once, then quarters of four.
        let halves = |x, y| _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(x, y), _mm512_shuffle_f32x4::<0xee>(x, y));
        let (x, y) = (halves(rows[0], rows[1]), halves(rows[2], rows[3]));
        let x = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(x, y), _mm512_shuffle_f32x4::<0xdd>(x, y));
        let x = _mm512_add_ps(x, _mm512_shuffle_ps::<0b01_00_11_10>(x, x));
        let x = _mm512_add_ps(x, _mm512_shuffle_ps::<0b10_11_00_01>(x, x));
        let firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
        let x = _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, x));
        // SAFETY: there are four.
        unsafe { _mm_storeu_ps(sums.as_mut_ptr(), x) };
    }
    let left = R / 4 * 4;
    for (sum, &x) in sums[left..].iter_mut().zip(&rows[left..]) {
        let upper = _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b1110>(x, x));
        *sum = sum_of_8(_mm256_add_ps(_mm512_castps512_ps256(x), upper));
    }
    sums
}

#[target_feature(enable = "avx2")]
#[inline]
fn sums_8<const R: usize>(rows: [[__m256; PARTS / 8]; R]) -> [f32; R] {
    rows.map(|parts| {
        let (lower, upper) = (_mm256_add_ps(parts[0], parts[2]), _mm256_add_ps(parts[1], parts[3]));
        sum_of_8(_mm256_add_ps(lower, upper))
    })
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
