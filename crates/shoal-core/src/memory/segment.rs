//! A segment: one sealed memfd, mapped once per process.
//!
//! ```text
//! 0        4096                                                                   data_at                 len
//! | Header | Entry × entries | marks: words, summary | Page state × granules | … | data …                  |
//! ```
//!
//! Its pages exist before anyone uses them: all of them from the start, or those of a piece before it is handed out
//! (see [`Segment::release`] and [`Segment::restore`]).

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use shoal_sys::memory::{self, Mapping};

use super::lease::Entry;
use super::marks::{Marks, words_for};
use super::outside;
use crate::error::{Error, Result};

const MAGIC: u64 = u64::from_le_bytes(*b"shoalseg");
const VERSION: u32 = 4;
const NOBODY: u32 = u32::MAX;
const PAGE: u64 = 4096;
const ENTRY: u64 = std::mem::size_of::<Entry>() as u64;

/// Pages are faulted in, and given back to the system, this much at a time.
pub const GRANULE: u64 = 2 << 20;
/// The kernel maps existing pages around the one that is touched: so many bytes of them.
const FAULT_AROUND: usize = 64 << 10;
/// In a granule's state: all its pages have been written to.
const WARM: u32 = 1;
/// In a granule's state: it has no pages. The bits above count how often that happened.
const RELEASED: u32 = 2;
const LIFE: u32 = 4;

#[repr(C)]
#[derive(Debug)]
struct Header {
    magic: u64,
    version: u32,
    id: u32,
    data: u64,
    entries: u32,
    /// Who allocates in it, or `NOBODY`. Written by the host, for the one that follows it.
    owner: AtomicU32,
    /// Which domain's it is, for who looks from outside; 0: nobody said.
    domain: AtomicU64,
    /// The owner: entries ever used; a look at all leases ends here.
    used: AtomicU32,
    /// Bytes of data that have no pages at the moment.
    released: AtomicU64,
    /// See [`Marks`]: on a line of its own, as everybody writes to it.
    changes: Line<AtomicU32>,
}

#[repr(C, align(128))]
#[derive(Debug)]
struct Line<T>(T);

/// Where the parts of a segment lie. All that is needed to find them is how much data and how many entries there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    words_at: u64,
    words: u64,
    summary_at: u64,
    summary: u64,
    states_at: u64,
    data_at: u64,
    len: u64,
}

impl Layout {
    /// `data` is a multiple of the page size. `None` if it is absurd.
    fn new(data: u64, entries: u32) -> Option<Layout> {
        let entries = u64::from(entries);
        let words_at = PAGE + entries * ENTRY;
        let words = words_for(entries);
        let summary_at = words_at + words * 8;
        let summary = words_for(words);
        let states_at = summary_at + summary * 8;
        // One state more than there can be granules, as the states themselves move the data.
        let states = states_at.checked_add(data)?.div_ceil(GRANULE) + 2;
        let data_at = (states_at + states * 4).next_multiple_of(PAGE);
        let len = data_at.checked_add(data)?;
        (len < i64::MAX as u64).then_some(Layout { words_at, words, summary_at, summary, states_at, data_at, len })
    }
}

impl Layout {
    /// Where the pages end if `backed` bytes of data have some.
    fn with_pages(&self, backed: u64) -> u64 {
        let end = self.data_at.saturating_add(backed).min(self.len);
        // A segment has less than 2^63 bytes.
        end.next_multiple_of(GRANULE).min(self.len)
    }
}

/// A mapped segment.
#[derive(Debug)]
pub struct Segment {
    id: u32,
    fd: OwnedFd,
    map: Mapping,
    layout: Layout,
    entries: u32,
    /// For each granule the state it had when this process last faulted it in.
    populated: Box<[AtomicU32]>,
    /// Whether this process allocates in it.
    mine: AtomicBool,
}

