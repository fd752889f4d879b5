//! Files that are known by their length and a checksum.

use super::{files, typed};
use crate::error::Error;
use anyhow::{Context, ensure};
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;

/// What is known of the first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// How many.
    pub bytes: u64,
    /// Their CRC-32.
    pub crc32: u32,
}

impl Checked {
    /// What is known of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) }
    }

    /// The same, with `more` after them.
    #[must_use]
    pub fn and(self, more: &[u8]) -> Self {
        let mut hasher = Hasher::new_with_initial_len(self.crc32, self.bytes);
        hasher.update(more);
        Self { bytes: self.bytes + more.len() as u64, crc32: hasher.finalize() }
    }

    /// Whether a file begins with the bytes, of which no more than a piece is held in memory at a time.
    ///
    /// # Errors
    /// If it does not, or cannot be read.
    pub fn check(self, path: &Path) -> Result<(), Error> {
        typed(|| {
            let shown = path.display();
            let unreadable = || format!("{shown} cannot be read");
            let mut file = files::reader(path).with_context(unreadable)?.take(self.bytes);
            let (mut found, mut piece) = (Self::of(&[]), vec![0; 1 << 16]);
            loop {
                match file.read(&mut piece).with_context(unreadable)? {
                    0 => break,
                    length => found = found.and(&piece[..length]),
                }
            }
            ensure!(found.bytes == self.bytes, "{shown} has {} bytes instead of {}", found.bytes, self.bytes);
            ensure!(found == self, "{shown} is damaged");
            Ok(())
        })
    }

    /// The first bytes of a file, if they are the ones.
    ///
    /// # Errors
    /// If the file cannot be read, is shorter, or begins otherwise.
    pub fn read(self, path: &Path) -> Result<Vec<u8>, Error> {
        typed(|| {
            let shown = path.display();
            let bytes = files::read_start(path, self.bytes).with_context(|| format!("{shown} cannot be read"))?;
            let length = self.bytes;
            ensure!(bytes.len() as u64 == length, "{shown} has {} bytes instead of {length}", bytes.len());
            ensure!(Self::of(&bytes) == self, "{shown} is damaged");
            Ok(bytes)
        })
    }
}
