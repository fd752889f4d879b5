//! What a learner on a GPU stands on: memory, launches of the kernels in `kernels/`, and recordings of many launches.
//!
//! [`Gpu`] is that much and no more. [`cuda`] implements it for NVIDIA's driver; the tests implement it once more by running
//! the same kernels as C++, so that all that is above it is tested without a GPU.

pub mod compile;
pub mod cuda;
pub mod kernels;
pub mod mlp;

use crate::config::Precision;
use crate::error::Error;
use kernels::Launch;

/// An address in the memory of a GPU, as kernels have it: of the first of some 32-bit words.
///
/// A buffer lives as long as the [`Gpu`] that it came from.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer(pub u64);

impl Buffer {
    /// No buffer, where a kernel asks for none.
    pub const NONE: Self = Self(0);

    /// The address `words` further on.
    #[must_use]
    pub fn at(self, words: usize) -> Self {
        Self(self.0 + 4 * words as u64)
    }
}

/// Launches that a [`Gpu`] has recorded, by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording(pub usize);

/// A GPU with the kernels of this crate. Its work is done in order, and it goes on by itself; only [`Gpu::download`] waits.
///
/// All functions fail with [`Error::Device`], and go on failing where the GPU itself has.
pub trait Gpu: Send {
    /// What it is, for people.
    fn name(&self) -> String;

    /// What the fused kernels make products of.
    fn precision(&self) -> Precision;

    /// Memory for so many words, all zero.
    ///
    /// # Errors
    /// If there is not so much.
    fn allocate(&mut self, words: usize) -> Result<Buffer, Error>;

    /// Copies `words` to the device.
    ///
    /// # Safety
    /// There must be so many words from `to` on, of a buffer of this device.
    ///
    /// # Errors
    /// If the device fails.
    unsafe fn upload(&mut self, to: Buffer, words: &[u32]) -> Result<(), Error>;

    /// Copies `words` from the device, once all that was asked for before is done.
    ///
    /// # Safety
    /// There must be so many words from `from` on, of a buffer of this device.
    ///
    /// # Errors
    /// If the device fails, now or in what was asked for before.
    unsafe fn download(&mut self, from: Buffer, words: &mut [u32]) -> Result<(), Error>;

    /// Does the launches one after another.
    ///
    /// # Safety
    /// Whatever they read and write must lie in buffers of this device.
    ///
    /// # Errors
    /// If one cannot be made.
    unsafe fn run(&mut self, launches: &[Launch]) -> Result<(), Error>;

    /// Keeps launches, to be done many times.
    ///
    /// # Safety
    /// As for [`Self::run`].
    ///
    /// # Errors
    /// If one cannot be made.
    unsafe fn record(&mut self, launches: Vec<Launch>) -> Result<Recording, Error>;

    /// [`Self::run`] for what has been recorded, at less cost.
    ///
    /// # Errors
    /// If they cannot be made.
    fn replay(&mut self, recording: Recording) -> Result<(), Error>;
}

/// The words of floats.
pub fn words(values: &[f32]) -> &[u32] {
    // SAFETY: both have the same size and alignment, and every bit pattern is valid.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

/// The words of floats, to be written.
pub fn words_mut(values: &mut [f32]) -> &mut [u32] {
    // SAFETY: as for `words`.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}
