//! Forks: the child of a process that shares memory is a holder in its own right.
//!
//! The parent claims a number for the child before it forks, in each domain in which it holds anything, and enters it as a
//! holder of all that; nobody is asked, so nothing waits. The child settles on the number and tells the host that it is
//! there. From the claim on the host knows that somebody is to come, and it gives back what was the child's when it ends,
//! in whatever way and however early. See `docs/design/leases.md`.
//!
//! All that the child needs is locked during the fork, by the thread that forks. No other thread waits for anything while
//! it has one of these locks, so this one does not wait long.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use shoal_sys::atfork;

use super::host::{CURRENT, HOSTS, Host};
use super::state::State;
use super::{HOME, VISITED, Visited};
use crate::memory::heap::{Heap, Still};

/// The heaps that this process works in.
static HEAPS: Mutex<Vec<&'static Arc<Heap>>> = Mutex::new(Vec::new());

/// From now on the forks of this process are holders in the heap's domain, too. It is kept for good.
pub(super) fn watch(heap: &Arc<Heap>) -> &'static Arc<Heap> {
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(|| {
        // It fails only if there is no memory for a few words.
        atfork::around(before, in_parent, in_child).expect("memory");
    });
    let heap: &'static Arc<Heap> = Box::leak(Box::new(heap.clone()));
    lock(&HEAPS).push(heap);
    heap
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is locked while this thread forks.
struct Fork {
    still: Vec<Still>,
    heaps: MutexGuard<'static, Vec<&'static Arc<Heap>>>,
    states: Vec<MutexGuard<'static, State>>,
    hosts: MutexGuard<'static, Vec<&'static Arc<Host>>>,
    current: MutexGuard<'static, Option<&'static Arc<Host>>>,
    home: MutexGuard<'static, Option<Arc<Heap>>>,
    visited: MutexGuard<'static, Visited>,
}

thread_local! {
    static FORK: RefCell<Option<Fork>> = const { RefCell::new(None) };
}

extern "C" fn before() {
    let (visited, home, current) = (lock(&VISITED), lock(&HOME), lock(&CURRENT));
    let hosts = lock(&HOSTS);
    let heaps = lock(&HEAPS);
    let still = heaps.iter().copied().map(Heap::hold_still).collect();
    let states = hosts.iter().filter(|host| host.is_mine()).map(|host| host.state()).collect();
    FORK.set(Some(Fork { still, heaps, states, hosts, current, home, visited }));
}

extern "C" fn in_parent() {
    let Some(Fork { still, heaps, states, hosts, current, home, visited }) = FORK.take() else { return };
    // First what is locked: what goes with the heaps may need it.
    drop((heaps, states, hosts, current, home, visited));
    drop(still);
}

extern "C" fn in_child() {
    let Some(Fork { still, mut heaps, states, mut hosts, mut current, mut home, mut visited }) = FORK.take() else {
        return;
    };
    // The host is the parent: it must be seen to end when it does.
    for mut state in states {
        state.close_copies();
    }
    hosts.clear();
    *current = None;
    // Who is forked from a worker is no worker.
    *home = None;
    // What the parent alone has of its heaps is of no use.
    heaps.clear();
    visited.clear();
    for heap in still.into_iter().filter_map(Still::make_own) {
        visited.insert(heap.address(), heap.clone());
        heaps.push(heap);
        heap.attend();
    }
}
