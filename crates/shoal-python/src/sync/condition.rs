//! `Condition`.

use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::memory::words::Shared;
use shoal_core::sync::condition::{Condition, MOST, Plain, Reentrant, Waited, Waiters};
use shoal_core::sync::lock::{Acquired, Lock as CoreLock};
use shoal_core::sync::patience::{End, Patience};
use shoal_core::sync::rlock::RLock as CoreRLock;

use super::handle;
use super::lock::Lock;
use super::rlock::RLock;
use super::stand_in::interruption;
use super::wait::{abandoned, duration};
use crate::block::resolve;
use crate::errors::OrRaise;
use crate::inside::Inside;

/// The lock of a condition.
enum Guard {
    Plain(Py<Lock>),
    Reentrant(Py<RLock>),
}

impl Guard {
    fn new(lock: &Bound<'_, PyAny>) -> PyResult<Guard> {
        if let Ok(lock) = lock.cast::<RLock>() {
            return Ok(Guard::Reentrant(lock.clone().unbind()));
        }
        match lock.cast::<Lock>() {
            Ok(lock) => Ok(Guard::Plain(lock.clone().unbind())),
            Err(_) => {
                let kind = lock.get_type().name()?;
                Err(PyTypeError::new_err(format!("lock must be a shoal.Lock or shoal.RLock, not {kind}")))
            }
        }
    }

    fn lease(&self) -> &Lease {
        match self {
            Guard::Plain(lock) => lock.get().lease(),
            Guard::Reentrant(lock) => lock.get().lease(),
        }
    }

    fn object<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self {
            Guard::Plain(lock) => lock.bind(py).as_any().clone(),
            Guard::Reentrant(lock) => lock.bind(py).as_any().clone(),
        }
    }

    /// Whether the caller has it: a plain one its process, a reentrant one its thread.
    fn is_mine(&self) -> bool {
        let cell = self.lease().cell();
        match self {
            Guard::Plain(lock) => CoreLock::new(cell).is_held_by(lock.get().lease().heap().actor()),
            Guard::Reentrant(lock) => CoreRLock::new(cell).times(lock.get().me()) > 0,
        }
    }
}

/// A condition in shared memory, and its lock.
#[pyclass(frozen, subclass, module = "shoal._engine")]
pub struct RawCondition {
    shared: Shared<Waiters>,
    guard: Guard,
}

impl RawCondition {
    fn condition(&self) -> Condition<'_> {
        Condition::new(self.shared.lease().cell(), &self.shared)
    }
}

#[pymethods]
impl RawCondition {
    #[new]
    #[pyo3(signature = (lock, *, _handle = None))]
    fn new(py: Python<'_>, lock: &Bound<'_, PyAny>, _handle: Option<&[u8]>) -> PyResult<Self> {
        let guard = Guard::new(lock)?;
        let shared = match _handle {
            Some(handle) => Shared::new(resolve(py, handle, Kind::Condition)?),
            None => {
                let heap = guard.lease().heap().clone();
                Inside::detach(py, || heap.allocate_words::<Waiters>(Kind::Condition))
            }
        };
        Ok(RawCondition { shared: shared.or_raise(py)?, guard })
    }

