//! What a queue is in shared memory: a few words, two sides, and how a side takes a step that a death can't halve.
//!
//! Both sides work alike. One process at a time has the side's lock. All it changes it writes into the slot that does not
//! count, and then adds one to `steps`, whose parity says which slot counts: a single store that takes the step with all that
//! belongs to it. A death before it leaves all as it was, a death after it leaves the step done; what is still to be
//! tidied up stands in the slot, and is done again by whoever passes the lock on (see `recover`).
//!
//! `steps` is also what the queue counts by: as many items were put as the putting side took steps, and as many taken as
//! the other did.

#![allow(unsafe_code, reason = "a cell of shared memory, under the protocol above")]

use crate::sync::apart::Apart;
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
        let read = |number: &AtomicU32| number.load(Ordering::Relaxed);
        [read(&self.segment), read(&self.line), read(&self.generation)]
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
        self.now(steps.wrapping_add(1))
    }

    /// Who has the lock: the slot is written. What it names is from now on the queue's business, even if nothing comes of it.
    pub fn begin(&self, steps: u64) {
        self.next(steps).step.store(steps.wrapping_add(1), Ordering::Release);
    }

    /// Who has the lock: the step is taken.
    pub fn commit(&self, steps: u64) {
        self.steps.0.store(steps.wrapping_add(1), Ordering::Release);
    }

    /// Who has the lock, after a death: the slot of a step that was begun and not taken.
    pub fn begun(&self, steps: u64) -> Option<&Slot> {
        let next = self.next(steps);
        (next.step.load(Ordering::Acquire) == steps.wrapping_add(1)).then_some(next)
    }

    /// Who has the lock: nothing comes of that step.
    pub fn withdraw(&self, steps: u64) {
        self.next(steps).step.store(0, Ordering::Release);
    }
}

#[cfg(not(loom))]
impl Slot {
    fn reset(&self) {
        self.step.store(0, Ordering::Relaxed);
        self.position.store(0, Ordering::Relaxed);
        [&self.chunk, &self.envelope, &self.left].into_iter().for_each(|name| name.set([0; 3]));
    }
}

