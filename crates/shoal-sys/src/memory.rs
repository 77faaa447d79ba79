//! Segments: anonymous files in memory (memfd), passed between processes by descriptor.
//!
//! A segment's size is final and its pages are real before anyone uses it. Without the seals someone could shorten
//! it, without the pages memory could run out at the first touch; both are a SIGBUS in whoever reads or writes there.
//! It has no name in any file system and is gone with its last descriptor and mapping.

mod available;
mod copy;
mod huge;
mod mapping;
mod private;

pub use available::{available_memory, total_memory};
pub use copy::{LARGE_COPY, copy};
pub use huge::prefer_large_pages;
pub use mapping::Mapping;
pub use private::{PrivateMapping, page_faults};

use available::Memory;
use rustix::fs::{
    FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fchmod, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create, open,
};
use rustix::io::Errno;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The size of a huge page, where a base page has 4 KiB.
pub const HUGE_PAGE: usize = 2 << 20;

/// Pages are taken in such steps, with a look at the memory that is left before each: others take some meanwhile.
const STEP: usize = 64 << 20;

/// What stays free for everyone else, at the least.
const MARGIN: usize = 64 << 20;

/// Why memory could not be reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// There is not enough memory, for this process's control groups or for the machine.
    #[error("out of memory: {wanted} bytes of shared memory were wanted, {available} are available")]
    OutOfMemory {
        /// The bytes that were asked for, rounded up to whole pages.
        wanted: usize,
        /// The bytes that could have been had, apart from a margin for everyone else.
        available: usize,
    },
    /// The system refused for another reason.
    #[error(transparent)]
    Os(#[from] io::Error),
}

impl From<Errno> for ReserveError {
    fn from(error: Errno) -> ReserveError {
        ReserveError::Os(error.into())
    }
}

/// Makes a segment of `len` bytes, rounded up to whole pages: zeroed, backed by pages, and sealed for good at that
/// size.
///
/// `name` is shown in `/proc/<pid>/maps` and means nothing else. Too much is refused before anything is taken: a memfd
/// has no limit of its own, and the out-of-memory killer would be the one to answer. Fails with `InvalidInput` if `len`
/// is 0.
pub fn reserve(name: &str, len: usize) -> Result<OwnedFd, ReserveError> {
    reserve_front(name, len, len)
}

/// As [`reserve`], but only the first `backed` bytes, rounded up to whole pages, have pages. The others are as after a
/// [`release`]: nobody may touch them before a [`restore`].
pub fn reserve_front(name: &str, len: usize, backed: usize) -> Result<OwnedFd, ReserveError> {
    if len == 0 {
        return Err(io::Error::new(ErrorKind::InvalidInput, "len: a segment has at least 1 byte").into());
    }
    let len = len.checked_next_multiple_of(page_size()).unwrap_or(usize::MAX);
    let backed = backed.min(len).checked_next_multiple_of(page_size()).unwrap_or(usize::MAX);
    check_available(backed)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3; from then on there are machines that want it said that nothing here is a program.
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        made => made?,
    };
    // Only its descriptor gives access, but /proc/<pid>/fd shows that to others of this user: not to everyone.
    fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    ftruncate(&fd, len as u64)?;
    take_pages(0..backed, |part| allocate(fd.as_fd(), part))?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Backs a range of a segment by pages again, after a [`release`]: whatever of it has none, for the pages that it
/// touches.
///
/// Fails with `InvalidInput` if the range leaves the segment.
pub fn restore(fd: BorrowedFd<'_>, offset: usize, len: usize) -> Result<(), ReserveError> {
    let range = check_range(fd, offset, len)?;
    check_available(range.len())?;
    take_pages(range, |part| allocate(fd, part))
}

