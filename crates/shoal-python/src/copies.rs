//! Copies of large arrays, for calls that are submitted one by one and have arrays in common.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::message::{Snapshots, with_snapshots};
use crate::pool::{AsyncResult, PoolBase};

/// So many calls without an array, and its copy is forgotten.
const CALLS: u64 = 8;

/// What calls have in common: an array of `least` bytes or more is copied for the first one that has it, and as long as
/// one of the last calls had it, the next ones get it as it was then.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Copies {
    least: usize,
    /// Not here while something is pickled: that runs Python code, and other threads may submit meanwhile.
    snapshots: Mutex<Option<Snapshots>>,
}

#[pymethods]
impl Copies {
    #[new]
    fn new(least: usize) -> Copies {
        Copies { least, snapshots: Mutex::default() }
    }

    /// As `PoolBase.submit_call`.
    fn submit_call(
        &self,
        py: Python<'_>,
        pool: &PoolBase,
        func: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
    ) -> PyResult<Py<AsyncResult>> {
        let lock = || self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshots = lock().take().unwrap_or_else(|| Snapshots::of_large(self.least));
        snapshots.forget_unused(CALLS);
        let task = with_snapshots(&mut snapshots, || pool.submit_call(py, func, args, None, None));
        let former = lock().replace(snapshots);
        // With nothing locked any more: what goes here may run Python code.
        drop(former);
        task
    }
}
