//! Bytes that many calls have in common, in shared memory before the first of them.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

use super::copy::{At, Entry, Kept, Place, Region, Source, copy};
use crate::numpy::Order;
use crate::pool::PoolBase;

/// A copy of some bytes in shared memory, for tasks of a pool. As an argument it arrives as an array of bytes that is the
/// task's own: mapped, and copied where it is written to.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Common {
    place: Place,
    len: usize,
}

#[pymethods]
impl Common {
    #[new]
    fn new(py: Python<'_>, pool: &PoolBase, bytes: &Bound<'_, PyAny>) -> PyResult<Self> {
        let bytes = PyBuffer::<u8>::get(bytes)?;
        if !bytes.is_c_contiguous() {
            return Err(PyBufferError::new_err("bytes must be a buffer of one piece"));
        }
        let len = bytes.len_bytes();
        let source = Source::Memory(bytes.buf_ptr().addr(), Kept::Buffer(bytes));
        let place = copy(py, &pool.writer(), vec![Region { source, len, array: None }])?.remove(0);
        Ok(Common { place, len })
    }
}

impl Common {
    /// What stands for it in a message.
    pub(super) fn entry(&self) -> Entry {
        let shape = Some(vec![self.len as isize]);
        Entry { at: At::Place(self.place.clone()), len: self.len, order: Order::C, shape }
    }
}
