//! Python code that the engine calls: when somebody knocks, and to write what workers say.

#![allow(unsafe_code, reason = "a descriptor that Python lends")]

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shoal_core::domain::host::Host;
use shoal_core::domain::voice::{Speaker, Stream};

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
    let stream = match stream {
        "stdout" => Stream::Out,
        "stderr" => Stream::Err,
        "reports" => Stream::Report,
        _ => return Err(PyValueError::new_err(format!("stream must be stdout, stderr or reports, not {stream:?}"))),
    };
    let speaker = function.map(|function| -> Speaker {
        Arc::new(move |bytes: &[u8]| speaking(|| speak(&function, bytes)).unwrap_or(false))
    });
    Host::current().or_raise(py)?.speak_through(stream, speaker);
    Ok(())
}

/// `None` of an interpreter that is ending.
fn speak(function: &Py<PyAny>, bytes: &[u8]) -> Option<bool> {
    Python::try_attach(|py| {
        let _inside = Inside::enter_unless_ending(py)?;
        let could = function.call1(py, (PyBytes::new(py, bytes),)).and_then(|could| could.is_truthy(py));
        Some(could.unwrap_or_else(|error| {
            error.write_unraisable(py, Some(function.bind(py)));
            false
        }))
    })?
}
