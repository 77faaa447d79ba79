//! What became of a task, as a value or an exception.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::Error;
use shoal_core::memory::heap::Heap;
use shoal_core::pool::tasks::Outcome;

use crate::deaths;
use crate::errors::{OrRaise, exception, raise};
use crate::inside::Inside;
use crate::message::Reader;
use crate::wire::{self, result};

/// What became of a task, as a value or an exception.
pub fn resolve<'py>(py: Python<'py>, heap: &Arc<Heap>, outcome: &Outcome, name: &str) -> PyResult<Bound<'py, PyAny>> {
    match outcome {
        Outcome::Done { kind, payload, .. } => {
            let bytes = payload.bytes().or_raise(py)?;
            if *kind == result::VALUE {
                return wire::decode(py, bytes, &Reader { heap, views: None });
            }
            Err(load(py, bytes)?)
        }
        Outcome::Died(failed) => Err(deaths::worker_died(py, heap, name, failed)),
        Outcome::TimedOut(limit, failed) => Err(deaths::task_timeout(py, heap, name, *limit, failed)),
        &Outcome::OutOfSharedMemory { wanted, available, limit } => {
            Err(exception(py, Error::OutOfSharedMemory { wanted, available, limit }))
        }
        Outcome::Unreadable(why) => Err(raise(py, "ShoalError", (format!("the result can't be read: {why}"),))),
        Outcome::NoWorkers(why) => Err(raise(py, "ShoalError", (format!("workers cannot be started: {why}"),))),
        Outcome::Terminated => {
            Inside::stay_if_ending(py);
            Err(raise(py, "PoolClosed", ("the pool was terminated before the task was done",)))
        }
        Outcome::Cancelled => Err(cancelled(py, name)),
    }
}

/// The error of what was taken back.
pub fn cancelled(py: Python<'_>, name: &str) -> PyErr {
    let make = || py.import("concurrent.futures")?.getattr("CancelledError")?.call1((format!("{name} was cancelled"),));
    make().map_or_else(|error| error, PyErr::from_value)
}

/// An exception, as the worker dumped it.
pub fn load(py: Python<'_>, bytes: &[u8]) -> PyResult<PyErr> {
    let load = py.import("shoal.serialize.exceptions")?.getattr("load_exception")?;
    Ok(PyErr::from_value(load.call1((PyBytes::new(py, bytes),))?))
}
