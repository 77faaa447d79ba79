//! Python code that the engine calls: when somebody knocks, and to write what workers say.

#![allow(unsafe_code, reason = "a descriptor that Python lends")]

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::domain::host::Host;
use shoal_core::domain::voice::{Speaker, Speakers, Stream};

use crate::errors::OrRaise;
use crate::inside::Inside;
use crate::pool::speaking;

/// Call `function()`, once, on a thread of its own, when the descriptor `fd` is readable. The descriptor is duplicated.
#[pyfunction]
pub fn when_readable(py: Python<'_>, fd: i32, function: Py<PyAny>) -> PyResult<()> {
    if fd < 0 {
        return Err(PyValueError::new_err(format!("fd must be an open descriptor, not {fd}")));
    }
    // SAFETY: borrowed for this call only, in which the caller keeps it open; a number that names nothing is an error of
    // `dup`.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    Host::current().or_raise(py)?.when_readable(fd, || {
        let called = std::thread::Builder::new().name("shoal-call".into()).spawn(|| call(function));
        if let Err(error) = called {
            eprintln!("shoal: no thread could be started: {error}");
        }
    });
    Ok(())
}

/// `None` of the interpreter if it is ending: then nobody has to be called any more.
fn call(function: Py<PyAny>) {
    Python::try_attach(|py| {
        let _inside = Inside::enter(py);
        if let Err(error) = function.call0(py) {
            error.write_unraisable(py, Some(function.bind(py)));
        }
    });
}

/// Have what workers say on `stream` passed on by `function(bytes)`, which tells whether it could; no more with None. It is
/// called in a thread of the engine. Streams are "stdout" and "stderr", of which whole lines come, and "reports".
#[pyfunction]
#[pyo3(signature = (stream, function))]
pub fn speak_through(py: Python<'_>, stream: &str, function: Option<Py<PyAny>>) -> PyResult<()> {
    let stream = stream_of(stream)?;
    let speaker = function.map(|function| speaker(function, |py, function, bytes| function.call1(py, (bytes,))));
    Host::current().or_raise(py)?.speak_through(stream, speaker);
    Ok(())
}

/// Have `bytes` passed on as if a worker had said them on `stream`: behind all that was heard before, and without waiting
/// for it.
#[pyfunction]
pub fn say(py: Python<'_>, stream: &str, bytes: &[u8]) -> PyResult<()> {
    let stream = stream_of(stream)?;
    Host::current().or_raise(py)?.say(stream, bytes.to_vec());
    Ok(())
}

/// The names of streams, by their numbers.
const NAMES: [&str; 3] = ["stdout", "stderr", "reports"];

fn stream_of(name: &str) -> PyResult<Stream> {
    match name {
        "stdout" => Ok(Stream::Out),
        "stderr" => Ok(Stream::Err),
        "reports" => Ok(Stream::Report),
        _ => Err(PyValueError::new_err(format!("stream must be stdout, stderr or reports, not {name:?}"))),
    }
}

/// A pool's own: all that its workers say goes to `function(stream, bytes)`.
pub fn speakers(py: Python<'_>, function: &Py<PyAny>) -> Speakers {
    Speakers(NAMES.map(|name| {
        let function = function.clone_ref(py);
        Some(speaker(function, move |py, function, bytes| function.call1(py, (name, bytes))))
    }))
}

fn speaker(
    function: Py<PyAny>,
    call: impl for<'py> Fn(Python<'py>, &Py<PyAny>, Bound<'py, PyBytes>) -> PyResult<Py<PyAny>> + Send + Sync + 'static,
) -> Speaker {
    Arc::new(move |bytes: &[u8]| speaking(|| speak(&function, bytes, &call)).unwrap_or(false))
}

/// `None` of an interpreter that is ending.
fn speak(
    function: &Py<PyAny>,
    bytes: &[u8],
    call: impl for<'py> Fn(Python<'py>, &Py<PyAny>, Bound<'py, PyBytes>) -> PyResult<Py<PyAny>>,
) -> Option<bool> {
    Python::try_attach(|py| {
        let _inside = Inside::enter_unless_ending(py)?;
        let could = call(py, function, PyBytes::new(py, bytes)).and_then(|could| could.is_truthy(py));
        Some(could.unwrap_or_else(|error| {
            error.write_unraisable(py, Some(function.bind(py)));
            false
        }))
    })?
}
