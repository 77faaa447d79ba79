//! A chunk: the ring of bytes that items lie in, one behind the other. And the bytes of a queue's state.
//!
//! Everything lies at multiples of eight bytes and in one piece; where something does not fit before the end of the ring, a
//! filler takes the rest, and it starts at the front. When the ring is full the putting side goes on in another chunk, and
//! says so in this one: for that there is always room left.
//!
//! Positions are ever-growing byte counts. The putting side writes only behind the last item and before `freed`, which
//! only the getting side moves, and only over what it has taken.

#![allow(unsafe_code, reason = "a ring of bytes in shared memory")]

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::state::State;
use crate::error::{Error, Result};
use crate::memory::heap::{BlockId, Lease};
use crate::memory::lease::Kind;
use crate::memory::segment::Segment;
use crate::sync::apart::Apart;

/// Bytes of a queue's state.
pub const STATE: u64 = std::mem::size_of::<State>() as u64;

/// Bytes before each record.
const HEAD: u64 = 8;
/// Bytes of a record that names a block.
const NAME: u64 = HEAD + 16;
/// Room left for the record that names the next chunk, and a filler before it.
const LINK: u64 = 2 * NAME;
/// Bytes before the ring.
const FRONT: u64 = std::mem::size_of::<Front>() as u64;

/// The smallest chunk, in bytes: a queue that hardly anything lies in has one page.
pub const SMALLEST: u64 = 4096;
/// The largest.
pub const LARGEST: u64 = 1 << 20;
/// More items than that don't lie in a chunk.
pub const MOST: usize = (LARGEST / HEAD) as usize;
/// As far as no queue will ever come: at 10 GB/s in ten years.
const FARTHEST: u64 = 1 << 62;
/// The longest item that lies in a chunk itself, in bytes.
pub const INLINE: usize = 1000;

mod kind {
    pub const BYTES: u32 = 1;
    pub const ENVELOPE: u32 = 2;
    pub const LINK: u32 = 3;
    pub const FILLER: u32 = 4;
}

/// What stands in front of the ring.
#[repr(C)]
struct Front {
    /// Up to where the getting side needs nothing any more.
    freed: Apart<AtomicU64>,
}

/// A chunk as one process has it mapped.
#[derive(Debug)]
pub struct Chunk {
    pub(super) lease: Lease,
    id: BlockId,
    base: *mut u8,
    /// Bytes of the ring.
    capacity: u64,
}

// SAFETY: the bytes lie in a mapping that the lease keeps; who may touch which of them is for the queue's protocol.
unsafe impl Send for Chunk {}

/// What is put.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// What lies in that block.
    Envelope(BlockId),
}

/// What lies at a position of a chunk.
#[derive(Debug)]
pub enum Found<'a> {
    /// An item, and the position behind it.
    Item(Content<'a>, u64),
    /// Nothing more: it goes on at the front of that chunk.
    Link(BlockId),
}

impl Content<'_> {
    /// Bytes it takes in a ring.
    fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => HEAD + (bytes.len() as u64).next_multiple_of(HEAD),
            Content::Envelope(_) => NAME,
        }
    }
}

impl Chunk {
    /// The chunk in a block of that many bytes at least, which was held by somebody all the time since it was one.
    pub fn open(lease: Lease) -> Result<Chunk> {
        let len = lease.len();
        let base = lease.address()?;
        let sound =
            (SMALLEST..=LARGEST).contains(&len) && len.is_multiple_of(HEAD) && base.cast::<Front>().is_aligned();
        if sound {
            Ok(Chunk { id: lease.id(), base, capacity: len - FRONT, lease })
        } else {
            Err(Error::Damaged("chunk"))
        }
    }

    /// A chunk in a new block, empty.
    pub fn new(lease: Lease) -> Result<Chunk> {
        let chunk = Self::open(lease)?;
        chunk.front().freed.0.store(0, Ordering::Relaxed);
        Ok(chunk)
    }

    /// Which block it is.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Bytes of its block.
    pub fn len(&self) -> u64 {
        self.capacity + FRONT
    }

    fn front(&self) -> &Front {
        // SAFETY: the block is longer than that, page-aligned, and made of atomics there.
        unsafe { &*self.base.cast::<Front>() }
    }

    /// The putting side: where the content is to be written, if there is room for it behind `position`: the start of a
    /// filler, if there must be one, its own start, and its end.
    fn room_for(&self, position: u64, size: u64) -> Option<(Option<u64>, u64, u64)> {
        let to_end = self.capacity - position % self.capacity;
        let (filler, start) = if size <= to_end { (None, position) } else { (Some(position), position + to_end) };
        let end = start + size;
        let freed = self.front().freed.0.load(Ordering::Acquire);
        (end + LINK <= freed.saturating_add(self.capacity)).then_some((filler, start, end))
    }

    /// Positions come from shared memory: one that is not a multiple of eight, or that no queue has come to yet, is no
    /// position, and nothing is read or written there.
    pub fn check(position: u64) -> Result<()> {
        let sound = position.is_multiple_of(HEAD) && position < FARTHEST;
        if sound { Ok(()) } else { Err(Error::Damaged("queue")) }
    }

