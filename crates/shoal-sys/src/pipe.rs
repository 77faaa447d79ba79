//! Pipes: what a process writes to its standard streams, read by another.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};

/// A pipe's two ends: one to read from without waiting, one to write to.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // The flag belongs to one end: who writes waits for room, as programs expect.
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((read, write))
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing lies there now.
    Nothing,
    /// Nobody is left to write.
    End,
}

/// Reads what lies in a pipe made here, without waiting.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Read> {
    loop {
        match rustix::io::read(&fd, &mut *buffer) {
            Ok(0) => return Ok(Read::End),
            Ok(count) => return Ok(Read::Bytes(count)),
            Err(Errno::AGAIN) => return Ok(Read::Nothing),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens those of the three standard streams that are closed on `/dev/null`, for good and for children too.
///
/// Else the next descriptor that is made gets such a number, and who prints writes into it: into shared memory, say.
pub fn hold_standard_streams() -> io::Result<()> {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if rustix::io::fcntl_getfd(stream) == Err(Errno::BADF) {
            // It gets the lowest number that is free, which is this one.
            let _ = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty())?.into_raw_fd();
        }
    }
    Ok(())
}

/// Makes `fd` the standard output of this process and of those that it starts.
pub fn become_stdout(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdout(fd)?)
}

/// Makes `fd` the standard error of this process and of those that it starts.
pub fn become_stderr(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stderr(fd)?)
}

/// Writes all of `bytes` to the standard output, waiting for as long as it takes.
///
/// Past the lock that the standard library has on it: another thread may hold that for ever.
pub fn write_to_stdout(bytes: &[u8]) -> io::Result<()> {
    write_all(rustix::stdio::stdout(), bytes)
}

/// Writes all of `bytes` to the standard error, as [`write_to_stdout`].
pub fn write_to_stderr(bytes: &[u8]) -> io::Result<()> {
    write_all(rustix::stdio::stderr(), bytes)
}

fn write_all(stream: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // Somebody has made it one that does not wait: wait here.
                let mut room = [rustix::event::PollFd::from_borrowed_fd(stream, rustix::event::PollFlags::OUT)];
                match rustix::event::poll(&mut room, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::{alone, in_child};
    use std::os::fd::AsRawFd;

    #[test]
    fn what_is_written_is_read_and_then_nothing_and_then_the_end() {
        let _alone = alone();
        let (ours, theirs) = pipe().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(read(&ours, &mut buffer).unwrap(), Read::Nothing);
        rustix::io::write(&theirs, b"words").unwrap();
        assert_eq!(read(&ours, &mut buffer).unwrap(), Read::Bytes(5));
        assert_eq!(&buffer[..5], b"words");
        drop(theirs);
        assert_eq!(read(&ours, &mut buffer).unwrap(), Read::End);
    }

    #[test]
    fn closed_standard_streams_do_not_become_something_else() {
        in_child(|| {
            // SAFETY: the child uses neither after this, but for what is asked here.
            unsafe { libc::close(0) };
            // SAFETY: as above.
            unsafe { libc::close(2) };
            hold_standard_streams().unwrap();
            let (ours, theirs) = pipe().unwrap();
            write_to_stderr(b"nobody hears it").unwrap();
            let mut buffer = [0; 8];
            ours.as_raw_fd() > 2 && theirs.as_raw_fd() > 2 && read(&ours, &mut buffer).unwrap() == Read::Nothing
        })
        .assert_ok();
    }

    #[test]
    fn a_process_prints_where_it_was_told_to() {
        let (ours, theirs) = pipe().unwrap();
        in_child(|| {
            become_stdout(&theirs).unwrap();
            write_to_stdout(b"a result\n").is_ok()
        })
        .assert_ok();
        let mut buffer = [0; 32];
        assert_eq!(read(&ours, &mut buffer).unwrap(), Read::Bytes(9));
        assert_eq!(&buffer[..9], b"a result\n");
    }

    #[test]
    fn a_process_writes_its_errors_where_it_was_told_to() {
        let (ours, theirs) = pipe().unwrap();
        in_child(|| {
            become_stderr(&theirs).unwrap();
            write_to_stderr(b"last words\n").is_ok()
        })
        .assert_ok();
        let mut buffer = [0; 32];
        assert_eq!(read(&ours, &mut buffer).unwrap(), Read::Bytes(11));
        assert_eq!(&buffer[..11], b"last words\n");
    }
}
