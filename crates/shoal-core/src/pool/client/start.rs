//! How workers are asked for, and what becomes of those that could not be had.
//!
//! Descriptors, processes and memory may be short for a moment. So a worker that can't be had now is asked for again, a
//! little later, and the tasks wait meanwhile; unless that fails too often in a row.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shoal_sys::socket::TOO_MANY_UNDER_WAY;

use super::{Core, Crew, Shared, State, lock};
use crate::error::{Error, Result};
use crate::pool::messages::Place as Seat;

/// How often in a row workers may end before they are ready, or not be had at all, until the pool is given up.
pub(super) const START_TRIES: u32 = 99;
/// How long until a worker that could not be had is asked for again.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether it is because of others that are on their way.
fn is_crowded(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(TOO_MANY_UNDER_WAY)
}

impl Shared {
    /// Whether there may be work for another worker.
    pub(super) fn wants_workers(&self, core: &Core) -> bool {
        match core.state {
            State::Open => true,
            State::Closed => core.tasks.len() > 0 || self.feeders.load(Ordering::Relaxed) > 0,
            State::Terminated | State::Broken(_) => false,
        }
    }

    /// Asks for a worker.
    pub(super) fn ask_for(&self, seat: Seat) -> Result<()> {
        self.host.fork(seat, self.memory.fd(), self.setup.clone(), self.output, &self.voice)
    }

    /// The pool can't be made: no others than the first so many workers were asked for.
    pub(super) fn expect_only(&self, workers: u16) {
        lock(&self.core).crew[usize::from(workers)..].fill(Crew::Gone);
    }

    /// Asks for a worker of a new pool; later, if just too many are on their way, of this program or another.
    pub(super) fn ask_at_first(&self, seat: Seat) -> Result<()> {
        match self.ask_for(seat) {
            // From a second look nobody may be on their way any more.
            Err(Error::Os(error)) if is_crowded(&error) => {
                self.start_later(&mut lock(&self.core), seat);
                Ok(())
            }
            asked => asked,
        }
    }

    /// Asks for a worker; again later, if it can't be had: then `false`.
    pub(super) fn start(&self, seat: Seat) -> bool {
        let Err(error) = self.ask_for(seat) else { return true };
        // While others are on their way it may be they who take what is short.
        let crowded = self.host.is_forking();
        let hopeless = {
            let mut core = lock(&self.core);
            Self::count_failed(&mut core, crowded);
            let hopeless = !crowded && core.failed_starts >= START_TRIES;
            if hopeless || !self.wants_workers(&core) {
                core.crew[usize::from(seat.worker)] = Crew::Gone;
            } else {
                self.start_later(&mut core, seat);
            }
            hopeless
        };
        if hopeless {
            self.give_up(&error.to_string());
        }
        self.end_if_over();
        false
    }

    /// A worker can't be had. However many can't at one moment, they count as one; and not while others are on their way.
    pub(super) fn count_failed(core: &mut Core, crowded: bool) {
        let now = Instant::now();
        if !crowded && core.failed_at.is_none_or(|at| now - at >= PAUSE) {
            core.failed_starts += 1;
            core.failed_at = Some(now);
        }
    }

    /// Asks for a worker in a moment.
    pub(super) fn start_later(&self, core: &mut Core, seat: Seat) {
        core.put_off.push((Instant::now() + PAUSE, seat));
        self.look_within(core, PAUSE);
    }

    /// Those that were put off until now.
    pub(super) fn due(&self, core: &mut Core, now: Instant) -> Vec<Seat> {
        core.put_off.extract_if(.., |(at, _)| *at <= now).map(|(_, seat)| seat).collect()
    }

    /// Asks for workers that were put off, if they are still wanted. Not with the `core` lock held.
    pub(super) fn start_due(&self, seats: Vec<Seat>) {
        let mut seats = seats.into_iter();
        while let Some(seat) = seats.next() {
            let mut core = lock(&self.core);
            if !self.wants_workers(&core) {
                // Nor will it ever want one again.
                core.crew[usize::from(seat.worker)] = Crew::Gone;
                continue;
            }
            drop(core);
            if !self.start(seat) {
                // Where one can't be had the others can't either.
                let mut core = lock(&self.core);
                seats.by_ref().for_each(|seat| self.start_later(&mut core, seat));
            }
        }
        self.end_if_over();
    }

    /// The pool is over: those that were put off are wanted no more.
    pub(super) fn start_nobody(core: &mut Core) {
        for (_, seat) in std::mem::take(&mut core.put_off) {
            core.crew[usize::from(seat.worker)] = Crew::Gone;
        }
    }
}
