//! How a pool ends, and how it goes on when a worker does.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shoal_sys::process::Signal;

use super::start::START_TRIES;
use super::watch::Watched;
use super::{Core, Crew, Pool, Shared, State, lock};
use crate::domain::supervisor::Ended;
use crate::pool::death::Death;
use crate::pool::layout::Phase;
use crate::pool::messages::Place as Seat;
use crate::pool::tasks::{Outcome, Task};

/// For how many of the `START_TRIES` a worker counts that ended by itself before it was ready.
const START_COST: u32 = 33;
/// How long a worker has to end by itself when the pool is terminated.
const GRACE: Duration = Duration::from_millis(500);

impl Pool {
    /// Whether tasks may be submitted.
    pub fn is_open(&self) -> bool {
        // Nothing of a pool is locked in a fork: another thread may have held the lock when it was made.
        self.0.host.is_mine() && lock(&self.0.core).state == State::Open
    }

    /// No more tasks: the workers end when all submitted ones are done.
    pub fn close(&self) {
        if !self.0.host.is_mine() {
            return;
        }
        let mut core = lock(&self.0.core);
        if core.state == State::Open {
            core.state = State::Closed;
            self.0.set_low_water(&core);
        }
        self.0.end_if_done(&core);
        drop(core);
        // What lies in the rings uncollected counts as not done. The fence is the bell's: either a worker that ends its
        // last task sees the low water that was just set, or its completion is seen here.
        std::sync::atomic::fence(Ordering::SeqCst);
        self.collect();
    }

    /// Ends the workers now. Tasks that have not ended get [`Outcome::Terminated`].
    /// Workers that don't heed SIGTERM are killed half a second later.
    pub fn terminate(&self) {
        self.end(Signal::TERM);
    }

    /// As [`terminate`](Self::terminate), by SIGKILL.
    pub fn kill(&self) {
        self.end(Signal::KILL);
    }

    fn end(&self, how: Signal) {
        if self.0.host.is_mine() {
            self.0.terminate(State::Terminated, how);
        }
    }

    /// Whether all workers of a closed or terminated pool have ended.
    pub fn is_over(&self) -> bool {
        !self.0.host.is_mine() || self.0.is_over(&lock(&self.0.core))
    }
}

impl Shared {
    pub(super) fn end_if_done(&self, core: &Core) {
        if core.state != State::Open && core.tasks.len() == 0 && self.feeders.load(Ordering::Relaxed) == 0 {
            self.end_workers();
        }
    }

    pub(super) fn end_workers(&self) {
        let control = self.memory.control();
        control.phase.store(Phase::Over as u32, Ordering::SeqCst);
        control.gate.wake_all(|worker| self.memory.park(worker));
    }

    /// Tells of tasks that were taken back.
    pub(super) fn cancelled(&self, tasks: impl IntoIterator<Item = Task>) {
        let mut any = false;
        for task in tasks {
            task.tell(Outcome::Cancelled);
            any = true;
        }
        if any {
            let mut core = lock(&self.core);
            self.move_backlog(&mut core);
            self.end_if_done(&core);
            drop(core);
            self.changed();
        }
    }

    pub(super) fn terminate(&self, state: State, how: Signal) {
        let tasks = {
            let mut core = lock(&self.core);
            if matches!(core.state, State::Terminated | State::Broken(_)) {
                return;
            }
            core.state = state.clone();
            core.kill_at = Some(Instant::now() + GRACE);
            core.backlog.drain();
            core.later.clear();
            core.stopping.clear();
            Self::start_nobody(&mut core);
            (core.look_at, core.look_every) = (None, None);
            self.memory.tasks().retract_all(|_| ());
            // Or those who wait for the workers' end would look for room in the ring, over and over.
            self.set_low_water(&core);
            self.end_workers();
            core.tasks.drain()
        };
        for worker in 0..self.memory.workers() as u16 {
            self.signal(worker, how);
        }
        let (replies, remains): (Vec<_>, Vec<_>) = tasks.into_iter().map(Task::cut_off).unzip();
        lock(&self.core).remains = remains;
        for reply in replies.into_iter().flatten() {
            reply.send(match &state {
                State::Broken(why) => Outcome::NoWorkers(why.clone()),
                _ => Outcome::Terminated,
            });
        }
        self.changed();
        self.host.look_again();
        self.end_if_over();
    }

    /// Nobody will ever run a task here.
    pub(crate) fn give_up(&self, why: &str) {
        self.terminate(State::Broken(why.into()), Signal::TERM);
    }

    pub(super) fn signal(&self, worker: u16, signal: Signal) {
        let epoch = match lock(&self.core).crew[usize::from(worker)] {
            Crew::Starting { epoch } | Crew::Running { epoch, .. } => epoch,
            Crew::Resting { .. } | Crew::Gone => return,
        };
        // It fails only if the process is not ours to signal, and then there is nothing else to be done.
        let _ = self.host.signal(Seat { pool: self.number, worker, epoch }, signal);
    }

    /// Wakes everybody who waits, to look again.
    pub(super) fn changed(&self) {
        self.memory.control().bell.ring_all();
        self.tell_followers();
    }

    pub(super) fn is_over(&self, core: &Core) -> bool {
        core.state != State::Open && core.crew.iter().all(|crew| matches!(crew, Crew::Resting { .. } | Crew::Gone))
    }

    pub(super) fn end_if_over(&self) {
        let mut core = lock(&self.core);
        if self.is_over(&core) {
            let remains = std::mem::take(&mut core.remains);
            drop(core);
            drop(remains);
            self.ended.store(true, Ordering::Release);
            self.changed();
        }
    }

