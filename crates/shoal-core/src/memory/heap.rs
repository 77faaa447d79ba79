//! The heap of a process: the arena it allocates from, the segments it has mapped, the leases it holds.
//!
//! Only this process allocates in its arena, and the arena's bookkeeping is private memory. Blocks of others are
//! used under a [`Lease`]; so are blocks of its own that others may use. Where segments come from is the
//! [`Source`]'s business: the host makes them, everybody else asks the host.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use shoal_sys::socket::Seqpacket;

use super::arena::{ALWAYS, Aftermath, Arena, Holdings};
use super::block::Leased;
pub use super::block::{Lease, PlainBlock};
use super::handle::Address;
use super::lease::{Entry, Kind};
use super::roster::Claim;
use super::segment::Segment;
use crate::crash;
use crate::domain::stand_in;
use crate::error::{Error, Result};
use crate::queue;

/// The holder that hosts the domain: the client.
pub const HOST: u16 = 0;

mod fork;

use self::fork::Own;
pub use self::fork::Still;

const PAGE: u64 = 4096;

/// Where segments come from.
pub trait Source: Send + Sync {
    /// Makes a segment that this process owns, the first `backed` bytes of its `data` with pages.
    /// `patient`: if there is not enough memory, others are asked to give some back, and given a moment.
    fn create(&self, data: u64, backed: u64, entries: u32, patient: bool) -> Result<Arc<Segment>>;
    /// Gives released granules of a segment that this process owns pages again; patiently.
    fn restore(&self, segment: &Arc<Segment>, granules: Range<usize>) -> Result<()>;
    /// There is something to give back again: [`Heap::tick`] should be called.
    fn freed(&self);
    /// Finds the segment of that number, made by any process of the domain.
    fn open(&self, id: u32) -> Result<Arc<Segment>>;
    /// This process is about to fork: what a child needs to be a holder in its own right. `None`: there is no number left.
    fn branch(&self) -> Option<Branch> {
        None
    }
    /// In the child: settles on its number. The child's own source; `None`: it comes too late.
    fn inherit(&self, _branch: Branch) -> Option<Box<dyn Source>> {
        None
    }
    /// This process holds things in that heap from now on: sees to it that somebody follows the host when that ends.
    fn attend(&self, _heap: &'static Arc<Heap>) {}
    /// In the child: closes its copies of the parent's sockets, which must be seen to end when the parent does.
    fn close_copies(&self) {}
}

/// What the child of a fork begins with.
#[derive(Debug)]
pub struct Branch {
    /// Its number.
    pub claim: Claim,
    /// Its socket to the host, if the host could be told of it.
    pub socket: Option<Seqpacket>,
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

/// The heap. One per domain and process, never dropped while a block of it is in use. A fork of the process makes it its
/// own (see `fork`).
pub struct Heap {
    me: AtomicU16,
    /// Where the domain is to be found.
    address: Address,
    /// The process it belongs to.
    pid: AtomicU32,
    books: Own<Books>,
}

/// What one process knows of a heap.
pub(super) struct Books {
    source: Box<dyn Source>,
    segments: RwLock<Segments>,
    arena: Mutex<Arena>,
    pub(super) held: Mutex<Held>,
    /// Whether this process has let go of blocks of others, who may not know yet.
    let_go: AtomicBool,
}

type Segments = FxHashMap<u32, Arc<Segment>>;
type Held = FxHashMap<u64, Weak<Leased>>;

/// Counts of what a heap has mapped and holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segments mapped.
    pub segments: usize,
    /// Bytes of those segments, apart from what was given back to the system.
    pub bytes: u64,
    /// Blocks and cells in use in all of them, by whomever.
    pub blocks: usize,
    /// Leases on those: one for each block and process.
    pub leases: usize,
    /// Bytes given out of this process's own arena, leased or not.
    pub used: u64,
    /// Bytes that are in no use, but kept for the next one.
    pub free: u64,
    /// Bytes that were given back to the system, until they are needed again.
    pub released: u64,
    /// The most there may be of all, less what is given back.
    pub limit: Option<u64>,
    /// Bytes of the blocks that each process holds. A block that two hold counts for both.
    pub holders: Vec<(Holder, u64)>,
}

/// Who holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The host: the process that asks.
    Host,
    /// A worker, by its process.
    Worker(u32),
    /// Another process that was given a handle.
    Guest,
}

