//! Blocks and small values in shared memory, as Python objects that pickle to handles.

#![allow(unsafe_code, reason = "CPython's buffer protocol")]

use std::ffi::{c_int, c_void};

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::domain;
use shoal_core::memory::handle::Handle;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::{Kind, VALUE};

use crate::errors::{OrRaise, raise};
use crate::in_flight;
use crate::inside::Inside;

/// What `__reduce__` of a handle returns.
pub type Reduced<'py> = (Bound<'py, PyAny>, (Bound<'py, PyBytes>,));

/// Pickles `lease` as a handle, for the function of that name to open.
pub fn reduce<'py>(py: Python<'py>, lease: &Lease, open: &str) -> PyResult<Reduced<'py>> {
    let handle = domain::handle_of(lease).or_raise(py)?;
    in_flight::note(lease);
    Ok((py.import("shoal._engine")?.getattr(open)?, (PyBytes::new(py, &handle.to_bytes()),)))
}

/// A lease on what a handle names, which must be of that kind.
pub fn resolve(py: Python<'_>, handle: &[u8], kind: Kind) -> PyResult<Lease> {
    let handle = Handle::from_bytes(handle).or_raise(py)?;
    let lease = Inside::detach(py, || domain::resolve(&handle)).or_raise(py)?;
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
        let lease = Inside::detach(py, || {
            let heap = domain::heap()?;
            if zero { heap.allocate_zeroed(nbytes) } else { heap.allocate(nbytes) }
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

/// A small value in shared memory: a writable buffer of 32 bytes, all zero when new, on a multiple of 16.
#[pyclass(frozen, module = "shoal._engine")]
pub struct SmallBlock(Lease);

#[pymethods]
impl SmallBlock {
    #[new]
    fn new(py: Python<'_>) -> PyResult<SmallBlock> {
        Inside::detach(py, || domain::heap()?.allocate_cell(Kind::Value)).map(SmallBlock).or_raise(py)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Reduced<'py>> {
        reduce(py, &self.0, "open_small_block")
    }

    /// The buffer: all bytes, writable.
    ///
    /// # Safety
    /// As the buffer protocol says: `view` is null or points to a buffer structure to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("view is null"));
        }
        let address = slf.get().0.cell().value().cast::<c_void>();
        // SAFETY: `view` is valid by the protocol; the view holds a reference to the object, which holds the lease,
        // which keeps the cell.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), address, VALUE as ffi::Py_ssize_t, 0, flags) } {
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

/// The small value behind a handle.
#[pyfunction]
pub fn open_small_block(py: Python<'_>, handle: &[u8]) -> PyResult<SmallBlock> {
    resolve(py, handle, Kind::Value).map(SmallBlock)
}
