//! What leads to the process of an environment and back: two pairs of sockets, or pipes where there are none.

use std::io::{Read, Result, Write};
use std::process::{Child, Command};

#[cfg(unix)]
pub use sockets::Channel;

#[cfg(not(unix))]
pub use pipes::Channel;

#[cfg(unix)]
mod sockets {
    use super::{Child, Command, Read, Result, Write};
    use std::io::ErrorKind;
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::{Duration, Instant};

    /// For how long an answer is looked for before this thread sleeps; `EAGER` of `gym.py`.
    const EAGER: Duration = Duration::from_micros(200);

    /// How often the processor is told that this is waiting, between two looks; and after how many looks the core is offered to
    /// others, since where there are fewer cores than there is work the environment may want it.
    const PAUSES: usize = 40;
    const LOOKS: usize = 16;

    /// The input and output of a process. They are two pairs, because one that is closed before all of it has been read tells
    /// the other end of a reset instead of an end.
    pub struct Channel {
        requests: UnixStream,
        answers: UnixStream,
        /// Whether reading returns where it would have to wait.
        returns: bool,
        /// When the last request was written, until the first bytes of its answer have come.
        asked: Option<Instant>,
        /// Whether the last answer came within [`EAGER`].
        is_eager: bool,
    }

    impl Channel {
        /// Starts the process.
        pub fn spawn(mut command: Command) -> Result<(Child, Self)> {
            let (requests, input) = UnixStream::pair()?;
            let (answers, output) = UnixStream::pair()?;
            let child = command.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(output)).spawn()?;
            Ok((child, Self { requests, answers, returns: false, asked: None, is_eager: false }))
        }

        /// Says that there will be no more requests.
        pub fn close(&mut self) {
            // One that has ended knows.
            let _ = self.requests.shutdown(Shutdown::Write);
        }

        /// Reads what is there; none if nothing is.
        fn read_now(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
            self.set_returns(true)?;
            match self.answers.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                read => read.map(Some),
            }
        }

        /// Sleeps until there is something to read.
        fn read_sleeping(&mut self, buffer: &mut [u8]) -> Result<usize> {
            self.set_returns(false)?;
            self.answers.read(buffer)
        }

        fn set_returns(&mut self, returns: bool) -> Result<()> {
            if self.returns != returns {
                self.answers.set_nonblocking(returns)?;
                self.returns = returns;
            }
            Ok(())
        }

        /// What comes within [`EAGER`] of the request.
        fn read_soon(&mut self, asked: Instant, buffer: &mut [u8]) -> Result<Option<usize>> {
            while asked.elapsed() <= EAGER {
                for _ in 0..LOOKS {
                    if let Some(count) = self.read_now(buffer)? {
                        return Ok(Some(count));
                    }
                    (0..PAUSES).for_each(|_| std::hint::spin_loop());
                }
                thread::yield_now();
            }
            Ok(None)
        }
    }

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            let written = self.requests.write(bytes)?;
            self.asked = Some(Instant::now());
            Ok(written)
        }

        fn flush(&mut self) -> Result<()> {
            self.requests.flush()
        }
    }

    impl Read for Channel {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let Some(asked) = self.asked.take() else { return self.read_sleeping(buffer) };
            let soon = if self.is_eager { self.read_soon(asked, buffer)? } else { None };
            let count = soon.map_or_else(|| self.read_sleeping(buffer), Ok)?;
            self.is_eager = asked.elapsed() <= EAGER;
            Ok(count)
        }
    }
}

#[cfg(not(unix))]
mod pipes {
    use super::{Child, Command, Read, Result, Write};
    use std::io::ErrorKind;
    use std::process::{ChildStdin, ChildStdout, Stdio};

    /// The input and output of a process.
    pub struct Channel {
        stdin: Option<ChildStdin>,
        stdout: ChildStdout,
    }

    impl Channel {
        /// Starts the process.
        pub fn spawn(mut command: Command) -> Result<(Child, Self)> {
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("it was asked for"));
            Ok((child, Self { stdin, stdout }))
        }

        /// Says that there will be no more requests.
        pub fn close(&mut self) {
            self.stdin = None;
        }
    }

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.stdin.as_mut().ok_or(ErrorKind::BrokenPipe)?.write(bytes)
        }

        fn flush(&mut self) -> Result<()> {
            self.stdin.as_mut().ok_or(ErrorKind::BrokenPipe)?.flush()
        }
    }

    impl Read for Channel {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            self.stdout.read(buffer)
        }
    }
}
