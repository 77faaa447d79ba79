//! All segments of a domain, kept by its host: made here, whoever they are for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::memory::heap::{HOST, Heap, Source};
use crate::memory::segment::Segment;

/// Each segment with the holder that allocates in it, as long as that lives.
type Segments = HashMap<u32, (Arc<Segment>, Option<u16>)>;

/// The segments by number.
#[derive(Debug, Default)]
pub(super) struct Registry {
    segments: Mutex<Segments>,
    numbers: AtomicU32,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a segment for `owner`.
    pub(super) fn create(&self, data: u64, entries: u32, owner: u16) -> Result<Arc<Segment>> {
        // From 1: segment 0 means nowhere.
        let id = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let segment = Arc::new(Segment::create(id, data, entries)?);
        self.lock().insert(id, (segment.clone(), Some(owner)));
        Ok(segment)
    }

    /// The segment of that number.
    pub(super) fn open(&self, id: u32) -> Result<Arc<Segment>> {
        self.lock().get(&id).map(|(segment, _)| segment.clone()).ok_or(Error::Gone)
    }

    /// The owner has died: nobody allocates in its segments any more.
    pub(super) fn orphan(&self, owner: u16) {
        self.lock().values_mut().filter(|(_, of)| *of == Some(owner)).for_each(|(_, of)| *of = None);
    }

    /// Lets go of orphaned segments that nobody uses any more. Whether others are left.
    pub(super) fn bury(&self, heap: &Heap) -> bool {
        let mut segments = self.lock();
        segments.retain(|id, (segment, owner)| {
            let keep = owner.is_some() || Heap::in_use(segment);
            if !keep {
                heap.forget(*id);
            }
            keep
        });
        segments.values().any(|(_, owner)| owner.is_none())
    }
}

/// How the host's own heap gets segments.
#[derive(Debug)]
pub(super) struct Local(pub(super) Arc<Registry>);

impl Source for Local {
    fn create(&self, data: u64, entries: u32) -> Result<Arc<Segment>> {
        self.0.create(data, entries, HOST)
    }

    fn open(&self, id: u32) -> Result<Arc<Segment>> {
        self.0.open(id)
    }
}
