//! One thread at a time, without a lock held while Python code runs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The longest a wait goes without a look at signals.
const SLICE: Duration = Duration::from_millis(50);

enum Slot<T> {
    Free(Box<T>),
    Taken(ThreadId),
    Closed,
}

/// Something that threads take, use and put back in turn, until it is closed.
pub struct Turns<T> {
    slot: Mutex<Slot<T>>,
    back: Condvar,
    /// Threads that wait for their turn, counted under the lock. To tell nobody would cost a system call.
    waiting: AtomicUsize,
}

/// What came of waiting for one's turn.
pub enum Turn<'a, T> {
    Mine(Taken<'a, T>),
    Closed,
    TimedOut,
}

impl<T> Turns<T> {
    pub fn new(thing: T) -> Self {
        Turns { slot: Mutex::new(Slot::Free(Box::new(thing))), back: Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send> Turns<T> {
    /// Takes the thing, when it is there. ValueError if the calling thread has it: then it would wait for ever.
    pub fn take(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Turn<'_, T>> {
        let (me, started) = (std::thread::current().id(), Instant::now());
        let timeout = timeout.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX));
        loop {
            let slice = {
                let mut slot = self.lock();
                match &*slot {
                    Slot::Closed => return Ok(Turn::Closed),
                    Slot::Taken(owner) if *owner == me => {
                        return Err(PyValueError::new_err("the iterator is already in use by its own input"));
                    }
                    Slot::Taken(_) => {}
                    Slot::Free(_) => {
                        if let Slot::Free(thing) = std::mem::replace(&mut *slot, Slot::Taken(me)) {
                            return Ok(Turn::Mine(Taken { turns: self, thing: Some(thing) }));
                        }
                    }
                }
                match timeout.map(|timeout| timeout.saturating_sub(started.elapsed())) {
                    Some(left) if left.is_zero() => return Ok(Turn::TimedOut),
                    left => left.map_or(SLICE, |left| left.min(SLICE)),
                }
            };
            py.detach(|| {
                let slot = self.lock();
                if matches!(*slot, Slot::Taken(_)) {
                    self.waiting.fetch_add(1, Ordering::Relaxed);
                    let slot = self.back.wait_timeout(slot, slice);
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    drop(slot);
                }
            });
            py.check_signals()?;
        }
    }

    /// The thing, if nobody has it: for the garbage collector.
    pub fn look<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        match &*self.slot.try_lock().ok()? {
            Slot::Free(thing) => Some(look(thing)),
            _ => None,
        }
    }

    /// Closes it, if nobody has it; returns the thing.
    pub fn clear(&self) -> Option<Box<T>> {
        let mut slot = self.lock();
        match &*slot {
            Slot::Taken(_) => None,
            _ => match std::mem::replace(&mut *slot, Slot::Closed) {
                Slot::Free(thing) => Some(thing),
                _ => None,
            },
        }
    }
}

/// The thing while it is one's turn; put back in the end.
pub struct Taken<'a, T> {
    turns: &'a Turns<T>,
    thing: Option<Box<T>>,
}

impl<T> Taken<'_, T> {
    /// Takes it away for good.
    pub fn close(mut self) -> Option<Box<T>> {
        self.thing.take()
    }
}

impl<T> std::ops::Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.thing.as_ref().expect("there until the end")
    }
}

impl<T> std::ops::DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.thing.as_mut().expect("there until the end")
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let mut slot = self.turns.lock();
        *slot = self.thing.take().map_or(Slot::Closed, Slot::Free);
        if self.turns.waiting.load(Ordering::Relaxed) > 0 {
            self.turns.back.notify_all();
        }
    }
}
