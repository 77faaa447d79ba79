//! From a message to an object: buffers where they lie, the pickle around them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyMemoryView};
use shoal_core::Error;
use shoal_core::memory::heap::{BlockId, Heap, Lease};
use shoal_core::memory::view::{View, Views};

use super::PLAIN;
use crate::errors::{self, OrRaise};
use crate::numpy::{Numpy, Order, dtype_of, strides};

/// How a block is held by those who use its bytes.
#[derive(Debug)]
enum Held {
    /// Privately: what is written stays here.
    View(View),
    /// It was handed over, and is nobody else's.
    Mine(Lease),
}

/// Bytes of a block that was received: a writable buffer, freed with its last user. What lies in it is this process's
/// own, so unlike a Block it does not pickle.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Buffer {
    /// What keeps the bytes.
    _held: Arc<Held>,
    address: usize,
    len: usize,
}

impl Buffer {
    /// What keeps a block for an array at that address.
    pub(super) fn of(lease: &Lease, address: usize) -> Buffer {
        Buffer { _held: Arc::new(Held::Mine(lease.clone())), address, len: 0 }
    }
}

#[pymethods]
impl Buffer {
    /// The buffer: all bytes, writable.
    ///
    /// # Safety
    /// As the buffer protocol says: `view` is null or points to a buffer structure to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("view is null"));
        }
        let buffer = slf.get();
        let address = std::ptr::with_exposed_provenance_mut::<c_void>(buffer.address);
        // SAFETY: `view` is valid by the protocol; it holds a reference to the buffer, which keeps the bytes.
        match unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), address, buffer.len as isize, 0, flags) } {
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

/// How a process reads messages.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Where to take leases.
    pub heap: &'a Arc<Heap>,
    /// For arguments, which others get too; results are the reader's own.
    pub views: Option<&'a Views>,
}

/// An entry of a message that is being unpickled.
struct Part {
    held: Arc<Held>,
    /// Keeps the block for arrays.
    base: Py<Buffer>,
    address: usize,
    len: usize,
    order: Order,
    shape: Option<Vec<isize>>,
}

thread_local! {
    static RESTORING: RefCell<Vec<Restoring>> = const { RefCell::new(Vec::new()) };
}

struct Restoring {
    parts: Vec<Part>,
}

struct Bytes<'a>(&'a [u8]);

fn damaged() -> PyErr {
    errors::damaged("message")
}

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(*front)
    }

    fn part(
        &mut self,
        reader: &Reader<'_>,
        blocks: &mut HashMap<BlockId, (Arc<Held>, Py<Buffer>)>,
        py: Python<'_>,
    ) -> PyResult<Part> {
        let mut number = || self.take::<4>().map(u32::from_le_bytes);
        let id = BlockId { segment: number()?, entry: number()?, generation: number()? };
        let offset = u64::from_le_bytes(self.take()?);
        let len = u64::from_le_bytes(self.take()?);
        let [order, dimensions] = self.take()?;
        let order = if order == Order::Fortran as u8 { Order::Fortran } else { Order::C };
        let shape = match dimensions {
            PLAIN => None,
            count => {
                let lengths = (0..count).map(|_| self.take().map(|length| i64::from_le_bytes(length) as isize));
                Some(lengths.collect::<PyResult<Vec<_>>>()?)
            }
        };
        let (held, base) = match blocks.get(&id) {
            Some((held, base)) => (held.clone(), base.clone_ref(py)),
            None => {
                let lease = reader.heap.take(id).or_raise(py)?;
                let held = Arc::new(match reader.views {
                    Some(views) => Held::View(views.open(lease).or_raise(py)?),
                    None => Held::Mine(lease),
                });
                let (address, len) = held.bytes().or_raise(py)?;
                let base = Py::new(py, Buffer { _held: held.clone(), address: address.addr(), len: len as usize })?;
                blocks.insert(id, (held.clone(), base.clone_ref(py)));
                (held, base)
            }
        };
        let (address, whole) = held.bytes().or_raise(py)?;
        if offset.checked_add(len).is_none_or(|end| end > whole) {
            return Err(damaged());
        }
        Ok(Part { address: address.addr() + offset as usize, len: len as usize, held, base, order, shape })
    }
}

impl Held {
    fn lease(&self) -> &Lease {
        match self {
            Held::View(view) => view.lease(),
            Held::Mine(lease) => lease,
        }
    }

