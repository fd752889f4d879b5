//! Pictures of runs.

pub mod plot;