    /// The putting side: writes content behind a `position` that was checked; the position behind it, or `None` while
    /// there is no room.
    pub fn write(&self, position: u64, content: Content<'_>) -> Option<u64> {
        let (filler, start, end) = self.room_for(position, content.size())?;
        if let Some(filler) = filler {
            self.put_head(filler, kind::FILLER, 0);
        }
        match content {
            Content::Bytes(bytes) => {
                self.put_head(start, kind::BYTES, bytes.len() as u32);
                let at = self.at(start + HEAD);
                // SAFETY: `room_for` found the range free and in one piece, and nobody reads it before the step is taken.
                unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            }
            Content::Envelope(id) => self.put_name(start, kind::ENVELOPE, id),
        }
        Some(end)
    }

    /// The putting side, at a `position` that was checked: what is put from now on lies in another chunk.
    pub fn link(&self, position: u64, next: BlockId) {
        let to_end = self.capacity - position % self.capacity;
        let start = if NAME <= to_end { position } else { position + to_end };
        if start != position {
            self.put_head(position, kind::FILLER, 0);
        }
        self.put_name(start, kind::LINK, next);
    }

    /// The getting side: what lies at `position`, where something was put.
    pub fn read(&self, position: u64) -> Result<Found<'_>> {
        let damaged = || Error::Damaged("queue");
        let mut position = position;
        let mut fillers = 0;
        Self::check(position)?;
        loop {
            let to_end = self.capacity - position % self.capacity;
            let (kind, len) = self.head(position);
            match kind {
                kind::BYTES => {
                    let size = HEAD + u64::from(len).next_multiple_of(HEAD);
                    if size > to_end {
                        return Err(damaged());
                    }
                    // SAFETY: within the ring, and the putting side does not touch it before it is freed.
                    let bytes = unsafe { std::slice::from_raw_parts(self.at(position + HEAD), len as usize) };
                    return Ok(Found::Item(Content::Bytes(bytes), position + size));
                }
                kind::ENVELOPE if NAME <= to_end => {
                    return Ok(Found::Item(Content::Envelope(self.name(position)), position + NAME));
                }
                kind::LINK if NAME <= to_end => return Ok(Found::Link(self.name(position))),
                kind::FILLER if fillers == 0 => {
                    fillers += 1;
                    position += to_end;
                }
                _ => return Err(damaged()),
            }
        }
    }

    /// The getting side: nothing before `position` is needed any more.
    pub fn free(&self, position: u64) {
        self.front().freed.0.store(position, Ordering::Release);
    }

    fn at(&self, position: u64) -> *mut u8 {
        self.base.wrapping_add((FRONT + position % self.capacity) as usize)
    }

    fn put_head(&self, position: u64, kind: u32, len: u32) {
        // SAFETY: callers stay within what is free; positions and the capacity are multiples of eight, so it is aligned and
        // does not cross the end.
        unsafe { self.at(position).cast::<u64>().write(u64::from(kind) << 32 | u64::from(len)) };
    }

    fn head(&self, position: u64) -> (u32, u32) {
        // SAFETY: as above; any bytes are a valid number.
        let head = unsafe { self.at(position).cast::<u64>().read() };
        ((head >> 32) as u32, head as u32)
    }

    fn put_name(&self, position: u64, kind: u32, id: BlockId) {
        self.put_head(position, kind, 0);
        let words = [u64::from(id.segment) << 32 | u64::from(id.entry), u64::from(id.generation)];
        // SAFETY: as above: callers have found room for a name in one piece.
        unsafe { self.at(position + HEAD).cast::<[u64; 2]>().write(words) };
    }

    fn name(&self, position: u64) -> BlockId {
        // SAFETY: the caller has seen that a name fits before the end; any bytes are valid numbers.
        let [place, generation] = unsafe { self.at(position + HEAD).cast::<[u64; 2]>().read() };
        BlockId { segment: (place >> 32) as u32, entry: place as u32, generation: generation as u32 }
    }
}

/// A queue's state where it lies, and what keeps it there.
#[derive(Debug)]
pub struct Mapped<K> {
    /// What keeps it.
    pub(super) kept: K,
    address: *mut u8,
}

// SAFETY: the address of atomics, valid as long as `kept` is.
unsafe impl<K: Send> Send for Mapped<K> {}
// SAFETY: as above.
unsafe impl<K: Sync> Sync for Mapped<K> {}

impl Mapped<Lease> {
    /// The state in a leased room.
    pub fn of(lease: Lease) -> Result<Self> {
        match lease.kind() {
            Some(Kind::Queue) if lease.len() == STATE => {
                let address = lease.address()?;
                let aligned = address.cast::<State>().is_aligned();
                if aligned { Ok(Mapped { address, kept: lease }) } else { Err(Error::Damaged("handle")) }
            }
            _ => Err(Error::Damaged("handle")),
        }
    }
}

impl Mapped<Arc<Segment>> {
    /// The state in the room of a line of that segment's table, whoever holds it.
    pub fn in_segment(segment: &Arc<Segment>, index: u32) -> Result<Self> {
        let entry = segment.entries().get(index as usize).ok_or(Error::Damaged("queue"))?;
        let offset = entry.offset();
        if entry.len() != STATE || !(offset - segment.data_at().min(offset)).is_multiple_of(STATE) {
            return Err(Error::Damaged("queue"));
        }
        Ok(Mapped { address: segment.address(offset, STATE)?, kept: segment.clone() })
    }
}

impl<K> Deref for Mapped<K> {
    type Target = State;

    fn deref(&self) -> &State {
        // SAFETY: whoever made this has checked that a state's bytes lie there, in the mapping of `kept`; rooms begin at
        // multiples of 128. It is made of atomics, so any bytes are valid and may be shared.
        unsafe { &*self.address.cast::<State>() }
    }
}

#[cfg(test)]
mod tests;