    fn bytes(&self) -> Result<(*mut u8, u64), Error> {
        match self {
            Held::View(view) => Ok((view.address(), view.lease().len())),
            Held::Mine(lease) => Ok((lease.address()?, lease.len())),
        }
    }
}

static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The object of a message that [`pickle`](super::pickle) wrote.
pub fn unpickle<'py>(py: Python<'py>, bytes: &[u8], reader: &Reader<'_>) -> PyResult<Bound<'py, PyAny>> {
    unpickle_with_leases(py, bytes, reader).map(|(object, _)| object)
}

/// As [`unpickle`], by a function in the place of `pickle.loads`.
pub fn unpickle_by<'py>(
    py: Python<'py>,
    loads: &Bound<'py, PyAny>,
    bytes: &[u8],
    reader: &Reader<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    restore(py, loads, bytes, reader).map(|(object, _)| object)
}

/// As [`unpickle`], with leases on all the blocks that the object's buffers lie in.
pub fn unpickle_with_leases<'py>(
    py: Python<'py>,
    bytes: &[u8],
    reader: &Reader<'_>,
) -> PyResult<(Bound<'py, PyAny>, Vec<Lease>)> {
    let loads = LOADS.get_or_try_init(py, || PyResult::Ok(py.import("_pickle")?.getattr("loads")?.unbind()))?;
    restore(py, loads.bind(py), bytes, reader)
}

fn restore<'py>(
    py: Python<'py>,
    loads: &Bound<'py, PyAny>,
    bytes: &[u8],
    reader: &Reader<'_>,
) -> PyResult<(Bound<'py, PyAny>, Vec<Lease>)> {
    let mut rest = Bytes(bytes);
    if rest.take()? == [0] {
        return Ok((loads.call1((PyBytes::new(py, rest.0),))?, Vec::new()));
    }
    let count = u32::from_le_bytes(rest.take()?);
    let [beside] = rest.take()?;
    let mut blocks = HashMap::new();
    let parts = (0..count).map(|_| rest.part(reader, &mut blocks, py)).collect::<PyResult<Vec<Part>>>();
    let mut parts = parts?;
    let leases = blocks.values().map(|(held, _)| held.lease().clone()).collect();
    drop(blocks);
    let buffer =
        |part: &Part| Bound::new(py, Buffer { _held: part.held.clone(), address: part.address, len: part.len });
    let pickle = match beside {
        0 => PyBytes::new(py, rest.0).into_any(),
        _ => buffer(&parts.pop().ok_or_else(damaged)?)?.into_any(),
    };
    // Views, as who rebuilds an object may want the length of a buffer, or an item.
    let view = |part: &Part| PyMemoryView::from(buffer(part)?.as_any());
    let plain = parts.iter().filter(|part| part.shape.is_none()).map(view).collect::<PyResult<Vec<_>>>()?;
    let options = PyDict::new(py);
    options.set_item("buffers", PyList::new(py, plain)?)?;
    // Unpickling runs Python code, which may come back here.
    RESTORING.with_borrow_mut(|stack| stack.push(Restoring { parts }));
    let object = loads.call((pickle,), Some(&options));
    let done = RESTORING.with_borrow_mut(Vec::pop);
    drop(done);
    Ok((object?, leases))
}

/// The array that a message says lies in its entry `index`: `dtype` is one of numpy's own types by number, or a dtype.
#[pyfunction]
pub fn restore_array<'py>(py: Python<'py>, index: usize, dtype: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let numpy = Numpy::import(py)?;
    let dtype = match dtype.cast_exact::<PyInt>() {
        Ok(number) => numpy.dtype(py, number.extract()?)?,
        Err(_) => dtype,
    };
    let (_, item, plain) = dtype_of(py, numpy, dtype.as_ptr())?;
    if !plain {
        // Its items would be addresses of objects.
        return Err(damaged());
    }
    let item = item as isize;
    let part = RESTORING.with_borrow(|stack| {
        let part = stack.last()?.parts.get(index)?;
        Some((part.base.clone_ref(py), part.address, part.len, part.order, part.shape.clone()?))
    });
    let (base, address, len, order, shape) = part.ok_or_else(damaged)?;
    let size = shape.iter().try_fold(item, |size, length| size.checked_mul(*length));
    if size != Some(len as isize) || shape.iter().any(|length| *length < 0) {
        return Err(damaged());
    }
    let data = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the items lie in the block, as was checked, which the base keeps.
    unsafe { numpy.array(dtype, &shape, &strides(&shape, item, order), data, base.into_bound(py).into_any()) }
}
