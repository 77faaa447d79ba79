//! Waiting in the engine, detached from the interpreter, with an ear for Ctrl-C.

use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use shoal_core::sync::lock::Acquired;
use shoal_core::sync::patience::Patience;

use super::stand_in::interruption;
use crate::errors::raise;
use crate::inside::Inside;

/// Any object, as the truth value it has.
pub struct Truth(pub bool);

impl<'a, 'py> FromPyObject<'a, 'py> for Truth {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        object.is_truthy().map(Truth)
    }
}

/// An argument that may be left out, as it was given: None is not the same as nothing.
pub enum Given<'py> {
    /// It was left out.
    Nothing,
    /// It was given.
    This(Bound<'py, PyAny>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Given<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Given::This(object.to_owned()))
    }
}

/// A timeout as the engine takes it: no less than nothing, and `None` if nobody lives to see the end of it.
pub fn duration(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    let Some(timeout) = timeout else { return Ok(None) };
    let seconds: f64 = timeout.extract().map_err(|_| {
        let (kind, value) = (timeout.get_type().name(), timeout.repr());
        let kind = kind.map_or_else(|_| "?".into(), |kind| kind.to_string());
        let value = value.map_or_else(|_| "?".into(), |value| value.to_string());
        PyTypeError::new_err(format!("timeout must be a number of seconds or None, not {kind} ({value})"))
    })?;
    if seconds.is_nan() {
        return Err(PyValueError::new_err("timeout must be a number of seconds or None, not NaN"));
    }
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).ok())
}

/// Waits. What came of it, and the exception of a signal handler that ended it.
pub fn patiently<T: Send>(
    py: Python<'_>,
    timeout: Option<Duration>,
    wait: impl FnOnce(&mut Patience<'_>) -> T + Send,
) -> (T, Option<PyErr>) {
    let _inside = Inside::enter(py);
    let mut raised = None;
    let result = py.detach(|| {
        let mut stop = || {
            raised = Python::attach(interruption).err();
            raised.is_some()
        };
        wait(&mut Patience::within(timeout).unless(&mut stop))
    });
    (result, raised)
}

/// Takes a lock; waits for it, if `block` says so. Whether it was got.
#[inline]
pub fn acquire(
    py: Python<'_>,
    block: bool,
    timeout: Option<&Bound<'_, PyAny>>,
    now: impl FnOnce() -> Acquired,
    wait: impl FnOnce(&mut Patience<'_>) -> Acquired + Send,
) -> PyResult<bool> {
    // Before anything is taken.
    let timeout = if block && timeout.is_some() { duration(timeout)? } else { None };
    match now() {
        Acquired::Yes => Ok(true),
        Acquired::TimedOut if block => wait_for(py, timeout, wait),
        Acquired::TimedOut | Acquired::Interrupted => Ok(false),
        Acquired::Abandoned => Err(abandoned(py)),
    }
}

#[cold]
fn wait_for(
    py: Python<'_>,
    timeout: Option<Duration>,
    wait: impl FnOnce(&mut Patience<'_>) -> Acquired + Send,
) -> PyResult<bool> {
    match patiently(py, timeout, wait) {
        // Who is interrupted takes nothing.
        (_, Some(error)) => Err(error),
        (Acquired::Yes, None) => Ok(true),
        (Acquired::TimedOut | Acquired::Interrupted, None) => Ok(false),
        (Acquired::Abandoned, None) => Err(abandoned(py)),
    }
}

/// What who asked for it is told about a lock whose holder died.
pub fn abandoned(py: Python<'_>) -> PyErr {
    let text = "the process that held the lock died in it: what it guards may be half changed (see repair())";
    raise(py, "LockAbandoned", (text,))
}
