//! What becomes of tasks that do not come to an end by themselves: their worker dies, their time is over, nobody wants
//! them any more. Another try, or an end.
//!
//! All of it is decided under the `core` lock: a task that is not in the table has ended, once. Who is to be stopped
//! is marked first; then the word that says what its worker is at is swapped (`current`), so that the signal hits
//! nobody else. See `docs/design/faults.md`.

use std::cmp::Reverse;
use std::time::Duration;

use shoal_sys::process::Signal;

use super::watch::from_now;
use super::{Core, Crew, Pool, Shared, lock};
use crate::domain::host::LAST_WORD;
use crate::pool::death::{Cause, Death};
use crate::pool::messages::Place as Seat;
use crate::pool::tasks::{Outcome, Reply, Stop};

/// How often to look for a worker that has taken a task which is to be stopped, but not yet noted it.
pub(super) const MOMENT: Duration = Duration::from_millis(1);

/// How long a worker that is to end has to say where it is. It takes less than a millisecond, unless it was stopped by a
/// signal, or waits in the kernel.
const PARTING: Duration = Duration::from_millis(100);

impl Pool {
    /// Takes tasks back; if `running`, also stops those that workers run, by ending these.
    pub fn stop_all(&self, numbers: impl IntoIterator<Item = u64>, running: bool) {
        // First what is queued, or who comes in the place of a worker that is ended would begin with it.
        let taken: Vec<u64> = numbers.into_iter().filter(|number| !self.cancel(*number)).collect();
        if running {
            taken.into_iter().for_each(|number| _ = self.stop(number));
        }
    }

    /// Takes a task back, or stops it by ending its worker if one runs it. `false`: it has ended.
    ///
    /// Its outcome is [`Outcome::Cancelled`], at once.
    pub fn stop(&self, number: u64) -> bool {
        if !self.0.host.is_mine() {
            return false;
        }
        // What lies in the rings has ended.
        self.collect();
        if self.cancel(number) {
            return true;
        }
        let (reply, victims) = {
            let mut core = lock(&self.0.core);
            let Some(number) = core.tasks.now(number) else { return false };
            let Some(task) = core.tasks.get_mut(number).filter(|task| task.stop() != Some(Stop::Cancelled)) else {
                return false;
            };
            let reply = task.reply.clone();
            task.more().stop = Some(Stop::Cancelled);
            core.stopping.push(number);
            let victims = self.0.stop_workers(&mut core);
            if !core.stopping.is_empty() {
                self.0.look_within(&mut core, MOMENT);
            }
            (reply, victims)
        };
        self.0.kill(victims);
        reply.send(Outcome::Cancelled);
        self.0.changed();
        true
    }
}

impl Shared {
    /// Lets a task that has ended without a result be tried again, if its terms are so. `false`: that was the end.
    pub(super) fn try_again(&self, core: &mut Core, number: u64) -> bool {
        let Some(task) = core.tasks.get_mut(number) else { return false };
        let retries = task.terms().retries;
        let more = task.more();
        more.tried += 1;
        let tried = more.tried;
        if tried > retries || more.stop == Some(Stop::Cancelled) {
            return false;
        }
        more.stop = None;
        task.in_ring = false;
        let pause = task.terms().pause_after(tried);
        let number = core.tasks.renew(number);
        if pause.is_zero() {
            self.queue_again(core, number);
            self.memory.control().gate.published(|worker| self.memory.park(worker));
        } else {
            core.later.push(Reverse((from_now(pause), number)));
            self.look_within(core, pause);
        }
        true
    }

    /// The worker that was at a task has died. Whom to tell what, if that ends the task.
    pub(super) fn died_at(&self, core: &mut Core, number: u64, death: &Death) -> Option<(Option<Reply>, Outcome)> {
        let task = core.tasks.get_mut(number)?;
        let (timeout, retry_timeouts) = (task.terms().timeout, task.terms().retry_timeouts);
        let overran = timeout.filter(|_| task.stop() == Some(Stop::TimedOut));
        let cause = match (overran, task.stop()) {
            (Some(limit), _) => Cause::TimedOut(limit),
            (None, Some(Stop::OverMemory { used, limit })) => Cause::MemoryLimit { used, limit },
            _ => death.cause,
        };
        // That it was asked first is nobody's business.
        let asked = task.stop().is_some() && death.code == -LAST_WORD.as_raw();
        let code = if asked { -Signal::KILL.as_raw() } else { death.code };
        task.more().deaths.push(Death { cause, code, ..death.clone() });
        if (overran.is_none() || retry_timeouts) && self.try_again(core, number) {
            return None;
        }
        let (reply, failed) = core.tasks.remove(number)?.failed();
        let outcome = match overran {
            Some(limit) => Outcome::TimedOut(limit, failed),
            None => Outcome::Died(failed),
        };
        Some((reply, outcome))
    }

    /// Marks the workers of tasks that are to be stopped: from now on these do not end. Who is to be killed for it.
    pub(super) fn stop_workers(&self, core: &mut Core) -> Vec<Seat> {
        let mut victims = vec![];
        let Core { stopping, tasks, crew, .. } = core;
        stopping.retain(|number| {
            // One that has ended meanwhile needs nothing more.
            let worker = tasks.get_mut(*number).map(|_| self.worker_at(*number));
            victims.extend(worker.flatten().and_then(|worker| self.seat(crew, worker)));
            worker == Some(None)
        });
        victims
    }

    fn worker_at(&self, number: u64) -> Option<u16> {
        (0..self.memory.workers() as u16).find(|worker| self.memory.record(*worker).current.stop(number))
    }

    pub(super) fn seat(&self, crew: &[Crew], worker: u16) -> Option<Seat> {
        match crew[usize::from(worker)] {
            Crew::Starting { epoch } | Crew::Running { epoch, .. } => Some(Seat { pool: self.number, worker, epoch }),
            Crew::Resting { .. } | Crew::Gone => None,
        }
    }

    /// Ends workers that are stopped at their task, and has them say first where they are.
    pub(super) fn part(&self, victims: Vec<Seat>) {
        let (asked, silent): (Vec<_>, Vec<_>) = victims.into_iter().partition(|seat| self.host.ask_where(*seat));
        self.kill(silent);
        if !asked.is_empty() {
            let mut core = lock(&self.core);
            let until = from_now(PARTING);
            core.parting.extend(asked.into_iter().map(|seat| (until, seat)));
            self.look_within(&mut core, PARTING);
        }
    }

    pub(super) fn kill(&self, victims: Vec<Seat>) {
        for seat in victims {
            // One whose descriptor is not there yet is killed when it is known to have been forked.
            let _ = self.host.signal(seat, Signal::KILL);
        }
    }
}
