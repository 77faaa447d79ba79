//! `RLock`.

use pyo3::exceptions::PyAssertionError;
use pyo3::prelude::*;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::sync::rlock::{Owner, RLock as CoreRLock};

use super::wait::{Truth, acquire};
use super::{Reduced, cell, reduce};

/// A lock that the thread which holds it may take again, as `multiprocessing.RLock`.
///
/// It belongs to one thread of one process, which releases it as often as it took it. Otherwise as `Lock`: when its
/// holder dies, it passes on.
///
/// Args:
///     raise_abandoned: as for `Lock`. Default: False.
///     ctx: ignored; `multiprocessing` has it.
///
/// Example:
///     >>> lock = shoal.RLock()
///     >>> with lock:
///     ...     with lock:
///     ...         total[0] += 1
#[pyclass(frozen, subclass, weakref, module = "shoal.locks")]
pub struct RLock(Lease);

impl RLock {
    /// Its lease.
    pub fn lease(&self) -> &Lease {
        &self.0
    }

    #[inline]
    fn lock(&self) -> CoreRLock<'_> {
        CoreRLock::new(self.0.cell())
    }

    /// The calling thread.
    #[inline]
    pub fn me(&self) -> Owner {
        Owner::current(self.0.heap().actor())
    }
}

#[pymethods]
impl RLock {
    #[new]
    #[pyo3(signature = (*, raise_abandoned = false, ctx = None, _handle = None))]
    fn new(
        py: Python<'_>,
        raise_abandoned: bool,
        ctx: Option<&Bound<'_, PyAny>>,
        _handle: Option<&[u8]>,
    ) -> PyResult<Self> {
        let _ = ctx;
        let made = cell(py, Kind::RLock, _handle).map(RLock)?;
        if raise_abandoned {
            made.lock().lock().make_strict();
        }
        Ok(made)
    }

    /// Take the lock, once more if this thread has it already, and tell whether it was taken. As `Lock.acquire`.
    #[pyo3(
        signature = (block = Truth(true), timeout = None, *, blocking = Truth(true)),
        text_signature = "($self, block=True, timeout=None, *, blocking=True)"
    )]
    fn acquire(
        &self,
        py: Python<'_>,
        block: Truth,
        timeout: Option<&Bound<'_, PyAny>>,
        blocking: Truth,
    ) -> PyResult<bool> {
        let block = block.0 && blocking.0;
        let (lock, me) = (self.lock(), self.me());
        acquire(py, block, timeout, || lock.acquire_now(me), |patience| lock.acquire(me, patience))
    }

    /// Take the lock though its last holder died in it, to put right what it guards. As `Lock.repair`.
    #[pyo3(signature = (block = Truth(true), timeout = None), text_signature = "($self, block=True, timeout=None)")]
    fn repair(&self, py: Python<'_>, block: Truth, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let (lock, me) = (self.lock(), self.me());
        acquire(py, block.0, timeout, || lock.repair_now(me), |patience| lock.repair(me, patience))
    }

    /// Give the lock back; the next one is let in when this thread has done so as often as it took it.
    ///
    /// Raises:
    ///     AssertionError: this thread does not have the lock.
    fn release(&self) -> PyResult<()> {
        match self.lock().release(self.me()) {
            true => Ok(()),
            false => Err(PyAssertionError::new_err("attempt to release recursive lock not owned by thread")),
        }
    }

    pub fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.acquire(py, Truth(true), None, Truth(true))
    }

    pub fn __exit__(
        &self,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.release()
    }

    /// Whether someone holds the lock at this moment.
    fn locked(&self) -> bool {
        self.lock().lock().is_locked()
    }

    /// Whether the previous holder died while it held the lock. For the present holder to ask. See `Lock.abandoned`.
    #[getter]
    fn abandoned(&self) -> bool {
        self.lock().lock().is_abandoned()
    }

    /// How often the calling thread has it.
    fn _times(&self) -> u32 {
        self.lock().times(self.me())
    }

    /// Whether a thread of this process has it.
    fn _is_ours(&self) -> bool {
        self.lock().lock().is_held_by(self.0.heap().actor())
    }

    /// As that of a `Lock`.
    fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("shoal.locks")?.getattr("describe_rlock")?.call1((slf,))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        reduce(slf.as_any(), &slf.get().0)
    }
}
