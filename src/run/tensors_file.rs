//! Named tensors and metadata as safetensors: the same bytes for the same content.

use crate::normalizer::Normalizer;
use anyhow::{Context, Result, anyhow, ensure};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};

/// A tensor to be written.
pub struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// One of `f32`, in row-major order.
    pub fn f32(name: String, shape: Vec<usize>, values: &[f32]) -> Self {
        Self { name, dtype: Dtype::F32, shape, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }

    /// A vector of `f64`.
    pub fn f64(name: String, values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name, dtype: Dtype::F64, shape: vec![values.len()], bytes }
    }

    /// A vector of `u64`.
    pub fn u64(name: String, values: &[u64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name, dtype: Dtype::U64, shape: vec![values.len()], bytes }
    }

    /// Bytes.
    pub fn u8(name: String, bytes: Vec<u8>) -> Self {
        Self { name, dtype: Dtype::U8, shape: vec![bytes.len()], bytes }
    }
}

/// The numbers of a tensor of `f32`.
pub fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes))
}

/// The tensors of statistics of observations, all `f64`, after `prefix`: how many there were, `[1]`, their mean and their
/// variance, `[O]`.
pub const STATISTICS: [&str; 3] = ["observation.count", "observation.mean", "observation.variance"];

/// [`STATISTICS`] of `normalizer`.
pub fn statistics(prefix: &str, normalizer: &Normalizer) -> [Tensor; 3] {
    let [count, mean, variance] = STATISTICS.map(|name| format!("{prefix}{name}"));
    [
        Tensor::f64(count, &[normalizer.count()]),
        Tensor::f64(mean, normalizer.mean()),
        Tensor::f64(variance, normalizer.variance()),
    ]
}

/// [`STATISTICS`] of a file, if it has any.
///
/// # Errors
/// If they are not whole, or cannot be what they say.
pub fn read_statistics(file: &SafeTensors, prefix: &str) -> Result<Option<Normalizer>> {
    let names = STATISTICS.map(|name| format!("{prefix}{name}"));
    if names.iter().all(|name| file.tensor(name).is_err()) {
        return Ok(None);
    }
    let f64s = |name: &str| -> Result<Vec<f64>> {
        let tensor = file.tensor(name).map_err(|_| anyhow!("it lacks the tensor {name}"))?;
        ensure!(tensor.dtype() == Dtype::F64 && tensor.shape().len() == 1, "its {name} is no vector of F64");
        Ok(tensor.data().as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect())
    };
    let [count, mean, variance] = [f64s(&names[0])?, f64s(&names[1])?, f64s(&names[2])?];
    let [count] = count[..] else { return Err(anyhow!("its {} is not a single number", names[0])) };
    let normalizer = Normalizer::from_statistics(count, mean, variance);
    Ok(Some(normalizer.map_err(|problem| anyhow!("its statistics of observations are none: {problem}"))?))
}

/// The tensors of a file, and its metadata.
///
/// # Errors
/// If it is damaged or of another format than `format`.
pub fn parse<'a>(bytes: &'a [u8], format: &str) -> Result<(SafeTensors<'a>, HashMap<String, String>)> {
    // The library names tensors as they are, be it over several lines.
    let explain = |error: SafeTensorError| anyhow!("{}", error.to_string().replace('\n', " "));
    let file = SafeTensors::deserialize(bytes).map_err(explain)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(explain)?;
    let metadata = header.metadata().clone().context("it has no metadata")?;
    let found = metadata.get("format").context("its metadata lack format")?;
    ensure!(found == format, "its format is {found:?}, not {format:?}");
    Ok((file, metadata))
}

/// The file.
///
/// # Errors
/// If a name comes twice.
pub fn to_bytes(tensors: &[Tensor], metadata: &BTreeMap<&str, String>) -> Result<Vec<u8>> {
    let views = tensors
        .iter()
        .map(|tensor| Ok((&tensor.name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    with_metadata(&safetensors::serialize(views, None)?, metadata)
}

/// Puts metadata into a serialized file in a fixed order; the library itself writes them in a random one.
///
/// # Errors
/// If the file is none.
pub fn with_metadata(file: &[u8], metadata: &BTreeMap<&str, String>) -> Result<Vec<u8>> {
    let (length, rest) = file.split_first_chunk().context("a file begins with the length of its header")?;
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length))?);
    let mut header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)?;
    header.insert("__metadata__".to_string(), serde_json::to_value(metadata)?);
    let mut header = serde_json::to_vec(&header)?;
    // The data stay aligned to eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat())
}