/// What a block is called in the books of this process.
pub(super) fn key(segment: u32, index: u32) -> u64 {
    u64::from(segment) << 32 | u64::from(index)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held has left the bookkeeping as it was between two statements: sound, if perhaps leaky.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heap {
    /// The heap of the process that is holder `me` of the domain at `address`.
    pub fn new(me: u16, address: Address, source: Box<dyn Source>) -> Arc<Heap> {
        Arc::new(Heap {
            me: AtomicU16::new(me),
            address,
            pid: AtomicU32::new(shoal_sys::process::pid()),
            books: Own::new(Books::new(source)),
        })
    }

    pub(super) fn books(&self) -> &Books {
        self.books.get()
    }

    /// This process's number in the domain.
    pub fn me(&self) -> u16 {
        self.me.load(Ordering::Relaxed)
    }

    /// Whose number the calling thread bears in the words of locks and the like: this process's, or that of whom it stands for.
    #[inline]
    pub fn actor(&self) -> u16 {
        stand_in::acting(self).unwrap_or_else(|| self.me())
    }

    /// Where its domain is to be found.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Whether it is this process's own: made here, or made its own at the fork. If not, what it holds is the parent's.
    pub fn is_mine(&self) -> bool {
        self.pid.load(Ordering::Relaxed) == shoal_sys::process::pid()
    }

    /// It is kept for good: see [`Source::attend`].
    pub fn attend(self: &'static Arc<Heap>) {
        self.books().source.attend(self);
    }

    /// The segment of that number, mapped.
    pub fn segment(&self, id: u32) -> Result<Arc<Segment>> {
        if let Some(segment) = self.books().segments.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(segment.clone());
        }
        let segment = self.books().source.open(id)?;
        let mut segments = self.books().segments.write().unwrap_or_else(PoisonError::into_inner);
        Ok(segments.entry(id).or_insert(segment).clone())
    }

    /// Remembers a segment that was made or opened elsewhere in this process.
    pub fn know(&self, segment: &Arc<Segment>) {
        self.books().segments.write().unwrap_or_else(PoisonError::into_inner).insert(segment.id(), segment.clone());
    }

    /// Forgets the mapping of a segment in which nothing is used any more.
    pub fn forget(&self, id: u32) {
        self.books().segments.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Allocates bytes that only this process gives back: a message that someone reads while this process waits.
    pub fn allocate_plain(self: &Arc<Heap>, len: u64) -> Result<PlainBlock> {
        let mut arena = lock(&self.books().arena);
        let piece = arena.cut(&*self.books().source, len, false)?;
        let segment = arena.segment(piece.segment);
        self.unlock(arena);
        let block = PlainBlock { heap: self.clone(), segment, piece };
        block.segment.address(piece.offset, piece.len)?;
        Ok(block)
    }

    /// Allocates a block that others may take leases on.
    pub fn allocate(self: &Arc<Heap>, len: u64) -> Result<Lease> {
        let mut arena = lock(&self.books().arena);
        let piece = arena.cut(&*self.books().source, len, true)?;
        let (segment, index) = arena.line(piece);
        // Before the arena is unlocked: a sweep must not meet a line that is half opened.
        let lease = self.open(segment, index, Kind::Block, (piece.offset, len));
        self.unlock(arena);
        lease.0.segment.address(piece.offset, len)?;
        Ok(lease)
    }

    /// Allocates a cell: a few atomic words, all zero, that others may take leases on.
    pub fn allocate_cell(self: &Arc<Heap>, kind: Kind) -> Result<Lease> {
        self.allocate_room(kind, 0)
    }

    /// Allocates a cell with a room of so many bytes, all zero. When its last holder has let go, `queue::clear` empties it.
    pub fn allocate_room(self: &Arc<Heap>, kind: Kind, room: u64) -> Result<Lease> {
        let mut arena = lock(&self.books().arena);
        let (segment, index, offset) = arena.cell(&*self.books().source, room)?;
        let lease = self.open(segment, index, kind, (offset, room));
        self.unlock(arena);
        if room > 0 {
            lease.address()?;
        }
        Ok(lease)
    }

    /// A block just written names others: an envelope. It holds them as long as it is open, and if this process dies first
    /// the host does. The block must begin as `envelope` writes it.
    pub fn enclose(&self, envelope: &Lease, leases: Vec<Lease>) {
        let id = envelope.id();
        lock(&self.books().arena).enclose(id.segment, id.entry, leases);
        envelope.seal();
    }

    fn unlock(self: &Arc<Heap>, mut arena: MutexGuard<'_, Arena>) {
        let Aftermath { added, left, parting } = arena.aftermath();
        let news = arena.has_news();
        drop(arena);
        added.iter().for_each(|segment| self.know(segment));
        let mut again = vec![];
        for (segment, index) in left {
            match queue::clear(self, &segment, index) {
                Ok(true) => lock(&self.books().arena).vacate(segment.id(), index),
                // No descriptors or memory are left to look at what lies in it: at the next change they may be.
                Err(Error::Os(_) | Error::Host(_) | Error::OutOfSharedMemory { .. }) => again.push((segment, index)),
                // Somebody else is about it, or has written over it.
                Ok(false) | Err(_) => {}
            }
        }
        if !again.is_empty() {
            lock(&self.books().arena).clear_later(again);
        }
        drop(parting);
        if news {
            self.books().source.freed();
        }
    }

    /// Changes the arena in a way that may make something free.
    pub(super) fn change(self: &Arc<Heap>, change: impl FnOnce(&mut Arena)) {
        let mut arena = lock(&self.books().arena);
        change(&mut arena);
        self.unlock(arena);
    }

    /// Notes that the owner of some block should be told to look.
    pub(super) fn let_go_of_others(&self) {
        // A look first: it is so mostly, and a write would be dear.
        if !self.books().let_go.load(Ordering::Relaxed) && !self.books().let_go.swap(true, Ordering::Relaxed) {
            self.books().source.freed();
        }
    }

    /// Whether this process has let go of blocks of others since this was asked last.
    pub fn has_let_go(&self) -> bool {
        self.books().let_go.swap(false, Ordering::Relaxed)
    }

    /// Gives what has been free for some seconds back to the system, if it is time for a look. When to call it again;
    /// `None`: there is nothing to give back, until something is freed.
    pub fn tick(self: &Arc<Heap>) -> Option<Duration> {
        let mut arena = lock(&self.books().arena);
        let next = arena.tick(Instant::now());
        self.unlock(arena);
        next
    }

    /// Gives everything that is free back to the system. How many bytes.
    pub fn release_free(self: &Arc<Heap>) -> u64 {
        let mut arena = lock(&self.books().arena);
        arena.sweep();
        let released = arena.release(ALWAYS);
        self.unlock(arena);
        released
    }

    /// The first lease on what a line of the own arena describes from now on.
    fn open(self: &Arc<Heap>, segment: Arc<Segment>, index: u32, kind: Kind, (offset, len): (u64, u64)) -> Lease {
        let place = key(segment.id(), index);
        // Over both: another thread that tries a handle of the line's former life would take the bit for its own, and clear it.
        let mut held = lock(&self.books().held);
        let generation = segment.entries()[index as usize].open(kind, offset, len, self.me());
        crash::point("heap: opened");
        let lease = Arc::new(Leased::new(self.clone(), segment, index, generation, (offset, len)));
        held.insert(place, Arc::downgrade(&lease));
        Lease(lease)
    }

    /// Takes a lease on a block of any process of the domain.
    pub fn take(self: &Arc<Heap>, id: BlockId) -> Result<Lease> {
        let segment = self.segment(id.segment)?;
        let entry = segment.entries().get(id.entry as usize).ok_or(Error::Damaged("handle"))?;
        let place = key(id.segment, id.entry);
        let mut held = lock(&self.books().held);
        if let Some(lease) = held.get(&place).and_then(Weak::upgrade) {
            // Unlocked first: should this have become the last reference, its drop locks.
            drop(held);
            lease.found();
            return if lease.generation == id.generation { Ok(Lease(lease)) } else { Err(Error::Gone) };
        }
        if !entry.take(id.generation, self.me()) {
            // It may have kept the owner from freeing what is there now.
            segment.marks().set(id.entry);
            return Err(Error::Gone);
        }
        let bytes = (entry.offset(), entry.len());
        if bytes.1 > 0
            && let Err(error) = segment.end_of(bytes.0, bytes.1)
        {
            entry.give_back(self.me());
            segment.marks().set(id.entry);
            return Err(error);
        }
        let (heap, segment) = (self.clone(), segment.clone());
        let lease = Arc::new(Leased::new(heap, segment, id.entry, id.generation, bytes));
        held.insert(place, Arc::downgrade(&lease));
        Ok(Lease(lease))
    }

    /// Gives back everything that the dead process `holder` held in the segments mapped here, and has `abandon` look at each
    /// thing that somebody holds, for what its death means there. The one function that cleans up after a death.
    pub fn give_back_all(self: &Arc<Heap>, holder: u16, mut abandon: impl FnMut(&Lease, Kind)) {
        let segments = self.segments();
        for segment in segments {
            for (index, entry) in segment.used_entries().iter().enumerate() {
                let Some(kind) = entry.kind() else { continue };
                // Not just what it held: it may have been woken to take a lock, and died first.
                if kind.is_waited_for() && entry.held() {
                    crash::point("death: one that is held");
                    let id = BlockId { segment: segment.id(), entry: index as u32, generation: entry.generation() };
                    // With a lease: its last holder may let go just now, and another block lie there.
                    if let Ok(lease) = self.take(id)
                        && lease.kind() == Some(kind)
                    {
                        abandon(&lease, kind);
                    }
                }
                entry.give_back(holder);
                // Also what it let go of itself: it may have died before it told the owner.
                if !entry.held() {
                    segment.marks().set(index as u32);
                }
            }
        }
    }

    /// All segments that are mapped here.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.books().segments.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether anybody holds anything in a segment.
    pub fn in_use(segment: &Segment) -> bool {
        segment.used_entries().iter().any(Entry::held)
    }

    /// What is mapped and in use. `name` tells who has a number; who has none (any more) is left out.
    pub fn usage(self: &Arc<Heap>, name: impl Fn(u16) -> Option<Holder>) -> Usage {
        let mut arena = lock(&self.books().arena);
        arena.sweep();
        self.unlock(arena);
        let Holdings { used, free } = lock(&self.books().arena).holdings();
        let segments = self.segments();
        let mut usage = Usage { segments: segments.len(), used, free, ..Usage::default() };
        let mut holders: FxHashMap<u16, u64> = FxHashMap::default();
        for segment in &segments {
            usage.bytes += segment.len() - segment.released();
            usage.released += segment.released();
            let mut used = 0;
            for entry in segment.used_entries().iter().filter(|entry| entry.kind().is_some()) {
                let mut count = 0;
                // Whoever has written over the table is not to make the sums run over.
                let len = entry.len().min(segment.len());
                for holder in entry.holders() {
                    count += 1;
                    *holders.entry(holder).or_default() += len;
                }
                usage.leases += count;
                usage.blocks += usize::from(count > 0);
                used += if count > 0 { len.next_multiple_of(PAGE) } else { 0 };
            }
            if !segment.is_mine() {
                // Of others' arenas only the table is known.
                usage.free += (segment.len() - segment.data_at()).saturating_sub(segment.released() + used);
            }
        }
        usage.holders = holders.into_iter().filter_map(|(holder, bytes)| Some((name(holder)?, bytes))).collect();
        usage.holders.sort_unstable();
        usage
    }
}

impl Books {
    fn new(source: Box<dyn Source>) -> Books {
        Books {
            source,
            segments: RwLock::default(),
            arena: Mutex::default(),
            held: Mutex::default(),
            let_go: AtomicBool::new(false),
        }
    }
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heap").field("me", &self.me()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
