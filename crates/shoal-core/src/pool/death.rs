//! How a worker died, as far as anybody can tell.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shoal_sys::process::Exit;

/// The death of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Its process.
    pub pid: u32,
    /// Its exit code, or the signal's number, negative.
    pub code: i32,
    /// What is known of the reason.
    pub cause: Cause,
    /// How long it had lived.
    pub uptime: Duration,
    /// The last that it wrote to its standard error.
    pub words: Arc<str>,
    /// What it wrote there when it was told to end and to say where it is: the stack, if its process does that.
    pub answer: Arc<str>,
}

/// Why a worker died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// It ended by itself, or nobody knows who killed it.
    #[default]
    Unknown,
    /// The kernel killed it for want of memory.
    OutOfMemory,
    /// It was stopped, as its task took longer than that.
    TimedOut(Duration),
    /// It had more memory to itself than its pool allows.
    MemoryLimit {
        /// Bytes that it had.
        used: u64,
        /// Bytes that it may have.
        limit: u64,
    },
}

impl Death {
    /// Of a process that ended with this code and left nothing else to tell.
    pub fn of(pid: u32, code: i32) -> Death {
        Death { pid, code, cause: Cause::Unknown, uptime: Duration::ZERO, words: Arc::from(""), answer: Arc::from("") }
    }
}

impl fmt::Display for Death {
    /// `exit code 3`, `signal 9 (SIGKILL)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code < 0 { Exit::Signal(-self.code).fmt(f) } else { Exit::Code(self.code).fmt(f) }
    }
}
