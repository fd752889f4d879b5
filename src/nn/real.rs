//! The scalar: `f32` to train, `f64` to prove. The only generic parameter of the numeric core.

use super::elementary;
use super::gemm::Product;
use super::kernel;
use ndarray::{ArrayView2, NdFloat};

/// A floating-point scalar with a matrix product.
pub trait Real: NdFloat + Default + std::iter::Sum + ndarray_rand::rand_distr::uniform::SampleUniform {
    /// The nearest value to `x`.
    fn of(x: f64) -> Self;

    /// This value as `f64`, exactly.
    fn as_f64(self) -> f64;

    /// eˣ
    fn exponential(self) -> Self;

    /// eˣ − 1 for x ≤ 0.
    fn exponential_less_one(self) -> Self;

    /// log(1 + x) for 0 ≤ x ≤ 1.
    fn log_one_plus(self) -> Self;

    /// 1/x for 10⁻³⁷ ≤ x ≤ 10³⁷; for an x beyond no more than 10⁻³⁷.
    fn reciprocal(self) -> Self;

    /// Does `product` by this crate's own kernel, if it suits the processor and the matrices; says whether it does.
    ///
    /// # Panics
    /// If the shapes do not fit each other.
    fn own_product(product: &mut Product<Self>) -> bool;

    /// Floats that [`Self::pack`] writes for a B of `[k, n]`; none if there is no kernel that would read them.
    fn packed_len(k: usize, n: usize) -> usize;

    /// Writes B, `[k, n]`, of which rows or columns must be contiguous, as this crate's own kernel reads it.
    ///
    /// # Panics
    /// If `panels` is not as long as [`Self::packed_len`] says.
    fn pack(b: ArrayView2<Self>, panels: &mut [Self]);

    /// C ← A·B, or C ← C + A·B to `accumulate`, by `matrixmultiply`; A is `[m, k]`, B is `[k, n]`, C is `[m, n]`, each with its own strides.
    ///
    /// # Safety
    /// The pointers and (row, column) strides must describe matrices that lie wholly within their allocations, and C
    /// must not overlap A, B or itself.
    unsafe fn gemm(
        sizes: [usize; 3],
        a: (*const Self, [isize; 2]),
        b: (*const Self, [isize; 2]),
        c: (*mut Self, [isize; 2]),
        accumulate: bool,
    );
}

macro_rules! real {
    ($real:ty, [$exp:path, $exp_m1:path, $ln_1p:path, $reciprocal:path], $gemm:path, $own_product:expr, $packed_len:expr, $pack:expr) => {
        impl Real for $real {
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $real
            }

            #[inline(always)]
            fn as_f64(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn exponential(self) -> Self {
                $exp(self)
            }

            #[inline(always)]
            fn exponential_less_one(self) -> Self {
                $exp_m1(self)
            }

            #[inline(always)]
            fn log_one_plus(self) -> Self {
                $ln_1p(self)
            }

            #[inline(always)]
            fn reciprocal(self) -> Self {
                $reciprocal(self)
            }

            fn own_product(product: &mut Product<Self>) -> bool {
                $own_product(product)
            }

            fn packed_len(k: usize, n: usize) -> usize {
                $packed_len(k, n)
            }

            fn pack(b: ArrayView2<Self>, panels: &mut [Self]) {
                $pack(b, panels);
            }

            unsafe fn gemm(
                [m, k, n]: [usize; 3],
                a: (*const Self, [isize; 2]),
                b: (*const Self, [isize; 2]),
                c: (*mut Self, [isize; 2]),
                accumulate: bool,
            ) {
                let beta = if accumulate { 1.0 } else { 0.0 };
                // SAFETY: the caller promises what `matrixmultiply` asks for.
                unsafe { $gemm(m, k, n, 1.0, a.0, a.1[0], a.1[1], b.0, b.1[0], b.1[1], beta, c.0, c.1[0], c.1[1]) }
            }
        }
    };
}

real!(
    f32,
    [elementary::exp, elementary::exp_m1, elementary::ln_1p, elementary::reciprocal],
    matrixmultiply::sgemm,
    kernel::product,
    kernel::packed_len,
    kernel::pack
);
real!(f64, [f64::exp, f64::exp_m1, f64::ln_1p, f64::recip], matrixmultiply::dgemm, |_| false, |_, _| 0, |_, _| {});
