//! A pool's own segment: what client and workers coordinate by.
//!
//! ```text
//! | Control | WorkerRecord × workers | Slot × slots | completion bytes × workers |
//! ```

#![allow(unsafe_code, reason = "the pool's own segment")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use shoal_sys::memory::{self, Mapping};
use shoal_sys::process;

use super::account::Account;
use super::completion_ring::Cursors;
use super::current::Current;
use super::names::Names;
use super::notice::Notice;
use super::task_ring::{Positions, Slot, TaskRing};
use crate::error::{Error, Result};
use crate::memory::outside;
use crate::memory::place::Place;
use crate::sync::apart::Apart;
use crate::sync::bell::Bell;
use crate::sync::futex::Futex;
use crate::sync::gate::Gate;

const MAGIC: u64 = u64::from_le_bytes(*b"shoalpoo");
const VERSION: u32 = 4;

/// Most workers a pool can have: holders of a domain less its host, and some room for guests.
pub const MAX_WORKERS: usize = 500;

/// The smallest completion ring: a message of a quarter of it has more than a head.
const MIN_COMPLETION_BYTES: usize = 1024;

/// What the workers are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Take tasks, wait for more.
    Open = 0,
    /// Everything is done: end.
    Over = 1,
}

/// The front of the segment.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Control {
    magic: u64,
    version: u32,
    workers: u32,
    slots: u32,
    completion_bytes: u32,
    /// CPUs the client may use: the budget for spinning.
    pub cpus: u32,
    /// What every worker reads before it starts: the caller's own bytes.
    pub setup_at: Place,
    /// The client's process.
    pub client: u32,
    /// The domain in whose memory everything lies; see [`Roster::domain`](crate::memory::roster::Roster::domain).
    pub domain: u64,
    /// A [`Phase`].
    pub phase: AtomicU32,
    /// A worker that takes a task rings the bell when no more than these are left.
    pub low_water: AtomicU64,
    /// 1 while the client has more to send than lies in the ring.
    pub more: AtomicU32,
    /// Grows when memory is short: workers give back what they have free.
    pub squeezes: AtomicU32,
    /// Nanoseconds that a worker may be idle; then it leaves.
    pub idle: AtomicU64,
    /// Grows when a worker has said something: before the task ends in which it did, the task's result comes after it.
    pub said: AtomicU64,
    /// How the client hears of completions.
    pub bell: Bell,
    /// How workers hear of tasks.
    pub gate: Gate,
    positions: Positions,
    /// What the client leaves for workers: the caller's own bytes.
    pub notice: Notice<NOTICE_WORDS>,
    /// Tasks that wait for room in the ring. For who looks from outside: the client keeps its own count.
    pub backlog: Apart<AtomicU64>,
    /// What functions are called, likewise.
    pub names: Names,
}

/// Room for a notice, in words of 8 bytes.
const NOTICE_WORDS: usize = 1024;

/// What a worker writes about itself, and its completion ring's cursors.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct WorkerRecord {
    /// What it sleeps on.
    pub park: Futex,
    /// Its process, once it is there.
    pub pid: AtomicU32,
    /// One more than the epoch of the last process that got as far as taking tasks.
    pub ready: AtomicU32,
    /// What it has done, and where its time went.
    pub account: Account,
    /// One more than the epoch of the last process that left for want of work.
    pub left: AtomicU32,
    /// How often it was asked for a sign of life,
    pub asked: AtomicU32,
    /// and what of that it has answered.
    pub answered: AtomicU32,
    /// The task it is at. Written before the task's slot is released.
    pub current: Current,
    /// When it took that: nanoseconds on the clock that all processes share.
    pub started: AtomicU64,
    /// Which function that calls.
    pub function: AtomicU32,
    /// The cursors of its completion ring.
    pub cursors: Cursors,
}

