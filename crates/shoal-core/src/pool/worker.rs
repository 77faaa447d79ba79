//! The worker's side: takes tasks from the ring, writes what came of them into its completion ring.
//!
//! A worker runs one task at a time. What it is at stands in its record before it gives the slot back, so that a
//! task has a place at every moment: in the ring, in the record, or in the completion ring.

#![allow(unsafe_code, reason = "its ring, and payloads in shared memory")]

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shoal_sys::clock;
use shoal_sys::pipe;
use shoal_sys::process;
use shoal_sys::socket::Seqpacket;

use super::account::Laps;
use super::body::Body;
use super::completion_ring::{CompletionRing, Head, IN_BLOCK, size_of_message};
use super::crew;
use super::in_block;
use super::layout::{Phase, PoolMemory};
use super::messages;
use super::reporter::Reporter;
use crate::crash;
use crate::domain::guest::Member;
use crate::error::{Error, Result};
use crate::memory::handle::Address;
use crate::memory::heap::{Heap, Lease};
use crate::memory::place::Place;
use crate::sync::bell::Tone;
use crate::sync::futex::Wake;
use crate::sync::spin::{self, Spun};

/// What a worker-to-be is given.
#[derive(Debug)]
pub struct Seat {
    /// Its place in the pool.
    pub place: messages::Place,
    pub(super) holder: u16,
    pub(super) address: Address,
    pub(super) zygote: u32,
    pub(super) control: OwnedFd,
    pub(super) pool: OwnedFd,
    pub(super) reports: OwnedFd,
    pub(super) roster: Vec<OwnedFd>,
    /// What becomes its standard error, if somebody listens.
    pub(super) stderr: Option<OwnedFd>,
    /// What becomes its standard output; `None`: it keeps the client's.
    pub(super) stdout: Option<OwnedFd>,
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Look for a task again.
    Look,
    /// A signal came in: see to it, then look again.
    Interrupted,
    /// The pool is over: end.
    Over,
}

/// A worker.
#[derive(Debug)]
pub struct Worker {
    memory: Arc<PoolMemory>,
    heap: Arc<Heap>,
    me: u16,
    seat: messages::Place,
    reports: Arc<Seqpacket>,
    searching: bool,
    /// When it began to search.
    idle_since: u64,
    body: Body,
    /// When the current task was taken.
    started: u64,
    laps: Laps,
    /// The squeezes that it has heeded.
    squeezes: u32,
    /// The version of the notice that it has seen.
    noticed: u32,
    /// Leases that completions carry, until the client has read so far: it takes its own before it moves on.
    in_flight: VecDeque<(u64, Vec<Lease>)>,
}

impl Worker {
    /// In the child, after the fork: sits down.
    pub fn new(seat: Seat) -> Result<Worker> {
        process::die_with_parent()?;
        if process::parent_pid() != seat.zygote {
            // The zygote died before the kernel was told to take this process along.
            return Err(Error::Os(std::io::ErrorKind::BrokenPipe.into()));
        }
        if let Some(stderr) = &seat.stderr {
            pipe::become_stderr(stderr)?;
        }
        if let Some(stdout) = &seat.stdout {
            pipe::become_stdout(stdout)?;
        }
        let memory = Arc::new(PoolMemory::open(seat.pool)?);
        let me = seat.place.worker;
        if usize::from(me) >= memory.workers() {
            return Err(Error::Damaged("seat"));
        }
        let heap = Member::worker(seat.address, seat.holder, seat.roster, Seqpacket::from_fd(seat.control))?;
        memory.record(me).pid.store(process::pid(), Ordering::Release);
        crash::point("worker: seated");
        Ok(Worker {
            memory,
            heap,
            me,
            seat: seat.place,
            reports: Arc::new(Seqpacket::from_fd(seat.reports)),
            searching: false,
            idle_since: 0,
            body: Body::EMPTY,
            started: 0,
            laps: Laps::default(),
            squeezes: 0,
            noticed: 0,
            in_flight: VecDeque::new(),
        })
    }

    /// Everything is set up: tasks may be taken. A worker that ends before that was not able to start.
    pub fn ready(&self) {
        self.memory.record(self.me).account.begin(clock::nanos());
        self.memory.record(self.me).ready.store(self.seat.epoch + 1, Ordering::Release);
        crash::point("worker: ready");
    }

    /// What the client has left since this was asked last.
    pub fn notice(&mut self) -> Option<Vec<u8>> {
        let (version, bytes) = self.memory.control().notice.look(self.noticed)?;
        self.noticed = version;
        Some(bytes)
    }

    /// How this process tells its client something.
    pub fn reporter(&self) -> Reporter {
        Reporter {
            socket: self.reports.clone(),
            memory: self.memory.clone(),
            worker: self.me,
            numbers: AtomicU32::new(0),
        }
    }

    /// The heap of this process: its arena in the client's domain.
    pub fn heap(&self) -> &Arc<Heap> {
        &self.heap
    }

