//! An event: a flag that is set or not, and those who wait until it is.
//!
//! ```text
//! bit 0  SET     bit 1  WAITERS     bits 2..  how often it was set
//! ```
//!
//! Setting is one compare-and-swap, which counts; a waiter waits until the flag is set or the count is another one than when
//! it came. So it does not miss an event that was set and cleared again while it slept.
//!
//! Why no wake-up is lost: a waiter sleeps only on a word that says WAITERS, and the kernel compares it. Whoever sets the flag
//! takes the mark away and wakes all. Should it die in between, the supervisor wakes them (`stir`).

use super::atomics::{AtomicU32, Ordering};
use super::futex::{Futex, Wake};
use super::patience::{End, Patience};
#[cfg(not(loom))]
use super::spin;
use crate::crash;
use crate::memory::lease::Cell;

const SET: u32 = 1;
const WAITERS: u32 = 2;
const ONE: u32 = 4;

/// The event in a cell.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a>(&'a Futex);

impl<'a> Event<'a> {
    /// The event that lies in `cell`.
    pub fn new(cell: &'a Cell) -> Self {
        Self(&cell.futex)
    }

    fn word(&self) -> &'a AtomicU32 {
        self.0.word()
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.word().load(Ordering::Acquire) & SET != 0
    }

    /// Sets the flag, and wakes all who wait.
    pub fn set(&self) {
        let mut now = self.word().load(Ordering::Relaxed);
        loop {
            // If it is set already, that is written again: what we did before is seen by whoever waits from now on. Only if
            // it still is: somebody may clear it, and another one wait, as we look.
            let set = if now & SET == 0 { (now & !WAITERS | SET).wrapping_add(ONE) } else { now };
            match self.word().compare_exchange_weak(now, set, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(changed) => now = changed,
            }
        }
        if now & SET == 0 {
            crash::point("event: set");
        }
        // Nobody marks one that is set.
        if now & (SET | WAITERS) == WAITERS {
            self.0.wake(u32::MAX);
        }
    }

    /// Takes the flag away.
    pub fn clear(&self) {
        self.word().fetch_and(!SET, Ordering::AcqRel);
    }

    /// Waits until the flag is set, or was in the meantime.
    pub fn wait(&self, patience: &mut Patience<'_>) -> Result<(), End> {
        let before = self.word().load(Ordering::Acquire) & !(SET | WAITERS);
        let come = |now: u32| now & SET != 0 || now & !(SET | WAITERS) != before;
        #[cfg(not(loom))]
        if !come(self.word().load(Ordering::Acquire)) {
            spin::briefly(|| come(self.word().load(Ordering::Relaxed)));
        }
        loop {
            let now = self.word().load(Ordering::Acquire);
            if come(now) {
                return Ok(());
            }
            let rested = patience.rest(|timeout| {
                let marked = now & WAITERS != 0
                    || self.word().compare_exchange(now, now | WAITERS, Ordering::AcqRel, Ordering::Relaxed).is_ok();
                crash::point("event: marked");
                if marked { self.0.wait(now | WAITERS, timeout) } else { Wake::Woken }
            });
            match rested {
                Ok(()) => {}
                Err(End::TimedOut) if come(self.word().load(Ordering::Acquire)) => return Ok(()),
                // Why it was told to stop is all that the caller of one who was hears of.
                Err(end) => return Err(end),
            }
        }
    }
}

/// A process has died, perhaps before it woke those whom it had set the event for.
pub fn stir(cell: &Cell) {
    cell.futex.wake(u32::MAX);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    fn short() -> Patience<'static> {
        Patience::within(Some(Duration::from_millis(5)))
    }

    #[test]
    fn it_is_set_until_it_is_cleared() {
        let cell = Cell::default();
        let event = Event::new(&cell);
        assert!(!event.is_set());
        assert_eq!(event.wait(&mut short()), Err(End::TimedOut));
        for _ in 0..2 {
            event.set();
            assert!(event.is_set());
            assert_eq!(event.wait(&mut short()), Ok(()));
        }
        event.clear();
        assert!(!event.is_set());
        assert_eq!(event.wait(&mut short()), Err(End::TimedOut));
    }

    #[test]
    fn who_is_told_to_stop_stops_even_if_it_is_set_by_then() {
        let cell = Cell::default();
        let event = Event::new(&cell);
        let mut stop = || {
            event.set();
            true
        };
        assert_eq!(event.wait(&mut Patience::endless().unless(&mut stop)), Err(End::Stopped));
    }

    #[test]
    fn who_waits_hears_of_it_even_if_it_is_cleared_at_once() {
        for _ in 0..50 {
            let cell = Cell::default();
            let event = Event::new(&cell);
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| event.wait(&mut Patience::endless()));
                while event.word().load(Ordering::SeqCst) & WAITERS == 0 {
                    std::thread::yield_now();
                }
                event.set();
                event.clear();
                assert_eq!(waiter.join().expect("ends"), Ok(()));
            });
        }
    }
}

#[cfg(all(test, loom))]
#[allow(unsafe_code, reason = "cells that loom watches")]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::atomics::DataCell;

    #[test]
    fn loom_who_waits_sees_what_was_done_before() {
        let mut explored = loom::model::Builder::new();
        explored.preemption_bound = Some(3);
        explored.check(|| {
            let shared = Arc::new((Cell::default(), DataCell::new(0u32)));
            let waiters = [1, 2].map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    assert_eq!(Event::new(&shared.0).wait(&mut Patience::endless()), Ok(()));
                    // SAFETY: nobody writes after the event is set; loom checks it.
                    assert_eq!(unsafe { shared.1.read() }, 5);
                })
            });
            // SAFETY: nobody reads before the event is set; loom checks it.
            unsafe { shared.1.write(5) };
            Event::new(&shared.0).set();
            waiters.into_iter().for_each(|waiter| waiter.join().expect("ends"));
        });
    }

    #[test]
    fn loom_who_sets_it_as_another_clears_it_wakes_who_waits_since() {
        loom::model(|| {
            let shared = Arc::new((Cell::default(), AtomicU32::new(0)));
            let event = Event::new(&shared.0);
            event.set();
            let waiter = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let event = Event::new(&shared.0);
                    event.clear();
                    shared.1.store(1, Ordering::SeqCst);
                    assert_eq!(event.wait(&mut Patience::endless()), Ok(()));
                })
            };
            event.set();
            while shared.1.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            // Either it was set after it was cleared, and the waiter goes on, or before.
            if !event.is_set() {
                event.set();
            }
            waiter.join().expect("ends");
        });
    }

    #[test]
    fn loom_who_waits_does_not_miss_a_pulse() {
        loom::model(|| {
            let cell = Arc::new(Cell::default());
            let waiter = {
                let cell = cell.clone();
                thread::spawn(move || assert_eq!(Event::new(&cell).wait(&mut Patience::endless()), Ok(())))
            };
            let event = Event::new(&cell);
            while event.word().load(Ordering::Acquire) & WAITERS == 0 {
                thread::yield_now();
            }
            event.set();
            event.clear();
            waiter.join().expect("ends");
        });
    }
}
