//! A segment: one sealed memfd with real pages behind it, mapped once per process.
//!
//! ```text
//! 0        4096                     data_at                        len
//! | Header | Entry × entries        | data …                        |
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use shoal_sys::memory::{self, Mapping};

use super::lease::Entry;
use crate::error::{Error, Result};

const MAGIC: u64 = u64::from_le_bytes(*b"shoalseg");
const VERSION: u32 = 1;
const PAGE: u64 = 4096;
/// Pages are faulted in this much at a time: one call for 2 MiB costs a quarter of a millisecond, page by page
/// it would be five.
const GRANULE: u64 = 2 << 20;

#[repr(C)]
#[derive(Debug)]
struct Header {
    magic: u64,
    version: u32,
    id: u32,
    len: u64,
    data_at: u64,
    entries: u32,
    /// Entries ever used: a look at all leases ends here.
    used: AtomicU32,
    /// Counts the leases whose end may have freed a block, so that the owner knows when to look.
    hints: AtomicU32,
}

/// A mapped segment.
#[derive(Debug)]
pub struct Segment {
    id: u32,
    fd: OwnedFd,
    map: Mapping,
    data_at: u64,
    entries: u32,
    populated: Box<[AtomicU64]>,
}

impl Segment {
    /// Makes a segment with `data` bytes of data and a table of `entries`.
    pub fn create(id: u32, data: u64, entries: u32) -> Result<Segment> {
        let table = (u64::from(entries) * std::mem::size_of::<Entry>() as u64).next_multiple_of(PAGE);
        let data_at = PAGE + table;
        let len = data_at + data.next_multiple_of(PAGE);
        let fd = memory::reserve("shoal", len as usize)?;
        let map = Mapping::new(fd.as_fd(), len as usize)?;
        let header = Header {
            magic: MAGIC,
            version: VERSION,
            id,
            len,
            data_at,
            entries,
            used: AtomicU32::new(0),
            hints: AtomicU32::new(0),
        };
        // SAFETY: the mapping is at least a page, page-aligned, and nobody else has it yet.
        unsafe { map.as_ptr().cast::<Header>().write(header) };
        Ok(Self::over(id, fd, map, data_at, entries))
    }

    /// Maps a segment whose descriptor came from another process, after checking that it is what it should be.
    pub fn open(id: u32, fd: OwnedFd) -> Result<Segment> {
        let len = memory::sealed_len(fd.as_fd())?;
        if (len as u64) < PAGE {
            return Err(Error::Damaged("segment"));
        }
        let map = Mapping::new(fd.as_fd(), len)?;
        // SAFETY: the mapping is at least a page and page-aligned; any bytes are a valid Header.
        let header = unsafe { &*map.as_ptr().cast::<Header>() };
        let table_end = PAGE + u64::from(header.entries) * std::mem::size_of::<Entry>() as u64;
        let sound = header.magic == MAGIC
            && header.version == VERSION
            && header.id == id
            && header.len == len as u64
            && header.data_at <= header.len
            && table_end <= header.data_at;
        if !sound {
            return Err(Error::Damaged("segment"));
        }
        let (data_at, entries) = (header.data_at, header.entries);
        Ok(Self::over(id, fd, map, data_at, entries))
    }

    fn over(id: u32, fd: OwnedFd, map: Mapping, data_at: u64, entries: u32) -> Segment {
        let granules = (map.len() as u64).div_ceil(GRANULE);
        let populated = (0..granules.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Segment { id, fd, map, data_at, entries, populated }
    }

    fn header(&self) -> &Header {
        // SAFETY: the front of the mapping holds a Header, checked by `create` or `open`, as long as `self` lives.
        unsafe { &*self.map.as_ptr().cast::<Header>() }
    }

    /// Its number, unique in the domain.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Never: a segment has a header at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where its data begins.
    pub fn data_at(&self) -> u64 {
        self.data_at
    }

    /// The table.
    pub fn entries(&self) -> &[Entry] {
        let table = self.map.as_ptr().wrapping_add(PAGE as usize).cast::<Entry>();
        // SAFETY: `create` laid out, or `open` checked, that many entries behind the header; all bytes are valid
        // entries, which are made of atomics only.
        unsafe { std::slice::from_raw_parts(table, self.entries as usize) }
    }

    /// The entries that were ever used.
    pub fn used_entries(&self) -> &[Entry] {
        let used = self.header().used.load(Ordering::Acquire).min(self.entries);
        &self.entries()[..used as usize]
    }

    /// The owner: counts entry `index` as used from now on.
    pub fn use_entry(&self, index: u32) {
        self.header().used.fetch_max(index + 1, Ordering::AcqRel);
    }

    /// Tells the owner that a block may be free.
    pub fn hint(&self) {
        self.header().hints.fetch_add(1, Ordering::SeqCst);
    }

    /// How many hints there were.
    pub fn hints(&self) -> u32 {
        self.header().hints.load(Ordering::SeqCst)
    }

    /// The address of `len` bytes at `offset`, faulted in, or an error if they do not lie in the data.
    pub fn address(&self, offset: u64, len: u64) -> Result<*mut u8> {
        let end = offset.checked_add(len).ok_or(Error::Damaged("place"))?;
        if offset < self.data_at || end > self.len() {
            return Err(Error::Damaged("place"));
        }
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

    fn populate(&self, start: u64, end: u64) -> Result<()> {
        for granule in start / GRANULE..end.div_ceil(GRANULE) {
            let (word, bit) = (&self.populated[(granule / 64) as usize], 1u64 << (granule % 64));
            if word.load(Ordering::Relaxed) & bit == 0 {
                let from = granule * GRANULE;
                self.map.populate(from as usize, GRANULE.min(self.len() - from) as usize)?;
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_mapping_of_the_segment_shows_the_same_bytes() {
        let mine = Segment::create(7, 10_000, 3).expect("memory");
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
        let segment = Segment::create(1, 4096, 1).expect("memory");
        let (start, end) = (segment.data_at(), segment.len());
        for (offset, len) in [(0, 1), (start - 1, 1), (start, end), (end, 1), (u64::MAX, 2)] {
            assert!(segment.address(offset, len).is_err(), "{offset} {len}");
        }
    }

    #[test]
    fn what_is_not_this_segment_is_refused() {
        let segment = Segment::create(1, 4096, 1).expect("memory");
        let fd = segment.fd().try_clone_to_owned().expect("descriptor");
        assert!(matches!(Segment::open(2, fd), Err(Error::Damaged(_))), "another number");
        let blank = memory::reserve("blank", 8192).expect("memory");
        assert!(matches!(Segment::open(0, blank), Err(Error::Damaged(_))), "no header");
    }
}
