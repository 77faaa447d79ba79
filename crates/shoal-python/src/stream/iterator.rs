//! `imap` and `imap_unordered`: results are handed out as they come, and let go of.

use std::time::Instant;

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{PyTraverseError, PyVisit};
use shoal_core::sync::bell::Tone;

use super::turn::{Turn, Turns};
use super::{Plan, State};
use crate::inside::Inside;
use crate::pool::PoolBase;

/// The results of `imap` and `imap_unordered`, as they come.
#[pyclass(frozen, weakref, name = "IMapIterator", module = "shoal._engine")]
pub struct IMapIterator(Turns<State>);

#[pymethods]
impl IMapIterator {
    /// Begins to send. `owner` is kept as long as there is something to come.
    #[new]
    #[pyo3(signature = (base, owner, func, items, chunksize, buffersize, ordered))]
    #[allow(clippy::too_many_arguments)] // the signature that Python sees
    fn new(
        py: Python<'_>,
        base: &PoolBase,
        owner: Py<PyAny>,
        func: &Bound<'_, PyAny>,
        items: &Bound<'_, PyAny>,
        chunksize: Option<usize>,
        buffersize: Option<usize>,
        ordered: bool,
    ) -> PyResult<Self> {
        let _inside = Inside::enter(py);
        let plan = Plan { func, items, chunksize, buffersize, star: false, ordered, keep: false };
        let mut state = State::new(base, Some(owner), &plan)?;
        state.pump(py);
        Ok(IMapIterator(Turns::new(state)))
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.next(py, None)
    }

    /// The next result.
    ///
    /// Raises StopIteration if there are no more, multiprocessing.TimeoutError if it is not there within `timeout`
    /// seconds (it can be asked for again), and in its place what the task raised.
    #[pyo3(signature = (timeout = None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let _inside = Inside::enter(py);
        let value = match self.0.take(py, timeout)? {
            Turn::Mine(mut state) => state.next(py, timeout)?,
            Turn::Closed => return Err(PyStopIteration::new_err(())),
            Turn::TimedOut => None,
        };
        match value {
            Some(value) => Ok(value),
            None => Err(PyErr::from_value(py.import("multiprocessing")?.getattr("TimeoutError")?.call0()?)),
        }
    }

    /// Read no more of the input, take back what no worker has begun, and let go of all results. What workers are at,
    /// they end.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let _inside = Inside::enter(py);
        if let Turn::Mine(state) = self.0.take(py, None)? {
            py.detach(|| state.batches.stop(false));
            drop(state.close());
        }
        Ok(())
    }

    /// Read the input to its end, and wait until everything is done; the results stay.
    fn _read_all(&self, py: Python<'_>) -> PyResult<()> {
        let _inside = Inside::enter(py);
        let Turn::Mine(mut state) = self.0.take(py, None)? else { return Ok(()) };
        state.ahead.unlimit();
        loop {
            state.pump(py);
            if state.is_over() {
                return Ok(());
            }
            state.wait(py, Tone::Completion, None, Instant::now(), || false)?;
        }
    }

    #[classmethod]
    fn __class_getitem__(cls: &Bound<'_, PyType>, _item: &Bound<'_, PyAny>) -> Py<PyType> {
        cls.clone().unbind()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let looked = self.0.look(|state| {
            visit.call(&state.owner)?;
            visit.call(&state.input)
        });
        looked.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        drop(self.0.clear());
    }
}
