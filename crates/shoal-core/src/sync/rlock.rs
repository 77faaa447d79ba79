//! A lock that the thread which holds it may take again.
//!
//! It is a [`Lock`] with two numbers beside: who has it, a thread of a process, and how often. Only that thread writes them,
//! while it has the lock, and the first is 0 whenever the lock is free. So who reads itself in that has it, and everybody else
//! reads something else, whenever they look: also a process that has the number of one that died in the lock, as `abandon`
//! clears it before it frees the word. It is one load that decides: the lock's word and a thread beside it, read one after
//! the other, would make an owner of a thread of the next holder, if it had the number of a thread of the last.

use super::atomics::{AtomicU64, Ordering};
use super::lock::{self, Acquired, Lock};
use super::patience::Patience;
use crate::crash;
use crate::memory::lease::Cell;

/// Which thread of which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process, as a holder.
    pub holder: u16,
    /// The thread, by a number of its own in the process; not 0.
    pub thread: u32,
}

impl Owner {
    /// The calling thread of process `holder`.
    #[cfg(not(loom))]
    #[inline]
    pub fn current(holder: u16) -> Owner {
        Owner { holder, thread: thread_number() }
    }

    /// As the word that says who has it; not 0.
    #[inline]
    fn word(self) -> u64 {
        u64::from(self.holder) << 32 | u64::from(self.thread)
    }
}

/// The calling thread's number, which no other thread of the process ever has.
#[cfg(not(loom))]
#[inline]
fn thread_number() -> u32 {
    use std::cell::Cell;
    use std::sync::atomic::AtomicU32;
    static NEXT: AtomicU32 = AtomicU32::new(1);
    thread_local! {
        // A constant at first: then there is no state of initialisation to be looked at.
        static MINE: Cell<u32> = const { Cell::new(0) };
    }
    // One look at what is this thread's: each has a price of its own in a library that is loaded.
    match MINE.get() {
        0 => {
            let mine = NEXT.fetch_add(1, Ordering::Relaxed);
            MINE.set(mine);
            mine
        }
        mine => mine,
    }
}

/// The reentrant lock in a cell.
#[derive(Clone, Copy, Debug)]
pub struct RLock<'a> {
    lock: Lock<'a>,
    /// Who has it.
    owner: &'a AtomicU64,
    /// How often. Only the owner looks at it.
    times: &'a AtomicU64,
}

impl<'a> RLock<'a> {
    /// The lock that lies in `cell`.
    pub fn new(cell: &'a Cell) -> Self {
        RLock { lock: Lock::new(cell), owner: &cell.number, times: &cell.more[0] }
    }

