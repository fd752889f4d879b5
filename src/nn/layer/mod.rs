//! Layers, a file for each kind. A layer knows which parameters of the flat vector are its own, how they are initialised and
//! what they are called in files; its backward pass stands right below its forward pass.

mod dense;

pub use dense::Dense;
