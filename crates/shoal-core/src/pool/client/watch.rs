//! What the supervisor looks at while tasks run: how long they take, how much memory their workers have, whether these
//! answer.
//!
//! It comes by when it said it would (`look_at`), and nobody has to wake it before: a task that begins now is not over
//! before its own limit, and the supervisor looks at least that often while there are such tasks (`look_every`). So
//! limits cost the submitter a comparison.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shoal_sys::clock;
use shoal_sys::process::Signal;
use shoal_sys::procfs;

use super::fate::MOMENT;
use super::{Core, Crew, Shared, lock};
use crate::pool::tasks::{Stop, Task};

/// How often the memory of workers is looked at. One that takes more in between than there is, the kernel will see to.
const MEMORY: Duration = Duration::from_millis(50);
/// How long a worker has to answer.
const REPLY: Duration = Duration::from_secs(1);

/// What is known of a worker between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watched {
    /// When it was asked for an answer that has not come.
    asked: Option<Instant>,
    /// Whether it was reported.
    pub(super) silent: bool,
}

/// A task whose worker has more memory to itself than it may.
#[derive(Clone, Copy, Debug)]
struct Heavy {
    task: u64,
    why: Stop,
}

/// What came of asking a worker for an answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// It is to be asked, now.
    now: bool,
    /// It was silent, and has answered after all.
    again: bool,
    /// It was silent for too long, since now.
    in_vain: bool,
}

impl Shared {
    /// The supervisor is to look within so long.
    pub(super) fn look_within(&self, core: &mut Core, time: Duration) {
        let at = from_now(time);
        if core.look_at.is_none_or(|look_at| look_at > at) {
            core.look_at = Some(at);
            self.host.look_again();
        }
    }

    /// How often a task wants to be looked at.
    pub(super) fn period_of(&self, task: &Task) -> Option<Duration> {
        earliest([task.terms().timeout, self.period()])
    }

    /// How often any task wants to be looked at.
    fn period(&self) -> Option<Duration> {
        earliest([self.limits.private_memory.map(|_| MEMORY), self.limits.answer])
    }

    /// A task has come that wants to be looked at so often. Costs nothing, not even a look at the clock, if that is so.
    pub(super) fn look_every(&self, core: &mut Core, period: Duration) {
        if core.look_every.is_none_or(|now| now > period) {
            core.look_every = Some(period);
            self.look_within(core, period);
        }
    }