    /// Takes the next task, if there is one now; it is current until [`finish`](Self::finish).
    pub fn try_next(&mut self) -> bool {
        let (control, ring) = (self.memory.control(), self.memory.tasks());
        let Some(taken) = ring.try_take(self.me, self.seat.epoch as u8) else { return false };
        crash::point("worker: taken");
        let record = self.memory.record(self.me);
        self.started = clock::nanos();
        record.started.store(self.started, Ordering::Relaxed);
        record.function.store(taken.body.function, Ordering::Relaxed);
        record.current.begin(taken.body.task);
        crash::point("worker: noted");
        self.body = ring.release(taken);
        crash::point("worker: released");
        if self.searching {
            self.searching = false;
            control.gate.found(self.me, || ring.queued() > 0, |w| self.memory.park(w));
            crash::point("worker: found");
        }
        let low = control.low_water.load(Ordering::Relaxed);
        if low > 0 && ring.queued() <= low {
            control.bell.ring(Tone::Room);
        }
        // Whoever sent it has mostly read the results before: their memory is free for this task's.
        self.land();
        self.laps.begin(self.started, self.body.payload_at.len > 0);
        self.memory.record(self.me).account.taken(self.started);
        true
    }

    /// Waits for a task: spins while the CPU budget allows, then sleeps. Not longer than a tenth of a second if the caller is
    /// `restless`, having something to look after meanwhile.
    pub fn wait(&mut self, restless: bool) -> Waited {
        self.land();
        self.heed_squeeze();
        let (control, ring) = (self.memory.control(), self.memory.tasks());
        let over = || control.phase.load(Ordering::Acquire) == Phase::Over as u32;
        if over() {
            return Waited::Over;
        }
        if !self.searching {
            self.searching = true;
            self.memory.record(self.me).account.search(control.more.load(Ordering::Relaxed) > 0);
            self.idle_since = clock::nanos();
            control.gate.search(self.me);
            crash::point("worker: searching");
            // Out of tasks: whoever waits for all of them should know, or has more.
            let more = control.low_water.load(Ordering::Relaxed) > 0;
            control.bell.ring(if more { Tone::Room } else { Tone::Idle });
        }
        // Whoever is short of memory wakes only those who sleep.
        let squeezed = || control.squeezes.load(Ordering::Relaxed) != self.squeezes;
        let ready = || ring.queued() > 0 || over() || squeezed();
        // The client counts as one party that runs: it is busy, or it spins for our result.
        let budget = || control.gate.running() + control.gate.spinning() < control.cpus;
        if budget() && spin::until(ready, budget) != Spun::No {
            return if over() { Waited::Over } else { Waited::Look };
        }
        // What is still on its way is let go of when it has arrived, which nobody tells. What is free goes back to the
        // system after a while; when all of it has, this process sleeps until it is woken.
        let landing = (restless || !self.in_flight.is_empty()).then_some(Duration::from_millis(100));
        let most = control.idle.load(Ordering::Relaxed);
        let rest = (most < u64::MAX).then(|| most.saturating_sub(clock::nanos() - self.idle_since));
        if rest == Some(0) {
            return if self.leave() { Waited::Over } else { Waited::Look };
        }
        let timeout = landing.into_iter().chain(self.heap.tick()).chain(rest.map(Duration::from_nanos)).min();
        match control.gate.sleep(self.me, self.memory.park(self.me), ready, timeout) {
            Wake::Interrupted => Waited::Interrupted,
            _ if over() => Waited::Over,
            _ => Waited::Look,
        }
    }

    /// Ends for want of work, unless there is some. Nobody relies on a worker that is not at the gate: a task that comes
    /// after the look is seen by whoever publishes it, or when this process has ended.
    fn leave(&mut self) -> bool {
        let ring = self.memory.tasks();
        self.searching = false;
        let left = &self.memory.record(self.me).left;
        let park = |worker| self.memory.park(worker);
        crew::leave(&self.memory.control().gate, self.me, || ring.queued() > 0, park, left, self.seat.epoch)
    }

