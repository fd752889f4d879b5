//! The program `sac`.
//!
//! Arrows run one way: [`cli`] → [`commands`] → [`pool`] → [`session`] → all others.

pub mod agents;
pub mod arguments;
pub mod cli;
pub mod commands;
pub mod environment;
pub mod failure;
pub mod interruption;
pub mod output;
pub mod policy;
pub mod pool;
pub mod progress;
pub mod runs;
pub mod session;
pub mod trust;
pub mod variables;
