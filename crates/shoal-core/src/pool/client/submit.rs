//! From a task to the task ring, or to the backlog while the ring is full; and back, if nobody wants it any more.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use shoal_sys::clock;

use super::{Core, Pool, Shared, State, lock};
use crate::crash;
use crate::error::{Error, Result};
use crate::memory::heap::Lease;
use crate::pool::body::{Body, INLINE};
use crate::pool::tasks::{Arguments, Function, Outcome, Reply, Task};

/// Tasks a worker that lie in the ring at most, where some are more urgent than others.
const SHALLOW: usize = 4;

impl Pool {
    /// Submits a task: `function`, on its terms, on `arguments`, which may name shared things, whose `leases` are kept until the
    /// task has ended. `kind` is the caller's own tag. Returns the task's number, by which it can be cancelled.
    pub fn submit(
        &self,
        function: &Arc<Function>,
        kind: u16,
        arguments: &[u8],
        leases: Vec<Lease>,
        reply: Reply,
    ) -> Result<u64> {
        let number = self.submit_quietly(function, kind, arguments, leases, reply)?;
        self.publish();
        Ok(number)
    }

    /// As [`submit`](Self::submit), but no worker is woken until [`publish`](Self::publish): for several at once.
    pub fn submit_quietly(
        &self,
        function: &Arc<Function>,
        kind: u16,
        arguments: &[u8],
        leases: Vec<Lease>,
        reply: Reply,
    ) -> Result<u64> {
        self.check()?;
        let task = Task::new(function, kind, arguments, leases, reply);
        // A single call has no business in a pool that closes.
        let late = matches!(task.reply, Reply::Inbox(..));
        let mut core = lock(&self.0.core);
        match &core.state {
            State::Open => {}
            // A map that was begun before goes on, as all of it counts as submitted.
            State::Closed if late && self.0.feeders.load(Ordering::Relaxed) > 0 => {}
            State::Broken(why) => return Err(Error::CannotStart(why.to_string())),
            State::Closed | State::Terminated => return Err(Error::PoolClosed),
        }
        Ok(self.0.enter(&mut core, task))
    }

    /// Wakes a worker for what was submitted quietly, if none is awake.
    pub fn publish(&self) {
        self.0.quiet_since.store(0, Ordering::Relaxed);
        self.0.announce();
    }

    /// Takes a task back, unless a worker has taken it or it has ended: then `false`. Its outcome is
    /// [`Outcome::Cancelled`].
    pub fn cancel(&self, number: u64) -> bool {
        if !self.0.host.is_mine() {
            return false;
        }
        let task = self.0.take_back(&mut lock(&self.0.core), number);
        let cancelled = task.is_some();
        self.0.cancelled(task);
        cancelled
    }

    /// Takes back all tasks that no worker has taken yet.
    pub fn cancel_queued(&self) {
        if self.0.host.is_mine() {
            let tasks = self.0.take_all_back(&mut lock(&self.0.core));
            self.0.cancelled(tasks);
        }
    }

    /// Whether no worker has taken the task yet.
    pub fn is_queued(&self, number: u64) -> bool {
        self.0.host.is_mine() && self.0.is_queued(&mut lock(&self.0.core), number)
    }

    /// Tasks the ring can take at once.
    pub fn room(&self) -> usize {
        let waiting = self.0.memory.tasks().queued() as usize + self.0.backlogged.load(Ordering::Relaxed);
        self.0.memory.slots().saturating_sub(waiting)
    }

    /// Tasks that have not ended.
    pub fn outstanding(&self) -> usize {
        if !self.0.host.is_mine() {
            return 0;
        }
        lock(&self.0.core).tasks.len()
    }

    /// Tasks that no worker has taken yet, about.
    pub fn queued(&self) -> usize {
        if !self.0.host.is_mine() {
            return 0;
        }
        self.0.memory.tasks().queued() as usize + self.0.backlogged.load(Ordering::Relaxed)
    }

    /// Counts a job that has more to send: `close` leaves the workers until it has sent everything, and who feeds it is woken
    /// when no more than `low` tasks are queued. Fails in a pool that has closed, unless another job holds it: its workers
    /// have been told to end.
    pub fn feed(&self, low: usize) -> Result<()> {
        if !self.0.host.is_mine() {
            return Ok(());
        }
        let core = lock(&self.0.core);
        if core.state == State::Closed && self.0.feeders.load(Ordering::Relaxed) == 0 {
            return Err(Error::PoolClosed);
        }
        self.0.feeders.fetch_add(1, Ordering::Relaxed);
        self.0.feed_at.fetch_max(low, Ordering::Relaxed);
        self.0.set_low_water(&core);
        Ok(())
    }