    /// A terminated pool's workers that do not end by themselves are killed: how long until then, `None`: nothing to do.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Duration> {
        let kill_at = {
            let mut core = lock(&self.core);
            let kill_at = core.kill_at?;
            if now < kill_at {
                return Some(kill_at - now);
            }
            core.kill_at = None;
            core.crew.len() as u16
        };
        for worker in 0..kill_at {
            self.signal(worker, Signal::KILL);
        }
        None
    }

    /// A worker has been forked.
    pub(crate) fn forked(&self, seat: Seat, pid: u32) {
        let unwanted = {
            let mut core = lock(&self.core);
            core.crew[usize::from(seat.worker)] = Crew::Running { epoch: seat.epoch, pid };
            core.watched[usize::from(seat.worker)] = Watched::default();
            let record = self.memory.record(seat.worker);
            record.answered.store(record.asked.load(Ordering::Relaxed), Ordering::Relaxed);
            if !core.put_off.is_empty() {
                // There is room for one more on its way.
                let now = Instant::now();
                core.put_off.iter_mut().for_each(|(at, _)| *at = now);
                self.look_within(&mut core, Duration::ZERO);
            }
            // Its task may have been stopped before anybody could send it a signal.
            let stopped = self.memory.record(seat.worker).current.is_stopped();
            stopped || matches!(core.state, State::Terminated | State::Broken(_))
        };
        let control = self.memory.control();
        control.gate.add(seat.worker);
        if control.phase.load(Ordering::SeqCst) == Phase::Over as u32 {
            // It may have gone to sleep before it counted as one to be woken.
            control.gate.wake_all(|worker| self.memory.park(worker));
        }
        if unwanted {
            self.signal(seat.worker, Signal::KILL);
        }
        if self.resting.load(Ordering::Relaxed) > 0 {
            // One is here, and there may be more to do.
            self.call_back();
        }
        self.changed();
    }

    /// A worker has died: its tasks are settled. First of all, while its leases still stand.
    pub(crate) fn settle(&self, seat: Seat, ended: &Ended) {
        let worker = seat.worker;
        let collecting = self.take_collector();
        self.drain_one(worker);
        let mut lost = vec![];
        self.memory.tasks().recover(worker, |task| lost.push(task));
        let record = self.memory.record(worker);
        lost.extend(record.current.take());
        record.cursors.reset();
        let started = record.started.load(Ordering::Relaxed);
        record.account.died();
        self.settling.store(true, Ordering::SeqCst);
        drop(collecting);
        let unknown = Death::of(0, 0);
        let death = if let Ended::Exited(death) = ended { death } else { &unknown };
        let ends: Vec<_> = {
            let mut core = lock(&self.core);
            // Who hears of the death does not find the dead one among the workers any more.
            core.crew[usize::from(worker)] = Crew::Starting { epoch: seat.epoch };
            let Core { recorder, tasks, .. } = &mut *core;
            if let Some(recorder) = recorder {
                for number in &lost {
                    tasks.get_mut(*number).into_iter().for_each(|task| recorder.died(worker, *number, task, started));
                }
            }
            let ends = lost.into_iter().filter_map(|number| self.died_at(&mut core, number, death)).collect();
            self.settling.store(false, Ordering::SeqCst);
            // Its slots are free again.
            self.move_backlog(&mut core);
            ends
        };
        for (reply, outcome) in ends {
            if let Some(reply) = reply {
                reply.send(outcome);
            }
        }
        self.memory.control().gate.remove(worker, |worker| self.memory.park(worker));
    }

    /// A worker has died and left nothing: it is replaced, if there may be work for another.
    pub(crate) fn refill(&self, seat: Seat, ended: &Ended) {
        let number = usize::from(seat.worker);
        let mut give_up = None;
        {
            let mut core = lock(&self.core);
            let ready = self.memory.record(seat.worker).ready.load(Ordering::Acquire) == seat.epoch + 1;
            // Killed from outside, or not forked, it says little about whether the next one will be able to start.
            let not_started = matches!(ended, Ended::NotStarted(_));
            let killed = matches!(ended, Ended::Exited(death) if [-9, -15].contains(&death.code));
            match () {
                () if ready || matches!(ended, Ended::Lost) => core.failed_starts = 0,
                () if not_started => Self::count_failed(&mut core, self.host.is_forking()),
                () => core.failed_starts += if killed { 1 } else { START_COST },
            }
            let wanted = self.wants_workers(&core);
            if wanted && core.failed_starts >= START_TRIES {
                give_up = Some(match ended {
                    Ended::Exited(death) => format!("workers end before they are ready, the last with {death}"),
                    Ended::NotStarted(why) => why.clone(),
                    Ended::Lost => "the zygote ended".into(),
                });
            }
            let epoch = seat.epoch + 1;
            let rests = wanted && ready && self.rests(&core, seat);
            core.crew[number] = match wanted && give_up.is_none() {
                true if rests => Crew::Resting { epoch: seat.epoch },
                true => Crew::Starting { epoch },
                false => Crew::Gone,
            };
            self.resting.fetch_add(usize::from(rests), Ordering::Relaxed);
            drop(core);
            if rests {
                // What was published meanwhile did not find it resting.
                self.call_back();
            } else if wanted && give_up.is_none() && not_started {
                self.start_later(&mut lock(&self.core), Seat { epoch, ..seat });
            } else if wanted && give_up.is_none() {
                self.start(Seat { epoch, ..seat });
            } else {
                self.end_if_done(&lock(&self.core));
            }
        }
        if let Some(why) = give_up {
            self.give_up(&why);
        }
        self.changed();
        self.end_if_over();
    }
}
