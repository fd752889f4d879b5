//! The mathematics, with no reinforcement learning in it: products, networks, the tanh-Gaussian, Adam.
//!
//! Every backward pass stands right below its forward pass, is written by hand, and is proven against central finite
//! differences in `tests/gradients.rs`. Everything is generic over [`Real`]: `f32` to train, `f64` to prove.

pub mod adam;
pub mod aligned;
mod elementary;
pub mod epilogue;
pub mod gemm;
pub mod init;
mod kernel;
pub mod layer;
pub mod network;
pub mod real;
mod simd;
pub mod tanh_gaussian;
pub mod threads;
pub mod weights;

pub use adam::{Adam, accumulate, clip_norm, polyak};
pub use aligned::{Aligned, Matrix};
pub use epilogue::Activation;
pub use init::Init;
pub use layer::Dense;
pub use network::{Block, Network, Pass, Rows, undivided};
pub use real::Real;
pub use tanh_gaussian::{LogStd, Mean, TanhGaussian};
pub use weights::{Theta, Weights};

/// Panics unless `what` a caller has given is of the shape it must be of, and names both.
#[track_caller]
pub(crate) fn assert_shape(what: &str, given: &[usize], expected: &[usize]) {
    assert!(given == expected, "{what} must be of shape {expected:?}, not {given:?}");
}
