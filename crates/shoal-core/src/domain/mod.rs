//! A domain: a client (its host), its workers, and any other process that was given a handle (its guests), who
//! share memory.
//!
//! The host makes all segments, knows all descriptors and numbers all holders; it is the one that cleans up after a
//! death. Everybody else asks it over a socket: workers over the one they were born with, guests over the
//! broker's, where they must show the domain's token and be of the same user.

mod adopted;
mod fork;
pub(crate) mod guest;
mod guests;
mod hearing;
pub mod host;
mod kills;
pub(crate) mod registry;
mod reports;
pub mod stand_in;
mod state;
mod succession;
pub(crate) mod supervisor;
pub mod voice;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::memory::handle::{Address, Handle};
use crate::memory::heap::{Heap, Lease};

/// The domain this process works in: the one of its pool if it is a worker.
static HOME: Mutex<Option<Arc<Heap>>> = Mutex::new(None);
/// The domains this process is a guest in.
static VISITED: LazyLock<Mutex<Visited>> = LazyLock::new(Mutex::default);
type Visited = HashMap<Address, Arc<Heap>>;

/// A worker: from now on this process allocates in its client's domain.
pub fn settle(heap: Arc<Heap>) {
    *HOME.lock().unwrap_or_else(PoisonError::into_inner) = Some(heap);
}

/// The heap this process allocates shared things from.
pub fn heap() -> Result<Arc<Heap>> {
    let settled = HOME.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match settled {
        // A process that a worker forked is no worker: it plays host to itself.
        Some(heap) if heap.is_mine() => Ok(heap),
        _ => Ok(host::Host::current()?.heap().clone()),
    }
}

/// The handle of a block, for any process of this user.
pub fn handle_of(lease: &Lease) -> Result<Handle> {
    let heap = lease.heap();
    Ok(Handle { address: heap.address(), block: lease.id() })
}

/// Takes a lease on the block that a handle names.
pub fn resolve(handle: &Handle) -> Result<Lease> {
    let home = heap()?;
    if home.address() == handle.address {
        return home.take(handle.block);
    }
    let known = visited().get(&handle.address).filter(|heap| heap.is_mine()).cloned();
    let heap = match known {
        Some(heap) => heap,
        None => {
            // With nothing locked, as the host may let us wait. Should another thread be there first, this visit ends.
            let heap = guest::visit(&handle.address)?;
            let mut visited = visited();
            match visited.get(&handle.address).filter(|heap| heap.is_mine()) {
                Some(first) => first.clone(),
                None => {
                    fork::watch(&heap).attend();
                    visited.insert(handle.address, heap.clone());
                    heap
                }
            }
        }
    };
    heap.take(handle.block)
}

fn visited() -> MutexGuard<'static, Visited> {
    VISITED.lock().unwrap_or_else(PoisonError::into_inner)
}
