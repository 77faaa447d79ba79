//! Leases: who uses a block, written down in shared memory where a death leaves it to be found.
//!
//! Every block that others than its owner may use has an [`Entry`] in the table at the front of its segment. The
//! entry holds a bit for each process; a process's own count of references is its private matter. Taking a lease
//! is one atomic `or`, giving it back one atomic `and`, and what a dead process held is found by its bit. Only the
//! owner of the segment decides that a block is free: nobody frees twice. See `docs/design/leases.md`.
//!
//! # Taking against closing
//!
//! ```text
//! taker                                     owner, when all bits look clear
//! T1  holders |= me                         C1  generation += 1 (odd: closing)
//! T2  generation as in the handle? has it   C2  all bits still clear? generation += 1: the block is free
//!     one more? closing: look again             else generation -= 1: still in use
//!     another? holders &= !me: gone
//! ```
//!
//! A SeqCst fence stands between T1 and T2 and between C1 and C2: either C2 sees the bit of T1, or T2 sees the generation of C1. During C2
//! nobody can succeed with T2, so the set of successful holders only shrinks while its words are read one by one.

use crate::sync::atomics::{AtomicU32, AtomicU64, Ordering, fence};
use crate::sync::bits::BitSet;
use crate::sync::futex::Futex;

/// A few atomic words for a primitive: room for a counter, a lock, an event. All zero when new.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Cell {
    /// A number.
    pub number: AtomicU64,
    /// A word to sleep on.
    pub futex: Futex,
    /// Another word.
    pub word: AtomicU32,
    /// More of them.
    pub more: [AtomicU64; 3],
}

/// Bytes at the end of a cell that lie on a multiple of 16: room for a small value.
#[cfg(not(loom))]
pub const VALUE: usize = 32;

#[cfg(not(loom))]
impl Cell {
    /// Where these bytes begin.
    pub fn value(&self) -> *mut u8 {
        // Everything in a cell may be written through a shared reference; what lies here is never used as words too.
        (&raw const self.futex).cast_mut().cast()
    }
}

/// What an entry describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A piece of the segment's data.
    Block = 1,
    /// A few atomic words inside the entry itself.
    Cell = 2,
    /// A cell that is a lock: its word is looked at when a process dies.
    Lock = 3,
    /// A cell that is a reentrant lock.
    RLock = 4,
    /// A cell that is an event.
    Event = 5,
    /// A cell that is a semaphore, with a block that says who has permits of it.
    Semaphore = 6,
    /// A cell that is a condition, with a block that says who waits for it.
    Condition = 7,
    /// A cell that is a barrier, with a block that says who waits at it.
    Barrier = 8,
    /// A cell that holds a small value.
    Value = 9,
    /// A cell with a room, the state of a queue: see `docs/design/queue.md`.
    Queue = 16,
    /// A block that names other blocks, which its owner holds as long as it is open: see [`Entry::seal`].
    Envelope = 17,
}

/// The holder that stands for all queues: whose bit is set in a block that lies in one.
pub const IN_QUEUE: u16 = crate::sync::bits::CAPACITY as u16 - 1;

impl Kind {
    /// Whether processes wait for it, and have to hear of each other's end.
    pub fn is_waited_for(self) -> bool {
        match self {
            Kind::Lock | Kind::RLock | Kind::Event | Kind::Semaphore | Kind::Condition | Kind::Barrier => true,
            // Queues and what lies in them come first: see `queue::recover`.
            Kind::Block | Kind::Cell | Kind::Value | Kind::Queue | Kind::Envelope => false,
        }
    }

