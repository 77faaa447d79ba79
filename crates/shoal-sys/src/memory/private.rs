//! A segment seen copy on write: what is written there stays in this process, and can be forgotten again.
//!
//! A private mapping shows the pages of the segment until one of them is written; that one is then this process's own
//! copy. [`PrivateMapping::forget_writes`] drops exactly those copies. The other pages stay mapped, so that the next
//! reader meets warm ones: mapping 100 MB anew costs 6 ms of page faults, looking through it less than one, and
//! nothing at all if the process has had no page fault since, as no copy is made without one.

use super::page_size;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munlock, munmap};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

/// A copy-on-write mapping of a part of a segment; unmapped on drop.
#[derive(Debug)]
pub struct PrivateMapping {
    start: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `PrivateMapping` never looks inside.
unsafe impl Send for PrivateMapping {}
// SAFETY: as above; what happens through the address is for its users to answer for.
unsafe impl Sync for PrivateMapping {}

impl PrivateMapping {
    /// Maps `len` bytes at `offset` of a segment. Costs addresses only, until pages are touched.
    ///
    /// Fails with `InvalidInput` if `offset` is not that of a page, or if the range leaves the segment: bytes beyond
    /// its end would be a SIGBUS.
    pub fn new(fd: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<PrivateMapping> {
        let size = usize::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
        let fits = offset.checked_add(len).is_some_and(|end| end <= size);
        if len == 0 || !fits || !offset.is_multiple_of(page_size()) {
            let problem = format!("offset, len: {len} bytes at {offset} of {size} can't be mapped");
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        }
        // No memory is set aside for copies that may never be made.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses an address that is free.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, flags, fd, offset as u64) }?;
        let mapping = PrivateMapping { start: start.cast(), len };
        // A process that locks all it will ever map (mlockall) has copies of all pages already.
        mapping.drop_pages(start.addr(), start.addr() + len.next_multiple_of(page_size()))?;
        Ok(mapping)
    }

    /// The address of the first byte; valid as long as the mapping lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    /// Drops the copies of the pages that this process has written in the range: it shows the segment's bytes again.
    ///
    /// Fails with `InvalidInput` if the range leaves the mapping or does not begin at a page.
    pub fn forget_writes(&self, offset: usize, len: usize) -> io::Result<()> {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if !fits || !offset.is_multiple_of(page_size()) {
            let problem = format!("offset, len: {len} bytes at {offset} leave a mapping of {} bytes", self.len);
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        }
        let start = self.start.addr() + offset;
        let end = start + len.next_multiple_of(page_size());
        let mut regions = [Region::default(); 64];
        let mut at = start;
        while at < end {
            let Ok((found, walked)) = written(at, end, &mut regions) else {
                // A kernel before 6.7, or no /proc: nobody says which, so all of them.
                return self.drop_pages(at, end);
            };
            for region in &regions[..found] {
                self.drop_pages(region.start as usize, region.end as usize)?;
            }
            at = walked;
        }
        Ok(())
    }

    fn drop_pages(&self, start: usize, end: usize) -> io::Result<()> {
        let from = self.start.wrapping_add(start - self.start.addr());
        // SAFETY: whole pages of this mapping, whose private copies nobody uses any more, by the caller's word.
        let dropped = || unsafe { madvise(from.cast(), end - start, Advice::LinuxDontNeed) };
        dropped().or_else(|_| {
            // Somebody has locked them. What was locked was their copy.
            // SAFETY: as above; unlocking changes no byte.
            unsafe { munlock(from.cast(), end - start) }?;
            dropped()
        })?;
        Ok(())
    }
}

impl Drop for PrivateMapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and nobody may use the address after the drop.
        let unmapped = unsafe { munmap(self.start.cast(), self.len) };
        // A process at its limit of mappings may not even split one: then this one stays, harmlessly.
        debug_assert!(matches!(unmapped, Ok(()) | Err(Errno::NOMEM)), "{unmapped:?}");
    }
}

/// Page faults of this process so far, of all its threads. No page is copied without one.
pub fn page_faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the structure, which has room for it.
    let done = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    assert_eq!(done, 0, "a process can always ask for its own usage");
    // SAFETY: plain numbers, filled by the kernel or zero.
    let usage = unsafe { usage.assume_init() };
    (usage.ru_minflt + usage.ru_majflt) as u64
}

/// As the kernel's `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// As the kernel's `struct pm_scan_arg`.
#[repr(C)]
#[derive(Debug)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

