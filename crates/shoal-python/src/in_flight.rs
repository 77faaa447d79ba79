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

thread_local! {
    static NOTED: RefCell<Option<Vec<Lease>>> = const { RefCell::new(None) };
}

static PARTING: Mutex<VecDeque<(Instant, Lease)>> = Mutex::new(VecDeque::new());

/// Runs `pickle` and returns what it returns, with the leases of all that it pickled by handle.
pub fn noting<T>(pickle: impl FnOnce() -> T) -> (T, Vec<Lease>) {
    let outer = NOTED.replace(Some(Vec::new()));
    let result = pickle();
    let noted = NOTED.replace(outer).unwrap_or_default();
    (result, noted)
}

/// `lease` has been pickled by handle.
pub fn note(lease: &Lease) {
    let noted = NOTED.with_borrow_mut(|noted| noted.as_mut().map(|noted| noted.push(lease.clone())).is_some());
    if !noted {
        let mut parting = PARTING.lock().unwrap_or_else(PoisonError::into_inner);
        while parting.front().is_some_and(|(since, _)| since.elapsed() > KEPT) {
            parting.pop_front();
        }
        parting.push_back((Instant::now(), lease.clone()));
    }
}
