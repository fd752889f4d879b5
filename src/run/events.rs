//! The measurements once more, as TensorBoard reads them: `tensorboard --logdir runs`.
//!
//! An event file is a sequence of records, each the length of its data, a checksum of that length, the data and a checksum
//! of them; the data are one `Event` of TensorBoard's protocol buffers. The checksums are CRC-32C, rotated and moved by a
//! constant, so that a record that itself contains checksums does not defeat them.

use super::metrics::Row;
use super::{RunDirectory, config_file, files};
use crate::config::Config;
use crate::sac::Metric;
use anyhow::{Context, Result};
use crc::{CRC_32_ISCSI, Crc};
use prost::{Message, Oneof};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

static CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
const VERSION: &str = "brain.Event:2";
/// The most bytes of the data of a record; the longest has the configuration.
const MOST_OF_RECORD: u64 = 2 * files::MOST_OF_CONFIG;
/// The number that stands for a tensor of strings.
const STRINGS: i32 = 7;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = 1)]
    wall_time: f64,
    #[prost(int64, tag = 2)]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(string, tag = 3)]
    FileVersion(String),
    #[prost(message, tag = 5)]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = 1)]
    values: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = 1)]
    tag: String,
    #[prost(message, optional, tag = 9)]
    metadata: Option<Metadata>,
    #[prost(oneof = "Content", tags = "2, 8")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Content {
    #[prost(float, tag = 2)]
    Scalar(f32),
    #[prost(message, tag = 8)]
    Tensor(Tensor),
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = 1)]
    plugin: Option<Plugin>,
}

#[derive(Clone, PartialEq, Message)]
struct Plugin {
    #[prost(string, tag = 1)]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = 1)]
    dtype: i32,
    #[prost(message, optional, tag = 2)]
    shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = 8)]
    strings: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = 2)]
    dimensions: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, tag = 1)]
    size: i64,
}

/// The event file of a run.
#[derive(Debug)]
pub struct EventsFile {
    path: PathBuf,
    file: File,
}

impl EventsFile {
    /// Its name in a run directory; TensorBoard knows it by the middle part.
    pub const NAME: &str = "events.out.tfevents.sac";

