//! The client's own record of its tasks: what a task needs while it is on its way, and what became of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::registry::{Budget, Charge};
use crate::error::{Limit, Result};
use crate::memory::heap::{Heap, Lease, PlainBlock};

/// A function, serialized once and read by each worker once.
#[derive(Debug)]
pub struct Function {
    pub(super) id: u32,
    /// For records and messages.
    pub(super) name: Box<str>,
    pub(super) block: PlainBlock,
    pub(super) len: u64,
    /// What it counts for in the pool's limit.
    _charge: Option<Charge>,
    /// What the serialized function refers to by handle stays alive as long as it does.
    pub(super) _leases: Vec<Lease>,
}

impl Function {
    pub(super) fn new(
        heap: &Arc<Heap>,
        id: u32,
        name: &str,
        bytes: &[u8],
        leases: Vec<Lease>,
        budget: Option<&Arc<Budget>>,
    ) -> Result<Function> {
        let charge = budget.map(|budget| budget.charge(bytes.len() as u64)).transpose()?;
        let mut block = heap.allocate_plain(bytes.len() as u64)?;
        block.write(bytes);
        Ok(Function { id, name: name.into(), block, len: bytes.len() as u64, _charge: charge, _leases: leases })
    }
}

/// Bytes of a result, kept small where they are small.
#[derive(Debug)]
pub enum Payload {
    /// A few bytes.
    Small(u8, [u8; 22]),
    /// More.
    Boxed(Box<[u8]>),
    /// In a block of the worker's arena, handed over, from that byte on.
    Block(Lease, usize),
}

impl Payload {
    pub(super) fn copy_of(bytes: &[u8]) -> Payload {
        let mut small = [0; 22];
        match small.get_mut(..bytes.len()) {
            Some(part) => {
                part.copy_from_slice(bytes);
                Payload::Small(bytes.len() as u8, small)
            }
            None => Payload::Boxed(bytes.into()),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> Result<&[u8]> {
        match self {
            Payload::Small(len, bytes) => Ok(&bytes[..usize::from(*len)]),
            Payload::Boxed(bytes) => Ok(bytes),
            // SAFETY: the worker wrote the block before it sent it and has no further use for it.
            Payload::Block(lease, from) => unsafe { lease.bytes() }.map(|bytes| &bytes[*from..]),
        }
    }
}

/// How a worker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Its process.
    pub pid: u32,
    /// Its exit code, or the signal's number, negative.
    pub code: i32,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use shoal_sys::process::Exit;
        if self.code < 0 { Exit::Signal(-self.code).fmt(f) } else { Exit::Code(self.code).fmt(f) }
    }
}

/// What became of a task.
#[derive(Debug)]
pub enum Outcome {
    /// It ran to its end; what that was, the caller's own code in the worker has written down.
    Done {
        /// The caller's tag.
        kind: u16,
        /// The caller's count of work done.
        units: u64,
        /// Nanoseconds in the worker.
        nanos: u64,
        /// The caller's bytes.
        payload: Payload,
        /// Leases that the payload refers to by handle.
        leases: Box<[Lease]>,
    },
    /// The worker died at it.
    Died(Death),
    /// There was no memory to send it.
    OutOfSharedMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes available.
        available: u64,
        /// What sets the limit.
        limit: Limit,
    },
    /// What the worker sent can't be read.
    Unreadable(Box<str>),
    /// No worker could be started.
    NoWorkers(Box<str>),
    /// The pool was terminated.
    Terminated,
    /// It was taken back before a worker took it.
    Cancelled,
}

impl Outcome {
    /// Bytes of a result, and of the blocks that it names.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Outcome::Done { payload, leases, .. } => {
                let own = match payload {
                    Payload::Small(len, _) => u64::from(*len),
                    Payload::Boxed(bytes) => bytes.len() as u64,
                    Payload::Block(lease, from) => lease.len() - *from as u64,
                };
                own + leases.iter().map(Lease::len).sum::<u64>()
            }
            _ => 0,
        }
    }
}

/// Where the ends of several tasks are gathered for one reader, each as the caller's tag and what became of it; or, of
/// tasks that are [watched](TaskCell::watch), as the tag alone.
#[derive(Debug)]
pub struct Inbox<T = (u64, Outcome)> {
    ended: Mutex<VecDeque<T>>,
}

