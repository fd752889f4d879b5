//! What the processor could do at best: fused multiply-adds of its widest registers, on registers alone.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::hint::black_box;

/// Multiply-adds of each accumulator in one measurement of the peak; some 0.2 ms.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const ADDS: usize = 50_000;

/// What shows the peak: independent accumulators, more than fit into the latency of a multiply-add.
pub struct Peak {
    pub registers: &'static str,
    /// Of one burst; not a number where there is none.
    pub flops: f64,
    pub burst: fn(),
}

/// x ← x·m + a, or x ← x + m·a where the instruction is that, for each of so many x, which are vectors, again and again.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! burst {
    ($count:literal, $vector:path, $multiply_add:path) => {{
        // Nothing is known of the values, nor that any two are the same.
        let (mut accumulators, m, a) =
            (black_box([$vector(1.0); $count]), black_box($vector(0.5)), black_box($vector(0.5)));
        for _ in 0..ADDS {
            for x in &mut accumulators {
                *x = $multiply_add(*x, m, a);
            }
        }
        black_box(accumulators);
    }};
}

/// That of the widest registers there are.
pub fn peak() -> Peak {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    let flops = |accumulators, lanes| (2 * ADDS * accumulators * lanes) as f64;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        #[target_feature(enable = "avx512f")]
        fn avx512() {
            burst!(24, _mm512_set1_ps, _mm512_fmadd_ps);
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2() {
            burst!(12, _mm256_set1_ps, _mm256_fmadd_ps);
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has just been seen to have AVX-512F.
            return Peak { registers: "AVX-512", flops: flops(24, 16), burst: || unsafe { avx512() } };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has just been seen to have AVX2 and FMA.
            return Peak { registers: "AVX2", flops: flops(12, 8), burst: || unsafe { avx2() } };
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::aarch64::*;
        #[target_feature(enable = "neon")]
        fn neon() {
            burst!(24, vdupq_n_f32, vfmaq_f32);
        }
        if std::arch::is_aarch64_feature_detected!("neon") {
            // SAFETY: the processor has just been seen to have NEON.
            return Peak { registers: "NEON", flops: flops(24, 4), burst: || unsafe { neon() } };
        }
    }
    Peak { registers: "no known registers, not measured", flops: f64::NAN, burst: || {} }
}
