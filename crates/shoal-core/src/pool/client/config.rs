//! How a pool is to be.

use std::time::Duration;

use crate::domain::host::{Launch, Output};
use crate::domain::voice::Speakers;

/// How a pool is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many workers.
    pub workers: usize,
    /// How to start the zygote, if it is not up yet.
    pub launch: Launch,
    /// What the zygote should get ready before it forks.
    pub preload: Vec<Vec<u8>>,
    /// What every worker of the pool reads before it starts.
    pub setup: Vec<u8>,
    /// The most shared memory that its workers' segments, and the arguments and functions on their way to them, may
    /// take together, in bytes. `None`: as much as there is.
    pub memory_limit: Option<u64>,
    /// What each worker may take.
    pub limits: Limits,
    /// What becomes of what they print.
    pub output: Output,
    /// Who passes on what they say; `None`: whoever does it for all pools of this process.
    pub speakers: Option<Speakers>,
}

/// What a worker may take. The default: as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory that it may have to itself; with more it is ended, and the task that it is at.
    pub private_memory: Option<u64>,
    /// How long it may be idle; then it ends, and comes back when there is work.
    pub idle: Option<Duration>,
    /// How long it may be at a task until it is asked for a sign of life, by SIGURG: its process has to call what
    /// [`Worker::answerer`](crate::pool::worker::Worker::answerer) gave it.
    pub answer: Option<Duration>,
}
