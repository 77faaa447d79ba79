//! A completion ring: one worker writes the results of its tasks, the client reads them.
//!
//! One writer, one reader, bytes in between. A message is committed by the single store of `written`: a worker that
//! dies while it copies leaves nothing behind that anyone sees. See `docs/design/completion-ring.md`.
//!
//! Messages lie in one piece, at multiples of eight bytes; where one does not fit before the end of the
//! ring, a filler takes the rest and the message starts at the front.

#![allow(unsafe_code, reason = "a ring of bytes in shared memory")]

use std::time::Duration;

#[cfg(not(loom))]
use crate::error::{Error, Result};
use crate::memory::place::Place;
use crate::sync::apart::Apart;
use crate::sync::atomics::{AtomicU64, Ordering, fence};
use crate::sync::futex::{Futex, Wake};

/// Messages begin at multiples of this.
const ALIGN: u64 = 8;
/// As far as no ring will ever come: at 10 GB/s in ten years.
const FARTHEST: u64 = 1 << 62;

/// The positions of a ring: ever-growing byte counts.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Cursors {
    /// Bytes ever committed; only the worker writes it.
    written: Apart<AtomicU64>,
    /// Bytes ever read; only the client writes it.
    read: Apart<AtomicU64>,
    /// Set by a worker that waits for room, cleared by the client that makes some: the futex it sleeps on.
    space: Apart<Futex>,
}

impl Cursors {
    /// Bytes that lie in the ring, seen by either side.
    pub fn filled(&self) -> u64 {
        // `read` first: the other way round a reader that is quick in between would seem to have overtaken.
        let read = self.read.0.load(Ordering::Acquire);
        self.written.0.load(Ordering::Acquire).wrapping_sub(read)
    }

    /// The worker: where it will write next.
    pub fn written(&self) -> u64 {
        self.written.0.load(Ordering::Relaxed)
    }

    /// Either side: up to where the client has read.
    pub fn read(&self) -> u64 {
        self.read.0.load(Ordering::Acquire)
    }

    /// The worker: all bytes before `position` are there to be read.
    pub fn commit(&self, position: u64) {
        self.written.0.store(position, Ordering::Release);
    }

    /// The client: up to where it may read.
    pub fn readable(&self) -> u64 {
        self.written.0.load(Ordering::Acquire)
    }

    /// The client: all bytes before `position` may be written over. Wakes the worker if it waits for room.
    pub fn consume(&self, position: u64) {
        self.read.0.store(position, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.space.0.word().load(Ordering::Relaxed) == 1 {
            self.space.0.word().store(0, Ordering::SeqCst);
            self.space.0.wake(1);
        }
    }

    /// The client, for a worker that has died: what it left is read, the next one goes on from there; or from the start,
    /// if that was written over.
    pub fn reset(&self) {
        let written = self.written();
        let position = if written.is_multiple_of(ALIGN) && written < FARTHEST { written } else { 0 };
        self.written.0.store(position, Ordering::Relaxed);
        self.consume(position);
    }

    /// The worker: sleeps until the client has read something since `has_room` last said no. As with the bell, the
    /// store of 1, the fence and the second look make sure that no wake-up is lost.
    pub fn wait_for_room(&self, has_room: impl FnOnce() -> bool, timeout: Option<Duration>) -> Wake {
        self.space.0.word().store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if has_room() {
            return Wake::Woken;
        }
        self.space.0.wait(1, timeout)
    }
}

/// What stands before a message's payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The task that has ended, or [`FILLER`].
    pub task: u64,
    /// When the worker took it, on the clock that all processes share.
    pub started: u64,
    /// Nanoseconds the worker spent on it.
    pub nanos: u64,
    /// The caller's own tag for how to read the payload.
    pub kind: u16,
    /// How many leases travel along, as [`Place`]s before the payload.
    pub leases: u16,
    /// Bytes of payload.
    pub len: u32,
    /// Work units done, by the caller's own count.
    pub units: u64,
}

/// Instead of a length: the block of the only lease holds how many leases there are (8 bytes), them, and the payload.
pub const IN_BLOCK: u32 = u32::MAX;

/// The task number of what only fills the ring up to its end.
pub const FILLER: u64 = u64::MAX;

const HEAD: u64 = std::mem::size_of::<Head>() as u64;
const PLACE: u64 = std::mem::size_of::<Place>() as u64;

/// Bytes that a message takes in a ring.
pub const fn size_of_message(leases: usize, len: usize) -> u64 {
    HEAD + leases as u64 * PLACE + (len as u64).next_multiple_of(8)
}