    /// Let go of the lock, wait until somebody notifies, and take the lock back. False if the time was up before.
    ///
    /// Args:
    ///     timeout: how long to wait at most, in seconds. Default: None, to wait for ever.
    ///
    /// Raises:
    ///     AssertionError: the caller does not have the lock.
    ///     TypeError: `timeout` is neither a number nor None.
    ///     ValueError: `timeout` is not a number in the sense of floats (NaN).
    ///     LockAbandoned: somebody died in the lock, which was made with `raise_abandoned=True`. The lock is taken
    ///         back all the same, but stays abandoned.
    ///
    /// Also goes on, as if notified, when a process dies in the lock: it may have been about to notify. So look at
    /// what you wait for again, or use `wait_for`. Ctrl-C interrupts the waiting, and is raised when the lock has been
    /// taken back; a second one does not wait for that.
    ///
    /// Example:
    ///     >>> with condition:
    ///     ...     while not items:
    ///     ...         condition.wait()
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let timeout = duration(timeout)?;
        if !self.guard.is_mine() {
            return Err(PyAssertionError::new_err("must acquire() condition before using wait()"));
        }
        let (condition, cell) = (self.condition(), self.guard.lease().cell());
        let me = self.shared.lease().heap().actor();
        let owner = match &self.guard {
            Guard::Plain(_) => None,
            Guard::Reentrant(lock) => Some(lock.get().me()),
        };
        let _inside = Inside::enter(py);
        let raised = std::sync::Mutex::new(None);
        let (waited, back) = py.detach(|| {
            let mut stop = || {
                let error = Python::attach(interruption).err();
                let stopped = error.is_some();
                if let Ok(mut raised) = raised.lock() {
                    *raised = error;
                }
                stopped
            };
            // The first exception is kept until the lock is back.
            let mut insist = || match Python::attach(interruption) {
                Ok(()) => false,
                Err(error) => raised.lock().is_ok_and(|mut raised| raised.replace(error).is_some()),
            };
            let mut patience = Patience::within(timeout).unless(&mut stop);
            let mut back = Patience::endless().unless(&mut insist);
            match owner {
                None => condition.wait(me, &Plain { cell, holder: me }, &mut patience, &mut back),
                Some(owner) => condition.wait(me, &Reentrant { cell, owner }, &mut patience, &mut back),
            }
        });
        if let Some(error) = raised.into_inner().ok().flatten() {
            if (waited, back) == (Waited::Notified, Acquired::Yes) {
                // It was interrupted on its way back to the lock: the notification is for another one. Who dies before this
                // line dies in the lock, and all look again.
                condition.notify(1);
            }
            return Err(error);
        }
        match (waited, back) {
            (_, Acquired::Abandoned | Acquired::Interrupted | Acquired::TimedOut) => Ok(false),
            (Waited::Refused, _) => Err(PyRuntimeError::new_err(format!("{MOST} wait already"))),
            _ if CoreLock::new(cell).is_spoilt() => Err(abandoned(py)),
            (Waited::Notified, _) => Ok(true),
            (Waited::Ended(End::TimedOut | End::Stopped), _) => Ok(false),
        }
    }

    /// Wake up some of those who wait; they go on when they get the lock.
    ///
    /// Args:
    ///     n: how many, if so many wait. Default: 1.
    ///
    /// Raises:
    ///     AssertionError: the caller does not have the lock.
    ///     ValueError: `n` is negative.
    ///
    /// A waiter that dies, or is interrupted, before it went on was not one: another goes on in its place.
    #[pyo3(signature = (n = 1))]
    fn notify(&self, n: i64) -> PyResult<()> {
        if !self.guard.is_mine() {
            return Err(PyAssertionError::new_err("lock is not owned"));
        }
        let most = u32::try_from(n.min(i64::from(u32::MAX)));
        let most = most.map_err(|_| PyValueError::new_err(format!("n must be 0 or more, not {n}")))?;
        self.condition().notify(most);
        Ok(())
    }

    /// Wake up all who wait; they go on one after the other, as they get the lock.
    ///
    /// Raises:
    ///     AssertionError: the caller does not have the lock.
    fn notify_all(&self) -> PyResult<()> {
        self.notify(i64::MAX)
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        match &self.guard {
            Guard::Plain(lock) => lock.get().__enter__(py),
            Guard::Reentrant(lock) => lock.get().__enter__(py),
        }
    }

    fn __exit__(
        &self,
        kind: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match &self.guard {
            Guard::Plain(lock) => lock.get().__exit__(kind, error, traceback),
            Guard::Reentrant(lock) => lock.get().__exit__(kind, error, traceback),
        }
    }

    /// How many wait and have not been notified.
    #[getter]
    fn _waiting(&self) -> u32 {
        self.condition().waiting()
    }

    /// Its lock.
    #[getter]
    fn _lock<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.guard.object(py)
    }

    /// What it pickles to besides its lock.
    fn _to_handle<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        handle(py, self.shared.lease())
    }
}
