//! The heap of a process: the arena it allocates from, the segments it has mapped, the leases it holds.
//!
//! Only this process allocates in its arena, and the arena's bookkeeping is private memory. Blocks of others are
//! used under a [`Lease`]; so are blocks of its own that others may use. Where segments come from is the
//! [`Source`]'s business: the host makes them, everybody else asks the host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use super::handle::Address;
use super::lease::{Cell, Entry, Kind};
use super::segment::Segment;
use super::space::{Piece, Space};
use crate::error::{Error, Result};

/// The holder that hosts the domain: the client.
pub const HOST: u16 = 0;

const FIRST_SEGMENT: u64 = 1 << 20;
const LARGEST_STEP: u64 = 64 << 20;
const CELLS_PER_SEGMENT: u32 = 1000;
const PAGE: u64 = 4096;

/// Where segments come from.
pub trait Source: Send + Sync {
    /// Makes a segment that `heap`'s process owns.
    fn create(&self, data: u64, entries: u32) -> Result<Arc<Segment>>;
    /// Finds the segment of that number, made by any process of the domain.
    fn open(&self, id: u32) -> Result<Arc<Segment>>;
}

/// Which block: enough to find it in any process of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The segment.
    pub segment: u32,
    /// The line of its table.
    pub entry: u32,
    /// Which life of that line.
    pub generation: u32,
}

/// The heap. One per domain and process, never dropped while a block of it is in use.
pub struct Heap {
    me: u16,
    /// Where the domain is to be found.
    address: Address,
    /// The process it belongs to. A fork of it has a copy of all this, but no leases of its own.
    pid: u32,
    source: Box<dyn Source>,
    segments: RwLock<HashMap<u32, Arc<Segment>>>,
    arena: Mutex<Arena>,
    held: Mutex<HashMap<(u32, u32), Weak<Leased>>>,
}

/// The arena: private bookkeeping over this process's own segments.
#[derive(Default)]
struct Arena {
    space: Space,
    tables: HashMap<u32, Table>,
    reserved: u64,
}

struct Table {
    segment: Arc<Segment>,
    free: Vec<u32>,
    /// The segment's hints when it was last looked through.
    seen: u32,
    cells: bool,
}

impl Table {
    fn take(&mut self) -> Option<u32> {
        let index = self.free.pop()?;
        self.segment.use_entry(index);
        Some(index)
    }
}

