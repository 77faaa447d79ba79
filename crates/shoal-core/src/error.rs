//! Everything that can go wrong in the engine, in one enum.

use std::io;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine (or the memory limit of the container) has not enough memory for a segment.
    #[error("out of shared memory: {wanted} bytes wanted, {available} available{limit}")]
    OutOfSharedMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes that could have been had.
        available: u64,
        /// What sets the limit.
        limit: Limit,
    },
    /// The pool was closed or terminated.
    #[error("Pool not running")]
    PoolClosed,
    /// Workers cannot be started, or end before they are ready.
    #[error("workers cannot be started: {0}")]
    CannotStart(String),
    /// A handle names something whose last holder has gone.
    #[error("the shared memory behind this handle is gone: its last holder has let go of it")]
    Gone,
    /// The process that has the shared memory does not let this one in.
    #[error(
        "the process that has the shared memory behind this handle refuses this one: it lets in processes of its own user"
    )]
    Refused,
    /// A handle, message or segment is not what it claims to be.
    #[error("damaged {0}")]
    Damaged(&'static str),
    /// This process was forked from the client: the pool belongs to the parent.
    #[error("this pool belongs to the parent process: after fork() a child needs a pool of its own")]
    Forked,
    /// This process was forked from the one that has the queue.
    #[error("this queue is the parent process's: there was no number left for this fork of it, see TooManyHolders")]
    Inherited,
    /// A pool of no workers, or of too many.
    #[error("a pool has 1 to {most} workers, not {asked}")]
    Workers {
        /// Workers asked for.
        asked: usize,
        /// The most there can be.
        most: usize,
    },
    /// More processes than one client's memory can be shared by.
    #[error("at most {0} processes can share one client's memory")]
    TooManyHolders(usize),
    /// The operating system said no, to the process that makes shared memory for this one.
    #[error("the process that makes shared memory for this one could not: {0}")]
    Host(io::Error),
    /// The operating system said no.
    #[error(transparent)]
    Os(#[from] io::Error),
}

impl Error {
    /// Whether the process at the other end of a socket has closed it, or ended.
    pub(crate) fn is_end_of_peer(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(self, Error::Os(error) if matches!(error.kind(), BrokenPipe | ConnectionReset))
    }
}

/// What limits shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The memory of the machine or its container.
    Machine,
    /// The limit of so many bytes for a pool's tasks.
    Pool(u64),
    /// The limit of so many bytes for the process and all that shares memory with it.
    Process(u64),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limit::Machine => Ok(()),
            Limit::Pool(bytes) => write!(f, " within the pool's memory_limit of {bytes} bytes"),
            Limit::Process(bytes) => write!(f, " within the process's shoal.memory_limit of {bytes} bytes"),
        }
    }
}

impl From<shoal_sys::memory::ReserveError> for Error {
    fn from(error: shoal_sys::memory::ReserveError) -> Self {
        match error {
            shoal_sys::memory::ReserveError::OutOfMemory { wanted, available } => {
                Error::OutOfSharedMemory { wanted: wanted as u64, available: available as u64, limit: Limit::Machine }
            }
            shoal_sys::memory::ReserveError::Os(error) => Error::Os(error),
        }
    }
}

/// A result of the engine.
pub type Result<T> = std::result::Result<T, Error>;
