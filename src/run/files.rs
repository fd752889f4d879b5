//! How the files of a run are opened, which happens here alone.
//!
//! A run may come from a stranger. So nothing in its directory leads out of it, and nothing holds the program up:
//!
//! - a symbolic link is not followed, and what is no regular file (a pipe, a socket, a device) is refused and not waited for;
//! - no file is read further than its reader says, and none that is longer than it can be is read at all;
//! - a file that is written goes on in place only if no other name leads to it (a hard link, as of a backup); otherwise it is
//!   first replaced by a copy.
//!
//! What is written whole is either whole or not there, also after the system has lost its power.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result, Write, copy};
use std::path::{Path, PathBuf};

/// The most bytes of a configuration that are read.
pub const MOST_OF_CONFIG: u64 = 1 << 20;

/// Whether something has this name, be it a link that leads nowhere.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Whether this is a directory itself, and no link to one.
pub fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Opens a regular file.
fn open(path: &Path, options: &mut OpenOptions) -> Result<File> {
    if let Ok(found) = path.symlink_metadata() {
        ensure_regular(&found)?;
    }
    // What comes there only now is refused as well.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    ensure_regular(&file.metadata()?)?;
    Ok(file)
}

fn ensure_regular(found: &Metadata) -> Result<()> {
    let problem = match found.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_symlink() => "it is a symbolic link, which is not followed; put the file itself there",
        kind if kind.is_dir() => "it is a directory; put a file there",
        _ => "it is no regular file; put one there",
    };
    Err(Error::new(ErrorKind::InvalidInput, problem))
}

/// A file to read from.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub fn reader(path: &Path) -> Result<File> {
    open(path, OpenOptions::new().read(true))
}

/// A whole file of `most` bytes at most.
///
/// # Errors
/// If it cannot be read, is no regular file, or is longer.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = reader(path)?;
    let length = file.metadata()?.len();
    let too_long = |length| {
        Error::new(ErrorKind::FileTooLarge, format!("it has {length} bytes, more than the {most} that it can have"))
    };
    if length > most {
        return Err(too_long(length));
    }
    // It may grow meanwhile, and some files have another length than they say.
    let bytes = first_bytes(file, most + 1)?;
    if bytes.len() as u64 > most { Err(too_long(bytes.len() as u64)) } else { Ok(bytes) }
}

/// The first `length` bytes of a file, or all of a shorter one.
///
/// # Errors
/// If it cannot be read, or is no regular file.
pub fn read_start(path: &Path, length: u64) -> Result<Vec<u8>> {
    first_bytes(reader(path)?, length)
}

/// As many bytes as come, up to `most`.
fn first_bytes(file: File, most: u64) -> Result<Vec<u8>> {
    let expected = usize::try_from(file.metadata()?.len().min(most)).map_err(|_| ErrorKind::OutOfMemory)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(expected).map_err(|_| ErrorKind::OutOfMemory)?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// [`read`] of a text.
///
/// # Errors
/// As from [`read`], or if it is no UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    String::from_utf8(read(path, most)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is no text in UTF-8"))
}

/// A new file in place of what has this name.
///
/// # Errors
/// If it cannot be made, or what is there cannot be taken away, as a directory.
pub fn create(path: &Path) -> Result<File> {
    remove(path)?;
    File::create_new(path)
}

/// Takes a file away, if it is there.
///
/// # Errors
/// If it cannot be taken away.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The name under which a file is written before it gets its own.
pub fn temporary(path: &Path) -> PathBuf {
    path.with_extension("tmp")
}

/// Writes a file in place of what is there.
///
/// # Errors
/// If it cannot be written; what was there stays.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Puts what `write` writes in place of what is there.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let temporary = temporary(path);
    let mut file = create(&temporary)?;
    write(&mut file).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// A file with nothing but its first `length` bytes, or a new one, to write to its end.
///
/// # Errors
/// If it cannot be written, is no regular file, or is shorter.
pub fn append(path: &Path, length: u64) -> Result<File> {
    let append = || open(path, OpenOptions::new().append(true).create(true));
    let file = append()?;
    let found = file.metadata()?;
    if found.len() < length {
        let problem = format!("it has {} bytes instead of {length}", found.len());
        return Err(Error::new(ErrorKind::InvalidData, problem));
    }
    if has_other_names(&found) {
        replace(path, |to| copy(&mut reader(path)?.take(length), to).map(drop))?;
        return append();
    }
    if found.len() > length {
        file.set_len(length)?;
    }
    Ok(file)
}

#[cfg(unix)]
fn has_other_names(found: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(found) > 1
}

#[cfg(not(unix))]
fn has_other_names(_: &Metadata) -> bool {
    false
}

