//! Files that are either whole or not there, also after the system has lost its power.

use std::fs::{self, File};
use std::io::{Result, Write};
use std::path::Path;

/// Writes a file in place of what is there.
///
/// # Errors
/// If it cannot be written; what was there stays.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path)).inspect_err(
        |_| {
            let _ = fs::remove_file(&temporary);
        },
    )?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Sees to it that the names in a directory are on the disk.
///
/// # Errors
/// If the directory cannot be opened.
pub fn sync_directory(path: &Path) -> Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // Not every system has this, and where it does not, it does so by itself.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}
