//! A lock between processes that survives its holders.
//!
//! One word: who holds it, whether its last holder died in it, whether anybody may be asleep for it.
//!
//! ```text
//! bits 0..16  holder + 1, or 0: free      bit 30  ABANDONED: the last holder died      bit 31  WAITERS
//! ```
//!
//! Free to held is one compare-and-swap that names the holder, so a death never leaves it held by nobody knows
//! whom: the supervisor finds the dead holder's number in the word and frees it, marked ABANDONED, for the next
//! holder to know that the data may be half changed. A waiter that was woken and died before it took the lock would
//! swallow the wake-up; so a death wakes the waiters of every lock (`abandon`), whoever held it.
//!
//! Why no wake-up is lost: a waiter sleeps only on a word that says WAITERS, and the kernel compares it. Whoever frees
//! the lock takes that whole word away and then wakes one; the woken one sets WAITERS again when it takes the lock, as
//! it can't know whether it was the only one.

use std::time::Duration;
#[cfg(not(loom))]
use std::time::Instant;

use super::atomics::Ordering;
use super::futex::{Futex, Wake};
use crate::memory::lease::Cell;

const HOLDER: u32 = 0xffff;
const ABANDONED: u32 = 1 << 30;
const WAITERS: u32 = 1 << 31;

/// What came of trying to get the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Yes,
    /// The time was up.
    TimedOut,
    /// A signal came in.
    Interrupted,
}

/// The lock in a cell.
#[derive(Clone, Copy, Debug)]
pub struct Lock<'a>(&'a Futex);

impl<'a> Lock<'a> {
    /// The lock that lies in `cell`.
    pub fn new(cell: &'a Cell) -> Self {
        Self(&cell.futex)
    }

    /// The lock that is this word.
    pub fn over(word: &'a Futex) -> Self {
        Self(word)
    }

    /// Whether `holder` holds it.
    pub fn is_held_by(&self, holder: u16) -> bool {
        self.0.word().load(Ordering::Acquire) & HOLDER == u32::from(holder) + 1
    }

    /// `dead` has died: if it held the lock, that is free again, and marked. Wakes who may be asleep for it in any case: the
    /// dead one may have been woken to take it.
    pub fn abandon(&self, dead: u16) {
        let word = self.0.word();
        let mut now = word.load(Ordering::Relaxed);
        while now & HOLDER == u32::from(dead) + 1 {
            match word.compare_exchange_weak(now, now & WAITERS | ABANDONED, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(changed) => now = changed,
            }
        }
        self.0.wake(u32::MAX);
    }

    /// Takes the lock for a process if it is free.
    pub fn try_acquire(&self, holder: u16) -> bool {
        self.take(holder, 0)
    }

    fn take(&self, holder: u16, extra: u32) -> bool {
        let word = self.0.word();
        let mut now = word.load(Ordering::Relaxed);
        while now & HOLDER == 0 {
            let mine = now | (u32::from(holder) + 1) | extra;
            match word.compare_exchange_weak(now, mine, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(changed) => now = changed,
            }
        }
        false
    }

    /// Takes the lock, waiting for it at most for `timeout`.
    #[cfg(not(loom))]
    pub fn acquire(&self, holder: u16, timeout: Option<Duration>) -> Acquired {
        if self.try_acquire(holder) {
            return Acquired::Yes;
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return if self.give_up(holder) { Acquired::Yes } else { Acquired::TimedOut };
            }
            let wake = self.sleep(left);
            if wake == Wake::Interrupted {
                return if self.give_up(holder) { Acquired::Yes } else { Acquired::Interrupted };
            }
            if self.take(holder, WAITERS) {
                return Acquired::Yes;
            }
        }
    }

    /// The last try of one who will not wait any longer. It may have been woken just now, for all who wait: so it leaves
    /// the lock marked for them if it does not get it.
    fn give_up(&self, holder: u16) -> bool {
        let word = self.0.word();
        loop {
            if self.take(holder, WAITERS) {
                return true;
            }
            let now = word.load(Ordering::Relaxed);
            let marked = now & HOLDER != 0
                && (now & WAITERS != 0
                    || word.compare_exchange(now, now | WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_ok());
            if marked {
                return false;
            }
        }
    }

    /// Sleeps until the lock may be free.
    fn sleep(&self, timeout: Option<Duration>) -> Wake {
        let word = self.0.word();
        let now = word.load(Ordering::Relaxed);
        if now & HOLDER == 0 {
            return Wake::Woken;
        }
        if now & WAITERS == 0
            && word.compare_exchange(now, now | WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return Wake::Woken;
        }
        self.0.wait(now | WAITERS, timeout)
    }

    /// Frees the lock, whoever holds it. `false`: nobody does.
    pub fn release(&self) -> bool {
        let word = self.0.word();
        let mut now = word.load(Ordering::Relaxed);
        while now & HOLDER != 0 {
            match word.compare_exchange_weak(now, 0, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => {
                    if now & WAITERS != 0 {
                        self.0.wake(1);
                    }
                    return true;
                }
                Err(changed) => now = changed,
            }
        }
        false
    }

    /// Whether somebody holds it.
    pub fn is_locked(&self) -> bool {
        self.0.word().load(Ordering::Relaxed) & HOLDER != 0
    }

    /// Whether the holder before the present one died in it.
    pub fn is_abandoned(&self) -> bool {
        self.0.word().load(Ordering::Relaxed) & ABANDONED != 0
    }
}

