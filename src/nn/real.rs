//! The scalar: `f32` to train, `f64` to prove. The only generic parameter of the numeric core.

use super::finish::Finish;
use super::kernel;
use ndarray::{ArrayView2, ArrayViewMut2, NdFloat};

/// A floating-point scalar with a matrix product.
pub trait Real: NdFloat + Default + std::iter::Sum + ndarray_rand::rand_distr::uniform::SampleUniform {
    /// The nearest value to `x`.
    fn of(x: f64) -> Self;

    /// This value as `f64`, exactly.
    fn as_f64(self) -> f64;

    /// C ← A·B, finished, by this crate's own kernel, if it suits the processor and the matrices; says whether it does.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    fn own_product(a: ArrayView2<Self>, b: ArrayView2<Self>, c: ArrayViewMut2<Self>, finish: &Finish<Self>) -> bool;

    /// Fewest columns of C that are worth a product of their own: `matrixmultiply` packs all of A for each.
    fn block_columns() -> usize;

    /// C ← A·B by `matrixmultiply`; A is `[m, k]`, B is `[k, n]`, C is `[m, n]`, each with its own strides.
    ///
    /// # Safety
    /// The pointers and (row, column) strides must describe matrices that lie wholly within their allocations, and C
    /// must not overlap A, B or itself.
    unsafe fn gemm(
        m: usize,
        k: usize,
        n: usize,
        a: (*const Self, [isize; 2]),
        b: (*const Self, [isize; 2]),
        c: (*mut Self, [isize; 2]),
    );
}

macro_rules! real {
    ($real:ty, $own_product:expr, $has_own:expr, $gemm:path) => {
        impl Real for $real {
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $real
            }

            #[inline(always)]
            fn as_f64(self) -> f64 {
                f64::from(self)
            }

            fn own_product(
                a: ArrayView2<Self>,
                b: ArrayView2<Self>,
                c: ArrayViewMut2<Self>,
                finish: &Finish<Self>,
            ) -> bool {
                $own_product(a, b, c, finish)
            }

            fn block_columns() -> usize {
                if $has_own { 32 } else { 256 }
            }

            unsafe fn gemm(
                m: usize,
                k: usize,
                n: usize,
                a: (*const Self, [isize; 2]),
                b: (*const Self, [isize; 2]),
                c: (*mut Self, [isize; 2]),
            ) {
                // SAFETY: the caller promises what `matrixmultiply` asks for.
                unsafe { $gemm(m, k, n, 1.0, a.0, a.1[0], a.1[1], b.0, b.1[0], b.1[1], 0.0, c.0, c.1[0], c.1[1]) }
            }
        }
    };
}

real!(f32, kernel::product, kernel::available(), matrixmultiply::sgemm);
real!(f64, |_, _, _, _| false, false, matrixmultiply::dgemm);
