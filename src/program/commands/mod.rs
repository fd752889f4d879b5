//! What the program does: one file a command, its options beside the function that runs it.

pub mod compare;
pub mod eval;
pub mod export;
pub mod plot;
pub mod presets;
pub mod render;
pub mod resume;
pub mod runs;
pub mod train;
