//! What a queue is in shared memory: a few words, two sides, and how a side takes a step that a death can't halve.
//!
//! Both sides work alike. One process at a time has the side's lock. All it changes it writes into the slot that does not
//! count, and then adds one to `steps`, whose parity says which slot counts: a single store that takes the step with all that
//! belongs to it. A death before it leaves all as it was, a death after it leaves the step done; what is still to be
//! tidied up stands in the slot, and is done again by whoever passes the lock on (see `recover`).
//!
//! `steps` is also what the queue counts by: as many items were put as the putting side took steps, and as many taken as
//! the other did.

use crate::pool::task_ring::Apart;
use crate::sync::atomics::{AtomicU32, AtomicU64, Ordering};
use crate::sync::futex::Futex;
use crate::sync::sleepers::Sleepers;

/// A queue. All zero when new.
#[repr(C)]
#[derive(Debug, Default)]
pub struct State {
    pub(super) common: Apart<Common>,
    /// Who puts.
    pub(super) put: Side,
    /// Who gets.
    pub(super) get: Side,
}

/// What both sides read and hardly anybody writes.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Common {
    /// How many items it holds at most; 0: as many as there is memory for.
    pub(super) capacity: AtomicU64,
    /// Items that were taken and are done with.
    pub(super) done: AtomicU64,
    /// The first chunk; it counts when something was put.
    pub(super) first: Name,
    /// 1: nothing is put any more.
    pub(super) shut: AtomicU32,
    /// Who waits for an item.
    pub(super) getters: Sleepers,
    /// Who waits for room.
    pub(super) putters: Sleepers,
    /// Who waits for all items to be done.
    pub(super) joiners: Sleepers,
}

/// One side of the queue.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Side {
    own: Apart<Own>,
    /// Items that have passed. Its parity tells which slot counts.
    steps: Apart<AtomicU64>,
}

#[repr(C)]
#[derive(Debug, Default)]
struct Own {
    lock: Futex,
    slots: [Slot; 2],
}

/// Where a side is.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Slot {
    /// The step that it belongs to.
    step: AtomicU64,
    /// The chunk it works in.
    pub(super) chunk: Name,
    /// Where in that: bytes ever written, or read.
    pub(super) position: AtomicU64,
    /// The envelope of the item of that step, if it has one.
    pub(super) envelope: Name,
    /// The chunk before, if that was left with this step.
    pub(super) left: Name,
}

/// Which block, in shared memory.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Name {
    segment: AtomicU32,
    line: AtomicU32,
    generation: AtomicU32,
}

impl Name {
    /// Names the block in that line of a segment, in that generation. 0 is no block's.
    pub fn set(&self, [segment, line, generation]: [u32; 3]) {
        self.segment.store(segment, Ordering::Relaxed);
        self.line.store(line, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// What it names.
    pub fn get(&self) -> [u32; 3] {
        [&self.segment, &self.line, &self.generation].map(|number| number.load(Ordering::Relaxed))
    }
}

impl Side {
    /// The word of its lock.
    pub fn lock(&self) -> &Futex {
        &self.own.0.lock
    }

    /// How many items have passed.
    pub fn steps(&self) -> u64 {
        self.steps.0.load(Ordering::Acquire)
    }

    /// Who has the lock: where the side is.
    pub fn now(&self, steps: u64) -> &Slot {
        &self.own.0.slots[(steps & 1) as usize]
    }

    /// Who has the lock: where it will be with the next step. Counts as begun once [`begin`](Self::begin) was called.
    pub fn next(&self, steps: u64) -> &Slot {
        self.now(steps + 1)
    }

    /// Who has the lock: the slot is written. What it names is from now on the queue's business, even if nothing comes of it.
    pub fn begin(&self, steps: u64) {
        self.next(steps).step.store(steps + 1, Ordering::Release);
    }

    /// Who has the lock: the step is taken.
    pub fn commit(&self, steps: u64) {
        self.steps.0.store(steps + 1, Ordering::Release);
    }

    /// Who has the lock, after a death: the slot of a step that was begun and not taken.
    pub fn begun(&self, steps: u64) -> Option<&Slot> {
        let next = self.next(steps);
        (next.step.load(Ordering::Acquire) == steps + 1).then_some(next)
    }

    /// Who has the lock: nothing comes of that step.
    pub fn withdraw(&self, steps: u64) {
        self.next(steps).step.store(0, Ordering::Release);
    }
}

impl Slot {
    fn reset(&self) {
        self.step.store(0, Ordering::Relaxed);
        self.position.store(0, Ordering::Relaxed);
        [&self.chunk, &self.envelope, &self.left].into_iter().for_each(|name| name.set([0; 3]));
    }
}

impl Side {
    fn reset(&self) {
        self.own.0.slots.iter().for_each(Slot::reset);
        self.steps.0.store(0, Ordering::Relaxed);
        // Last: who finds it free finds all as new.
        self.lock().word().store(0, Ordering::Release);
    }
}

impl State {
    /// Whoever has both locks, when nobody else has the queue any more: as new.
    pub(super) fn reset(&self) {
        let common = &self.common.0;
        [&common.capacity, &common.done].into_iter().for_each(|number| number.store(0, Ordering::Relaxed));
        common.first.set([0; 3]);
        common.shut.store(0, Ordering::Relaxed);
        [&common.getters, &common.putters, &common.joiners].into_iter().for_each(Sleepers::reset);
        self.put.reset();
        self.get.reset();
    }

    /// Items that lie in it.
    pub fn len(&self) -> u64 {
        // `taken` first: the other way round more might seem to be taken than were put.
        let taken = self.get.steps();
        self.put.steps().saturating_sub(taken)
    }

    /// Whether nothing lies in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no more fits.
    pub fn is_full(&self) -> bool {
        let capacity = self.capacity();
        capacity > 0 && self.len() >= capacity
    }

    /// How many items it holds at most; 0: as many as there is memory for.
    pub fn capacity(&self) -> u64 {
        self.common.0.capacity.load(Ordering::Relaxed)
    }

    /// Whether it was shut down.
    pub fn is_shut(&self) -> bool {
        self.common.0.shut.load(Ordering::SeqCst) != 0
    }

    /// Items that were put and are not done with.
    pub fn unfinished(&self) -> u64 {
        let done = self.common.0.done.load(Ordering::SeqCst);
        self.put.steps().saturating_sub(done)
    }
}