/// The segment of a pool, mapped.
#[derive(Debug)]
pub struct PoolMemory {
    fd: OwnedFd,
    map: Mapping,
    workers: usize,
    slots: usize,
    completion_bytes: usize,
}

fn sizes(workers: usize, slots: usize, completion_bytes: usize) -> (usize, usize, usize) {
    let slots_at = std::mem::size_of::<Control>() + workers * std::mem::size_of::<WorkerRecord>();
    let rings_at = slots_at + slots * std::mem::size_of::<Slot>();
    (slots_at, rings_at, rings_at + workers * completion_bytes)
}

impl PoolMemory {
    /// Makes the segment of a new pool.
    pub fn create(
        workers: usize,
        slots: usize,
        completion_bytes: usize,
        cpus: u32,
        setup_at: Place,
        domain: u64,
    ) -> Result<PoolMemory> {
        assert!(slots.is_power_of_two() && completion_bytes.is_power_of_two(), "rings are powers of two");
        let (slots_at, _, len) = sizes(workers, slots, completion_bytes);
        let fd = memory::reserve("shoal-pool", len)?;
        let map = Mapping::new(fd.as_fd(), memory::sealed_len(fd.as_fd())?)?;
        map.populate(0, map.len())?;
        let control = Control {
            magic: MAGIC,
            version: VERSION,
            workers: workers as u32,
            slots: slots as u32,
            completion_bytes: completion_bytes as u32,
            cpus,
            setup_at,
            client: process::pid(),
            domain,
            phase: AtomicU32::new(Phase::Open as u32),
            low_water: AtomicU64::new(0),
            more: AtomicU32::new(0),
            squeezes: AtomicU32::new(0),
            idle: AtomicU64::new(u64::MAX),
            said: AtomicU64::new(0),
            bell: Bell::default(),
            gate: Gate::default(),
            positions: Positions::default(),
            notice: Notice::default(),
            backlog: Apart::default(),
            names: Names::default(),
        };
        // SAFETY: the mapping is long enough (`sizes`), aligned to a page, and nobody else has it yet.
        unsafe { map.as_ptr().cast::<Control>().write(control) };
        for index in 0..slots {
            let at = map.as_ptr().wrapping_add(slots_at).cast::<Slot>().wrapping_add(index);
            // SAFETY: within the mapping by `sizes`, aligned since all parts are multiples of their alignment.
            unsafe { at.write(Slot::new(index, slots)) };
        }
        let memory = PoolMemory { fd, map, workers, slots, completion_bytes };
        for worker in 0..workers {
            memory.record(worker as u16).current.done();
        }
        Ok(memory)
    }

    /// Maps the segment that came from the client.
    pub fn open(fd: OwnedFd) -> Result<PoolMemory> {
        let len = memory::sealed_len(fd.as_fd())?;
        if len < std::mem::size_of::<Control>() {
            return Err(Error::Damaged("pool segment"));
        }
        let map = Mapping::new(fd.as_fd(), len)?;
        map.populate(0, len)?;
        Self::over(fd, map)
    }

    /// Maps the segment of another process's pool for a look at it. Whatever writes to what comes back is a SIGSEGV.
    pub(super) fn open_to_read(fd: OwnedFd) -> Result<PoolMemory> {
        let len = outside::len_of(fd.as_fd(), std::mem::size_of::<Control>(), "pool segment")?;
        let map = Mapping::read_only(fd.as_fd(), len)?;
        Self::over(fd, map)
    }

