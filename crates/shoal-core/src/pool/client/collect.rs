//! From the completion rings to whoever waits.
//!
//! Whoever gets the `collector` lock leads: it reads all rings, for everybody, and sleeps on the bell. The others
//! follow: they sleep until the leader has found something, or leaves. The supervisor, who needs the lock to settle a
//! death, counts itself in `wanted`; then the leader lets go at once.

#![allow(unsafe_code, reason = "rings, and payloads in shared memory")]

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use shoal_sys::clock;
use shoal_sys::process::Signal;

use super::{Pool, Shared, lock};
use crate::crash;
use crate::error::{Error, Result};
use crate::memory::heap::{BlockId, Lease};
use crate::memory::place::Place;
use crate::pool::completion_ring::{CompletionRing, IN_BLOCK, Message};
use crate::pool::in_block;
use crate::pool::tasks::{Outcome, Payload};
use crate::pool::terms::AGAIN;
use crate::sync::bell::Tone;
use crate::sync::futex::Wake;
use crate::sync::spin::{self, Spun};

/// How many answers in a row may come after a yield until the client sleeps instead.
const YIELDS: u32 = 8;
/// How often the pool's own thread looks by itself.
const PATROL: Duration = Duration::from_secs(1);
/// The longest a wait goes without a look at signals and the clock.
const SLICE: Duration = Duration::from_millis(50);

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is there.
    Done,
    /// The time was up.
    TimedOut,
    /// The caller said so.
    Interrupted,
    /// This process is a fork of the client: what is waited for will never come here.
    Forked,
}

impl Pool {
    /// Collects what lies there, without waiting.
    pub fn collect(&self) {
        if !self.0.host.is_mine() {
            return;
        }
        if let Ok(_collecting) = self.0.collector.try_lock() {
            self.0.drain();
        }
        self.0.tell_followers();
    }

    /// Waits until `done`, collecting results meanwhile. `interrupted` is asked now and then, with no lock held.
    pub fn wait(
        &self,
        tone: Tone,
        mut done: impl FnMut() -> bool,
        timeout: Option<Duration>,
        mut interrupted: impl FnMut() -> bool,
    ) -> Waited {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if done() {
                return Waited::Done;
            }
            if !self.0.host.is_mine() {
                return Waited::Forked;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.collect();
                return if done() { Waited::Done } else { Waited::TimedOut };
            }
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            while self.0.wanted.load(Ordering::SeqCst) > 0 {
                std::thread::sleep(Duration::from_micros(20));
            }
            let ended = match self.0.collector.try_lock() {
                Ok(collecting) => {
                    let ended = self.0.lead(tone, &mut done, slice);
                    drop(collecting);
                    self.0.tell_followers();
                    ended
                }
                Err(TryLockError::WouldBlock) => self.0.follow(tone, &mut done, slice),
                Err(TryLockError::Poisoned(_)) => {
                    self.0.collector.clear_poison();
                    false
                }
            };
            if ended {
                return Waited::Done;
            }
            if interrupted() {
                return Waited::Interrupted;
            }
            self.0.help_out();
        }
    }

    /// Wakes all who wait, to look again.
    pub fn wake(&self) {
        if self.0.host.is_mine() {
            self.0.changed();
        }
    }
}