// From linux/fs.h; libc does not have them yet.
const PAGEMAP_SCAN: libc::Ioctl = (3 << 30 | (size_of::<Scan>() << 16) | (b'f' as usize) << 8 | 16) as libc::Ioctl;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// Finds the written pages between two addresses: how many regions, and how far it has looked.
fn written(start: usize, end: usize, regions: &mut [Region]) -> io::Result<(usize, usize)> {
    let mut scan = Scan {
        size: size_of::<Scan>() as u64,
        flags: 0,
        start: start as u64,
        end: end as u64,
        walk_end: 0,
        vec: regions.as_mut_ptr().expose_provenance() as u64,
        vec_len: regions.len() as u64,
        max_pages: 0,
        // A copy is no page of a file, whether it is in memory or swapped out.
        category_inverted: PAGE_IS_FILE,
        category_mask: PAGE_IS_FILE,
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: PAGE_IS_PRESENT,
    };
    thread_local! {
        static PAGEMAP: std::cell::RefCell<Option<(u32, File)>> = const { std::cell::RefCell::new(None) };
    }
    PAGEMAP.with_borrow_mut(|pagemap| {
        // An open pagemap is that of the process that opened it, also in a fork.
        let me = crate::process::pid();
        if pagemap.as_ref().is_none_or(|(pid, _)| *pid != me) {
            *pagemap = Some((me, File::open("/proc/self/pagemap")?));
        }
        let file = pagemap.as_ref().expect("just opened").1.as_fd();
        loop {
            // SAFETY: the kernel reads `scan` and writes to it and to `regions`, both of which outlive the call.
            let found = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
            match usize::try_from(found) {
                Ok(found) => return Ok((found, scan.walk_end as usize)),
                Err(_) if Errno::from_io_error(&io::Error::last_os_error()) == Some(Errno::INTR) => {}
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Mapping, reserve};
    use super::*;

    const PAGES: usize = 1000;

    fn read(start: *mut u8, at: usize) -> u8 {
        assert!(at < PAGES * page_size());
        // SAFETY: inside the mapping.
        unsafe { start.wrapping_add(at).read_volatile() }
    }

    fn write(start: *mut u8, at: usize, byte: u8) {
        assert!(at < PAGES * page_size());
        // SAFETY: inside the mapping.
        unsafe { start.wrapping_add(at).write_volatile(byte) };
    }

    #[test]
    fn what_is_written_stays_private_and_can_be_forgotten() {
        let page = page_size();
        let fd = reserve("private", PAGES * page).unwrap();
        let shared = Mapping::new(fd.as_fd(), PAGES * page).unwrap();
        (0..PAGES).for_each(|at| write(shared.as_ptr(), at * page, 1));
        let private = PrivateMapping::new(fd.as_fd(), 0, PAGES * page).unwrap();
        // More places than one look can tell, neighbours among them.
        let written: Vec<usize> = (0..PAGES).filter(|at| at % 3 != 0).collect();
        written.iter().for_each(|at| write(private.as_ptr(), at * page, 2));
        assert!((0..PAGES).all(|at| read(shared.as_ptr(), at * page) == 1), "the segment is as it was");
        private.forget_writes(0, (PAGES - 1) * page).unwrap();
        assert!((0..PAGES - 1).all(|at| read(private.as_ptr(), at * page) == 1), "forgotten");
        assert_eq!(
            read(private.as_ptr(), (PAGES - 1) * page),
            1 + u8::from(!(PAGES - 1).is_multiple_of(3)),
            "outside the range"
        );
        (0..PAGES).for_each(|at| write(shared.as_ptr(), at * page, 3));
        assert!((0..PAGES - 1).all(|at| read(private.as_ptr(), at * page) == 3), "it follows the segment again");
    }

    #[test]
    fn no_page_is_copied_without_a_fault() {
        let page = page_size();
        let fd = reserve("private", 16 * page).unwrap();
        let private = PrivateMapping::new(fd.as_fd(), 0, 16 * page).unwrap();
        (0..16).for_each(|at| assert_eq!(read(private.as_ptr(), at * page), 0));
        let before = page_faults();
        write(private.as_ptr(), 5 * page, 1);
        assert!(page_faults() > before);
    }

    #[test]
    fn locked_pages_are_forgotten_too() {
        let page = page_size();
        let fd = reserve("private", 8 * page).unwrap();
        let private = PrivateMapping::new(fd.as_fd(), 0, 8 * page).unwrap();
        // SAFETY: pages of the mapping.
        unsafe { rustix::mm::mlock(private.as_ptr().wrapping_add(2 * page).cast(), 3 * page) }.unwrap();
        (0..8).for_each(|at| write(private.as_ptr(), at * page, 7));
        private.forget_writes(0, 8 * page).unwrap();
        assert!((0..8).all(|at| read(private.as_ptr(), at * page) == 0));
    }

    #[test]
    fn ranges_that_leave_the_segment_are_refused() {
        let page = page_size();
        let fd = reserve("private", 4 * page).unwrap();
        for (offset, len) in [(0, 0), (0, 4 * page + 1), (4 * page, 1), (1, page), (usize::MAX - page + 1, 2 * page)] {
            assert_eq!(
                PrivateMapping::new(fd.as_fd(), offset, len).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{offset} {len}"
            );
        }
        let private = PrivateMapping::new(fd.as_fd(), page, 2 * page).unwrap();
        assert!(private.forget_writes(page, page + 1).is_err());
        assert!(private.forget_writes(1, 1).is_err());
    }
}
