//! A segment in this process's address space.

use super::{HUGE_PAGE, page_size, whole_units};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr;

/// libc has it for glibc only.
const MADV_COLLAPSE: libc::c_int = 25;

/// A shared mapping of a whole segment, readable and writable unless it was asked to be only read; unmapped on drop.
///
/// Other processes write to it at any time, so there are no references into it here, only the address.
#[derive(Debug)]
pub struct Mapping {
    /// Aligned to a page, and to 2 MiB if the mapping is that long.
    start: *mut u8,
    /// More than 0.
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Mapping` never looks inside.
unsafe impl Send for Mapping {}
// SAFETY: as above; what happens through the address is for its users to answer for.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a segment.
    ///
    /// The address is aligned to 2 MiB if `len` is 2 MiB or more, so that the kernel can use huge pages. Fails with
    /// `InvalidInput` if `len` is 0 or more than the segment has: bytes beyond its end would be a SIGBUS.
    pub fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
        Self::map(fd, len, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// As [`Mapping::new`], of a descriptor that may be open for reading only. Whoever writes there gets a SIGSEGV.
    pub fn read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
        Self::map(fd, len, ProtFlags::READ)
    }

    fn map(fd: BorrowedFd<'_>, len: usize, protection: ProtFlags) -> io::Result<Mapping> {
        let size = rustix::fs::fstat(fd)?.st_size;
        if len == 0 || len > usize::try_from(size).unwrap_or(0) {
            let problem = format!("len: 1 to {size} bytes of this segment can be mapped, not {len}");
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        }
        if len < HUGE_PAGE {
            // SAFETY: the kernel chooses an address that is free.
            let start = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }?;
            return Ok(Mapping { start: start.cast(), len });
        }
        // The kernel promises no alignment, so: take enough free addresses, map over the aligned part, give back the
        // rest.
        let rounded = len.next_multiple_of(page_size());
        let taken = rounded.checked_add(HUGE_PAGE).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: as above; nothing can be read or written there, so it costs addresses only.
        let free: *mut u8 = unsafe { mmap_anonymous(ptr::null_mut(), taken, ProtFlags::empty(), flags) }?.cast();
        let head = free.addr().next_multiple_of(HUGE_PAGE) - free.addr();
        let start = free.wrapping_add(head);
        // SAFETY: replaces a part of the addresses taken above, which nobody else knows.
        let mapped = unsafe { mmap(start.cast(), len, protection, MapFlags::SHARED | MapFlags::FIXED, fd, 0) };
        if let Err(error) = mapped {
            // SAFETY: exactly the addresses taken above.
            unsafe { unmap(free, taken) };
            return Err(error.into());
        }
        // SAFETY: what was taken in front of the mapping.
        unsafe { unmap(free, head) };
        // SAFETY: what was taken behind the mapping.
        unsafe { unmap(start.wrapping_add(rounded), taken - head - rounded) };
        Ok(Mapping { start, len })
    }

    /// The address of the first byte; valid as long as the mapping lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    /// The number of bytes that were mapped.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Faults in, for writing, all pages that the range touches, in one call: 0.12 ms a MiB against 2.6 ms page by
    /// page.
    ///
    /// Does nothing on a kernel that can't. Fails with `InvalidInput` if the range leaves the mapping, and with the
    /// kernel's error if it has no page to give.
    pub fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        let range = self.check(offset, len)?;
        let first = range.start / page_size() * page_size();
        if range.is_empty() {
            return Ok(());
        }
        loop {
            // SAFETY: whole pages of this mapping (the last one may be cut: the kernel rounds up, as mmap did).
            // Faulting in changes no byte.
            let done = unsafe {
                madvise(self.start.wrapping_add(first).cast(), range.end - first, Advice::LinuxPopulateWrite)
            };
            match done {
                Ok(()) | Err(Errno::INVAL) => return Ok(()),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Moves the whole 2 MiB units inside the range onto huge pages, at once, and whatever `shmem_enabled` says.
    ///
    /// The pages must be resident, or it is slower than not. Nothing to do is no error. Fails with `InvalidInput` if
    /// the range leaves the mapping, and with the kernel's error if it can't (EINVAL before Linux 6.1, ENOMEM or
    /// EAGAIN if there is no huge page now): the pages are as good as before then.
    pub fn collapse(&self, offset: usize, len: usize) -> io::Result<()> {
        // The address of offset 0 is a multiple of 2 MiB wherever a whole unit fits.
        let units = whole_units(self.check(offset, len)?, HUGE_PAGE);
        if units.is_empty() {
            return Ok(());
        }
        let start = self.start.wrapping_add(units.start).cast();
        // SAFETY: pages of this mapping, whose bytes stay what they are.
        match unsafe { libc::madvise(start, units.len(), MADV_COLLAPSE) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn check(&self, offset: usize, len: usize) -> io::Result<Range<usize>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(offset..end),
            _ => {
                let problem = format!("offset, len: {len} bytes at {offset} leave a mapping of {} bytes", self.len);
                Err(io::Error::new(ErrorKind::InvalidInput, problem))
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and nobody may use the address after the drop.
        unsafe { unmap(self.start, self.len) };
    }
}

/// Unmaps whole pages; nothing if `len` is 0.
///
/// # Safety
///
/// The pages are the caller's to unmap, and nobody uses them any more.
unsafe fn unmap(start: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: the caller's promise.
        unsafe { munmap(start.cast(), len) }.expect("a range that was mapped can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::super::reserve;
    use super::*;
    use std::os::fd::{AsFd, OwnedFd};

    fn segment(len: usize) -> (OwnedFd, Mapping) {
        let fd = reserve("mapping", len).unwrap();
        let mapping = Mapping::new(fd.as_fd(), len).unwrap();
        (fd, mapping)
    }

    fn write(mapping: &Mapping, offset: usize, byte: u8) {
        assert!(offset < mapping.len());
        // SAFETY: inside the mapping.
        unsafe { mapping.as_ptr().wrapping_add(offset).write_volatile(byte) };
    }

    fn read(mapping: &Mapping, offset: usize) -> u8 {
        assert!(offset < mapping.len());
        // SAFETY: inside the mapping.
        unsafe { mapping.as_ptr().wrapping_add(offset).read_volatile() }
    }

    /// Whether the page at an address is mapped, by asking for its residency.
    fn is_mapped(address: *mut u8) -> bool {
        let mut resident = [0u8];
        // SAFETY: only asks; an address that is not mapped is an error.
        unsafe { libc::mincore(address.cast(), 1, resident.as_mut_ptr()) == 0 }
    }

    /// How many KiB of the mapping this process has faulted in.
    fn resident_kib(mapping: &Mapping) -> usize {
        let start = format!("{:x}-", mapping.as_ptr().addr());
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        rss.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn two_mappings_of_a_segment_show_the_same_bytes() {
        let (fd, one) = segment(100_000);
        let other = Mapping::new(fd.as_fd(), 100_000).unwrap();
        write(&one, 99_999, 7);
        assert_ne!(one.as_ptr(), other.as_ptr());
        assert_eq!((other.len(), read(&other, 99_999), read(&other, 0)), (100_000, 7, 0));
    }

    #[test]
    fn a_mapping_of_2_mib_or_more_is_aligned_to_2_mib() {
        for len in [HUGE_PAGE, HUGE_PAGE + 1, 3 * HUGE_PAGE + page_size()] {
            // Several at once, so that luck does not align them all.
            let mappings: Vec<_> = (0..4).map(|_| segment(len)).collect();
            for (_, mapping) in &mappings {
                assert_eq!(mapping.as_ptr().addr() % HUGE_PAGE, 0);
                write(mapping, 0, 1);
                write(mapping, len - 1, 1);
            }
        }
    }

    #[test]
    fn what_does_not_lie_inside_the_segment_cannot_be_mapped() {
        let fd = reserve("mapping", page_size()).unwrap();
        for len in [0, page_size() + 1, usize::MAX] {
            assert_eq!(Mapping::new(fd.as_fd(), len).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn populating_faults_in_the_pages_that_the_range_touches() {
        let pages = 100;
        let (_fd, mapping) = segment(pages * page_size());
        assert_eq!(resident_kib(&mapping), 0);
        mapping.populate(page_size() - 1, 2).unwrap();
        assert_eq!(resident_kib(&mapping), 2 * page_size() / 1024);
        mapping.populate(0, mapping.len()).unwrap();
        assert_eq!(resident_kib(&mapping), pages * page_size() / 1024);
    }

    #[test]
    fn populating_and_collapsing_keep_the_bytes() {
        let (_fd, mapping) = segment(2 * HUGE_PAGE);
        for offset in (0..mapping.len()).step_by(page_size()) {
            write(&mapping, offset, (offset / page_size() % 251) as u8);
        }
        mapping.populate(0, mapping.len()).unwrap();
        if let Err(error) = mapping.collapse(0, mapping.len()) {
            // Whether the kernel can depends on its age and on the memory that it has now; that the call was right
            // does not.
            let code = error.raw_os_error().unwrap();
            assert!([libc::EINVAL, libc::ENOMEM, libc::EAGAIN, libc::EBUSY].contains(&code), "{error}");
        }
        for offset in (0..mapping.len()).step_by(page_size()) {
            assert_eq!(read(&mapping, offset), (offset / page_size() % 251) as u8);
        }
    }

    #[test]
    fn collapsing_a_range_without_a_whole_unit_does_nothing() {
        let (_fd, mapping) = segment(2 * HUGE_PAGE);
        mapping.collapse(1, HUGE_PAGE).unwrap();
        mapping.collapse(0, 0).unwrap();
    }

    #[test]
    fn a_range_that_leaves_the_mapping_is_refused() {
        let (_fd, mapping) = segment(page_size());
        for (offset, len) in [(0, page_size() + 1), (page_size(), 1), (usize::MAX, 1)] {
            assert_eq!(mapping.populate(offset, len).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(mapping.collapse(offset, len).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        mapping.populate(page_size(), 0).unwrap();
    }

    #[test]
    fn a_mapping_outlives_its_descriptor() {
        let (fd, mapping) = segment(page_size());
        drop(fd);
        write(&mapping, 1, 2);
        assert_eq!(read(&mapping, 1), 2);
    }

    #[test]
    fn a_dropped_mapping_is_unmapped() {
        // In a child, where no other thread can take the address at once.
        crate::process::testing::in_child(|| {
            [1, 2 * HUGE_PAGE].into_iter().all(|len| {
                let (_fd, mapping) = segment(len);
                let last = mapping.as_ptr().wrapping_add((len - 1) / page_size() * page_size());
                let before = is_mapped(last);
                drop(mapping);
                before && !is_mapped(last)
            })
        })
        .assert_ok();
    }
}
