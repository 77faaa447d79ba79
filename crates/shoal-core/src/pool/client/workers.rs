//! The workers of a pool, as its client is told of them.

use std::sync::atomic::Ordering;

use shoal_sys::{clock, procfs};

use super::{Core, Crew, Pool, Shared, lock};
use crate::pool::account::Spent;
use crate::pool::current::AtTask;

/// A worker, as told to users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its number in the pool.
    pub number: u16,
    /// Its process, once it is there.
    pub pid: Option<u32>,
    /// What it does.
    pub state: WorkerState,
    /// What it is at.
    pub task: Option<AtTask>,
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
        let (crew, watched, tasks) = {
            let mut core = lock(&self.0.core);
            let tasks = self.0.tasks_of_workers(&mut core);
            (core.crew.clone(), core.watched.clone(), tasks)
        };
        let info = |((number, crew), task): ((usize, Crew), Option<AtTask>)| {
            let silent = watched[number].silent;
            let number = number as u16;
            let record = self.0.memory.record(number);
            let (pid, state) = match crew {
                Crew::Gone => (None, WorkerState::Gone),
                Crew::Starting { .. } => (None, WorkerState::Starting),
                Crew::Resting { .. } => (None, WorkerState::Resting),
                Crew::Running { pid, .. } if procfs::is_stopped(pid) == Some(true) => (Some(pid), WorkerState::Stopped),
                Crew::Running { pid, .. } if silent => (Some(pid), WorkerState::Silent),
                Crew::Running { pid, .. } if task.is_some() => (Some(pid), WorkerState::Busy),
                Crew::Running { pid, .. } => (Some(pid), WorkerState::Idle),
            };
            // One that has died may not be settled yet.
            let task = task.filter(|_| pid.is_some());
            WorkerInfo { number, pid, state, task, spent: record.account.read() }
        };
        crew.into_iter().enumerate().zip(tasks).map(info).collect()
    }

    /// What each worker is at, by their numbers; without a look at their processes.
    pub fn running(&self) -> Vec<Option<AtTask>> {
        if !self.0.host.is_mine() {
            return Vec::new();
        }
        self.0.tasks_of_workers(&mut lock(&self.0.core))
    }
}

impl Shared {
    /// What each worker is at. Workers write only numbers: what these mean is looked up when somebody asks.
    fn tasks_of_workers(&self, core: &mut Core) -> Vec<Option<AtTask>> {
        let at = |worker| {
            let record = self.memory.record(worker);
            let task = record.current.task()?;
            let nanos = clock::nanos().saturating_sub(record.started.load(Ordering::Relaxed));
            let name = core.tasks.get_mut(task).map(|task| task.function.code.name.to_string());
            Some(AtTask { function: name.filter(|name| !name.is_empty()), nanos })
        };
        (0..self.memory.workers() as u16).map(at).collect()
    }
}
