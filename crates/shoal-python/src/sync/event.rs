//! `Event`.

use pyo3::prelude::*;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::sync::event::Event as CoreEvent;
use shoal_core::sync::patience::End;

use super::wait::{duration, patiently};
use super::{Reduced, cell, reduce};

/// A flag to wait for, as `multiprocessing.Event`.
///
/// Example:
///     >>> event = shoal.Event()
///     >>> event.is_set()
///     False
///     >>> event.set()
///     >>> event.wait()
///     True
#[pyclass(frozen, subclass, weakref, module = "shoal.events")]
pub struct Event(Lease);

impl Event {
    fn event(&self) -> CoreEvent<'_> {
        CoreEvent::new(self.0.cell())
    }
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (*, ctx = None, _handle = None))]
    fn new(py: Python<'_>, ctx: Option<&Bound<'_, PyAny>>, _handle: Option<&[u8]>) -> PyResult<Self> {
        let _ = ctx;
        cell(py, Kind::Event, _handle).map(Event)
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
            (_, Some(error)) => Err(error),
            (Ok(()), None) => Ok(true),
            (Err(End::TimedOut | End::Stopped), None) => Ok(false),
        }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        let state = if slf.get().event().is_set() { "set" } else { "unset" };
        format!("<Event at {:p} {state}>", slf.as_ptr())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        reduce(slf.as_any(), &slf.get().0)
    }
}