    /// The kind behind a number read from shared memory.
    pub fn from_u32(number: u32) -> Option<Kind> {
        let locks = [Kind::Lock, Kind::RLock, Kind::Event, Kind::Semaphore, Kind::Condition, Kind::Barrier];
        let kinds = [Kind::Block, Kind::Cell, Kind::Value, Kind::Queue, Kind::Envelope].into_iter().chain(locks);
        kinds.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// A line of a segment's table.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Entry {
    generation: AtomicU32,
    kind: AtomicU32,
    offset: AtomicU64,
    len: AtomicU64,
    holders: BitSet,
    cell: Cell,
}

impl Default for Entry {
    fn default() -> Self {
        Entry {
            generation: AtomicU32::new(0),
            kind: AtomicU32::new(0),
            offset: AtomicU64::new(0),
            len: AtomicU64::new(0),
            holders: BitSet::default(),
            cell: Cell::default(),
        }
    }
}

/// How often a taker looks again at an entry that is being closed, before it counts as gone: closing takes some
/// nanoseconds, unless its owner died in the middle of it.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 10_000 };

impl Entry {
    /// The owner: describes a new block and holds it. Returns the generation for its handles.
    pub fn open(&self, kind: Kind, offset: u64, len: u64, owner: u16) -> u32 {
        self.kind.store(kind as u32, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.cell.number.store(0, Ordering::Relaxed);
        self.cell.futex.word().store(0, Ordering::Relaxed);
        self.cell.word.store(0, Ordering::Relaxed);
        self.cell.more.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        // Before there is a holder: who has a handle of an earlier life sees at once that it is another block. Never 0, the
        // generation of a line that was never opened.
        let generation = self.generation.fetch_add(2, Ordering::SeqCst).wrapping_add(2);
        self.holders.insert(owner);
        generation
    }

    /// Takes a lease for `holder` on the block of that generation. `false`: it is gone.
    pub fn take(&self, generation: u32, holder: u16) -> bool {
        if generation == 0 {
            return false;
        }
        self.holders.insert(holder);
        fence(Ordering::SeqCst);
        for _ in 0..LOOKS {
            match self.generation.load(Ordering::SeqCst) {
                now if now == generation => return true,
                now if now == generation.wrapping_add(1) => std::hint::spin_loop(),
                _ => break,
            }
        }
        self.holders.remove(holder);
        false
    }

    /// Whoever has a lease gives another one to `holder`.
    pub fn share(&self, holder: u16) {
        // The giver's own bit keeps the owner from closing meanwhile.
        self.holders.insert(holder);
    }

    /// Gives `holder`'s lease back. `true`: nobody seems to hold the block any more, the owner should look.
    pub fn give_back(&self, holder: u16) -> bool {
        self.holders.remove(holder) && self.holders.is_empty()
    }

    /// The owner: closes the entry if nobody holds it. `true`: the block is free and old handles are void.
    pub fn close(&self) -> bool {
        if !self.holders.is_empty() {
            return false;
        }
        let live = self.generation.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let free = self.holders.is_empty();
        self.generation.store(if free { live.wrapping_add(2) } else { live }, Ordering::SeqCst);
        free
    }

    /// The owner, before it tells anybody: what lies in the block is what a `kind` consists of.
    pub fn become_kind(&self, kind: Kind) {
        self.kind.store(kind as u32, Ordering::Release);
    }

    /// The owner: marks a closed entry as describing nothing.
    pub fn retire(&self) {
        self.kind.store(0, Ordering::Relaxed);
    }

    /// The owner: its new block is written, and names others. From now on, should the owner die, the host holds those in its
    /// place as long as this one is open.
    pub fn seal(&self) {
        self.kind.store(Kind::Envelope as u32, Ordering::Release);
    }

    /// Somebody who has a lease puts the block into a queue, or has taken it out of one.
    pub fn set_in_queue(&self, is: bool) {
        if is {
            self.holders.insert(IN_QUEUE);
        } else {
            self.holders.remove(IN_QUEUE);
        }
    }

    /// Whether `holder` has a lease.
    pub fn held_by(&self, holder: u16) -> bool {
        self.holders.contains(holder)
    }

    /// Whether anybody has a lease.
    pub fn held(&self) -> bool {
        !self.holders.is_empty()
    }

    /// Who has a lease.
    pub fn holders(&self) -> impl Iterator<Item = u16> + '_ {
        self.holders.members()
    }

    /// Which life of the line this is, or was, if it is just being closed.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire) & !1
    }

    /// What it describes.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_u32(self.kind.load(Ordering::Acquire))
    }

    /// Where the block starts in its segment.
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Bytes of the block.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether the block has no bytes of its own (a cell).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The words of a cell.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_free_when_its_last_holder_lets_go() {
        let entry = Entry::default();
        let generation = entry.open(Kind::Block, 4096, 100, 0);
        assert!(entry.take(generation, 300));
        assert!(!entry.give_back(0), "300 still holds it");
        assert!(!entry.close());
        assert!(entry.give_back(300));
        assert!(entry.close());
    }

    #[test]
    fn a_handle_of_an_earlier_life_is_refused() {
        let entry = Entry::default();
        let old = entry.open(Kind::Block, 0, 1, 0);
        assert!(entry.give_back(0) && entry.close());
        let new = entry.open(Kind::Block, 0, 1, 0);
        assert_ne!(old, new);
        assert!(!entry.take(old, 5));
        assert!(!entry.held_by(5));
        assert!(entry.take(new, 5));
    }

    #[test]
    fn an_entry_is_one_line_pair() {
        assert_eq!(std::mem::size_of::<Entry>(), 128);
    }

    #[test]
    fn a_value_lies_in_the_cell_and_on_a_multiple_of_16() {
        let entry = Entry::default();
        let (start, end) = (&raw const entry as usize, (&raw const entry).wrapping_add(1) as usize);
        let value = entry.cell().value() as usize;
        assert_eq!((value - start) % 16, 0);
        assert!(value + VALUE <= end);
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    #[test]
    fn loom_nothing_is_freed_under_a_holder() {
        loom::model(|| {
            let entry = Arc::new(Entry::default());
            let generation = entry.open(Kind::Block, 0, 1, 0);
            assert!(entry.take(generation, 1));
            // 2 takes a lease while 1, who passed it the handle, lets go at any moment after.
            let taker = {
                let entry = entry.clone();
                thread::spawn(move || entry.take(generation, 2))
            };
            let owner = {
                let entry = entry.clone();
                thread::spawn(move || {
                    entry.give_back(0);
                    entry.close()
                })
            };
            entry.give_back(1);
            let (taken, closed) = (taker.join().expect("ends"), owner.join().expect("ends"));
            assert!(!(taken && closed), "closed under holder 2");
            if !taken && !closed {
                assert!(entry.close(), "free for the next look");
            }
        });
    }
}
