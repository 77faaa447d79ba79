//! A lock between processes that survives its holders.
//!
//! One word: who holds it, whether its last holder died in it, whether anybody may be asleep for it.
//!
//! ```text
//! bits 0..16  holder + 1, or 0: free                      bit 30  ABANDONED: the last holder died
//! bit 29      STRICT: nobody gets it while it is ABANDONED  bit 31  WAITERS
//! ```
//!
//! Free to held is one compare-and-swap that names the holder, so a death never leaves it held by nobody knows
//! whom: the supervisor finds the dead holder's number in the word and frees it, marked ABANDONED, for the next
//! holder to know that the data may be half changed. A waiter that was woken and died before it took the lock would
//! swallow the wake-up; so a death wakes the waiters of every lock (`abandon`), whoever held it.
//!
//! Why no wake-up is lost: a waiter sleeps only on a word that says WAITERS, and the kernel compares it. Whoever frees
//! the lock takes that mark away and then wakes one; the woken one sets WAITERS again when it takes the lock, as
//! it can't know whether it was the only one.

use std::time::Duration;

use super::atomics::{AtomicU32, Ordering};
use super::futex::{Futex, Wake};
use super::patience::{End, Patience};
#[cfg(not(loom))]
use super::spin;
use crate::crash;
use crate::memory::lease::Cell;

const HOLDER: u32 = 0xffff;
const STRICT: u32 = 1 << 29;
const ABANDONED: u32 = 1 << 30;
const WAITERS: u32 = 1 << 31;

/// What came of trying to get the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Yes,
    /// It is nobody's, but strict, and its last holder died in it: see [`Lock::repair`].
    Abandoned,
    /// The time was up.
    TimedOut,
    /// A signal came in, or the waiter was told to stop. It is not ours, whatever came of it meanwhile.
    Interrupted,
}

impl From<End> for Acquired {
    fn from(end: End) -> Acquired {
        match end {
            End::TimedOut => Acquired::TimedOut,
            End::Stopped => Acquired::Interrupted,
        }
    }
}

/// What one look at the lock gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Taken,
    Abandoned,
    Held,
}

/// What one does about a strict lock that is abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Abandoned {
    /// Not take it.
    Refuse,
    /// Take it, and the mark away.
    Repair,
    /// Take it, and leave the mark.
    Accept,
}

/// How one takes it.
#[derive(Clone, Copy)]
struct Taking {
    holder: u16,
    abandoned: Abandoned,
    /// Whether it slept before.
    slept: bool,
}

impl Taking {
    fn new(holder: u16, abandoned: Abandoned) -> Taking {
        Taking { holder, abandoned, slept: false }
    }
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

