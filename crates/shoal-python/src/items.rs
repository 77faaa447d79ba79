//! A piece of a map whose items are values of their own.
//!
//! Items with arrays travel apart: each is made when its turn comes and is gone before the next, so that what a task
//! writes into an array is not there for the next one, though they may share a piece and the array.
//!
//! ```text
//! | number of items: u32 | length of the value: u32, value … |
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shoal_core::memory::heap::Heap;
use shoal_core::memory::view::Views;

use crate::message::Reader;
use crate::wire::{self, Writer};

/// Writes the items of a piece behind what `out` holds. `what` names an item by its number in an error.
pub fn write<'py>(
    writer: &Writer<'_>,
    items: impl ExactSizeIterator<Item = PyResult<Bound<'py, PyAny>>>,
    out: &mut Vec<u8>,
    what: impl Fn(usize) -> String,
) -> PyResult<()> {
    out.extend_from_slice(&(items.len() as u32).to_le_bytes());
    for (number, item) in items.enumerate() {
        write_one(writer, &item?, out, || what(number))?;
    }
    Ok(())
}

/// Writes one item behind what `out` holds. Whether there are arrays in it.
pub fn write_one(
    writer: &Writer<'_>,
    item: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    what: impl FnOnce() -> String,
) -> PyResult<bool> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let arrays = wire::encode(writer, item, out, what)?;
    let len = u32::try_from(out.len() - at - 4).map_err(|_| PyValueError::new_err("an item of more than 4 GiB"))?;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    Ok(arrays)
}

/// The items of a piece, made one after the other.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Items {
    bytes: Vec<u8>,
    at: AtomicUsize,
    count: usize,
    heap: Arc<Heap>,
    views: Arc<Views>,
}

impl Items {
    /// Reads what [`write`] wrote.
    pub fn new(bytes: &[u8], heap: &Arc<Heap>, views: &Arc<Views>) -> PyResult<Items> {
        let (count, _) = bytes.split_first_chunk::<4>().ok_or_else(|| PyValueError::new_err("damaged items"))?;
        let count = u32::from_le_bytes(*count) as usize;
        Ok(Items { bytes: bytes.to_vec(), at: AtomicUsize::new(4), count, heap: heap.clone(), views: views.clone() })
    }
}

#[pymethods]
impl Items {
    fn __len__(&self) -> usize {
        self.count
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let rest = &self.bytes[self.at.load(Ordering::Relaxed).min(self.bytes.len())..];
        let Some((len, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        let value = rest.get(..len).ok_or_else(|| PyValueError::new_err("damaged items"))?;
        // First, as an item that can't be unpickled has had its turn.
        self.at.fetch_add(4 + len, Ordering::Relaxed);
        wire::decode(py, value, &Reader { heap: &self.heap, views: Some(&self.views) }).map(Some)
    }
}
