//! The product of `f32` matrices by this crate's own kernel, compiled for several kinds of registers, and the choice between
//! them and `matrixmultiply`.
//!
//! B is read as it is if its rows are contiguous. Otherwise it is read in panels, of as many columns as a tile has: either it
//! has been packed before, as transposed weights are once a step, or it is packed on the way. C is made in tiles of a few
//! rows and a few registers of columns, whose sums stay in registers while k goes by. Each element of C is one chain of fused
//! multiply-adds over k in ascending order, whichever tile it falls in and however wide a register is: wherever rows or
//! columns are split, and on every kind of processor, the bits are the same. Only a C of few columns may be made of inner
//! products instead, each of 32 such chains.
//!
//! [`multiply`] divides a product into tiles, [`tile`] makes one of them, [`panels`] packs; all three know a register by
//! what [`register`] asks of it, and `x86` and `neon` name the instructions for that.

// On processors of other kinds there is no register to compile it for.
#![cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code, unused_imports, unused_macros))]

use super::Activation;
use super::epilogue::Epilogue;
use super::gemm::{Factor, Product};
use multiply::{Matrix, Right, Task};
use ndarray::ArrayView2;
use panels::{PACKED, Packed};
use std::sync::LazyLock;
use tile::RawEpilogue;

mod multiply;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod register;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Does `product` if this processor, the way its matrices lie and its epilogue allow it; says whether they do.
pub(super) fn product(product: &mut Product<f32>) -> bool {
    CHOSEN.is_some_and(|kind| kind.product(product))
}

/// Floats that [`pack`] writes for a B of `[k, n]`; none if nothing here would read them.
pub(super) fn packed_len(k: usize, n: usize) -> usize {
    CHOSEN.map_or(0, |kind| kind.packed_len(k, n))
}

/// Writes B, of which rows or columns must be contiguous, as [`product`] reads it.
///
/// # Panics
/// If `panels` is not as long as [`packed_len`] says.
pub(super) fn pack(b: ArrayView2<f32>, panels: &mut [f32]) {
    match *CHOSEN {
        Some(kind) => kind.pack(b, panels),
        None => assert!(panels.is_empty(), "nothing reads panels of {:?}", b.dim()),
    }
}

/// The names of the kinds of registers that this processor has.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    kinds().map(|kind| kind.name)
}

/// A kind of register that this processor has, and the kernel compiled for it.
#[derive(Clone, Copy)]
struct Kind {
    /// What `SAC_GEMM` calls it.
    name: &'static str,
    /// Columns of a panel of B.
    panel: usize,
    /// [`multiply::narrow`], and where that does not suit [`multiply::multiply`].
    multiply: unsafe fn(&Task, &mut Packed) -> bool,
    /// [`panels::fill`] for the panels of a whole B.
    pack: unsafe fn([usize; 2], Matrix<*const f32>, *mut f32),
}

/// The kinds that this processor has, widest first.
fn kinds() -> impl Iterator<Item = Kind> {
    #[cfg(target_arch = "x86_64")]
    return x86::kinds();
    #[cfg(target_arch = "aarch64")]
    return neon::kinds();
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    std::iter::empty()
}

/// The widest, or the one that `SAC_GEMM` in the environment names; none for `SAC_GEMM=portable`.
static CHOSEN: LazyLock<Option<Kind>> = LazyLock::new(|| {
    let wish = std::env::var("SAC_GEMM").ok();
    kinds().find(|kind| wish.as_ref().is_none_or(|wish| kind.name == wish))
});

impl Kind {
    /// [`packed_len`] for this kind.
    fn packed_len(self, k: usize, n: usize) -> usize {
        k * n.next_multiple_of(self.panel)
    }

    /// [`pack`] for this kind.
    fn pack(self, b: ArrayView2<f32>, panels: &mut [f32]) {
        let (k, n) = b.dim();
        assert_eq!(panels.len(), self.packed_len(k, n));
        let b = Matrix::new(b.as_ptr(), &b);
        assert!(b.strides.contains(&1), "rows or columns of B are contiguous");
        // SAFETY: this kind has been found in the processor. B is a live view, and there are as many floats as its panels
        // take.
        unsafe { (self.pack)([k, n], b, panels.as_mut_ptr()) }
    }

