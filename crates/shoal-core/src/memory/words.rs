//! Blocks that hold atomic words: what a primitive consists of that does not fit in its cell.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use super::heap::{Heap, Lease};
use super::lease::Kind;
use super::segment::Segment;
use crate::error::{Error, Result};

/// What may lie in a block that many use at once.
///
/// # Safety
/// The type is `repr(C)`, consists of atomics only, any bytes are a valid value, and no alignment beyond that of a page is
/// needed.
pub unsafe trait Words {}

impl Segment {
    /// The words that lie at `offset`.
    pub(crate) fn words<T: Words>(&self, offset: u64) -> Result<&T> {
        let address = self.address(offset, size_of::<T>() as u64)?.cast::<T>();
        if !address.is_aligned() {
            return Err(Error::Damaged("place"));
        }
        // SAFETY: in bounds, as `address` has checked, aligned, mapped as long as the segment; the type is one whose bytes
        // may be anything and change at any time.
        Ok(unsafe { &*address })
    }
}

impl Lease {
    /// The words of its block.
    pub(crate) fn words<T: Words>(&self) -> Result<&T> {
        self.segment().words(self.offset())
    }
}

/// A lease on such a block, which derefs to its words.
#[derive(Clone, Debug)]
pub struct Shared<T> {
    lease: Lease,
    words: NonNull<T>,
}

// SAFETY: all there is behind the pointer are atomics, which the lease keeps mapped.
unsafe impl<T: Words> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Words> Sync for Shared<T> {}

impl<T: Words> Shared<T> {
    /// The words of a leased block.
    pub fn new(lease: Lease) -> Result<Shared<T>> {
        if lease.len() < size_of::<T>() as u64 {
            return Err(Error::Damaged("handle"));
        }
        let words = NonNull::from(lease.words::<T>()?);
        Ok(Shared { lease, words })
    }

    /// The lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl<T: Words> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: made from a reference into the segment, which the lease keeps.
        unsafe { self.words.as_ref() }
    }
}

impl Heap {
    /// Allocates a block of words, all zero.
    pub fn allocate_words<T: Words>(self: &Arc<Heap>, kind: Kind) -> Result<Shared<T>> {
        let lease = self.allocate_zeroed(size_of::<T>() as u64)?;
        // Only now: who looks through all entries after a death must not find what lay there before.
        lease.become_kind(kind);
        Shared::new(lease)
    }
}