    fn word(&self) -> &'a AtomicU32 {
        self.0.word()
    }

    /// Its maker, before anybody else knows it: when a holder dies, nobody gets it before somebody repairs it.
    pub fn make_strict(&self) {
        self.word().fetch_or(STRICT, Ordering::Relaxed);
    }

    /// Takes the lock for a process if it is free, and not strict and abandoned.
    #[inline]
    pub fn try_acquire(&self, holder: u16) -> bool {
        self.look(Taking::new(holder, Abandoned::Refuse)) == Look::Taken
    }

    /// Takes the lock if it is there to be had at once.
    pub fn acquire_now(&self, holder: u16) -> Acquired {
        self.now(Taking::new(holder, Abandoned::Refuse))
    }

    /// As [`acquire_now`](Self::acquire_now), also if it is strict and abandoned: the holder will put right what it guards.
    pub fn repair_now(&self, holder: u16) -> Acquired {
        self.now(Taking::new(holder, Abandoned::Repair))
    }

    fn now(&self, taking: Taking) -> Acquired {
        match self.look(taking) {
            Look::Taken => Acquired::Yes,
            Look::Abandoned => Acquired::Abandoned,
            Look::Held => Acquired::TimedOut,
        }
    }

    #[inline]
    fn look(&self, Taking { holder, abandoned, slept }: Taking) -> Look {
        let extra = (u32::from(holder) + 1) | if slept { WAITERS } else { 0 };
        let mut now = self.word().load(Ordering::Relaxed);
        while now & HOLDER == 0 {
            let mut free = now;
            if now & (STRICT | ABANDONED) == STRICT | ABANDONED {
                match abandoned {
                    Abandoned::Refuse => return Look::Abandoned,
                    Abandoned::Repair => free &= !ABANDONED,
                    Abandoned::Accept => {}
                }
            }
            match self.word().compare_exchange_weak(now, free | extra, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    crash::point("lock: taken");
                    return Look::Taken;
                }
                Err(changed) => now = changed,
            }
        }
        Look::Held
    }

    /// Takes the lock, waiting for it at most for `timeout`.
    #[cfg(not(loom))]
    pub fn acquire(&self, holder: u16, timeout: Option<Duration>) -> Acquired {
        self.acquire_with(holder, &mut Patience::within(timeout))
    }

    /// Takes the lock, with patience.
    pub fn acquire_with(&self, holder: u16, patience: &mut Patience<'_>) -> Acquired {
        self.take(Taking::new(holder, Abandoned::Refuse), patience)
    }

    /// Takes the lock even if it is strict and abandoned. From then on others get it again.
    pub fn repair(&self, holder: u16, patience: &mut Patience<'_>) -> Acquired {
        self.take(Taking::new(holder, Abandoned::Repair), patience)
    }

    /// Takes the lock back that this process has let go of for a while, in whatever state: a strict one that is abandoned
    /// stays so.
    pub(super) fn take_back(&self, holder: u16, patience: &mut Patience<'_>) -> Acquired {
        self.take(Taking::new(holder, Abandoned::Accept), patience)
    }

    fn take(&self, mut taking: Taking, patience: &mut Patience<'_>) -> Acquired {
        match self.look(taking) {
            Look::Taken => return Acquired::Yes,
            Look::Abandoned => return Acquired::Abandoned,
            Look::Held => {}
        }
        // Whoever holds it is mostly about to let go: asleep, one would hear of it forty times as late.
        #[cfg(not(loom))]
        spin::briefly(|| self.word().load(Ordering::Relaxed) & HOLDER == 0);
        loop {
            let rested = match self.look(taking) {
                Look::Taken => return Acquired::Yes,
                Look::Abandoned => return self.refuse(),
                Look::Held => patience.rest(|timeout| self.sleep(timeout)),
            };
            taking.slept = true;
            if let Err(end) = rested {
                return self.give_up(taking, end);
            }
        }
    }

    /// The last try of one who will not wait any longer. It may have been woken just now, for all who wait: so it leaves
    /// the lock marked for them if it does not get it.
    fn give_up(&self, taking: Taking, end: End) -> Acquired {
        // Only who had it before, and is to go on with it, takes it even when it was told to stop.
        if end == End::Stopped && taking.abandoned != Abandoned::Accept {
            return self.pass_by();
        }
        loop {
            match self.look(taking) {
                Look::Taken => return Acquired::Yes,
                Look::Abandoned => return self.refuse(),
                Look::Held => {}
            }
            if self.mark().is_some() {
                return end.into();
            }
        }
    }

    /// Who was told to stop takes nothing any more: why it was is all that its caller hears of. If the lock is free, that
    /// is for another one.
    fn pass_by(&self) -> Acquired {
        while self.mark().is_none() {
            if !self.is_locked() {
                self.0.wake(1);
                break;
            }
        }
        Acquired::Interrupted
    }

    /// It is abandoned, and nobody is to have it: who was woken to take it lets all the others know.
    fn refuse(&self) -> Acquired {
        self.0.wake(u32::MAX);
        Acquired::Abandoned
    }

    /// Says that somebody may be asleep: the word to sleep on. `None`: look again.
    fn mark(&self) -> Option<u32> {
        let now = self.word().load(Ordering::Relaxed);
        let marked = now & HOLDER != 0
            && (now & WAITERS != 0
                || self.word().compare_exchange(now, now | WAITERS, Ordering::Relaxed, Ordering::Relaxed).is_ok());
        marked.then_some(now | WAITERS)
    }

    /// Sleeps until the lock may be free.
    fn sleep(&self, timeout: Option<Duration>) -> Wake {
        match self.mark() {
            Some(word) => {
                crash::point("lock: marked");
                let wake = self.0.wait(word, timeout);
                crash::point("lock: woken");
                wake
            }
            None => Wake::Woken,
        }
    }

    /// Frees the lock, whoever holds it. `false`: nobody does.
    #[inline]
    pub fn release(&self) -> bool {
        let mut now = self.word().load(Ordering::Relaxed);
        while now & HOLDER != 0 {
            let free = now & if now & STRICT == 0 { 0 } else { STRICT | ABANDONED };
            match self.word().compare_exchange_weak(now, free, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => {
                    crash::point("lock: freed");
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
        self.word().load(Ordering::Relaxed) & HOLDER != 0
    }

    /// Whether `holder` holds it.
    #[inline]
    pub fn is_held_by(&self, holder: u16) -> bool {
        self.word().load(Ordering::Acquire) & HOLDER == u32::from(holder) + 1
    }

    /// Whether the holder before the present one died in it; of a strict one, whether it has to be repaired.
    pub fn is_abandoned(&self) -> bool {
        self.word().load(Ordering::Relaxed) & ABANDONED != 0
    }

    /// Whether it is strict and abandoned: nobody gets it before somebody repairs it.
    pub fn is_spoilt(&self) -> bool {
        self.word().load(Ordering::Relaxed) & (STRICT | ABANDONED) == STRICT | ABANDONED
    }

    /// `dead` has died: if it held the lock, that is free again, and marked. Wakes who may be asleep for it in any case: the
    /// dead one may have been woken to take it.
    pub fn abandon(&self, dead: u16) {
        let mut now = self.word().load(Ordering::Relaxed);
        while now & HOLDER == u32::from(dead) + 1 {
            let free = now & (WAITERS | STRICT) | ABANDONED;
            match self.word().compare_exchange_weak(now, free, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(changed) => now = changed,
            }
        }
        self.0.wake(u32::MAX);
    }
}

/// A process has died: if it held the lock in this cell, the lock is free again, and marked. `cell.word` counts such deaths,
/// first of all, so that whoever sees the lock free sees that too.
pub fn abandon(cell: &Cell, dead: u16) {
    let lock = Lock::new(cell);
    if lock.is_held_by(dead) {
        cell.word.fetch_add(1, Ordering::SeqCst);
    }
    lock.abandon(dead);
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
        assert_eq!(cell.word.load(Ordering::Relaxed), 0);
        abandon(&cell, 3);
        assert_eq!(cell.word.load(Ordering::Relaxed), 1, "a death in it");
        assert!(lock.try_acquire(5));
        assert!(lock.is_abandoned(), "5 can know");
        assert!(lock.release());
        assert!(lock.try_acquire(6));
        assert!(!lock.is_abandoned(), "5 ended in order");
    }

    #[test]
    fn a_strict_one_is_nobodys_until_somebody_repairs_it() {
        let cell = Cell::default();
        let lock = Lock::new(&cell);
        lock.make_strict();
        assert!(lock.try_acquire(3));
        abandon(&cell, 3);
        for _ in 0..2 {
            assert!(!lock.try_acquire(4));
            assert_eq!(lock.acquire(4, None), Acquired::Abandoned);
        }
        assert!(!lock.is_locked() && lock.is_abandoned());
        assert_eq!(lock.repair(4, &mut Patience::endless()), Acquired::Yes);
        abandon(&cell, 4);
        assert_eq!(lock.acquire_now(5), Acquired::Abandoned, "who repaired it died");
        assert_eq!(lock.repair_now(5), Acquired::Yes);
        assert!(!lock.is_abandoned());
        assert!(lock.release());
        assert_eq!(lock.acquire(6, None), Acquired::Yes);
        assert!(lock.release());
        assert!(lock.try_acquire(7), "it stays strict, and sound");
    }

    #[test]
    fn who_is_told_to_stop_does_not_get_it_even_if_it_is_free_by_then() {
        for strict in [false, true] {
            let cell = Cell::default();
            let lock = Lock::new(&cell);
            if strict {
                lock.make_strict();
            }
            assert!(lock.try_acquire(0));
            let mut stop = || {
                if strict {
                    abandon(&cell, 0)
                } else {
                    assert!(lock.release())
                }
                true
            };
            assert_eq!(lock.acquire_with(1, &mut Patience::endless().unless(&mut stop)), Acquired::Interrupted);
            assert!(!lock.is_locked());
            assert_eq!(lock.is_spoilt(), strict);
        }
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
#[allow(unsafe_code, reason = "cells that loom watches")]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::atomics::DataCell;

    fn acquire(cell: &Cell, holder: u16) {
        assert_eq!(Lock::new(cell).acquire_with(holder, &mut Patience::endless()), Acquired::Yes);
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
    fn loom_one_whose_time_is_up_takes_no_wake_up_with_it() {
        takes_no_wake_up_with_it(Patience::brief);
    }

    #[test]
    fn loom_one_who_is_told_to_stop_takes_no_wake_up_with_it() {
        takes_no_wake_up_with_it(|| Patience::endless().hasty());
    }

    fn takes_no_wake_up_with_it(patience: fn() -> Patience<'static>) {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(3);
        explored.check(move || {
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
                    // It gives up as soon as it slept once.
                    let acquired = Lock::new(&cell).acquire_with(2, &mut patience());
                    if acquired == Acquired::Yes {
                        Lock::new(&cell).release();
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
            let supervisor = {
                let cell = cell.clone();
                thread::spawn(move || abandon(&cell, 1))
            };
            supervisor.join().expect("ends");
            assert!(waiter.join().expect("ends"), "told that 1 died in it");
        });
    }

    #[test]
    fn loom_who_waits_for_a_strict_one_is_told_of_a_death_in_it() {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(2);
        explored.check(|| {
            let cell = Arc::new(Cell::default());
            Lock::new(&cell).make_strict();
            assert!(Lock::new(&cell).try_acquire(1));
            let waiters = [2, 3].map(|holder| {
                let cell = cell.clone();
                thread::spawn(move || Lock::new(&cell).acquire_with(holder, &mut Patience::endless()))
            });
            let supervisor = {
                let cell = cell.clone();
                thread::spawn(move || abandon(&cell, 1))
            };
            supervisor.join().expect("ends");
            for waiter in waiters {
                assert_eq!(waiter.join().expect("ends"), Acquired::Abandoned);
            }
        });
    }
}