    /// Checks what is mapped, which has the length of a `Control` at least.
    fn over(fd: OwnedFd, map: Mapping) -> Result<PoolMemory> {
        // SAFETY: long enough, page-aligned, and any bytes are a valid Control.
        let control = unsafe { &*map.as_ptr().cast::<Control>() };
        let (workers, slots) = (control.workers as usize, control.slots as usize);
        let completion_bytes = control.completion_bytes as usize;
        let sound = control.magic == MAGIC
            && control.version == VERSION
            && (1..=MAX_WORKERS).contains(&workers)
            && slots.is_power_of_two()
            && slots <= 1 << 20
            && completion_bytes.is_power_of_two()
            && (MIN_COMPLETION_BYTES..=1 << 30).contains(&completion_bytes)
            && sizes(workers, slots, completion_bytes).2 <= map.len();
        if !sound {
            return Err(Error::Damaged("pool segment"));
        }
        Ok(PoolMemory { fd, map, workers, slots, completion_bytes })
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The front.
    pub fn control(&self) -> &Control {
        // SAFETY: `create` wrote it there, or `open` checked it; it lives as long as the mapping.
        unsafe { &*self.map.as_ptr().cast::<Control>() }
    }

    /// How many workers there can be.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// How many tasks the ring holds.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// A worker's record.
    pub fn record(&self, worker: u16) -> &WorkerRecord {
        let worker = usize::from(worker);
        assert!(worker < self.workers, "worker {worker} of {}", self.workers);
        let records = self.map.as_ptr().wrapping_add(std::mem::size_of::<Control>()).cast::<WorkerRecord>();
        // SAFETY: within the mapping by the assertion and `sizes`, aligned; all bytes are valid, as it is of atomics.
        unsafe { &*records.wrapping_add(worker) }
    }

    /// Wakes idle workers: what others let go of may be theirs to give back. At once, and the busy ones when they are
    /// through with their task, if memory is short.
    pub fn ask_for_memory(&self, short: bool) {
        let control = self.control();
        if short {
            control.squeezes.fetch_add(1, Ordering::SeqCst);
        }
        control.gate.wake_all(|worker| self.park(worker));
    }

    /// The futex a worker sleeps on.
    pub fn park(&self, worker: u16) -> &Futex {
        // Who there is to be woken is read from shared memory. If nobody has that number, it is somebody's who looks once
        // too often.
        &self.record(worker.min(self.workers as u16 - 1)).park
    }

    /// The task ring.
    pub fn tasks(&self) -> TaskRing<'_> {
        let (slots_at, ..) = sizes(self.workers, self.slots, self.completion_bytes);
        let slots = self.map.as_ptr().wrapping_add(slots_at).cast::<Slot>();
        // SAFETY: within the mapping by `sizes`, aligned, initialised by `create`.
        let slots = unsafe { std::slice::from_raw_parts(slots, self.slots) };
        TaskRing::new(&self.control().positions, slots)
    }

    /// Bytes before the completion rings: what is made of atomics, but for the first few numbers, which never change.
    #[cfg(test)]
    pub(super) fn rings_at(&self) -> usize {
        sizes(self.workers, self.slots, self.completion_bytes).1
    }

    /// The bytes of a worker's completion ring: where they start and how many they are.
    pub fn completion_bytes(&self, worker: u16) -> (*mut u8, usize) {
        assert!(usize::from(worker) < self.workers, "worker {worker} of {}", self.workers);
        let (_, rings_at, _) = sizes(self.workers, self.slots, self.completion_bytes);
        let at = rings_at + usize::from(worker) * self.completion_bytes;
        (self.map.as_ptr().wrapping_add(at), self.completion_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_pool() {
        let mine = PoolMemory::create(3, 8, 4096, 2, Place::default(), 0).expect("memory");
        let theirs = PoolMemory::open(mine.fd().try_clone_to_owned().expect("descriptor")).expect("sound");
        assert_eq!((theirs.workers(), theirs.slots()), (3, 8));
        assert!(mine.tasks().push(&super::super::body::Body::EMPTY));
        assert!(theirs.tasks().try_take(0, 0).is_some());
        assert_eq!(theirs.completion_bytes(2).1, 4096);
    }

    #[test]
    fn what_is_not_a_pool_is_refused() {
        let blank = memory::reserve("blank", 65536).expect("memory");
        assert!(matches!(PoolMemory::open(blank), Err(Error::Damaged(_))));
    }
}
