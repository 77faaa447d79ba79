//! `Counter`.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;

use super::wait::Given;
use super::{Reduced, cell, reduce};

/// An integer that any number of processes and threads may add to at once, without a lock.
///
/// It goes anywhere an argument goes, and is the same one wherever it arrives, copies included. Each method is one
/// atomic step, and sees what others did before.
///
/// Args:
///     initial: the value to begin with. Default: 0. Values are integers of 64 bits.
///
/// Raises:
///     TypeError: `initial` is no integer.
///     OverflowError: `initial` does not fit into 64 bits.
///
/// Example:
///     >>> hits = shoal.Counter()
///     >>> hits.add(3)
///     3
///     >>> hits.value
///     3
///     >>> hits.compare_and_set(3, 10)
///     True
///     >>> hits.exchange(0)
///     10
#[pyclass(frozen, subclass, weakref, module = "shoal.counters")]
pub struct Counter(Lease);

impl Counter {
    #[inline]
    fn number(&self) -> &AtomicU64 {
        &self.0.cell().number
    }

    fn plus(&self, n: i64) -> PyResult<i64> {
        // As one step: what was added first and then taken back would be seen in between, and stay after a death.
        let add = |value: u64| (value as i64).checked_add(n).map(|sum| sum as u64);
        let before = self.number().fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        before.map(|before| before as i64 + n).map_err(|_| PyOverflowError::new_err("a counter holds 64 bits"))
    }
}

/// The argument `name` as an integer of 64 bits.
#[inline]
fn int64(name: &str, value: &Bound<'_, PyAny>) -> PyResult<i64> {
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            return PyOverflowError::new_err(format!("{name} must fit into 64 bits, but is {value}"));
        }
        let kind = value.get_type().name().map_or_else(|_| "?".into(), |kind| kind.to_string());
        let value = value.repr().map_or_else(|_| "?".into(), |value| value.to_string());
        PyTypeError::new_err(format!("{name} must be an integer, not {kind} ({value})"))
    })
}

#[pymethods]
impl Counter {
    #[new]
    #[pyo3(signature = (initial = Given::Nothing, *, _handle = None), text_signature = "(initial=0, *, _handle=None)")]
    fn new(py: Python<'_>, initial: Given<'_>, _handle: Option<&[u8]>) -> PyResult<Self> {
        let initial = match initial {
            Given::Nothing => 0,
            Given::This(initial) => int64("initial", &initial)?,
        };
        let counter = cell(py, Kind::Cell, _handle).map(Counter)?;
        if _handle.is_none() {
            counter.number().store(initial as u64, Ordering::SeqCst);
        }
        Ok(counter)
    }

    /// Add `n`, in one atomic step, and return the value right after it: no two calls get the same for n = 1.
    ///
    /// Args:
    ///     n: what to add; may be negative. Default: 1.
    ///
    /// Raises:
    ///     TypeError: `n` is no integer.
    ///     OverflowError: `n`, or the sum, does not fit into 64 bits. The value is left as it was.
    ///
    /// Example:
    ///     >>> ticket = counter.add()
    #[pyo3(signature = (n = Given::Nothing), text_signature = "($self, n=1)")]
    fn add(&self, n: Given<'_>) -> PyResult<i64> {
        self.plus(match n {
            Given::Nothing => 1,
            Given::This(n) => int64("n", &n)?,
        })
    }

    fn __iadd__(&self, n: &Bound<'_, PyAny>) -> PyResult<()> {
        self.plus(int64("n", n)?).map(drop)
    }

    fn __isub__(&self, n: &Bound<'_, PyAny>) -> PyResult<()> {
        // What is no integer has no negative either; `int64` says so.
        let negative = n.call_method0("__index__").and_then(|n| n.neg());
        self.plus(int64("n", negative.as_ref().unwrap_or(n))?).map(drop)
    }

    /// Set the value, in one atomic step, and return the one before.
    ///
    /// Args:
    ///     value: the new value.
    ///
    /// Raises:
    ///     TypeError: `value` is no integer.
    ///     OverflowError: `value` does not fit into 64 bits.
    ///
    /// Example:
    ///     >>> seen_so_far = counter.exchange(0)
    fn exchange(&self, value: &Bound<'_, PyAny>) -> PyResult<i64> {
        Ok(self.number().swap(int64("value", value)? as u64, Ordering::SeqCst) as i64)
    }

    /// Set the value if it is as expected, in one atomic step, and tell whether it was.
    ///
    /// Args:
    ///     expected: what the value must be now.
    ///     value: the new value.
    ///
    /// Raises:
    ///     TypeError: one of them is no integer.
    ///     OverflowError: one of them does not fit into 64 bits.
    ///
    /// Example:
    ///     >>> if counter.compare_and_set(0, os.getpid()):
    ///     ...     print("I am the first")
    ///     I am the first
    fn compare_and_set(&self, expected: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let (expected, value) = (int64("expected", expected)? as u64, int64("value", value)? as u64);
        Ok(self.number().compare_exchange(expected, value, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    /// The value at this moment. Read-only: `value += 1` would lose what others add in between.
    #[getter]
    fn get_value(&self) -> i64 {
        self.number().load(Ordering::SeqCst) as i64
    }

    fn __int__(&self) -> i64 {
        self.get_value()
    }

    fn __repr__(&self) -> String {
        format!("<shoal.Counter, {}>", self.get_value())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        reduce(slf.as_any(), &slf.get().0)
    }
}
