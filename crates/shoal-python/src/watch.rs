//! Python code that is called when somebody knocks: no thread has to wait for it.

use std::os::fd::BorrowedFd;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shoal_core::domain::host::Host;

use crate::errors::OrRaise;
use crate::pool::Inside;

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