    /// Stops tasks whose time is over or whose workers have too much memory, lets those begin whose pause is over,
    /// asks workers that have long been at their task for an answer. How long until the next look.
    pub(crate) fn watch(&self) -> Option<Duration> {
        let heavy = self.weigh();
        let mut core = lock(&self.core);
        core.look_at?;
        let now = Instant::now();
        let mut begun = false;
        while core.later.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, number))) = core.later.pop() else { break };
            self.queue_again(&mut core, number);
            begun = true;
        }
        let due = self.due(&mut core, now);
        let mut victims = self.stop_workers(&mut core);
        let mut next = core.later.peek().map(|Reverse((at, _))| at.saturating_duration_since(now));
        next = earliest([next, core.put_off.iter().map(|(at, _)| at.saturating_duration_since(now)).min()]);
        core.parting.retain(|(until, seat)| {
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                victims.push(*seat);
            } else {
                next = earliest([next, Some(left)]);
            }
            !left.is_zero()
        });
        if !core.stopping.is_empty() {
            next = earliest([next, Some(MOMENT)]);
        }
        let any = core.tasks.len() > 0;
        core.look_every = earliest([core.tasks.shortest_limit(), self.period().filter(|_| any)]);
        let (mut parting, mut asked, mut silent, mut back) = (vec![], vec![], vec![], vec![]);
        if let Some(period) = core.look_every {
            // What begins from now on does not want to be looked at before that.
            next = earliest([next, Some(period.max(MOMENT))]);
            for worker in 0..self.memory.workers() as u16 {
                let Crew::Running { pid, .. } = core.crew[usize::from(worker)] else { continue };
                let Some((number, spent)) = self.at(worker) else { continue };
                let seat = self.seat(&core.crew, worker);
                let stop = self.reason_to_stop(&mut core, number, spent, &mut next);
                let heavy = heavy.iter().find(|heavy| heavy.task == number).map(|heavy| heavy.why);
                if stop.or(heavy).is_some_and(|why| self.stop_at(&mut core, worker, number, why)) {
                    parting.extend(seat);
                } else if self.limits.answer.is_some_and(|limit| spent >= limit) {
                    let reply = self.ask(&mut core, worker, now);
                    asked.extend(seat.filter(|_| reply.now));
                    next = earliest([next, reply.now.then_some(REPLY)]);
                    silent.extend(reply.in_vain.then_some((pid, spent)));
                    back.extend(reply.again.then_some(pid));
                }
            }
        }
        core.look_at = next.map(from_now);
        drop(core);
        self.kill(victims);
        self.part(parting);
        silent.into_iter().for_each(|(pid, spent)| self.report(pid, spent));
        for pid in back {
            self.host.complain(&self.voice, format!("shoal: worker {pid} answers again\n"));
        }
        for seat in asked {
            // Should it have ended meanwhile, it needs not answer.
            let _ = self.host.signal(seat, Signal::URG);
        }
        if begun {
            self.announce();
        }
        self.start_due(due);
        next
    }

    /// Looks what memory workers that are at a task have, if it is time. The kernel is asked with nothing locked: it may
    /// take its time, and submitting wants the lock.
    fn weigh(&self) -> Vec<Heavy> {
        let Some(limit) = self.limits.private_memory else { return vec![] };
        let at_work: Vec<_> = {
            let mut core = lock(&self.core);
            let now = Instant::now();
            if core.look_at.is_none() || core.weighed.is_some_and(|at| now - at < MEMORY / 2) {
                return vec![];
            }
            core.weighed = Some(now);
            let running = |worker: u16| match core.crew[usize::from(worker)] {
                Crew::Running { pid, .. } => Some((self.memory.record(worker).current.running()?, pid)),
                _ => None,
            };
            (0..self.memory.workers() as u16).filter_map(running).collect()
        };
        let heavy = |(task, pid)| {
            let used = procfs::private_memory(pid)?;
            (used > limit).then_some(Heavy { task, why: Stop::OverMemory { used, limit } })
        };
        at_work.into_iter().filter_map(heavy).collect()
    }

    /// The task that a worker is at, and for how long. That time may already be a later task's, never an earlier one's.
    fn at(&self, worker: u16) -> Option<(u64, Duration)> {
        let record = self.memory.record(worker);
        let number = record.current.running()?;
        let started = record.started.load(Ordering::Relaxed);
        Some((number, Duration::from_nanos(clock::nanos().saturating_sub(started))))
    }

    /// Whether the time of a task is over, or when it will be.
    fn reason_to_stop(
        &self,
        core: &mut Core,
        number: u64,
        spent: Duration,
        next: &mut Option<Duration>,
    ) -> Option<Stop> {
        let timeout = core.tasks.get_mut(number)?.terms().timeout?;
        if spent >= timeout {
            return Some(Stop::TimedOut);
        }
        *next = earliest([*next, Some(timeout - spent)]);
        None
    }

    /// Stops a task at its worker; `false`: it has just ended.
    fn stop_at(&self, core: &mut Core, worker: u16, number: u64, why: Stop) -> bool {
        let Some(task) = core.tasks.get_mut(number).filter(|task| task.stop() != Some(Stop::Cancelled)) else {
            return false;
        };
        task.more().stop = Some(why);
        let stopped = self.memory.record(worker).current.stop(number);
        if !stopped {
            task.more().stop = None;
        }
        stopped
    }

    /// Asks a worker for an answer, if it has given all it was asked for; else sees how long it has been silent.
    fn ask(&self, core: &mut Core, worker: u16, now: Instant) -> Asked {
        let record = self.memory.record(worker);
        let asked = record.asked.load(Ordering::Relaxed);
        let watched = &mut core.watched[usize::from(worker)];
        if record.answered.load(Ordering::Acquire) == asked {
            // Often enough to know, and seldom enough not to disturb what may not like signals.
            let due = watched.asked.is_none_or(|at| Some(now - at) >= self.limits.answer);
            let answered = std::mem::take(&mut watched.silent);
            if due {
                watched.asked = Some(now);
                record.asked.store(asked.wrapping_add(1), Ordering::Release);
            }
            return Asked { now: due, again: answered, in_vain: false };
        }
        let in_vain = !watched.silent && watched.asked.is_some_and(|at| now - at >= REPLY);
        watched.silent |= in_vain;
        Asked { now: false, again: false, in_vain }
    }

    /// Says that a worker does not answer, and why, if anybody knows.
    fn report(&self, pid: u32, spent: Duration) {
        let why = if procfs::is_stopped(pid) == Some(true) {
            "it was stopped by a signal, and goes on with SIGCONT"
        } else {
            "it runs native code that does not come back to the interpreter"
        };
        let seconds = spent.as_secs();
        let said = format!("shoal: worker {pid} has been at its task for {seconds} s and does not answer: {why}\n");
        self.host.complain(&self.voice, said);
    }
}

/// A moment that is so far away; one that no clock will show is as good as any other.
pub(super) fn from_now(time: Duration) -> Instant {
    Instant::now() + time.min(Duration::from_secs(1 << 30))
}

fn earliest<const N: usize>(times: [Option<Duration>; N]) -> Option<Duration> {
    times.into_iter().flatten().min()
}
