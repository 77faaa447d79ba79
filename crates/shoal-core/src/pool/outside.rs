//! A pool looked at from outside: by a process that has nothing to do with it, and that it does not notice.
//!
//! The segment is mapped for reading only. Everything here is one moment's counters, read while others write them: each
//! is right by itself, and they may be of moments that lie some microseconds apart.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use shoal_sys::{clock, memory};

use super::account::Spent;
use super::current::AtTask;
use super::layout::{Phase, PoolMemory};
use crate::error::Result;

/// Another process's pool.
#[derive(Debug)]
pub struct Outside(PoolMemory);

/// A pool at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The client's process, as it is called in its own namespace.
    pub client: u32,
    /// The domain that its memory is in; see [`crate::memory::outside`].
    pub domain: u64,
    /// Whether its workers are to go on.
    pub open: bool,
    /// Tasks that no worker has taken.
    pub queued: u64,
    /// Its workers, by number.
    pub workers: Vec<Seen>,
}

/// A worker at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The last process that has come for this place, as it is called in its own namespace; 0: none has.
    pub pid: u32,
    /// Whether some process of this place has got as far as taking tasks.
    pub ready: bool,
    /// Whether the last one that did has left for want of work.
    pub left: bool,
    /// What it is at.
    pub task: Option<AtTask>,
    /// What it has done, and where its time went.
    pub spent: Spent,
}

impl Outside {
    /// The pool behind a descriptor of its segment, which need not be open for writing.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) if it is no pool's, or that of another version of shoal.
    pub fn open(fd: OwnedFd) -> Result<Outside> {
        Ok(Outside(PoolMemory::open_to_read(fd)?))
    }

    /// Tells its segment from all other files: its device and its number there.
    pub fn file(&self) -> Result<(u64, u64)> {
        Ok(memory::file_of(self.0.fd())?)
    }

    /// What it is at. Takes some microseconds, and nothing of the pool.
    pub fn look(&self) -> Look {
        let control = self.0.control();
        Look {
            client: control.client,
            domain: control.domain,
            open: control.phase.load(Ordering::Acquire) == Phase::Open as u32,
            queued: self.0.tasks().queued().saturating_add(control.backlog.0.load(Ordering::Relaxed)),
            workers: (0..self.0.workers() as u16).map(|worker| self.worker(worker)).collect(),
        }
    }

    fn worker(&self, worker: u16) -> Seen {
        let record = self.0.record(worker);
        let ready = record.ready.load(Ordering::Acquire);
        let task = (!record.current.is_idle()).then(|| AtTask {
            function: self.0.control().names.get(record.function.load(Ordering::Relaxed)),
            nanos: clock::nanos().saturating_sub(record.started.load(Ordering::Relaxed)),
        });
        Seen {
            pid: record.pid.load(Ordering::Acquire),
            ready: ready > 0,
            left: ready > 0 && record.left.load(Ordering::Acquire) == ready,
            task,
            spent: record.account.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use shoal_sys::process;

    use super::*;
    use crate::error::Error;
    use crate::memory::place::Place;
    use crate::pool::body::Body;
    use std::os::fd::AsRawFd;

    /// As another process would open it.
    fn opened_to_read(memory: &PoolMemory) -> OwnedFd {
        let path = PathBuf::from(format!("/proc/self/fd/{}", memory.fd().as_raw_fd()));
        memory::open_of_another(&path).expect("it is there")
    }

    #[test]
    fn what_the_pool_is_at_is_seen_from_outside() {
        let pool = PoolMemory::create(2, 8, 4096, 2, Place::default(), 77).expect("memory");
        let outside = Outside::open(opened_to_read(&pool)).expect("a pool");
        let before = outside.look();
        assert_eq!((before.client, before.domain, before.open, before.queued), (process::pid(), 77, true, 0));
        assert!(before.workers.iter().all(|worker| worker.pid == 0 && !worker.ready && worker.task.is_none()));

        pool.control().names.set(5, "work");
        pool.control().backlog.0.store(10, Ordering::Relaxed);
        (1..4).for_each(|task| assert!(pool.tasks().push(&Body { task, function: 5, ..Body::EMPTY })));
        let taken = pool.tasks().try_take(1, 0).expect("queued");
        let record = pool.record(1);
        record.started.store(clock::nanos(), Ordering::Relaxed);
        record.function.store(taken.body.function, Ordering::Relaxed);
        record.current.begin(taken.body.task);
        record.ready.store(1, Ordering::Relaxed);

        let look = outside.look();
        assert_eq!(look.queued, 12);
        let task = look.workers[1].task.as_ref().expect("it is at one");
        assert_eq!(task.function.as_deref(), Some("work"));
        assert!(task.nanos < 60_000_000_000, "a moment");
        assert!(look.workers[0].task.is_none() && !look.workers[1].left);
        record.left.store(1, Ordering::Relaxed);
        pool.control().phase.store(Phase::Over as u32, Ordering::Relaxed);
        assert!(outside.look().workers[1].left && !outside.look().open);
    }

    #[test]
    fn what_is_no_pool_is_refused() {
        let blank = memory::reserve("blank", 1 << 20).expect("memory");
        assert!(matches!(Outside::open(blank), Err(Error::Damaged(_))));
        let small = memory::reserve("small", 1).expect("memory");
        assert!(matches!(Outside::open(small), Err(Error::Damaged(_))));
        let file = std::fs::File::open("/proc/self/status").expect("it is there");
        assert!(matches!(Outside::open(file.into()), Err(Error::Damaged(_))));
    }
}
