//! Shared things that are on their way: what a pickle names by handle is kept alive until it has arrived.
//!
//! While a task or result is pickled, every block that is pickled into it is noted here, and the task or
//! completion keeps the leases. Pickled by anybody else, nobody knows when the handle will arrive: it is kept for a
//! while.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use shoal_core::memory::heap::Lease;

/// How long a block outlives its last array in this process after it was pickled by another pickler than shoal's.
const KEPT: Duration = Duration::from_secs(30);

/// An array of the arena in a message, which is handed over unless somebody still uses it.
#[derive(Debug)]
pub struct Handover {
    /// Where in the message its entry begins.
    pub at: usize,
    /// Where its memory begins, and which life of that address it is.
    pub start: usize,
    /// See `start`.
    pub serial: u64,
    /// Its block.
    pub lease: Lease,
}

#[derive(Default)]
struct Noted {
    leases: Vec<Lease>,
    handovers: Vec<Handover>,
}

thread_local! {
    static NOTED: RefCell<Option<Noted>> = const { RefCell::new(None) };
}

static PARTING: Mutex<VecDeque<(Instant, Lease)>> = Mutex::new(VecDeque::new());

/// Runs `pickle` and returns what it returns, with the leases of all that it pickled by handle.
pub fn noting<T>(pickle: impl FnOnce() -> T) -> (T, Vec<Lease>) {
    let (result, leases, _) = noting_all(pickle);
    (result, leases)
}

/// As [`noting`], with the arrays that are to be handed over.
pub fn noting_all<T>(pickle: impl FnOnce() -> T) -> (T, Vec<Lease>, Vec<Handover>) {
    let outer = NOTED.replace(Some(Noted::default()));
    let result = pickle();
    let noted = NOTED.replace(outer).unwrap_or_default();
    (result, noted.leases, noted.handovers)
}

/// `lease` has been pickled by handle.
pub fn note(lease: &Lease) {
    let noted = NOTED.with_borrow_mut(|noted| noted.as_mut().map(|noted| noted.leases.push(lease.clone())).is_some());
    if !noted {
        let mut parting = PARTING.lock().unwrap_or_else(PoisonError::into_inner);
        while parting.front().is_some_and(|(since, _)| since.elapsed() > KEPT) {
            parting.pop_front();
        }
        parting.push_back((Instant::now(), lease.clone()));
    }
}

/// In the child of a fork: what the parent has sent, the parent keeps.
pub fn forked() {
    // Locked only by who is attached to the interpreter, as the thread that forks is, if the interpreter does it.
    let parting = PARTING.try_lock().map(|mut parting| std::mem::take(&mut *parting));
    drop(parting);
}

/// An array of the arena is in the message. Its lease is noted besides.
pub fn note_handover(handover: Handover) {
    NOTED.with_borrow_mut(|noted| noted.as_mut().map(|noted| noted.handovers.push(handover)));
}
