//! Memory that begins with a cache line: a register's worth of numbers that straddles two lines takes twice as long to load
//! and to store.

use super::real::Real;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};
use std::ops::{Deref, DerefMut};

/// Numbers that are moved together; a cache line of `f32`, two of `f64`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
struct Line<T>([T; LINE]);
const LINE: usize = 16;

/// A slice that begins with a cache line.
#[derive(Clone, Debug)]
pub struct Aligned<T> {
    lines: Vec<Line<T>>,
    length: usize,
}

impl<T: Real> Aligned<T> {
    /// So many zeros.
    pub fn zeros(length: usize) -> Self {
        const { assert!(size_of::<Line<T>>() == LINE * size_of::<T>(), "lines have no gaps") };
        Self { lines: vec![Line([T::zero(); LINE]); length.div_ceil(LINE)], length }
    }
}

impl<T: Real> From<&[T]> for Aligned<T> {
    fn from(values: &[T]) -> Self {
        let mut aligned = Self::zeros(values.len());
        aligned.copy_from_slice(values);
        aligned
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: lines follow each other without gaps, because an array of `LINE` floats fills its alignment; there are at
        // least `length` floats in them, which live as long as `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and nothing else refers to them while `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

/// A matrix in row-major order whose first element begins a cache line. From one long row to the next is an odd number of
/// lines: rows a power of two apart would all compete for the same few places of a cache.
#[derive(Clone, Debug)]
pub struct Matrix<T> {
    values: Aligned<T>,
    shape: (usize, usize),
    step: usize,
    ones: bool,
}

impl<T: Real> Matrix<T> {
    /// Zeros, `[rows, columns]`.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        let step = if columns < 4 * LINE { columns } else { (columns.div_ceil(LINE) | 1) * LINE };
        Self {
            values: Aligned::zeros(rows.checked_mul(step).expect("so many fit")),
            shape: (rows, columns),
            step,
            ones: false,
        }
    }

    /// Zeros, `[rows, columns]`, each row of which is followed by a one for [`Self::with_ones`].
    pub fn zeros_and_ones(rows: usize, columns: usize) -> Self {
        let mut matrix = Self::zeros(rows, columns + 1);
        matrix.view_mut().column_mut(columns).fill(T::one());
        Self { shape: (rows, columns), ones: true, ..matrix }
    }

    /// The rows and the ones that follow them, `[rows, columns + 1]`.
    ///
    /// # Panics
    /// If it was made without.
    pub fn with_ones(&self) -> ArrayView2<'_, T> {
        let (rows, columns) = self.shape;
        assert!(self.ones, "there are ones");
        // SAFETY: there are `step` values for each row, borrowed with `self`: the columns, a one, and perhaps more.
        unsafe { ArrayView2::from_shape_ptr((rows, columns + 1).strides((self.step, 1)), self.values.as_ptr()) }
    }

    /// To read.
    pub fn view(&self) -> ArrayView2<'_, T> {
        // SAFETY: there are `step` values for each row, of which the columns are the first; they are borrowed with `self`.
        unsafe { ArrayView2::from_shape_ptr(self.shape.strides((self.step, 1)), self.values.as_ptr()) }
    }

    /// To write.
    pub fn view_mut(&mut self) -> ArrayViewMut2<'_, T> {
        // SAFETY: as above, borrowed mutably.
        unsafe { ArrayViewMut2::from_shape_ptr(self.shape.strides((self.step, 1)), self.values.as_mut_ptr()) }
    }

    /// Row after row, to write.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        let (rows, columns) = self.shape;
        self.values.chunks_mut(self.step.max(1)).take(rows).map(move |row| &mut row[..columns])
    }

    /// Moves some rows, given in ascending order, to the beginning.
    pub(super) fn keep_rows(&mut self, rows: &[usize]) {
        for (to, &from) in rows.iter().enumerate() {
            self.values.copy_within(from * self.step..from * self.step + self.shape.1, to * self.step);
        }
    }

    /// The elements of a single column.
    ///
    /// # Panics
    /// If there are more columns, or none.
    pub fn column(&self) -> &[T] {
        assert_eq!((self.shape.1, self.step), (1, 1));
        &self.values
    }

    /// The elements of a single column, to write.
    ///
    /// # Panics
    /// If there are more columns, or none.
    pub fn column_mut(&mut self) -> &mut [T] {
        assert_eq!((self.shape.1, self.step), (1, 1));
        &mut self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begins_a_line_and_holds_its_values<T: Real>() {
        for length in [0, 1, 15, 16, 17, 300] {
            let values: Vec<T> = (0..length).map(|i| T::of(f64::from(i))).collect();
            let aligned = Aligned::from(values.as_slice());
            assert_eq!(&*aligned, values);
            assert!(length == 0 || aligned.as_ptr().addr().is_multiple_of(64));
        }
        let mut matrix = Matrix::<T>::zeros(3, 2);
        matrix.view_mut()[[2, 1]] = T::one();
        assert_eq!(matrix.view().sum(), T::one());
        let ones = Matrix::<T>::zeros_and_ones(3, 64);
        assert_eq!((ones.view().sum(), ones.with_ones().sum()), (T::zero(), T::of(3.0)));
        for columns in [0, 1, 63, 64, 65] {
            let matrix = Matrix::<T>::zeros(3, columns);
            assert_eq!(matrix.view().dim(), (3, columns));
            assert!(columns < 64 || matrix.view().row(2).as_ptr().addr().is_multiple_of(64));
        }
    }

    #[test]
    fn memory_is_aligned() {
        begins_a_line_and_holds_its_values::<f32>();
        begins_a_line_and_holds_its_values::<f64>();
    }
}
