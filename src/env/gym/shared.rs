//! Memory that this program and the process of an environment both see.
//!
//! It has a slot for each direction, and a slot holds one piece of what is written: the end that writes waits until the last piece
//! has been taken, puts the next one there, and counts it; the other end takes it, and counts that. Positions are in bytes, and
//! all but the piece itself are `u64`:
//!
//! | position | content |
//! |---|---|
//! | 0 | zero, unless something was written to the standard output before `gym.py` had begun |
//! | 4 096 | 0 while this program is awake, and while it sleeps the position of the count that it waits for |
//! | 4 160 | the same of the environment |
//! | 4 224 | requests: how many pieces have been written |
//! | 4 288 | how many have been taken |
//! | 4 352 | how many bytes the piece has |
//! | 4 416 | the piece, up to 65 536 bytes |
//! | 69 952 | the same for answers |
//!
//! The process begins with the memory as its standard output and one end of a pair of sockets as its standard input, through which
//! `gym.py` itself comes first; it has them to itself before it makes the environment. Whoever waits
//! looks at the other's count for a while, if the last time was short as well, and then sleeps until there is something to be read
//! from its socket: whoever counts a piece writes a byte to it if the other waits for that. A processor may let an end see that the other
//! is awake though it has just fallen asleep, so whoever sleeps also looks from time to time.
//!
//! That a count is seen after what is counted needs no more than the order in which x86 stores and loads, which is why other
//! processors have pipes: Python has no means to ask for it.

use super::channel::Channel;
use memmap2::MmapRaw;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

/// Where what is described above stands; [`REQUESTS`] and [`ANSWERS`] are where the slots begin.
const BABBLE: usize = 0;
const THIS_SLEEPS: usize = 4096;
const OTHER_SLEEPS: usize = 4160;
const REQUESTS: usize = 4224;
const ANSWERS: usize = REQUESTS + PIECE + CAPACITY;
const WRITTEN: usize = 0;
const TAKEN: usize = 64;
const LENGTH: usize = 128;
const PIECE: usize = 192;
const CAPACITY: usize = 1 << 16;
const SIZE: usize = ANSWERS + PIECE + CAPACITY;

/// For how long a count is looked at before this thread sleeps. It has nothing else to do, while the environment (`EAGER` of
/// `gym.py`, a fifth of it) had better leave its core to an update of the networks.
const EAGER: Duration = Duration::from_micros(1000);

/// After how many looks the core is offered to others, since where there are fewer cores than there is work the environment may
/// want it.
const LOOKS: usize = 200;

/// How long this thread sleeps between two looks.
const NAP: Duration = Duration::from_millis(10);

/// What the memory is called where a system lists it.
const NAME: &CStr = c"soft-actor-critic";

/// This program's end.
pub struct Shared {
    memory: MmapRaw,
    bell: UnixStream,
    /// How many pieces have been written by this end, and taken.
    written: u64,
    taken: u64,
    /// How many bytes have been read of the piece that is to be taken next.
    read: usize,
    /// Whether the other end was not waited for longer than [`EAGER`] the last time.
    is_eager: bool,
}

