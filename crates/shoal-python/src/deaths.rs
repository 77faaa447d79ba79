//! A task whose worker died, as an exception that tells what is known.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use shoal_core::memory::heap::Heap;
use shoal_core::pool::death::{Cause, Death};
use shoal_core::pool::tasks::Failed;

use crate::message::{self, Reader};
use crate::terms;
use crate::wire::{self, call};

/// Arguments that are larger are not read again only to be named in a message.
const LARGE: usize = 64 << 10;

/// The worker died at the task, at each of its tries.
pub fn worker_died(py: Python<'_>, heap: &Arc<Heap>, name: &str, failed: &Failed) -> PyErr {
    made(worker_died_of(py, heap, name, failed))
}

/// The task took longer than it may.
pub fn task_timeout(py: Python<'_>, heap: &Arc<Heap>, name: &str, limit: Duration, failed: &Failed) -> PyErr {
    made(task_timeout_of(py, heap, name, limit, failed))
}

fn made(error: PyResult<Bound<'_, PyAny>>) -> PyErr {
    error.map_or_else(|error| error, PyErr::from_value)
}

fn worker_died_of<'py>(py: Python<'py>, heap: &Arc<Heap>, name: &str, failed: &Failed) -> PyResult<Bound<'py, PyAny>> {
    let deaths: Vec<_> = failed.all().iter().map(|death| facts(py, death)).collect::<PyResult<_>>()?;
    let make = py.import("shoal.deaths")?.getattr("worker_died")?;
    make.call1((name, call_of(py, heap, failed), failed.tries(), deaths))
}

fn task_timeout_of<'py>(
    py: Python<'py>,
    heap: &Arc<Heap>,
    name: &str,
    limit: Duration,
    failed: &Failed,
) -> PyResult<Bound<'py, PyAny>> {
    let make = py.import("shoal.deaths")?.getattr("task_timeout")?;
    let death = facts(py, failed.last())?;
    make.call1((name, call_of(py, heap, failed), failed.tries(), limit.as_secs_f64(), death))
}

/// (pid, exit code, seconds it lived, cause, two numbers of that, last words, answer to the question where it is).
fn facts<'py>(py: Python<'py>, death: &Death) -> PyResult<Bound<'py, PyTuple>> {
    let (cause, one, other) = match death.cause {
        Cause::Unknown => ("", 0.0, 0.0),
        Cause::OutOfMemory => ("oom", 0.0, 0.0),
        Cause::TimedOut(limit) => ("timeout", limit.as_secs_f64(), 0.0),
        Cause::MemoryLimit { used, limit } => ("memory", used as f64, limit as f64),
    };
    let uptime = death.uptime.as_secs_f64();
    (death.pid, death.code, uptime, cause, one, other, &*death.words, &*death.answer).into_pyobject(py)
}

/// The arguments of the task, as ("call", args, kwargs) or ("items", items); None if they can't be had: what matters is
/// the death. What a pickle would call to make objects is not called, for it may be what the worker died of.
fn call_of<'py>(py: Python<'py>, heap: &Arc<Heap>, failed: &Failed) -> Option<Bound<'py, PyAny>> {
    let (kind, _) = call::split(failed.kind());
    let arguments = failed.arguments(LARGE)?;
    let (payload, _) = terms::split(failed.kind(), &arguments);
    let reader = Reader { heap, views: None };
    let loads = py.import("shoal.described").and_then(|module| module.getattr("loads")).ok()?;
    let unpickle = |bytes| message::unpickle_by(py, &loads, bytes, &reader);
    let decode = |bytes| match wire::pickle_in(bytes) {
        Some(pickle) => unpickle(pickle),
        None => wire::decode(py, bytes, &reader),
    };
    let read = || -> PyResult<Option<Bound<'py, PyAny>>> {
        let tuple = match kind {
            call::EMPTY => ("call", (), py.None()).into_pyobject(py)?,
            call::ONE => ("call", (decode(payload)?,), py.None()).into_pyobject(py)?,
            call::STAR => ("call", decode(payload)?, py.None()).into_pyobject(py)?,
            call::PICKLED => {
                let (args, kwargs): (Bound<'_, PyAny>, Bound<'_, PyAny>) = unpickle(payload)?.extract()?;
                ("call", args, kwargs).into_pyobject(py)?
            }
            kind if call::is_chunk(kind) && kind & call::APART == 0 => {
                ("items", unpickle(payload)?, py.None()).into_pyobject(py)?
            }
            _ => return Ok(None),
        };
        Ok(Some(tuple.into_any()))
    };
    read().ok().flatten()
}
