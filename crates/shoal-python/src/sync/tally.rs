//! Counts of progress bars: what `update` adds to, and a function that counts its calls.

use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt, PyString, PyTuple};
use shoal_core::memory::heap::Lease;
use shoal_core::memory::lease::Kind;
use shoal_core::sync::tally::{Amount, Tally};

use super::{Reduced, cell, reduce};

/// A number in shared memory that any process may add to.
#[pyclass(frozen, module = "shoal._engine")]
pub struct RawTally(Lease);

impl RawTally {
    fn add(&self, n: i64) -> PyResult<()> {
        match Tally::new(self.0.cell()).add(n) {
            true => Ok(()),
            false => Err(PyOverflowError::new_err("a bar counts in 64 bits")),
        }
    }
}

#[pymethods]
impl RawTally {
    #[new]
    #[pyo3(signature = (*, _handle = None))]
    fn new(py: Python<'_>, _handle: Option<&[u8]>) -> PyResult<Self> {
        cell(py, Kind::Cell, _handle).map(RawTally)
    }

    /// Add `n`, an integer or a float.
    fn update(&self, n: &Bound<'_, PyAny>) -> PyResult<()> {
        match amount(n)? {
            Amount::Whole(n) => self.add(n),
            Amount::Real(n) => {
                Tally::new(self.0.cell()).add_real(n);
                Ok(())
            }
        }
    }

    /// The number: an int as long as no float was added.
    #[getter]
    fn get_n<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match Tally::new(self.0.cell()).amount() {
            Amount::Whole(n) => n.into_pyobject(py)?.into_any(),
            Amount::Real(n) => n.into_pyobject(py)?.into_any(),
        })
    }

    #[setter]
    fn set_n(&self, n: &Bound<'_, PyAny>) -> PyResult<()> {
        Tally::new(self.0.cell()).set(amount(n)?);
        Ok(())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        reduce(slf.as_any(), &slf.get().0)
    }
}

/// A number of Python's: what has an `__index__` is an integer, what has a `__float__` a fraction.
fn amount(n: &Bound<'_, PyAny>) -> PyResult<Amount> {
    let fits = |n: PyResult<i64>| n.map(Amount::Whole).map_err(|_| PyOverflowError::new_err("n must fit into 64 bits"));
    if n.is_exact_instance_of::<PyInt>() {
        return fits(n.extract());
    }
    if let Ok(n) = n.cast_exact::<PyFloat>() {
        return Ok(Amount::Real(n.value()));
    }
    if n.hasattr("__index__")? {
        return fits(n.call_method0("__index__")?.extract());
    }
    if !n.is_instance_of::<PyString>() && n.hasattr("__float__")? {
        return Ok(Amount::Real(n.extract()?));
    }
    let (kind, text) = (n.get_type().name()?, n.repr()?);
    Err(PyTypeError::new_err(format!("n must be a number, not {kind} ({text})")))
}

/// A function whose calls are counted when they have ended: in whatever way, or only if they returned.
#[pyclass(frozen, module = "shoal._engine")]
pub struct Counted {
    #[pyo3(get, name = "__wrapped__")]
    function: Py<PyAny>,
    #[pyo3(get)]
    tally: Py<RawTally>,
    #[pyo3(get)]
    failures: bool,
}

#[pymethods]
impl Counted {
    #[new]
    #[pyo3(signature = (function, tally, failures = true))]
    fn new(function: Py<PyAny>, tally: Py<RawTally>, failures: bool) -> Self {
        Counted { function, tally, failures }
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let result = self.function.bind(args.py()).call(args, kwargs);
        if self.failures || result.is_ok() {
            self.tally.get().add(1)?;
        }
        result
    }

    /// The function's own name: errors speak of that.
    #[getter]
    fn __qualname__(&self, py: Python<'_>) -> String {
        crate::wire::name_of(self.function.bind(py))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyAny>, (Py<PyAny>, Py<RawTally>, bool)) {
        (py.get_type::<Counted>().into_any(), (self.function.clone_ref(py), self.tally.clone_ref(py), self.failures))
    }
}