/// Where to write a message: first a filler if need be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Where a filler must be written, if one is needed.
    pub filler: Option<u64>,
    /// Where the message starts.
    pub start: u64,
    /// Where it ends: what to commit.
    pub end: u64,
}

/// Finds room for a message of `size` bytes in a ring of `capacity`, or says that there is none now; never, if the positions
/// are none.
pub fn room_for(written: u64, read: u64, capacity: u64, size: u64) -> Option<Spot> {
    if !written.is_multiple_of(ALIGN) || written > FARTHEST || read > written {
        return None;
    }
    let to_end = capacity - written % capacity;
    let (filler, start) = if size <= to_end { (None, written) } else { (Some(written), written + to_end) };
    let end = start + size;
    (end - read <= capacity).then_some(Spot { filler, start, end })
}

/// The bytes of a ring in this process.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug)]
pub struct CompletionRing<'a> {
    cursors: &'a Cursors,
    bytes: *mut u8,
    capacity: u64,
}

/// A message as the client finds it.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct Message<'a> {
    /// What it says.
    pub head: Head,
    /// The leases that travel along.
    pub leases: &'a [Place],
    /// The payload.
    pub payload: &'a [u8],
}

#[cfg(not(loom))]
impl<'a> CompletionRing<'a> {
    /// A view of a ring.
    ///
    /// # Safety
    /// `bytes` are `capacity` bytes aligned to 8, valid for `'a` and reached through rings with these cursors only.
    pub unsafe fn new(cursors: &'a Cursors, bytes: *mut u8, capacity: usize) -> Self {
        Self { cursors, bytes, capacity: capacity as u64 }
    }

    /// The largest message: a quarter of the ring, so that there is always room for it soon.
    pub fn largest(&self) -> u64 {
        self.capacity / 4
    }

    /// The worker: writes a message and returns the position behind it, or `None` while there is no room.
    pub fn try_write(&self, head: &Head, leases: &[Place], payload: &[u8]) -> Option<u64> {
        let size = size_of_message(leases.len(), payload.len());
        let spot = room_for(self.cursors.written(), self.cursors.read(), self.capacity, size)?;
        if let Some(filler) = spot.filler {
            // A gap shorter than a head is left as it is: the reader knows that nothing fits there.
            if spot.start - filler >= HEAD {
                self.put(filler, &Head { task: FILLER, ..Head::default() });
            }
        }
        self.put(spot.start, head);
        for (i, place) in leases.iter().enumerate() {
            self.put(spot.start + HEAD + i as u64 * PLACE, place);
        }
        let at = self.at(spot.start + HEAD + leases.len() as u64 * PLACE);
        // SAFETY: `room_for` found the range free and in one piece; the reader does not look before the commit.
        unsafe { at.copy_from_nonoverlapping(payload.as_ptr(), payload.len()) };
        self.cursors.commit(spot.end);
        Some(spot.end)
    }

    fn at(&self, position: u64) -> *mut u8 {
        self.bytes.wrapping_add((position % self.capacity) as usize)
    }

    fn put<T: Copy>(&self, position: u64, value: &T) {
        // SAFETY: callers stay within one piece that `room_for` found free; positions are multiples of 8.
        unsafe { self.at(position).cast::<T>().write(*value) };
    }