/// A process has died: if it held the lock in this cell, the lock is free again, and marked.
pub fn abandon(cell: &Cell, dead: u16) {
    Lock::new(cell).abandon(dead);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_at_a_time() {
        let cell = Cell::default();
        let lock = Lock::new(&cell);
        assert!(lock.try_acquire(0));
        assert!(!lock.try_acquire(1));
        assert_eq!(lock.acquire(1, Some(Duration::from_millis(5))), Acquired::TimedOut);
        assert!(lock.release());
        assert!(!lock.release(), "nobody holds it");
        assert_eq!(lock.acquire(1, None), Acquired::Yes);
    }

    #[test]
    fn the_lock_of_a_dead_holder_is_free_and_marked() {
        let cell = Cell::default();
        let lock = Lock::new(&cell);
        assert!(lock.try_acquire(3));
        abandon(&cell, 4);
        assert!(lock.is_locked(), "4 did not hold it");
        abandon(&cell, 3);
        assert!(lock.try_acquire(5));
        assert!(lock.is_abandoned(), "5 can know");
        assert!(lock.release());
        assert!(lock.try_acquire(6));
        assert!(!lock.is_abandoned(), "5 ended in order");
    }

    #[test]
    fn many_threads_count_without_losing_any() {
        let cell = Cell::default();
        let count = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for holder in 0..4 {
                let (cell, count) = (&cell, &count);
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        while Lock::new(cell).acquire(holder, None) != Acquired::Yes {}
                        let seen = count.load(std::sync::atomic::Ordering::Relaxed);
                        count.store(seen + 1, std::sync::atomic::Ordering::Relaxed);
                        Lock::new(cell).release();
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 40_000);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::atomics::DataCell;

    fn acquire(cell: &Cell, holder: u16) {
        let lock = Lock::new(cell);
        let mut extra = 0;
        while !lock.take(holder, extra) {
            lock.sleep(None);
            extra = WAITERS;
        }
    }

    #[test]
    fn loom_holders_exclude_each_other_and_none_waits_for_ever() {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(3);
        explored.check(|| {
            let shared = Arc::new((Cell::default(), DataCell::new(0u32)));
            let work = |holder| {
                let shared = shared.clone();
                move || {
                    acquire(&shared.0, holder);
                    // SAFETY: under the lock; loom checks it.
                    let seen = unsafe { shared.1.read() };
                    // SAFETY: as above.
                    unsafe { shared.1.write(seen + 1) };
                    Lock::new(&shared.0).release();
                }
            };
            let others = [thread::spawn(work(1)), thread::spawn(work(2))];
            work(0)();
            others.into_iter().for_each(|thread| thread.join().expect("ends"));
            // SAFETY: all others have ended.
            assert_eq!(unsafe { shared.1.read() }, 3);
        });
    }

    #[test]
    fn loom_one_who_gives_up_takes_no_wake_up_with_it() {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(3);
        explored.check(|| {
            let cell = Arc::new(Cell::default());
            assert!(Lock::new(&cell).try_acquire(0));
            let patient = {
                let cell = cell.clone();
                thread::spawn(move || {
                    acquire(&cell, 1);
                    Lock::new(&cell).release();
                })
            };
            let hasty = {
                let cell = cell.clone();
                thread::spawn(move || {
                    let lock = Lock::new(&cell);
                    if !lock.take(2, 0) {
                        // Interrupted, or its time was up, before it slept or after it was woken.
                        if lock.give_up(2) {
                            lock.release();
                        }
                    } else {
                        lock.release();
                    }
                })
            };
            Lock::new(&cell).release();
            patient.join().expect("ends");
            hasty.join().expect("ends");
        });
    }

    #[test]
    fn loom_a_dead_holder_is_replaced() {
        loom::model(|| {
            let cell = Arc::new(Cell::default());
            assert!(Lock::new(&cell).try_acquire(1));
            let waiter = {
                let cell = cell.clone();
                thread::spawn(move || {
                    acquire(&cell, 2);
                    Lock::new(&cell).is_abandoned()
                })
            };
            abandon(&cell, 1);
            assert!(waiter.join().expect("ends"), "told that 1 died in it");
        });
    }
}
