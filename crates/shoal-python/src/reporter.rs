//! How Python code in a worker tells the client something.

use pyo3::prelude::*;
use shoal_core::pool::reporter::Reporter as CoreReporter;

use crate::errors::OrRaise;

/// A worker's way to its client, for whatever is not a result.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Reporter(pub CoreReporter);

#[pymethods]
impl Reporter {
    /// Send a message; waits while too many are on their way.
    fn report(&self, py: Python<'_>, message: &[u8]) -> PyResult<()> {
        py.detach(|| self.0.report(message)).or_raise(py)
    }

    /// Something was written to a stream that the client listens to: the task's result is to come behind it.
    fn spoke(&self) {
        self.0.spoke();
    }

    /// The number of the task that the worker is at; None between tasks.
    #[getter]
    fn task(&self) -> Option<u64> {
        self.0.task()
    }
}