/// Counts of what a heap has mapped and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segments mapped.
    pub segments: usize,
    /// Bytes of those segments.
    pub bytes: u64,
    /// Blocks and cells in use in all of them, by whomever.
    pub blocks: usize,
    /// Leases on those: one for each block and process.
    pub leases: usize,
    /// Bytes given out of this process's own arena, leased or not.
    pub used: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held has left the bookkeeping as it was between two statements: sound, if perhaps leaky.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heap {
    /// The heap of the process that is holder `me` of the domain at `address`.
    pub fn new(me: u16, address: Address, source: Box<dyn Source>) -> Arc<Heap> {
        Arc::new(Heap {
            me,
            address,
            pid: shoal_sys::process::pid(),
            source,
            segments: RwLock::default(),
            arena: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// This process's number in the domain.
    pub fn me(&self) -> u16 {
        self.me
    }

    /// Where its domain is to be found.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Whether this process is the one it was made in, not a fork of it.
    pub fn is_mine(&self) -> bool {
        self.pid == shoal_sys::process::pid()
    }

    /// The segment of that number, mapped.
    pub fn segment(&self, id: u32) -> Result<Arc<Segment>> {
        if let Some(segment) = self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(segment.clone());
        }
        let segment = self.source.open(id)?;
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        Ok(segments.entry(id).or_insert(segment).clone())
    }

    /// Remembers a segment that was made or opened elsewhere in this process.
    pub fn know(&self, segment: &Arc<Segment>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(segment.id(), segment.clone());
    }

    /// Forgets the mapping of a segment in which nothing is used any more.
    pub fn forget(&self, id: u32) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Allocates bytes that only this process gives back: a message that someone reads while this process waits.
    pub fn allocate_plain(self: &Arc<Heap>, len: u64) -> Result<PlainBlock> {
        let mut arena = lock(&self.arena);
        let piece = self.piece(&mut arena, len)?;
        let segment = arena.tables[&piece.segment].segment.clone();
        drop(arena);
        let block = PlainBlock { heap: self.clone(), segment, piece };
        block.segment.address(piece.offset, piece.len)?;
        Ok(block)
    }

    /// Allocates a block that others may take leases on.
    pub fn allocate(self: &Arc<Heap>, len: u64) -> Result<Lease> {
        let mut arena = lock(&self.arena);
        // Whole pages: then a segment's table, with a line for every page, can't run out before its data does.
        let piece = self.piece(&mut arena, len.max(1).next_multiple_of(PAGE))?;
        let Arena { tables, space, .. } = &mut *arena;
        let table = tables.get_mut(&piece.segment).expect("pieces come from segments with tables");
        let Some(index) = table.take() else {
            let _ = space.free(piece.segment, piece.offset);
            return Err(Error::Damaged("lease table"));
        };
        let segment = table.segment.clone();
        // Before the arena is unlocked: a sweep must not meet a line that is half opened.
        let generation = segment.entries()[index as usize].open(Kind::Block, piece.offset, len, self.me);
        drop(arena);
        let lease = self.register(segment, index, generation);
        lease.0.segment.address(piece.offset, len)?;
        Ok(lease)
    }

    /// Allocates a cell: a few atomic words, all zero, that others may take leases on.
    pub fn allocate_cell(self: &Arc<Heap>, kind: Kind) -> Result<Lease> {
        let mut arena = lock(&self.arena);
        self.sweep(&mut arena);
        let found = arena.tables.values_mut().find(|table| table.cells && !table.free.is_empty());
        let (segment, index) = match found {
            Some(table) => (table.segment.clone(), table.take()),
            None => {
                let id = self.grow(&mut arena, 0, CELLS_PER_SEGMENT)?;
                let table = arena.tables.get_mut(&id).expect("just made");
                (table.segment.clone(), table.take())
            }
        };
        let index = index.ok_or(Error::Damaged("lease table"))?;
        let generation = segment.entries()[index as usize].open(kind, 0, 0, self.me);
        drop(arena);
        Ok(self.register(segment, index, generation))
    }

    fn piece(&self, arena: &mut Arena, len: u64) -> Result<Piece> {
        self.sweep(arena);
        if let Some(piece) = arena.space.allocate(len) {
            return Ok(piece);
        }
        // Twice as much each time, so that a program with a small need starts quickly and one with a large need
        // asks rarely.
        let step = arena.reserved.clamp(FIRST_SEGMENT, LARGEST_STEP);
        let data = step.max(len.next_multiple_of(PAGE));
        let entries = (data / PAGE) as u32;
        match self.grow(arena, data, entries) {
            Err(Error::OutOfSharedMemory { .. }) if data > len.next_multiple_of(PAGE) => {
                let data = len.next_multiple_of(PAGE);
                self.grow(arena, data, (data / PAGE) as u32)?
            }
            grown => grown?,
        };
        arena.space.allocate(len).ok_or(Error::Damaged("arena"))
    }

    fn grow(&self, arena: &mut Arena, data: u64, entries: u32) -> Result<u32> {
        let segment = self.source.create(data, entries)?;
        self.know(&segment);
        let id = segment.id();
        if data > 0 {
            arena.space.add_segment(id, segment.data_at(), segment.len());
        }
        arena.reserved += segment.len();
        let table = Table { free: (0..entries).rev().collect(), seen: 0, cells: data == 0, segment };
        arena.tables.insert(id, table);
        Ok(id)
    }

    /// Takes back what others let go of since the last look.
    fn sweep(&self, arena: &mut Arena) {
        let Arena { tables, space, .. } = arena;
        for (id, table) in tables.iter_mut() {
            let hints = table.segment.hints();
            if hints == table.seen {
                continue;
            }
            table.seen = hints;
            for (index, entry) in table.segment.used_entries().iter().enumerate() {
                // A line that is free already is even in generation and has no holders too: kind tells them apart.
                if let Some(kind) = entry.kind() {
                    close(entry, kind, *id, index as u32, space, &mut table.free);
                }
            }
        }
    }

    fn register(self: &Arc<Heap>, segment: Arc<Segment>, index: u32, generation: u32) -> Lease {
        let lease = Arc::new(Leased { heap: self.clone(), segment, index, generation });
        lock(&self.held).insert((lease.segment.id(), index), Arc::downgrade(&lease));
        Lease(lease)
    }

    /// Takes a lease on a block of any process of the domain.
    pub fn take(self: &Arc<Heap>, id: BlockId) -> Result<Lease> {
        let segment = self.segment(id.segment)?;
        let entry = segment.entries().get(id.entry as usize).ok_or(Error::Damaged("handle"))?;
        let mut held = lock(&self.held);
        if let Some(lease) = held.get(&(id.segment, id.entry)).and_then(Weak::upgrade) {
            // Unlocked first: should this have become the last reference, its drop locks.
            drop(held);
            return if lease.generation == id.generation { Ok(Lease(lease)) } else { Err(Error::Gone) };
        }
        if !entry.take(id.generation, self.me) {
            segment.hint();
            return Err(Error::Gone);
        }
        let lease = Arc::new(Leased {
            heap: self.clone(),
            segment: segment.clone(),
            index: id.entry,
            generation: id.generation,
        });
        held.insert((id.segment, id.entry), Arc::downgrade(&lease));
        Ok(Lease(lease))
    }

    /// Gives back everything that the dead process `holder` held in the segments mapped here, and abandons the
    /// locks it was in. The one function that cleans up after a death.
    pub fn give_back_all(&self, holder: u16, mut abandon: impl FnMut(&Entry)) {
        let segments: Vec<_> = self.segments.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for segment in segments {
            let mut hint = false;
            for entry in segment.used_entries() {
                // Every lock, not just those it held: it may have been woken to take one and died first.
                if entry.kind() == Some(Kind::Lock) && entry.held() {
                    abandon(entry);
                }
                hint |= entry.give_back(holder);
            }
            if hint {
                segment.hint();
            }
        }
    }

    /// Whether anybody holds anything in a segment.
    pub fn in_use(segment: &Segment) -> bool {
        segment.used_entries().iter().any(Entry::held)
    }

    /// What is mapped and in use.
    pub fn usage(&self) -> Usage {
        let mut arena = lock(&self.arena);
        self.sweep(&mut arena);
        let used = arena.space.stats().used;
        drop(arena);
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let mut usage = Usage { segments: segments.len(), used, ..Usage::default() };
        for segment in segments.values() {
            usage.bytes += segment.len();
            for entry in segment.used_entries() {
                let holders = entry.holders() as usize;
                usage.leases += holders;
                usage.blocks += usize::from(holders > 0);
            }
        }
        usage
    }
}

/// Frees an entry and what it describes if nobody holds it.
fn close(entry: &Entry, kind: Kind, segment: u32, index: u32, space: &mut Space, free: &mut Vec<u32>) {
    if entry.close() {
        if kind == Kind::Block {
            space.free(segment, entry.offset()).expect("a block that was open is allocated");
        }
        entry.retire();
        free.push(index);
    }
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heap").field("me", &self.me).finish_non_exhaustive()
    }
}

/// Bytes of this process's arena that only it gives back. Freed on drop.
#[derive(Debug)]
pub struct PlainBlock {
    heap: Arc<Heap>,
    segment: Arc<Segment>,
    piece: Piece,
}

impl PlainBlock {
    /// Where it lies.
    pub fn place(&self, len: u64) -> crate::pool::task_ring::Place {
        crate::pool::task_ring::Place { segment: self.piece.segment, offset: self.piece.offset, len }
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
}

impl Drop for PlainBlock {
    fn drop(&mut self) {
        // A fork has a copy of the books, and perhaps of a lock that nobody there will ever free.
        if !self.heap.is_mine() {
            return;
        }
        let freed = lock(&self.heap.arena).space.free(self.piece.segment, self.piece.offset);
        debug_assert!(freed.is_ok(), "freed twice: {:?}", self.piece);
    }
}

/// The right of this process to use a block. Clones share it; the last one to go gives it back.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Leased>);

#[derive(Debug)]
struct Leased {
    heap: Arc<Heap>,
    segment: Arc<Segment>,
    index: u32,
    generation: u32,
}

impl Lease {
    fn entry(&self) -> &Entry {
        &self.0.segment.entries()[self.0.index as usize]
    }

    /// Which block it is.
    pub fn id(&self) -> BlockId {
        BlockId { segment: self.0.segment.id(), entry: self.0.index, generation: self.0.generation }
    }

    /// Bytes of the block.
    pub fn len(&self) -> u64 {
        self.entry().len()
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
    pub fn cell(&self) -> &Cell {
        self.entry().cell()
    }

    /// The address of its first byte, faulted in. Valid as long as the lease lives.
    pub fn address(&self) -> Result<*mut u8> {
        self.0.segment.address(self.entry().offset(), self.len())
    }

    /// Its bytes.
    ///
    /// # Safety
    /// Nobody writes to the block while the slice lives.
    pub unsafe fn bytes(&self) -> Result<&[u8]> {
        let entry = self.entry();
        // SAFETY: the caller excludes writers.
        unsafe { self.0.segment.bytes(entry.offset(), entry.len()) }
    }

    /// Its first `len` bytes, the only ones to be faulted in.
    ///
    /// # Safety
    /// As for [`bytes`](Self::bytes).
    pub unsafe fn front(&self, len: u64) -> Result<&[u8]> {
        let entry = self.entry();
        // SAFETY: the caller excludes writers.
        unsafe { self.0.segment.bytes(entry.offset(), len.min(entry.len())) }
    }

    /// The segment it lies in, and where.
    pub(super) fn place(&self) -> (&Arc<Segment>, u64) {
        (&self.0.segment, self.entry().offset())
    }

    /// Whether the domain's host, the client, holds it too.
    pub fn held_by_host(&self) -> bool {
        self.entry().held_by(HOST)
    }

    /// The heap it was taken in.
    pub fn heap(&self) -> &Arc<Heap> {
        &self.0.heap
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        // The lease is the process's that took it: a fork of that must not give it back.
        if !self.heap.is_mine() {
            return;
        }
        let place = (self.segment.id(), self.index);
        let mut held = lock(&self.heap.held);
        // Another thread may have taken a new lease on it since the last clone of this one went.
        if held.get(&place).is_some_and(|lease| std::ptr::eq(lease.as_ptr(), self)) {
            held.remove(&place);
            if self.segment.entries()[self.index as usize].give_back(self.heap.me) {
                self.segment.hint();
            }
        }
    }
}