    /// [`product`] by this kind.
    fn product(self, product: &mut Product<f32>) -> bool {
        let [m, k, n] = product.check();
        let Product { a, b: Factor { matrix: b, panels }, c, accumulate, epilogue } = product;
        assert!(panels.is_none_or(|panels| panels.len() == self.packed_len(k, n)));
        let epilogue = match *epilogue {
            Epilogue::Nothing => RawEpilogue::Nothing,
            Epilogue::Bias(bias, None) => RawEpilogue::Bias(bias.as_ptr(), false),
            Epilogue::Bias(bias, Some(Activation::Relu)) => RawEpilogue::Bias(bias.as_ptr(), true),
            Epilogue::Slope { hidden, rows, activation: Activation::Relu } => {
                let Matrix { at, strides: [step, 1] } = Matrix::new(hidden.as_ptr(), &hidden) else { return false };
                RawEpilogue::Slope(at, step, rows.map(<[usize]>::as_ptr))
            }
            _ => return false,
        };
        let task = Task {
            sizes: [m, k, n],
            a: Matrix::new(a.as_ptr(), a),
            b: Right { matrix: Matrix::new(b.as_ptr(), b), panels: panels.map(<[f32]>::as_ptr) },
            c: Matrix::new(c.as_mut_ptr(), c),
            accumulate: *accumulate,
            epilogue,
        };
        // SAFETY: this kind has been found in the processor. Pointers and strides are those of live views of the shapes
        // checked above, of which C, being borrowed mutably, overlaps none.
        PACKED.with_borrow_mut(|packed| unsafe { (self.multiply)(&task, packed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Philox, Stream};
    use ndarray::{Array2, ArrayViewMut2, ShapeBuilder, s};
    use ndarray_rand::{RandomExt, rand_distr::StandardNormal};

    /// What lies between the rows of an input, and of C: the one would spoil every sum, the other is not to be overwritten.
    const BETWEEN: [f32; 2] = [f32::NAN, 1234.5];

    /// A matrix whose rows, or columns if it is transposed, lie a step apart, in memory that ends with the last of them, so
    /// that a sanitizer sees what is read or written beyond.
    struct Laid {
        memory: Vec<f32>,
        shape: [usize; 2],
        strides: [usize; 2],
        width: usize,
    }

    impl Laid {
        fn new(matrix: &Array2<f32>, transposed: bool, gap: usize, between: f32) -> Self {
            let shape = [matrix.nrows(), matrix.ncols()];
            let width = shape[usize::from(!transposed)];
            let strides = match transposed {
                _ if matrix.is_empty() => [0, 0],
                false => [width + gap, 1],
                true => [1, width + gap],
            };
            let length =
                if matrix.is_empty() { 0 } else { 1 + (0..2).map(|i| (shape[i] - 1) * strides[i]).sum::<usize>() };
            let mut laid = Self { memory: vec![between; length], shape, strides, width };
            laid.view_mut().assign(matrix);
            laid
        }

        fn view(&self) -> ArrayView2<'_, f32> {
            ArrayView2::from_shape(self.shape.strides(self.strides), &self.memory).expect("there is as much memory")
        }

        fn view_mut(&mut self) -> ArrayViewMut2<'_, f32> {
            ArrayViewMut2::from_shape(self.shape.strides(self.strides), &mut self.memory).expect("as above")
        }

        /// What lies between the rows, or columns.
        fn between(&self) -> impl Iterator<Item = f32> {
            let step = self.strides.into_iter().max().unwrap_or(0).max(1);
            self.memory.chunks(step).flat_map(|row| row.iter().skip(self.width)).copied()
        }
    }

    /// The kinds of registers that this processor has; none only where that is allowed.
    fn kinds() -> Vec<Kind> {
        let kinds: Vec<_> = super::kinds().collect();
        println!("registers: {:?}", kinds.iter().map(|kind| kind.name).collect::<Vec<_>>());
        if kinds.is_empty() {
            println!("skipped: the products of this crate's kernel, because this processor has no registers for it");
            assert!(std::env::var_os("SAC_REQUIRE_ALL_TESTS").is_none(), "SAC_REQUIRE_ALL_TESTS allows no skipping");
        }
        kinds
    }

    /// c + A·B as the kernel forms it: a chain of fused multiply-adds; but 32 of them, added in pairs, for an `inner` product,
    /// which a narrow C is made of if the rows of A are contiguous, and no slope follows.
    fn plain(a: &Array2<f32>, b: &Array2<f32>, c: &Array2<f32>, inner: bool) -> Array2<f32> {
        let k = a.ncols();
        Array2::from_shape_fn(c.dim(), |(i, j)| {
            if !inner {
                return (0..k).fold(c[[i, j]], |sum, p| a[[i, p]].mul_add(b[[p, j]], sum));
            }
            let part = |part| (part..k).step_by(32).fold(0.0, |sum, p| a[[i, p]].mul_add(b[[p, j]], sum));
            let mut parts: Vec<f32> = (0..32).map(part).collect();
            while parts.len() > 1 {
                let upper = parts.split_off(parts.len() / 2);
                parts.iter_mut().zip(upper).for_each(|(part, upper)| *part += upper);
            }
            c[[i, j]] + parts[0]
        })
    }

    /// Every layout and every epilogue, rows that follow each other and rows with gaps, B packed before and on the way, added
    /// to C or not, on every kind of register that this processor has: bit for bit as [`plain`], so that nothing depends on
    /// how a product is split, nor on what lies beyond its matrices.
    #[test]
    fn products_have_the_bits_of_a_plain_loop() {
        let kinds = kinds();
        let mut rng = Philox::new(0, Stream::Init, 0);
        let sizes = [0, 1, 2, 13, 16, 31, 67];
        let all = sizes.into_iter().flat_map(|m| sizes.map(|k| sizes.map(|n| (m, k, n))).into_iter().flatten());
        let large =
            [(128, 256, 64), (50, 257, 48), (37, 600, 101), (1, 300, 64), (1, 40, 333), (7, 3, 300), (300, 70, 7)];
        let cases = all.chain(large).flat_map(|sizes| [(sizes, false), (sizes, true)]);
        for ((m, k, n), accumulate) in cases {
            let mut matrix = |rows, columns| Array2::<f32>::random_using((rows, columns), StandardNormal, &mut rng);
            let (mut a, b, mut bias, mut before) = (matrix(m, k), matrix(k, n), matrix(1, n), matrix(m, n));
            // As a ReLU leaves it, NaN included.
            let hidden = matrix(m + 3, n).mapv(|h| if h < -1.0 { f32::NAN } else { h.max(0.0) });
            let rows: Vec<usize> = (0..m).map(|i| m + 2 - i * 7 % (m + 3)).collect();
            if m * k > 0 {
                a[[m / 2, k / 2]] = if n % 5 == 1 { f32::NAN } else { -0.0 };
            }
            if m * n > 0 {
                // Where k is 0, a ReLU is given −0.
                (before[[m / 2, n / 2]], bias[[0, n / 2]]) = (-0.0, -0.0);
            }
            let bias_slice = bias.as_slice().expect("a row");
            let activation = Activation::Relu;
            let start = if accumulate { before.clone() } else { Array2::zeros((m, n)) };
            let chain = plain(&a, &b, &start, false);
            let masked = |row_of: &dyn Fn(usize) -> usize| {
                Array2::from_shape_fn((m, n), |(i, j)| if hidden[[row_of(i), j]] > 0.0 { chain[[i, j]] } else { 0.0 })
            };
            let expected = [false, true].map(|inner| {
                let sum = plain(&a, &b, &start, inner);
                let biased = &sum + &bias;
                let relu = biased.mapv(|x| if x < 0.0 { 0.0 } else { x });
                [sum, biased, relu, masked(&|i| i), masked(&|i| rows[i])]
            });
            for (kind, layout) in kinds.iter().flat_map(|&kind| (0..32).map(move |layout| (kind, layout))) {
                let (packed, apart) = (layout & 8 > 0, layout & 16 > 0);
                let laid = |matrix: &Array2<f32>, transposed, gap, between| {
                    Laid::new(matrix, transposed, if apart { gap } else { 0 }, between)
                };
                let [unread, unwritten] = BETWEEN;
                let (a, b) = (laid(&a, layout & 1 > 0, 3, unread), laid(&b, layout & 2 > 0, 17, unread));
                let all_hidden = laid(&hidden, false, 9, unread);
                let hidden = laid(&hidden.slice(s![..m, ..]).to_owned(), false, 9, unread);
                let inner = n <= 8 && (layout & 1 == 0 || k <= 1 || m == 1 && !apart);
                let mut panels = crate::nn::Aligned::zeros(kind.packed_len(k, n));
                if packed {
                    kind.pack(b.view(), &mut panels);
                }
                for (i, expected) in expected[usize::from(inner)].iter().enumerate() {
                    // What C holds before matters only to what is added to it.
                    let mut c = laid(&before, layout & 4 > 0, 20, unwritten);
                    let epilogue = match i {
                        0 => Epilogue::Nothing,
                        1 => Epilogue::Bias(bias_slice, None),
                        2 => Epilogue::Bias(bias_slice, Some(activation)),
                        3 => Epilogue::Slope { hidden: hidden.view(), rows: None, activation },
                        _ => Epilogue::Slope { hidden: all_hidden.view(), rows: Some(&rows), activation },
                    };
                    let b = Factor { matrix: b.view(), panels: packed.then_some(&*panels) };
                    let (a, c_here) = (a.view(), c.view_mut());
                    let case = format!("{}: {m} {k} {n}, {accumulate}, layout {layout}, epilogue {i}", kind.name);
                    if !kind.product(&mut Product { a, b, c: c_here, accumulate, epilogue }) {
                        assert!(m * n == 0 || layout & 4 > 0, "{case} is refused");
                        continue;
                    }
                    let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
                    let wrong = c.view().iter().zip(expected).position(|pair| !same(pair));
                    assert!(wrong.is_none(), "{case}: {wrong:?}");
                    assert!(c.between().all(|x| x == unwritten), "{case} goes beyond the rows of C");
                }
            }
        }
    }
}