    /// Has whoever feeds a job, as one does, woken when no more than `low` tasks are queued.
    pub fn ring_at(&self, low: usize) {
        if self.0.feed_at.load(Ordering::Relaxed) >= low || !self.0.host.is_mine() {
            return;
        }
        let core = lock(&self.0.core);
        self.0.feed_at.fetch_max(low, Ordering::Relaxed);
        self.0.set_low_water(&core);
    }

    /// A job has sent everything: undoes one [`feed`](Self::feed).
    pub fn fed(&self) {
        if !self.0.host.is_mine() {
            return;
        }
        let core = lock(&self.0.core);
        if self.0.feeders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.feed_at.store(0, Ordering::Relaxed);
        }
        self.0.set_low_water(&core);
        self.0.end_if_done(&core);
    }
}

/// What came of putting a task into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pushed {
    /// It is there, or has ended before.
    Done,
    NoRoom,
    /// Its arguments could not be placed: it has ended.
    Failed,
}

impl Shared {
    fn enter(&self, core: &mut Core, task: Task) -> u64 {
        let period = self.period_of(&task);
        let number = core.tasks.insert(task);
        crash::point("client: numbered");
        if let Some(recorder) = &mut core.recorder {
            // One look at the clock for all that are sent together: until workers are told.
            let mut now = self.quiet_since.load(Ordering::Relaxed);
            if now == 0 {
                now = clock::nanos();
                self.quiet_since.store(now, Ordering::Relaxed);
            }
            recorder.submitted(number, now);
        }
        self.queue(core, number);
        crash::point("client: queued");
        if let Some(period) = period {
            self.look_every(core, period);
        }
        number
    }

    /// Queues a further try of a task.
    pub(super) fn queue_again(&self, core: &mut Core, number: u64) {
        if let Some(recorder) = &mut core.recorder {
            recorder.submitted(number, clock::nanos());
        }
        self.queue(core, number);
    }

    /// Puts a task into the ring, or into the backlog behind those that are no less urgent.
    fn queue(&self, core: &mut Core, number: u64) {
        let Some(priority) = core.tasks.get_mut(number).map(|task| task.terms().priority) else { return };
        if priority > core.floor && self.memory.tasks().queued() > 0 {
            self.withdraw(core);
            core.backlog.push_back(priority, number);
            self.move_backlog(core);
            // Also if there was no room: a worker may not have released its slot yet.
            return self.set_low_water(core);
        }
        let next = core.backlog.front().is_none_or(|(waiting, _)| priority > waiting);
        if !next || self.push(core, number) == Pushed::NoRoom {
            core.backlog.push_back(priority, number);
            if core.backlog.len() == 1 {
                self.set_low_water(core);
            } else {
                self.tell_backlog(core);
            }
        }
    }

    /// Takes everything back from the ring, as something more urgent has come. What is in the ring goes in the order it
    /// was put in, so from now on, until nothing waits, only a little is put in at a time.
    fn withdraw(&self, core: &mut Core) {
        let mut numbers = vec![];
        self.memory.tasks().retract_all(|number| numbers.push(number));
        for number in numbers.into_iter().rev() {
            if let Some(task) = core.tasks.get_mut(number) {
                task.in_ring = false;
                core.backlog.push_front(task.terms().priority, number);
            }
        }
        core.mixed = true;
    }

    /// How many tasks may lie in the ring.
    fn depth(&self, core: &Core) -> usize {
        if core.mixed { (SHALLOW * self.memory.workers()).min(self.memory.slots()) } else { self.memory.slots() }
    }

    /// Puts a task into the ring, unless it is full.
    fn push(&self, core: &mut Core, number: u64) -> Pushed {
        let ring = self.memory.tasks();
        if !ring.has_room() || (core.mixed && ring.queued() >= self.depth(core) as u64) {
            return Pushed::NoRoom;
        }
        let Some(task) = core.tasks.get_mut(number) else { return Pushed::Done };
        let priority = task.terms().priority;
        if priority != core.floor {
            core.floor = if ring.queued() == 0 { priority } else { core.floor.min(priority) };
        }
        task.in_ring = true;
        task.position = ring.next_position() as u32;
        match self.body(number, task) {
            Ok(body) => {
                let pushed = ring.push(&body);
                core.pushed += u64::from(pushed);
                if pushed { Pushed::Done } else { Pushed::NoRoom }
            }
            Err(error) => {
                let outcome = match error {
                    Error::OutOfSharedMemory { wanted, available, limit } => {
                        Outcome::OutOfSharedMemory { wanted, available, limit }
                    }
                    error => Outcome::Unreadable(error.to_string().into()),
                };
                if let Some(task) = core.tasks.remove(number) {
                    task.tell(outcome);
                }
                Pushed::Failed
            }
        }
    }