    /// Gives the sign of life that the client has asked for: to be called when SIGURG came in, from any thread.
    pub fn answerer(&self) -> impl Fn() + Send + Sync + 'static {
        let (memory, me) = (self.memory.clone(), self.me);
        move || {
            let record = memory.record(me);
            record.answered.store(record.asked.load(Ordering::Acquire), Ordering::Release);
        }
    }

    /// Its number in the pool.
    pub fn number(&self) -> u16 {
        self.me
    }

    /// Whether some worker waits while no task does: work given back would be taken at once.
    pub fn others_are_idle(&self) -> bool {
        self.memory.control().gate.has_idle() && self.memory.tasks().queued() == 0
    }

    /// What the client wants every worker to read before it starts.
    pub fn setup(&self) -> Result<Bytes<'_>> {
        self.bytes(self.memory.control().setup_at)
    }

    /// What whoever runs the current task tells of where its time goes.
    pub fn laps(&self) -> &Laps {
        &self.laps
    }

    /// The current task as it was sent.
    pub fn task(&self) -> &Body {
        &self.body
    }

    /// The current task's serialized function.
    pub fn function(&self) -> Result<Bytes<'_>> {
        self.bytes(self.body.function_at)
    }

    /// The current task's payload.
    pub fn payload(&self) -> Result<Bytes<'_>> {
        if self.body.payload_at.segment == 0 && self.body.payload_at.len == 0 {
            let len = usize::from(self.body.inline_len).min(self.body.inline.len());
            return Ok(Bytes::Inline(&self.body.inline[..len]));
        }
        self.bytes(self.body.payload_at)
    }

    fn bytes(&self, at: Place) -> Result<Bytes<'_>> {
        let segment = self.heap.segment(at.segment)?;
        let address = segment.address(at.offset, at.len)?;
        Ok(Bytes::Mapped { _segment: segment, address, len: at.len as usize, _task: std::marker::PhantomData })
    }

    /// Ends the current task. Waits for room in the ring if need be.
    ///
    /// Payloads too large for the ring go to a block of this process's arena; if there is no memory for it, that
    /// error comes back, the task is still current and can be ended with something smaller.
    pub fn finish(&mut self, kind: u16, units: u64, payload: &[u8], leases: Vec<Lease>) -> Result<()> {
        let record = self.memory.record(self.me);
        let (bytes, capacity) = self.memory.completion_bytes(self.me);
        // SAFETY: the ring's bytes, aligned to a page's part, written by this process only.
        let ring = unsafe { CompletionRing::new(&record.cursors, bytes, capacity) };
        let now = clock::nanos();
        let (started, nanos) = (self.started, now - self.started);
        let mut head = Head {
            task: self.body.task,
            started,
            nanos,
            kind,
            leases: leases.len() as u16,
            len: payload.len() as u32,
            units,
        };
        let mut leases = leases;
        leases.sort_unstable_by_key(Lease::id);
        leases.dedup_by_key(|lease| lease.id());
        let mut places: Vec<Place> = leases.iter().map(place_of).collect();
        head.leases = places.len() as u16;
        let mut inline = payload;
        if size_of_message(places.len(), payload.len()) > ring.largest() {
            let block = self.heap.allocate_filled(&[&in_block::head(&places), payload])?;
            crash::point("worker: in a block");
            places = vec![place_of(&block)];
            leases.push(block);
            (head.leases, head.len, inline) = (1, IN_BLOCK, &[]);
        }
        if !record.current.end(self.body.task) {
            // It was stopped. Nobody is to hear of its end, and whoever stopped it kills this process.
            loop {
                std::thread::park();
            }
        }
        crash::point("worker: ending");
        // Before it is sent: whoever has the result finds the task counted.
        record.account.ended(now, nanos, self.laps.ended(nanos));
        let written = loop {
            match ring.try_write(&head, &places, inline) {
                Some(end) => break end,
                None => {
                    self.memory.control().bell.ring(Tone::Room);
                    let has_room = || record.cursors.filled() < capacity as u64 / 2;
                    record.cursors.wait_for_room(has_room, Some(Duration::from_millis(100)));
                }
            }
        };
        crash::point("worker: committed");
        record.current.done();
        crash::point("worker: done");
        let fills_up = record.cursors.filled() > capacity as u64 / 2;
        self.memory.control().bell.ring(if fills_up { Tone::Room } else { Tone::Completion });
        crash::point("worker: rung");
        if !leases.is_empty() {
            self.in_flight.push_back((written, leases));
        }
        self.land();
        self.heed_squeeze();
        Ok(())
    }

    /// Gives back what is free if memory is short.
    fn heed_squeeze(&mut self) {
        let squeezes = self.memory.control().squeezes.load(Ordering::Relaxed);
        if squeezes != self.squeezes {
            self.squeezes = squeezes;
            self.heap.release_free();
        }
    }

    /// Lets go of what has arrived.
    fn land(&mut self) {
        let read = self.memory.record(self.me).cursors.read();
        while self.in_flight.front().is_some_and(|(end, _)| *end <= read) {
            self.in_flight.pop_front();
            crash::point("worker: landed");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // What is still in flight stays leased: the supervisor reads the ring to its end before it takes leases back.
        std::mem::take(&mut self.in_flight).into_iter().for_each(std::mem::forget);
    }
}

/// A lease as it travels in a completion.
pub(super) fn place_of(lease: &Lease) -> Place {
    let id = lease.id();
    Place { segment: id.segment, offset: u64::from(id.generation) << 32 | u64::from(id.entry), len: lease.len() }
}

/// Bytes of a task: in the worker's own copy of the slot, or in a mapped segment.
#[derive(Debug)]
pub enum Bytes<'a> {
    /// In the slot.
    Inline(&'a [u8]),
    /// In a segment.
    Mapped {
        /// Keeps it mapped.
        _segment: Arc<crate::memory::segment::Segment>,
        /// Where.
        address: *mut u8,
        /// How many.
        len: usize,
        /// The client leaves them alone while the task is current.
        _task: std::marker::PhantomData<&'a ()>,
    },
}

impl std::ops::Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Inline(bytes) => bytes,
            // SAFETY: checked to lie in the segment; the client does not touch a task's bytes before it has ended.
            Bytes::Mapped { address, len, .. } => unsafe { std::slice::from_raw_parts(*address, *len) },
        }
    }
}