/// A file that exists to be locked, with the lock on it; none while another process, or another part of this one, has that.
///
/// # Errors
/// If the file cannot be made, or is no regular file.
pub fn lock(path: &Path) -> Result<Option<File>> {
    let file = open(path, OpenOptions::new().create(true).truncate(false).write(true))?;
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        // Another process may have taken the file away before it was locked here.
        Ok(()) => Ok(is_still_at(&file, path).then_some(file)),
        // Not every file system has locks.
        Err(fs::TryLockError::Error(_)) => Ok(Some(file)),
    }
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |found: &Metadata| (found.dev(), found.ino());
    matches!((file.metadata(), path.symlink_metadata()), (Ok(one), Ok(other)) if identity(&one) == identity(&other))
}

#[cfg(not(unix))]
fn is_still_at(_: &File, path: &Path) -> bool {
    is_there(path)
}

/// The directories that must be made for this one, itself first.
pub fn missing(path: &Path) -> Vec<PathBuf> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    path.ancestors().take_while(is_missing).map(Path::to_path_buf).collect()
}

/// Removes directories, the innermost first, as far as they hold nothing.
pub fn remove_empty(directories: &[PathBuf]) {
    directories.iter().for_each(|path| _ = fs::remove_dir(path));
}

/// Makes a directory and those around it, so that their names are on the disk.
///
/// # Errors
/// If one cannot be made.
pub fn create_directories(path: &Path) -> Result<()> {
    let made = missing(path);
    fs::create_dir_all(path)?;
    made.iter().filter_map(|path| path.parent()).try_for_each(sync_directory)
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("soft-actor-critic-{}-files-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the temporary directory can be written");
        path
    }

    #[test]
    fn links_and_what_is_no_file_are_refused() {
        let place = place("refused");
        let (outside, link) = (place.join("outside"), place.join("link"));
        fs::write(&outside, "kept").expect("it can be written");
        for to in [&outside, &place.join("nowhere"), &place] {
            symlink(to, &link).expect("nothing is there");
            let refused = |result: Result<()>| {
                let error = result.expect_err("it is a link").to_string();
                assert!(error.starts_with("it is a symbolic link"), "{error}");
            };
            refused(read(&link, 10).map(drop));
            refused(read_start(&link, 10).map(drop));
            refused(append(&link, 0).map(drop));
            refused(lock(&link).map(drop));
            // What is replaced is the link itself.
            write(&link, b"new").expect("it can be written");
            assert_eq!(read(&link, 3).expect("it is a file now"), b"new");
            fs::remove_file(&link).expect("it is there");
            assert!(!is_there(&place.join("nowhere")));
        }
        // What is left of an interruption is no way out either.
        symlink(&outside, temporary(&link)).expect("nothing is there");
        write(&link, b"new").expect("it can be written");
        assert_eq!(fs::read(&outside).expect("it is there"), b"kept");
        assert!(read(&place, 10).expect_err("it is a directory").to_string().contains("directory"));
        assert!(read(Path::new("/dev/zero"), 10).expect_err("it is a device").to_string().contains("no regular file"));
        fs::remove_dir_all(place).expect("it was just written");
    }

    #[test]
    fn a_file_with_another_name_is_replaced_before_it_is_changed() {
        let place = place("names");
        let (file, other) = (place.join("file.csv"), place.join("other"));
        fs::write(&file, "0123456789").expect("it can be written");
        for length in [10, 4] {
            fs::hard_link(&file, &other).expect("nothing is there");
            let kept = fs::read(&other).expect("it is there");
            append(&file, length).and_then(|mut file| file.write_all(b"more")).expect("it can be written");
            assert_eq!(fs::read(&other).expect("it is there"), kept);
            let expected = [&kept[..length as usize], b"more"].concat();
            assert_eq!(fs::read(&file).expect("it is there"), expected);
            fs::remove_file(&other).expect("it is there");
        }
        let length = append(&file, 100).expect_err("it is shorter").to_string();
        assert_eq!(length, "it has 8 bytes instead of 100");
        fs::remove_dir_all(place).expect("it was just written");
    }

    #[test]
    fn a_lock_on_a_file_that_has_been_taken_away_is_none() {
        let place = place("locks");
        let path = place.join("lock");
        let first = lock(&path).expect("it can be made").expect("nobody has it");
        assert!(lock(&path).expect("it is there").is_none());
        fs::remove_file(&path).expect("it is there");
        assert!(!is_still_at(&first, &path));
        assert!(lock(&path).expect("it can be made").is_some());
        assert!(!is_still_at(&first, &path));
        fs::remove_dir_all(place).expect("it was just written");
    }

    #[test]
    fn nothing_longer_than_it_can_be_is_read() {
        let place = place("long");
        let path = place.join("sparse");
        File::create(&path).and_then(|file| file.set_len(6 << 30)).expect("it takes no room");
        let error = read(&path, 1 << 20).expect_err("it is too long");
        assert_eq!(error.to_string(), "it has 6442450944 bytes, more than the 1048576 that it can have");
        assert_eq!(read_start(&path, 3).expect("it is long enough"), [0; 3]);
        fs::remove_dir_all(place).expect("it was just written");
    }
}