    pub(super) fn body(&self, number: u64, task: &mut Task) -> Result<Body> {
        let function = &task.function.code;
        let mut body = Body {
            task: number,
            function: function.id,
            kind: task.kind,
            function_at: function.block.place(function.len),
            ..Body::EMPTY
        };
        let bytes: &[u8] = match &task.arguments {
            Arguments::Small(len, bytes) => &bytes[..usize::from(*len)],
            Arguments::Boxed(bytes) => bytes,
            Arguments::Block(block, len) => {
                body.payload_at = block.0.place(*len);
                return Ok(body);
            }
        };
        if bytes.len() <= INLINE {
            body.inline[..bytes.len()].copy_from_slice(bytes);
            body.inline_len = bytes.len() as u16;
        } else {
            let charge = self.budget.as_ref().map(|budget| budget.charge(bytes.len() as u64)).transpose()?;
            let mut block = self.host.heap().allocate_plain(bytes.len() as u64)?;
            block.write(bytes);
            body.payload_at = block.place(bytes.len() as u64);
            task.arguments = Arguments::Block(Box::new((block, charge)), bytes.len() as u64);
        }
        Ok(body)
    }

    /// Whether no worker has taken the task yet.
    pub(super) fn is_queued(&self, core: &mut Core, number: u64) -> bool {
        let Some(number) = core.tasks.now(number) else { return false };
        let ring = self.memory.tasks();
        core.tasks.get_mut(number).is_some_and(|task| !task.in_ring || ring.holds(task.position.into(), number))
    }

    /// Takes a task back that no worker has taken yet. Its number stays in the backlog, where it means nothing any more.
    pub(super) fn take_back(&self, core: &mut Core, number: u64) -> Option<Task> {
        let number = core.tasks.now(number)?;
        let (ring, task) = (self.memory.tasks(), core.tasks.get_mut(number)?);
        let position = task.position.into();
        if task.in_ring && !(ring.holds(position, number) && ring.retract(position)) {
            return None;
        }
        core.tasks.remove(number)
    }

    /// Takes all tasks back that no worker has taken yet.
    pub(super) fn take_all_back(&self, core: &mut Core) -> Vec<Task> {
        let mut numbers = vec![];
        self.memory.tasks().retract_all(|number| numbers.push(number));
        numbers.extend(core.backlog.drain());
        numbers.extend(core.later.drain().map(|Reverse((_, number))| number));
        self.set_low_water(core);
        numbers.into_iter().filter_map(|number| core.tasks.remove(number)).collect()
    }

    pub(super) fn move_backlog(&self, core: &mut Core) {
        let mut moved = false;
        while let Some((_, number)) = core.backlog.front() {
            let pushed = self.push(core, number);
            if pushed == Pushed::NoRoom {
                break;
            }
            core.backlog.pop_front();
            moved = true;
            if pushed == Pushed::Failed {
                // To find no memory takes its time, and others want the lock. Whoever hears this goes on.
                self.memory.control().bell.ring_all();
                break;
            }
        }
        core.mixed &= !core.backlog.is_empty();
        if moved {
            self.set_low_water(core);
            self.memory.control().gate.published(|worker| self.memory.park(worker));
        }
    }

    fn tell_backlog(&self, core: &Core) {
        self.backlogged.store(core.backlog.len(), Ordering::Relaxed);
        self.memory.control().backlog.0.store(core.backlog.len() as u64, Ordering::Relaxed);
    }

    /// When a worker that takes a task rings: early enough to refill the ring before it is empty.
    pub(super) fn set_low_water(&self, core: &Core) {
        self.tell_backlog(core);
        let half = self.depth(core) / 2;
        let fed = if core.backlog.is_empty() { self.feed_at.load(Ordering::Relaxed).min(half) } else { half };
        // A pool that closes ends by itself when it has run out of tasks: its collector has to know.
        let low = if core.state == State::Open { fed } else { fed.max(1) };
        let more = !core.backlog.is_empty() || self.feeders.load(Ordering::Relaxed) > 0;
        self.memory.control().more.store(u32::from(more), Ordering::Relaxed);
        self.memory.control().low_water.store(low as u64, Ordering::Relaxed);
    }
}