    /// The file up to `last_step`, or a new one, and in it the configuration.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open(run: &RunDirectory, config: &Config, last_step: u64) -> Result<Self> {
        let path = run.file(Self::NAME);
        let open = || {
            let mut kept = 0;
            if files::is_there(&path) {
                // Each file begins with the length of the same record, if not even that is torn.
                let start = record(&event(0, What::FileVersion(VERSION.into())));
                if !start.starts_with(&files::read_start(&path, 12)?) {
                    let problem = "what is there is of something else; move it away";
                    return Err(io::Error::new(ErrorKind::InvalidData, problem));
                }
                kept = length_until(BufReader::new(files::reader(&path)?), last_step)?;
            }
            Ok((files::append(&path, kept)?, kept == 0))
        };
        let (file, is_new) = open().with_context(|| format!("{} cannot be written", path.display()))?;
        let mut events = Self { path, file };
        if is_new {
            events.append(0, What::FileVersion(VERSION.into()))?;
        }
        let toml = config_file::to_toml(run.environment(), config)?;
        let strings = vec![format!("```toml\n{toml}```\n").into_bytes()];
        let shape = Some(Shape { dimensions: vec![Dimension { size: 1 }] });
        let text = Value {
            tag: "config".into(),
            metadata: Some(Metadata { plugin: Some(Plugin { name: "text".into() }) }),
            content: Some(Content::Tensor(Tensor { dtype: STRINGS, shape, strings })),
        };
        events.append(last_step, What::Summary(Summary { values: vec![text] }))?;
        Ok(events)
    }

    /// Sees to it that the file is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| format!("{} cannot be written", self.path.display()))
    }

    /// Adds a row, as one event.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, row: &Row) -> Result<()> {
        let scalar = |tag, value: f64| Value { tag, metadata: None, content: Some(Content::Scalar(value as f32)) };
        let timing = row.timing().map(|(column, value)| (column, Some(value)));
        let cells = row.cells().chain(timing);
        let cells = cells.filter_map(|(column, value)| Some(scalar(tag(column).into(), value?)));
        let info = row.info.iter().map(|(column, value)| scalar(column.replacen('.', "/", 1), *value));
        let values = cells.chain(info).collect();
        self.append(row.step, What::Summary(Summary { values }))
    }

    fn append(&mut self, step: u64, what: What) -> Result<()> {
        self.file
            .write_all(&record(&event(step, what)))
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

/// An event of this moment.
fn event(step: u64, what: What) -> Vec<u8> {
    // A clock before 1970 is wrong, and so is what it shows.
    let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Event { wall_time, step: step as i64, what: Some(what) }.encode_to_vec()
}

/// What TensorBoard shows a column under.
fn tag(column: &str) -> &str {
    match column {
        "episode_return" => "return/episode",
        "evaluation_return" => "return/evaluation",
        "evaluation_std" => "return/evaluation_std",
        "episode_length" => "episode/length",
        "episode" => "episode/number",
        "seconds" => "speed/seconds",
        "steps_per_second" => "speed/steps_per_second",
        _ => Metric::ALL.into_iter().find(|metric| metric.name() == column).map_or(column, |metric| metric.tag()),
    }
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    CASTAGNOLI.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// The bytes of the records that are whole, up to the first of a later step than `last_step`.
fn length_until(mut file: impl Read, last_step: u64) -> io::Result<u64> {
    let mut kept = 0;
    while let Some(data) = next_record(&mut file)? {
        match Event::decode(data.as_slice()) {
            Ok(event) if event.step <= last_step as i64 => kept += data.len() as u64 + 16,
            _ => break,
        }
    }
    Ok(kept)
}

/// The data of the next record, if it is whole and one that is written here.
fn next_record(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut next = |length: u64| {
        let mut bytes = Vec::new();
        file.by_ref().take(length).read_to_end(&mut bytes).map(|_| bytes)
    };
    let head = next(12)?;
    let Some((length, checksum)) = head.split_first_chunk::<8>() else { return Ok(None) };
    let data_length = u64::from_le_bytes(*length);
    if checksum != masked(length) || data_length > MOST_OF_RECORD {
        return Ok(None);
    }
    let data = next(data_length)?;
    let is_whole = next(4)? == masked(&data);
    Ok(is_whole.then_some(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(step: i64) -> Vec<u8> {
        record(&Event { wall_time: 1.0, step, what: None }.encode_to_vec())
    }

    #[test]
    fn every_column_is_shown_in_a_group() {
        let columns = Row::EMPTY.cells().map(|(column, _)| column).collect::<Vec<_>>().into_iter();
        for column in columns.chain(Row::EMPTY.timing().map(|(column, _)| column)) {
            assert!(tag(column).contains('/'), "{column}");
        }
    }

    /// The check value of CRC-32C, masked as TensorFlow's documentation says.
    #[test]
    fn checksums_are_those_of_tensorflow() {
        let expected = (0xe306_9283_u32.rotate_right(15)).wrapping_add(0xa282_ead8);
        assert_eq!(masked(b"123456789"), expected.to_le_bytes());
    }

    #[test]
    fn what_came_later_or_is_damaged_is_cut_off() {
        let all = [event(0), event(5), event(9)].concat();
        let two = event(0).len() + event(5).len();
        let length_until = |bytes: &[u8], step| length_until(bytes, step).expect("it is in memory") as usize;
        assert_eq!([0, 4, 5, 8, 9].map(|step| length_until(&all, step)), {
            let one = event(0).len();
            [one, one, two, two, all.len()]
        });
        for length in two..all.len() {
            assert_eq!(length_until(&all[..length], 100), two);
        }
        for at in two..all.len() {
            let mut damaged = all.clone();
            damaged[at] ^= 0x40;
            assert_eq!(length_until(&damaged, 100), two, "byte {at} was changed");
        }
    }
}
