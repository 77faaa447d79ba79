//! For the tests of what others have written over: a heap of one process, and somebody who writes where it pleases.

#![allow(unsafe_code, reason = "bytes that others write over")]

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use proptest::prelude::*;

use crate::error::{Error, Result};
use crate::memory::handle::Address;
use crate::memory::heap::{Heap, Lease, Source};
use crate::memory::segment::Segment;

/// Makes segments for one process.
#[derive(Debug, Default)]
pub(crate) struct Alone(Mutex<Vec<Arc<Segment>>>);

impl Source for Alone {
    fn create(&self, data: u64, backed: u64, entries: u32, _patient: bool) -> Result<Arc<Segment>> {
        let mut segments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = Arc::new(Segment::create(segments.len() as u32 + 1, data, backed, entries)?);
        segments.push(segment.clone());
        Ok(segment)
    }

    fn restore(&self, segment: &Arc<Segment>, granules: Range<usize>) -> Result<()> {
        segment.restore(granules)
    }

    fn open(&self, _: u32) -> Result<Arc<Segment>> {
        Err(Error::Gone)
    }

    fn freed(&self) {}
}

pub(crate) fn heap() -> Arc<Heap> {
    Heap::new(0, Address { domain: [0; 16], token: [0; 16] }, Box::new(Alone::default()))
}

/// Numbers that somebody finds where another one was written: any, and those that are most likely to do harm.
pub(crate) fn damage() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 7, 8, u64::MAX, u64::MAX - 7, 1 << 63, 1 << 62, u64::from(u32::MAX), 1 << 31, 1 << 32, 0xffff];
    prop_oneof![any::<u64>(), 0u64..600, prop::sample::select(edges.to_vec()), (0u32..64).prop_map(|bit| 1 << bit)]
}

/// Words to be written, and where: at which of all words, whatever their number.
pub(crate) fn damages(most: usize) -> impl Strategy<Value = Vec<(prop::sample::Index, u64)>> {
    prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..most)
}

/// Bytes that others write to at any time, as this process has them mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exposed<'a>(&'a [AtomicU64]);

impl<'a> Exposed<'a> {
    /// # Safety
    /// The bytes are mapped, aligned to 8, as long as this lives, and those who use them know that others write to them.
    pub(crate) unsafe fn new(start: *mut u8, len: usize) -> Exposed<'a> {
        // SAFETY: the caller's promise.
        Exposed(unsafe { std::slice::from_raw_parts(start.cast(), len / 8) })
    }

    pub(crate) fn of(lease: &'a Lease) -> Exposed<'a> {
        let address = lease.address().expect("mapped");
        // SAFETY: the bytes of a block, which begins with a page.
        unsafe { Exposed::new(address, lease.len() as usize) }
    }

    /// How many words they are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Writes one word.
    pub(crate) fn set(&self, index: usize, word: u64) {
        self.0[index].store(word, Ordering::SeqCst);
    }

    /// Writes words.
    pub(crate) fn write(&self, words: &[(prop::sample::Index, u64)]) {
        for (place, word) in words {
            self.0[place.index(self.0.len())].store(*word, Ordering::SeqCst);
        }
    }

    /// Does `act` while somebody else goes on writing these words, and what was there before.
    pub(crate) fn while_written<T>(&self, words: &[(prop::sample::Index, u64)], act: impl FnOnce() -> T) -> T {
        let before: Vec<u64> = self.0.iter().map(|word| word.load(Ordering::SeqCst)).collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    for (place, word) in words {
                        let place = place.index(self.0.len());
                        self.0[place].store(*word, Ordering::Relaxed);
                        std::thread::yield_now();
                        self.0[place].store(before[place], Ordering::Relaxed);
                    }
                }
            });
            let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            // In any case: or it would write on.
            done.store(true, Ordering::SeqCst);
            acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
