//! `Lock`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::sync::lock::Lock as CoreLock;

use super::wait::{Truth, acquire};
use super::{Reduced, cell, reduce};

/// A lock between processes and threads, as `multiprocessing.Lock`.
///
/// Not reentrant, and owned by nobody in particular: any thread of any process may release it. A lock whose holder died
/// does not stay locked: it passes to the next in line, who can tell from `abandoned`.
///
/// Args:
///     raise_abandoned: what happens when a holder dies. False: the next one gets the lock, and `abandoned` is true for
///         it. True: `acquire` raises `shoal.LockAbandoned` instead, for everybody, until one takes it with `repair`.
///         Default: False.
///     ctx: ignored; `multiprocessing` has it.
///
/// Example:
///     >>> lock = shoal.Lock()
///     >>> with lock:
///     ...     total[0] += 1
///     >>> if lock.acquire(timeout=0.5):
///     ...     try:
///     ...         total[0] += 1
///     ...     finally:
///     ...         lock.release()
#[pyclass(frozen, subclass, weakref, module = "shoal.locks")]
pub struct Lock(Lease);

impl Lock {
    /// Its lease.
    pub fn lease(&self) -> &Lease {
        &self.0
    }

    #[inline]
    fn lock(&self) -> CoreLock<'_> {
        CoreLock::new(self.0.cell())
    }

    #[inline]
    fn me(&self) -> u16 {
        self.0.heap().actor()
    }
}

#[pymethods]
impl Lock {
    #[new]
    #[pyo3(signature = (*, raise_abandoned = false, ctx = None, _handle = None))]
    fn new(
        py: Python<'_>,
        raise_abandoned: bool,
        ctx: Option<&Bound<'_, PyAny>>,
        _handle: Option<&[u8]>,
    ) -> PyResult<Self> {
        let _ = ctx;
        let made = cell(py, Kind::Lock, _handle).map(Lock)?;
        if raise_abandoned {
            made.lock().make_strict();
        }
        Ok(made)
    }

    /// Take the lock, and tell whether it was taken.
    ///
    /// Args:
    ///     block: whether to wait for it. Default: True. With False, `timeout` is ignored.
    ///     timeout: how long to wait at most, in seconds; zero or less is to try once. Default: None, to wait for ever.
    ///     blocking: what `threading` and managers call `block`.
    ///
    /// Raises:
    ///     TypeError: `timeout` is neither a number nor None.
    ///     ValueError: `timeout` is not a number in the sense of floats (NaN).
    ///     LockAbandoned: the last holder died in it, and the lock was made with `raise_abandoned=True`. It is not taken.
    ///
    /// Ctrl-C interrupts the waiting.
    ///
    /// Example:
    ///     >>> lock.acquire(timeout=2.5)
    ///     True
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
        acquire(py, block, timeout, || lock.acquire_now(me), |patience| lock.acquire_with(me, patience))
    }

    /// Take the lock though its last holder died in it, to put right what it guards. Otherwise as `acquire`.
    ///
    /// For locks made with `raise_abandoned=True`: from then on others get it again.
    ///
    /// Example:
    ///     >>> try:
    ///     ...     lock.acquire()
    ///     ... except shoal.LockAbandoned:
    ///     ...     lock.repair()
    ///     ...     table[:] = 0
    ///     True
    ///     >>> lock.release()
    #[pyo3(signature = (block = Truth(true), timeout = None), text_signature = "($self, block=True, timeout=None)")]
    fn repair(&self, py: Python<'_>, block: Truth, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let (lock, me) = (self.lock(), self.me());
        acquire(py, block.0, timeout, || lock.repair_now(me), |patience| lock.repair(me, patience))
    }

    /// Let the next one in. Any thread of any process may do so.
    ///
    /// Raises:
    ///     ValueError: the lock is not locked.
    fn release(&self) -> PyResult<()> {
        match self.lock().release() {
            true => Ok(()),
            false => Err(PyValueError::new_err("release of a lock that is not locked")),
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
        self.lock().is_locked()
    }

    /// Whether the previous holder died while it held the lock. For the present holder to ask.
    ///
    /// What the lock guards may then be half-done: it is the moment to check or rebuild it.
    ///
    /// Example:
    ///     >>> with lock:
    ///     ...     if lock.abandoned:
    ///     ...         table[:] = 0
    #[getter]
    fn abandoned(&self) -> bool {
        self.lock().is_abandoned()
    }

    /// Whether this process holds it.
    fn _is_mine(&self) -> bool {
        self.lock().is_held_by(self.me())
    }

    /// In Python: what stands for a lock of another machine says the same.
    fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("shoal.locks")?.getattr("describe_lock")?.call1((slf,))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        reduce(slf.as_any(), &slf.get().0)
    }
}
