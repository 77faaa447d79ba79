//! What a process has of a heap: plain blocks of its own, and leases.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::heap::{BlockId, HOST, Heap, key, lock};
use super::lease::{Cell, Entry, Kind};
use super::place::Place;
use super::segment::Segment;
use super::space::Piece;
use crate::error::Result;

/// Bytes of this process's arena that only it gives back. Freed on drop.
#[derive(Debug)]
pub struct PlainBlock {
    pub(super) heap: Arc<Heap>,
    pub(super) segment: Arc<Segment>,
    pub(super) piece: Piece,
}

impl PlainBlock {
    /// Where it lies.
    pub fn place(&self, len: u64) -> Place {
        Place { segment: self.piece.segment, offset: self.piece.offset, len }
    }

    /// Copies `bytes` to its front.
    ///
    /// # Panics
    /// If they do not fit: a mistake of the engine itself.
    pub fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() as u64 <= self.piece.len, "{} bytes into a block of {}", bytes.len(), self.piece.len);
        let address = self.segment.address(self.piece.offset, self.piece.len).expect("mapped when it was made");
        // SAFETY: the block is that long, belongs to this process, and `&mut self` excludes other writers here;
        // readers elsewhere learn of it only afterwards.
        unsafe { address.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// A copy of its first `len` bytes, of which there are as many. `None` if they can't be read here.
    pub(crate) fn copy(&self, len: u64) -> Option<Vec<u8>> {
        // SAFETY: only this process writes to it, and `write` has the block to itself.
        unsafe { self.segment.bytes(self.piece.offset, len) }.ok().map(<[u8]>::to_vec)
    }
}

impl Drop for PlainBlock {
    fn drop(&mut self) {
        // What a fork has is a copy: the block is its parent's.
        if !self.heap.is_mine() || !self.segment.is_mine() {
            return;
        }
        self.heap.change(|arena| arena.free(self.piece));
    }
}

/// The right of this process to use a block. Clones share it; the last one to go gives it back.
#[derive(Clone, Debug)]
pub struct Lease(pub(super) Arc<Leased>);

/// The lease itself. There is one for each block and process.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) heap: Arc<Heap>,
    pub(super) segment: Arc<Segment>,
    /// The block's line in the segment's table: a lock is no further away than it must be.
    entry: NonNull<Entry>,
    pub(super) index: u32,
    pub(super) generation: u32,
    /// Where the block lies, as it was when the lease was taken, and was checked then: others can write to the table.
    offset: u64,
    len: u64,
    /// Whatever is to go when the lease goes.
    carried: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Whether a fork does not inherit it.
    stays: AtomicBool,
}

// SAFETY: all there is behind the pointer are atomics, which the segment keeps mapped.
unsafe impl Send for Leased {}
// SAFETY: as above.
unsafe impl Sync for Leased {}

impl Leased {
    /// A lease on `len` bytes at `offset`, which lie in the segment's data, if there are any.
    pub(super) fn new(
        heap: Arc<Heap>,
        segment: Arc<Segment>,
        index: u32,
        generation: u32,
        (offset, len): (u64, u64),
    ) -> Leased {
        let entry = NonNull::from(&segment.entries()[index as usize]);
        let (carried, stays) = (OnceLock::new(), AtomicBool::new(false));
        Leased { heap, segment, entry, index, generation, offset, len, carried, stays }
    }

    #[inline]
    pub(super) fn entry(&self) -> &Entry {
        // SAFETY: made from a reference into the segment, which `self` keeps mapped.
        unsafe { self.entry.as_ref() }
    }

    pub(super) fn stays(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }

    /// Somebody else has found it: a fork may inherit it again.
    pub(super) fn found(&self) {
        if self.stays() {
            self.stays.store(false, Ordering::Relaxed);
        }
    }
}

impl Lease {
    #[inline]
    fn entry(&self) -> &Entry {
        self.0.entry()
    }

    /// Which block it is.
    pub fn id(&self) -> BlockId {
        BlockId { segment: self.0.segment.id(), entry: self.0.index, generation: self.0.generation }
    }

    /// Bytes of the block.
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Whether it is a cell, which has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it is.
    pub fn kind(&self) -> Option<Kind> {
        self.entry().kind()
    }

    /// The words of a cell.
    #[inline]
    pub fn cell(&self) -> &Cell {
        self.entry().cell()
    }

    /// The address of its first byte, faulted in. Valid as long as the lease lives.
    pub fn address(&self) -> Result<*mut u8> {
        self.0.segment.address(self.0.offset, self.0.len)
    }

    /// See [`Heap::enclose`].
    pub(super) fn seal(&self) {
        self.entry().seal();
    }

    /// Notes in the block's entry that it lies in a queue, which holds it from now on, or does no more.
    pub fn set_in_queue(&self, is: bool) {
        self.entry().set_in_queue(is);
    }

    /// Its bytes.
    ///
    /// # Safety
    /// Nobody writes to the block while the slice lives.
    pub unsafe fn bytes(&self) -> Result<&[u8]> {
        // SAFETY: the caller excludes writers.
        unsafe { self.0.segment.bytes(self.0.offset, self.0.len) }
    }

    /// Its first `len` bytes, the only ones to be faulted in.
    ///
    /// # Safety
    /// As for [`bytes`](Self::bytes).
    pub unsafe fn front(&self, len: u64) -> Result<&[u8]> {
        // SAFETY: the caller excludes writers.
        unsafe { self.0.segment.bytes(self.0.offset, len.min(self.0.len)) }
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.0.segment
    }

    pub(super) fn offset(&self) -> u64 {
        self.0.offset
    }

    pub(super) fn become_kind(&self, kind: Kind) {
        self.entry().become_kind(kind);
    }

    /// The segment it lies in, and where.
    pub(super) fn place(&self) -> (&Arc<Segment>, u64) {
        (&self.0.segment, self.0.offset)
    }

    /// Whether the domain's host, the client, holds it too.
    pub fn held_by_host(&self) -> bool {
        self.entry().held_by(HOST)
    }

    /// Has something dropped when the lease is given back: the first thing that anybody asks for.
    pub fn carry(&self, thing: impl Any + Send + Sync) {
        self.0.carried.get_or_init(|| Box::new(thing));
    }

    /// It is the engine's own, and nothing that a fork of this process could get at: the fork does not hold the block.
    pub(crate) fn stay(&self) {
        self.0.stays.store(true, Ordering::Relaxed);
    }

    /// The heap it was taken in.
    pub fn heap(&self) -> &Arc<Heap> {
        &self.0.heap
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        // The lease is the process's that took it: a fork that has none of its own must not give it back.
        if !self.heap.is_mine() {
            return;
        }
        let place = key(self.segment.id(), self.index);
        let mut held = lock(&self.heap.books().held);
        // Another thread may have taken a new lease on it since the last clone of this one went.
        if !held.get(&place).is_some_and(|lease| std::ptr::eq(Weak::as_ptr(lease), self)) {
            return;
        }
        held.remove(&place);
        let last = self.entry().give_back(self.heap.me());
        // The arena's lock is never taken while this one is held.
        drop(held);
        if last && self.segment.is_mine() {
            self.heap.change(|arena| arena.close(self.segment.id(), self.index));
        } else if last {
            self.segment.marks().set(self.index);
            self.heap.let_go_of_others();
        }
    }
}
