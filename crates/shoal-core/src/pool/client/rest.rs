//! Workers that end for want of work, and come back when there is some.
//!
//! A worker that has been idle for as long as the pool allows leaves by itself: it takes itself off the gate, so that
//! nobody relies on it, looks once more for a task, and says in its record that it is only resting. The supervisor finds
//! that when it has ended, and does not replace it. Whoever publishes tasks looks whether there are more of them than
//! workers on their way to them, and has as many forked.

use std::sync::atomic::Ordering;

use super::{Core, Crew, Shared, lock};
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
        let seats = {
            let mut core = lock(&self.core);
            let mut missing = self.missing(&core);
            let mut seats = vec![];
            for (worker, crew) in core.crew.iter_mut().enumerate() {
                if let (Crew::Resting { epoch }, 1..) = (*crew, missing) {
                    *crew = Crew::Starting { epoch: epoch + 1 };
                    seats.push(Seat { pool: self.number, worker: worker as u16, epoch: epoch + 1 });
                    missing -= 1;
                }
            }
            self.resting.fetch_sub(seats.len(), Ordering::Relaxed);
            seats
        };
        for seat in seats {
            self.fork(seat);
        }
    }

    /// Tasks that are queued and for which no worker is on its way.
    fn missing(&self, core: &Core) -> usize {
        let starting = core.crew.iter().filter(|crew| matches!(crew, Crew::Starting { .. })).count();
        let idle = self.memory.control().gate.idle();
        (self.memory.tasks().queued() as usize + core.backlog.len()).saturating_sub(starting + idle)
    }

    /// Whether the worker of that seat has ended for want of work, and there still is none for it.
    pub(super) fn rests(&self, core: &Core, seat: Seat) -> bool {
        self.memory.record(seat.worker).left.load(Ordering::Acquire) == seat.epoch + 1 && self.missing(core) == 0
    }

    /// Asks for a worker. If there can't be one, there won't be another.
    pub(super) fn fork(&self, seat: Seat) {
        if let Err(error) = self.host.fork(seat, self.memory.fd(), self.output) {
            lock(&self.core).crew[usize::from(seat.worker)] = Crew::Gone;
            self.give_up(&error.to_string());
        }
    }
}