/// Backs a range by pages, for which there was enough memory a moment ago, by calls of `allocate` for its parts.
fn take_pages(
    range: Range<usize>,
    mut allocate: impl FnMut(Range<usize>) -> rustix::io::Result<()>,
) -> Result<(), ReserveError> {
    let Range { start: mut at, end } = range;
    let mut next_check = at.saturating_add(STEP);
    let mut step = STEP;
    while at < end {
        if at >= next_check {
            check_available(end - at)?;
            next_check = at.saturating_add(STEP);
        }
        let part = at..at + step.min(end - at);
        match allocate(part.clone()) {
            Ok(()) => {
                at = part.end;
                step = (step * 2).min(STEP);
            }
            // On many kernels any signal undoes the call. Whoever gets one every few milliseconds (a profiler) would
            // try for ever with parts that take longer.
            Err(Errno::INTR) => step = (step / 2).max(page_size()),
            Err(Errno::NOSPC | Errno::NOMEM) => {
                return Err(ReserveError::OutOfMemory { wanted: end - at, available: spare_memory() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn allocate(fd: BorrowedFd<'_>, part: Range<usize>) -> rustix::io::Result<()> {
    fallocate(fd, FallocateFlags::KEEP_SIZE, part.start as u64, part.len() as u64)
}

/// Gives the pages of a range back to the system: the whole pages inside it, in every process that maps them.
///
/// They read as zeros from then on. A later touch takes new pages, one by one, and is a SIGBUS if there are none:
/// [`restore`] first. Fails with `InvalidInput` if the range leaves the segment.
pub fn release(fd: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<()> {
    let pages = whole_units(check_range(fd, offset, len)?, page_size());
    if pages.is_empty() {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match fallocate(fd, flags, pages.start as u64, pages.len() as u64) {
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Opens the segment that another process of this user has under a descriptor, by its path `/proc/<pid>/fd/<number>`, for
/// reading only.
///
/// That number may mean another file by now: what is opened is not waited for, and whether it is a segment,
/// [`sealed_len`] tells.
pub fn open_of_another(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(open(path, flags, Mode::empty())?)
}

/// Tells a file from all others: its device and its number there.
pub fn file_of(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let status = fstat(fd)?;
    Ok((status.st_dev, status.st_ino))
}

/// The length of a segment that came from another process, once it is sure that nobody can change it.
///
/// Fails with `InvalidData` if the descriptor is not of a memfd sealed against shrinking and growing.
pub fn sealed_len(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let refused = |problem: &str| Err(io::Error::new(ErrorKind::InvalidData, problem));
    match fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(SealFlags::SHRINK | SealFlags::GROW) => Ok(size(fd)?),
        Ok(_) => refused("a received segment is not sealed against changes of its size"),
        Err(Errno::INVAL) => refused("a received descriptor is not of a segment"),
        Err(error) => Err(error.into()),
    }
}

/// The size of a page in bytes.
pub fn page_size() -> usize {
    rustix::param::page_size()
}

fn check_available(wanted: usize) -> Result<(), ReserveError> {
    let available = spare_memory();
    if wanted > available { Err(ReserveError::OutOfMemory { wanted, available }) } else { Ok(()) }
}

/// What a segment may take: the available memory, apart from 2 % of all and at least [`MARGIN`].
fn spare_memory() -> usize {
    let Memory { total, available } = available::memory();
    available.saturating_sub((total / 50).max(MARGIN))
}

fn size(fd: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(usize::try_from(fstat(fd)?.st_size).expect("a size is not negative"))
}

fn check_range(fd: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<Range<usize>> {
    let size = size(fd)?;
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(offset..end),
        _ => {
            let problem = format!("offset, len: {len} bytes at {offset} leave a segment of {size} bytes");
            Err(io::Error::new(ErrorKind::InvalidInput, problem))
        }
    }
}

/// The whole units inside a range; an empty range if there are none.
fn whole_units(range: Range<usize>, unit: usize) -> Range<usize> {
    let end = range.end / unit * unit;
    range.start.checked_next_multiple_of(unit).map_or(end, |start| start.min(end))..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_getfd};
    use rustix::pipe::pipe;

    fn pages(fd: impl AsFd) -> usize {
        fstat(fd).unwrap().st_blocks as usize * 512 / page_size()
    }

    #[test]
    fn a_segment_has_whole_pages_and_all_of_them() {
        for (len, expected) in [(1, 1), (page_size(), 1), (page_size() + 1, 2), (1000 * page_size(), 1000)] {
            let fd = reserve("segment", len).unwrap();
            assert_eq!(sealed_len(fd.as_fd()).unwrap(), expected * page_size());
            assert_eq!(pages(&fd), expected);
        }
    }

    #[test]
    fn a_segment_may_begin_with_a_part_of_its_pages() {
        let fd = reserve_front("segment", 10 * page_size(), 2 * page_size() + 1).unwrap();
        assert_eq!((sealed_len(fd.as_fd()).unwrap(), pages(&fd)), (10 * page_size(), 3));
        restore(fd.as_fd(), 0, 10 * page_size()).unwrap();
        assert_eq!(pages(&fd), 10);
    }

    #[test]
    fn a_segment_longer_than_a_step_has_all_its_pages_too() {
        let fd = reserve("segment", STEP + page_size()).unwrap();
        assert_eq!(pages(&fd), STEP / page_size() + 1);
    }

    #[test]
    fn signals_that_never_stop_do_not_keep_pages_from_being_taken() {
        let (start, end) = (page_size(), STEP / 4);
        let mut taken = start;
        let interrupt_long_ones = |part: Range<usize>| {
            assert!(part.start == taken && part.end <= end, "{part:?} after {taken}");
            if part.len() > 4 * page_size() {
                return Err(Errno::INTR);
            }
            taken = part.end;
            Ok(())
        };
        take_pages(start..end, interrupt_long_ones).unwrap();
        assert_eq!(taken, end);
    }

    #[test]
    fn a_kernel_without_pages_is_out_of_memory() {
        for errno in [Errno::NOSPC, Errno::NOMEM] {
            let error = take_pages(0..page_size(), |_| Err(errno)).unwrap_err();
            assert!(matches!(error, ReserveError::OutOfMemory { wanted, .. } if wanted == page_size()), "{error:?}");
        }
        assert!(matches!(take_pages(0..1, |_| Err(Errno::IO)), Err(ReserveError::Os(_))));
    }

    #[test]
    fn a_segment_is_private_to_its_user_and_close_on_exec() {
        let fd = reserve("segment", 1).unwrap();
        assert_eq!(fstat(&fd).unwrap().st_mode & 0o777, 0o600);
        assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn nobody_can_change_the_size_of_a_segment_or_its_seals() {
        let fd = reserve("segment", page_size()).unwrap();
        for len in [0, 1, page_size() as u64 + 1] {
            assert_eq!(ftruncate(&fd, len), Err(Errno::PERM));
        }
        assert_eq!(fcntl_add_seals(&fd, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
        assert_eq!(sealed_len(fd.as_fd()).unwrap(), page_size());
    }

    #[test]
    fn more_than_there_is_is_refused_without_taking_any() {
        for len in [total_memory(), 1 << 50, usize::MAX] {
            match reserve("absurd", len) {
                Err(ReserveError::OutOfMemory { wanted, available }) => {
                    assert!(wanted >= len && available < wanted);
                    assert!(available <= total_memory());
                }
                other => panic!("{len} bytes: {other:?}"),
            }
        }
    }

    #[test]
    fn running_out_reads_well() {
        let error = ReserveError::OutOfMemory { wanted: 8192, available: 4096 };
        let text = "out of memory: 8192 bytes of shared memory were wanted, 4096 are available";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_segment_of_nothing_is_refused() {
        match reserve("nothing", 0) {
            Err(ReserveError::Os(error)) => assert_eq!(error.kind(), ErrorKind::InvalidInput),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_a_sealed_segment_is_not_accepted() {
        let growing = memfd_create("growing", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        fcntl_add_seals(&growing, SealFlags::SHRINK).unwrap();
        let unsealed = memfd_create("unsealed", MemfdFlags::CLOEXEC).unwrap();
        let (reader, _writer) = pipe().unwrap();
        for fd in [growing, unsealed, reader] {
            assert_eq!(sealed_len(fd.as_fd()).unwrap_err().kind(), ErrorKind::InvalidData);
        }
    }

    #[test]
    fn released_pages_are_gone_read_as_zeros_and_can_be_restored() {
        let fd = reserve("segment", 4 * page_size()).unwrap();
        let written = vec![7; 4 * page_size()];
        rustix::io::pwrite(&fd, &written, 0).unwrap();
        // Half of the first page, two whole ones, and half of the last: only the whole ones go.
        release(fd.as_fd(), page_size() / 2, 3 * page_size()).unwrap();
        assert_eq!(pages(&fd), 2);
        let mut read = vec![1; 4 * page_size()];
        rustix::io::pread(&fd, &mut read[..], 0).unwrap();
        assert!(read[..page_size()].iter().chain(&read[3 * page_size()..]).all(|&byte| byte == 7));
        assert!(read[page_size()..3 * page_size()].iter().all(|&byte| byte == 0));
        restore(fd.as_fd(), page_size(), page_size()).unwrap();
        assert_eq!(pages(&fd), 3);
        restore(fd.as_fd(), 0, 4 * page_size()).unwrap();
        assert_eq!(pages(&fd), 4);
    }

    #[test]
    fn releasing_less_than_a_page_releases_nothing() {
        let fd = reserve("segment", 2 * page_size()).unwrap();
        release(fd.as_fd(), 1, page_size()).unwrap();
        release(fd.as_fd(), 2 * page_size(), 0).unwrap();
        assert_eq!(pages(&fd), 2);
    }

    #[test]
    fn a_range_that_leaves_the_segment_is_refused() {
        let fd = reserve("segment", page_size()).unwrap();
        for (offset, len) in [(0, page_size() + 1), (page_size(), 1), (usize::MAX, 1)] {
            assert_eq!(release(fd.as_fd(), offset, len).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert!(matches!(restore(fd.as_fd(), offset, len), Err(ReserveError::Os(_))));
        }
    }

    #[test]
    fn whole_units_never_reach_outside_of_the_range() {
        assert_eq!(whole_units(0..10, 4), 0..8);
        assert_eq!(whole_units(1..13, 4), 4..12);
        assert!(whole_units(1..7, 4).is_empty());
        assert!(whole_units(5..5, 4).is_empty());
        assert!(whole_units(usize::MAX - 1..usize::MAX, 4).is_empty());
    }
}
