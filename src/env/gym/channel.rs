//! What leads to the process of an environment and back.

use std::io::{ErrorKind, Read, Result, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The input and output of a process, as one stream of bytes each.
pub trait Channel: Read + Write + Send {
    /// Says that nothing more will be written.
    fn close(&mut self);

    /// What another thread can call so that whoever waits here sees the end, even if what has been killed has left somebody behind
    /// who holds the other end. Of pipes there is no such thing.
    fn hang_up(&self) -> Result<Box<dyn FnOnce() + Send>>;
}

/// Starts the process, and gives it the script through its standard input: with memory that both see where there can be some, and else with pipes, which are slower and no different.
///
/// The variable `SAC_CHANNEL` of the environment, which is `pipes`, asks for them.
pub fn spawn(mut command: Command, script: &[u8]) -> Result<(Child, Box<dyn Channel>)> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if std::env::var_os("SAC_CHANNEL").is_none()
        && let Ok((mut memory, input, output)) = super::shared::Shared::new()
    {
        let child = command.stdin(input).stdout(output).spawn()?;
        memory.send_script(script);
        return Ok((child, Box::new(memory)));
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take();
    // One that does not read it has ended, which is seen when its greeting is read.
    let _ = stdin.as_mut().map(|stdin| stdin.write_all(script).and_then(|()| stdin.flush()));
    let stdout = child.stdout.take().expect("it was asked for");
    Ok((child, Box::new(Pipes { stdin, stdout })))
}

struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Channel for Pipes {
    fn close(&mut self) {
        self.stdin = None;
    }

    fn hang_up(&self) -> Result<Box<dyn FnOnce() + Send>> {
        Ok(Box::new(|| {}))
    }
}

impl Write for Pipes {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.stdin.as_mut().ok_or(ErrorKind::BrokenPipe)?.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.stdin.as_mut().ok_or(ErrorKind::BrokenPipe)?.flush()
    }
}

impl Read for Pipes {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.stdout.read(buffer)
    }
}