impl Segment {
    /// Makes a segment with room for `data` bytes of data, and a table of `entries`. Of the data, the first `backed`
    /// bytes and what fills up their granule have pages; the rest counts as released.
    pub fn create(id: u32, data: u64, backed: u64, entries: u32) -> Result<Segment> {
        let data = data.checked_next_multiple_of(PAGE).ok_or(Error::Damaged("size"))?;
        let layout = Layout::new(data, entries).ok_or(Error::Damaged("size"))?;
        let with_pages = layout.with_pages(backed);
        let fd = memory::reserve_front("shoal", layout.len as usize, with_pages as usize)?;
        let map = Mapping::new(fd.as_fd(), layout.len as usize)?;
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            id,
            data,
            entries,
            owner: AtomicU32::new(NOBODY),
            domain: AtomicU64::new(0),
            used: AtomicU32::new(0),
            released: AtomicU64::new(layout.len - with_pages),
            changes: Line(AtomicU32::new(0)),
        };
        // SAFETY: the mapping is at least a page, page-aligned, and nobody else has it yet.
        unsafe { map.as_ptr().cast::<Header>().write(header) };
        let segment = Self::over(id, fd, map, layout, entries);
        for granule in (with_pages / GRANULE) as usize..segment.granules() {
            segment.states()[granule]
                .store(if segment.unit(granule).start < with_pages { 0 } else { RELEASED }, Ordering::Release);
        }
        Ok(segment)
    }

    /// Pages, in bytes, that a new segment takes.
    pub fn cost(data: u64, backed: u64, entries: u32) -> Result<u64> {
        let data = data.checked_next_multiple_of(PAGE).ok_or(Error::Damaged("size"))?;
        let layout = Layout::new(data, entries).ok_or(Error::Damaged("size"))?;
        Ok(layout.with_pages(backed))
    }

    /// Maps a segment whose descriptor came from another process, after checking that it is what it should be.
    pub fn open(id: u32, fd: OwnedFd) -> Result<Segment> {
        let len = memory::sealed_len(fd.as_fd())?;
        if (len as u64) < PAGE {
            return Err(Error::Damaged("segment"));
        }
        let map = Mapping::new(fd.as_fd(), len)?;
        let segment = Self::checked(fd, map)?;
        if segment.id == id { Ok(segment) } else { Err(Error::Damaged("segment")) }
    }

    /// Maps a segment of another process's domain for a look at it. Whatever writes to what comes back is a SIGSEGV.
    pub(super) fn open_to_read(fd: OwnedFd) -> Result<Segment> {
        let map = Mapping::read_only(fd.as_fd(), outside::len_of(fd.as_fd(), PAGE as usize, "segment")?)?;
        Self::checked(fd, map)
    }

    /// Checks what is mapped, a page at least.
    fn checked(fd: OwnedFd, map: Mapping) -> Result<Segment> {
        // Once: whoever sent it may be writing to it.
        // SAFETY: the mapping is at least a page and page-aligned; any bytes are a valid Header.
        let header = unsafe { map.as_ptr().cast::<Header>().read_volatile() };
        let (id, entries) = (header.id, header.entries);
        let known = header.magic == MAGIC && header.version == VERSION;
        match Layout::new(header.data, entries) {
            Some(layout) if known && layout.len == map.len() as u64 => Ok(Self::over(id, fd, map, layout, entries)),
            _ => Err(Error::Damaged("segment")),
        }
    }

    fn over(id: u32, fd: OwnedFd, map: Mapping, layout: Layout, entries: u32) -> Segment {
        let granules = layout.len.div_ceil(GRANULE);
        let populated = (0..granules).map(|_| AtomicU32::new(0)).collect();
        Segment { id, fd, map, layout, entries, populated, mine: AtomicBool::new(false) }
    }

    fn header(&self) -> &Header {
        // SAFETY: the front of the mapping holds a Header, checked by `create` or `open`, as long as `self` lives.
        unsafe { &*self.map.as_ptr().cast::<Header>() }
    }

    /// `count` things from `offset` on.
    ///
    /// # Safety
    /// They lie in the mapping, aligned, any bytes are a valid `T`, and it is made of atomics only.
    unsafe fn table<T>(&self, offset: u64, count: u64) -> &[T] {
        let table = self.map.as_ptr().wrapping_add(offset as usize).cast::<T>();
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(table, count as usize) }
    }

    /// Its number, unique in the domain.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes in all, with and without pages.
    pub fn len(&self) -> u64 {
        self.layout.len
    }

    /// Never: a segment has a header at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where its data begins.
    pub fn data_at(&self) -> u64 {
        self.layout.data_at
    }

    /// Bytes of it that have no pages.
    pub fn released(&self) -> u64 {
        // Written by its owner, who may have scribbled over it.
        self.header().released.load(Ordering::Relaxed).min(self.layout.len - self.layout.data_at)
    }

    /// The host: it belongs to that domain.
    pub fn set_domain(&self, domain: u64) {
        self.header().domain.store(domain, Ordering::Relaxed);
    }

    /// Which domain's it is; 0: nobody said.
    pub fn domain(&self) -> u64 {
        self.header().domain.load(Ordering::Relaxed)
    }

    /// The host: that holder allocates in it from now on, or nobody does any more.
    pub fn set_owner(&self, owner: Option<u16>) {
        self.header().owner.store(owner.map_or(NOBODY, u32::from), Ordering::Release);
    }

    /// The holder that allocates in it, if there is one.
    pub fn owner(&self) -> Option<u16> {
        u16::try_from(self.header().owner.load(Ordering::Acquire)).ok()
    }

    /// From now on this process allocates in it.
    pub fn own(&self) {
        self.mine.store(true, Ordering::Relaxed);
    }

    /// This process is a fork of the one that allocates in it.
    pub fn disown(&self) {
        self.mine.store(false, Ordering::Relaxed);
    }

    /// Whether this process allocates in it.
    pub fn is_mine(&self) -> bool {
        self.mine.load(Ordering::Relaxed)
    }

    /// The table.
    pub fn entries(&self) -> &[Entry] {
        // SAFETY: the layout has that many entries behind the header; entries are made of atomics.
        unsafe { self.table(PAGE, self.entries.into()) }
    }

    /// The entries that were ever used.
    pub fn used_entries(&self) -> &[Entry] {
        let used = self.header().used.load(Ordering::Acquire).min(self.entries);
        &self.entries()[..used as usize]
    }

    /// The owner: counts entry `index` as used from now on.
    pub fn use_entry(&self, index: u32) {
        if self.header().used.load(Ordering::Relaxed) <= index {
            self.header().used.store(index + 1, Ordering::Release);
        }
    }

    /// Which entries the owner should look at.
    pub fn marks(&self) -> Marks<'_> {
        let Layout { words_at, words, summary_at, summary, .. } = self.layout;
        Marks {
            changes: &self.header().changes.0,
            // SAFETY: by the layout.
            summary: unsafe { self.table(summary_at, summary) },
            // SAFETY: by the layout.
            words: unsafe { self.table(words_at, words) },
        }
    }

    fn states(&self) -> &[AtomicU32] {
        // SAFETY: by the layout, which has room for at least so many.
        unsafe { self.table(self.layout.states_at, self.populated.len() as u64) }
    }

    /// Where `len` bytes at `offset` end, if they lie in the data.
    pub fn end_of(&self, offset: u64, len: u64) -> Result<u64> {
        let end = offset.checked_add(len).filter(|end| offset >= self.data_at() && *end <= self.len());
        end.ok_or(Error::Damaged("place"))
    }

    /// The address of `len` bytes at `offset`, faulted in, or an error if they do not lie in the data.
    pub fn address(&self, offset: u64, len: u64) -> Result<*mut u8> {
        let end = self.end_of(offset, len)?;
        self.populate(offset, end)?;
        Ok(self.map.as_ptr().wrapping_add(offset as usize))
    }

    /// The `len` bytes at `offset`.
    ///
    /// # Safety
    /// Nobody writes to them while the slice lives: they belong to a block that the caller may read.
    pub unsafe fn bytes(&self, offset: u64, len: u64) -> Result<&[u8]> {
        let address = self.address(offset, len)?;
        // SAFETY: `address` checked the bounds; the caller excludes writers.
        Ok(unsafe { std::slice::from_raw_parts(address, len as usize) })
    }

    /// Faults in the granules of a range in which something is in use, so that all of their pages exist.
    ///
    /// Pages that nobody has written to yet have to be zeroed first, which the kernel does for all of them in one
    /// call. Those that exist are mapped by sixteen when one of them is read: eight times as fast.
    fn populate(&self, start: u64, end: u64) -> Result<()> {
        for granule in start / GRANULE..end.div_ceil(GRANULE) {
            let (shared, mine) = (&self.states()[granule as usize], &self.populated[granule as usize]);
            let state = shared.load(Ordering::Acquire);
            if state & WARM != 0 && mine.load(Ordering::Relaxed) == state {
                continue;
            }
            if state & RELEASED != 0 {
                // No block lies there: whoever says so has scribbled over a message or a table.
                return Err(Error::Damaged("place"));
            }
            let from = granule * GRANULE;
            let len = GRANULE.min(self.len() - from) as usize;
            if state & WARM != 0 {
                self.touch(from as usize, len);
            } else {
                self.map.populate(from as usize, len)?;
                shared.fetch_or(WARM, Ordering::Release);
            }
            mine.store(state | WARM, Ordering::Relaxed);
        }
        Ok(())
    }

    fn touch(&self, from: usize, len: usize) {
        for offset in (from..from + len).step_by(FAULT_AROUND) {
            // SAFETY: within the mapping, any byte is an AtomicU8, and nobody cares what it is.
            let byte = unsafe { &*self.map.as_ptr().wrapping_add(offset).cast::<AtomicU8>() };
            std::hint::black_box(byte.load(Ordering::Relaxed));
        }
    }

    /// The data of granule `granule`: what is released and restored as one.
    pub fn unit(&self, granule: usize) -> Range<u64> {
        let start = granule as u64 * GRANULE;
        let (first, last) = (self.data_at(), self.len());
        start.clamp(first, last)..(start + GRANULE).clamp(first, last)
    }

    /// The owner, or the host when that is dead: gives the pages of some granules, in whose data nothing is in use, back
    /// to the system.
    pub fn release(&self, granules: Range<usize>) -> Result<u64> {
        let range = self.unit(granules.start).start..self.unit(granules.end - 1).end;
        let len = range.end - range.start;
        memory::release(self.fd(), range.start as usize, len as usize)?;
        for state in &self.states()[granules] {
            // Another life: every process faults it in anew, and who is first has it zeroed.
            let now = state.load(Ordering::Relaxed) & !(LIFE - 1);
            state.store(now.wrapping_add(LIFE) | RELEASED, Ordering::Release);
        }
        self.header().released.fetch_add(len, Ordering::Relaxed);
        Ok(len)
    }

    /// Gives released granules pages again. Called by the host only, whoever owns the segment.
    pub fn restore(&self, granules: Range<usize>) -> Result<()> {
        if granules.is_empty() || granules.end > self.populated.len() {
            return Err(Error::Damaged("place"));
        }
        let range = self.unit(granules.start).start..self.unit(granules.end - 1).end;
        memory::restore(self.fd(), range.start as usize, (range.end - range.start) as usize)?;
        for granule in granules {
            if self.states()[granule].fetch_and(!RELEASED, Ordering::AcqRel) & RELEASED != 0 {
                let unit = self.unit(granule);
                self.header().released.fetch_sub(unit.end - unit.start, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Whether a granule has no pages.
    pub fn is_released(&self, granule: usize) -> bool {
        self.states()[granule].load(Ordering::Acquire) & RELEASED != 0
    }

    /// Granules that it has, the last of them perhaps cut.
    pub fn granules(&self) -> usize {
        self.populated.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mapping_of_the_segment_shows_the_same_bytes() {
        let mine = Segment::create(7, 10_000, 10_000, 3).expect("memory");
        let theirs = Segment::open(7, mine.fd().try_clone_to_owned().expect("descriptor")).expect("a sound segment");
        let offset = mine.data_at();
        let address = mine.address(offset, 5).expect("in the data");
        // SAFETY: five bytes that `address` checked, and nobody else uses.
        unsafe { address.copy_from_nonoverlapping(b"hello".as_ptr(), 5) };
        // SAFETY: nobody writes any more.
        assert_eq!(unsafe { theirs.bytes(offset, 5) }.expect("in the data"), b"hello");
        assert_eq!(theirs.entries().len(), 3);
    }

    #[test]
    fn places_outside_the_data_are_refused() {
        let segment = Segment::create(1, 4096, 4096, 1).expect("memory");
        let (start, end) = (segment.data_at(), segment.len());
        for (offset, len) in [(0, 1), (start - 1, 1), (start, end), (end, 1), (u64::MAX, 2)] {
            assert!(segment.address(offset, len).is_err(), "{offset} {len}");
        }
    }

    #[test]
    fn what_is_not_this_segment_is_refused() {
        let segment = Segment::create(1, 4096, 4096, 1).expect("memory");
        let fd = segment.fd().try_clone_to_owned().expect("descriptor");
        assert!(matches!(Segment::open(2, fd), Err(Error::Damaged(_))), "another number");
        let blank = memory::reserve("blank", 8192).expect("memory");
        assert!(matches!(Segment::open(0, blank), Err(Error::Damaged(_))), "no header");
    }

    #[test]
    fn a_released_granule_reads_as_zeros_in_every_process() {
        let mine = Segment::create(3, 3 * GRANULE, 3 * GRANULE, 8).expect("memory");
        let theirs = Segment::open(3, mine.fd().try_clone_to_owned().expect("descriptor")).expect("a sound segment");
        let offset = mine.unit(1).start;
        let address = mine.address(offset, GRANULE).expect("in the data");
        // SAFETY: a granule that `address` checked, and nobody else uses.
        unsafe { address.write_bytes(7, GRANULE as usize) };
        // SAFETY: nobody writes any more.
        assert!(unsafe { theirs.bytes(offset, GRANULE) }.expect("in the data").iter().all(|byte| *byte == 7));
        assert_eq!(mine.release(1..2).expect("released"), GRANULE);
        assert_eq!((mine.released(), theirs.released()), (GRANULE, GRANULE));
        theirs.restore(1..2).expect("memory");
        assert_eq!(theirs.released(), 0);
        for segment in [&theirs, &mine] {
            // SAFETY: nobody writes.
            assert!(unsafe { segment.bytes(offset, GRANULE) }.expect("in the data").iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn the_table_of_a_segment_without_pages_has_some() {
        let segment = Segment::create(3, 8 * GRANULE, 0, 100).expect("memory");
        assert_eq!(segment.unit(0).start, segment.data_at());
        assert_eq!(segment.released(), segment.len() - GRANULE);
        assert!(segment.entries().iter().all(|entry| !entry.held()));
        let units: u64 = (0..segment.granules()).map(|granule| segment.unit(granule)).map(|u| u.end - u.start).sum();
        assert_eq!(units, segment.len() - segment.data_at(), "the units are all of the data");
    }

    #[test]
    fn a_gigabyte_costs_at_most_one_percent_more() {
        let layout = Layout::new(1 << 30, crate::memory::arena::entries_for(1 << 30)).expect("possible");
        assert!(layout.data_at <= (1 << 30) / 100, "{}", layout.data_at);
    }
}
