//! Threads that stand for threads of another machine.

use std::sync::Arc;

use pyo3::exceptions::PyInterruptedError;
use pyo3::prelude::*;
use shoal_core::domain::stand_in::{self, StandIn as CoreStandIn, Twin as CoreTwin};

use crate::errors::OrRaise;

/// What stands here for a process of another machine: what it takes passes on when this and all its twins have ended.
#[pyclass(frozen, module = "shoal._engine")]
pub struct StandIn(Arc<CoreStandIn>);

#[pymethods]
impl StandIn {
    #[new]
    fn new() -> Self {
        StandIn(Arc::default())
    }

    /// What stands for one of its threads.
    fn twin(&self) -> Twin {
        Twin(CoreTwin::new(self.0.clone()))
    }
}

/// What stands here for a thread of another machine.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Twin(Arc<CoreTwin>);

#[pymethods]
impl Twin {
    /// The calling thread is it, until it ends.
    fn begin(&self) {
        self.0.begin();
    }

    /// What the calling thread, which is it, takes from now on it takes for the process it stands for.
    fn own(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.own()).or_raise(py)
    }

    /// Call something that does not wait for the process it stands for, from a thread that is not it.
    fn lend(&self, py: Python<'_>, function: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Ok(self.0.lend(|| function.call0()).or_raise(py)??.unbind())
    }

    /// End its waiting with an InterruptedError, now and for good: the process that it stands for has ended.
    fn end(&self) {
        self.0.end();
    }

    /// End its waiting with an InterruptedError, now and later; no more with False.
    #[pyo3(signature = (recalled = true))]
    fn recall(&self, recalled: bool) {
        self.0.recall(recalled);
    }
}

/// The exception of a signal handler, if a signal came in; or of a twin that is to wait no longer.
pub fn interruption(py: Python<'_>) -> PyResult<()> {
    py.check_signals()?;
    if stand_in::is_recalled() { Err(PyInterruptedError::new_err("the waiting was ended")) } else { Ok(()) }
}