impl Shared {
    fn is_backlogged(&self) -> bool {
        self.backlogged.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has_completions(&self) -> bool {
        (0..self.memory.workers() as u16).any(|worker| self.memory.record(worker).cursors.filled() > 0)
    }

    /// Whether there is what the bell rings for in this tone.
    fn calls_for(&self, tone: Tone) -> bool {
        let (queued, low) = (self.memory.tasks().queued(), self.memory.control().low_water.load(Ordering::Relaxed));
        let filled = || (0..self.memory.workers() as u16).map(|worker| self.memory.record(worker).cursors.filled());
        let (_, capacity) = self.memory.completion_bytes(0);
        let room = || {
            filled().any(|bytes| bytes > capacity as u64 / 2)
                || (self.is_backlogged() && queued <= low && self.memory.tasks().has_room())
        };
        match tone {
            Tone::Completion => self.has_completions() || room(),
            Tone::Idle => (queued == 0 && self.has_completions()) || room(),
            Tone::Room => room(),
        }
    }

    /// Waits as the one who collects. `true`: done.
    fn lead(&self, tone: Tone, done: &mut impl FnMut() -> bool, slice: Duration) -> bool {
        let until = Instant::now() + slice;
        let control = self.memory.control();
        loop {
            let found = self.drain();
            if done() {
                return true;
            }
            if found == 0 {
                let ready = || self.has_completions();
                let budget = || control.gate.running() + control.gate.spinning() < control.cpus;
                // Who does not want to hear of each completion has much to wait for, and leaves the CPU to the workers.
                // A follower may want to hear more than the leader itself.
                let tone = if self.keen.load(Ordering::SeqCst) > 0 { Tone::Completion } else { tone };
                let spun = tone == Tone::Completion && budget() && self.spin(ready, budget);
                if !spun {
                    let left = until.saturating_duration_since(Instant::now());
                    // All that is rung for is looked at once more, or it could have come just before.
                    let keen = || tone != Tone::Completion && self.keen.load(Ordering::SeqCst) > 0;
                    let look = || self.calls_for(tone) || keen() || self.wanted.load(Ordering::SeqCst) > 0 || done();
                    let wake = control.bell.wait(tone, look, Some(left));
                    if wake == Wake::Interrupted {
                        return false;
                    }
                }
                if done() {
                    return true;
                }
            } else {
                self.tell_followers();
            }
            if Instant::now() >= until || self.wanted.load(Ordering::SeqCst) > 0 {
                return false;
            }
        }
    }

    /// Spins for a completion, unless the last ones all came after a yield. Then the worker probably shares this CPU while
    /// another is idle: yielding never moves anybody, but the wake-up after a sleep does.
    fn spin(&self, ready: impl FnMut() -> bool, budget: impl FnMut() -> bool) -> bool {
        if self.yields.load(Ordering::Relaxed) >= YIELDS {
            self.yields.store(0, Ordering::Relaxed);
            return false;
        }
        match spin::until(ready, budget) {
            Spun::Ready => self.yields.store(0, Ordering::Relaxed),
            Spun::AfterYield => _ = self.yields.fetch_add(1, Ordering::Relaxed),
            Spun::No => return false,
        }
        true
    }

    /// Waits while somebody else collects. `true`: done.
    fn follow(&self, tone: Tone, done: &mut impl FnMut() -> bool, slice: Duration) -> bool {
        self.following.fetch_add(1, Ordering::SeqCst);
        let keen = tone == Tone::Completion;
        if keen && self.keen.fetch_add(1, Ordering::SeqCst) == 0 {
            // The leader may sleep too deeply for what this thread wants to hear.
            self.memory.control().bell.ring_all();
        }
        let turn = lock(&self.followers.0);
        // Between the failed try and here the leader may have left: it tells under this lock.
        if !done() && self.collector.try_lock().is_err() {
            drop(self.followers.1.wait_timeout(turn, slice));
        }
        self.following.fetch_sub(1, Ordering::SeqCst);
        if keen {
            self.keen.fetch_sub(1, Ordering::SeqCst);
        }
        done()
    }

    pub(super) fn tell_followers(&self) {
        if self.following.load(Ordering::SeqCst) > 0 {
            *lock(&self.followers.0) += 1;
            self.followers.1.notify_all();
        }
    }

    /// The collector lock, from whoever has it: soon.
    pub(super) fn take_collector(&self) -> MutexGuard<'_, ()> {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        self.memory.control().bell.ring_all();
        let collecting = lock(&self.collector);
        self.wanted.fetch_sub(1, Ordering::SeqCst);
        collecting
    }

    /// Reads all rings. Only with the collector lock held. Returns how many tasks have ended.
    pub(super) fn drain(&self) -> usize {
        let mut found = 0;
        for worker in 0..self.memory.workers() as u16 {
            if self.memory.record(worker).cursors.filled() > 0 {
                found += self.drain_one(worker);
            }
        }
        if found > 0 || self.is_backlogged() {
            let mut core = lock(&self.core);
            if !core.backlog.is_empty() {
                self.move_backlog(&mut core);
            }
            self.end_if_done(&core);
        }
        found
    }

