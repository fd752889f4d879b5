//! Soft Actor-Critic with its forward and backward passes written by hand.
#![doc(test(attr(deny(warnings))))]
pub mod actor;
pub mod config;
pub mod env;
pub mod error;
pub mod nn;
pub mod replay;
pub mod rng;
#[cfg(feature = "program")]
pub mod run;
pub mod sac;
pub mod train;
