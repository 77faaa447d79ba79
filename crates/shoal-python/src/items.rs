//! A piece of a map whose items are values of their own.
//!
//! Items with arrays travel apart (`shoal_core::pool::packed`): each is made when its turn comes and is gone before the
//! next, so that what a task writes into an array is not there for the next one, though they may share a piece and the
//! array.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;
use shoal_core::memory::heap::Heap;
use shoal_core::memory::view::Views;
use shoal_core::pool::packed::unpack;

use crate::errors::OrRaise;
use crate::message::Reader;
use crate::wire;

/// The items of a piece, made one after the other.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Items {
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
    next: AtomicUsize,
    heap: Arc<Heap>,
    views: Arc<Views>,
}

impl Items {
    /// The items of a message.
    pub fn new(py: Python<'_>, message: &[u8], heap: &Arc<Heap>, views: &Arc<Views>) -> PyResult<Items> {
        let mut at = 0;
        let place = |item: &[u8]| {
            at += item.len();
            at - item.len()..at
        };
        let places = unpack(message).or_raise(py)?.map(place).collect();
        let next = AtomicUsize::new(0);
        Ok(Items { bytes: message.to_vec(), places, next, heap: heap.clone(), views: views.clone() })
    }
}

#[pymethods]
impl Items {
    fn __len__(&self) -> usize {
        self.places.len()
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        // Counted first: an item that can't be unpickled has had its turn.
        let Some(place) = self.places.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return Ok(None) };
        let reader = Reader { heap: &self.heap, views: Some(&self.views) };
        wire::decode(py, &self.bytes[place.clone()], &reader).map(Some)
    }
}