    pub(super) fn drain_one(&self, worker: u16) -> usize {
        let (bytes, capacity) = self.memory.completion_bytes(worker);
        // SAFETY: the ring's own bytes, aligned, read by the holder of the collector lock only.
        let ring = unsafe { CompletionRing::new(&self.memory.record(worker).cursors, bytes, capacity) };
        let mut ended = vec![];
        let mut guard = lock(&self.core);
        let core = &mut *guard;
        let now = if core.recorder.is_some() { clock::nanos() } else { 0 };
        let drained = ring.drain(|message| {
            let number = message.head.task;
            let may_retry = message.head.kind & AGAIN != 0;
            if may_retry {
                // Before it gets another number.
                if let (Some(recorder), Some(task)) = (&mut core.recorder, core.tasks.get_mut(number)) {
                    recorder.done(worker, &message.head, task, message.payload.len() as u64, now);
                }
                if self.try_again(core, number) {
                    return;
                }
            }
            if let Some(task) = core.tasks.remove(number) {
                let outcome = self.outcome(&message);
                crash::point("client: leased");
                if let Some(recorder) = core.recorder.as_mut().filter(|_| !may_retry) {
                    recorder.done(worker, &message.head, &task, outcome.bytes(), now);
                }
                // Dropped after the lock: what a task held may have more to do when it goes.
                ended.push((task, outcome));
            }
        });
        drop(guard);
        crash::point("client: read");
        let found = ended.len();
        for (task, outcome) in ended {
            task.tell(outcome);
        }
        if drained.is_err() {
            // The worker has scribbled over its own ring. Its tasks end when it does.
            self.signal(worker, Signal::KILL);
        }
        found
    }

    pub(super) fn outcome(&self, message: &Message<'_>) -> Outcome {
        let head = message.head;
        let take = |place: &Place| {
            let id =
                BlockId { segment: place.segment, entry: place.offset as u32, generation: (place.offset >> 32) as u32 };
            self.host.heap().take(id)
        };
        let read = || -> Result<(Vec<Lease>, Payload)> {
            let taken = |places: &[Place]| places.iter().map(take).collect::<Result<Vec<Lease>>>();
            if head.len != IN_BLOCK {
                return Ok((taken(message.leases)?, Payload::copy_of(message.payload)));
            }
            let block = take(message.leases.first().ok_or(Error::Damaged("completion"))?)?;
            // Only the front: the rest is for the thread that wants the result, which holds no lock.
            // SAFETY: the worker has written it and has no further use for it.
            let count = in_block::count(unsafe { block.front(in_block::COUNT as u64) }?)?;
            // SAFETY: as above.
            let (places, payload_at) = in_block::read(unsafe { block.front(in_block::front(count)) }?)?;
            Ok((taken(&places)?, Payload::Block(block, payload_at)))
        };
        match read() {
            Ok((leases, payload)) => Outcome::Done {
                kind: head.kind & !AGAIN,
                units: head.units,
                nanos: head.nanos,
                payload,
                leases: leases.into(),
            },
            Err(Error::OutOfSharedMemory { wanted, available, limit }) => {
                Outcome::OutOfSharedMemory { wanted, available, limit }
            }
            Err(error) => Outcome::Unreadable(error.to_string().into()),
        }
    }

    /// The pool's own thread.
    pub(super) fn collect_for_nobody(self: Arc<Shared>) {
        while !self.ended.load(Ordering::Acquire) {
            let control = self.memory.control();
            let ended = || self.ended.load(Ordering::Acquire);
            // The time limit is for what is nobody's fault: a worker that was stopped while others relied on it.
            let wake = control.bell.wait(Tone::Room, || ended() || self.calls_for(Tone::Room), Some(PATROL));
            if wake == Wake::TimedOut {
                self.help_out();
            }
            if let Ok(_collecting) = self.collector.try_lock() {
                self.drain();
            }
            self.tell_followers();
            if wake == Wake::TimedOut && lock(&self.core).tasks.len() > 0 {
                self.look_for_lost();
                self.host.look_for_kills();
            }
        }
    }
}