    /// The client: hands every message that lies there to `each` and makes room for more. Returns how many.
    pub fn drain(&self, mut each: impl FnMut(Message<'_>)) -> Result<usize> {
        let (mut position, end) = (self.cursors.read(), self.cursors.readable());
        if position == end {
            return Ok(0);
        }
        // What lies between is walked over whole: it must be no more than a ring, and begin where a message can.
        let sound =
            position.is_multiple_of(ALIGN) && end.is_multiple_of(ALIGN) && end.wrapping_sub(position) <= self.capacity;
        if !sound || position > FARTHEST {
            return Err(Error::Damaged("completion ring"));
        }
        let mut count = 0;
        while position < end {
            let to_end = self.capacity - position % self.capacity;
            // SAFETY: within the ring, as there is room for it before the end, aligned to 8; any bytes are a valid Head. A
            // copy: what is checked is what is used.
            let head = (to_end >= HEAD).then(|| unsafe { self.at(position).cast::<Head>().read_volatile() });
            let message = head.filter(|head| head.task != FILLER);
            let size = message.map_or(to_end, |head| {
                let len = if head.len == IN_BLOCK { 0 } else { head.len as usize };
                size_of_message(usize::from(head.leases), len)
            });
            if size > to_end || size > end - position {
                return Err(Error::Damaged("completion ring"));
            }
            let Some(head) = message else {
                position += size;
                continue;
            };
            let len = if head.len == IN_BLOCK { 0 } else { head.len as usize };
            let leases_at = self.at(position + HEAD).cast::<Place>();
            // SAFETY: within the message, which lies in one piece; the writer does not touch it before `consume`.
            let leases = unsafe { std::slice::from_raw_parts(leases_at, usize::from(head.leases)) };
            let payload_at = self.at(position + HEAD + u64::from(head.leases) * PLACE);
            // SAFETY: as above.
            let payload = unsafe { std::slice::from_raw_parts(payload_at, len) };
            each(Message { head, leases, payload });
            count += 1;
            position += size;
        }
        self.cursors.consume(position);
        Ok(count)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Messages never overlap what is unread, never cross the end, and a quarter of the ring always fits in the end.
        #[test]
        fn a_message_lies_in_one_piece_in_free_bytes(sizes in prop::collection::vec(1u64..=128, 1..100)) {
            let capacity = 1024;
            let (mut written, mut read) = (0u64, 0u64);
            for size in sizes.into_iter().map(|s| s * 2).map(|s| s.next_multiple_of(8)) {
                let spot = loop {
                    match room_for(written, read, capacity, size) {
                        Some(spot) => break spot,
                        None => { prop_assert!(read < written, "an empty ring has room"); read = (read + 64).min(written) }
                    }
                };
                prop_assert!(spot.start >= written && spot.end - spot.start == size);
                prop_assert!(spot.end - read <= capacity);
                prop_assert!(spot.start % capacity + size <= capacity, "crosses the end");
                written = spot.end;
            }
        }
    }

    proptest! {
        /// Whatever is written comes out, in order and whole, whenever the reader looks.
        #[test]
        fn messages_come_out_as_they_went_in(lens in prop::collection::vec((0usize..200, 0usize..3, any::<bool>()), 1..80)) {
            let (cursors, mut bytes) = (Cursors::default(), vec![0u64; 256]);
            // SAFETY: 2048 bytes, aligned, used by this ring only.
            let ring = unsafe { CompletionRing::new(&cursors, bytes.as_mut_ptr().cast(), 2048) };
            let (mut sent, mut got) = (vec![], vec![]);
            for (number, (len, leases, drain)) in lens.into_iter().enumerate() {
                let payload = vec![number as u8; len];
                let places = vec![Place { segment: 1, offset: number as u64, len: 3 }; leases];
                let head = Head { task: number as u64, leases: leases as u16, len: len as u32, ..Head::default() };
                let mut read = || ring.drain(|m| got.push((m.head, m.leases.to_vec(), m.payload.to_vec()))).map(drop);
                while ring.try_write(&head, &places, &payload).is_none() { read().expect("sound") }
                if drain { read().expect("sound") }
                sent.push((head, places, payload));
            }
            ring.drain(|m| got.push((m.head, m.leases.to_vec(), m.payload.to_vec()))).expect("sound");
            prop_assert_eq!(sent, got);
        }
    }

    #[test]
    fn a_head_is_of_fixed_size() {
        assert_eq!((HEAD, PLACE), (40, 24));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::atomics::DataCell;

    /// A ring of one cell: each message is one number.
    #[test]
    fn loom_messages_arrive_whole_and_in_order_through_a_full_ring() {
        loom::model(|| {
            let shared = Arc::new((Cursors::default(), DataCell::new(0u64)));
            let worker = {
                let shared = shared.clone();
                thread::spawn(move || {
                    for number in 1..=2u64 {
                        while shared.0.filled() == 1 {
                            shared.0.wait_for_room(|| shared.0.filled() == 0, None);
                        }
                        // SAFETY: the cell is free, as nothing lies in the ring; loom checks it.
                        unsafe { shared.1.write(number) };
                        shared.0.commit(number);
                    }
                })
            };
            let mut got = vec![];
            while got.len() < 2 {
                if shared.0.readable() > got.len() as u64 {
                    // SAFETY: committed and not consumed; loom checks it.
                    got.push(unsafe { shared.1.read() });
                    shared.0.consume(got.len() as u64);
                } else {
                    thread::yield_now();
                }
            }
            worker.join().expect("ends");
            assert_eq!(got, [1, 2]);
        });
    }
}
