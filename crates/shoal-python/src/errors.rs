//! Errors of the engine as exceptions: the one place that maps them, and maps them all.

use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyBrokenPipeError, PyException, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use shoal_core::Error;

use crate::inside::Inside;

/// An exception of `shoal.errors`, made from its arguments.
pub fn raise<'py>(py: Python<'py>, name: &str, args: impl PyCallArgs<'py>) -> PyErr {
    let made = py.import("shoal.errors").and_then(|errors| errors.getattr(name)?.call1(args));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// The exception for an error of the engine.
pub fn exception(py: Python<'_>, error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::OutOfSharedMemory { .. } => raise(py, "OutOfSharedMemory", (text,)),
        Error::PoolClosed | Error::Forked => {
            Inside::stay_if_ending(py);
            raise(py, "PoolClosed", (text,))
        }
        Error::CannotStart(_) | Error::Gone | Error::Refused | Error::Damaged(_) | Error::Inherited => {
            raise(py, "ShoalError", (text,))
        }
        Error::Workers { .. } | Error::TooManyHolders(_) => PyValueError::new_err(text),
        Error::Host(error) => PyOSError::new_err((error.raw_os_error().unwrap_or(0), text)),
        Error::Os(error) if error.kind() == std::io::ErrorKind::BrokenPipe => PyBrokenPipeError::new_err(text),
        Error::Os(error) => match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, error.to_string())),
            None => PyRuntimeError::new_err(text),
        },
    }
}

/// The exception for bytes from another process that are not what they should be: somebody has written over them.
pub fn damaged(what: &'static str) -> PyErr {
    Python::attach(|py| exception(py, Error::Damaged(what)))
}

/// Whether an exception met on the way is Ctrl-C or the like, which came while code of the user's was running here, as
/// items are read, pickled and unpickled by it. It concerns whoever waits, at once, and not the item. (What a task raised
/// has its remote traceback as the cause.)
pub fn is_interrupt(py: Python<'_>, error: &PyErr) -> bool {
    !error.is_instance_of::<PyException>(py) && error.cause(py).is_none()
}

/// Maps the error of a result.
pub trait OrRaise<T> {
    /// The value, or the exception for the error.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for shoal_core::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, error))
    }
}