    /// The lock without its owner, to be asked about its state.
    pub fn lock(&self) -> Lock<'a> {
        self.lock
    }

    /// How often `owner` has it.
    #[inline]
    pub fn times(&self, owner: Owner) -> u32 {
        let mine = self.owner.load(Ordering::Relaxed) == owner.word();
        if mine { self.times.load(Ordering::Relaxed) as u32 } else { 0 }
    }

    /// Takes it once more, if `owner` has it.
    #[inline]
    fn again(&self, owner: Owner) -> bool {
        let times = self.times(owner);
        if times > 0 {
            // Nobody takes a lock four thousand million times: then somebody has written over it.
            self.times.store(u64::from(times.saturating_add(1)), Ordering::Relaxed);
        }
        times > 0
    }

    fn set(&self, owner: Owner, times: u32) {
        self.owner.store(owner.word(), Ordering::Relaxed);
        self.times.store(u64::from(times), Ordering::Relaxed);
    }

    /// As [`Lock::acquire_now`].
    #[inline]
    pub fn acquire_now(&self, owner: Owner) -> Acquired {
        if self.again(owner) { Acquired::Yes } else { self.first(owner, self.lock.acquire_now(owner.holder)) }
    }

    /// As [`Lock::repair_now`].
    pub fn repair_now(&self, owner: Owner) -> Acquired {
        if self.again(owner) { Acquired::Yes } else { self.first(owner, self.lock.repair_now(owner.holder)) }
    }

    /// Takes it, with patience.
    pub fn acquire(&self, owner: Owner, patience: &mut Patience<'_>) -> Acquired {
        if self.again(owner) {
            Acquired::Yes
        } else {
            self.first(owner, self.lock.acquire_with(owner.holder, patience))
        }
    }

    /// As [`Lock::repair`].
    pub fn repair(&self, owner: Owner, patience: &mut Patience<'_>) -> Acquired {
        if self.again(owner) { Acquired::Yes } else { self.first(owner, self.lock.repair(owner.holder, patience)) }
    }

    #[inline]
    fn first(&self, owner: Owner, acquired: Acquired) -> Acquired {
        if acquired == Acquired::Yes {
            self.set(owner, 1);
            crash::point("rlock: entered");
        }
        acquired
    }

    /// Gives it back once. `false`: it is not `owner`'s.
    #[inline]
    pub fn release(&self, owner: Owner) -> bool {
        match self.times(owner) {
            0 => return false,
            1 => {
                self.owner.store(0, Ordering::Relaxed);
                crash::point("rlock: cleared");
                self.lock.release();
            }
            times => self.times.store(u64::from(times - 1), Ordering::Relaxed),
        }
        true
    }

    /// Gives it back altogether. How often `owner` had it.
    pub(super) fn let_go(&self, owner: Owner) -> u32 {
        let times = self.times(owner);
        if times > 0 {
            self.owner.store(0, Ordering::Relaxed);
            self.lock.release();
        }
        times
    }

    /// Takes it back as often as `owner` had it, in whatever state it is.
    pub(super) fn take_back(&self, owner: Owner, times: u32, patience: &mut Patience<'_>) -> Acquired {
        let acquired = self.lock.take_back(owner.holder, patience);
        if acquired == Acquired::Yes {
            self.set(owner, times);
        }
        acquired
    }
}

/// A process has died: if it held the lock in this cell, the lock is free again, and marked.
pub fn abandon(cell: &Cell, dead: u16) {
    if Lock::new(cell).is_held_by(dead) {
        cell.number.store(0, Ordering::Relaxed);
    }
    lock::abandon(cell, dead);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ANN: Owner = Owner { holder: 3, thread: 7 };
    const HER_OTHER_THREAD: Owner = Owner { holder: 3, thread: 8 };
    const BOB: Owner = Owner { holder: 4, thread: 7 };

    #[test]
    fn a_thread_has_it_as_often_as_it_likes_and_nobody_else_until_it_gave_it_back_as_often() {
        let cell = Cell::default();
        let lock = RLock::new(&cell);
        for times in 1..4 {
            assert_eq!(lock.acquire_now(ANN), Acquired::Yes);
            assert_eq!(lock.times(ANN), times);
        }
        for other in [BOB, HER_OTHER_THREAD] {
            assert_eq!(lock.acquire_now(other), Acquired::TimedOut);
            assert!(!lock.release(other));
            assert_eq!(lock.times(other), 0);
        }
        for _ in 0..3 {
            assert!(lock.lock().is_locked());
            assert!(lock.release(ANN));
        }
        assert!(!lock.release(ANN));
        assert_eq!(lock.acquire_now(HER_OTHER_THREAD), Acquired::Yes);
    }

    #[test]
    fn it_is_let_go_of_and_taken_back_whole() {
        let cell = Cell::default();
        let lock = RLock::new(&cell);
        (0..3).for_each(|_| assert_eq!(lock.acquire_now(ANN), Acquired::Yes));
        assert_eq!(lock.let_go(BOB), 0);
        assert_eq!(lock.let_go(ANN), 3);
        assert_eq!(lock.acquire_now(BOB), Acquired::Yes);
        assert!(lock.release(BOB));
        assert_eq!(lock.take_back(ANN, 3, &mut Patience::endless()), Acquired::Yes);
        assert_eq!(lock.times(ANN), 3);
    }

    #[test]
    fn the_next_bearer_of_a_dead_holders_number_does_not_have_its_lock() {
        let cell = Cell::default();
        let lock = RLock::new(&cell);
        assert_eq!(lock.acquire_now(ANN), Acquired::Yes);
        abandon(&cell, ANN.holder);
        assert_eq!(lock.times(ANN), 0);
        assert_eq!(lock.acquire_now(HER_OTHER_THREAD), Acquired::Yes);
        assert!(lock.lock().is_abandoned());
        assert_eq!(lock.times(ANN), 0);
    }

    #[test]
    fn threads_have_numbers_of_their_own() {
        let mine = Owner::current(0).thread;
        assert_ne!(mine, 0);
        assert_eq!(Owner::current(0).thread, mine);
        assert_ne!(std::thread::spawn(|| Owner::current(0).thread).join().expect("ends"), mine);
    }
}

