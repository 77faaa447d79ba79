//! `Event`.

use pyo3::prelude::*;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::sync::event::Event;
use shoal_core::sync::patience::End;

use super::wait::{duration, patiently};
use super::{Reduced, cell, reduce};

/// An event in shared memory.
#[pyclass(frozen, subclass, module = "shoal._engine")]
pub struct RawEvent(Lease);

impl RawEvent {
    fn event(&self) -> Event<'_> {
        Event::new(self.0.cell())
    }
}

#[pymethods]
impl RawEvent {
    #[new]
    #[pyo3(signature = (*, _handle = None))]
    fn new(py: Python<'_>, _handle: Option<&[u8]>) -> PyResult<Self> {
        cell(py, Kind::Event, _handle).map(RawEvent)
    }

    /// Whether the event is set.
    fn is_set(&self) -> bool {
        self.event().is_set()
    }

    /// Set the event: all who wait for it go on.
    fn set(&self) {
        self.event().set();
    }

    /// Take it back: who comes from now on waits until it is set again.
    fn clear(&self) {
        self.event().clear();
    }

    /// Wait until the event is set, and tell whether it was: False if the time was up.
    ///
    /// Args:
    ///     timeout: how long to wait at most, in seconds; zero or less is to look once. Default: None, to wait for ever.
    ///
    /// Raises:
    ///     TypeError: `timeout` is neither a number nor None.
    ///     ValueError: `timeout` is not a number in the sense of floats (NaN).
    ///
    /// Who waits does not miss an event that is set and cleared again at once. Ctrl-C interrupts the waiting.
    ///
    /// Example:
    ///     >>> event.wait(timeout=0.1)
    ///     False
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let event = self.event();
        let timeout = duration(timeout)?;
        if event.is_set() {
            return Ok(true);
        }
        match patiently(py, timeout, |patience| event.wait(patience)) {
            (Ok(()), _) => Ok(true),
            (Err(End::TimedOut), _) | (Err(End::Stopped), None) => Ok(false),
            (Err(End::Stopped), Some(error)) => Err(error),
        }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        reduce(slf.as_any(), &slf.get().0)
    }
}