impl Shared {
    /// Also what the process is to have as its standard input and its standard output.
    pub fn new() -> Result<(Self, OwnedFd, OwnedFd)> {
        // SAFETY: the name is a string that ends with a zero.
        let file = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if file < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: it has just been opened, and nothing else owns it.
        let file = unsafe { File::from_raw_fd(file) };
        file.set_len(SIZE as u64)?;
        // Nothing that is written there before `gym.py` has begun may take the memory away.
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: the file is open, and its seals are an int.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(Error::last_os_error());
        }
        let memory = MmapRaw::map_raw(&file)?;
        let (bell, other) = UnixStream::pair()?;
        bell.set_read_timeout(Some(NAP))?;
        bell.set_write_timeout(Some(NAP))?;
        let shared = Self { memory, bell, written: 0, taken: 0, read: 0, is_eager: false };
        Ok((shared, other.into(), file.into()))
    }

    /// Sends what the process reads before it knows of the memory.
    pub fn send_script(&mut self, mut script: &[u8]) {
        while !script.is_empty() {
            match self.bell.write(script) {
                Ok(sent) => script = &script[sent..],
                Err(error) if is_later(error.kind()) => {}
                // It has ended, which is seen when its greeting is read.
                Err(_) => return,
            }
        }
    }

    fn word(&self, position: usize) -> &AtomicU64 {
        assert!(position.is_multiple_of(8) && position + 8 <= SIZE);
        // SAFETY: it lies within the memory, which begins at a page, cannot be made shorter, and is left to this type; `gym.py` uses
        // it in whole words as well.
        unsafe { AtomicU64::from_ptr(self.memory.as_mut_ptr().add(position).cast()) }
    }

    /// Counts a piece that has been written or taken, and wakes the other end if it sleeps until then.
    fn count(&mut self, position: usize, count: u64) -> Result<()> {
        self.word(position).store(count, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.word(OTHER_SLEEPS).load(Ordering::Relaxed) != position as u64 {
            return Ok(());
        }
        match self.bell.write(&[0]) {
            // There are bytes that it has not read yet.
            Err(error) if is_later(error.kind()) => Ok(()),
            rung => rung.map(drop),
        }
    }

    /// Waits until a count is no longer that, and says whether it has come to it: it has not if the other end has ended.
    fn wait(&mut self, position: usize, count: u64) -> Result<bool> {
        let differs = |shared: &Self| shared.word(position).load(Ordering::Acquire) != count;
        if differs(self) {
            return Ok(true);
        }
        let began = Instant::now();
        while self.is_eager && began.elapsed() <= EAGER {
            for _ in 0..LOOKS {
                if differs(self) {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            thread::yield_now();
        }
        let babbles = |shared: &Self| shared.word(BABBLE).load(Ordering::Relaxed) != 0;
        self.word(THIS_SLEEPS).store(position as u64, Ordering::SeqCst);
        let mut has_ended = false;
        while !(differs(self) || has_ended || babbles(self)) {
            has_ended = match self.bell.read(&mut [0; 64]) {
                Ok(bytes) => bytes == 0,
                Err(error) if is_later(error.kind()) => false,
                // It has ended without having read all that was rung.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
                Err(error) => return Err(error),
            };
        }
        if babbles(self) {
            return Err(ErrorKind::InvalidData.into());
        }
        self.word(THIS_SLEEPS).store(0, Ordering::Relaxed);
        self.is_eager = began.elapsed() <= EAGER;
        // It may have written something before it ended.
        Ok(differs(self))
    }
}

/// Whether nothing could be read or written in time.
fn is_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl Channel for Shared {
    fn close(&mut self) {
        // One that has ended knows.
        let _ = self.bell.shutdown(Shutdown::Write);
    }

    fn hang_up(&self) -> Result<Box<dyn FnOnce() + Send>> {
        let bell = self.bell.try_clone()?;
        Ok(Box::new(move || {
            // One that has ended is as good.
            let _ = bell.shutdown(Shutdown::Both);
        }))
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.written > 0 && !self.wait(REQUESTS + TAKEN, self.written - 1)? {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let length = bytes.len().min(CAPACITY);
        // SAFETY: a slot has as much room, and what is in it has been taken.
        unsafe { self.memory.as_mut_ptr().add(REQUESTS + PIECE).copy_from_nonoverlapping(bytes.as_ptr(), length) };
        self.word(REQUESTS + LENGTH).store(length as u64, Ordering::Relaxed);
        self.written += 1;
        self.count(REQUESTS + WRITTEN, self.written)?;
        Ok(length)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() || !self.wait(ANSWERS + WRITTEN, self.taken)? {
            return Ok(0);
        }
        let length = self.word(ANSWERS + LENGTH).load(Ordering::Relaxed);
        let length = usize::try_from(length).ok().filter(|length| (self.read + 1..=CAPACITY).contains(length));
        let rest = length.ok_or(ErrorKind::InvalidData)? - self.read;
        let length = rest.min(buffer.len());
        // SAFETY: a slot has as much room, and what is in it stays until it is taken.
        unsafe {
            let piece = self.memory.as_ptr().add(ANSWERS + PIECE + self.read);
            buffer.as_mut_ptr().copy_from_nonoverlapping(piece, length);
        }
        self.read += length;
        if length == rest {
            self.read = 0;
            self.taken += 1;
            self.count(ANSWERS + TAKEN, self.taken)?;
        }
        Ok(length)
    }
}
