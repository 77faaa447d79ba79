//! What envelopes of the dead hold: the host holds it in their place, as long as they are open. See `memory::envelope`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::memory::envelope;
use crate::memory::heap::{Heap, Lease};
use crate::memory::lease::Kind;
use crate::memory::segment::Segment;

/// Leases by envelope: its segment and line.
#[derive(Debug, Default)]
pub(super) struct Adopted(Mutex<HashMap<(u32, u32), Vec<Lease>>>);

impl Adopted {
    fn lock(&self) -> MutexGuard<'_, HashMap<(u32, u32), Vec<Lease>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner of this segment has died. Must come before anything of it is given back: what its envelopes name may be
    /// held by nobody else.
    pub(super) fn adopt(&self, heap: &Arc<Heap>, segment: &Arc<Segment>) -> Result<()> {
        let mut outcome = Ok(());
        for (index, entry) in segment.used_entries().iter().enumerate() {
            if entry.kind() == Some(Kind::Envelope) && entry.held() {
                match named(heap, segment, index as u32) {
                    Ok(leases) => _ = self.lock().insert((segment.id(), index as u32), leases),
                    Err(error) => outcome = Err(error),
                }
            }
        }
        outcome
    }

    /// In the child of a fork: what is adopted, its parent holds.
    pub(super) fn forked(&self) {
        // It can't be taken only if another thread of the parent was just at it.
        let leases = self.0.try_lock().map(|mut adopted| std::mem::take(&mut *adopted));
        drop(leases);
    }

    /// That envelope has been closed.
    pub(super) fn part(&self, segment: u32, index: u32) {
        let leases = self.lock().remove(&(segment, index));
        drop(leases);
    }
}

/// Leases on what an envelope names.
fn named(heap: &Arc<Heap>, segment: &Arc<Segment>, index: u32) -> Result<Vec<Lease>> {
    // What is gone already is of no use to whoever takes the item, but the rest is.
    Ok(envelope::named(segment, index)?.into_iter().filter_map(|id| heap.take(id).ok()).collect())
}
