//! Views: blocks of others as if they were this process's own copies.
//!
//! An argument lies once in the client's memory, however many tasks get it, and each task may write into it. So a worker
//! sees it through a private mapping: pages are shared until one is written, and that one is then its own.
//!
//! The mapping covers a whole segment and stays: the next argument that comes to lie there meets warm pages. When a view
//! goes, the pages that were written through it are forgotten, *before* its lease goes, as the block may then be reused.
//! A block that is viewed twice at the same time (an argument that a task has kept, and that comes again) gets a
//! mapping of its own the second time: what is written through one view is not to be seen through the other.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_sys::memory::{PrivateMapping, page_faults};

use super::heap::Lease;
use crate::error::{Error, Result};

/// Up to this many bytes looking through the pages is cheaper than asking for the page faults.
const SMALL: u64 = 1 << 20;

/// Up to this many bytes a second view of a block is a copy.
const COPIED: u64 = 256 << 10;
/// How many mappings a process may have for second views; beyond, they are copies too.
const MAPPINGS: usize = 4096;
static ALONE: AtomicUsize = AtomicUsize::new(0);

/// The private mappings of a process, one for each segment it has viewed.
#[derive(Debug, Default)]
pub struct Views {
    segments: Mutex<HashMap<u32, Arc<Viewed>>>,
}

#[derive(Debug)]
struct Viewed {
    map: PrivateMapping,
    /// Where blocks begin that are viewed through the mapping now.
    busy: Mutex<HashSet<u64>>,
    /// Old bytes may show through it: nobody else is to use it.
    spoilt: AtomicBool,
}

/// A block, privately: written bytes are seen by nobody else.
#[derive(Debug)]
pub struct View {
    address: *mut u8,
    faults: Option<u64>,
    lease: Lease,
    at: At,
}

#[derive(Debug)]
enum At {
    /// In the segment's mapping, there.
    Shared(Arc<Viewed>, u64),
    /// In a mapping of its own, unmapped with it.
    Alone { _map: PrivateMapping },
    /// In ordinary memory.
    Copied { _bytes: Vec<u8> },
}

// SAFETY: an address in a mapping that lives as long as the view; who uses it answers for what happens there.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Views {
    /// A view of a leased block, which must lie on whole pages, as all that `Heap::allocate` gives do.
    pub fn open(&self, lease: Lease) -> Result<View> {
        let (segment, offset) = lease.place();
        let len = lease.len();
        let viewed = {
            let mut segments = lock(&self.segments);
            match segments.get(&segment.id()).filter(|viewed| !viewed.spoilt.load(Ordering::Relaxed)) {
                Some(viewed) => viewed.clone(),
                None => {
                    let map = PrivateMapping::new(segment.fd(), 0, segment.len() as usize).map_err(Error::Os)?;
                    let viewed = Arc::new(Viewed { map, busy: Mutex::default(), spoilt: AtomicBool::new(false) });
                    segments.insert(segment.id(), viewed.clone());
                    viewed
                }
            }
        };
        if lock(&viewed.busy).insert(offset) {
            let address = viewed.map.as_ptr().wrapping_add(offset as usize);
            let faults = (len > SMALL).then(page_faults);
            return Ok(View { address, faults, at: At::Shared(viewed, offset), lease });
        }
        // A mapping costs some microseconds, and a process may have 65 000 of them.
        let alone = match len > COPIED && ALONE.load(Ordering::Relaxed) < MAPPINGS {
            true => PrivateMapping::new(segment.fd(), offset as usize, len as usize).map_err(Error::Os)?,
            false => {
                // SAFETY: the block is held, and nobody writes to it while tasks may read it.
                let mut bytes = unsafe { lease.bytes() }?.to_vec();
                let address = bytes.as_mut_ptr();
                return Ok(View { address, faults: None, at: At::Copied { _bytes: bytes }, lease });
            }
        };
        ALONE.fetch_add(1, Ordering::Relaxed);
        Ok(View { address: alone.as_ptr(), faults: None, at: At::Alone { _map: alone }, lease })
    }
}

impl View {
    /// The address of its first byte; valid as long as the view lives.
    pub fn address(&self) -> *mut u8 {
        self.address
    }

    /// Its lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if matches!(self.at, At::Alone { .. }) {
            ALONE.fetch_sub(1, Ordering::Relaxed);
        }
        if let At::Shared(viewed, offset) = &self.at {
            // No page is copied without a fault: if there was none, there is nothing to look for.
            if self.faults.is_none_or(|before| page_faults() != before) {
                let forgotten = viewed.map.forget_writes(*offset as usize, self.lease.len() as usize);
                if forgotten.is_err() {
                    viewed.spoilt.store(true, Ordering::Relaxed);
                }
            }
            lock(&viewed.busy).remove(offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::heap;

    fn read(address: *mut u8, at: usize) -> u8 {
        // SAFETY: within the block of the test.
        unsafe { address.wrapping_add(at).read_volatile() }
    }

    fn write(address: *mut u8, at: usize, byte: u8) {
        // SAFETY: within the block of the test.
        unsafe { address.wrapping_add(at).write_volatile(byte) };
    }

    #[test]
    fn the_next_view_of_a_block_sees_nothing_of_what_was_written_through_the_last() {
        for len in [20_000, 5 << 20] {
            let (heap, views) = (heap(), Views::default());
            let lease = heap.allocate(len).expect("memory");
            let block = lease.address().expect("mapped");
            (0..len as usize).step_by(1000).for_each(|at| write(block, at, 7));
            for round in 0..3 {
                let view = views.open(lease.clone()).expect("a view");
                assert!((0..len as usize).step_by(1000).all(|at| read(view.address(), at) == 7 + round));
                write(view.address(), 10_000, 99);
                write(view.address(), len as usize - 1, 99);
                assert_eq!(read(block, 10_000), 7 + round, "the block is as it was");
                drop(view);
                (0..len as usize).step_by(1000).for_each(|at| write(block, at, 8 + round));
            }
        }
    }

    #[test]
    fn two_views_at_a_time_are_apart() {
        for len in [50_000, 1 << 20] {
            two_views_of(len);
        }
    }

    fn two_views_of(len: u64) {
        let (heap, views) = (heap(), Views::default());
        let lease = heap.allocate(len).expect("memory");
        let first = views.open(lease.clone()).expect("a view");
        let second = views.open(lease.clone()).expect("a view");
        write(first.address(), 5, 1);
        write(second.address(), 5, 2);
        assert_eq!((read(first.address(), 5), read(second.address(), 5)), (1, 2));
        drop(second);
        assert_eq!(read(first.address(), 5), 1);
    }

    #[test]
    fn a_view_keeps_its_block() {
        let (heap, views) = (heap(), Views::default());
        let lease = heap.allocate(50_000).expect("memory");
        let id = lease.id();
        let view = views.open(lease).expect("a view");
        assert!(heap.take(id).is_ok());
        drop(view);
        assert!(heap.take(id).is_err(), "freed");
    }
}