#[cfg(all(test, loom))]
#[allow(unsafe_code, reason = "cells that loom watches")]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::atomics::DataCell;

    /// Three that take it twice: two threads of one process, and another process.
    #[test]
    fn loom_reentrant_holders_exclude_each_other() {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(1);
        explored.check(|| {
            let shared = Arc::new((Cell::default(), DataCell::new(0u32)));
            let work = |holder, thread| {
                let shared = shared.clone();
                move || {
                    let (lock, me) = (RLock::new(&shared.0), Owner { holder, thread });
                    assert_eq!(lock.acquire(me, &mut Patience::endless()), Acquired::Yes);
                    assert_eq!(lock.acquire(me, &mut Patience::endless()), Acquired::Yes);
                    // SAFETY: under the lock; loom checks it.
                    let seen = unsafe { shared.1.read() };
                    // SAFETY: as above.
                    unsafe { shared.1.write(seen + 1) };
                    assert!(lock.release(me) && lock.release(me));
                }
            };
            let others = [thread::spawn(work(1, 2)), thread::spawn(work(2, 1))];
            work(1, 1)();
            others.into_iter().for_each(|thread| thread.join().expect("ends"));
            // SAFETY: all others have ended.
            assert_eq!(unsafe { shared.1.read() }, 3);
        });
    }

    /// Threads of two processes have the same number. One lets go while another thread of the other's process comes.
    #[test]
    fn loom_a_thread_does_not_have_what_another_of_its_process_takes_from_its_namesake() {
        loom::model(|| {
            let cell = Arc::new(Cell::default());
            let namesake = Owner { holder: 2, thread: 1 };
            assert_eq!(RLock::new(&cell).acquire_now(namesake), Acquired::Yes);
            let me = {
                let cell = cell.clone();
                thread::spawn(move || RLock::new(&cell).times(Owner { holder: 1, thread: 1 }))
            };
            let other = {
                let cell = cell.clone();
                thread::spawn(move || _ = RLock::new(&cell).acquire_now(Owner { holder: 1, thread: 2 }))
            };
            assert!(RLock::new(&cell).release(namesake));
            other.join().expect("ends");
            assert_eq!(me.join().expect("ends"), 0);
        });
    }

    #[test]
    fn loom_a_number_that_is_given_out_again_does_not_have_the_lock_of_its_last_bearer() {
        loom::model(|| {
            let cell = Arc::new(Cell::default());
            let dead = Owner { holder: 1, thread: 1 };
            assert_eq!(RLock::new(&cell).acquire_now(dead), Acquired::Yes);
            let supervisor = {
                let cell = cell.clone();
                thread::spawn(move || abandon(&cell, 1))
            };
            supervisor.join().expect("ends");
            // Two threads of the process that is 1 now, one of them with the number of the thread that died.
            let other = {
                let cell = cell.clone();
                thread::spawn(move || RLock::new(&cell).acquire_now(Owner { holder: 1, thread: 2 }))
            };
            let namesake = {
                let cell = cell.clone();
                thread::spawn(move || RLock::new(&cell).times(dead))
            };
            assert_eq!(namesake.join().expect("ends"), 0);
            assert_eq!(other.join().expect("ends"), Acquired::Yes);
        });
    }
}
