//! The workers of a pool, as its client is told of them.

use shoal_sys::procfs;

use super::{Crew, Pool, lock};
use crate::pool::account::Spent;

/// A worker, as told to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its number in the pool.
    pub number: u16,
    /// Its process, once it is there.
    pub pid: Option<u32>,
    /// What it does.
    pub state: WorkerState,
    /// What workers of this number have done, and where their time went.
    pub spent: Spent,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// On its way.
    Starting,
    /// Waiting for a task.
    Idle,
    /// At a task.
    Busy,
    /// Stopped by a signal.
    Stopped,
    /// At a task, and gives no sign of life.
    Silent,
    /// Not there for want of work.
    Resting,
    /// Not there any more.
    Gone,
}

impl Pool {
    /// How many workers it has.
    pub fn size(&self) -> usize {
        self.0.memory.workers()
    }

    /// Whether some worker is on its way.
    pub fn is_starting(&self) -> bool {
        self.0.host.is_mine() && lock(&self.0.core).crew.iter().any(|crew| matches!(crew, Crew::Starting { .. }))
    }

    /// What the workers have done, and where their time went, by their numbers.
    pub fn spent(&self) -> Vec<Spent> {
        (0..self.size() as u16).map(|worker| self.0.memory.record(worker).account.read()).collect()
    }

    /// The workers.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        if !self.0.host.is_mine() {
            return Vec::new();
        }
        let (crew, watched) = {
            let core = lock(&self.0.core);
            (core.crew.clone(), core.watched.clone())
        };
        let info = |(number, crew): (usize, Crew)| {
            let silent = watched[number].silent;
            let number = number as u16;
            let record = self.0.memory.record(number);
            let (pid, state) = match crew {
                Crew::Gone => (None, WorkerState::Gone),
                Crew::Starting { .. } => (None, WorkerState::Starting),
                Crew::Resting { .. } => (None, WorkerState::Resting),
                Crew::Running { pid, .. } if procfs::is_stopped(pid) == Some(true) => (Some(pid), WorkerState::Stopped),
                Crew::Running { pid, .. } if silent => (Some(pid), WorkerState::Silent),
                Crew::Running { pid, .. } if !record.current.is_idle() => (Some(pid), WorkerState::Busy),
                Crew::Running { pid, .. } => (Some(pid), WorkerState::Idle),
            };
            WorkerInfo { number, pid, state, spent: record.account.read() }
        };
        crew.into_iter().enumerate().map(info).collect()
    }
}
