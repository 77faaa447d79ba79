//! Blocks, locks and counters in shared memory, as Python objects that pickle to handles.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;
use std::time::Duration;

use pyo3::exceptions::{PyBufferError, PyOverflowError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::domain;
use shoal_core::memory::handle::Handle;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::sync::lock::{Acquired, Lock};

use crate::errors::{OrRaise, raise};
use crate::in_flight;
use crate::pool::Inside;

type Reduced<'py> = (Bound<'py, PyAny>, (Bound<'py, PyBytes>,));

fn reduce<'py>(py: Python<'py>, lease: &Lease, open: &str) -> PyResult<Reduced<'py>> {
    let handle = domain::handle_of(lease).or_raise(py)?;
    in_flight::note(lease);
    Ok((py.import("shoal._engine")?.getattr(open)?, (PyBytes::new(py, &handle.to_bytes()),)))
}

pub(crate) fn resolve(py: Python<'_>, handle: &[u8], kind: Kind) -> PyResult<Lease> {
    let handle = Handle::from_bytes(handle).or_raise(py)?;
    let lease = py.detach(|| domain::resolve(&handle)).or_raise(py)?;
    match lease.kind() {
        Some(found) if found == kind => Ok(lease),
        _ => Err(raise(py, "ShoalError", ("the handle names something else",))),
    }
}

/// A leased piece of shared memory: a writable buffer of bytes, freed when the last Block on it in any process is gone.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Block {
    lease: Lease,
    address: usize,
}

impl Block {
    fn new(py: Python<'_>, lease: Lease) -> PyResult<Block> {
        let address = lease.address().or_raise(py)? as usize;
        Ok(Block { lease, address })
    }
}

#[pymethods]
impl Block {
    /// Allocate a block of `nbytes` bytes; zeroed unless `zero` is false.
    #[staticmethod]
    #[pyo3(signature = (nbytes, zero = true))]
    fn allocate(py: Python<'_>, nbytes: u64, zero: bool) -> PyResult<Block> {
        let lease = py.detach(|| {
            let lease = domain::heap()?.allocate(nbytes)?;
            if zero {
                let address = lease.address()?;
                // SAFETY: the block is that long, new, and nobody else's yet.
                unsafe { address.write_bytes(0, nbytes as usize) };
            }
            Ok(lease)
        });
        Block::new(py, lease.or_raise(py)?)
    }

    /// Bytes of the block.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.lease.len()
    }

    /// The address of its first byte in this process.
    #[getter]
    fn address(&self) -> usize {
        self.address
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        reduce(py, &self.lease, "open_block")
    }

    /// The buffer: all bytes, writable.
    ///
    /// # Safety
    /// As the buffer protocol says: `view` is null or points to a buffer structure to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("view is null"));
        }
        let (address, len) = (slf.get().address as *mut c_void, slf.get().lease.len() as ffi::Py_ssize_t);
        // SAFETY: `view` is valid by the protocol; the view holds a reference to the block, which holds the lease,
        // which keeps the bytes mapped and allocated.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), address, len, 0, flags) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }

    /// Nothing to be done: the view's reference is all there is.
    ///
    /// # Safety
    /// As the buffer protocol says.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}

/// The block behind a handle.
#[pyfunction]
pub fn open_block(py: Python<'_>, handle: &[u8]) -> PyResult<Block> {
    Block::new(py, resolve(py, handle, Kind::Block)?)
}

/// A lock in shared memory.
#[pyclass(frozen, module = "shoal._engine")]
pub struct RawLock(Lease);

#[pymethods]
impl RawLock {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        domain::heap().and_then(|heap| heap.allocate_cell(Kind::Lock)).map(RawLock).or_raise(py)
    }

    /// Take the lock, waiting at most `timeout` seconds; None waits for ever, 0 tries once.
    #[pyo3(signature = (timeout))]
    fn acquire(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let (lock, me) = (Lock::new(self.0.cell()), self.0.heap().me());
        if lock.try_acquire(me) {
            return Ok(true);
        }
        let deadline = timeout.and_then(|timeout| {
            let timeout = Duration::try_from_secs_f64(timeout.max(0.0)).unwrap_or(Duration::MAX);
            std::time::Instant::now().checked_add(timeout)
        });
        loop {
            let slice = Duration::from_millis(50);
            let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
            let wait = left.map_or(slice, |left| left.min(slice));
            let _inside = Inside::enter(py);
            match py.detach(|| lock.acquire(me, Some(wait))) {
                Acquired::Yes => return Ok(true),
                Acquired::TimedOut if left.is_some_and(|left| left <= slice) => return Ok(false),
                Acquired::TimedOut | Acquired::Interrupted => py.check_signals()?,
            }
        }
    }

    /// Free the lock. RuntimeError if it is free.
    fn release(&self) -> PyResult<()> {
        match Lock::new(self.0.cell()).release() {
            true => Ok(()),
            false => Err(PyRuntimeError::new_err("release of a lock that nobody holds")),
        }
    }

    /// Whether somebody holds it.
    fn locked(&self) -> bool {
        Lock::new(self.0.cell()).is_locked()
    }

    /// Whether the holder before the present one died in it.
    #[getter]
    fn abandoned(&self) -> bool {
        Lock::new(self.0.cell()).is_abandoned()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        reduce(py, &self.0, "open_lock")
    }
}

/// The lock behind a handle.
#[pyfunction]
pub fn open_lock(py: Python<'_>, handle: &[u8]) -> PyResult<RawLock> {
    resolve(py, handle, Kind::Lock).map(RawLock)
}

/// An atomic 64-bit integer in shared memory.
#[pyclass(frozen, module = "shoal._engine")]
pub struct RawCounter(Lease);

#[pymethods]
impl RawCounter {
    #[new]
    #[pyo3(signature = (initial = 0))]
    fn new(py: Python<'_>, initial: i64) -> PyResult<Self> {
        let lease = domain::heap().and_then(|heap| heap.allocate_cell(Kind::Cell)).or_raise(py)?;
        lease.cell().number.store(initial as u64, Ordering::SeqCst);
        Ok(RawCounter(lease))
    }

    /// Add `n` and return the new value. OverflowError if it does not fit 64 bits; the value is left as it was.
    fn add(&self, n: i64) -> PyResult<i64> {
        let number = &self.0.cell().number;
        let before = number.fetch_add(n as u64, Ordering::SeqCst) as i64;
        before.checked_add(n).ok_or_else(|| {
            number.fetch_sub(n as u64, Ordering::SeqCst);
            PyOverflowError::new_err("a counter holds 64 bits")
        })
    }

    /// The value.
    #[getter]
    fn get_value(&self) -> i64 {
        self.0.cell().number.load(Ordering::SeqCst) as i64
    }

    #[setter]
    fn set_value(&self, value: i64) {
        self.0.cell().number.store(value as u64, Ordering::SeqCst);
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        reduce(py, &self.0, "open_counter")
    }
}

/// The counter behind a handle.
#[pyfunction]
pub fn open_counter(py: Python<'_>, handle: &[u8]) -> PyResult<RawCounter> {
    resolve(py, handle, Kind::Cell).map(RawCounter)
}