impl<T> Inbox<T> {
    /// A new one.
    pub fn new() -> Arc<Inbox<T>> {
        Arc::new(Inbox { ended: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, end: T) {
        self.lock().push_back(end);
    }

    /// The first that has ended.
    pub fn pop(&self) -> Option<T> {
        self.lock().pop_front()
    }

    /// All that have ended.
    pub fn take_all(&self) -> VecDeque<T> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether nothing lies in it.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// Who is told when a task ends.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The task's own cell.
    Cell(Arc<TaskCell>),
    /// An inbox, with the caller's tag.
    Inbox(Arc<Inbox>, u64),
}

impl Reply {
    pub(super) fn send(self, outcome: Outcome) {
        match self {
            Reply::Cell(cell) => cell.fill(outcome),
            Reply::Inbox(inbox, tag) => inbox.push((tag, outcome)),
        }
    }
}

/// The end of one task, waited for by whoever holds it.
#[derive(Debug, Default)]
pub struct TaskCell {
    end: AtomicU8,
    /// Boxed: a million cells wait empty, few are full at a time.
    content: Mutex<Option<Box<Content>>>,
}

const NOT_ENDED: u8 = 0;
const ENDED: u8 = 1;
const CANCELLED: u8 = 2;

#[derive(Debug)]
enum Content {
    /// Who is told of the end.
    Watched(Arc<Inbox<u64>>, u64),
    Ended(Outcome),
}

impl TaskCell {
    fn lock(&self) -> MutexGuard<'_, Option<Box<Content>>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, outcome: Outcome) {
        let mut content = self.lock();
        let end = if matches!(outcome, Outcome::Cancelled) { CANCELLED } else { ENDED };
        let watched = content.replace(Box::new(Content::Ended(outcome)));
        self.end.store(end, Ordering::Release);
        drop(content);
        if let Some(Content::Watched(inbox, tag)) = watched.map(|content| *content) {
            inbox.push(tag);
        }
    }

    /// From now on `inbox` is told of the end, once, with `tag`. `false`: it has ended already, and nobody is told.
    pub fn watch(&self, inbox: &Arc<Inbox<u64>>, tag: u64) -> bool {
        let mut content = self.lock();
        if self.is_done() {
            return false;
        }
        *content = Some(Box::new(Content::Watched(inbox.clone(), tag)));
        true
    }

    /// Whether the task has ended.
    pub fn is_done(&self) -> bool {
        self.end.load(Ordering::Acquire) != NOT_ENDED
    }

    /// Whether it has ended by being taken back.
    pub fn is_cancelled(&self) -> bool {
        self.end.load(Ordering::Acquire) == CANCELLED
    }

    /// The outcome, once.
    pub fn take(&self) -> Option<Outcome> {
        let mut content = self.lock();
        match content.take().map(|content| *content) {
            Some(Content::Ended(outcome)) => Some(outcome),
            other => {
                *content = other.map(Box::new);
                None
            }
        }
    }
}

/// Arguments on their way.
#[derive(Debug)]
pub(super) enum Arguments {
    Small(u8, [u8; 22]),
    Boxed(Box<[u8]>),
    Block(Box<(PlainBlock, Option<Charge>)>, u64),
}

impl Arguments {
    pub(super) fn copy_of(bytes: &[u8]) -> Arguments {
        let mut small = [0; 22];
        match small.get_mut(..bytes.len()) {
            Some(part) => {
                part.copy_from_slice(bytes);
                Arguments::Small(bytes.len() as u8, small)
            }
            None => Arguments::Boxed(bytes.into()),
        }
    }
}

/// A task from its submission to its end.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) function: Arc<Function>,
    pub(super) kind: u16,
    pub(super) arguments: Arguments,
    pub(super) reply: Reply,
    /// Whether it has got a position in the task ring yet, and which: as much of it as tells slots and laps apart.
    pub(super) in_ring: bool,
    pub(super) position: u32,
    /// What the arguments refer to by handle; `None` mostly, and then it costs nothing.
    pub(super) _leases: Option<Box<[Lease]>>,
}

/// What a worker may still read of a task.
#[derive(Debug)]
pub(super) struct Remains {
    _function: Arc<Function>,
    _arguments: Arguments,
    _leases: Option<Box<[Lease]>>,
}

impl Task {
    /// Bytes of its arguments, and of the blocks that they name.
    pub(super) fn bytes(&self) -> u64 {
        let own = match &self.arguments {
            Arguments::Small(len, _) => u64::from(*len),
            Arguments::Boxed(bytes) => bytes.len() as u64,
            Arguments::Block(_, len) => *len,
        };
        own + self._leases.iter().flat_map(|leases| leases.iter()).map(Lease::len).sum::<u64>()
    }

    /// Whom to reply to, and what has to stay.
    pub(super) fn cut_off(self) -> (Reply, Remains) {
        (self.reply, Remains { _function: self.function, _arguments: self.arguments, _leases: self._leases })
    }
}

const CHUNK: usize = 1024;

/// The tasks by number. Memory grows by chunks and never moves; a number says which life of its place it means.
#[derive(Debug, Default)]
pub(super) struct Table {
    chunks: Vec<Box<[Slot]>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    task: Option<Task>,
}

impl Table {
    pub(super) fn insert(&mut self, task: Task) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            let first = (self.chunks.len() * CHUNK) as u32;
            self.chunks.push((0..CHUNK).map(|_| Slot::default()).collect());
            self.free.extend((first + 1..first + CHUNK as u32).rev());
            first
        });
        let slot = &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        slot.task = Some(task);
        self.len += 1;
        u64::from(slot.generation) << 32 | u64::from(index)
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        let index = number as u32 as usize;
        let slot = self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)?;
        (slot.generation == (number >> 32) as u32).then_some(slot)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Task> {
        self.slot(number)?.task.as_mut()
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Task> {
        let slot = self.slot(number)?;
        let task = slot.task.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(number as u32);
        self.len -= 1;
        Some(task)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn drain(&mut self) -> Vec<Task> {
        let numbers: Vec<u64> = self
            .chunks
            .iter()
            .flatten()
            .enumerate()
            .filter(|(_, slot)| slot.task.is_some())
            .map(|(index, slot)| u64::from(slot.generation) << 32 | index as u64)
            .collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_waiting_costs_little() {
        assert!(std::mem::size_of::<Slot>() <= 80, "{}", std::mem::size_of::<Slot>());
        assert!(std::mem::size_of::<TaskCell>() <= 24, "{}", std::mem::size_of::<TaskCell>());
    }
}
