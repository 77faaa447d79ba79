//! From a task to the task ring, or to the backlog while the ring is full; and back, if nobody wants it any more.

use shoal_sys::clock;

use super::{Core, Shared, State};
use crate::error::{Error, Result};
use crate::pool::task_ring::{Body, INLINE};
use crate::pool::tasks::{Arguments, Outcome, Task};
use std::sync::atomic::Ordering;

impl Shared {
    pub(super) fn enter(&self, core: &mut Core, task: Task) -> u64 {
        let number = core.tasks.insert(task);
        if let (Some(recorder), Some(task)) = (&mut core.recorder, core.tasks.get_mut(number)) {
            // One look at the clock for all that are sent together.
            let now = match self.quiet_since.load(Ordering::Relaxed) {
                0 => clock::nanos(),
                since => since,
            };
            self.quiet_since.store(now, Ordering::Relaxed);
            recorder.submitted(number, task, now);
        }
        if !core.backlog.is_empty() || !self.push(core, number) {
            core.backlog.push_back(number);
            if core.backlog.len() == 1 {
                self.set_low_water(core);
            }
        }
        number
    }

    /// Puts a task into the ring, unless it is full.
    pub(super) fn push(&self, core: &mut Core, number: u64) -> bool {
        let ring = self.memory.tasks();
        if !ring.has_room() {
            return false;
        }
        let Some(task) = core.tasks.get_mut(number) else { return true };
        task.in_ring = true;
        task.position = ring.next_position() as u32;
        match self.body(number, task) {
            Ok(body) => ring.push(&body),
            Err(error) => {
                let outcome = match error {
                    Error::OutOfSharedMemory { wanted, available, limit } => {
                        Outcome::OutOfSharedMemory { wanted, available, limit }
                    }
                    error => Outcome::Unreadable(error.to_string().into()),
                };
                if let Some(task) = core.tasks.remove(number) {
                    task.reply.send(outcome);
                }
                true
            }
        }
    }

    pub(super) fn body(&self, number: u64, task: &mut Task) -> Result<Body> {
        let function = &task.function;
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
        let ring = self.memory.tasks();
        core.tasks.get_mut(number).is_some_and(|task| !task.in_ring || ring.holds(task.position.into(), number))
    }

    /// Takes a task back that no worker has taken yet. Its number stays in the backlog, where it means nothing any more.
    pub(super) fn take_back(&self, core: &mut Core, number: u64) -> Option<Task> {
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
        numbers.extend(core.backlog.drain(..));
        self.set_low_water(core);
        numbers.into_iter().filter_map(|number| core.tasks.remove(number)).collect()
    }

    pub(super) fn move_backlog(&self, core: &mut Core) {
        let mut moved = false;
        while let Some(&number) = core.backlog.front() {
            if !self.push(core, number) {
                break;
            }
            core.backlog.pop_front();
            moved = true;
        }
        if moved {
            self.set_low_water(core);
            self.memory.control().gate.published(|worker| self.memory.park(worker));
        }
    }

    /// When a worker that takes a task rings: early enough to refill the ring before it is empty.
    pub(super) fn set_low_water(&self, core: &Core) {
        self.backlogged.store(!core.backlog.is_empty(), Ordering::Relaxed);
        let half = self.memory.slots() / 2;
        let fed = if core.backlog.is_empty() { self.feed_at.load(Ordering::Relaxed).min(half) } else { half };
        // A pool that closes ends by itself when it has run out of tasks: its collector has to know.
        let low = if core.state == State::Open { fed } else { fed.max(1) };
        let more = !core.backlog.is_empty() || self.feeders.load(Ordering::Relaxed) > 0;
        self.memory.control().more.store(u32::from(more), Ordering::Relaxed);
        self.memory.control().low_water.store(low as u64, Ordering::Relaxed);
    }
}