#[cfg(not(loom))]
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
    #[cfg(not(loom))]
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

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::atomics::DataCell;
    use crate::sync::lock::Lock;

    /// A queue with room for so many numbers; a slot's position counts those that were put, or taken.
    struct Small<const ROOM: usize> {
        put: Side,
        get: Side,
        room: [DataCell<u64>; ROOM],
        freed: AtomicU64,
        /// What stands for the in-queue bit of an envelope: the number that lies in it.
        held: AtomicU64,
    }

    /// The holders.
    const VICTIM: u16 = 1;
    const OTHER: u16 = 2;

    impl<const ROOM: usize> Small<ROOM> {
        fn new() -> Arc<Self> {
            Arc::new(Small {
                put: Side::default(),
                get: Side::default(),
                room: std::array::from_fn(|_| DataCell::new(0)),
                freed: AtomicU64::new(0),
                held: AtomicU64::new(0),
            })
        }

        /// Dies after so many steps; `None`: its lock is held for ever.
        fn put(&self, holder: u16, number: u64, mut lives: u32) -> Option<()> {
            let mut step = || lives.checked_sub(1).map(|left| lives = left);
            let lock = Lock::over(self.put.lock());
            assert!(lock.try_acquire(holder), "nobody else puts");
            step()?;
            let steps = self.put.steps();
            let position = self.put.now(steps).position.load(Ordering::Relaxed);
            while position - self.freed.load(Ordering::Acquire) == ROOM as u64 {
                thread::yield_now();
            }
            // SAFETY: nobody reads it before the step is taken, and what lay there was freed; loom checks it.
            unsafe { self.room[position as usize % ROOM].write(number) };
            step()?;
            self.put.next(steps).position.store(position + 1, Ordering::Relaxed);
            self.put.next(steps).envelope.set([number as u32; 3]);
            step()?;
            self.put.begin(steps);
            step()?;
            self.held.fetch_or(1 << number, Ordering::SeqCst);
            step()?;
            self.put.commit(steps);
            step()?;
            lock.release();
            Some(())
        }

        fn get(&self, holder: u16, mut lives: u32) -> Option<u64> {
            let mut step = || lives.checked_sub(1).map(|left| lives = left);
            let lock = Lock::over(self.get.lock());
            assert!(lock.try_acquire(holder), "nobody else gets");
            step()?;
            let steps = self.get.steps();
            while self.put.steps() <= steps {
                thread::yield_now();
            }
            let position = self.get.now(steps).position.load(Ordering::Relaxed);
            // SAFETY: it was put, and the putting side does not touch it before it is freed; loom checks it.
            let number = unsafe { self.room[position as usize % ROOM].read() };
            step()?;
            self.get.next(steps).position.store(position + 1, Ordering::Relaxed);
            self.get.next(steps).envelope.set([number as u32; 3]);
            step()?;
            self.get.commit(steps);
            step()?;
            self.freed.store(position + 1, Ordering::Release);
            step()?;
            self.held.fetch_and(!(1 << number), Ordering::SeqCst);
            step()?;
            lock.release();
            Some(number)
        }

        /// What `recover` does.
        fn recover(&self) {
            let steps = self.put.steps();
            if Lock::over(self.put.lock()).is_held_by(VICTIM)
                && let Some(begun) = self.put.begun(steps)
            {
                self.held.fetch_and(!(1 << begun.envelope.get()[0]), Ordering::SeqCst);
                self.put.withdraw(steps);
            }
            let now = self.get.now(self.get.steps());
            if Lock::over(self.get.lock()).is_held_by(VICTIM) && self.get.steps() > 0 {
                self.freed.store(now.position.load(Ordering::Relaxed), Ordering::Release);
                self.held.fetch_and(!(1 << now.envelope.get()[0]), Ordering::SeqCst);
            }
            [&self.put, &self.get].into_iter().for_each(|side| Lock::over(side.lock()).abandon(VICTIM));
        }
    }

    const STEPS: u32 = 6;

    fn explored() -> loom::model::Builder {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(3);
        explored
    }

    #[test]
    fn loom_a_producer_that_dies_at_any_step_leaves_a_whole_item_or_none() {
        for lives in 0..=STEPS {
            explored().check(move || {
                let queue = Small::<2>::new();
                let victim = {
                    let queue = queue.clone();
                    thread::spawn(move || queue.put(VICTIM, 1, lives))
                };
                let consumer = {
                    let queue = queue.clone();
                    thread::spawn(move || queue.get(OTHER, u32::MAX).expect("lives"))
                };
                victim.join().expect("ends");
                queue.recover();
                queue.put(OTHER, 2, u32::MAX).expect("lives");
                let first = consumer.join().expect("ends");
                // The step that counts is the fifth.
                assert_eq!(first, if lives >= 5 { 1 } else { 2 });
                assert_eq!(queue.put.steps() - queue.get.steps(), u64::from(lives >= 5));
                assert_eq!(queue.held.load(Ordering::SeqCst), if lives >= 5 { 1 << 2 } else { 0 }, "what lies there");
            });
        }
    }

    #[test]
    fn loom_a_consumer_that_dies_at_any_step_takes_one_item_along_or_none() {
        for lives in 0..=STEPS {
            explored().check(move || {
                let queue = Small::<1>::new();
                queue.put(OTHER, 1, u32::MAX).expect("lives");
                let victim = {
                    let queue = queue.clone();
                    thread::spawn(move || queue.get(VICTIM, lives))
                };
                // Into the same place, when it is free.
                let producer = {
                    let queue = queue.clone();
                    thread::spawn(move || queue.put(OTHER, 2, u32::MAX).expect("lives"))
                };
                victim.join().expect("ends");
                queue.recover();
                let taken = lives >= 3;
                if !taken {
                    assert_eq!(queue.get(OTHER, u32::MAX), Some(1));
                }
                assert_eq!(queue.get(OTHER, u32::MAX), Some(2));
                producer.join().expect("ends");
                assert_eq!(queue.held.load(Ordering::SeqCst), 0, "nothing lies there");
            });
        }
    }
}
