//! One plain loop, compiled for several instruction sets, the widest chosen when it is called.
//!
//! Rust never contracts `a * b + c` into a fused operation and never reorders a sum, so all versions of a loop give the
//! same bits. Where a loop asks for the fused operation, a processor without one computes it slowly, with the same bits.
//! On ARM the baseline has NEON and fused operations already.

/// Defines a function whose plain-Rust body is compiled for AVX-512, AVX2 and the build's baseline.
macro_rules! simd {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident<$T:ident>($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        $visibility fn $name<$T: crate::nn::Real>($($argument: $type),*) {
            #[inline(always)]
            fn plain<$T: crate::nn::Real>($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512<$T: crate::nn::Real>($($argument: $type),*) {
                    plain($($argument),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2<$T: crate::nn::Real>($($argument: $type),*) {
                    plain($($argument),*)
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has just been seen to have AVX-512F.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has just been seen to have AVX2 and FMA.
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*)
        }
    };
}

pub(crate) use simd;
