//! The client's own record of its tasks: what a task needs while it is on its way, and what became of it.

#![allow(unsafe_code, reason = "payloads in shared memory")]

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::death::Death;
use super::terms::Terms;
use crate::domain::registry::{Budget, Charge};
use crate::error::{Limit, Result};
use crate::memory::heap::{Heap, Lease, PlainBlock};

/// A function, serialized once and read by each worker once; and the terms it is called on.
#[derive(Debug)]
pub struct Function {
    pub(super) code: Arc<Code>,
    pub(super) terms: Terms,
}

/// Its serialized form.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) id: u32,
    /// For records and messages.
    pub(super) name: Box<str>,
    pub(super) block: PlainBlock,
    pub(super) len: u64,
    /// What it counts for in the pool's limit.
    _charge: Option<Charge>,
    /// What the serialized function refers to by handle stays alive as long as it does.
    _leases: Vec<Lease>,
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
        let code = Code { id, name: name.into(), block, len: bytes.len() as u64, _charge: charge, _leases: leases };
        Ok(Function { code: Arc::new(code), terms: Terms::default() })
    }

    /// The same function, to be called on these terms.
    pub fn on(&self, terms: Terms) -> Arc<Function> {
        Arc::new(Function { code: self.code.clone(), terms })
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

/// Apart, as few tasks have any.
#[cold]
fn bytes_of(leases: &[Lease]) -> u64 {
    leases.iter().map(Lease::len).sum()
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
    /// The worker died at it, and there is no further try.
    Died(Box<Failed>),
    /// It was at it for longer than it may be: so long.
    TimedOut(Duration, Box<Failed>),
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
    /// It was taken back before a worker took it, or stopped because nobody wants it any more.
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
                own + if leases.is_empty() { 0 } else { bytes_of(leases) }
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

    /// Gives back an outcome that was taken and could not be used.
    pub fn put_back(&self, outcome: Outcome) {
        *self.lock() = Some(Box::new(Content::Ended(outcome)));
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
    /// `None` mostly, and then it costs nothing.
    pub(super) more: Option<Box<More>>,
}

/// What not every task has.
#[derive(Debug, Default)]
pub(super) struct More {
    /// What the arguments refer to by handle.
    _leases: Vec<Lease>,
    /// Tries that have ended.
    pub(super) tried: u32,
    /// What its workers died of.
    pub(super) deaths: Vec<Death>,
    pub(super) stop: Option<Stop>,
}

/// Why a task is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its time is over.
    TimedOut,
    /// Its worker has more memory to itself than it may.
    OverMemory {
        /// Bytes that it has.
        used: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// Nobody wants it any more. Whoever waited for it was told.
    Cancelled,
}

/// What a worker may still read of a task.
#[derive(Debug)]
pub(super) struct Remains {
    kind: u16,
    _function: Arc<Function>,
    arguments: Arguments,
    _more: Option<Box<More>>,
}

impl Task {
    /// Bytes of its arguments, and of the blocks that they name.
    pub(super) fn bytes(&self) -> u64 {
        let own = match &self.arguments {
            Arguments::Small(len, _) => u64::from(*len),
            Arguments::Boxed(bytes) => bytes.len() as u64,
            Arguments::Block(_, len) => *len,
        };
        own + self.more.as_ref().map_or(0, |more| bytes_of(&more._leases))
    }

    pub(super) fn new(function: &Arc<Function>, kind: u16, arguments: &[u8], leases: Vec<Lease>, reply: Reply) -> Task {
        let more = (!leases.is_empty()).then(|| Box::new(More { _leases: leases, ..More::default() }));
        let arguments = match &function.terms.rider[..] {
            [] => Arguments::copy_of(arguments),
            rider => Arguments::copy_of(&[arguments, rider].concat()),
        };
        Task { function: function.clone(), kind, arguments, reply, in_ring: false, position: 0, more }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.function.terms
    }

    pub(super) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    pub(super) fn stop(&self) -> Option<Stop> {
        self.more.as_ref()?.stop
    }

    /// Tells whoever waits for it, unless it was told already.
    pub(super) fn tell(self, outcome: Outcome) {
        if self.stop() != Some(Stop::Cancelled) {
            self.reply.send(outcome);
        }
    }

    /// Whom to reply to, if anybody still waits, and how it ended: with these deaths, at least one.
    pub(super) fn failed(mut self) -> (Option<Reply>, Box<Failed>) {
        let (deaths, tries) = (std::mem::take(&mut self.more().deaths), self.more().tried.max(1));
        assert!(!deaths.is_empty(), "somebody died");
        let (reply, remains) = self.cut_off();
        (reply, Box::new(Failed { deaths, tries, remains }))
    }

    /// Whom to reply to, if anybody still waits, and what has to stay.
    pub(super) fn cut_off(self) -> (Option<Reply>, Remains) {
        let waited_for = self.stop() != Some(Stop::Cancelled);
        let Task { function, kind, arguments, reply, more, .. } = self;
        (waited_for.then_some(reply), Remains { kind, _function: function, arguments, _more: more })
    }
}

/// A task whose worker died at it, with the story of all its tries that ended so.
#[derive(Debug)]
pub struct Failed {
    deaths: Vec<Death>,
    tries: u32,
    remains: Remains,
}

impl Failed {
    /// The death that ended it.
    pub fn last(&self) -> &Death {
        self.deaths.last().expect("somebody died")
    }

    /// How often it was tried, whatever that ended in.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The deaths of all that tried it, the last one too.
    pub fn all(&self) -> &[Death] {
        &self.deaths
    }

    /// The caller's tag of the task.
    pub fn kind(&self) -> u16 {
        self.remains.kind
    }

    /// The task's arguments, if they are no more than `most` bytes.
    pub fn arguments(&self, most: usize) -> Option<Cow<'_, [u8]>> {
        let bytes = match &self.remains.arguments {
            Arguments::Small(len, bytes) => Cow::Borrowed(&bytes[..usize::from(*len)]),
            Arguments::Boxed(bytes) => Cow::Borrowed(&**bytes),
            Arguments::Block(_, len) if *len > most as u64 => return None,
            Arguments::Block(block, len) => Cow::Owned(block.0.copy(*len)?),
        };
        Some(bytes).filter(|bytes| bytes.len() <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_waiting_costs_little() {
        assert!(std::mem::size_of::<Task>() <= 64, "{}", std::mem::size_of::<Task>());
        assert!(std::mem::size_of::<TaskCell>() <= 24, "{}", std::mem::size_of::<TaskCell>());
    }
}
