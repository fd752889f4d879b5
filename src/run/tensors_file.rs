//! Named tensors and metadata as safetensors: the same bytes for the same content.

use super::files;
use crate::normalizer::Normalizer;
use anyhow::{Context, Result, anyhow, ensure};
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

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

/// The most bytes of a file that nothing but itself tells the length of, and of its header.
const MOST_BYTES: u64 = 1 << 30;
const MOST_OF_HEADER: u64 = 1 << 22;

/// What the header says of a tensor, or of no tensor.
#[derive(Deserialize)]
struct Place {
    data_offsets: Option<[u64; 2]>,
}

/// A file, as far as its header says; no symbolic link is followed.
///
/// # Errors
/// If it cannot be read, or has another length than its header says.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = files::reader(path)?;
    let found = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(8).read_to_end(&mut bytes)?;
    let header = bytes.first_chunk().map_or(0, |&length| u64::from_le_bytes(length).min(MOST_OF_HEADER));
    file.by_ref().take(header).read_to_end(&mut bytes)?;
    let places = bytes.get(8..).and_then(|header| serde_json::from_slice::<HashMap<String, Place>>(header).ok());
    // What is no header is refused where the bytes are read as tensors.
    let Some(places) = places else { return Ok(bytes) };
    let end = places.into_values().filter_map(|place| Some(place.data_offsets?[1])).max().unwrap_or(0);
    let length = end.saturating_add(bytes.len() as u64);
    if length > MOST_BYTES {
        let problem = format!("it has {length} bytes, more than the {MOST_BYTES} that it can have");
        return Err(Error::new(ErrorKind::FileTooLarge, problem));
    }
    if found > length {
        let problem = format!("it has {found} bytes, of which its header names {length}");
        return Err(Error::new(ErrorKind::InvalidData, problem));
    }
    file.take(end).read_to_end(&mut bytes)?;
    Ok(bytes)
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
pub fn to_bytes(tensors: &[Tensor], metadata: &BTreeMap<impl Ord + serde::Serialize, String>) -> Result<Vec<u8>> {
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
pub fn with_metadata(file: &[u8], metadata: &BTreeMap<impl Ord + serde::Serialize, String>) -> Result<Vec<u8>> {
    let (length, rest) = file.split_first_chunk().context("a file begins with the length of its header")?;
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length))?);
    let mut header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header)?;
    header.insert("__metadata__".to_string(), serde_json::to_value(metadata)?);
    let mut header = serde_json::to_vec(&header)?;
    // The data stay aligned to eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat())
}
