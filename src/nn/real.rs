//! The scalar: `f32` to train, `f64` to prove. The only generic parameter of the numeric core.

use super::kernel;
use ndarray::NdFloat;

/// A floating-point scalar with a matrix product.
pub trait Real: NdFloat + Default + std::iter::Sum + ndarray_rand::rand_distr::uniform::SampleUniform {
    /// The nearest value to `x`.
    fn of(x: f64) -> Self;

    /// This value as `f64`, exactly.
    fn as_f64(self) -> f64;

    /// Whether [`Self::gemm`] is fast for few rows and for small k, too.
    fn gemm_takes_thin() -> bool;

    /// C ← A·B + β·C; A is `[m, k]`, B is `[k, n]`, C is `[m, n]`, each with its own strides, and β is 0 or 1.
    ///
    /// # Safety
    /// The pointers and (row, column) strides must describe matrices that lie wholly within their allocations, and C
    /// must not overlap A, B or itself.
    #[allow(clippy::too_many_arguments)]
    unsafe fn gemm(
        m: usize,
        k: usize,
        n: usize,
        a: (*const Self, [isize; 2]),
        b: (*const Self, [isize; 2]),
        beta: Self,
        c: (*mut Self, [isize; 2]),
    );
}

macro_rules! real {
    ($real:ty, $gemm:path, $takes_thin:expr) => {
        impl Real for $real {
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $real
            }

            #[inline(always)]
            fn as_f64(self) -> f64 {
                f64::from(self)
            }

            fn gemm_takes_thin() -> bool {
                $takes_thin
            }

            unsafe fn gemm(
                m: usize,
                k: usize,
                n: usize,
                a: (*const Self, [isize; 2]),
                b: (*const Self, [isize; 2]),
                beta: Self,
                c: (*mut Self, [isize; 2]),
            ) {
                // SAFETY: the caller promises what both ask for.
                unsafe { $gemm(m, k, n, 1.0, a.0, a.1[0], a.1[1], b.0, b.1[0], b.1[1], beta, c.0, c.1[0], c.1[1]) }
            }
        }
    };
}

real!(f32, kernel::sgemm, kernel::available());
real!(f64, matrixmultiply::dgemm, false);
