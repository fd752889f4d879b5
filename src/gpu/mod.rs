//! What a learner on a GPU stands on: memory, launches of the kernels in `kernels/`, and graphs of many launches.
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

/// Launches that a [`Gpu`] has captured to be done many times, by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph(pub usize);

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

    /// Memory for so many copies of buffers of these lengths in words, all zero and in one piece: the buffers of the first
    /// copy, and how many words behind each of them lies that of the next copy.
    ///
    /// # Errors
    /// If there is not so much.
    fn allocate_copies(&mut self, lengths: &[usize], copies: usize) -> Result<(Vec<Buffer>, usize), Error> {
        let (offsets, step) = lay_out(lengths, 0);
        let first = self.allocate(step.saturating_mul(copies))?;
        Ok((offsets.into_iter().map(|offset| first.at(offset)).collect(), step))
    }

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

    /// Keeps launches as a graph, to be done many times by [`Self::run_graph`].
    ///
    /// # Safety
    /// As for [`Self::run`].
    ///
    /// # Errors
    /// If one cannot be made.
    unsafe fn capture(&mut self, launches: Vec<Launch>) -> Result<Graph, Error>;

    /// [`Self::run`] for the launches of a graph, at less cost.
    ///
    /// # Errors
    /// If they cannot be made.
    fn run_graph(&mut self, graph: Graph) -> Result<(), Error>;
}

/// Where buffers begin of which one follows the other with at least `gap` words between, and where the next copy of all of them
/// does. Each begins where memory is read at its fastest.
pub fn lay_out(lengths: &[usize], gap: usize) -> (Vec<usize>, usize) {
    const LINE: usize = 32;
    let mut next = 0_usize;
    let place = |&length: &usize| {
        let offset = next;
        // What is too long for its length to be told is too long for every memory as well.
        next = next.saturating_add(length).saturating_add(gap).checked_next_multiple_of(LINE).unwrap_or(usize::MAX);
        offset
    };
    (lengths.iter().map(place).collect(), next)
}

/// What `make` makes of buffers that it asks for by their lengths in words, so many copies of all of them in one piece; and from
/// each buffer to that of the next copy. `make` is called twice, first to be asked how much it needs.
///
/// # Errors
/// If there is not so much memory.
pub fn with_buffers<T>(
    gpu: &mut dyn Gpu,
    copies: usize,
    make: impl Fn(&mut dyn FnMut(usize) -> Buffer) -> T,
) -> Result<(T, usize), Error> {
    let mut lengths = Vec::new();
    make(&mut |words| {
        lengths.push(words);
        Buffer::NONE
    });
    let (buffers, step) = gpu.allocate_copies(&lengths, copies)?;
    let mut buffers = buffers.into_iter();
    Ok((make(&mut |_| buffers.next().expect("it asks for the same both times")), step))
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
