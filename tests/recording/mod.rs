//! What the tests of environments share: reading a recording, and measuring how far from it something is.

use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::path::Path;

/// The bytes of a recording in `tests/golden/`.
pub struct Recorded(Vec<u8>);

impl Recorded {
    /// Reads a file there.
    pub fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        Self(fs::read(path).expect("the recording is in the repository"))
    }

    /// A tensor of any of the types that the recordings have, which must have this `shape`.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).expect("the recording is whole");
        let tensor = file.tensor(name).expect("it is recorded");
        assert_eq!(tensor.shape(), shape, "{name}");
        let number: fn(&[u8]) -> f64 = match tensor.dtype() {
            Dtype::F64 => |bytes| f64::from_le_bytes(bytes.try_into().expect("these are eight")),
            Dtype::F32 => |bytes| f32::from_le_bytes(bytes.try_into().expect("these are four")).into(),
            Dtype::U8 => |bytes| bytes[0].into(),
            other => panic!("{name} holds {other:?}"),
        };
        tensor.data().chunks_exact(tensor.dtype().bitsize() / 8).map(number).collect()
    }
}

/// The largest difference of two elements, which must be numbers.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|value| !value.is_nan()), "{a:?} and {b:?}");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
