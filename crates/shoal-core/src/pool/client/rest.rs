//! Workers that end for want of work, and come back when there is some.
//!
//! A worker that has been idle for as long as the pool allows leaves by itself: it takes itself off the gate, so that
//! nobody relies on it, looks once more for a task, and says in its record that it is only resting. The supervisor finds
//! that when it has ended, and does not replace it. Whoever publishes tasks looks whether there are more of them than
//! workers on their way to them, and has as many forked.

use std::sync::atomic::Ordering;

use super::{Core, Shared, lock};
use crate::pool::crew;
use crate::pool::messages::Place as Seat;

impl Shared {
    /// Tells the workers that tasks were queued. Not with the `core` lock held.
    pub(super) fn announce(&self) {
        self.memory.control().gate.published(|worker| self.memory.park(worker));
        if self.resting.load(Ordering::Relaxed) > 0 {
            self.call_back();
        }
    }

    /// Has workers forked that rest, if there is more to do than others will see to.
    pub(super) fn call_back(&self) {
        self.call_back_for(|core| self.missing(core));
    }

    /// Tasks have been queued for a while, whoever is relied on to take them: it may have been stopped. Wakes all, and has
    /// one forked that rests. Not with the `core` lock held.
    pub(super) fn help_out(&self) {
        let queued = self.memory.tasks().queued() as usize;
        if queued == 0 {
            return;
        }
        self.memory.control().gate.wake_all(|worker| self.memory.park(worker));
        if self.resting.load(Ordering::Relaxed) > 0 {
            self.call_back_for(|core| crew::missing(&core.crew, queued, 0).min(1));
        }
    }

    fn call_back_for(&self, missing: impl FnOnce(&Core) -> usize) {
        let seats = {
            let mut core = lock(&self.core);
            let missing = missing(&core);
            let called = crew::call_back(&mut core.crew, missing).into_iter();
            let seats: Vec<_> = called.map(|(worker, epoch)| Seat { pool: self.number, worker, epoch }).collect();
            self.resting.fetch_sub(seats.len(), Ordering::Relaxed);
            seats
        };
        for seat in seats {
            self.start(seat);
        }
    }

    /// Tasks that are queued and for which no worker is on its way.
    fn missing(&self, core: &Core) -> usize {
        let queued = self.memory.tasks().queued() as usize + core.backlog.len();
        crew::missing(&core.crew, queued, self.memory.control().gate.idle())
    }

    /// Whether the worker of that seat has ended for want of work, and there still is none for it.
    pub(super) fn rests(&self, core: &Core, seat: Seat) -> bool {
        crew::has_left(&self.memory.record(seat.worker).left, seat.epoch) && self.missing(core) == 0
    }
}
